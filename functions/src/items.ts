/** Finding and editing items without ever changing one in place: an item that comes out the same is the same object. */
import { isDeepStrictEqual } from 'node:util';
import { fileOf, getText, isRecord, refOf, type Item, type Result, type Severity } from '../model/krm.ts';

/** A deep copy that may be written to. Scalars kept as written are immutable and shared. */
export type Draft = Record<string, unknown>;

/** Ours alone: `app.kubernetes.io/component: frontend` is also what other projects call theirs. */
export const COMPONENT_LABEL = 'constellation-vpn.io/component';
export const SITE_LABEL = 'constellation-vpn.io/site';

/** The API group of an item, `''` for the core one. */
export function groupOf(item: Item): string {
  const apiVersion = getText(item, 'apiVersion') ?? '';
  return apiVersion.includes('/') ? apiVersion.slice(0, apiVersion.indexOf('/')) : '';
}

export const kindOf = (item: Item): string => getText(item, 'kind') ?? '';
export const nameOf = (item: Item): string => getText(item, 'metadata', 'name') ?? '';
export const namespaceOf = (item: Item): string => getText(item, 'metadata', 'namespace') ?? '';
export const labelOf = (item: Item, key: string): string | undefined => getText(item, 'metadata', 'labels', key);
export const annotationOf = (item: Item, key: string): string | undefined =>
  getText(item, 'metadata', 'annotations', key);

/** The VPN's own items by kind and component. Their names, namespace and other labels are the user's. */
export function findComponent(items: readonly Item[], kind: string, component: string): Item[] {
  return items.filter((item) => kindOf(item) === kind && labelOf(item, COMPONENT_LABEL) === component);
}

/** What is missing, said so that a user can act. */
export function missingComponent(kind: string, component: string): Result {
  return {
    severity: 'error',
    message: `no ${kind} with the label ${COMPONENT_LABEL}: ${component} among the items: include base/ of Constellation VPN, and keep that label`,
  };
}

export function copy<T>(value: T): T {
  if (Array.isArray(value)) return value.map(copy) as T;
  if (!isRecord(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, copy(inner)])) as T;
}

/** The item with `change` applied to a copy of it; the item itself where that changes nothing. */
export function edit(item: Item, change: (draft: Draft) => void): Item {
  const draft: Draft = copy(item);
  change(draft);
  return isDeepStrictEqual(draft, item) ? item : draft;
}

/** The map at a path of map keys, made where it is absent. */
export function mapAt(draft: Draft, ...path: readonly string[]): Draft {
  return path.reduce<Draft>((at, key) => {
    const next = at[key];
    if (isRecord(next)) return next;
    const made: Draft = {};
    at[key] = made;
    return made;
  }, draft);
}

/** The list at a path, made where it is absent. */
export function listAt(draft: Draft, ...path: readonly [string, ...string[]]): unknown[] {
  const parent = mapAt(draft, ...path.slice(0, -1));
  const key = path.at(-1) ?? '';
  const list = parent[key];
  if (Array.isArray(list)) return list;
  const made: unknown[] = [];
  parent[key] = made;
  return made;
}

/** Annotations by which orchestrators find an item again: kustomize's and kpt's, old and new. */
const INTERNAL =
  /^(internal\.config\.kubernetes\.io|internal\.kubernetes\.io)\/|^config\.kubernetes\.io\/(index|path|id)$|^config\.k8s\.io\/id$|^kustomize\.config\.k8s\.io\/id$/;
const PATH = 'internal.config.kubernetes.io/path';

/**
 * A new object beside `sibling`: its namespace, labels and annotations, none of its identity. Under kpt it goes into a
 * file of its own in the sibling's folder, `<kind>_<name>.yaml`.
 */
export function cloneOf(sibling: Item, name: string): Draft {
  const draft: Draft = copy(sibling);
  const metadata = mapAt(draft, 'metadata');
  metadata.name = name;
  const path = fileOf(sibling)?.path;
  const annotations = mapAt(metadata, 'annotations');
  for (const key of Object.keys(annotations)) if (INTERNAL.test(key)) delete annotations[key];
  if (path !== undefined) {
    const folder = path.slice(0, path.lastIndexOf('/') + 1);
    annotations[PATH] = `${folder}${kindOf(sibling).toLowerCase()}_${name}.yaml`;
  }
  if (Object.keys(annotations).length === 0) delete metadata.annotations;
  return draft;
}

/** A result about an item. */
export function about(item: Item, severity: Severity, path: string, message: string): Result {
  const file = fileOf(item);
  return {
    severity,
    message,
    resourceRef: refOf(item),
    ...(path === '' ? {} : { field: { path } }),
    ...(file === undefined ? {} : { file }),
  };
}
