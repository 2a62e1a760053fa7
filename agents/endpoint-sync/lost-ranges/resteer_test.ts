import test from 'ava';
import fc from 'fast-check';
import type { Cidr } from '../../../functions/model/cidr.ts';
import type { LostRange } from '../../lib/lost-ranges.ts';
import { OUT_MS, FIRST_PAUSE_MS, Resteering, SETTLE_MS, type Verdict } from './resteer.ts';

const POD = 'vpn-frontend-0';
const MINUTE = 60_000;
const A = '10.8.0.0/16' as Cidr;
const B = 'fd12::/48' as Cidr;
const lost = (...cidrs: Cidr[]): LostRange[] => cidrs.map((cidr) => ({ pod: POD, cidr }));

/** A Resteering, its clock, and the pod's CiliumEndpoint, which follows what it says. */
class Bench {
  readonly resteering = new Resteering();
  now = 1_000_000;
  #listed = new Map<Cidr, number>([
    [A, 0],
    [B, 0],
  ]);

  /** The verdicts on what a node reports. */
  report(node: string, ...cidrs: Cidr[]): Verdict[] {
    const since = ({ cidr }: LostRange): number | undefined => this.#listed.get(cidr);
    return this.resteering.report(node, lost(...cidrs), since, this.now).map(({ verdict }) => verdict);
  }

  /** As endpoint-sync does after an event, or when it asked to be waken up. Answers which ranges are out. */
  reconcile(): Cidr[] {
    const out = this.resteering.out(POD, this.now);
    for (const cidr of [A, B])
      if (out.has(cidr)) this.#listed.delete(cidr);
      else if (!this.#listed.has(cidr)) this.#listed.set(cidr, this.now);
    this.resteering.seenOut(POD, out, this.now);
    return [...out];
  }

  /** The range is taken out and put in again. */
  carryOut(): void {
    this.reconcile();
    this.now += OUT_MS;
    this.reconcile();
  }
}

test('nothing lost', (tt) => {
  const bench = new Bench();
  tt.deepEqual(bench.report('n1'), []);
  tt.is(bench.resteering.reported, 0);
  tt.deepEqual(bench.reconcile(), []);
});

const judged = test.macro((tt, listedSince: number | undefined, verdict: Verdict) => {
  const resteering = new Resteering();
  const found = resteering.report('n1', lost(A), () => listedSince, 100_000);
  tt.deepEqual(found, [{ range: { pod: POD, cidr: A }, verdict }]);
  tt.is(resteering.out(POD, 100_000).size, verdict === 'resteer' ? 1 : 0);
});
test('listed long enough: taken out', judged, 100_000 - SETTLE_MS, 'resteer');
test('listed a moment ago: the node may not know it yet', judged, 100_000 - SETTLE_MS + 1, 'early');
test('not listed', judged, undefined, 'early');

test('the whole way: out, in again, and the node has it', (tt) => {
  const bench = new Bench();
  tt.deepEqual(bench.report('n1', A), ['resteer']);
  tt.deepEqual(bench.reconcile(), [A]);
  bench.now += OUT_MS - 1;
  tt.deepEqual(bench.reconcile(), [A]);
  bench.now += 1;
  tt.deepEqual(bench.reconcile(), []);
  tt.deepEqual(bench.report('n1'), []);
  tt.is(bench.resteering.reported, 0);
});

test('it stays out for as long as nobody saw it out: the patch may have to be tried again', (tt) => {
  const bench = new Bench();
  bench.report('n1', A);
  bench.now += 100 * OUT_MS;
  tt.deepEqual([...bench.resteering.out(POD, bench.now)], [A]);
});

test('seeing it out again does not prolong it', (tt) => {
  const bench = new Bench();
  bench.report('n1', A);
  bench.reconcile();
  bench.now += OUT_MS - 1;
  bench.resteering.seenOut(POD, new Set([A]), bench.now);
  bench.now += 1;
  tt.is(bench.resteering.out(POD, bench.now).size, 0);
});

test('reported while it is out: under way', (tt) => {
  const bench = new Bench();
  bench.report('n1', A);
  tt.deepEqual(bench.report('n1', A), ['under way']);
  bench.reconcile();
  tt.deepEqual(bench.report('n1', A), ['under way']);
});

test('reported just after it was put in again: early', (tt) => {
  const bench = new Bench();
  bench.report('n1', A);
  bench.carryOut();
  tt.deepEqual(bench.report('n1', A), ['early']);
});

test('reported all the time: again after ten minutes, an hour, six hours, and then once a day', (tt) => {
  const bench = new Bench();
  const began = bench.now;
  const minutes: number[] = [];
  for (; bench.now - began < 4 * 24 * 60 * MINUTE; bench.now += MINUTE) {
    const [verdict] = bench.report('n1', A);
    if (verdict !== 'in vain') minutes.push(Math.round((bench.now - began) / MINUTE));
    if (verdict === 'resteer') bench.carryOut();
  }
  tt.deepEqual(minutes, [0, 10, 70, 430, 1870, 3310, 4750]);
});

test('two nodes: once for both', (tt) => {
  const bench = new Bench();
  tt.deepEqual(bench.report('n1', A), ['resteer']);
  tt.deepEqual(bench.report('n2', A), ['under way']);
  tt.is(bench.resteering.reported, 1);
  bench.carryOut();
  bench.now += SETTLE_MS;
  tt.deepEqual(bench.report('n2', A), ['in vain']);
});

