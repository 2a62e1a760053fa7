/**
 * The nodes of a YAML text with where they stand in it, for edits in place.
 *
 * js-yaml's events have the offsets of scalars, anchors and tags, and where a list or map begins, but not where it ends.
 * Behind the last token inside a list or map in brackets only white space, comments, `,`, `:`, `?` and closing brackets
 * can follow, so its end is found by a scan from that token. A block list or map ends with its last token.
 */
import { COLLECTION_STYLE, EVENT_ID, getScalarValue, parseEvents, SCALAR_STYLE, YAMLException } from 'js-yaml';
import type { AliasEvent, Event, MappingEvent, ScalarEvent, SequenceEvent } from 'js-yaml';

/** Offsets count UTF-16 units; `end` is exclusive. */
export interface YamlNode {
  readonly kind: 'scalar' | 'alias' | 'list' | 'map';
  /** `block`: `|` and `>`, or a list or map without brackets; `flow`: one in brackets. */
  readonly style: 'plain' | 'single' | 'double' | 'block' | 'flow';
  /** The first character, be it of a tag or anchor. `start` equals `end` where there is no character. */
  readonly start: number;
  /** The first character behind tag and anchor. */
  readonly content: number;
  /** A closing quote is inside, and so is the last line's end of a `|` or `>`. */
  readonly end: number;
  /** Tag and anchor as written, '' where there is none. */
  readonly props: string;
  /** A scalar's text without quotes and escapes, an alias's name, else ''. */
  readonly value: string;
  /** A list's entries; a map's keys and values in turn. */
  readonly children: readonly YamlNode[];
}

/** A node whose end and children are still to be seen. */
interface OpenNode extends YamlNode {
  end: number;
  readonly children: OpenNode[];
}

type NodeEvent = ScalarEvent | SequenceEvent | MappingEvent | AliasEvent;

export interface YamlText {
  /** What the events' offsets are of: the text itself, or as long as it and mended (see `mended`). */
  readonly source: string;
  readonly events: Event[];
}

/** Throws YAMLException. */
export function parseText(text: string): YamlText {
  try {
    return { source: text, events: parseEvents(text, {}) };
  } catch (cause) {
    const source = mended(text);
    if (source === text || !(cause instanceof YAMLException)) throw cause;
    return { source, events: parseEvents(source, {}) };
  }
}

/**
 * libyaml and its ports, Go's among them, take a closing bracket at the very beginning of a line in a block map; js-yaml
 * wants it indented. So its line is joined to the one above, or where that has a comment, takes the comment's last
 * character for its indentation. Lengths stay.
 */
function mended(text: string): string {
  return text.replaceAll(/(?:[^\r\n]?\n|\r\n)(?=[\]}])/g, (found, at: number) => {
    if (found === '\n') return ' ';
    const above = text.slice(text.lastIndexOf('\n', at) + 1, at + 1);
    return found === '\r\n' || above.includes('#') ? '\n ' : `${found.slice(0, 1)} `;
  });
}

