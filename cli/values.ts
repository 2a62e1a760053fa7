/** The old Helm chart's values as a ConstellationVPN configuration and a Secret. Pure. */
import { constructFromEvents, dump as dumpYaml, parseEvents, YAMLException } from 'js-yaml';
import * as E from 'fp-ts/lib/Either.js';
import { LOSSLESS, plain } from '../functions/lib/yaml.ts';
import { nameOf, problems, type JsonSchema, type Problem } from '../functions/model/codec.ts';
import { get, isRecord } from '../functions/model/krm.ts';
import { pskProblem, SHORT_PSK_CHARACTERS } from '../functions/model/psk.ts';
import { API_VERSION, ConstellationVpn, IGNORED_FIELDS, KIND } from '../functions/model/vpn.ts';

/** base/'s namespace: a frontend mounts Secrets of its own one only. */
const NAMESPACE = 'constellation-vpn';
const PSK_SECRET = { name: 'vpn-psk', key: 'psk' };

/** The values that matter, in the order in which they are written. */
const CHART_FIELDS = ['podCIDR', 'serviceCIDR', 'mtu', 'peerCIDRs', 'ipsec'];
const CHART_IPSEC_FIELDS = ['peer', 'psk'];

/** What `helm get values` prints above the values, unless it is told `-o yaml`. */
const HELM_TITLES = ['USER-SUPPLIED VALUES', 'COMPUTED VALUES'];

const NAMES = "is dropped: names are those of base/, and kustomize's namePrefix adds to them";
const DROPPED: Record<(typeof IGNORED_FIELDS)[number], string> = {
  image: 'is dropped: it holds none of these programs; the new images are set by images: in a kustomization',
  nameOverride: NAMES,
  fullnameOverride: NAMES,
};

/** What the chart has where the values name nothing: each is empty, and must not be. */
const EMPTY: ReadonlyMap<string, string> = new Map([
  ['peerCIDRs', "is empty, the chart's default: list at least one on-prem range"],
  ['ipsec.peer', "is empty, the chart's default: write the IP address or DNS name of the on-prem gateway"],
  [
    'ipsec.psk',
    "is empty, the chart's default: write the pre-shared key that the on-prem gateway has (in single quotes: YAML takes #, &, * and ! for its own)",
  ],
]);

export interface Imported {
  /** The configuration's, without the key. */
  readonly spec: Record<string, unknown>;
  /** The key as both gateways use it. Never print it. */
  readonly psk: Uint8Array;
  readonly warnings: readonly Problem[];
}

/** The values of a file; `fault` is a predicate for the file. It quotes nothing of the text, which holds a key. */
export function parseValues(source: string): { values: Record<string, unknown> } | { fault: string } {
  try {
    const events = parseEvents(source, {});
    const tags = events.map((event) => ('tagStart' in event ? event.tagStart : -1)).filter((start) => start >= 0);
    if (tags[0] !== undefined)
      return { fault: `has a YAML tag in line ${lineOf(source, tags[0])}: put text that begins with ! in quotes` };
    const documents = constructFromEvents(events, { source, schema: LOSSLESS, maxAliases: 20 });
    return documents.length > 1
      ? { fault: `holds ${documents.length} YAML documents; the chart's values are one` }
      : mapOf(plain(documents[0] ?? null));
  } catch (error) {
    if (error instanceof YAMLException) return { fault: `is not YAML: ${reasonOf(error)}` };
    throw error;
  }
}

const lineOf = (source: string, offset: number): number => source.slice(0, offset).split('\n').length;

/** Without the snippet of the source, and without what the reason itself quotes of it (`unidentified alias "…"`). */
function reasonOf({ reason, mark }: YAMLException): string {
  const quoteless = reason.replace(/ ?".*"/s, '');
  return mark === undefined ? quoteless : `${quoteless} in line ${mark.line + 1}`;
}

