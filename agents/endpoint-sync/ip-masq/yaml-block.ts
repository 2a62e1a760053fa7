/** Edits of a list in block style, `- a`, that keep every other byte. */
import { cut, cutLines, indentation, insert, lineBreakFor, restOfLine, type Splice } from './splice.ts';
import { skipBlank, type YamlNode } from './yaml-spans.ts';

/**
 * The offsets of the dashes. js-yaml's events have only the first; each other one is what follows the entry above it.
 * Undefined where a dash does not begin its line.
 */
export function dashesOf(text: string, { content, children }: YamlNode): number[] | undefined {
  const dashes = children.map((_, i) => {
    const above = children[i - 1];
    return above === undefined ? content : skipBlank(text, above.end);
  });
  const inLine = (dash: number): boolean => text[dash] === '-' && indentation(text, dash) !== undefined;
  return dashes.every(inLine) ? dashes : undefined;
}

/**
 * New entries behind the last one, written like it. `items`: their YAML. `column`: the indentation of the list's key;
 * comments right below the last entry that stand further in belong to the list, and stay above the new ones.
 */
export function appendToBlock(
  text: string,
  list: YamlNode,
  dashes: readonly number[],
  column: number,
  items: readonly string[],
): Splice[] {
  const last = list.children.at(-1);
  const dash = dashes.at(-1) ?? 0;
  const rest = restOfLine(text, last?.end ?? 0);
  if (last === undefined || rest === undefined) return [];
  const at = behindComments(text, rest.end, column);
  const gap = text.slice(dash + 1, last.start);
  const lead = `${indentation(text, dash) ?? ''}-${/^[ \t]+$/.test(gap) ? gap : ' '}`;
  const lineBreak = lineBreakFor(text, at);
  return [insert(at, items.map((item) => `${lineBreak}${lead}${item}`).join(''))];
}

const COMMENT_BELOW = /(?:\r\n|\n|\r)([ \t]*)#[^\r\n]*/y;

/** The end of the last of the comment lines that follow the line that ends at `at` and are indented by more than `column`. */
export function behindComments(text: string, at: number, column: number): number {
  let end = at;
  COMMENT_BELOW.lastIndex = at;
  let found = COMMENT_BELOW.exec(text);
  while (found !== null && (found[1] ?? '').length > column) {
    end = COMMENT_BELOW.lastIndex;
    found = COMMENT_BELOW.exec(text);
  }
  return end;
}

/** Takes entries out, each with its line; comments stay. */
export function dropFromBlock(
  text: string,
  list: YamlNode,
  dashes: readonly number[],
  isDropped: (index: number) => boolean,
): Splice[] {
  return list.children.flatMap(({ start, end }, i) => {
    const dash = dashes[i] ?? start;
    if (!isDropped(i)) return [];
    if (!text.slice(dash, start).includes('#')) return [cutLines(text, dash, end)];
    return [cut(dash, dash + 1), cutLines(text, start, end)]; // a comment between the dash and the entry
  });
}
