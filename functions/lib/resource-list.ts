/**
 * The wire format of KRM functions (functions spec v1), edited in place: an item that a function returns as the same
 * object is written as the very bytes that were read, with its comments, quotes and YAML 1.1 scalars, and so is every
 * other field of the list.
 */
import { constructFromEvents, EVENT_ID, parseEvents, YAMLException, type Event } from 'js-yaml';
import { getText, isRecord, type Item, type Result } from '../model/krm.ts';
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
        if (key === 'items') return written.length > 0 ? `items:\n${written.join('')}` : 'items: []\n';
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

/** The parser's reason and place, without its snippet of the source: that may hold a secret. */
function yamlReason(cause: unknown): string {
  if (!(cause instanceof YAMLException)) throw cause;
  return cause.mark === undefined ? cause.reason : `${cause.reason} in line ${cause.mark.line + 1}`;
}

function whatIs(list: unknown): string {
  if (!isRecord(list)) return 'no YAML map';
  const kind = getText(list, 'kind');
  return kind === undefined ? 'a map without kind' : `${getText(list, 'apiVersion') ?? 'no apiVersion'} ${kind}`;
}

function itemsOf(items: unknown): Item[] {
  if (items === undefined || items === null) return [];
  if (!Array.isArray(items)) throw new BadInput('items of the ResourceList is not a list');
  const bad = items.findIndex((item) => !isRecord(item));
  if (bad >= 0) throw new BadInput(`items[${bad}] of the ResourceList is not a map`);
  return items as Item[];
}

interface Texts {
  /** What stands above the first field: comments, `---`. */
  readonly head: string;
  readonly fields: Part[];
  readonly items: string[];
  /** Spaces before an item's dash. */
  readonly indent: string;
}

/**
 * The list's fields and items as whole lines of the source, or undefined where they are not that: JSON and other flow
 * style, or an alias whose anchor stands in another item.
 */
function itemTexts(source: string, events: Event[], count: number): Texts | undefined {
  const text = source.endsWith('\n') ? source : `${source}\n`;
  const found = positions(text, events);
  if (found === undefined || found.itemStarts.length !== count) return undefined;
  const { keys, itemStarts } = found;
  if (keys.some(({ start }) => start !== lineStart(text, start))) return undefined;
  const dashes = itemStarts.map((start) => dashAbove(text, start));
  const indent = (dashes[0] ?? 0) - lineStart(text, dashes[0] ?? 0);
  if (dashes.some((dash) => dash === undefined || dash - lineStart(text, dash) !== indent)) return undefined;
  const ends = [...keys.slice(1).map(({ start }) => start), text.length];
  const itemsEnd = ends[keys.findIndex(({ key }) => key === 'items')];
  const starts = dashes.map((dash = 0) => withHeadComment(text, lineStart(text, dash)));
  return {
    head: text.slice(0, keys[0]?.start ?? 0),
    fields: keys.map(({ key, start }, i) => ({ key, text: text.slice(start, ends[i]) })),
    items: starts.map((start, i) => text.slice(start, starts[i + 1] ?? itemsEnd)),
    indent: ' '.repeat(indent),
  };
}

interface Positions {
  readonly keys: { readonly key: string; readonly start: number }[];
  readonly itemStarts: number[];
}

/** Where the root's keys and the entries of `items` start, as offsets; undefined where an alias reaches across them. */
function positions(text: string, events: Event[]): Positions | undefined {
  const keys: { key: string; start: number }[] = [];
  const itemStarts: number[] = [];
  const anchors = new Set<string>(); // of the field or item at hand
  for (const { event, depth, isRootKey } of nodes(events)) {
    const isItem = depth === 3 && keys.at(-1)?.key === 'items';
    if (isItem || depth === 2) anchors.clear();
    if (isRootKey && event.type === EVENT_ID.SCALAR)
      keys.push({ key: text.slice(event.valueStart, event.valueEnd), start: event.valueStart });
    else if (isItem && event.type === EVENT_ID.MAPPING) itemStarts.push(event.start);
    const anchor = text.slice(event.anchorStart, event.anchorEnd);
    if (event.type !== EVENT_ID.ALIAS) anchors.add(anchor);
    else if (!anchors.has(anchor)) return undefined;
  }
  return { keys, itemStarts };
}

interface Node {
  readonly event: Exclude<Event, { type: typeof EVENT_ID.POP | typeof EVENT_ID.DOCUMENT }>;
  /** 1: the document's root, 2: a key or field of the root, 3: what is in a field. */
  readonly depth: number;
  readonly isRootKey: boolean;
}

function* nodes(events: Event[]): Generator<Node> {
  let depth = 0;
  let isRootKey = false;
  for (const event of events) {
    if (event.type === EVENT_ID.POP) {
      depth -= 1;
      continue;
    }
    if (event.type !== EVENT_ID.DOCUMENT) {
      isRootKey = depth === 2 && !isRootKey;
      yield { event, depth, isRootKey };
    }
    if (event.type !== EVENT_ID.SCALAR && event.type !== EVENT_ID.ALIAS) depth += 1;
  }
}

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

const lineStart = (text: string, offset: number): number => text.lastIndexOf('\n', offset - 1) + 1;

/** Comment lines right above an item belong to it. */
function withHeadComment(text: string, start: number): number {
  let at = start;
  while (at > 0) {
    const above = lineStart(text, at - 1);
    if (!/^ *#/.test(text.slice(above, at))) break;
    at = above;
  }
  return at;
}

function sequenceEntry(item: Item, indent: string): string {
  return dump([item]).replaceAll(/^(?=.)/gm, indent);
}
