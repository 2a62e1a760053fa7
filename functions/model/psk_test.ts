import test from 'ava';
import fc from 'fast-check';
import * as E from 'fp-ts/lib/Either.js';
import { problems } from './codec.ts';
import { Psk, pskProblem, pskWarnings } from './psk.ts';

const accepted = test.macro((tt, key: string) => {
  tt.deepEqual(Psk.decode(key), E.right(key as Psk));
});
test('base64', accepted, 'gIq0kB5r3mR0o8kq2t1yBw9x0v7n6m5l');
test('both quotes', accepted, `it's "quoted"`);
test('%, $, # and backslash', accepted, '100%$HOME #1 \\n');
test('what looks like a reference, inside', accepted, 'abc${HOME}def');
test('colon and braces', accepted, '{a: b}');
test('umlauts', accepted, 'Schlüssel über Österreich');
test('beyond the basic plane', accepted, 'key-😀-key');
test('spaces inside', accepted, 'correct horse battery staple');
test('"secret" as a part', accepted, 'not-a-secret-anymore');

const CONTROL =
  'holds a line break or another control character: the other gateway would read a different key; remove it (in YAML write the key in one line, in single quotes)';
const SPACE = 'begins or ends with white space: the other gateway would likely read a different key';
const PLACEHOLDER = 'is a placeholder, not a key; `openssl rand -base64 32` makes one';

const refused = test.macro((tt, key: unknown, message: string) => {
  const result = Psk.decode(key);
  tt.deepEqual(E.isLeft(result) ? problems(result.left) : [], [{ path: '', message }]);
});
test('empty', refused, '', 'is empty: write the pre-shared key that the other gateway has');
test('NUL', refused, 'abc\0def', 'holds a NUL byte, which no gateway accepts in a key typed as text');
test('line break at the end', refused, 'abcdef\n', CONTROL);
test('line break inside', refused, 'abc\ndef', CONTROL);
test('carriage return', refused, 'abc\rdef', CONTROL);
test('tab', refused, 'abc\tdef', CONTROL);
test('DEL', refused, 'abc\u007fdef', CONTROL);
test('space before', refused, ' abcdef', SPACE);
test('space after', refused, 'abcdef ', SPACE);
test('no-break space after', refused, 'abcdef\u00a0', SPACE);
test('half a surrogate pair', refused, 'abc\ud83d', 'holds half of a surrogate pair, so it has no UTF-8 form');
test('number', refused, 12345678, 'expected text, found a number; put it in quotes');
test('list', refused, ['a'], 'expected text, found a list');

for (const key of [
  'changeme',
  'CHANGE-ME',
  'change_me_please',
  'replace me',
  'REPLACE-THIS-KEY',
  'your-psk-here',
  'example',
  'password',
  'secret',
  'psk',
  'PreSharedKey',
  'pre-shared-key',
  'TODO',
  'xxxxxxxx',
  '********',
  '...',
  '…',
  '<psk>',
  '{{ .Values.psk }}',
  '${PSK}',
  '$(PSK)',
])
  test(`placeholder ${key}`, refused, key, PLACEHOLDER);

test('no message holds the key', (tt) => {
  const key = fc.string({ unit: 'binary', minLength: 4, maxLength: 12 }).map((s) => `Zq9${s}`);
  fc.assert(fc.property(key, (text) => tt.false(pskProblem(text)?.includes('Zq9') ?? false)));
});

const warned = test.macro((tt, key: string, ...expected: RegExp[]) => {
  const found = pskWarnings(key);
  tt.is(found.length, expected.length);
  expected.forEach((pattern, i) => tt.regex(found[i] ?? '', pattern));
});
test('a good key', warned, 'a good key of much more than 20 characters');
test('19 characters', warned, 'x'.repeat(19), /^has fewer than 20 characters/);
test('20 characters', warned, 'x'.repeat(20));
test('0s and base64, as in swanctl.conf', warned, '0sSGVsbG8gd29ybGQsIHRoaXMgaXM', /^begins with 0s or 0x/);
test('0X and digits, short', warned, '0X0123', /^has fewer/, /^begins with 0s or 0x/);
