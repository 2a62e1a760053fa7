/** Edits of a text at offsets, and the lines around an offset. A line ends with LF, CRLF or CR, or with the text. */

/** In place of the characters from `at` to `end` stands `text`. */
export interface Splice {
  readonly at: number;
  readonly end: number;
  readonly text: string;
}

export const insert = (at: number, text: string): Splice => ({ at, end: at, text });
export const cut = (at: number, end: number): Splice => ({ at, end, text: '' });

/** Offsets are all of the text as it was. Cuts may overlap; of two insertions at one offset the earlier comes first. */
export function applySplices(text: string, splices: readonly Splice[]): string {
  const parts: string[] = [];
  let done = 0;
  for (const splice of splices.toSorted((a, b) => a.at - b.at)) {
    if (splice.at > done) parts.push(text.slice(done, splice.at));
    parts.push(splice.text);
    done = Math.max(done, splice.end);
  }
  return parts.join('') + text.slice(done);
}

const isBreak = (char: string | undefined): boolean => char === '\n' || char === '\r';

/** The line break that begins at an offset, or ''. */
function breakAt(text: string, at: number): string {
  if (text.startsWith('\r\n', at)) return '\r\n';
  return isBreak(text[at]) ? text.charAt(at) : '';
}

/** The line break that ends right before an offset, or ''. */
function breakBefore(text: string, at: number): string {
  if (text.startsWith('\r\n', at - 2) && at >= 2) return '\r\n';
  return isBreak(text[at - 1]) ? text.charAt(at - 1) : '';
}

/** The line break to use in an insertion: the one at the offset, else the nearest above, else the first, else LF. */
export function lineBreakFor(text: string, at: number): string {
  const here = breakBefore(text, at) || breakAt(text, at);
  if (here !== '') return here;
  const above = Math.max(text.lastIndexOf('\n', at), text.lastIndexOf('\r', at));
  if (above >= 0) return breakBefore(text, above + 1);
  return /\r\n|\n|\r/.exec(text)?.[0] ?? '\n';
}

/** What stands before an offset in its line, where that is white space only; undefined where it is not. */
export function indentation(text: string, at: number): string | undefined {
  let start = at;
  while (text[start - 1] === ' ' || text[start - 1] === '\t') start -= 1;
  return isLineStart(text, start) ? text.slice(start, at) : undefined;
}

/** Behind a byte order mark a line begins, too. */
export const isLineStart = (text: string, at: number): boolean =>
  at === 0 || isBreak(text[at - 1]) || (at === 1 && text[0] === '\ufeff');

export interface RestOfLine {
  /** Where the line ends, without its break. */
  readonly end: number;
  /** Where a comment begins. */
  readonly comment: number | undefined;
}

const REST = /[ \t]*(#[^\r\n]*)?(?=[\r\n]|$)/y;

/** What follows an offset in its line, where that is white space and a comment at most; undefined where it is more. */
export function restOfLine(text: string, at: number): RestOfLine | undefined {
  REST.lastIndex = at;
  const found = REST.exec(text);
  if (found === null) return undefined;
  const end = at + found[0].length;
  return { end, comment: found[1] === undefined ? undefined : end - found[1].length };
}

/**
 * A cut of what stands from `start` to `end`. Where nothing else stands in those lines, they go as a whole, and with
 * them the break above (at the text's beginning the one below); a comment beside stays, in a line of its own.
 */
export function cutLines(text: string, start: number, end: number): Splice {
  const indent = indentation(text, start);
  const rest = restOfLine(text, end);
  if (indent === undefined || rest === undefined) return cut(start, end);
  if (rest.comment !== undefined) return cut(start, rest.comment);
  const first = start - indent.length;
  const above = breakBefore(text, first).length;
  return above > 0 ? cut(first - above, rest.end) : cut(first, rest.end + breakAt(text, rest.end).length);
}
