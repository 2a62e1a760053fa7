/**
 * Combinators over io-ts from which the configuration's codec is built.
 *
 * io-ts brings decoding that collects every error with its place. These add what its own combinators lack: unknown
 * keys are refused by name (`t.type` keeps them, `t.strict` drops them silently), defaults, descriptions for the JSON
 * Schema, and a context whose keys are the field path that a user reads (`sites`, `[1]`, `peerCIDRs`), never the
 * numeric steps of a union.
 */
import * as t from 'io-ts';
import * as E from 'fp-ts/lib/Either.js';

/** A subset of JSON Schema (draft 2020-12, also valid as Kubernetes' openAPIV3Schema). */
export interface JsonSchema {
  type?: string;
  description?: string;
  default?: unknown;
  enum?: readonly unknown[];
  pattern?: string;
  minimum?: number;
  maximum?: number;
  maxLength?: number;
  nullable?: boolean;
  items?: JsonSchema;
  minItems?: number;
  oneOf?: JsonSchema[];
  properties?: Record<string, JsonSchema>;
  required?: string[];
  additionalProperties?: boolean;
}

/** A codec from `unknown` that knows its own JSON Schema. Its encoding is the identity: the canonical form is plain JSON. */
export class Codec<A> extends t.Type<A, A> {
  readonly schema: JsonSchema;
  constructor(name: string, schema: JsonSchema, validate: t.Validate<unknown, A>) {
    super(name, (u): u is A => E.isRight(this.decode(u)), validate, t.identity);
    this.schema = schema;
  }
}

/** One thing wrong with the input. `message` never quotes the value: it may be a secret. */
export interface Problem {
  /** As users write it: `spec.sites[1].peerCIDRs[0]`; empty for the document itself. */
  readonly path: string;
  readonly message: string;
  /** A value that would be accepted in the rejected one's place. */
  readonly proposed?: unknown;
}

interface DetailedError extends t.ValidationError {
  readonly proposed?: unknown;
}

export function fail<A>(value: unknown, context: t.Context, message: string, proposed?: unknown): t.Validation<A> {
  const error: DetailedError = { value, context, message, ...(proposed === undefined ? {} : { proposed }) };
  return E.left([error]);
}

/** The problems of a failed decoding, in the order in which the fields were read. */
export function problems(errors: t.Errors): Problem[] {
  return errors.map((error: DetailedError) => ({
    path: error.context
      .slice(1)
      .map(({ key }) => key)
      .reduce((path, key) => (path === '' || key.startsWith('[') ? path + key : `${path}.${key}`), ''),
    message: error.message ?? 'is not valid',
    ...(error.proposed === undefined ? {} : { proposed: error.proposed }),
  }));
}

