/**
 * What to change in ConfigMap ip-masq-agent, so that pods' packets to the on-prem ranges keep their addresses. It is
 * somebody else's object, and several installations of this VPN may share it: an annotation remembers whose entry is
 * whose. Entries that it does not name are others', and are neither taken over nor taken out.
 */
import { gunzipSync, gzipSync } from 'node:zlib';
import { isRecord } from '../../../functions/model/krm.ts';
import { escapePointer, type JsonPatchOp } from '../../lib/json-patch.ts';
import type { ConfigMap } from '../../lib/kube/objects.ts';
import { editConfig, isCreated, readConfig, type Created, type Edited, type Problem } from './config.ts';

/**
 * Its value is JSON: by owner (the namespace of an installation) its entries, and what it had to create for them. Long
 * JSON is packed: `gzip:` and the base64 of its gzip.
 */
export const ANNOTATION = 'constellation-vpn.io/non-masquerade-cidrs';

export type IpMasqPlan =
  /** As it should be. */
  | { readonly kind: 'nothing' }
  | {
      readonly kind: 'patch';
      readonly ops: JsonPatchOp[];
      /** Entries that the patch adds to the list and takes out of it. */
      readonly added: string[];
      readonly removed: string[];
    }
  /** There is no configuration, and none is made. */
  | { readonly kind: 'absent'; readonly message: string }
  /** Nothing is touched. */
  | { readonly kind: 'broken'; readonly message: string };

/** An owner's part of the annotation; fields of later versions are kept. */
interface Share {
  readonly cidrs: readonly string[];
  /** At most one owner has it: what goes with the list's last entry, whoever's that is. */
  readonly created?: Created;
}

type Memory = ReadonlyMap<string, Share>;

/** What was seen, its annotation read. */
interface Seen {
  readonly configMap: ConfigMap;
  /** The annotation's JSON, as it is there; undefined where there is none. */
  readonly json: string | undefined;
  readonly memory: Memory;
}

const ABSENT = `ConfigMap ip-masq-agent has no data.config, so Cilium keeps its own default ranges (RFC 1918 and others) from masquerading; a configuration made here would replace those, so none is made. Create ip-masq-agent's configuration with nonMasqueradeCIDRs holding the ranges that shall not be masqueraded (with Helm: ipMasqAgent.config.nonMasqueradeCIDRs); the on-prem ranges are then added to it.`;

/**
 * `owner`: the namespace of this installation. `desired`: canonical CIDRs; none to leave no trace of this installation.
 * A patch applies only to the very object that was seen; to one that changed since, the API server answers 409 Conflict.
 * Planned again on its result, there is nothing to do.
 */
export function planIpMasq(configMap: ConfigMap | undefined, owner: string, desired: readonly string[]): IpMasqPlan {
  if (configMap === undefined) return { kind: 'absent', message: ABSENT };
  const seen = see(configMap);
  if ('problem' in seen) return broken(`metadata.annotations["${ANNOTATION}"] ${seen.problem}`);
  const text = configMap.data?.config ?? '';
  return text === '' ? forget(seen, owner) : merge(seen, text, owner, desired);
}

const broken = (what: string): IpMasqPlan => ({ kind: 'broken', message: `ConfigMap ip-masq-agent, ${what}` });

function merge(seen: Seen, text: string, owner: string, desired: readonly string[]): IpMasqPlan {
  const config = readConfig(text);
  if ('problem' in config) return broken(`data.config ${config.problem}`);

  const { memory } = seen;
  const wishes = compare(config.cidrs, memory, owner, desired);
  const edited = editConfig(config, { ...wishes, created: createdOf(memory) });
  if ('problem' in edited) return broken(`data.config ${edited.problem}`);
  const ops = [...textOps(text, edited), ...memoryOps(seen, remember(memory, owner, wishes.own, edited.created))];
  return ops.length === 0
    ? { kind: 'nothing' }
    : { kind: 'patch', ops: [...sameObject(seen.configMap), ...ops], added: wishes.add, removed: wishes.remove };
}

/** Without a configuration none of our entries are there. */
function forget(seen: Seen, owner: string): IpMasqPlan {
  if (!seen.memory.has(owner)) return { kind: 'absent', message: ABSENT };
  const ops = memoryOps(seen, new Map([...seen.memory].filter(([name]) => name !== owner)));
  return { kind: 'patch', ops: [...sameObject(seen.configMap), ...ops], added: [], removed: [] };
}

interface Wishes {
  readonly add: string[];
  readonly remove: string[];
  /** The entries to remember as this owner's. */
  readonly own: string[];
}

function compare(listed: readonly string[], memory: Memory, owner: string, desired: readonly string[]): Wishes {
  const present = new Set(listed);
  const mine = new Set(memory.get(owner)?.cidrs);
  const theirs = new Set([...memory].flatMap(([name, { cidrs }]) => (name === owner ? [] : cidrs)));
  const wanted = new Set(desired);
  return {
    add: [...wanted].filter((cidr) => !present.has(cidr)),
    remove: [...mine].filter((cidr) => !wanted.has(cidr) && !theirs.has(cidr) && present.has(cidr)),
    // a user's entry is in the list and in nobody's memory; what another owner remembers, the last of us takes out
    own: [...wanted].filter((cidr) => !present.has(cidr) || mine.has(cidr) || theirs.has(cidr)),
  };
}

