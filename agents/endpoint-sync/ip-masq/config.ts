/**
 * The configuration of Cilium's ip-masq-agent: YAML or JSON text with the list `nonMasqueradeCIDRs`. Cilium turns it
 * into JSON with libyaml's port to Go and decodes that; what begins with `{` it takes for JSON right away
 * (cilium/cilium pkg/ipmasq/ipmasq.go, kubernetes/apimachinery pkg/util/yaml).
 *
 * Others own the text. It is edited at offsets, and what is no entry of ours stays as it is, byte for byte.
 */
import { constructFromEvents, YAML11_SCHEMA, YAMLException } from 'js-yaml';
import { isRecord } from '../../../functions/model/krm.ts';
import { locate, meaning, pairsOf, parseText, type Pair, type YamlNode } from './yaml-spans.ts';
import { append, drop, FIELD, isNull, undo, Unfit, type Created, type Place } from './list-edit.ts';

export { isCreated, type Created } from './list-edit.ts';

export interface ParsedConfig {
  /** The entries, in order. */
  readonly cidrs: readonly string[];
  /** True also where the field's value is null. */
  readonly hasField: boolean;
  /** For edits. */
  readonly place: Place;
}

/** For an administrator: a sentence whose subject is the text, such as `holds a list, not a map`. */
export interface Problem {
  readonly problem: string;
}

export interface Edit {
  /** Go to the end of the list, in this order. */
  readonly add: readonly string[];
  /** For each of these the last entry equal to it goes; nothing happens where there is none. */
  readonly remove: readonly string[];
  /** What an earlier edit had to create: it goes, too, once the list is empty. */
  readonly created?: Created | undefined;
}

export interface Edited {
  readonly text: string;
  /** To remember, and to be given to the next edit; undefined where there is nothing to undo, or no more. */
  readonly created: Created | undefined;
}

/** The text must not be empty: Cilium takes that for no configuration and uses its defaults. */
export const readConfig = (text: string): ParsedConfig | Problem => orProblem(() => read(text));

/** The edited text was read again and means what it should. Where nothing is to be edited, nothing is read again. */
export const editConfig = (config: ParsedConfig, edit: Edit): Edited | Problem => orProblem(() => change(config, edit));

function orProblem<T>(work: () => T): T | Problem {
  try {
    return work();
  } catch (error) {
    if (error instanceof Unfit) return { problem: error.message };
    throw error;
  }
}

// Reading. Everything below throws Unfit.

function read(text: string): ParsedConfig {
  const { root, value } = parse(text);
  if (root === undefined || isNull(root))
    return { cidrs: [], hasField: false, place: { text, root, field: undefined } };
  if (root.kind !== 'map' || !isRecord(value)) throw new Unfit(`holds ${nameOf(root)}, not a map`);
  const field = fieldOf(text, root, value);
  const place = { text, root, field };
  if (field === undefined || isNull(field.value)) return { cidrs: [], hasField: field !== undefined, place };
  return { cidrs: entriesOf(text, field.value, value[FIELD]), hasField: true, place };
}

/** The one document's root node and its value. */
function parse(text: string): { root: YamlNode | undefined; value: unknown } {
  try {
    const yaml = parseText(text);
    const values = constructFromEvents(yaml.events, { source: yaml.source, schema: YAML11_SCHEMA, json: true });
    if (values.length > 1)
      throw new Unfit(`holds ${values.length} YAML documents; Cilium reads one: remove the others`);
    return { root: locate(yaml)[0], value: values[0] };
  } catch (cause) {
    if (!(cause instanceof YAMLException)) throw cause;
    const place = cause.mark === undefined ? '' : ` in line ${cause.mark.line + 1}`;
    throw new Unfit(`is neither YAML nor JSON: ${cause.reason}${place}`, { cause });
  }
}

function nameOf({ kind }: YamlNode): string {
  if (kind === 'alias') return 'an alias';
  return { list: 'a list', map: 'a map', scalar: 'a single value' }[kind];
}

function fieldOf(text: string, root: YamlNode, value: Record<string, unknown>): Pair | undefined {
  const found = pairsOf(root).filter(({ key }) => key.kind === 'scalar' && key.value === FIELD);
  const [field, second] = found;
  if (second !== undefined)
    throw new Unfit(`has ${FIELD} twice, again ${lineOf(text, second.key)}: put the entries into one list`);
  // Go's JSON decoder takes keys in any case
  const alike = Object.keys(value).find((key) => key !== FIELD && key.toLowerCase() === FIELD.toLowerCase());
  if (alike !== undefined)
    throw new Unfit(`has a field ${alike}, which Cilium reads as ${FIELD}, too: rename it to that`);
  if (field === undefined && Object.hasOwn(value, FIELD))
    throw new Unfit(`has ${FIELD} by an alias or a merge key (<<): write the field out`);
  if (field !== undefined) checkField(text, field);
  return field;
}

