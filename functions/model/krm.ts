/** The vocabulary of KRM functions: functions spec v1, cmd/config/docs/api-conventions/functions-spec.md in kustomize. */

/** Any object of the list: Kubernetes' own, and also kustomization files without kind or name. Never changed in place. */
export type Item = { readonly [key: string]: unknown };

export type Severity = 'error' | 'warning' | 'info';

export interface ResourceRef {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly namespace?: string;
}

/** One finding. `message` is a sentence that says what to do; no field ever holds a secret. */
export interface Result {
  readonly message: string;
  readonly severity: Severity;
  readonly resourceRef?: ResourceRef;
  readonly field?: { readonly path: string; readonly currentValue?: unknown; readonly proposedValue?: unknown };
  readonly file?: { readonly path: string; readonly index?: number };
}

export interface Outcome {
  readonly items: readonly Item[];
  readonly results: readonly Result[];
}

/** A plain scalar kept as it was written, because YAML versions disagree on it. Immutable. */
export class Verbatim {
  readonly source: string;
  constructor(source: string) {
    this.source = source;
  }
  toJSON(): string {
    return this.source;
  }
}

export function isRecord(u: unknown): u is Record<string, unknown> {
  return typeof u === 'object' && u !== null && !Array.isArray(u) && !(u instanceof Verbatim);
}

/** Follows a path of map keys; undefined where it ends early. */
export function get(u: unknown, ...path: readonly string[]): unknown {
  return path.reduce<unknown>((at, key) => (isRecord(at) && Object.hasOwn(at, key) ? at[key] : undefined), u);
}

/** The text at a path: a string's, or that of a scalar kept as it was written; undefined for anything else. */
export function getText(u: unknown, ...path: readonly string[]): string | undefined {
  const value = get(u, ...path);
  if (typeof value === 'string') return value;
  return value instanceof Verbatim ? value.source : undefined;
}

export function refOf(item: Item): ResourceRef {
  const namespace = getText(item, 'metadata', 'namespace');
  return {
    apiVersion: getText(item, 'apiVersion') ?? '',
    kind: getText(item, 'kind') ?? '',
    name: getText(item, 'metadata', 'name') ?? '',
    ...(namespace === undefined ? {} : { namespace }),
  };
}

const PATHS = ['internal.config.kubernetes.io/path', 'config.kubernetes.io/path'];

/** Where an orchestrator read the item, for results. */
export function fileOf(item: Item): { path: string } | undefined {
  const path = PATHS.map((key) => getText(item, 'metadata', 'annotations', key)).find((p) => p !== undefined);
  return path === undefined ? undefined : { path };
}
