import test from 'ava';
import fc from 'fast-check';
import { CORE_SCHEMA, load, YAML11_SCHEMA } from 'js-yaml';
import { Verbatim } from '../model/krm.ts';
import { dump, LOSSLESS, plain } from './yaml.ts';

const read = (text: string): unknown => load(text, { schema: LOSSLESS });

// What is written is the same text as what was read, whatever a YAML version takes it for.
const kept = test.macro((tt, scalar: string) => {
  tt.is(dump(read(`a: ${scalar}\n`)), `a: ${scalar}\n`);
});
for (const scalar of [
  '0644',
  '-0644',
  '0o7',
  '0O7',
  '0x1F',
  '0X1F',
  '0b101',
  '08',
  '1_000',
  '1,000',
  '22:30',
  '1:2:3',
  '1.0',
  '1.50',
  '.5',
  '5.',
  '1e3',
  '1E+3',
  '+12',
  '-0',
  '0',
  '1',
  '-7',
  '1.5',
  '9007199254740991',
  '9007199254740993',
  '18446744073709551615',
  '123456789012345678901234567890',
  '.inf',
  '-.INF',
  '.nan',
  '~',
  'null',
  'Null',
  'NULL',
  'true',
  'True',
  'TRUE',
  'false',
  'y',
  'Y',
  'n',
  'N',
  'yes',
  'No',
  'on',
  'On',
  'ON',
  'off',
  '=',
  '2001-12-14',
  '2001-12-14t21:59:43.10-05:00',
  '2001-12-14 21:59:43',
  'plain text',
  '1.2.3',
  '10.0.0.0/8',
  'fd00::/8',
  '0755a',
  'http://a/b#c',
  'a:b',
  'ü',
  '😀',
])
  test(`written as read: ${scalar}`, kept, scalar);

const meaning = test.macro((tt, text: string, value: unknown) => {
  tt.deepEqual(read(`a: ${text}\n`), { a: value });
  tt.deepEqual(read(dump({ a: value })), { a: value });
});
test('nothing', meaning, '', null);
test('quoted digits are text', meaning, `'0644'`, '0644');
test('quoted flag is text', meaning, '"on"', 'on');
test('quoted null is text', meaning, `'~'`, '~');
test('small numbers are numbers', meaning, '1300', 1300);
test('flags are flags', meaning, 'true', true);
test('literal block', meaning, '|\n    a\n    # b\n\n    c', 'a\n# b\n\nc\n');
test('literal block without a break at its end', meaning, '|-\n    a', 'a');
test('literal block with more breaks at its end', meaning, '|+\n    a\n', 'a\n\n');
test('folded block', meaning, '>\n    a\n    b', 'a b\n');
test('escapes', meaning, '"\\u00e4\\n\\t\\0"', 'ä\n\t\0');
test('merge key', meaning, '\n  <<: {x: 1}\n  y2: 2', { x: 1, y2: 2 });

