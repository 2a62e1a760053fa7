import test from 'ava';
import fc from 'fast-check';
import { isRight } from 'fp-ts/lib/Either.js';
import { familyOf, type Cidr } from '../../../functions/model/cidr.ts';
import { VpnSpec, type Site, type Vpn } from '../../../functions/model/vpn.ts';
import { ALL, childrenOf, MAX_CHILDREN, type Child } from './children.ts';

type Mode = Site['ipsec']['childSAs'];
interface Options {
  readonly childSAs?: Mode;
  readonly startAction?: Site['ipsec']['startAction'];
  readonly local?: readonly string[];
}

function configured(remote: readonly string[], { local = [], ...ipsec }: Options): [Vpn, Site] {
  const decoded = VpnSpec.decode({
    podCIDR: ['10.10.0.0/16', 'fd00:10::/56'],
    serviceCIDR: ['10.96.0.0/12', 'fd00:96::/112'],
    peerCIDRs: remote,
    ipsec: { peer: '198.51.100.7', pskSecretRef: { name: 'psk' }, localTrafficSelectors: local, ...ipsec },
  });
  if (!isRight(decoded)) throw new Error('the test wrote no valid configuration');
  const [site] = decoded.right.sites;
  if (site === undefined) throw new Error('no site');
  return [decoded.right, site];
}

const children = (remote: readonly string[], options: Options = {}): Child[] =>
  childrenOf(...configured(remote, options));

/** `name: local → remote`, in parentheses what is not dialled. */
const line = ({ name, localTs, remoteTs, dialled }: Child): string => {
  const text = `${name}: ${localTs.join(' ')} → ${remoteTs.join(' ')}`;
  return dialled ? text : `(${text})`;
};
const spread = test.macro((tt, remote: readonly string[], options: Options, expected: readonly string[]) => {
  tt.deepEqual(children(remote, options).map(line), [...expected]);
});

const [V4, V6] = ['192.168.50.0/24', 'fd12:3456::/48'];
const OURS4 = '10.10.0.0/16 10.96.0.0/12';
const OURS6 = 'fd00:10::/56 fd00:96::/112';
const ALL_BOTH = `all: ${OURS4} ${OURS6} → ${V4} ${V6}`;

test('perRange: each range with those of ours of its family', spread, [V4, V6], {}, [
  `${V4}: ${OURS4} → ${V4}`,
  `${V6}: ${OURS6} → ${V6}`,
  `(${ALL_BOTH})`,
]);
test('perPair: each of ours with each of theirs, by family', spread, [V4, V6], { childSAs: 'perPair' }, [
  `10.10.0.0/16=${V4}: 10.10.0.0/16 → ${V4}`,
  `10.96.0.0/12=${V4}: 10.96.0.0/12 → ${V4}`,
  `fd00:10::/56=${V6}: fd00:10::/56 → ${V6}`,
  `fd00:96::/112=${V6}: fd00:96::/112 → ${V6}`,
  `(${ALL_BOTH})`,
]);
test('one: it is dialled', spread, [V4, V6], { childSAs: 'one' }, [ALL_BOTH]);
for (const childSAs of ['perRange', 'perPair', 'one'] as const)
  test(
    `start action none, ${childSAs}: only what the gateway dials`,
    spread,
    [V4, V6],
    { childSAs, startAction: 'none' },
    [`(${ALL_BOTH})`],
  );
for (const startAction of ['start', 'trap', 'trap|start'] as const)
  test(`start action ${startAction}`, spread, [V4], { startAction, childSAs: 'one' }, [
    `all: ${OURS4} ${OURS6} → ${V4}`,
  ]);
test('ranges of ours that are set', spread, [V4], { local: ['10.10.7.0/24'] }, [
  `${V4}: 10.10.7.0/24 → ${V4}`,
  `(all: 10.10.7.0/24 → ${V4})`,
]);
for (const childSAs of ['perRange', 'perPair'] as const)
  test(`${childSAs}: a range of a family that we have none of is not dialled`, (tt) => {
    // Without local_ts charon would offer its own address.
    const found = children([V4, V6], { childSAs, local: ['10.10.7.0/24'] });
    tt.deepEqual(
      found.filter(({ dialled }) => dialled).map(({ remoteTs }) => remoteTs),
      [[V4]],
    );
    tt.true(found.every(({ localTs }) => localTs.length > 0));
  });
