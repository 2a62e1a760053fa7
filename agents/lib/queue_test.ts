import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import fc from 'fast-check';
import { WorkQueue, type Again } from './queue.ts';

const HOUR = 3_600_000;
const slow = { firstMs: HOUR, maxMs: HOUR };

/** A run that has begun and ends when the test says so. */
interface Run {
  readonly key: string;
  end(again?: Again): void;
  fail(error?: unknown): void;
}

interface Settings {
  backoff?: { firstMs: number; maxMs: number };
  concurrency?: number;
  onError?: (key: string, error: unknown) => Again | undefined;
}

class Bench {
  readonly runs: Run[] = [];
  readonly queue: WorkQueue;

  constructor({ backoff = slow, concurrency = 10, onError = () => undefined }: Settings = {}) {
    const reconcile = (key: string): Promise<Again | void> =>
      new Promise((resolve, reject) => {
        // oxlint-disable-next-line typescript/prefer-promise-reject-errors
        this.runs.push({ key, end: (again) => resolve(again), fail: (error = new Error('no')) => reject(error) });
      });
    this.queue = new WorkQueue(reconcile, { backoff, concurrency, onError });
  }

  get keys(): string {
    return this.runs.map(({ key }) => key).join(' ');
  }

  add(...keys: string[]): void {
    for (const key of keys) this.queue.add(key);
  }

  /** The nth run, from 0, as soon as it has begun. */
  async run(n: number): Promise<Run> {
    for (;;) {
      const run = this.runs[n];
      if (run !== undefined) return run;
      await sleep(1);
    }
  }

  async end(n: number, again?: Again): Promise<void> {
    (await this.run(n)).end(again);
    await settled();
  }

  async fail(n: number, error?: unknown): Promise<void> {
    (await this.run(n)).fail(error);
    await settled();
  }
}

/** What can happen without time passing has happened; no timer has fired meanwhile. */
async function settled(): Promise<void> {
  for (let n = 0; n < 20; n++) await Promise.resolve();
}

test('added, run, and then at rest', async (tt) => {
  const bench = new Bench();
  bench.add('a');
  await bench.end(0);
  tt.is(bench.keys, 'a');
  bench.add('a');
  await bench.end(1);
  tt.is(bench.keys, 'a a');
});

test('adds while it runs become one more run', async (tt) => {
  const bench = new Bench();
  bench.add('a');
  bench.add('a', 'a', 'a');
  await settled();
  tt.is(bench.keys, 'a');
  await bench.end(0);
  tt.is(bench.keys, 'a a');
  await bench.end(1);
  tt.is(bench.keys, 'a a');
});

test('adds while it waits for its turn become one run', async (tt) => {
  const bench = new Bench({ concurrency: 1 });
  bench.add('a', 'b', 'b', 'b');
  await bench.end(0);
  await bench.end(1);
  tt.is(bench.keys, 'a b');
});

test('no more at a time than allowed, in the order of adds', async (tt) => {
  const bench = new Bench({ concurrency: 2 });
  bench.add('a', 'b', 'c', 'd');
  await settled();
  tt.is(bench.keys, 'a b');
  await bench.end(1);
  tt.is(bench.keys, 'a b c');
  await bench.end(0);
  tt.is(bench.keys, 'a b c d');
});

test('a failure takes no place', async (tt) => {
  const bench = new Bench({ concurrency: 1 });
  bench.add('a', 'b');
  await bench.fail(0);
  tt.is(bench.keys, 'a b');
  await bench.end(1);
  await bench.queue.stop();
});

test('a failure is reported with its key and tried again', async (tt) => {
  const errors: unknown[] = [];
  const bench = new Bench({
    backoff: { firstMs: 1, maxMs: 1 },
    onError: (key, error) => void errors.push([key, error]),
  });
  bench.add('a');
  const error = new Error('refused');
  await bench.fail(0, error);
  await bench.end(1);
  tt.is(bench.keys, 'a a');
  tt.deepEqual(errors, [['a', error]]);
});

test('an add does not wait for the backoff', async (tt) => {
  const bench = new Bench();
  bench.add('a');
  await bench.fail(0);
  tt.is(bench.keys, 'a');
  bench.add('a');
  await bench.end(1);
  tt.is(bench.keys, 'a a');
});

test('an add while a run fails does not wait for the backoff', async (tt) => {
  const bench = new Bench();
  bench.add('a');
  bench.add('a');
  await bench.fail(0);
  tt.is(bench.keys, 'a a');
  await bench.end(1);
});

// 22 failures in a row: after 1 ms, doubled each time, the next try is minutes away.
const MANY = 22;
async function failOften(bench: Bench): Promise<void> {
  for (let n = 0; n < MANY; n++) {
    if (bench.runs.length === n) bench.add('a'); // unless it came by itself
    await bench.fail(n);
  }
}
const doubling = { firstMs: 1, maxMs: HOUR };

test('each failure in a row makes the wait longer', async (tt) => {
  const bench = new Bench({ backoff: doubling });
  await failOften(bench);
  await sleep(30);
  tt.is(bench.runs.length, MANY);
  await bench.queue.stop();
});

test('another key’s failures do not count', async (tt) => {
  const bench = new Bench({ backoff: doubling });
  await failOften(bench);
  bench.add('b');
  await bench.fail(MANY);
  tt.is((await bench.run(MANY + 1)).key, 'b');
  await bench.end(MANY + 1);
  await bench.queue.stop();
});

