/** JSON Patch (RFC 6902), as the API server takes it with `application/json-patch+json`. */

export type JsonPatchOp = {
  readonly op: 'test' | 'add' | 'replace' | 'remove';
  /** A JSON pointer (RFC 6901) with its keys escaped. */
  readonly path: string;
  /** Absent for `remove`. */
  readonly value?: unknown;
};

/** A map's key as one step of a JSON pointer (RFC 6901, section 3). */
export const escapePointer = (key: string): string => key.replaceAll('~', '~0').replaceAll('/', '~1');