test('nor many of them', (tt) => {
  const remote = Array.from({ length: 200 }, (_, n) => v6(n + 1));
  tt.deepEqual(
    children(remote, { local: ['10.10.7.0/24'] }).map(({ name }) => name),
    ['all'],
  );
});
test('nor more than can be asked for at once: there is no child then', (tt) => {
  const remote = Array.from({ length: 256 }, (_, n) => v6(n + 1));
  tt.deepEqual(children(remote, { local: ['10.10.7.0/24'] }), []);
});

const v4 = (n: number): string => `10.${128 + (n >> 8)}.${n & 255}.0/24`;
const v6 = (n: number): string => `fd12:${n.toString(16)}::/32`.replace(':0::', '::');
/** Different ones of both families. */
const ranges = (minLength: number, maxLength: number): fc.Arbitrary<string[]> =>
  fc
    .uniqueArray(fc.integer({ min: 1, max: 30_000 }), { minLength, maxLength, size: 'max' })
    .map((numbers) => numbers.map((n) => (n % 3 === 0 ? v6(n) : v4(n))));
const many = (count: number): string[] => Array.from({ length: count }, (_, n) => v4(n));
const mode = fc.constantFrom<Mode>('perRange', 'perPair', 'one');
const dialled = (found: readonly Child[]): Child[] => found.filter((child) => child.dialled);

test('as many children as ranges, until there are too many', (tt) => {
  tt.is(children(many(MAX_CHILDREN)).length, MAX_CHILDREN + 1);
  const shared = dialled(children(many(MAX_CHILDREN + 1)));
  tt.true(shared.length < MAX_CHILDREN);
  const numbers = shared.map(({ name }) => Number(/^ranges-(\d+)$/.exec(name)?.[1]));
  tt.deepEqual(
    numbers,
    [...new Set(numbers)].sort((one, other) => one - other),
  );
});

test('the buckets are those of every version of this program: SAs are known by their names', (tt) => {
  const found = new Map(children(many(200)).map(({ name, remoteTs }) => [name, remoteTs]));
  // FNV-1a of the range's text modulo 128, by hand: its low 7 bits need no more than those.
  const bucketOf = (range: string): number =>
    Buffer.from(range).reduce((hash, byte) => ((hash ^ byte) * 0x13) & 127, 0x45);
  tt.is(bucketOf('a'), 0xe40c292c & 127); // from the draft's test vectors
  for (const range of ['10.128.0.0/24', '10.128.65.0/24', '10.128.199.0/24'])
    tt.true(found.get(`ranges-${bucketOf(range)}`)?.includes(range as Cidr), range);
});

test('the spread over buckets is even', (tt) => {
  const sizes = dialled(children(many(10_000))).map(({ remoteTs }) => remoteTs.length);
  tt.is(sizes.length, MAX_CHILDREN);
  tt.true(Math.max(...sizes) <= 2 * (10_000 / MAX_CHILDREN), `${Math.max(...sizes)}`);
});

const oneChanges = test.macro((tt, least: number, most: number) => {
  fc.assert(
    fc.property(ranges(least + 1, most), ([one = '', ...rest]) => {
      const lines = (remote: readonly string[]): Map<string, string> =>
        new Map(dialled(children(remote)).map((child) => [child.name, line(child)]));
      const [without, having] = [lines(rest), lines([one, ...rest])];
      const names = new Set([...without.keys(), ...having.keys()]);
      const changed = [...names].filter((name) => without.get(name) !== having.get(name));
      return changed.length === 1;
    }),
    { numRuns: 100 },
  );
  tt.pass();
});
test('a range more or less changes one child: few ranges', oneChanges, 1, MAX_CHILDREN);
test('a range more or less changes one child: many ranges', oneChanges, MAX_CHILDREN + 1, 700);

