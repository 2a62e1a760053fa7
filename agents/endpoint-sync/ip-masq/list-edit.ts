/** Where and how entries go into the list `nonMasqueradeCIDRs` and out of it, in the style of the text around it. */
import {
  applySplices,
  cutLines,
  indentation,
  insert,
  isLineStart,
  lineBreakFor,
  restOfLine,
  type Splice,
} from './splice.ts';
import { appendToBlock, behindComments, dashesOf, dropFromBlock } from './yaml-block.ts';
import { appendToFlow, dropFromFlow, hasComment, itemsOf } from './yaml-flow.ts';
import { colonEnd, pairsOf, skipBlank, type Pair, type YamlNode } from './yaml-spans.ts';

export const FIELD = 'nonMasqueradeCIDRs';

/** The text cannot be read or edited. The message is for an administrator: a sentence whose subject is the text. */
export class Unfit extends Error {
  override readonly name = 'Unfit';
}

/**
 * What an edit made beside entries, to be undone once the list is empty again: the field; its value where it was
 * null, with what stood behind the colon; the map where the whole text was null, with that word.
 */
export type Created = 'field' | 'value' | `value:${string}` | `root:${string}`;

const NULL = '(?:null|Null|NULL|~)';
const CREATED = new RegExp(`^(?:field|value|value:[ \\t]*${NULL}|root:${NULL})$`);

export const isCreated = (u: unknown): u is Created => typeof u === 'string' && CREATED.test(u);

/** Null as YAML 1.1 and 1.2 read it, or nothing at all. */
export const isNull = ({ kind, style, value, props }: YamlNode): boolean =>
  kind === 'scalar' && style === 'plain' && props === '' && (value === '' || new RegExp(`^${NULL}$`).test(value));

/** A text that was read, and checked to be fit for edits. */
export interface Place {
  readonly text: string;
  /** A map, null, or undefined where there are but comments. */
  readonly root: YamlNode | undefined;
  /** Its value is a list or null. */
  readonly field: Pair | undefined;
}

export interface Appended {
  readonly text: string;
  /** Set where there was no list. */
  readonly created?: Created;
}

/** The text with entries at the end of the list; `entries` is not empty. */
export function append({ text, root, field }: Place, entries: readonly string[]): Appended {
  if (root === undefined || isNull(root)) return createRoot(text, root, entries);
  if (field === undefined) return createField(text, root, entries);
  if (isNull(field.value)) return createValue(text, root, field, entries);
  const list = field.value;
  const splices =
    list.style === 'flow'
      ? extendFlow(text, root, field, entries)
      : appendToBlock(text, list, dashes(text, list), columnOf(text, field), blockItems(entries, list.children));
  return { text: applySplices(text, splices) };
}

// What was not there.

/** A map of one field: in block style below the comments, in flow style in place of a written null. */
function createRoot(text: string, root: YamlNode | undefined, entries: readonly string[]): Appended {
  if (root !== undefined && root.end > root.start) {
    const map = `{"${FIELD}": ${flowList(entries, ' ')}}`;
    return {
      text: applySplices(text, [{ at: root.start, end: root.end, text: map }]),
      created: `root:${root.value}`,
    };
  }
  const endMark = /(?<=^\ufeff?|[\r\n])\.\.\.(?=\s|$)/.exec(text);
  const at = endMark?.index ?? text.length;
  return { text: applySplices(text, [insert(at, blockField(text, at, '', entries))]), created: 'field' };
}

function createField(text: string, root: YamlNode, entries: readonly string[]): Appended {
  const splices = root.style === 'flow' ? newPair(text, root, entries) : newField(text, root, entries);
  return { text: applySplices(text, splices), created: 'field' };
}

function newPair(text: string, root: YamlNode, entries: readonly string[]): Splice[] {
  const gap = gapOf(text, root);
  const last = pairsOf(root).at(-1);
  const list = flowList(entries, gap, last && prettyAt(text, root, last.key));
  return appendToFlow(text, root, [`"${FIELD}":${gap}${list}`], gap);
}

function newField(text: string, root: YamlNode, entries: readonly string[]): Splice[] {
  const indent = indentation(text, root.content);
  if (indent === undefined) throw unsafe();
  const at = placeBelow(text, root, indent.length);
  return [insert(at, blockField(text, at, indent, entries))];
}

/** Below the root's last line and the comments of its own; where that is a text block, a line begins there already. */
function placeBelow(text: string, root: YamlNode, column: number): number {
  const end = contentEnd(text, root);
  if (isLineStart(text, end)) return end;
  if (lastLeaf(root).style === 'block')
    throw new Unfit('ends with a text block (| or >) that lacks its last line break: end the text with one');
  const rest = restOfLine(text, end);
  if (rest === undefined) throw unsafe();
  return behindComments(text, rest.end, column);
}

