import test from 'ava';
import fc from 'fast-check';
import { containsCidr, familyOf, type Cidr } from '../../../functions/model/cidr.ts';
import { configOf, freeze, goodSpec } from '../../../test/functions/items.ts';
import { PROTO, WORST_METRIC, routeText, type Hop, type SeenRoute } from '../kernel/route.ts';
import { RangeIndex } from '../range-index.ts';
import { desiredRoutes, wayOf, type Refusal, type Wanted } from './desired.ts';
import { planRoutes, type Plan, type Step } from './plan.ts';

const cidr = (text: string): Cidr => text as Cidr;

const NOTHING = { device: undefined, via: undefined, src: undefined, mtu: undefined };
/** The kernel's own metric where none is given. */
const metricOf = (dst: Cidr, metric?: number): number => metric ?? (familyOf(dst) === 6 ? 1024 : 0);
/** The kernel's route after ours was set. */
const kept = (dst: Cidr, hop: Hop, proto: number = PROTO): SeenRoute => ({
  ...NOTHING,
  ...hop,
  dst,
  metric: metricOf(dst, hop.metric),
  proto,
});
/** All that a range should have. */
const allOf = ({ cidr, way }: Wanted): SeenRoute[] => way.hops.map((hop) => kept(cidr, hop));

function plan(
  wanted: readonly Wanted[],
  routes: readonly SeenRoute[],
  addresses: readonly string[] = [],
  concerned?: ReadonlySet<Cidr>,
): Plan {
  return planRoutes(new RangeIndex(freeze(wanted)), freeze({ routes, addresses }), concerned);
}
const linesOf = ({ steps }: Plan): string[] => steps.map(({ do: kind, route }) => `${kind} ${route}`);

// Rows

const toPod = (pod: string): Hop => ({ type: 'unicast', via: pod, device: 'lxc1', mtu: 1300 });
const TO_NOWHERE: Hop = { type: 'unreachable', metric: WORST_METRIC };
const wantedAt = (cidr: Cidr, pod: string): Wanted => ({ cidr, site: 'berlin', way: wayOf(toPod(pod), TO_NOWHERE) });
const A = cidr('10.8.0.0/16');
const SIX = cidr('fd12::/48');
const WANTED = [wantedAt(A, '10.10.0.5'), wantedAt(SIX, 'fd00:10::5')];
const CONVERGED = WANTED.flatMap(allOf);
const [POD4, NOWHERE4, POD6, NOWHERE6] = CONVERGED as [SeenRoute, SeenRoute, SeenRoute, SeenRoute];

const steps = test.macro((tt, routes: SeenRoute[], expected: string[], wanted: Wanted[] = WANTED) => {
  const planned = plan(wanted, routes);
  tt.deepEqual(linesOf(planned), expected);
  tt.deepEqual(planned.refused, new Map());
  for (const { cidr, route } of planned.steps) tt.true(route.split(' ').includes(cidr));
});
const TO_POD4 = '10.8.0.0/16 via 10.10.0.5 dev lxc1 mtu 1300';
const TO_POD6 = 'fd12::/48 via fd00:10::5 dev lxc1 mtu 1300';
const TO_NOWHERE4 = 'unreachable 10.8.0.0/16 metric 4294967295';
const TO_NOWHERE6 = 'unreachable fd12::/48 metric 4294967295';
test('converged', steps, CONVERGED, []);
test('converged, in another order', steps, CONVERGED.toReversed(), []);
test(
  'nothing there',
  steps,
  [],
  [TO_POD4, TO_NOWHERE4, TO_POD6, TO_NOWHERE6].map((line) => `add ${line}`),
);
test('one is missing', steps, [POD4, POD6, NOWHERE6], [`add ${TO_NOWHERE4}`]);
test('another pod', steps, [{ ...POD4, via: '10.10.0.6' }, NOWHERE4, POD6, NOWHERE6], [`replace ${TO_POD4}`]);
test('another device, IPv6', steps, [POD4, NOWHERE4, { ...POD6, device: 'lxc2' }, NOWHERE6], [`replace ${TO_POD6}`]);
test('another type', steps, [{ ...POD4, type: 'other' }, NOWHERE4, POD6, NOWHERE6], [`replace ${TO_POD4}`]);
test(
  'another metric',
  steps,
  [{ ...POD4, metric: 7 }, NOWHERE4, POD6, NOWHERE6],
  [`add ${TO_POD4}`, 'delete 10.8.0.0/16 metric 7'],
);
test(
  'wanted no more',
  steps,
  CONVERGED,
  ['delete 10.8.0.0/16', `delete ${TO_NOWHERE4}`, 'delete fd12::/48 metric 1024', `delete ${TO_NOWHERE6}`],
  [],
);
test(
  'the frontend went to another node: the route below is one too many',
  steps,
  [POD4, NOWHERE4],
  ['replace 10.8.0.0/16 dev cilium_host', `delete ${TO_NOWHERE4}`],
  [{ cidr: A, site: 'berlin', way: wayOf({ type: 'unicast', device: 'cilium_host' }) }],
);
test('of another type, wanted no more', steps, [{ ...POD4, type: 'other' }], ['delete 10.8.0.0/16'], []);
test('a second one with the same metric', steps, [...CONVERGED, { ...POD4, via: '10.10.0.9' }], ['delete 10.8.0.0/16']);
test('a foreign route elsewhere', steps, [...CONVERGED, kept(cidr('10.9.0.0/16'), toPod('10.10.0.9'), 3)], []);
test('a foreign route around', steps, [...CONVERGED, kept(cidr('10.0.0.0/8'), toPod('10.10.0.9'), 3)], []);
test('a foreign route that nothing wants', steps, [kept(A, toPod('10.10.0.9'), 3)], [], []);