/** A TS payload counts no further: what a gateway can ask for at once. */
const AT_ONCE = 255;
const isAll = ({ name }: Child): boolean => name === ALL || name.startsWith(`${ALL}-`);
test('every range is in one dialled child and, if they fit, in the one that takes whatever the gateway dials', (tt) => {
  fc.assert(
    fc.property(ranges(1, 600), fc.constantFrom<Mode>('perRange', 'one'), (remote, childSAs) => {
      const found = children(remote, { childSAs });
      const rangesOf = (some: readonly Child[]): string[] => some.flatMap(({ remoteTs }) => remoteTs).sort();
      const [all, expected] = [JSON.stringify(rangesOf(found.filter(isAll))), JSON.stringify([...remote].sort())];
      return (
        JSON.stringify(rangesOf(dialled(found))) === expected &&
        all === (childSAs === 'one' || remote.length <= AT_ONCE ? expected : '[]')
      );
    }),
    // To look for a shorter list would take minutes.
    { endOnFailure: true },
  );
  tt.pass();
});
for (const childSAs of ['perRange', 'perPair'] as const) {
  test(`${childSAs}: one for all ranges, as long as a gateway can ask for them at once`, (tt) => {
    const found = children(many(AT_ONCE), { childSAs });
    tt.deepEqual(
      found.filter((child) => !child.dialled).map(({ name, remoteTs }) => [name, remoteTs.length]),
      [[ALL, AT_ONCE]],
    );
    tt.is(found.at(-1)?.name, ALL);
  });
  test(`${childSAs}: with more ranges there is none, and all are dialled`, (tt) => {
    const found = children(many(AT_ONCE + 1), { childSAs });
    tt.deepEqual(
      found.filter((child) => isAll(child) || !child.dialled),
      [],
    );
    tt.is(new Set(found.flatMap(({ remoteTs }) => remoteTs)).size, AT_ONCE + 1);
  });
}

test('perPair: every pair of a family once', (tt) => {
  fc.assert(
    fc.property(ranges(1, 60), (remote) => {
      const pairs = dialled(children(remote, { childSAs: 'perPair' })).map(
        ({ localTs, remoteTs }) => `${localTs.join()}=${remoteTs.join()}`,
      );
      return new Set(pairs).size === pairs.length && pairs.length === 2 * remote.length;
    }),
  );
  tt.pass();
});

const sane = (found: readonly Child[]): boolean =>
  new Set(found.map(({ name }) => name)).size === found.length &&
  found.every(
    ({ name, localTs, remoteTs }) =>
      name.length <= 255 &&
      remoteTs.length > 0 &&
      remoteTs.length <= 255 &&
      localTs.length > 0 &&
      // None of ours is beside ranges of the other family alone.
      (name.startsWith(ALL) || localTs.every((ours) => remoteTs.some((theirs) => familyOf(theirs) === familyOf(ours)))),
  );
test('names differ, and no CHILD_SA has more selectors than a TS payload can count', (tt) => {
  fc.assert(fc.property(ranges(1, 700), mode, (remote, childSAs) => sane(children(remote, { childSAs }))));
  tt.pass();
});
for (const [count, childSAs, names] of [
  [255, 'one', ['all']],
  [256, 'one', ['all', 'all-2']],
  [600, 'one', ['all', 'all-2', 'all-3']],
] as const)
  test(`${count} ranges, ${childSAs}`, (tt) => {
    const found = children(many(count), { childSAs });
    tt.deepEqual(
      found.map(({ name }) => name),
      [...names],
    );
    tt.true(found.every((child) => child.dialled));
  });
test('start action none: what the gateway dials is taken, however many ranges there are', (tt) => {
  const found = children(many(600), { startAction: 'none' });
  tt.deepEqual(
    found.map(({ name, dialled: ours }) => [name, ours]),
    [
      ['all', false],
      ['all-2', false],
      ['all-3', false],
    ],
  );
  tt.is(new Set(found.flatMap(({ remoteTs }) => remoteTs)).size, 600);
});
test('buckets that overflow', (tt) => {
  const found = children(Array.from({ length: 45_000 }, (_, n) => v6(n + 1)));
  tt.true(sane(found));
  tt.true(found.some(({ name }) => /^ranges-\d+-2$/.test(name)));
});

test('the order of the ranges is no matter', (tt) => {
  fc.assert(
    fc.property(ranges(1, 300), (remote) => {
      const lines = (some: readonly string[]): string => children(some).map(line).join('\n');
      return lines(remote) === lines([...remote].reverse());
    }),
  );
  tt.pass();
});

test('ten times the ranges take no hundred times as long', (tt) => {
  const [few, lots] = [many(2000), Array.from({ length: 20_000 }, (_, n) => v6(n + 1))];
  const msOf = (remote: readonly string[]): number => {
    const [vpn, site] = configured(remote, {});
    childrenOf(vpn, site);
    const times = [1, 2, 3, 4, 5].map(() => {
      const start = performance.now();
      childrenOf(vpn, site);
      return performance.now() - start;
    });
    return Math.min(...times);
  };
  const [short, long] = [msOf(few), msOf(lots)];
  tt.log(`2,000: ${short.toFixed(1)} ms, 20,000: ${long.toFixed(1)} ms`);
  tt.true(long < 100 * short);
});
