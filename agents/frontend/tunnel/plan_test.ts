import test from 'ava';
import fc from 'fast-check';
import type { Cidr } from '../../../functions/model/cidr.ts';
import type { Child } from '../connection/children.ts';
import { planTunnel, type Outdated, type Plan } from './plan.ts';
import type { ChildSa, IkeSa } from './sas.ts';

const cidrs = (texts: string): Cidr[] => texts.split(' ').filter(Boolean) as Cidr[];
const child = (name: string, remote = name, local = '10.10.0.0/16', dialled = true): Child => ({
  name,
  localTs: cidrs(local),
  remoteTs: cidrs(remote),
  dialled,
});
const sa = (
  uid: string,
  name: string,
  { state = 'INSTALLED', local = '10.10.0.0/16', remote = name } = {},
): ChildSa => ({
  name,
  uid,
  reqid: '1',
  state,
  mode: 'TUNNEL',
  protocol: 'ESP',
  localTs: local.split(' '),
  remoteTs: remote.split(' '),
  bytesIn: 0,
  bytesOut: 0,
  packetsIn: 0,
  packetsOut: 0,
  installedSeconds: 1,
});
const ikeSa = (uid: string, state: string, children: readonly ChildSa[]): IkeSa => ({
  name: 'site',
  uid,
  version: '2',
  state,
  localHost: '',
  localId: '',
  remoteHost: '',
  remoteId: '',
  establishedSeconds: 1,
  children,
});
const ike = (state: string, ...children: ChildSa[]): IkeSa => ikeSa('1', state, children);
const up = (...children: ChildSa[]): IkeSa => ike('ESTABLISHED', ...children);

const [A, B] = ['192.168.50.0/24', '192.168.60.0/24'];
const PASSIVE = child('all', `${A} ${B}`, '10.10.0.0/16', false);
const CHILDREN = [child(A), child(B), PASSIVE];

interface Circumstances {
  readonly startAction?: Parameters<typeof planTunnel>[1];
  /** Unique ids of outdated IKE_SAs. */
  readonly old?: string;
  /** And of outdated CHILD_SAs. */
  readonly replaced?: string;
}
const words = (text: string): Set<string> => new Set(text.split(' ').filter(Boolean));
const NOTHING: Plan = { dial: [], drop: [], dropIkeSas: [], waiting: false };
const plans = test.macro(
  (
    tt,
    children: readonly Child[],
    sas: readonly IkeSa[],
    expected: Partial<Plan>,
    { startAction = 'start', old = '', replaced = '' }: Circumstances = {},
  ) => {
    const outdated: Outdated = { ikeSas: words(old), childSas: words(replaced) };
    tt.deepEqual(planTunnel(children, startAction, sas, outdated), { ...NOTHING, ...expected });
  },
);
const NONE = { startAction: 'none' } as const;
test('nothing is up', plans, CHILDREN, [], { dial: [A, B] });
test('nothing is up, and it is traffic that dials', plans, CHILDREN, [], {}, { startAction: 'trap' });
test('nothing is up, and it is both', plans, CHILDREN, [], { dial: [A, B] }, { startAction: 'trap|start' });
test('nothing is up, and it is not us who dial', plans, CHILDREN, [], {}, NONE);
test('one is up', plans, CHILDREN, [up(sa('1', A))], { dial: [B] });
test('all are up', plans, CHILDREN, [up(sa('1', A), sa('2', B))], {});
test('all are up, in two IKE_SAs', plans, CHILDREN, [up(sa('1', A)), up(sa('2', B))], {});
test('an IKE_SA without any', plans, CHILDREN, [up()], { dial: [A, B] });
test('one is no longer in the configuration', plans, [child(A), PASSIVE], [up(sa('1', A), sa('2', B))], {
  drop: ['2'],
});
test('the same where it is not us who dial', plans, [PASSIVE], [up(sa('1', A))], { drop: ['1'] }, NONE);
const WHOLE = [child('all', `${A} ${B}`)];
for (const startAction of ['start', 'trap'] as const)
  test(`ranges that move into another child (${startAction}): the old ones stay until it stands`, (tt) => {
    const [a, b, gone] = [sa('1', A), sa('2', B), sa('3', '192.168.70.0/24')];
    const none: Outdated = { ikeSas: words(''), childSas: words('') };
    const plan = (...sas: ChildSa[]) => planTunnel(WHOLE, startAction, [up(...sas)], none);
    tt.deepEqual(plan(a, b, gone), { ...NOTHING, dial: ['all'], drop: ['3'] });
    tt.deepEqual(plan(a, b, sa('4', 'all', { state: 'INSTALLING', remote: `${A} ${B}` })), NOTHING);
    tt.deepEqual(plan(a, b, sa('4', 'all', { remote: `${A} ${B}` })), { ...NOTHING, drop: ['1', '2'] });
  });
