import test from 'ava';
import type { IPCacheEntry } from '../../fakes/cilium-api.ts';
import {
  type CiliumEndpoint,
  endpointId,
  hostRoutes,
  identityOf,
  localEndpoints,
  type Node,
  overlayRoutes,
  planEndpointRoutes,
  planRoutes,
  podRoutes,
  type Pod,
  prefixOf,
  type RouteJson,
  routesIn,
  samePlace,
  seenHostRoutes,
  statusOf,
  updateIPCache,
} from './plan.ts';
import { rulesetText, setsText } from './ruleset.ts';

const OWN = '10.77.0.11';
const OTHER = '10.77.0.12';
const meta = (name: string) => ({ name, namespace: 'vpn', uid: `uid-${name}`, resourceVersion: '1' });
const node = (name: string, n: number): Node => ({
  metadata: meta(name),
  spec: { podCIDR: `10.244.${n}.0/24` },
  status: {
    addresses: [
      { type: 'Hostname', address: name },
      { type: 'InternalIP', address: `10.77.0.1${n}` },
    ],
  },
});
const NODES = [node('n1', 1), node('n2', 2)];
const endpoint = (name: string, address: string, ...ipv4: string[]): CiliumEndpoint => ({
  metadata: meta(name),
  status: { identity: { id: 300 }, networking: { addressing: ipv4.map((one) => ({ ipv4: one })), node: address } },
});
const pod = (labels: Record<string, string>, status: Pod['status'] = {}, spec: Pod['spec'] = {}): Pod => ({
  metadata: { ...meta('a'), labels },
  spec,
  status,
});
const LOCAL = { address: '10.244.1.5', interfaceName: 'veth1', linkScope: true };
const RUNNING = { phase: 'Running', podIPs: [{ ip: '10.244.1.5' }] };

function cacheOf(...events: [CiliumEndpoint | undefined, CiliumEndpoint | undefined][]): Map<string, IPCacheEntry> {
  const cache = new Map<string, IPCacheEntry>();
  for (const [before, after] of events) updateIPCache(cache, before, after, OWN);
  return cache;
}

const prefix = test.macro((tt, text: string, expected: string | undefined) =>
  tt.is(prefixOf(text) as string | undefined, expected),
);
const NETWORKS = { podCIDR: '10.244.1.0/24', closedServices: '10.96.0.0/16' };

test('an address', prefix, '10.244.1.5', '10.244.1.5/32');
test('a range', prefix, '192.168.50.0/24', '192.168.50.0/24');
test('host bits', prefix, '192.168.50.7/24', '192.168.50.0/24');
test('everything', prefix, 'default', '0.0.0.0/0');
test('too long', prefix, '10.0.0.0/33', undefined);
test('IPv6', prefix, 'fd00::1', undefined);
test('no address', prefix, '', undefined);

test('the ipcache: entries of this node have no host', (tt) => {
  const cache = cacheOf([undefined, endpoint('a', OWN, '10.244.1.5')], [undefined, endpoint('b', OTHER, '10.244.2.5')]);
  const entry = (name: string) => ({
    identity: 300,
    metadata: { name, namespace: 'vpn', source: 'custom-resource' },
  });
  tt.deepEqual(cache.get('10.244.1.5/32'), entry('a'));
  tt.deepEqual(cache.get('10.244.2.5/32'), { hostIP: OTHER, ...entry('b') });
});

test('the ipcache: who wrote last has a range; taken from the older one nothing changes', (tt) => {
  const [a, b] = [endpoint('a', OWN, '10.244.1.5', '192.168.50.0/24'), endpoint('b', OTHER, '192.168.50.0/24')];
  const cache = cacheOf([undefined, a], [undefined, b], [a, endpoint('a', OWN, '10.244.1.5')]);
  tt.is(cache.get('192.168.50.0/24')?.metadata?.name, 'b');
});

test('the ipcache: the last writer goes, and nobody has the range until the other one changes', (tt) => {
  const [a, b] = [endpoint('a', OWN, '192.168.50.0/24'), endpoint('b', OTHER, '192.168.50.0/24')];
  const cache = cacheOf([undefined, a], [undefined, b], [b, undefined]);
  tt.is(cache.size, 0);
  tt.false(updateIPCache(cache, a, { ...a, metadata: { ...a.metadata, resourceVersion: '2' } }, OWN));
  tt.is(cache.size, 0);
  tt.true(updateIPCache(cache, a, endpoint('a', OWN, '10.244.1.5', '192.168.50.0/24'), OWN));
  tt.is(cache.get('192.168.50.0/24')?.metadata?.name, 'a');
});

test('routes for pods and in the overlay: what is on other nodes, and their own addresses', (tt) => {
  const cache = cacheOf(
    [undefined, endpoint('a', OWN, '10.244.1.5', '192.168.60.0/24')],
    [undefined, endpoint('b', OTHER, '10.244.2.5', '192.168.50.0/24')],
    [undefined, endpoint('c', '10.77.0.99', '10.244.9.5')],
  );
  tt.deepEqual(
    [...podRoutes(cache).entries()].map((route) => route.join(' ')),
    ['10.244.2.5/32 dev cilium_host', '192.168.50.0/24 dev cilium_host', '10.244.9.5/32 dev cilium_host'],
  );
  tt.deepEqual(
    [...overlayRoutes(cache, NODES, 'n1').entries()].map((route) => route.join(' ')),
    ['10.244.2.1/32 dev net-n2', '10.244.2.5/32 dev net-n2', '192.168.50.0/24 dev net-n2'],
  );
});