const refusals = test.macro(
  (
    tt,
    routes: SeenRoute[],
    addresses: string[],
    expected: Record<string, Refusal>,
    lines: string[],
    wanted: Wanted[] = WANTED,
  ) => {
    const planned = plan(wanted, routes, addresses);
    tt.deepEqual(Object.fromEntries(planned.refused), expected);
    tt.deepEqual(linesOf(planned), lines);
  },
);
const foreign = (what: string): Refusal => ({
  reason: 'foreign-route',
  message: `${what}, and it is not ours: remove that route, or correct peerCIDRs`,
});
const eth0 = (dst: string, proto: number): SeenRoute => ({
  ...kept(cidr(dst), { type: 'unicast' }, proto),
  device: 'eth0',
});
const GONE4 = ['delete 10.8.0.0/16', `delete ${TO_NOWHERE4}`];
test(
  'a foreign route to the range',
  refusals,
  [...CONVERGED, eth0('10.8.0.0/16', 4)],
  [],
  {
    [A]: foreign('this node has a route to it already (dev eth0, proto 4)'),
  },
  GONE4,
);
test(
  'a foreign route inside',
  refusals,
  [...CONVERGED, eth0('10.8.255.0/24', 2)],
  [],
  {
    [A]: foreign('this node has a route to 10.8.255.0/24, which is inside (dev eth0, proto 2)'),
  },
  GONE4,
);
test(
  'a foreign route without a device',
  refusals,
  [...CONVERGED, kept(cidr('fd12::1/128'), { type: 'unreachable' }, 12)],
  [],
  {
    [SIX]: foreign('this node has a route to fd12::1/128, which is inside (proto 12)'),
  },
  ['delete fd12::/48 metric 1024', `delete ${TO_NOWHERE6}`],
);
test(
  'a foreign route below ours',
  refusals,
  [POD4, { ...eth0('10.8.0.0/16', 3), metric: 100 }],
  [],
  {
    [A]: foreign('this node has a route to it already (dev eth0, proto 3)'),
  },
  ['delete 10.8.0.0/16'],
  [wantedAt(A, '10.10.0.5')],
);
test(
  'a foreign route, and nothing of ours',
  refusals,
  [eth0('10.8.0.0/16', 4)],
  [],
  {
    [A]: foreign('this node has a route to it already (dev eth0, proto 4)'),
  },
  [],
  [wantedAt(A, '10.10.0.5')],
);
test(
  'a foreign route in two ranges, one inside the other',
  refusals,
  [eth0('10.8.1.0/24', 4)],
  [],
  {
    [A]: foreign('this node has a route to 10.8.1.0/24, which is inside (dev eth0, proto 4)'),
    '10.8.1.0/24': foreign('this node has a route to it already (dev eth0, proto 4)'),
  },
  [],
  [wantedAt(A, '10.10.0.5'), wantedAt(cidr('10.8.1.0/24'), '10.10.0.5')],
);
const inside = (address: string): Refusal => ({
  reason: 'node-address',
  message: `${address}, an address of this node, is in the range: it is no on-prem range, correct peerCIDRs`,
});
test(
  'an address of the node',
  refusals,
  CONVERGED,
  ['10.7.255.255', '10.8.0.1', 'fd13::1'],
  { [A]: inside('10.8.0.1') },
  GONE4,
);
test('an IPv6 address of the node', refusals, [], ['fd12::7'], { [SIX]: inside('fd12::7') }, [
  `add ${TO_POD4}`,
  `add ${TO_NOWHERE4}`,
]);
const NO_ADDRESS: Refusal = { reason: 'no-pod-address', message: 'no' };
test(
  'refused from the start: what led to the site is deleted, and below it stays what leads nowhere',
  refusals,
  CONVERGED,
  [],
  { [SIX]: NO_ADDRESS },
  ['delete fd12::/48 metric 1024'],
  [WANTED[0] as Wanted, { cidr: SIX, site: 'berlin', way: wayOf(TO_NOWHERE), refused: NO_ADDRESS }],
);

