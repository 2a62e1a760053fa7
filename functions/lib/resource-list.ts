/**
 * The wire format of KRM functions (functions spec v1), edited in place: an item that a function returns as the same
 * object is written as the very bytes that were read, with its comments, quotes and YAML 1.1 scalars, and so is every
 * other field of the list.
 */
import { constructFromEvents, EVENT_ID, parseEvents, YAMLException, type Event } from 'js-yaml';
import { getText, isRecord, Verbatim, type Item, type Result } from '../model/krm.ts';
import { dump, LOSSLESS } from './yaml.ts';

/** The input is no ResourceList. The message is a sentence for the user. */
export class BadInput extends Error {
  override readonly name = 'BadInput';
}

export interface ResourceList {
  readonly items: readonly Item[];
  readonly functionConfig: unknown;
  /** The list with these items in place of its own, and the results after those of earlier functions. */
  readonly render: (items: readonly Item[], results: readonly Result[]) => string;
}

/** The functions spec's versions; all have the fields used here. */
const API_VERSIONS = ['config.kubernetes.io/v1', 'config.kubernetes.io/v1beta1', 'config.kubernetes.io/v1alpha1'];

/** A field of the list or an item of a block sequence: the text of its whole lines. */
interface Part {
  readonly key: string;
  readonly text: string;
}

/** Throws BadInput. */
export function parseResourceList(source: string): ResourceList {
  if (source.trim() === '') throw new BadInput('nothing on stdin: a KRM function reads a ResourceList there');
  const events = parse(source);
  const list = construct(source, events);
  if (!isRecord(list) || list.kind !== 'ResourceList' || !API_VERSIONS.includes(String(list.apiVersion)))
    throw new BadInput(`stdin holds ${whatIs(list)}; a KRM function reads a ResourceList of ${API_VERSIONS[0]} there`);
  const items = itemsOf(list.items);
  const earlier = list.results ?? [];
  if (!Array.isArray(earlier)) throw new BadInput('results of the ResourceList is not a list');
  const texts = itemTexts(source, events, items.length);
  return {
    items,
    functionConfig: list.functionConfig,
    render(newItems, results) {
      const all = [...(earlier as unknown[]), ...results];
      if (texts === undefined) return dump({ ...list, items: newItems, ...(all.length > 0 ? { results: all } : {}) });
      const known = new Map(items.map((item, i) => [item, texts.items[i]]));
      const written = newItems.map((item) => known.get(item) ?? sequenceEntry(item, texts.indent));
      const parts = texts.fields.map(({ key, text }) => {
        if (key === 'items') return written.length > 0 ? texts.itemsHead + written.join('') : 'items: []\n';
        return key === 'results' && results.length > 0 ? dump({ results: all }) : text;
      });
      if (results.length > 0 && !Object.hasOwn(list, 'results')) parts.push(dump({ results: all }));
      return texts.head + parts.join('');
    },
  };
}

function parse(source: string): Event[] {
  try {
    return parseEvents(source, {});
  } catch (cause) {
    throw new BadInput(`stdin is not YAML: ${yamlReason(cause)}`, { cause });
  }
}

function construct(source: string, events: Event[]): unknown {
  try {
    const documents = constructFromEvents(events, { source, schema: LOSSLESS, json: true, maxAliases: -1 });
    if (documents.length > 1)
      throw new BadInput(`stdin holds ${documents.length} YAML documents; a KRM function reads one ResourceList there`);
    return documents[0];
  } catch (cause) {
    if (cause instanceof BadInput) throw cause;
    throw new BadInput(`stdin is not YAML: ${yamlReason(cause)}`, { cause });
  }
}

/** The parser's reason and place, without its snippet and names of the source: they may be a secret (`psk: *abc`). */
function yamlReason(cause: unknown): string {
  if (!(cause instanceof YAMLException)) throw cause;
  const reason = cause.reason.replace(/ ".*"| !<.*>|: .*/s, '');
  return cause.mark === undefined ? reason : `${reason} in line ${cause.mark.line + 1}`;
}