// Text that one YAML version takes for something else is written so that none does.
const quoted = test.macro((tt, text: string) => {
  const written = dump({ a: text });
  for (const schema of [LOSSLESS, CORE_SCHEMA, YAML11_SCHEMA])
    tt.deepEqual<unknown, unknown>(load(written, { schema }), { a: text });
  tt.regex(written, /^a: ['"]/);
});
for (const text of [
  '0644',
  '08',
  '1_000',
  '1,000',
  '22:30',
  '1:2',
  '0x1F',
  '0o17',
  '1e3',
  '1.0',
  '.5',
  'on',
  'off',
  'y',
  'N',
  'yes',
  'true',
  'Null',
  '~',
  '',
  '=',
  '<<',
  '2001-12-14',
  ' a',
  'a ',
  '# a',
  'a: b',
  '- a',
  '&a',
  '*a',
  '!a',
  '%a',
  '@a',
  '`a',
  '{a',
  '[a',
  '"a',
  "'a",
  '\t',
  '\u0085',
  '\ufeff',
  'a\rb',
])
  test(`text in quotes: ${JSON.stringify(text)}`, quoted, text);

test('keys that look like flags and numbers stay text', (tt) => {
  const value = read('y: 1\non: 2\n0644: 3\n1_000: 4\n22:30: 5\n~: 6\n');
  tt.deepEqual<unknown, unknown>(value, { y: 1, on: 2, '0644': 3, '1_000': 4, '22:30': 5, '~': 6 });
  const written = dump(value);
  for (const schema of [LOSSLESS, CORE_SCHEMA, YAML11_SCHEMA])
    tt.deepEqual<unknown, unknown>(load(written, { schema }), value);
});

test('__proto__ is a key like others', (tt) => {
  const value = read('a: 1\n__proto__: {polluted: true}\n') as Record<string, unknown>;
  tt.deepEqual(Object.keys(value), ['a', '__proto__']);
  tt.false('polluted' in value);
  tt.is(dump(value), 'a: 1\n__proto__:\n  polluted: true\n');
  tt.deepEqual(Object.keys(plain(value) as object), ['a', '__proto__']);
});

test('tags of their own are read as what they look like', (tt) => {
  tt.deepEqual<unknown, unknown>(read('a: !Ref b\nc: !List [d]\ne: !Map {f: g}\nh: !!binary aGk=\n'), {
    a: 'b',
    c: ['d'],
    e: { f: 'g' },
    h: 'aGk=',
  });
});

test('an object of one text is written as any YAML version reads it', (tt) => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      for (const schema of [LOSSLESS, CORE_SCHEMA, YAML11_SCHEMA])
        tt.is((load(dump({ a: text }), { schema }) as { a: string }).a, text);
    }),
  );
});

test('anything is read as it was written', (tt) => {
  const value = fc.jsonValue({ noUnicodeString: false });
  fc.assert(
    fc.property(value, (any) => {
      // -0 is written as 0, as JSON does; fractions keep their text
      const json: unknown = JSON.parse(JSON.stringify(any));
      const again = read(dump([json]));
      tt.deepEqual<unknown, unknown>(
        JSON.parse(JSON.stringify(again), revive),
        JSON.parse(JSON.stringify([json]), revive),
      );
    }),
  );
});
/** Numbers that are too long for JavaScript come back as their text. */
const revive = (_: string, value: unknown): unknown =>
  typeof value === 'number' || (typeof value === 'string' && /^-?[\d.]+(e[-+]?\d+)?$/.test(value))
    ? String(value)
    : value;

const plainly = test.macro((tt, scalar: string, value: unknown) => {
  tt.deepEqual(plain(read(`a: ${scalar}\n`)), { a: value });
});
for (const word of ['on', 'On', 'yes', 'Y', 'TRUE']) test(`configuration: ${word} is true`, plainly, word, true);
for (const word of ['off', 'No', 'n', 'False']) test(`configuration: ${word} is false`, plainly, word, false);
test('configuration: ~ is null', plainly, '~', null);
test('configuration: Null is null', plainly, 'Null', null);
test('configuration: 1_300', plainly, '1_300', 1300);
test('configuration: 1.0', plainly, '1.0', 1);
test('configuration: a long number', plainly, '123456789012345678901234567890', 1.2345678901234568e29);
test('configuration: base 60 is no number anyone wants', plainly, '22:30', NaN);
test('configuration: a date is text', plainly, '2001-12-14', '2001-12-14');
test('configuration: = is text', plainly, '=', '=');
test('configuration: in lists and maps', (tt) => {
  tt.deepEqual(plain(read('a: [on, {b: off}]\n')), { a: [true, { b: false }] });
});

test('JSON of a scalar kept as written is its text', (tt) => tt.is(JSON.stringify([new Verbatim('0644')]), '["0644"]'));

test('plain: aliases in aliases are read once, not a billion times', (tt) => {
  let text = 'a0: &a0 [x, x, x, x, x, x, x, x, x]\n';
  for (let i = 1; i < 12; i++) text += `a${i}: &a${i} [${Array.from({ length: 9 }, () => `*a${i - 1}`).join(', ')}]\n`;
  const value = plain(load(text, { schema: LOSSLESS, maxAliases: -1 })) as Record<string, unknown[]>;
  tt.is(value.a11?.[0], value.a11?.[8]);
});