const BLANK = /(?:\s|#[^\r\n]*)*/y;
/** Blank, and what else can stand between the last token and a closing bracket. */
const BEFORE_BRACKET = /(?:[\s,:?]|#[^\r\n]*)*/y;

/** The offset of the next character that is neither white space nor in a comment; `at` must not be inside a scalar. */
export const skipBlank = (text: string, at: number): number => skip(BLANK, text, at);

function skip(pattern: RegExp, text: string, at: number): number {
  pattern.lastIndex = at;
  return pattern.test(text) ? pattern.lastIndex : at;
}

/** The root node of every document. */
export function locate({ source, events }: YamlText): YamlNode[] {
  const roots: OpenNode[] = [];
  const open: OpenNode[] = [];
  let at = 0; // the end of the last token
  for (const event of events) {
    if (event.type === EVENT_ID.DOCUMENT) continue;
    if (event.type === EVENT_ID.POP) {
      const node = open.pop(); // undefined where the document ends
      if (node !== undefined) at = node.end = closingEnd(source, node, at);
      continue;
    }
    const node = nodeOf(source, event, at);
    (open.at(-1)?.children ?? roots).push(node);
    if (node.kind === 'list' || node.kind === 'map') open.push(node);
    at = node.end;
  }
  return roots;
}

/** `at`: the end of the last token inside. */
const closingEnd = (source: string, node: YamlNode, at: number): number =>
  hasBrackets(source, node) ? skip(BEFORE_BRACKET, source, at) + 1 : at;

/** A pair in a list, `[a: b]`, is a map without brackets; it begins where its key does, and that may be a map. */
function hasBrackets(source: string, { kind, style, content, children }: YamlNode): boolean {
  if (style !== 'flow' || kind !== 'map') return style === 'flow';
  return source[content] === '{' && children[0]?.content !== content;
}

function nodeOf(source: string, event: NodeEvent, at: number): OpenNode {
  if (event.type === EVENT_ID.ALIAS) {
    const value = source.slice(event.anchorStart, event.anchorEnd);
    const start = event.anchorStart - 1; // the asterisk
    return {
      kind: 'alias',
      style: 'plain',
      start,
      content: start,
      end: event.anchorEnd,
      props: '',
      value,
      children: [],
    };
  }
  const props = propsOf(source, event, at);
  if (event.type === EVENT_ID.SCALAR) return scalarOf(source, event, props);
  const flow = event.style === COLLECTION_STYLE.FLOW;
  return {
    kind: event.type === EVENT_ID.SEQUENCE ? 'list' : 'map',
    style: flow ? 'flow' : 'block',
    start: Math.min(event.start, props.start),
    content: event.start,
    end: Math.max(props.end, event.start + (flow && /[[{]/.test(source[event.start] ?? '') ? 1 : 0)),
    props: props.text,
    value: '',
    children: [],
  };
}

/** Tag and anchor; `start` is Infinity where there is neither, `end` then is `at`. */
interface Props {
  readonly text: string;
  readonly start: number;
  readonly end: number;
}

function propsOf(
  source: string,
  { tagStart, tagEnd, anchorStart, anchorEnd }: Exclude<NodeEvent, AliasEvent>,
  at: number,
): Props {
  const starts = [tagStart, anchorStart - 1].filter((offset) => offset >= 0); // the ampersand, too
  const tag = tagStart < 0 ? '' : source.slice(tagStart, tagEnd);
  const anchor = anchorStart < 0 ? '' : `&${source.slice(anchorStart, anchorEnd)}`;
  return { text: `${tag}${anchor}`, start: Math.min(...starts), end: Math.max(at, tagEnd, anchorEnd) };
}

const STYLES = {
  [SCALAR_STYLE.PLAIN]: 'plain',
  [SCALAR_STYLE.SINGLE_QUOTED]: 'single',
  [SCALAR_STYLE.DOUBLE_QUOTED]: 'double',
  [SCALAR_STYLE.LITERAL_BLOCK]: 'block',
  [SCALAR_STYLE.FOLDED_BLOCK]: 'block',
} as const;

function scalarOf(source: string, event: ScalarEvent, props: Props): OpenNode {
  const style = STYLES[event.style];
  const quote = style === 'single' || style === 'double' ? 1 : 0;
  const isThere = event.valueStart >= 0;
  const content = isThere ? event.valueStart - quote : props.end;
  return {
    kind: 'scalar',
    style,
    start: Math.min(content, props.start),
    content,
    end: isThere ? event.valueEnd + quote : props.end,
    props: props.text,
    value: getScalarValue(source, event),
    children: [],
  };
}

/** What a node says, as text that is equal for nodes that mean the same: without offsets, quotes and comments. */
export const meaning = (node: YamlNode): string => JSON.stringify(shape(node));

const shape = ({ kind, style, props, value, children }: YamlNode): unknown[] => [
  kind,
  props,
  style === 'plain', // an unquoted null is another thing than a quoted one
  value,
  ...children.map(shape),
];

export interface Pair {
  readonly key: YamlNode;
  readonly value: YamlNode;
}

export const pairsOf = ({ children }: YamlNode): Pair[] =>
  children.flatMap((key, i) => {
    const value = children[i + 1];
    return i % 2 === 1 || value === undefined ? [] : [{ key, value }];
  });

/** The offset behind a pair's colon; undefined where it has none, as in `{a}`. */
export function colonEnd(text: string, { key }: Pair): number | undefined {
  const colon = skipBlank(text, key.end);
  return text[colon] === ':' ? colon + 1 : undefined;
}