const forgets = test.macro(async (tt, again: Again | undefined) => {
  const bench = new Bench({ backoff: doubling });
  await failOften(bench);
  bench.add('a');
  await bench.end(MANY, again);
  bench.add('a');
  await bench.fail(MANY + 1);
  await bench.end(MANY + 2); // comes by itself
  tt.is(bench.runs.length, MANY + 3);
  await bench.queue.stop();
});
test('success makes the failures forgotten', forgets, undefined);
test('success that asks for another run does as well', forgets, { afterMs: HOUR });

test('a run may ask for another one', async (tt) => {
  const bench = new Bench();
  bench.add('a');
  await bench.end(0, { afterMs: 1 });
  await bench.end(1);
  tt.is(bench.keys, 'a a');
});

test('an add comes before what a run asked for, and in its place', async (tt) => {
  const bench = new Bench();
  bench.add('a');
  await bench.end(0, { afterMs: 10 });
  bench.add('a');
  await bench.end(1);
  await sleep(30);
  tt.is(bench.keys, 'a a');
});

const held = test.macro(async (tt, hold: (bench: Bench) => Promise<void>, onError?: Settings['onError']) => {
  const bench = new Bench(onError === undefined ? {} : { onError });
  bench.add('a');
  await hold(bench);
  bench.add('a', 'b');
  await settled();
  tt.is(bench.keys, 'a b');
  bench.runs[1]?.end();
  await bench.queue.stop();
});
test('hold: adds wait, those of other keys do not', held, (bench) => bench.end(0, { afterMs: HOUR, hold: true }));
test('hold: an add during the run waits, too', held, async (bench) => {
  bench.add('a');
  await bench.end(0, { afterMs: HOUR, hold: true });
});
test(
  'hold: after a failure',
  held,
  (bench) => bench.fail(0),
  () => ({ afterMs: HOUR, hold: true }),
);

// On its own: the adds must come before the time is over, however slow the machine is.
test.serial('hold: adds become one run when it is over, and then adds run at once', async (tt) => {
  const bench = new Bench();
  bench.add('a');
  await bench.end(0, { afterMs: 250, hold: true });
  bench.add('a', 'a', 'a');
  await bench.end(1);
  bench.add('a');
  await bench.end(2);
  await sleep(20);
  tt.is(bench.keys, 'a a a');
});

test('without hold, what a failure is told to wait is not for adds', async (tt) => {
  const bench = new Bench({ onError: () => ({ afterMs: HOUR }) });
  bench.add('a');
  await bench.fail(0);
  bench.add('a');
  await bench.end(1);
  tt.is(bench.keys, 'a a');
});

test('stop: waits for what runs', async (tt) => {
  const bench = new Bench();
  bench.add('a', 'b');
  let stopped = false;
  const stopping = bench.queue.stop().then(() => (stopped = true));
  await bench.end(0);
  tt.false(stopped);
  await bench.fail(1);
  await stopping;
  tt.true(stopped);
});

test('stop: adds are not taken any more', async (tt) => {
  const bench = new Bench();
  await bench.queue.stop();
  bench.add('a');
  await settled();
  tt.is(bench.keys, '');
});

test('stop: what was added while it ran does not run', async (tt) => {
  const bench = new Bench();
  bench.add('a');
  bench.add('a');
  const stopping = bench.queue.stop();
  await bench.end(0);
  await stopping;
  await settled();
  tt.is(bench.keys, 'a');
});

test('stop: no try again, nothing that was asked for', async (tt) => {
  const bench = new Bench({ backoff: { firstMs: 1, maxMs: 1 } });
  bench.add('a', 'b', 'c');
  await bench.fail(0);
  await bench.end(1, { afterMs: 1 });
  const stopping = bench.queue.stop();
  await bench.fail(2);
  await stopping;
  await sleep(20);
  tt.is(bench.keys, 'a b c');
});

test('whatever is added, ends and fails: one run a key, never too many, and each add is followed by a run', async (tt) => {
  const step = fc.record({
    act: fc.constantFrom('add', 'add', 'end', 'fail'),
    key: fc.constantFrom('a', 'b', 'c', 'd'),
    pick: fc.nat(),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 3 }), async (steps, concurrency) => {
      const bench = new Bench({ concurrency });
      const running = new Set<Run>();
      const owed = new Set<string>();
      let seen = 0;
      const look = async (): Promise<void> => {
        await settled();
        for (; seen < bench.runs.length; seen++) {
          const run = bench.runs[seen] as Run;
          tt.false([...running].some(({ key }) => key === run.key));
          running.add(run);
          owed.delete(run.key);
        }
        tt.true(running.size <= concurrency);
      };
      const finish = async (how: 'end' | 'fail', pick: number): Promise<void> => {
        const run = [...running][pick % running.size] as Run;
        running.delete(run);
        run[how]();
        await look();
      };
      for (const { act, key, pick } of steps) {
        if (act === 'add') {
          owed.add(key);
          bench.add(key);
          await look();
        } else if (running.size > 0) await finish(act, pick);
      }
      while (running.size > 0) await finish('end', 0);
      tt.is(owed.size, 0);
      await bench.queue.stop();
    }),
  );
});

test('stop: what waits for its turn does not begin', async (tt) => {
  const bench = new Bench({ concurrency: 1 });
  bench.add('a', 'b');
  const stopping = bench.queue.stop();
  await bench.end(0);
  await stopping;
  await settled();
  tt.is(bench.keys, 'a');
});