test('none is in the configuration', plans, [], [up(sa('1', A))], { drop: ['1'] });
for (const state of ['CREATED', 'CONNECTING']) {
  test(`an IKE_SA is ${state}: it is waited for`, plans, CHILDREN, [ike(state)], { waiting: true });
  test(`an IKE_SA is ${state} beside another one`, plans, CHILDREN, [up(sa('1', A)), ike(state)], { waiting: true });
  test(`an IKE_SA is ${state}: what has to go goes`, plans, CHILDREN, [up(sa('9', 'old')), ike(state)], {
    drop: ['9'],
    waiting: true,
  });
  test(`an IKE_SA is ${state}, and it is not us who dial`, plans, CHILDREN, [ike(state)], {}, NONE);
}
for (const state of ['REKEYING', 'REKEYED', 'DELETING', 'PASSIVE'])
  test(`an IKE_SA is ${state}`, plans, CHILDREN, [ike(state, sa('1', A))], { dial: [B] });
for (const state of 'CREATED ROUTED INSTALLING INSTALLED UPDATING REKEYING REKEYED RETRYING'.split(' ')) {
  test(`a CHILD_SA is ${state}: it counts`, plans, [child(A)], [up(sa('1', A, { state }))], {});
  test(`one to be dropped is ${state}`, plans, [], [up(sa('1', A, { state }))], { drop: ['1'] });
}
for (const state of ['DELETING', 'DELETED', 'DESTROYING', '']) {
  test(
    `a CHILD_SA is ${state || 'in no state'}: another one takes its place`,
    plans,
    [child(A)],
    [up(sa('1', A, { state }))],
    {
      dial: [A],
    },
  );
  test(`one to be dropped is ${state || 'in no state'} already`, plans, [], [up(sa('1', A, { state }))], {});
}

// What the gateway has dialled is under the name of the child that takes it.
const taken = (remote: string, local = '10.10.0.0/16'): IkeSa => up(sa('1', 'all', { remote, local }));
test('the gateway has dialled all', plans, CHILDREN, [taken(`${A} ${B}`)], {});
test('the gateway has dialled a part', plans, CHILDREN, [taken(A)], { dial: [B] });
test('the gateway has dialled a wider range', plans, CHILDREN, [taken('192.168.0.0/16', '10.0.0.0/8')], {});
test('a narrower one is not it', plans, [child(A), PASSIVE], [taken('192.168.50.0/25')], { dial: [A] });
test('a narrower one of ours is not it', plans, [child(A), PASSIVE], [taken(A, '10.10.0.0/17')], { dial: [A] });
test('a port alone is not it', plans, [child(A), PASSIVE], [taken(`${A}[tcp/80]`)], { dial: [A] });
test('half of what is shared', plans, [child('ranges-1', `${A} ${B}`), PASSIVE], [taken(A)], { dial: ['ranges-1'] });
test(
  'two that hold it together are not one',
  plans,
  [child('ranges-1', `${A} ${B}`), PASSIVE],
  [up(sa('1', 'all', { remote: A }), sa('2', 'all', { remote: B }))],
  { dial: ['ranges-1'] },
);
const [V6, OURS6] = ['fd12:3456::/48', 'fd00:10::/56'];
const DUAL = [
  child(A, A, `10.10.0.0/16 ${OURS6}`),
  child(V6, V6, `10.10.0.0/16 ${OURS6}`),
  { ...PASSIVE, remoteTs: cidrs(`${A} ${V6}`) },
];
test('ours of the other family need not be in it', plans, DUAL, [taken(A)], { dial: [V6] });
test('both families', plans, DUAL, [taken(`${A} ${V6}`, `10.10.0.0/16 ${OURS6}`)], {});
test('the other family of theirs is not enough', plans, DUAL, [taken(`${A} ${V6}`)], { dial: [V6] });
test(
  'an SA of no child does not count, and stays until the one that has its range now stands',
  plans,
  [child(A)],
  [up(sa('1', 'old', { remote: A }))],
  {
    dial: [A],
  },
);
test(
  'one that ends does not hold a range',
  plans,
  CHILDREN,
  [up(sa('1', 'all', { remote: `${A} ${B}`, state: 'DELETING' }))],
  {
    dial: [A, B],
  },
);
test('a passive child is not dialled', plans, [PASSIVE], [], {});