test('of some ranges alone: others are neither added nor deleted', (tt) => {
  const routes = [POD6, kept(cidr('10.9.0.0/16'), toPod('10.10.0.5'))];
  const planned = plan(WANTED.slice(0, 1), routes, [], new Set([A, cidr('10.9.0.0/16')]));
  tt.deepEqual(linesOf(planned), [`add ${TO_POD4}`, `add ${TO_NOWHERE4}`, 'delete 10.9.0.0/16']);
});

// The route below is there for this very case.
test('the pod’s interface has gone and the pod is still listed: what keeps packets from the default route stays', (tt) => {
  const { vpn } = configOf(goodSpec({ peerCIDRs: [A] }));
  const indirect = 'this node reaches the pod f-0 through cilium_host';
  const frontend = {
    pod: 'f-0',
    uid: 'u',
    site: '',
    addresses: { 4: '10.10.0.5' },
    routes: { 4: { indirect } },
    hosts: [],
  };
  const ciliumHost = { name: 'cilium_host', mtu: 1450, addresses: { 4: '10.10.0.1' } };
  for (const [ends, tunnels] of [
    [false, true],
    [false, false],
    [true, false],
  ] as const) {
    const wanted = desiredRoutes(vpn, { frontends: [{ ...frontend, ends }], ciliumHost, tunnels });
    tt.deepEqual(linesOf(plan(wanted, [NOWHERE4])), []);
  }
});

test('10,000 ranges', (tt) => {
  const wanted = Array.from({ length: 10_000 }, (_, i) => wantedAt(cidr(`10.${i >> 8}.${i & 255}.0/24`), '10.10.0.5'));
  const planned = plan(wanted, []);
  tt.is(planned.steps.length, 20_000);
  tt.deepEqual(plan(wanted, wanted.flatMap(allOf)).steps, []);
});

// Properties

/**
 * The main table as Linux keeps it (net/ipv4/fib_trie.c, net/ipv6/ip6_fib.c): for one prefix in the order of metrics, of
 * equal metrics in the order they came.
 */
class Table {
  routes: readonly SeenRoute[];
  constructor(routes: readonly SeenRoute[]) {
    this.routes = sorted(routes);
  }

  /** `ip route …` with our protocol; throws what the kernel answers, and where it would hit somebody else's route. */
  apply({ do: kind, route }: Step): void {
    const { named, ...parsed } = parse(route);
    const known = this.routes.find(({ dst, metric }) => dst === parsed.dst && metric === parsed.metric);
    if (kind === 'delete') return this.#delete(parsed, named);
    if (kind === 'add' && known !== undefined) throw new Error(`File exists: ${route}`);
    if (kind === 'replace' && known === undefined) throw new Error(`nothing to replace: ${route}`);
    if (known !== undefined && known.proto !== PROTO) throw new Error(`somebody else's: ${route}`);
    this.routes = sorted([...this.routes.filter((one) => one !== known), parsed]);
  }

