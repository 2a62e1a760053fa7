import test from 'ava';
import * as E from 'fp-ts/lib/Either.js';
import { problems } from './codec.ts';
import { duration } from './duration.ts';

const codec = duration(1, 86_400);

const accepted = test.macro((tt, input: unknown, seconds: number) =>
  tt.deepEqual(codec.decode(input), E.right(seconds)),
);
test('number', accepted, 30, 30);
test('digits', accepted, '30', 30);
test('seconds', accepted, '30s', 30);
test('minutes', accepted, '5m', 300);
test('hours', accepted, '4h', 14_400);
test('days, up to the maximum', accepted, '1d', 86_400);
test('minimum', accepted, 1, 1);

const EXPECTED = 'expected a time such as 30, 30s, 5m or 4h, found';
const RANGE = 'must be from 1 to 86400 seconds';
const refused = test.macro((tt, input: unknown, message: string) => {
  const result = codec.decode(input);
  tt.deepEqual(E.isLeft(result) ? problems(result.left) : [], [{ path: '', message }]);
});
test('zero', refused, 0, RANGE);
test('zero as text', refused, '0s', RANGE);
test('above the maximum', refused, 86_401, RANGE);
test('2d', refused, '2d', RANGE);
test('negative', refused, -1, RANGE);
test('negative as text', refused, '-1s', `${EXPECTED} other text`);
test('fraction', refused, 1.5, `${EXPECTED} a number`);
test('two units', refused, '1h30m', `${EXPECTED} other text`);
test('milliseconds', refused, '100ms', `${EXPECTED} other text`);
test('weeks', refused, '1w', `${EXPECTED} other text`);
test('space', refused, '30 s', `${EXPECTED} other text`);
test('empty', refused, '', `${EXPECTED} other text`);
test('flag', refused, true, `${EXPECTED} a boolean`);
test('list', refused, [30], `${EXPECTED} a list`);