function mapOf(document: unknown): { values: Record<string, unknown> } | { fault: string } {
  if (document === null) return { fault: 'is empty' };
  if (!isRecord(document)) return { fault: `holds ${nameOf(document)}; the chart's values are a map: peerCIDRs: …` };
  if (document.kind === KIND) return { fault: `is a ${KIND} already: there is nothing to import` };
  if ('apiVersion' in document && 'kind' in document)
    return { fault: 'is a Kubernetes object; the values come from `helm get values RELEASE --all -o yaml`' };
  return { values: document };
}

/** Every problem at once, with paths in the values: `peerCIDRs[0]`. */
export function importValues(values: Record<string, unknown>): Imported | { problems: Problem[] } {
  const top = ofTheChart(values, CHART_FIELDS, SPEC_SCHEMA, '');
  const given: Record<string, unknown> = { peerCIDRs: [], ipsec: {}, ...top.kept };
  const inner = isRecord(given.ipsec)
    ? ofTheChart(given.ipsec, CHART_IPSEC_FIELDS, SPEC_SCHEMA?.properties?.ipsec, 'ipsec.')
    : { kept: {}, foreign: [] };
  const ipsec: Record<string, unknown> = { peer: '', psk: '', ...inner.kept };
  const spec = { ...given, ipsec: isRecord(given.ipsec) ? ipsec : given.ipsec };
  const found = [...top.foreign, ...inner.foreign, ...codecProblems(spec)];
  // what is wrong with the text itself, the codec has said
  const key = keyOf(pskProblem(String(ipsec.psk)) === undefined ? String(ipsec.psk) : '');
  if ('problem' in key) return { problems: [...found, { path: 'ipsec.psk', message: key.problem }] };
  if (found.length > 0) return { problems: found };
  const entries = CHART_FIELDS.filter((name) => name in spec).map((name) => [name, given[name]]);
  return {
    spec: { ...Object.fromEntries(entries), ipsec: { peer: ipsec.peer, pskSecretRef: PSK_SECRET } },
    psk: key.bytes,
    warnings: [...dropped(values), ...key.warnings.map((message) => ({ path: 'ipsec.psk', message }))],
  };
}

const SPEC_SCHEMA = ConstellationVpn.schema.properties?.spec;

/**
 * What the codec is to read of one of the values' maps: all but what is dropped, what Helm takes away (null), and what
 * only the new format knows. Unknown keys stay: the codec names the nearest known one.
 */
function ofTheChart(
  map: Record<string, unknown>,
  fields: readonly string[],
  schema: JsonSchema | undefined,
  prefix: string,
): { kept: Record<string, unknown>; foreign: Problem[] } {
  const isIgnored = (key: string) => prefix === '' && (IGNORED_FIELDS as readonly string[]).includes(key);
  const isForeign = (key: string) =>
    !fields.includes(key) && !isIgnored(key) && Object.hasOwn(schema?.properties ?? {}, key);
  const isAbsent = (key: string, value: unknown) => isIgnored(key) || (fields.includes(key) && value === null);
  const kept = Object.entries(map)
    // "" and null are the same MTU, but null in a kustomize patch means the default
    .map(([key, value]) => [key, prefix === '' && key === 'mtu' ? (value ?? '') : value] as const)
    .filter(([key, value]) => !isForeign(key) && !isAbsent(key, value) && !isHelmTitle(key, value));
  const foreign = Object.keys(map).filter(isForeign);
  return {
    kept: Object.fromEntries(kept),
    foreign: foreign.map((key) => ({
      path: prefix + key,
      message: 'is no value of the old chart: remove it here, and add it to vpn.yaml after the import',
    })),
  };
}

const isHelmTitle = (key: string, value: unknown): boolean => value === null && HELM_TITLES.includes(key);

function codecProblems(spec: Record<string, unknown>): Problem[] {
  const decoded = ConstellationVpn.decode({ apiVersion: API_VERSION, kind: KIND, spec });
  if (E.isRight(decoded)) return [];
  return problems(decoded.left).map((problem) => {
    const path = problem.path.replace(/^spec\./, '');
    const value = get(spec, ...path.split('.'));
    const isEmpty = value === '' || (Array.isArray(value) && value.length === 0);
    return { ...problem, path, message: (isEmpty ? EMPTY.get(path) : undefined) ?? problem.message };
  });
}