  #delete({ dst, type, metric }: SeenRoute, named: boolean): void {
    const anyMetric = !named && familyOf(dst) === 4;
    const found = this.routes.find(
      (one) =>
        one.dst === dst &&
        one.proto === PROTO &&
        (anyMetric || one.metric === metric) &&
        (type === 'unicast' || one.type === type), // `ip` sends no type where none is written
    );
    if (found === undefined) throw new Error(`No such process: ${dst}`);
    this.routes = this.routes.filter((one) => one !== found);
  }

  get foreign(): SeenRoute[] {
    return this.routes.filter(({ proto }) => proto !== PROTO);
  }
  get ours(): string[] {
    return this.routes.filter(({ proto }) => proto === PROTO).map(textOf);
  }
}
const sorted = (routes: readonly SeenRoute[]): SeenRoute[] =>
  routes.toSorted((a, b) => (a.dst < b.dst ? -1 : Number(a.dst > b.dst)) || a.metric - b.metric);

/** `named`: the text has a metric. */
function parse(text: string): SeenRoute & { readonly named: boolean } {
  const words = text.split(' ');
  const type = words[0] === 'unreachable' ? 'unreachable' : 'unicast';
  const dst = words[type === 'unreachable' ? 1 : 0] as Cidr;
  const word = (name: string): string | undefined =>
    words.includes(name) ? words[words.indexOf(name) + 1] : undefined;
  const number = (name: string): number | undefined => (word(name) === undefined ? undefined : Number(word(name)));
  const metric = number('metric');
  return {
    dst,
    type,
    proto: PROTO,
    metric: metricOf(dst, metric),
    via: word('via'),
    device: word('dev'),
    src: word('src'),
    mtu: number('mtu'),
    named: metric !== undefined,
  };
}

/** What makes two routes the same to us. */
const textOf = ({ dst, type, metric, via, device, src, mtu }: SeenRoute): string =>
  [dst, type, metric, via, type === 'unreachable' ? '' : device, src, mtu].join(' ');

/** Some hold others. */
const PREFIXES = [
  '10.0.0.0/8',
  '10.8.0.0/16',
  '10.8.1.0/24',
  '10.8.1.7/32',
  '10.9.0.0/16',
  'fd00::/8',
  'fd12::/48',
  'fd12::7/128',
].map(cidr);
const ADDRESSES = ['10.8.1.7', '10.9.0.1', '192.0.2.1', 'fd12::7', 'fd77::1'];

const someRoute = fc.record({
  dst: fc.constantFrom(...PREFIXES),
  type: fc.constantFrom('unicast', 'unicast', 'unreachable', 'other'),
  metric: fc.constantFrom(0, 7, 1024, WORST_METRIC),
  via: fc.constantFrom(undefined, '10.10.0.5', '10.10.0.6'),
  device: fc.constantFrom(undefined, 'lxc1', 'cilium_host'),
  src: fc.constantFrom(undefined, '10.10.0.1'),
  mtu: fc.constantFrom(undefined, 1300),
  proto: fc.constantFrom(PROTO, PROTO, PROTO, 2, 3),
});
const possible = ({ dst, metric }: { dst: Cidr; metric: number }): boolean => familyOf(dst) === 4 || metric > 0;

/** As desiredRoutes makes them, and as a pod whose kernel lacks "rt ipsec" has it: to nowhere alone. */
const WAYS: readonly Pick<Wanted, 'way' | 'refused'>[] = [
  { way: wayOf({ ...toPod('10.10.0.5'), src: '10.10.0.1' }, TO_NOWHERE) },
  { way: wayOf({ type: 'unicast', device: 'cilium_host', src: '10.10.0.1', mtu: 1300 }, TO_NOWHERE) },
  { way: wayOf(TO_NOWHERE) },
  { way: wayOf(TO_NOWHERE), refused: { reason: 'no-cilium-host', message: 'no' } },
];
const situation = fc
  .record({
    wanted: fc
      .subarray(PREFIXES)
      .chain((cidrs) =>
        fc.tuple(
          ...cidrs.map((cidr) => fc.constantFrom(...WAYS).map((reach): Wanted => ({ cidr, site: 'berlin', ...reach }))),
        ),
      ),
    found: fc.array(someRoute, { maxLength: 8 }),
    /** Of the wanted routes, those that are there already. */
    done: fc.infiniteStream(fc.boolean()),
    addresses: fc.subarray(ADDRESSES, { maxLength: 1 }),
  })
  .map(({ wanted, found, done, addresses }) => {
    const ours = wanted.flatMap(allOf).filter(() => done.next().value);
    return { wanted, routes: [...ours, ...found.filter(possible)], addresses };
  });