function checkField(text: string, { key, value }: Pair): void {
  if ([key, value].some((node) => node.props !== '' || node.kind === 'alias'))
    throw new Unfit(`has ${FIELD} with an anchor, alias or tag ${lineOf(text, key)}: write it without`);
  if (value.kind !== 'list' && !isNull(value))
    throw new Unfit(`has ${FIELD} with ${nameOf(value)} ${lineOf(text, key)}: it must be a list`);
}

function entriesOf(text: string, list: YamlNode, values: unknown): string[] {
  const entries = Array.isArray(values) ? (values as unknown[]) : [];
  return list.children.map((node, i) => {
    const entry = entries[i];
    const name = `has ${FIELD}[${i}]`;
    if (node.props !== '' || node.kind === 'alias')
      throw new Unfit(`${name} with an anchor, alias or tag ${lineOf(text, node)}: write it without`);
    if (typeof entry !== 'string')
      throw new Unfit(`${name} that is no text ${lineOf(text, node)}: write a CIDR such as "10.0.0.0/8"`);
    if (node.style === 'block')
      throw new Unfit(`${name} as a text block (| or >) ${lineOf(text, node)}: write it in one line`);
    return entry;
  });
}

const lineOf = (text: string, { start }: YamlNode): string =>
  `in line ${text.slice(0, start).split(/\r\n|\n|\r/).length}`;

// Editing.

function change(before: ParsedConfig, { add, remove, created }: Edit): Edited {
  const { text } = before.place;
  const dropped = lastOnes(before.cidrs, remove);
  const cidrs = [...before.cidrs.filter((_, i) => !dropped.has(i)), ...add];
  // an empty list is not what we created: that one goes as soon as it is empty
  const known = before.cidrs.length === 0 ? undefined : created;
  if (add.length + dropped.size === 0) return { text, created: known };
  const longer = add.length === 0 ? { text } : append(before.place, add);
  if (dropped.size === 0) return checked(before, cidrs, { created: known, ...longer });
  const { place } = add.length === 0 ? before : read(longer.text);
  if (cidrs.length > 0) return checked(before, cidrs, { text: drop(place, (i) => dropped.has(i)), created: known });
  // what was created is undone if possible, else left behind as an empty list
  const undone = known && undo(place, known);
  if (undone !== undefined && isRight(before, cidrs, undone)) return { text: undone, created: undefined };
  return checked(before, cidrs, { text: drop(place, () => true), created: undefined });
}

/** The indices of the last entries that are equal to `wanted`, as many of each as it has there. */
function lastOnes(entries: readonly string[], wanted: readonly string[]): Set<number> {
  const counts = new Map<string, number>();
  for (const entry of wanted) counts.set(entry, (counts.get(entry) ?? 0) + 1);
  const found = new Set<number>();
  for (let i = entries.length - 1; i >= 0; i--) {
    const entry = entries[i] ?? '';
    const left = counts.get(entry) ?? 0;
    if (left > 0) found.add(i);
    counts.set(entry, left - 1);
  }
  return found;
}

function checked(before: ParsedConfig, cidrs: readonly string[], edited: Edited): Edited {
  const isStillJson = isJson(edited.text) || !isJson(before.place.text);
  if (isStillJson && isRight(before, cidrs, edited.text)) return edited;
  throw new Unfit(`has ${FIELD} in a form that cannot be edited safely: write it with one entry per line`);
}

/** True where a text has these entries, and all else as before. */
function isRight(before: ParsedConfig, cidrs: readonly string[], text: string): boolean {
  const after = readConfig(text);
  return (
    text !== '' &&
    !('problem' in after) &&
    after.cidrs.length === cidrs.length &&
    after.cidrs.every((cidr, i) => cidr === cidrs[i]) &&
    others(after.place) === others(before.place)
  );
}

/** The other fields, and the root's own tag and anchor. */
function others({ root, field }: Place): string {
  if (root?.kind !== 'map') return '';
  const pairs = pairsOf(root).filter(({ key }) => key !== field?.key);
  return pairs.length === 0
    ? ''
    : JSON.stringify([root.props, ...pairs.flatMap(({ key, value }) => [meaning(key), meaning(value)])]);
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