// An IKE_SA by an earlier configuration: its number is 0.

const OLD = { old: '0' };
const TRAP_OLD = { ...OLD, startAction: 'trap' } as const;
const before = (...children: ChildSa[]): IkeSa => ikeSa('0', 'ESTABLISHED', children);
const [OLD_A, OLD_B, NEW_A, NEW_B] = [sa('1', A), sa('2', B), sa('3', A), sa('4', B)];

test('old: it stays until others stand', plans, CHILDREN, [before(OLD_A, OLD_B)], { dial: [A, B] }, OLD);
test('old: one of them stands', plans, CHILDREN, [before(OLD_A, OLD_B), up(NEW_A)], { dial: [B] }, OLD);
for (const state of ['CREATED', 'INSTALLING', 'RETRYING'])
  test(
    `old: the last of them is ${state}, which is not enough`,
    plans,
    CHILDREN,
    [before(OLD_A, OLD_B), up(NEW_A, sa('4', B, { state }))],
    {},
    OLD,
  );
test('old: all stand', plans, CHILDREN, [before(OLD_A, OLD_B), up(NEW_A, NEW_B)], { dropIkeSas: ['0'] }, OLD);
test(
  'old: the new ones are being rekeyed',
  plans,
  [child(A)],
  [before(OLD_A), up(sa('3', A, { state: 'REKEYING' }))],
  { dropIkeSas: ['0'] },
  OLD,
);
test(
  'old: the gateway has dialled all in the new one',
  plans,
  CHILDREN,
  [before(OLD_A, OLD_B), up(sa('3', 'all', { remote: `${A} ${B}` }))],
  { dropIkeSas: ['0'] },
  OLD,
);
test(
  'old: another one beside it is being made',
  plans,
  [child(A)],
  [before(OLD_A), ike('CONNECTING')],
  { waiting: true },
  OLD,
);
test(
  'old: two that have a child each go together',
  plans,
  CHILDREN,
  [before(OLD_A), ikeSa('9', 'ESTABLISHED', [OLD_B]), up(NEW_A)],
  { dial: [B] },
  { old: '0 9' },
);
for (const state of ['INSTALLED', 'UPDATING', 'REKEYING', 'REKEYED'])
  test(
    `old: its child is ${state} and carries traffic`,
    plans,
    [child(A)],
    [before(sa('1', A, { state }))],
    { dial: [A] },
    OLD,
  );

for (const state of ['CREATED', 'CONNECTING', 'ESTABLISHED', 'REKEYED', 'DELETING'])
  test(
    `old, ${state} and nothing stands: it goes at once, and is not waited for`,
    plans,
    CHILDREN,
    [ikeSa('0', state, [])],
    { dial: [A, B], dropIkeSas: ['0'] },
    OLD,
  );
test(
  'old: beside one that carries traffic even one that is being made stays',
  plans,
  [child(A)],
  [before(OLD_A), ikeSa('9', 'CONNECTING', [])],
  { dial: [A] },
  { old: '0 9' },
);
for (const state of ['CREATED', 'INSTALLING', 'DELETING', 'DELETED'])
  test(
    `old: its child is ${state}, so nothing is lost with it`,
    plans,
    [child(A)],
    [before(sa('1', A, { state }))],
    { dial: [A], dropIkeSas: ['0'] },
    OLD,
  );
test(
  'old: what is being made by the new configuration is waited for though the old one goes',
  plans,
  CHILDREN,
  [before(), ike('CONNECTING')],
  { dropIkeSas: ['0'], waiting: true },
  OLD,
);