function whatIs(list: unknown): string {
  if (!isRecord(list)) return 'no YAML map';
  const kind = getText(list, 'kind');
  return kind === undefined ? 'a map without kind' : `${getText(list, 'apiVersion') ?? 'no apiVersion'} ${kind}`;
}

function itemsOf(items: unknown): Item[] {
  if (items === undefined || items === null) return [];
  if (!Array.isArray(items)) throw new BadInput('items of the ResourceList is not a list');
  const bad = items.findIndex((item) => !isRecord(item) || item instanceof Verbatim);
  if (bad >= 0) throw new BadInput(`items[${bad}] of the ResourceList is not a map`);
  return items as Item[];
}

interface Texts {
  /** What stands above the first field: comments, `---`. */
  readonly head: string;
  readonly fields: Part[];
  /** The line of the key `items`, and what stands between it and the first item. */
  readonly itemsHead: string;
  readonly items: string[];
  /** Spaces before an item's dash. */
  readonly indent: string;
}

/**
 * The list's fields and items as whole lines of the source, or undefined where they are not that: JSON and other flow
 * style, an alias whose anchor stands in another item, a field given twice, a document's end mark.
 */
function itemTexts(source: string, events: Event[], count: number): Texts | undefined {
  const text = source.endsWith('\n') ? source : `${source}\n`;
  const found = positions(text, events);
  if (found === undefined || found.itemStarts.length !== count || !isEditable(text, found)) return undefined;
  const { keys, itemStarts } = found;
  const ends = [...keys.slice(1).map(({ start }) => start), text.length];
  const itemsAt = keys.findIndex(({ key }) => key === 'items');
  const dashes = itemStarts.map(({ start }) => dashAbove(text, start) ?? 0);
  const starts = itemStarts.map(({ contentEnd }, i) =>
    withHeadComment(text, lineStart(text, dashes[i] ?? 0), contentEnd),
  );
  return {
    head: text.slice(0, keys[0]?.start),
    fields: keys.map(({ key, start }, i) => ({ key, text: text.slice(start, ends[i]) })),
    itemsHead: starts[0] === undefined ? 'items:\n' : text.slice(keys[itemsAt]?.start, starts[0]),
    items: starts.map((start, i) => text.slice(start, starts[i + 1] ?? ends[itemsAt])),
    indent: ' '.repeat(dashes[0] === undefined ? 0 : dashes[0] - lineStart(text, dashes[0])),
  };
}

/** Every field begins a line and is there once, every item begins with a dash in the same column, no `...` ends the document. */
function isEditable(text: string, { keys, itemStarts }: Positions): boolean {
  const dashes = itemStarts.map(({ start }) => dashAbove(text, start));
  const columns = new Set(dashes.map((dash) => (dash === undefined ? undefined : dash - lineStart(text, dash))));
  return (
    keys.every(({ start }) => start === lineStart(text, start)) &&
    new Set(keys.map(({ key }) => key)).size === keys.length &&
    columns.size <= 1 &&
    !columns.has(undefined) &&
    !/^\.\.\.(?:\s|$)/m.test(text.slice(keys.at(-1)?.start))
  );
}

interface Positions {
  readonly keys: { readonly key: string; readonly start: number }[];
  /** `contentEnd`: where the last scalar before the item ends. */
  readonly itemStarts: { readonly start: number; readonly contentEnd: number }[];
}

/** Where the root's keys and the entries of `items` start, as offsets; undefined where an alias reaches across them. */
function positions(text: string, events: Event[]): Positions | undefined {
  const keys: { key: string; start: number }[] = [];
  const itemStarts: { start: number; contentEnd: number }[] = [];
  for (const { event, place, contentEnd } of landmarks(text, events)) {
    if (place === 'key' && event.type === EVENT_ID.SCALAR)
      keys.push({ key: keyOf(text, event), start: event.valueStart });
    if (place === 'item' && event.type === EVENT_ID.MAPPING) itemStarts.push({ start: event.start, contentEnd });
  }
  const borders = [...keys, ...itemStarts].map(({ start }) => start).sort((a, b) => a - b);
  return aliasReachesOut(text, events, borders) ? undefined : { keys, itemStarts };
}

