import test from 'ava';
import type { Vpn } from '../../functions/model/vpn.ts';
import { configOf, freeze, goodSite, goodSpec } from '../../test/functions/items.ts';
import type { Pod } from '../lib/kube/objects.ts';
import { frontendsOf, podAddresses, type Frontend } from './frontends.ts';

const ONE = configOf(goodSpec()).vpn;
const TWO = configOf({ sites: [goodSite('berlin', '10.8.0.0/16'), goodSite('paris', '10.9.0.0/16')] }).vpn;
const SITE = 'constellation-vpn.io/site';

interface Given {
  readonly site?: string;
  readonly ips?: readonly string[];
  readonly created?: string;
  readonly deleted?: boolean;
  readonly phase?: string;
  readonly hostNetwork?: boolean;
}
function pod(name: string, { site, ips = ['10.10.0.5'], created, deleted, phase, hostNetwork }: Given = {}): Pod {
  return freeze({
    metadata: {
      name,
      uid: `uid-${name}`,
      resourceVersion: '5',
      ...(created === undefined ? {} : { creationTimestamp: created }),
      ...(deleted === true ? { deletionTimestamp: '2026-01-31T12:00:00Z' } : {}),
      labels: { other: 'berlin', ...(site === undefined ? {} : { [SITE]: site }) },
    },
    spec: { nodeName: 'node-a', ...(hostNetwork === undefined ? {} : { hostNetwork }) },
    status: { podIPs: ips.map((ip) => ({ ip })), ...(phase === undefined ? {} : { phase }) },
  });
}

const found = test.macro((tt, pods: Pod[], vpn: Vpn, ...frontends: Frontend[]) => {
  tt.deepEqual(frontendsOf(freeze(pods), vpn), { frontends, problems: [] });
  tt.deepEqual(frontendsOf(pods.toReversed(), vpn), { frontends, problems: [] });
});
const unnamed = {
  pod: 'f-0',
  uid: 'uid-f-0',
  site: '',
  addresses: { 4: '10.10.0.5' },
  hosts: [],
  ends: false,
} as const;
const berlin = { ...unnamed, site: 'berlin' } as const;

test('none', found, [], ONE);
test('the unnamed site', found, [pod('f-0')], ONE, unnamed);
test('the unnamed site, the label empty', found, [pod('f-0', { site: '' })], ONE, unnamed);
test(
  'without any label',
  found,
  [{ ...pod('f-0'), metadata: { name: 'f-0', uid: 'uid-f-0', resourceVersion: '1' } }],
  ONE,
  unnamed,
);
test(
  'two sites, sorted',
  found,
  [pod('b-0', { site: 'paris', ips: ['10.10.0.6'] }), pod('f-0', { site: 'berlin' })],
  TWO,
  berlin,
  { pod: 'b-0', uid: 'uid-b-0', site: 'paris', addresses: { 4: '10.10.0.6' }, hosts: [], ends: false },
);
const onHost = (status: Pod['status']): Pod => ({ ...pod('f-0'), status: { ...pod('f-0').status, ...status } });
test(
  'its node’s addresses, canonical',
  found,
  [onHost({ hostIP: '192.0.2.10', hostIPs: [{ ip: '192.0.2.10' }, { ip: 'FD00::0010' }] })],
  ONE,
  { ...unnamed, hosts: ['192.0.2.10', 'fd00::10'] },
);
test('its node’s address, of an old kubelet', found, [onHost({ hostIP: '192.0.2.10' })], ONE, {
  ...unnamed,
  hosts: ['192.0.2.10'],
});
test('both families', found, [pod('f-0', { ips: ['10.10.0.5', 'fd00:10::5'] })], ONE, {
  ...unnamed,
  addresses: { 4: '10.10.0.5', 6: 'fd00:10::5' },
});
test('IPv6 first, written at length', found, [pod('f-0', { ips: ['FD00:10:0::5', '10.10.0.5'] })], ONE, {
  ...unnamed,
  addresses: { 4: '10.10.0.5', 6: 'fd00:10::5' },
});
test('the first of two of one family', found, [pod('f-0', { ips: ['10.10.0.5', '10.10.0.6'] })], ONE, unnamed);
test('no address yet', found, [pod('f-0', { ips: [] })], ONE);
test('an address that is none', found, [pod('f-0', { ips: ['pending', '10.10.0.5'] })], ONE, unnamed);
test('no status', found, [{ metadata: pod('f-0').metadata }], ONE);
test('running', found, [pod('f-0', { phase: 'Running' })], ONE, unnamed);
test('its init container waits for us', found, [pod('f-0', { phase: 'Pending' })], ONE, unnamed);
test('failed', found, [pod('f-0', { phase: 'Failed' })], ONE);
test('ended', found, [pod('f-0', { phase: 'Succeeded' })], ONE);
test('being deleted, and no other', found, [pod('f-0', { deleted: true })], ONE, { ...unnamed, ends: true });