/** One of ours for each prefix and metric, which is all that comes of our own steps. */
function withoutRepeats(routes: readonly SeenRoute[]): SeenRoute[] {
  const seen = new Set<string>();
  return routes.filter(({ dst, metric, proto }) => {
    const key = `${dst} ${metric}`;
    if (proto !== PROTO) return true;
    const first = !seen.has(key);
    seen.add(key);
    return first;
  });
}

const RUNS = { numRuns: 500 };

test('twice is once', (tt) => {
  fc.assert(
    fc.property(situation, ({ wanted, routes, addresses }) => {
      const table = new Table(withoutRepeats(routes));
      for (const step of plan(wanted, table.routes, addresses).steps) table.apply(step);
      tt.deepEqual(plan(wanted, table.routes, addresses).steps, []);
    }),
    RUNS,
  );
});

/** What the kernel refuses is seen at the next look. */
function attempt(step: () => void): void {
  try {
    step();
  } catch (error) {
    if (!/^(File exists|No such process)/.test((error as Error).message)) throw error;
  }
}

test('whatever else bears our protocol: settled after three times at most', (tt) => {
  fc.assert(
    fc.property(situation, ({ wanted, routes, addresses }) => {
      const table = new Table(routes);
      for (let n = 0; n < 3; n++)
        for (const step of plan(wanted, table.routes, addresses).steps) attempt(() => table.apply(step));
      tt.deepEqual(plan(wanted, table.routes, addresses).steps, []);
    }),
    RUNS,
  );
});

test('exactly the wanted routes of the ranges that are not refused; what is not ours stays', (tt) => {
  fc.assert(
    fc.property(situation, ({ wanted, routes, addresses }) => {
      const table = new Table(withoutRepeats(routes));
      const before = table.foreign;
      const { steps, refused } = plan(wanted, table.routes, addresses);
      for (const step of steps) table.apply(step);
      const granted = wanted.filter((one) => refused.get(one.cidr) === one.refused).flatMap(allOf);
      tt.deepEqual(table.ours.sort(), granted.map(textOf).sort());
      tt.deepEqual(table.foreign, before);
    }),
    RUNS,
  );
});

test('refused are the ranges that hold a foreign route or an address of the node, and those that can have none', (tt) => {
  fc.assert(
    fc.property(situation, ({ wanted, routes, addresses }) => {
      const others = [
        ...routes.filter(({ proto }) => proto !== PROTO).map(({ dst }) => dst),
        ...addresses.map((one) => cidr(`${one}/${one.includes(':') ? 128 : 32}`)),
      ];
      const expected = wanted.filter(
        (one) => one.refused !== undefined || others.some((other) => containsCidr(one.cidr, other)),
      );
      tt.deepEqual([...plan(wanted, routes, addresses).refused.keys()].sort(), expected.map(({ cidr }) => cidr).sort());
    }),
    RUNS,
  );
});

test('a plan of some ranges alone is that part of the plan of everything', (tt) => {
  fc.assert(
    fc.property(situation, fc.subarray(PREFIXES), ({ wanted, routes, addresses }, cidrs) => {
      const concerned = new Set(cidrs);
      const everything = plan(wanted, routes, addresses);
      const some = plan(
        wanted.filter(({ cidr }) => concerned.has(cidr)),
        routes.filter(({ dst }) => cidrs.some((outer) => containsCidr(outer, dst))),
        addresses,
        concerned,
      );
      tt.deepEqual(
        some.steps,
        everything.steps.filter(({ cidr }) => concerned.has(cidr)),
      );
      tt.deepEqual(
        Object.fromEntries(some.refused),
        Object.fromEntries([...everything.refused].filter(([cidr]) => concerned.has(cidr))),
      );
    }),
    RUNS,
  );
});

test('steps are lines that `ip` reads', (tt) => {
  fc.assert(
    fc.property(situation, ({ wanted, routes, addresses }) => {
      for (const { cidr, route } of plan(wanted, routes, addresses).steps) {
        const { named, type, dst, metric, device, via, src, mtu } = parse(route);
        tt.is(dst, cidr);
        const said = Object.entries({ device, via, src, mtu, metric: named ? metric : undefined });
        const hop: unknown = Object.fromEntries([['type', type], ...said.filter(([, value]) => value !== undefined)]);
        tt.is(routeText(dst, hop as Hop), route);
      }
    }),
    RUNS,
  );
});
