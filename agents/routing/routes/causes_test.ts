import test from 'ava';
import type { Cidr } from '../../../functions/model/cidr.ts';
import { causesOf, DueCauses, type Cause } from './causes.ts';
import { wayOf, type Refusal, type RefusalReason, type Way } from './desired.ts';

const cidr = (text: string): Cidr => text as Cidr;
const refusal = (reason: RefusalReason, message: string): Refusal => ({ reason, message });

test('one cause for all that have it, with the first of them; ranges with a way have none', (tt) => {
  const causes = causesOf(
    new Map<Cidr, Way | Refusal>([
      [cidr('10.8.0.0/16'), wayOf({ type: 'unicast' })],
      [cidr('10.9.0.0/16'), refusal('kernel', 'b')],
      [cidr('10.10.0.0/16'), refusal('no-endpoint-route', 'a')],
      [cidr('10.11.0.0/16'), refusal('kernel', 'b')],
    ]),
  );
  tt.deepEqual(
    [...causes],
    [
      ['b', { cidr: cidr('10.9.0.0/16'), reason: 'kernel', ranges: 2 }],
      ['a', { cidr: cidr('10.10.0.0/16'), reason: 'no-endpoint-route', ranges: 1 }],
    ],
  );
});

const ROUTE = { cidr: cidr('10.8.0.0/16'), reason: 'no-endpoint-route', ranges: 1 } as const;
const KERNEL = { cidr: cidr('10.9.0.0/16'), reason: 'kernel', ranges: 1 } as const;
const DEVICE = { cidr: cidr('10.8.0.0/16'), reason: 'no-cilium-host', ranges: 1 } as const;
const causes = (all: Record<string, Cause>) => new Map(Object.entries(all));

/** Milliseconds, what there is then, and of that what is to be said, and when to look again. */
type Look = [now: number, there: Record<string, Cause>, due: string[], againMs?: number];
const looks = test.macro((tt, ...all: Look[]) => {
  const dueCauses = new DueCauses();
  for (const [now, there, due, againMs] of all) {
    const found = dueCauses.of(causes(there), 1_000_000 + now);
    tt.deepEqual(
      [...found.due],
      due.map((message) => [message, there[message]!]),
      `at ${now}`,
    );
    tt.is(found.againMs, againMs, `at ${now}`);
  }
});
test('none', looks, [0, {}, []]);
test('what is not over in a moment: at once', looks, [0, { k: KERNEL }, ['k']], [1, { k: KERNEL }, ['k']]);
test(
  'no endpoint route: where it still holds',
  looks,
  [0, { r: ROUTE }, [], 5_000],
  [10, { r: { ...ROUTE, ranges: 2 } }, [], 4_990],
  [5_000, { r: ROUTE }, ['r']],
  [60_000, { r: ROUTE }, ['r']],
);
test(
  'no device of Cilium’s, and then no address on it: neither for long enough',
  looks,
  [0, { d: DEVICE }, [], 10_000],
  [8_000, { a: DEVICE }, [], 10_000],
  [9_000, {}, []],
);
test(
  'no endpoint route, and then there is: it starts anew',
  looks,
  [0, { r: ROUTE }, [], 5_000],
  [4_000, {}, []],
  [6_000, { r: ROUTE }, [], 5_000],
);
test(
  'two: each in its time',
  looks,
  [0, { r: ROUTE }, [], 5_000],
  [2_000, { r: ROUTE, s: ROUTE, k: KERNEL }, ['k'], 3_000],
  [5_000, { r: ROUTE, s: ROUTE }, ['r'], 2_000],
  [7_000, { r: ROUTE, s: ROUTE }, ['r', 's']],
);