test('one of two nodes has it again: for the other one it was in vain', (tt) => {
  const bench = new Bench();
  bench.report('n1', A);
  bench.report('n2', A);
  bench.carryOut();
  bench.now += SETTLE_MS;
  bench.report('n1');
  tt.is(bench.resteering.reported, 1);
  tt.deepEqual(bench.report('n2', A), ['in vain']);
});

test('gone and reported again, later: once more', (tt) => {
  const bench = new Bench();
  bench.report('n1', A);
  bench.carryOut();
  bench.now += SETTLE_MS;
  bench.report('n1');
  bench.now += FIRST_PAUSE_MS;
  tt.deepEqual(bench.report('n1', A), ['resteer']);
  bench.carryOut();
  bench.now += SETTLE_MS;
  tt.deepEqual(bench.report('n1', A), ['in vain']);
});

test('a node that says nothing is lost while the range is out, and then reports it again: no loop', (tt) => {
  const bench = new Bench();
  tt.deepEqual(bench.report('n1', A), ['resteer']);
  for (let elapsed = 0; elapsed + SETTLE_MS + OUT_MS < FIRST_PAUSE_MS; elapsed += SETTLE_MS + OUT_MS) {
    bench.reconcile();
    bench.report('n1');
    bench.now += OUT_MS;
    bench.reconcile();
    bench.now += SETTLE_MS;
    tt.deepEqual(bench.report('n1', A), ['in vain']);
  }
});

test('a range that was let in while the patch for another one ran has not been out', (tt) => {
  const bench = new Bench();
  bench.report('n1', A);
  const out = bench.resteering.out(POD, bench.now);
  bench.report('n1', A, B);
  bench.resteering.seenOut(POD, out, bench.now);
  bench.now += OUT_MS;
  tt.deepEqual([...bench.resteering.out(POD, bench.now)], [B]);
});

test('a report is the whole list: what it leaves out is not lost any more', (tt) => {
  const bench = new Bench();
  tt.deepEqual(bench.report('n1', A, B), ['resteer', 'resteer']);
  tt.is(bench.resteering.reported, 2);
  tt.deepEqual(bench.reconcile(), [A, B]);
  bench.now += OUT_MS;
  bench.reconcile();
  bench.now += SETTLE_MS;
  tt.deepEqual(bench.report('n1', B), ['in vain']);
  tt.is(bench.resteering.reported, 1);
  tt.deepEqual(bench.report('n1', A, B), ['in vain', 'in vain']);
});

test('a second range while the first one is out', (tt) => {
  const bench = new Bench();
  bench.report('n1', A);
  bench.reconcile();
  bench.now += OUT_MS / 2;
  tt.deepEqual(bench.report('n1', A, B), ['under way', 'resteer']);
  tt.deepEqual(bench.reconcile(), [A, B]);
  bench.now += OUT_MS / 2;
  tt.deepEqual(bench.reconcile(), [B]);
  bench.now += OUT_MS / 2;
  tt.deepEqual(bench.reconcile(), []);
});

test('ranges of different pods have nothing to do with each other', (tt) => {
  const resteering = new Resteering();
  const report = (pod: string): Verdict | undefined =>
    resteering.report(`node of ${pod}`, [{ pod, cidr: A }], () => 0, SETTLE_MS)[0]?.verdict;
  tt.is(report('vpn-frontend-a-0'), 'resteer');
  tt.is(report('vpn-frontend-b-0'), 'resteer');
  tt.is(resteering.reported, 2);
  resteering.seenOut('vpn-frontend-a-0', new Set([A]), 0);
  tt.is(resteering.out('vpn-frontend-a-0', OUT_MS).size, 0);
  tt.is(resteering.out('vpn-frontend-b-0', OUT_MS).size, 1);
  tt.is(resteering.out('vpn-frontend-c-0', OUT_MS).size, 0);
});

test('whatever is reported: never twice in ten minutes, and every range comes back in', (tt) => {
  const step = fc.record({
    node: fc.constantFrom('n1', 'n2', 'n3'),
    cidrs: fc.subarray([A, B]),
    reconcile: fc.boolean(),
    pauseMs: fc.constantFrom(0, 1, OUT_MS, SETTLE_MS, FIRST_PAUSE_MS / 2),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const bench = new Bench();
      const reporters = new Map<Cidr, Set<string>>([
        [A, new Set()],
        [B, new Set()],
      ]);
      const tried = new Map<Cidr, number>();
      for (const { node, cidrs, reconcile, pauseMs } of steps) {
        for (const [cidr, nodes] of reporters) {
          if (cidrs.includes(cidr)) nodes.add(node);
          else nodes.delete(node);
        }
        bench.report(node, ...cidrs).forEach((verdict, i) => {
          const cidr = cidrs[i] as Cidr;
          const last = tried.get(cidr);
          if (verdict === 'in vain') tt.true(last !== undefined);
          if (verdict !== 'resteer') return;
          tt.true(last === undefined || bench.now - last >= FIRST_PAUSE_MS);
          tried.set(cidr, bench.now);
        });
        tt.is(bench.resteering.reported, [...reporters.values()].filter(({ size }) => size > 0).length);
        if (reconcile) bench.reconcile();
        bench.now += pauseMs;
      }
      bench.reconcile();
      bench.now += OUT_MS;
      tt.deepEqual(bench.reconcile(), []);
    }),
  );
});