const OLD = '2026-01-31T12:00:00Z';
const NEW = '2026-01-31T12:00:01Z';
const other = (given: Given): Pod => pod('z-9', { ips: ['10.10.0.9'], ...given });
test('of two the newer', found, [pod('f-0', { created: NEW }), other({ created: OLD })], ONE, unnamed);
test(
  'of two the one that stays',
  found,
  [pod('f-0', { created: OLD }), other({ created: NEW, deleted: true })],
  ONE,
  unnamed,
);
test(
  'of two that both go the newer',
  found,
  [pod('f-0', { created: NEW, deleted: true }), other({ created: OLD, deleted: true })],
  ONE,
  { ...unnamed, ends: true },
);
test(
  'of two equally old ones by name',
  found,
  [pod('f-0', { created: OLD }), pod('e-0', { created: OLD })],
  ONE,
  unnamed,
);
test(
  'of two the one with an address',
  found,
  [pod('f-0', { created: OLD }), pod('g-0', { created: NEW, ips: [] })],
  ONE,
  unnamed,
);
test(
  'of two the one that has not failed',
  found,
  [pod('f-0', { created: OLD }), other({ created: NEW, phase: 'Failed' })],
  ONE,
  unnamed,
);

const refused = test.macro((tt, pods: Pod[], vpn: Vpn, problem: string, ...frontends: Frontend[]) => {
  tt.deepEqual(frontendsOf(pods, vpn), { frontends, problems: [{ pod: 'z-9', problem }] });
});
const HOST = 'is in the host network: a frontend needs a network of its own, take hostNetwork out of its pod template';
test('the host network', refused, [other({ hostNetwork: true })], ONE, HOST);
test('a network of its own, and that is said', found, [pod('f-0', { hostNetwork: false })], ONE, unnamed);
test(
  'one in the host network hides none that is well',
  refused,
  [pod('f-0', { created: OLD }), other({ created: NEW, hostNetwork: true })],
  ONE,
  HOST,
  unnamed,
);
test(
  'a site that is not in the configuration',
  refused,
  [other({ site: 'rome' }), pod('f-0', { site: 'berlin' })],
  TWO,
  `belongs to the site "rome" (label ${SITE}), which the configuration does not have; it has berlin, paris: render and apply again`,
  berlin,
);
test(
  'no site, where they have names',
  refused,
  [other({})],
  TWO,
  `belongs to the site "" (label ${SITE}), which the configuration does not have; it has berlin, paris: render and apply again`,
);
test(
  'a site where there are no names',
  refused,
  [other({ site: 'rome' })],
  ONE,
  `belongs to the site "rome" (label ${SITE}), which the configuration does not have; it has the unnamed one: render and apply again`,
);
test('of another site and without address: nothing to say yet', found, [pod('f-0', { site: 'rome', ips: [] })], TWO);

test('addresses: canonical, in their order, others left out', (tt) => {
  tt.deepEqual(podAddresses({ podIPs: [{ ip: 'FD00::0:5' }, { ip: '10.10.0.5' }, { ip: '' }] }), [
    'fd00::5',
    '10.10.0.5',
  ]);
  tt.deepEqual(podAddresses({}), []);
  tt.deepEqual(podAddresses(undefined), []);
});
