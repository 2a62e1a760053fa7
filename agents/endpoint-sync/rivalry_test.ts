import test from 'ava';
import fc from 'fast-check';
import { Rivalry } from './rivalry.ts';

const MINUTE = 60_000;

test('twice at once, then later and later, up to a minute', (tt) => {
  const rivalry = new Rivalry();
  let now = 0;
  const answers = Array.from({ length: 12 }, (_, i) => {
    const { holdMs, times } = rivalry.undone('a', `version ${i}`, now);
    tt.is(times, i + 1);
    now += holdMs + 10;
    return holdMs / 1000;
  });
  tt.deepEqual(answers, [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
});

test('undone all day', (tt) => {
  const rivalry = new Rivalry();
  let last = rivalry.undone('a', '0', 0);
  for (let i = 1; i < 2_000; i++) last = rivalry.undone('a', String(i), i * MINUTE);
  tt.deepEqual(last, { holdMs: MINUTE, times: 2_000 });
});

test('asked again about the same version: what is left of the time, and no more of it', (tt) => {
  const rivalry = new Rivalry();
  for (const version of ['1', '2', '3']) rivalry.undone('a', version, 0);
  tt.deepEqual(rivalry.undone('a', '4', 0), { holdMs: 2_000, times: 4 });
  tt.deepEqual(rivalry.undone('a', '4', 500), { holdMs: 1_500, times: 4 });
  tt.deepEqual(rivalry.undone('a', '4', 2_000), { holdMs: 0, times: 4 });
  tt.deepEqual(rivalry.undone('a', '4', 9_000), { holdMs: 0, times: 4 });
  tt.deepEqual(rivalry.undone('a', '5', 9_000), { holdMs: 4_000, times: 5 });
});

test('asking about the same version often does not make the rivals many', (tt) => {
  const rivalry = new Rivalry();
  for (let now = 0; now < 10; now++) tt.deepEqual(rivalry.undone('a', '1', now), { holdMs: 0, times: 1 });
});

const after = test.macro((tt, pauseMs: number, times: number) => {
  const rivalry = new Rivalry();
  for (const version of ['1', '2', '3']) rivalry.undone('a', version, 1_000);
  tt.is(rivalry.undone('a', '4', 1_000 + pauseMs).times, times);
});
test('almost five minutes of calm: it goes on', after, 5 * MINUTE - 1, 4);
test('five minutes of calm: all is forgotten', after, 5 * MINUTE, 1);

test('a rival of one object does not slow down another', (tt) => {
  const rivalry = new Rivalry();
  for (let i = 0; i < 9; i++) rivalry.undone('a', String(i), 0);
  tt.deepEqual(rivalry.undone('b', '8', 0), { holdMs: 0, times: 1 });
});

test('never longer than a minute, never a time that is over', (tt) => {
  const step = fc.record({
    key: fc.constantFrom('a', 'b'),
    version: fc.constantFrom('1', '2', '3'),
    pauseMs: fc.oneof(fc.nat(3_000), fc.nat(10 * MINUTE)),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
      const rivalry = new Rivalry();
      let now = 0;
      for (const { key, version, pauseMs } of steps) {
        now += pauseMs;
        const { holdMs, times } = rivalry.undone(key, version, now);
        tt.true(holdMs >= 0 && holdMs <= MINUTE);
        if (times <= 2) tt.is(holdMs, 0);
        tt.deepEqual(rivalry.undone(key, version, now), { holdMs, times });
      }
    }),
  );
});