test(
  'old, and it is not us who dial: it goes, so that the gateway does',
  plans,
  [PASSIVE],
  [before(sa('1', 'all', { remote: A }))],
  { dropIkeSas: ['0'] },
  { ...OLD, ...NONE },
);
test(
  'old: a range that never stood, and is refused, keeps nothing',
  plans,
  CHILDREN,
  [before(OLD_A), up(NEW_A)],
  { dial: [B], dropIkeSas: ['0'] },
  OLD,
);
test('old, traffic dials: only what stood', plans, CHILDREN, [before(OLD_A)], { dial: [A] }, TRAP_OLD);
test('old, traffic dials: done', plans, CHILDREN, [before(OLD_A), up(NEW_A)], { dropIkeSas: ['0'] }, TRAP_OLD);
test('old, traffic dials: nothing stood', plans, CHILDREN, [before()], { dropIkeSas: ['0'] }, TRAP_OLD);
const OLD_ALL = before(sa('1', 'all', { remote: `${A} ${B}` }));
test('old, with what the gateway had dialled: all of ours', plans, CHILDREN, [OLD_ALL], { dial: [A, B] }, TRAP_OLD);
test('old, the same: one is not all', plans, CHILDREN, [OLD_ALL, up(NEW_A)], { dial: [B] }, TRAP_OLD);
test('old, the same: done', plans, CHILDREN, [OLD_ALL, up(NEW_A, NEW_B)], { dropIkeSas: ['0'] }, TRAP_OLD);
test(
  'old: a child that is no longer in the configuration goes at once',
  plans,
  [child(A)],
  [before(OLD_A, OLD_B)],
  { dial: [A], drop: ['2'] },
  OLD,
);
test('old: it has gone meanwhile', plans, [child(A)], [up(NEW_A)], {}, OLD);

// CHILD_SAs by an earlier configuration.

const REPLACED = { replaced: '1' };
test('outdated: another one is dialled', plans, [child(A)], [up(OLD_A)], { dial: [A] }, REPLACED);
test('outdated: one of another name is not it', plans, CHILDREN, [up(OLD_A, NEW_B)], { dial: [A] }, REPLACED);
for (const state of ['CREATED', 'INSTALLING', 'RETRYING'])
  test(
    `outdated: one of its name is ${state}, which is not enough`,
    plans,
    [child(A)],
    [up(OLD_A, sa('3', A, { state }))],
    {},
    REPLACED,
  );
test('outdated: one of its name stands', plans, [child(A)], [up(OLD_A, NEW_A)], { drop: ['1'] }, REPLACED);
test(
  'outdated: in another IKE_SA',
  plans,
  [child(A)],
  [up(OLD_A), ikeSa('9', 'ESTABLISHED', [NEW_A])],
  { drop: ['1'] },
  {
    ...REPLACED,
  },
);
test(
  'outdated: the gateway has dialled all since',
  plans,
  CHILDREN,
  [up(OLD_A, sa('3', 'all', { remote: `${A} ${B}` }))],
  { drop: ['1'] },
  REPLACED,
);
test(
  'outdated: each one for itself',
  plans,
  CHILDREN,
  [up(OLD_A, OLD_B, NEW_B)],
  { dial: [A], drop: ['2'] },
  { replaced: '1 2' },
);
test(
  'outdated: what ends already is not ended again',
  plans,
  [child(A)],
  [up(sa('1', A, { state: 'DELETING' }), NEW_A)],
  {},
  REPLACED,
);
test(
  'outdated: while an IKE_SA is being made it stays',
  plans,
  [child(A)],
  [up(OLD_A), ikeSa('9', 'CONNECTING', [])],
  { waiting: true },
  REPLACED,
);
test(
  'outdated, traffic dials: only what is replaced',
  plans,
  CHILDREN,
  [up(OLD_A)],
  { dial: [A] },
  {
    ...REPLACED,
    startAction: 'trap',
  },
);
test(
  'outdated, traffic dials: what ends is not replaced',
  plans,
  CHILDREN,
  [up()],
  {},
  {
    ...REPLACED,
    startAction: 'trap',
  },
);
const TAKEN = taken(`${A} ${B}`);
test('outdated: what only the gateway dials does not count', plans, CHILDREN, [TAKEN], { dial: [A, B] }, REPLACED);
test(
  'outdated: what only the gateway dials is not dropped',
  plans,
  CHILDREN,
  [TAKEN, ikeSa('9', 'ESTABLISHED', [NEW_A, NEW_B])],
  {},
  REPLACED,
);
test('outdated, it is not us who dial: it stays', plans, [PASSIVE], [TAKEN], {}, { ...REPLACED, ...NONE });
test(
  'outdated, in an IKE_SA that is old',
  plans,
  [child(A)],
  [before(OLD_A)],
  { dial: [A] },
  {
    ...OLD,
    ...REPLACED,
  },
);

