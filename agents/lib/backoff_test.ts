import test from 'ava';
import fc from 'fast-check';
import { backoffMs } from './backoff.ts';

const limits = { firstMs: 100, maxMs: 10_000 };

const between = test.macro((tt, failures: number, least: number, most: number) => {
  tt.is(
    backoffMs(failures, limits, () => 0),
    least,
  );
  tt.is(
    backoffMs(failures, limits, () => 1),
    most,
  );
});
test('the first failure', between, 1, 50, 100);
test('twice as long after the second', between, 2, 100, 200);
test('and after the third', between, 3, 200, 400);
test('the last one below the limit', between, 7, 3_200, 6_400);
test('the limit', between, 8, 5_000, 10_000);
test('failing for days', between, 100_000, 5_000, 10_000);

test('never longer than the limit, never nothing, never shorter than half of what it was before', (tt) => {
  const input = fc.record({
    failures: fc.integer({ min: 1, max: 5_000 }),
    firstMs: fc.integer({ min: 1, max: 60_000 }),
    maxMs: fc.integer({ min: 1, max: 600_000 }),
  });
  fc.assert(
    fc.property(input, ({ failures, firstMs, maxMs }) => {
      const one = backoffMs(failures, { firstMs, maxMs });
      const next = backoffMs(failures + 1, { firstMs, maxMs });
      tt.true(one > 0 && one <= maxMs);
      tt.true(next >= one / 2);
    }),
  );
});

test('agents that failed together come back apart', (tt) => {
  tt.true(new Set(Array.from({ length: 20 }, () => backoffMs(5, limits))).size > 1);
});