function lastLeaf(node: YamlNode): YamlNode {
  const last = node.children.at(-1);
  return last === undefined ? node : lastLeaf(last);
}

/** Where the root's last line has its end, comments aside: behind its last token only `:`, `-`, `?` or brackets follow. */
function contentEnd(text: string, root: YamlNode): number {
  let end = root.end;
  let at = skipBlank(text, end);
  while (at < text.length && !(isLineStart(text, at) && text.startsWith('...', at))) {
    end = at + 1;
    at = skipBlank(text, end);
  }
  return end;
}

/** In place of null: where it is written in a block map, it goes, and comes back with `created`. */
function createValue(text: string, root: YamlNode, field: Pair, entries: readonly string[]): Appended {
  const colon = colonEnd(text, field);
  const end = Math.max(field.value.end, colon ?? 0);
  const before = text.slice(colon, end);
  const created = before === '' ? 'value' : (`value:${before}` as const);
  if (colon === undefined || !isCreated(created)) throw unsafe();
  if (root.style === 'flow') {
    const gap = before === '' ? ' ' : (/^[ \t]*/.exec(before)?.[0] ?? '');
    const list = flowList(entries, gapOf(text, root), prettyAt(text, root, field.key));
    return { text: applySplices(text, [{ at: colon, end, text: gap + list }]), created };
  }
  const column = columnOf(text, field);
  const rest = restOfLine(text, end);
  if (rest === undefined) throw unsafe();
  const at = behindComments(text, rest.end, column);
  const lines = listLines(text.slice(field.key.start - column, field.key.start), entries);
  const lineBreak = lineBreakFor(text, at);
  return {
    text: applySplices(text, [
      { at: colon, end, text: '' },
      insert(at, lines.map((line) => lineBreak + line).join('')),
    ]),
    created,
  };
}

const unsafe = (): Unfit => new Unfit(`has ${FIELD} in a form that cannot be edited safely: write ${FIELD}: []`);

/** The field's lines for an insertion at `at`: where a line begins there, each with a break behind it, else before it. */
function blockField(text: string, at: number, indent: string, entries: readonly string[]): string {
  const lineBreak = lineBreakFor(text, at);
  const lines = [`${indent}${FIELD}:`, ...listLines(indent, entries)];
  const isFresh = isLineStart(text, at);
  return lines.map((line) => (isFresh ? line + lineBreak : lineBreak + line)).join('');
}

const listLines = (indent: string, entries: readonly string[]): string[] =>
  blockItems(entries, []).map((item) => `${indent}- ${item}`);

// A list that is there.

function extendFlow(text: string, root: YamlNode, field: Pair, entries: readonly string[]): Splice[] {
  const list = field.value;
  const pretty = root.style === 'flow' ? prettyAt(text, root, field.key) : undefined;
  if (pretty !== undefined && text.slice(list.content, list.end) === '[]')
    return [{ at: list.content, end: list.end, text: flowList(entries, ' ', pretty) }];
  return appendToFlow(text, list, entries.map(quoted), listGap(text, root, list));
}

const quoted = (entry: string): string => JSON.stringify(entry);

/** What stands behind a list's commas: as between the last two entries, where they are in one line. */
function listGap(text: string, root: YamlNode, list: YamlNode): string {
  const [before, last] = itemsOf(text, list).slice(-2);
  const gap = before?.comma === undefined ? undefined : text.slice(before.comma + 1, last?.start);
  return gap !== undefined && /^[ \t]*$/.test(gap) ? gap : gapOf(text, root);
}

/** What stands behind colons and commas: nothing in compact JSON, else a space. */
function gapOf(text: string, root: YamlNode): string {
  const colons = root.style === 'flow' ? pairsOf(root).map((pair) => colonEnd(text, pair)) : [];
  return colons.some((colon) => colon !== undefined && /\S/.test(text.charAt(colon))) ? '' : ' ';
}

/** How a list is laid out in lines. */
interface Pretty {
  readonly lineBreak: string;
  readonly indent: string;
  /** What entries are indented by, beyond `indent`. */
  readonly step: string;
}

/** As pretty-printed JSON has it, where the pair's key is the first thing in its line; else undefined. */
function prettyAt(text: string, root: YamlNode, key: YamlNode): Pretty | undefined {
  const indent = indentation(text, key.start);
  if (indent === undefined || key.start === root.content) return undefined;
  const outer = indentation(text, root.end - 1) ?? '';
  const step = indent.startsWith(outer) ? indent.slice(outer.length) : '';
  return { lineBreak: lineBreakFor(text, key.start - indent.length), indent, step: step || '  ' };
}