type NodeEvent = Exclude<Event, { type: typeof EVENT_ID.POP | typeof EVENT_ID.DOCUMENT }>;

/** True where an alias stands in another field or item than its anchor. `borders`: where those begin, ascending. */
function aliasReachesOut(text: string, events: Event[], borders: readonly number[]): boolean {
  const marked = events.filter(
    (event): event is NodeEvent =>
      event.type !== EVENT_ID.POP && event.type !== EVENT_ID.DOCUMENT && event.anchorStart >= 0,
  );
  const placeOfAnchor = ({ anchorStart, anchorEnd }: NodeEvent): string =>
    `${borders.findLastIndex((border) => border <= anchorStart)} ${text.slice(anchorStart, anchorEnd)}`;
  const anchors = new Set(marked.filter(({ type }) => type !== EVENT_ID.ALIAS).map(placeOfAnchor));
  return marked.some((event) => event.type === EVENT_ID.ALIAS && !anchors.has(placeOfAnchor(event)));
}

const keyOf = (text: string, event: NodeEvent): string =>
  event.type === EVENT_ID.SCALAR ? text.slice(event.valueStart, event.valueEnd) : '';

interface Landmark {
  readonly event: NodeEvent;
  /** A key of the root, its value, or an entry of `items`. */
  readonly place: 'key' | 'field' | 'item';
  /** Where the last scalar before it ends. */
  readonly contentEnd: number;
}

/** The few events that say where fields and items begin; all others are only counted. */
function* landmarks(text: string, events: Event[]): Generator<Landmark> {
  let depth = 0; // 1 in the document, 2 in its root, 3 in a field of the root
  let contentEnd = 0;
  let key: string | undefined; // set between a key of the root and the end of its value
  for (const event of events) {
    if (event.type === EVENT_ID.POP) {
      depth -= 1;
      if (depth === 2) key = undefined;
      continue;
    }
    const place = placeOf(depth, key);
    if (place !== undefined && event.type !== EVENT_ID.DOCUMENT) {
      yield { event, place, contentEnd };
      key = keyAfter(place, event, key, text);
    }
    if (event.type === EVENT_ID.SCALAR) contentEnd = event.valueEnd;
    if (!isLeaf(event)) depth += 1;
  }
}

/** The key of the root that is at hand behind an event. */
function keyAfter(
  place: Landmark['place'],
  event: NodeEvent,
  key: string | undefined,
  text: string,
): string | undefined {
  if (place === 'key') return keyOf(text, event);
  return place === 'field' && isLeaf(event) ? undefined : key;
}

function placeOf(depth: number, key: string | undefined): Landmark['place'] | undefined {
  if (depth === 2) return key === undefined ? 'key' : 'field';
  return depth === 3 && key === 'items' ? 'item' : undefined;
}

const isLeaf = (event: Event): boolean => event.type === EVENT_ID.SCALAR || event.type === EVENT_ID.ALIAS;

/** The offset of the dash of the entry whose map starts at `start`: before it in its line, or above it and its comments. */
function dashAbove(text: string, start: number): number | undefined {
  let at = lineStart(text, start);
  let line = text.slice(at, start);
  while (/^ *(#.*)?\n?$/.test(line) && at > 0) {
    const end = at;
    at = lineStart(text, at - 1);
    line = text.slice(at, end);
  }
  const indent = /^( *)-(?: +|[ \t]*\n| +#.*\n)$/.exec(line)?.[1];
  return indent === undefined ? undefined : at + indent.length;
}

const lineStart = (text: string, offset: number): number => (offset === 0 ? 0 : text.lastIndexOf('\n', offset - 1) + 1);

/** Comment lines right above an item belong to it; before `contentEnd` a line that looks like one is text. */
function withHeadComment(text: string, start: number, contentEnd: number): number {
  let at = start;
  while (at > 0) {
    const above = lineStart(text, at - 1);
    if (above < contentEnd || !/^ *#/.test(text.slice(above, at))) break;
    at = above;
  }
  return at;
}

function sequenceEntry(item: Item, indent: string): string {
  return dump([item]).replaceAll(/^(?=.)/gm, indent);
}