type Key = { readonly bytes: Uint8Array; readonly warnings: readonly string[] } | { readonly problem: string };

/** The key that strongSwan made of the chart's psk (swanctl.opt, secrets.ike.secret): text, 0x and hex, 0s and base64. */
function keyOf(psk: string): Key {
  const prefix = /^0[xs]/i.exec(psk)?.[0];
  const key = prefix === undefined ? { bytes: Buffer.from(psk, 'utf8'), warnings: [] } : decodeKey(prefix, psk);
  if ('problem' in key || key.bytes.length >= SHORT_PSK_CHARACTERS) return key;
  const short = `has fewer than ${SHORT_PSK_CHARACTERS} characters and can be guessed from one recorded handshake`;
  return { ...key, warnings: [...key.warnings, short] };
}

/** Strict: strongSwan makes something of any text after the prefix, but hardly what was meant. */
function decodeKey(prefix: string, psk: string): Key {
  const isHex = prefix.toLowerCase() === '0x';
  const encoding = isHex ? 'hex' : 'base64';
  const digits = isHex ? psk.slice(2).replaceAll(':', '').toLowerCase() : psk.slice(2);
  const bytes = Buffer.from(digits, encoding);
  const what = isHex ? 'hexadecimal digits' : 'base64';
  if (digits === '' || bytes.toString(encoding) !== digits)
    return { problem: `begins with ${prefix}, after which strongSwan expects ${what}; what follows is not that` };
  const text = bytes.toString('utf8');
  const problem = Buffer.from(text, 'utf8').equals(bytes) ? pskProblem(text) : undefined;
  return problem === undefined
    ? {
        bytes,
        warnings: [`begins with ${prefix}: the Secret holds the key decoded from ${what}, as strongSwan read it`],
      }
    : { problem: `${problem} (decoded from ${what}, as strongSwan read it)` };
}

/** Warnings about values that mean nothing any more. Empty ones meant nothing before. */
function dropped(values: Record<string, unknown>): Problem[] {
  return IGNORED_FIELDS.filter((key) => ![undefined, null, ''].includes(values[key] as null)).map((key) => ({
    path: key,
    message: DROPPED[key],
  }));
}

/** Where configuration and schema lie, seen from where they are named. */
export interface Places {
  /** The function, from the folder of the kustomization that runs it. */
  readonly program: string;
  /** The schema, from the folder of the configuration. */
  readonly schema: string;
}

/** The text of vpn.yaml, in the form that prettier gives it. */
export function configurationText(spec: Record<string, unknown>, { program, schema }: Places): string {
  const annotations = {
    'config.kubernetes.io/local-config': 'true',
    'config.kubernetes.io/function': `exec:\n  path: ${program}\n`,
  };
  const configuration = { apiVersion: API_VERSION, kind: KIND, metadata: { name: 'vpn', annotations }, spec };
  return `# yaml-language-server: $schema=${schema}
# Imported from the values of the Helm chart. The pre-shared key is in the Secret ${PSK_SECRET.name}.
${dump(configuration)}`;
}

/** The text of the Secret's manifest. Base64 carries every byte, and nothing that substitutes `${…}` finds any in it. */
export function secretText(psk: Uint8Array): string {
  const data = { [PSK_SECRET.key]: Buffer.from(psk).toString('base64') };
  const metadata = { name: PSK_SECRET.name, namespace: NAMESPACE };
  return `# The pre-shared key, in base64, which hides nothing. Keep this file out of git, or encrypt it first.
${dump({ apiVersion: 'v1', kind: 'Secret', metadata, type: 'Opaque', data })}`;
}

const dump = (value: unknown): string => dumpYaml(value, { schema: LOSSLESS, noRefs: true, lineWidth: -1 });
