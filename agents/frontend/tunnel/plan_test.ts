import test from 'ava';
import fc from 'fast-check';
import type { Cidr } from '../../../functions/model/cidr.ts';
import type { Child } from '../connection/children.ts';
import { planTunnel, type Plan } from './plan.ts';
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
const ike = (state: string, ...children: ChildSa[]): IkeSa => ({
  name: 'site',
  uid: '1',
  version: '2',
  state,
  localHost: '',
  localId: '',
  remoteHost: '',
  remoteId: '',
  establishedSeconds: 1,
  children,
});
const up = (...children: ChildSa[]): IkeSa => ike('ESTABLISHED', ...children);

const [A, B] = ['192.168.50.0/24', '192.168.60.0/24'];
const PASSIVE = child('all', `${A} ${B}`, '10.10.0.0/16', false);
const CHILDREN = [child(A), child(B), PASSIVE];

const plans = test.macro(
  (tt, children: readonly Child[], sas: readonly IkeSa[], expected: Partial<Plan>, dials?: boolean) => {
    tt.deepEqual(planTunnel(children, dials ?? true, sas), { dial: [], drop: [], waiting: false, ...expected });
  },
);
test('nothing is up', plans, CHILDREN, [], { dial: [A, B] });
test('nothing is up, and it is not us who dial', plans, CHILDREN, [], {}, false);
test('one is up', plans, CHILDREN, [up(sa('1', A))], { dial: [B] });
test('all are up', plans, CHILDREN, [up(sa('1', A), sa('2', B))], {});
test('all are up, in two IKE_SAs', plans, CHILDREN, [up(sa('1', A)), up(sa('2', B))], {});
test('an IKE_SA without any', plans, CHILDREN, [up()], { dial: [A, B] });
test('one is no longer in the configuration', plans, [child(A), PASSIVE], [up(sa('1', A), sa('2', B))], {
  drop: ['2'],
});
test('the same where it is not us who dial', plans, [PASSIVE], [up(sa('1', A))], { drop: ['1'] }, false);
test('none is in the configuration', plans, [], [up(sa('1', A))], { drop: ['1'] });
for (const state of ['CREATED', 'CONNECTING']) {
  test(`an IKE_SA is ${state}: it is waited for`, plans, CHILDREN, [ike(state)], { waiting: true });
  test(`an IKE_SA is ${state} beside another one`, plans, CHILDREN, [up(sa('1', A)), ike(state)], { waiting: true });
  test(`an IKE_SA is ${state}: what has to go goes`, plans, CHILDREN, [up(sa('9', 'old')), ike(state)], {
    drop: ['9'],
    waiting: true,
  });
  test(`an IKE_SA is ${state}, and it is not us who dial`, plans, CHILDREN, [ike(state)], {}, false);
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
test('one that is dropped does not hold a range', plans, [child(A)], [up(sa('1', 'old', { remote: A }))], {
  dial: [A],
  drop: ['1'],
});
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

test('what was dialled and dropped leaves nothing to do', (tt) => {
  const names = fc.subarray(['a', 'b', 'c', 'd', 'e']);
  fc.assert(
    fc.property(names, names, fc.boolean(), (wanted, standing, dials) => {
      const children = wanted.map((name, i) => child(name, `10.${i}.0.0/16`));
      const before = standing.map((name, i) => sa(`${i}`, name, { remote: '172.16.0.0/12' }));
      const { dial, drop } = planTunnel(children, dials, [up(...before)]);
      const after = before.filter(({ uid }) => !drop.includes(uid));
      const made = dial.map((name, i) => sa(`new ${i}`, name));
      const again = planTunnel(children, dials, [up(...after, ...made)]);
      return again.dial.length + again.drop.length === 0 && (dials || dial.length === 0);
    }),
  );
  tt.pass();
});