/** As `ip -j route show table all` prints them. */
const SEEN: RouteJson[] = [
  { dst: '10.244.2.5', dev: 'cilium_host', table: '2005', scope: 'link' },
  { dst: '10.8.0.0/16', dev: 'cilium_host', table: '2005', scope: 'link' },
  { type: 'unreachable', dst: 'default', dev: 'lo', table: '2005' },
  { dst: 'default', gateway: '10.77.0.1', dev: 'eth0' },
  { dst: '10.244.1.1', dev: 'cilium_host', protocol: 'kernel', scope: 'link' },
  { dst: '10.244.1.5', dev: 'veth1', protocol: 'kernel', scope: 'link' },
  { dst: '10.244.1.6', dev: 'veth2', scope: 'host' },
  { dst: '192.168.60.0/24', gateway: '10.244.1.5', dev: 'veth1', protocol: '233', prefsrc: '10.244.1.1' },
  {
    dst: '10.244.2.0/24',
    gateway: '10.244.1.1',
    dev: 'cilium_host',
    protocol: 'kernel',
    prefsrc: '10.244.1.1',
    metrics: [{ mtu: 1450 }],
  },
  { dst: '192.168.50.0/24', dev: 'cilium_host', protocol: '233', prefsrc: '10.244.1.1' },
  { type: 'local', dst: '10.244.1.1', dev: 'veth1', table: 'local', protocol: 'kernel', scope: 'host' },
];

test('routes: only the difference', (tt) => {
  const wanted = podRoutes(cacheOf([undefined, endpoint('b', OTHER, '10.244.2.5', '192.168.50.0/24')]));
  tt.deepEqual(planRoutes(routesIn('2005', SEEN), wanted, '2005'), [
    'route delete 10.8.0.0/16 table 2005 dev cilium_host',
    'route replace 192.168.50.0/24 table 2005 dev cilium_host',
  ]);
});

test("routes of the main table: the host's own ways, and nobody else's", (tt) => {
  const seen = seenHostRoutes(SEEN);
  tt.deepEqual(planRoutes(seen, hostRoutes(NODES, 'n1', '10.244.1.1'), 'main'), []);
  tt.deepEqual(planRoutes(seen, hostRoutes([node('n1', 1), node('n3', 3)], 'n1', '10.244.1.1'), 'main'), [
    'route delete 10.244.2.0/24 table main via 10.244.1.1 dev cilium_host proto kernel src 10.244.1.1 mtu 1450',
    'route replace 10.244.3.0/24 table main via 10.244.1.1 dev cilium_host proto kernel src 10.244.1.1 mtu 1450',
  ]);
});

test("endpoints: CNI's routes, which get Cilium's form", (tt) => {
  const local = localEndpoints(SEEN, '10.244.1.0/24');
  tt.deepEqual(local, [LOCAL, { address: '10.244.1.6', interfaceName: 'veth2', linkScope: false }]);
  tt.deepEqual(planEndpointRoutes(local), ['route replace 10.244.1.6 dev veth2 proto kernel scope link']);
  tt.is(endpointId('10.244.1.6'), 262);
});

test('a Node that says what it said before', (tt) => {
  tt.true(samePlace(node('n1', 1), { ...node('n1', 1), metadata: { ...meta('n1'), resourceVersion: '2' } }));
  tt.false(samePlace(undefined, node('n1', 1)));
  tt.false(samePlace(node('n1', 1), node('n1', 2)));
});

test('status of a pod', (tt) => {
  const status = statusOf(pod({ app: 'a' }, RUNNING, { serviceAccountName: 'vpn' }), [LOCAL], OWN);
  tt.deepEqual(status?.networking, { addressing: [{ ipv4: '10.244.1.5' }], node: OWN });
  tt.is(status?.state, 'ready');
  tt.deepEqual(status?.identity.labels, [
    'k8s:app=a',
    'k8s:io.cilium.k8s.policy.serviceaccount=vpn',
    'k8s:io.kubernetes.pod.namespace=vpn',
  ]);
});

const noStatus = test.macro((tt, one: Pod) => tt.is(statusOf(one, [LOCAL], OWN), undefined));
test('no status: of the host network', noStatus, pod({}, RUNNING, { hostNetwork: true }));
test('no status: finished', noStatus, pod({}, { ...RUNNING, phase: 'Succeeded' }));
test('no status: no address yet', noStatus, pod({}, { phase: 'Pending' }));
test('no status: an address that no interface has', noStatus, pod({}, { ...RUNNING, podIPs: [{ ip: '10.244.1.9' }] }));

test('identities: the same for the same labels in any order, and of 16 bits', (tt) => {
  const { id } = identityOf(pod({ a: '1', b: '2' }));
  tt.is(identityOf(pod({ b: '2', a: '1' })).id, id);
  tt.not(identityOf(pod({ a: '1', b: '3' })).id, id);
  tt.true(id >= 256 && id < 65_536);
});

test('nftables: sets in one transaction, with the whole table at the start', (tt) => {
  const sets = setsText({ endpoints: [LOCAL], unchecked: [], nodes: [OTHER, OWN] });
  tt.is(
    sets,
    `flush set ip cilium-stand-in endpoints
add element ip cilium-stand-in endpoints { "veth1" . 10.244.1.5 }
flush set ip cilium-stand-in unchecked
flush set ip cilium-stand-in nodes
add element ip cilium-stand-in nodes { 10.77.0.11, 10.77.0.12 }
`,
  );
  const all = rulesetText({ endpoints: [LOCAL], unchecked: [], nodes: [OTHER, OWN] }, NETWORKS);
  tt.true(all.startsWith('\ntable ip cilium-stand-in\ndelete table ip cilium-stand-in\n') && all.endsWith(sets));
});