// The annotation.

const REMEDY = 'mend it, or remove it: then entries of this VPN that are in the list stay there for good';

function see(configMap: ConfigMap): Seen | Problem {
  const value = configMap.metadata.annotations?.[ANNOTATION];
  if (value === undefined) return { configMap, json: undefined, memory: new Map() };
  const json = unpack(value);
  if (json === undefined) return { problem: `has no base64 of gzipped text behind "${PACKED}": ${REMEDY}` };
  const memory = readMemory(json);
  return 'problem' in memory ? memory : { configMap, json, memory };
}

function readMemory(json: string): Memory | Problem {
  const value = parseJson(json);
  if (!isRecord(value)) return { problem: `is not a JSON object: ${REMEDY}` };
  const shares = Object.entries(value);
  const bad = shares.find(([, share]) => !isShare(share));
  return bad === undefined
    ? new Map(shares as [string, Share][])
    : { problem: `has something other than {"cidrs": [...]} at ${JSON.stringify(bad[0])}: ${REMEDY}` };
}

const PACKED = 'gzip:';
/** JSON up to this long is left readable. All annotations of an object together have 256 KiB. */
const PLAIN_BYTES = 64 * 1024;
/** Packed text that would be longer is taken for broken. */
const UNPACKED_BYTES = 16 * 1024 * 1024;

const pack = (json: string): string =>
  Buffer.byteLength(json) <= PLAIN_BYTES ? json : PACKED + gzipSync(json).toString('base64');

/** What was packed, or the value itself; undefined where it is broken. */
function unpack(value: string): string | undefined {
  if (!value.startsWith(PACKED)) return value;
  try {
    const bytes = Buffer.from(value.slice(PACKED.length), 'base64');
    return gunzipSync(bytes, { maxOutputLength: UNPACKED_BYTES }).toString();
  } catch {
    return undefined;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const isShare = (u: unknown): u is Share =>
  isRecord(u) &&
  Array.isArray(u.cidrs) &&
  u.cidrs.every((cidr) => typeof cidr === 'string') &&
  (u.created === undefined || isCreated(u.created));

const createdOf = (memory: Memory): Created | undefined =>
  [...memory.values()].find(({ created }) => created !== undefined)?.created;

/**
 * The memory with these entries of the owner's. `created` stays with whom it is, goes to the owner where it is new,
 * and to another one where its holder leaves.
 */
function remember(memory: Memory, owner: string, own: readonly string[], created: Created | undefined): Memory {
  const shares = new Map([...memory, [owner, { ...memory.get(owner), cidrs: own }]]);
  if (own.length === 0) shares.delete(owner);
  const holder =
    [...shares].find(([, share]) => share.created === created)?.[0] ??
    (shares.has(owner) ? owner : [...shares.keys()].sort()[0]);
  return new Map([...shares].map(([name, share]) => [name, withCreated(share, name === holder ? created : undefined)]));
}

const withCreated = (share: Share, created: Created | undefined): Share =>
  share.created === created ? share : ({ ...share, created } as Share); // undefined is left out of the JSON

/** Keys and entries sorted, no white space. */
function jsonOf(memory: Memory): string | undefined {
  if (memory.size === 0) return undefined;
  const shares = [...memory].map(([name, share]) => [name, sorted({ ...share, cidrs: [...share.cidrs].sort() })]);
  return JSON.stringify(sorted(Object.fromEntries(shares) as object));
}

const sorted = (map: object): object =>
  Object.fromEntries(Object.entries(map).sort(([a], [b]) => (a < b ? -1 : Number(a > b))));

// Operations.

/**
 * Replacing the resourceVersion by the one that was seen is how a write is made conditional: 409 Conflict where the object
 * has another. A `test` of it would fail with 422, as does a patch whose result is refused. The uid cannot be replaced.
 */
const sameObject = ({ metadata: { uid, resourceVersion } }: ConfigMap): JsonPatchOp[] => [
  { op: 'test', path: '/metadata/uid', value: uid },
  { op: 'replace', path: '/metadata/resourceVersion', value: resourceVersion },
];

const textOps = (before: string, { text }: Edited): JsonPatchOp[] =>
  text === before ? [] : [{ op: 'replace', path: '/data/config', value: text }];

/** JSON is compared, not what it is packed into: another zlib may give other bytes. */
function memoryOps({ configMap, json: before }: Seen, memory: Memory): JsonPatchOp[] {
  const json = jsonOf(memory);
  if (json === before) return [];
  const path = `/metadata/annotations/${escapePointer(ANNOTATION)}`;
  if (json === undefined) return [{ op: 'remove', path }];
  const value = pack(json);
  // the API server leaves out an empty map, and there is no adding to what is not there
  return Object.keys(configMap.metadata.annotations ?? {}).length === 0
    ? [{ op: 'add', path: '/metadata/annotations', value: { [ANNOTATION]: value } }]
    : [{ op: 'add', path, value }];
}