/** What a value is, in a user's words. */
export function nameOf(value: unknown): string {
  if (value === null || value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a map';
  if (typeof value === 'string') return 'text';
  return `a ${typeof value}`;
}

/** A scalar of type string that `parse` accepts and normalises. `parse` answers a problem with a message. */
export function text<A extends string>(
  name: string,
  schema: JsonSchema,
  parse: (s: string) => A | { message: string; proposed?: string },
): Codec<A> {
  return new Codec(name, { type: 'string', ...schema }, (u, c) => {
    if (typeof u !== 'string') {
      const cure = typeof u === 'number' || typeof u === 'boolean' ? '; put it in quotes' : '';
      return fail(u, c, `expected text, found ${nameOf(u)}${cure}`);
    }
    const parsed = parse(u);
    return typeof parsed === 'string' ? t.success(parsed) : fail(u, c, parsed.message, parsed.proposed);
  });
}

export const flag = new Codec<boolean>('boolean', { type: 'boolean' }, (u, c) =>
  typeof u === 'boolean' ? t.success(u) : fail(u, c, `expected true or false, found ${nameOf(u)}`),
);

/** A whole number between two bounds, both included. */
export function integer(minimum: number, maximum: number, unit: string): Codec<number> {
  return new Codec('integer', { type: 'integer', minimum, maximum }, (u, c) => {
    if (typeof u === 'string' && /^\d+$/.test(u)) return fail(u, c, 'expected a number; remove the quotes', Number(u));
    if (typeof u !== 'number') return fail(u, c, `expected a whole number of ${unit}, found ${nameOf(u)}`);
    if (!Number.isInteger(u) || u < minimum || u > maximum)
      return fail(u, c, `expected a whole number of ${unit} from ${minimum} to ${maximum}`);
    return t.success(u);
  });
}

export function oneOf<const A extends string>(values: readonly A[]): Codec<A> {
  return text('choice', { enum: values }, (s) => {
    const found = values.find((v) => v === s);
    if (found !== undefined) return found;
    const near = nearest(s, values);
    return { message: `expected one of ${values.join(', ')}`, ...(near === undefined ? {} : { proposed: near }) };
  });
}

/** A list in its own order; every item's problems are collected. */
export function list<A>(item: Codec<A>, minItems = 0): Codec<A[]> {
  const schema = { type: 'array', items: item.schema, ...(minItems > 0 ? { minItems } : {}) };
  return new Codec('list', schema, (u, c) => {
    if (!Array.isArray(u)) return fail(u, c, `expected a list, found ${nameOf(u)}`);
    if (u.length < minItems) return fail(u, c, 'needs at least one entry');
    const errors: t.Errors = [];
    const values: A[] = [];
    u.forEach((v, i) => {
      const result = item.validate(v, c);
      if (E.isRight(result)) values.push(result.right);
      // Only what fails needs to know its place; there may be thousands of entries.
      else errors.push(...leftOf(item.validate(v, t.appendContext(c, `[${i}]`, item, v))));
    });
    return errors.length > 0 ? t.failures(errors) : t.success(values);
  });
}

const leftOf = (result: t.Validation<unknown>): t.Errors => (E.isLeft(result) ? result.left : []);

/** A list, or one item in place of a list of one. Canonical: the list. */
export function oneOrMany<A>(many: Codec<A[]>, one: Codec<A>): Codec<A[]> {
  return new Codec('oneOrMany', { oneOf: [one.schema, many.schema] }, (u, c) => {
    if (Array.isArray(u)) return many.validate(u, c);
    const result = one.validate(u, c);
    return E.isLeft(result) ? result : t.success([result.right]);
  });
}

interface Field<A, Kind extends 'required' | 'optional' | 'default'> {
  readonly kind: Kind;
  readonly codec: Codec<A>;
  readonly description: string;
  readonly default?: A;
}

export const required = <A>(codec: Codec<A>, description: string): Field<A, 'required'> => ({
  kind: 'required',
  codec,
  description,
});
export const optional = <A>(codec: Codec<A>, description: string): Field<A, 'optional'> => ({
  kind: 'optional',
  codec,
  description,
});
export const withDefault = <A>(codec: Codec<A>, value: A, description: string): Field<A, 'default'> => ({
  kind: 'default',
  codec,
  description,
  default: value,
});

// `any` here only says "a field of some type"; each field's own type is kept by the mapped type below.
// oxlint-disable-next-line typescript/no-explicit-any
type Fields = Record<string, Field<any, 'required' | 'optional' | 'default'>>;
type ValueOf<F> = F extends Field<infer A, 'required' | 'optional' | 'default'> ? A : never;
type OptionalKeys<F extends Fields> = { [K in keyof F]: F[K]['kind'] extends 'optional' ? K : never }[keyof F];
export type Decoded<F extends Fields> = { [K in Exclude<keyof F, OptionalKeys<F>>]: ValueOf<F[K]> } & {
  [K in OptionalKeys<F>]?: ValueOf<F[K]>;
};

/**
 * A map with exactly these fields. A field that is absent or null takes its default, unless its codec is nullable:
 * there null is a value. `name` is the field's name in messages about missing and unknown keys.
 */
export function object<F extends Fields>(name: string, fields: F): Codec<Decoded<F>> {
  const entries = Object.entries(fields);
  return new Codec<Decoded<F>>(name, objectSchema(entries), (u, c) => {
    if (typeof u !== 'object' || u === null || Array.isArray(u))
      return fail(u, c, `expected a map of fields (${Object.keys(fields).join(', ')}), found ${nameOf(u)}`);
    const input = u as Record<string, unknown>;
    const errors: t.Errors = [];
    const output: Record<string, unknown> = {};
    for (const [key, field] of entries) {
      const result = decodeField(field, Object.hasOwn(input, key) ? input[key] : undefined, c, key);
      if (E.isLeft(result)) errors.push(...result.left);
      else if (result.right !== undefined) output[key] = result.right;
    }
    errors.push(...unknownKeys(input, Object.keys(fields), c));
    return errors.length > 0 ? t.failures(errors) : t.success(output as Decoded<F>);
  });
}

/** The field's value or default; undefined for an optional one that is absent. */
function decodeField(field: Fields[string], value: unknown, c: t.Context, key: string): t.Validation<unknown> {
  const context = t.appendContext(c, key, field.codec, value);
  const absent = value === undefined || (value === null && field.codec.schema.nullable !== true);
  if (!absent) return field.codec.validate(value, context);
  return field.kind === 'required' ? fail(value, context, 'is missing') : t.success(structuredClone(field.default));
}

function objectSchema(entries: [string, Fields[string]][]): JsonSchema {
  const needed = entries.filter(([, { kind }]) => kind === 'required').map(([key]) => key);
  return {
    type: 'object',
    properties: Object.fromEntries(
      entries.map(([key, field]) => [
        key,
        {
          ...field.codec.schema,
          // null is as good as absent: a kustomize patch takes a default away with it
          ...(field.kind === 'required' ? {} : { nullable: true }),
          description: field.description,
          ...(field.default === undefined ? {} : { default: field.default }),
        },
      ]),
    ),
    ...(needed.length > 0 ? { required: needed } : {}),
    additionalProperties: false,
  };
}

function unknownKeys(input: Record<string, unknown>, known: readonly string[], c: t.Context): t.Errors {
  return Object.keys(input)
    .filter((key) => !known.includes(key))
    .map((key) => {
      const near = nearest(key, known);
      const hint = near === undefined ? `known fields: ${known.join(', ')}` : `did you mean ${near}?`;
      return {
        value: undefined,
        context: t.appendContext(c, key, t.unknown),
        message: `is not a known field; ${hint}`,
      };
    });
}

/** A codec with a last step to canonical form. */
export function map<A, B>(codec: Codec<A>, finish: (a: A) => B): Codec<B> {
  return new Codec(codec.name, codec.schema, (u, c) => E.map(finish)(codec.validate(u, c)));
}

/**
 * A codec of a map with checks across its fields. They read the input as it came, so that a bad field hides none of
 * their findings; a field that is null counts as absent.
 */
export function checked<A>(codec: Codec<A>, check: (input: Record<string, unknown>) => Problem[]): Codec<A> {
  return new Codec(codec.name, codec.schema, (u, c) => {
    const result = codec.validate(u, c);
    if (nameOf(u) !== 'a map') return result;
    const present = Object.entries(u as object).filter(([, value]) => value !== null && value !== undefined);
    const found: t.Errors = check(Object.fromEntries(present)).map(({ path, message }) => ({
      value: undefined,
      context: path === '' ? c : t.appendContext(c, path, t.unknown),
      message,
    }));
    if (found.length === 0) return result;
    return t.failures(E.isLeft(result) ? [...found, ...result.left] : found);
  });
}

/** The candidate that `word` was likely meant to be: one that begins alike, or the nearest within a few letters. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const lower = word.toLowerCase();
  const limit = Math.max(1, Math.floor(word.length / 3));
  const ranked = candidates
    .map((candidate) => ({ candidate, distance: distance(lower, candidate.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance);
  const best = ranked[0];
  if (best !== undefined && best.distance <= limit) return best.candidate;
  const alike = candidates.filter((candidate) => word.length >= 3 && candidate.toLowerCase().startsWith(lower));
  return alike.length === 1 ? alike[0] : undefined;
}

/** Edit distance, with two letters changed round as one edit (optimal string alignment). */
function distance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  const at = (i: number, j: number): number => rows[i]?.[j] ?? Infinity;
  for (let i = 1; i <= a.length; i++) {
    rows.push([i]);
    for (let j = 1; j <= b.length; j++) {
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? at(i - 2, j - 2) + 1 : Infinity;
      const replaced = at(i - 1, j - 1) + Number(a[i - 1] !== b[j - 1]);
      rows[i]?.push(Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, replaced, swapped));
    }
  }
  return at(a.length, b.length);
}
