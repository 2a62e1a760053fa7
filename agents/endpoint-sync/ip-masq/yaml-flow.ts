/** Edits of lists and maps in flow style, `[a]` and `{a: b}`, JSON's own, that keep every other byte. */
import { cut, cutLines, indentation, insert, lineBreakFor, restOfLine, type Splice } from './splice.ts';
import { colonEnd, pairsOf, skipBlank, type YamlNode } from './yaml-spans.ts';

/** An entry of a list or a pair of a map. */
export interface FlowItem {
  readonly start: number;
  readonly end: number;
  /** The offset of the comma behind it; undefined where there is none. */
  readonly comma: number | undefined;
}

export function itemsOf(text: string, node: YamlNode): FlowItem[] {
  const spans =
    node.kind === 'list'
      ? node.children
      : pairsOf(node).map((pair) => ({
          start: pair.key.start,
          end: Math.max(pair.value.end, colonEnd(text, pair) ?? 0),
        }));
  return spans.map(({ start, end }) => {
    const comma = skipBlank(text, end);
    return { start, end, comma: text[comma] === ',' ? comma : undefined };
  });
}

/** New items behind the last one: in lines of their own where it is, else beside it. `gap`: what stands behind a comma. */
export function appendToFlow(text: string, node: YamlNode, news: readonly string[], gap: string): Splice[] {
  const last = itemsOf(text, node).at(-1);
  if (last === undefined) return [insert(node.content + 1, news.join(`,${gap}`))];
  const at = last.comma === undefined ? last.end : last.comma + 1;
  const { place, lead } = placeBehind(text, last, at) ?? { place: at, lead: gap };
  return last.comma === undefined
    ? [insert(at, ','), insert(place, lead + news.join(`,${lead}`))]
    : [insert(place, news.map((item) => `${lead}${item},`).join(''))];
}

/** The end of an item's line, and what begins a line below it; undefined where the item shares its line with others. */
function placeBehind(text: string, item: FlowItem, at: number): { place: number; lead: string } | undefined {
  const rest = restOfLine(text, at);
  const indent = indentation(text, item.start) ?? (rest?.comment === undefined ? undefined : indentBelow(text, at));
  const place = rest?.end ?? at;
  return indent === undefined ? undefined : { place, lead: lineBreakFor(text, place) + indent };
}

/** The indentation of the line below that holds more than a comment. */
const indentBelow = (text: string, at: number): string => indentation(text, skipBlank(text, at)) || ' ';

/** Takes some of the items out, or all of them; comments stay. */
export function dropFromFlow(text: string, node: YamlNode, isDropped: (index: number) => boolean): Splice[] {
  const items = itemsOf(text, node);
  const keptAt = items.findLastIndex((_, i) => !isDropped(i));
  if (keptAt < 0 && isPretty(text, node, items)) return [cut(node.content + 1, node.end - 1)];
  const kept = items[keptAt];
  const needless = keptAt < items.length - 1 && items.at(-1)?.comma === undefined ? kept?.comma : undefined;
  const inside = node.content + 1;
  const firstKept = items.findIndex((_, i) => !isDropped(i));
  const dropped = items.flatMap((item, i) => {
    if (!isDropped(i)) return [];
    const comma = items[i - 1]?.comma;
    return dropOne(text, item, {
      from: comma === undefined ? inside : comma + 1,
      isFirst: firstKept < 0 || i < firstKept,
      next: items[i + 1]?.start,
      kept: kept?.comma === undefined ? inside : kept.comma + 1,
    });
  });
  return needless === undefined ? dropped : [cut(needless, needless + 1), ...dropped];
}

/** In lines of their own, and nothing else inside the brackets. */
const isPretty = (text: string, node: YamlNode, items: readonly FlowItem[]): boolean =>
  items[0] !== undefined &&
  indentation(text, items[0].start) !== undefined &&
  !hasComment(text.slice(node.content, node.end));

/** May take a `#` in quotes for a comment: white space is then less tidy, no more. */
export const hasComment = (text: string): boolean => text.includes('#');

/** What is around an item. */
interface Around {
  /** Behind the comma of the item before, or behind the opening bracket. */
  readonly from: number;
  /** None before it stays. */
  readonly isFirst: boolean;
  /** Where the next item starts. */
  readonly next: number | undefined;
  /** Behind the comma of the last item that stays, or behind the opening bracket. */
  readonly kept: number;
}

function dropOne(text: string, item: FlowItem, around: Around): Splice[] {
  const { start, end, comma } = item;
  if (comma !== undefined && hasComment(text.slice(end, comma)))
    return [cutLines(text, start, end), cut(comma, comma + 1)];
  const last = comma === undefined ? end : comma + 1;
  const isAlone = indentation(text, start) !== undefined;
  if (isAlone && restOfLine(text, last) !== undefined) return [cutLines(text, start, last)];
  return [isAlone || around.isFirst ? cutFirst(text, start, last, around) : cut(beforeIt(text, start, around), last)];
}

/** The first item of its line, or of all, in a line with something else: another item or the closing bracket. */
function cutFirst(text: string, start: number, last: number, around: Around): Splice {
  const { next, isFirst } = around;
  if (next === undefined) return cut(isFirst ? start : beforeIt(text, start, around), last);
  return cut(start, /^[ \t]*$/.test(text.slice(last, next)) ? next : last);
}

/** The beginning of the white space before an item; but the closing bracket must not get into a comment above. */
const beforeIt = (text: string, start: number, { from, next, kept }: Around): number =>
  next === undefined && hasComment(text.slice(kept, start)) ? start : from;