function flowList(entries: readonly string[], gap: string, pretty?: Pretty): string {
  if (pretty === undefined) return `[${entries.map(quoted).join(`,${gap}`)}]`;
  const { lineBreak, indent, step } = pretty;
  const lines = entries.map((entry) => `${lineBreak}${indent}${step}${quoted(entry)}`);
  return `[${lines.join(',')}${lineBreak}${indent}]`;
}

type Quote = 'plain' | 'single' | 'double';

/**
 * In the quotes of the last neighbour of the same family, else of the last one. IPv6 is always in quotes, so double ones
 * around it say nothing of IPv4.
 */
function blockItems(entries: readonly string[], neighbours: readonly YamlNode[]): string[] {
  const isV6 = (entry: string): boolean => entry.includes(':');
  const quoteFor = (v6: boolean): Quote => {
    const same = neighbours.findLast(({ value }) => isV6(value) === v6);
    const style = (same ?? neighbours.at(-1))?.style;
    if (style === 'single') return 'single';
    if (v6) return 'double';
    return same?.style === 'double' ? 'double' : 'plain';
  };
  const quotes = { v4: quoteFor(false), v6: quoteFor(true) };
  return entries.map((entry) => scalar(entry, isV6(entry) ? quotes.v6 : quotes.v4));
}

function scalar(entry: string, style: Quote): string {
  if (style === 'single') return `'${entry.replaceAll("'", "''")}'`;
  return style === 'plain' && /^[0-9.]+\/[0-9]+$/.test(entry) ? entry : quoted(entry);
}

function dashes(text: string, list: YamlNode): number[] {
  const found = dashesOf(text, list);
  if (found === undefined) throw badList();
  return found;
}

/** The indentation of the field's key. */
function columnOf(text: string, { key }: Pair): number {
  const indent = indentation(text, key.start);
  if (indent === undefined) throw badList();
  return indent.length;
}

const badList = (): Unfit =>
  new Unfit(
    `has ${FIELD} in a form that cannot be edited safely: write ${FIELD}: in a line of its own, and each entry in another, behind a dash`,
  );

// Taking out.

/** The text without some of the entries; where none stays, with an empty list. */
export function drop({ text, field }: Place, isDropped: (index: number) => boolean): string {
  if (field === undefined) return text;
  const list = field.value;
  if (list.style === 'flow') return applySplices(text, dropFromFlow(text, list, isDropped));
  const splices = dropFromBlock(text, list, dashes(text, list), isDropped);
  const isEmptied = list.children.every((_, i) => isDropped(i));
  return applySplices(text, isEmptied ? [insert(colonEnd(text, field) ?? 0, ' []'), ...splices] : splices);
}

/** The text as it was before the list was created; undefined where comments came into it that would be lost. */
export function undo(place: Place, created: Created): string | undefined {
  const { text, root, field } = place;
  if (root === undefined || field === undefined) return undefined;
  const splices = undoSplices(text, root, field, created);
  return splices && applySplices(text, splices);
}

function undoSplices(text: string, root: YamlNode, field: Pair, created: Created): Splice[] | undefined {
  if (created.startsWith('value')) return undoValue(text, root, field, created.slice('value:'.length));
  const hasComments = hasComment(text.slice(field.key.start, field.value.end));
  if (root.style === 'block') return undoField(text, field, hasComments);
  if (hasComments) return undefined;
  if (created.startsWith('root:') && root.children.length === 2 && !hasComment(text.slice(root.content, root.end)))
    return [{ at: root.content, end: root.end, text: created.slice('root:'.length) }];
  const index = root.children.indexOf(field.key) / 2;
  return dropFromFlow(text, root, (i) => i === index);
}

function undoField(text: string, { key, value }: Pair, hasComments: boolean): Splice[] | undefined {
  if (!hasComments) return [cutLines(text, key.start, value.end)];
  if (value.style === 'flow') return undefined;
  const colon = colonEnd(text, { key, value }) ?? key.end;
  return [cutLines(text, key.start, colon), ...dropFromBlock(text, value, dashes(text, value), () => true)];
}

/** `before`: what stood behind the colon. */
function undoValue(text: string, root: YamlNode, field: Pair, before: string): Splice[] | undefined {
  const list = field.value;
  const colon = colonEnd(text, field) ?? field.key.end;
  const apart = root.style === 'block' && /^\S/.test(before) ? ` ${before}` : before;
  if (list.style === 'block')
    return [insert(colon, apart), ...dropFromBlock(text, list, dashes(text, list), () => true)];
  return hasComment(text.slice(colon, list.end)) ? undefined : [{ at: colon, end: list.end, text: apart }];
}