// Whatever there is

const NAMES = ['10.1.0.0/16', '10.2.0.0/16', '10.3.0.0/16'];
const EVERYTHING = '0.0.0.0/0';
interface World {
  readonly children: readonly Child[];
  readonly startAction: Parameters<typeof planTunnel>[1];
  readonly sas: readonly IkeSa[];
  readonly outdated: { readonly ikeSas: ReadonlySet<string>; readonly childSas: ReadonlySet<string> };
}
/** Some of the ranges, and the one that only the gateway dials; SAs by their names, by that one's and by one that is unknown. */
const worlds = ({ states = ['ESTABLISHED', 'CONNECTING', 'REKEYING', 'DELETING'] } = {}): fc.Arbitrary<World> => {
  const childSas = fc.array(
    fc.record({
      name: fc.constantFrom(...NAMES, 'all', 'unknown'),
      state: fc.constantFrom('INSTALLED', 'INSTALLED', 'INSTALLING', 'REKEYING', 'DELETING'),
      outdated: fc.boolean(),
    }),
    { maxLength: 4 },
  );
  const ikeSas = fc.array(fc.record({ state: fc.constantFrom(...states), outdated: fc.boolean(), childSas }), {
    maxLength: 3,
  });
  return fc
    .record({
      names: fc.subarray(NAMES),
      startAction: fc.constantFrom('none' as const, 'start' as const, 'trap' as const, 'trap|start' as const),
      ikeSas,
    })
    .map(({ names, startAction, ikeSas: made }) => ({
      children: [...names.map((name) => child(name)), { ...PASSIVE, remoteTs: cidrs(NAMES.join(' ')) }],
      startAction,
      sas: made.map(({ state, childSas: some }, i) =>
        ikeSa(
          `ike${i}`,
          state,
          some.map((one, k) =>
            sa(`${i}.${k}`, one.name, {
              state: one.state,
              ...(one.name === 'all' ? { local: EVERYTHING, remote: EVERYTHING } : {}),
            }),
          ),
        ),
      ),
      outdated: {
        ikeSas: new Set(made.flatMap((one, i) => (one.outdated ? [`ike${i}`] : []))),
        childSas: new Set(
          made.flatMap((one, i) => one.childSas.flatMap((some, k) => (some.outdated ? [`${i}.${k}`] : []))),
        ),
      },
    }));
};
const planOf = ({ children, startAction, sas, outdated }: World): Plan =>
  planTunnel(children, startAction, sas, outdated);
const carries = ({ state }: ChildSa): boolean => ['INSTALLED', 'REKEYING'].includes(state);
/** Names that we dial and that are served by the configuration of now. */
const served = ({ children, sas, outdated }: World): Set<string> => {
  const fresh = sas
    .filter(({ uid }) => !outdated.ikeSas.has(uid))
    .flatMap((one) => one.children)
    .filter((one) => carries(one) && !outdated.childSas.has(one.uid));
  const names = children.filter(({ dialled }) => dialled).map(({ name }) => name);
  return new Set(names.filter((name) => fresh.some((one) => one.name === name || one.name === 'all')));
};
const dialledNames = ({ children, startAction }: World): string[] =>
  children.filter(({ dialled }) => dialled && startAction !== 'none').map(({ name }) => name);

test('what carries traffic is not dropped before something new carries it', (tt) => {
  fc.assert(
    fc.property(worlds(), (world) => {
      const { drop, dropIkeSas } = planOf(world);
      const lost = world.sas.flatMap(({ uid, children }) =>
        children.filter((one) => carries(one) && (dropIkeSas.includes(uid) || drop.includes(one.uid))),
      );
      const ours = new Set(dialledNames(world));
      const still = served(world);
      return lost.every(({ name }) => !ours.has(name) || still.has(name));
    }),
    { numRuns: 2000 },
  );
  tt.pass();
});

