/**
 * YAML as orchestrators write it, without loss.
 *
 * kpt hands functions raw YAML 1.1: `0644`, `on`, `1_000`, `22:30` or a 64-bit integer mean something else to a YAML
 * 1.2 parser or lose digits as JS numbers. So a plain scalar is turned into a JS value only where that value's own text
 * is the very same; any other one that some YAML version may not take for text stays `Verbatim` and is written as read.
 */
import {
  defineMappingTag,
  defineScalarTag,
  defineSequenceTag,
  dump as dumpYaml,
  mapTag,
  mergeTag,
  NOT_RESOLVED,
  Schema,
  seqTag,
  strTag,
} from 'js-yaml';
import { Verbatim } from '../model/krm.ts';

/** What YAML 1.1 or 1.2 may read as something other than text; wider than either, which only costs a pair of quotes. */
const NOT_TEXT = new RegExp(
  `^(?:${[
    '[-+]?(?:[0-9][0-9_,]*(?:\\.[0-9_]*)?|\\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?', // decimal, 1_000, 0644, 1.5e3
    '[-+]?0[xob][0-9a-fA-F_]+',
    '[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\\.[0-9_]*)?', // base 60: 22:30
    '[-+]?\\.(?:inf|Inf|INF)|\\.(?:nan|NaN|NAN)',
    '~|null|Null|NULL|=',
    'true|True|TRUE|false|False|FALSE|[yYnN]|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF',
    '[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \\t].*)?', // timestamp
  ].join('|')})$`,
);

const EXACT: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ['', null],
  ['null', null],
  ['true', true],
  ['false', false],
]);

function resolvePlain(source: string): unknown {
  if (EXACT.has(source)) return EXACT.get(source);
  if (!NOT_TEXT.test(source)) return NOT_RESOLVED;
  const value = Number(source);
  return String(value) === source && Number.isFinite(value) && Math.abs(value) <= Number.MAX_SAFE_INTEGER
    ? value
    : new Verbatim(source);
}

const plainTag = defineScalarTag<unknown>('tag:yaml.org,2002:int', {
  implicit: true,
  resolve: (source, isExplicit) => (isExplicit ? new Verbatim(source) : resolvePlain(source)),
  identify: (data) => data === null || ['number', 'boolean'].includes(typeof data) || data instanceof Verbatim,
  represent: (data) => (data instanceof Verbatim ? data.source : String(data)),
});

/** Maps as plain objects. A key is its text: Kubernetes knows no other keys. */
const textKeyedMap = defineMappingTag<Record<string, unknown>>('tag:yaml.org,2002:map', {
  ...mapTag,
  addPair: (carrier, key, value) => mapTag.addPair(carrier, key instanceof Verbatim ? key.source : key, value),
});

/** Nodes with tags of their own (`!!binary`, `!Ref`) are read as what they look like; only ever written back as their source. */
const anyTags = ['!', 'tag:'].flatMap((prefix) => [
  defineScalarTag<string>(prefix, { matchByTagPrefix: true, resolve: (source) => source, identify: () => false }),
  defineSequenceTag<unknown[]>(prefix, { ...seqTag, matchByTagPrefix: true, identify: () => false }),
  defineMappingTag<Record<string, unknown>>(prefix, { ...textKeyedMap, matchByTagPrefix: true, identify: () => false }),
]);

export const LOSSLESS = new Schema([strTag, plainTag, mergeTag, seqTag, textKeyedMap, ...anyTags]);

/** Block style, no line folding, no aliases; text that another parser may take for something else is quoted. */
export function dump(value: unknown): string {
  return dumpYaml(value, { schema: LOSSLESS, noRefs: true, lineWidth: -1, seqNoIndent: true });
}

/**
 * A copy without `Verbatim`, for reading a configuration: booleans and null as YAML 1.1 and Kubernetes read them, numbers
 * as numbers (so that unquoted digits in place of text are refused, not guessed), the rest as text.
 */
export function plain(value: unknown, known = new Map<unknown, unknown>()): unknown {
  if (value instanceof Verbatim) return plainScalar(value.source);
  if (typeof value !== 'object' || value === null) return value;
  if (known.has(value)) return known.get(value); // an alias: a few of them in each other would else be gigabytes
  if (Array.isArray(value)) {
    const list: unknown[] = [];
    known.set(value, list);
    for (const inner of value) list.push(plain(inner, known));
    return list;
  }
  const map: Record<string, unknown> = {};
  known.set(value, map);
  for (const [key, inner] of Object.entries(value))
    Object.defineProperty(map, key, {
      value: plain(inner, known),
      enumerable: true,
      configurable: true,
      writable: true,
    });
  return map;
}

function plainScalar(source: string): unknown {
  if (/^(y|yes|on|true)$/i.test(source)) return true;
  if (/^(n|no|off|false)$/i.test(source)) return false;
  if (/^(~|null)$/i.test(source)) return null;
  return source === '=' || /^\d+-/.test(source) ? source : Number(source.replaceAll('_', ''));
}
