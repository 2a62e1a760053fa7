import test from 'ava';
import fc from 'fast-check';
import { WriteBudget, type Writing } from './write-budget.ts';

const MINUTE = 60_000;

/** Writes as soon as it may, and answers how long each write had to wait. */
function waits(writing: Writing, times: number, budget = new WriteBudget()): number[] {
  let now = 0;
  return Array.from({ length: times }, () => {
    const wait = budget.wait('a', writing, now);
    now += wait;
    budget.spend('a', writing, now);
    return wait;
  });
}

test('against a rival: twice at once, then once a minute', (tt) => {
  tt.deepEqual(waits('rival', 5), [0, 0, MINUTE, MINUTE, MINUTE]);
});

test("what Cilium's agent overwrites: a thousand times at once, and at last ten times a second", (tt) => {
  const all = waits('ordinary', 2_000);
  tt.true(all.slice(0, 1_000).every((wait) => wait === 0));
  tt.deepEqual(all.slice(-3), [100, 100, 100]);
});

test('asking changes nothing', (tt) => {
  const budget = new WriteBudget();
  for (let i = 0; i < 5; i++) budget.spend('a', 'rival', 0);
  for (let now = 0; now < MINUTE; now += 1_000) tt.is(budget.wait('a', 'rival', now), MINUTE - now);
  tt.is(budget.wait('a', 'rival', MINUTE), 0);
});

test('against a rival held back, an ordinary write goes through at once', (tt) => {
  const budget = new WriteBudget();
  for (let i = 0; i < 3; i++) budget.spend('a', 'rival', 0);
  tt.true(budget.wait('a', 'rival', 1_000) > 0);
  tt.is(budget.wait('a', 'ordinary', 1_000), 0);
});

test('one object does not slow down another, and one that came back begins anew', (tt) => {
  const budget = new WriteBudget();
  for (let i = 0; i < 9; i++) budget.spend('a', 'rival', 0);
  tt.is(budget.wait('b', 'rival', 0), 0);
  budget.forget('a');
  tt.is(budget.wait('a', 'rival', 0), 0);
});

test('holding back is said once, and again after it was written freely', (tt) => {
  const budget = new WriteBudget();
  for (let i = 0; i < 3; i++) budget.spend('a', 'rival', 0);
  tt.true(budget.sayOnce('a'));
  tt.false(budget.sayOnce('a'));
  budget.spend('a', 'rival', MINUTE);
  tt.false(budget.sayOnce('a'), 'the rival is still there');
  budget.spend('a', 'ordinary', 5 * MINUTE);
  tt.true(budget.sayOnce('a'));
});

test('in any order: never more writes than the bucket and its refill allow', (tt) => {
  const step = fc.record({ rival: fc.boolean(), pauseMs: fc.nat(120_000) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
      const budget = new WriteBudget();
      let now = 0;
      let cost = 0;
      for (const { rival, pauseMs } of steps) {
        now += pauseMs;
        const writing = rival ? 'rival' : 'ordinary';
        if (budget.wait('a', writing, now) > 0) continue;
        budget.spend('a', writing, now);
        cost += rival ? 600 : 1;
      }
      tt.true(cost <= 1_200 + (now / 1_000) * 10);
    }),
  );
});