test('nothing is dropped but what is outdated or unknown, nothing dialled that is not ours or is up', (tt) => {
  fc.assert(
    fc.property(worlds(), (world) => {
      const { dial, drop, dropIkeSas, waiting } = planOf(world);
      const unknown = world.sas.flatMap(({ children }) =>
        children.filter(({ name }) => !world.children.some((one) => one.name === name)).map(({ uid }) => uid),
      );
      const ours = dialledNames(world);
      const up = served(world);
      return (
        new Set(drop).size === drop.length &&
        drop.every((uid) => unknown.includes(uid) || world.outdated.childSas.has(uid)) &&
        dropIkeSas.every((uid) => world.outdated.ikeSas.has(uid)) &&
        dial.every((name) => ours.includes(name) && !up.has(name)) &&
        (!waiting || dial.length === 0)
      );
    }),
    { numRuns: 2000 },
  );
  tt.pass();
});

/** After the plan was carried out, and what was asked for stands. `refused`: names that the gateway does not take. */
function carriedOut(world: World, round: number, refused: ReadonlySet<string> = new Set()): World {
  const { dial, drop, dropIkeSas } = planOf(world);
  const kept = world.sas
    .filter(({ uid }) => !dropIkeSas.includes(uid))
    .map((one) => ({
      ...one,
      // What ended or was being made has, meanwhile.
      children: one.children
        .filter(({ uid, state }) => !drop.includes(uid) && state !== 'DELETING')
        .map((some) => ({ ...some, state: 'INSTALLED' })),
    }));
  const made = dial.filter((name) => !refused.has(name)).map((name) => sa(`new ${round} ${name}`, name));
  return { ...world, sas: made.length === 0 ? kept : [...kept, ikeSa(`new ${round}`, 'ESTABLISHED', made)] };
}

test('carried out again and again, in the end there is nothing to do and nothing old', (tt) => {
  fc.assert(
    fc.property(worlds({ states: ['ESTABLISHED', 'REKEYING'] }), (world) => {
      let now = world;
      for (let round = 0; round < 4; round++) now = carriedOut(now, round);
      const ours = new Set(dialledNames(now));
      const old = now.sas.filter(({ uid }) => now.outdated.ikeSas.has(uid));
      const outdated = now.sas
        .flatMap(({ children }) => children)
        .filter(({ uid, name }) => now.outdated.childSas.has(uid) && ours.has(name));
      tt.deepEqual(planOf(now), NOTHING);
      return (
        old.length + outdated.length === 0 &&
        (!now.startAction.includes('start') || [...ours].every((name) => served(now).has(name)))
      );
    }),
    { numRuns: 1000 },
  );
});

test('what a gateway refuses is dialled again, and keeps its own old SA alone', (tt) => {
  fc.assert(
    fc.property(
      worlds({ states: ['ESTABLISHED'] }).filter(({ outdated }) => outdated.ikeSas.size === 0),
      fc.subarray(NAMES),
      (world, names) => {
        const refused = new Set(names);
        let now = world;
        for (let round = 0; round < 4; round++) now = carriedOut(now, round, refused);
        const { dial, ...rest } = planOf(now);
        tt.deepEqual(rest, { drop: [], dropIkeSas: [], waiting: false });
        return dial.every((name) => refused.has(name) && !served(now).has(name));
      },
    ),
    { numRuns: 1000 },
  );
});

test('what was dialled and dropped leaves nothing to do', (tt) => {
  const names = fc.subarray(['a', 'b', 'c', 'd', 'e']);
  fc.assert(
    fc.property(names, names, fc.constantFrom('none', 'start'), (wanted, standing, startAction) => {
      const children = wanted.map((name, i) => child(name, `10.${i}.0.0/16`));
      const outdated = { ikeSas: new Set<string>(), childSas: new Set<string>() };
      const some = standing.map((name, i) => sa(`${i}`, name, { remote: '172.16.0.0/12' }));
      const { dial, drop } = planTunnel(children, startAction, [up(...some)], outdated);
      const after = some.filter(({ uid }) => !drop.includes(uid));
      const made = dial.map((name, i) => sa(`new ${i}`, name));
      const again = planTunnel(children, startAction, [up(...after, ...made)], outdated);
      return again.dial.length + again.drop.length === 0 && (startAction !== 'none' || dial.length === 0);
    }),
  );
  tt.pass();
});
