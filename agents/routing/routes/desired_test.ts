import test from 'ava';
import type { Cidr } from '../../../functions/model/cidr.ts';
import type { Vpn } from '../../../functions/model/vpn.ts';
import { configOf, freeze, goodSite, goodSpec } from '../../../test/functions/items.ts';
import { desiredRoutes, tooLargeMtus, wayOf, type LocalFrontend, type NodeState } from './desired.ts';
import { routeText } from '../kernel/route.ts';

const ONE = configOf(goodSpec()).vpn;
const DUAL = configOf(goodSpec({ peerCIDRs: ['192.168.100.0/24', '10.8.0.0/16', 'fd12::/48'] })).vpn;
const TWO = configOf({ sites: [goodSite('berlin', '10.8.0.0/16'), goodSite('paris', '10.9.0.0/16')] }).vpn;
const withMtu = (mtu: number | ''): Vpn => configOf(goodSpec({ mtu })).vpn;

const LXC = { direct: { name: 'lxc1', mtu: 1500 } };
const FRONTEND: LocalFrontend = {
  pod: 'f-0',
  uid: 'uid-f-0',
  site: '',
  addresses: { 4: '10.10.0.5', 6: 'fd00:10::5' },
  routes: { 4: LXC, 6: LXC },
  hosts: [],
  ends: false,
};
const CILIUM_HOST = { name: 'cilium_host', mtu: 1450, addresses: { 4: '10.10.0.1', 6: 'fd00:10::1' } };
/** Another node than the frontend's. */
const NODE: NodeState = { frontends: [], ciliumHost: CILIUM_HOST, tunnels: true };
const LOCAL: NodeState = { ...NODE, frontends: [FRONTEND] };
const local = (changes: Partial<LocalFrontend>): NodeState => ({ ...NODE, frontends: [{ ...FRONTEND, ...changes }] });

/** The routes as text, or `reason: message`, of every range; below each of them, refused or not, is the route to nowhere. */
const desired = test.macro((tt, vpn: Vpn, node: NodeState, ...expected: string[]) => {
  const found = desiredRoutes(vpn, freeze(node));
  for (const { way, refused } of found) {
    tt.deepEqual(way.hops.slice(-1), wayOf({ type: 'unreachable', metric: 4_294_967_295 }).hops);
    tt.is(way.hops.length, refused === undefined ? 2 : 1);
  }
  tt.deepEqual(
    found.flatMap(({ cidr, way, refused }) =>
      refused === undefined
        ? way.hops.slice(0, -1).map((hop) => routeText(cidr, hop))
        : `${cidr} ${refused.reason}: ${refused.message}`,
    ),
    expected,
  );
});

const VIA_POD = '192.168.100.0/24 via 10.10.0.5 dev lxc1 src 10.10.0.1 mtu 1300';
test('the frontend’s node: to the pod, and below it to nowhere', desired, ONE, LOCAL, VIA_POD);
test('the frontend’s node without tunnels', desired, ONE, { ...LOCAL, tunnels: false }, VIA_POD);
test('another node: into the tunnel', desired, ONE, NODE, '192.168.100.0/24 dev cilium_host src 10.10.0.1 mtu 1300');
test('another node without tunnels', desired, ONE, { ...NODE, tunnels: false });
test(
  'the frontend’s node, both families',
  desired,
  DUAL,
  LOCAL,
  '10.8.0.0/16 via 10.10.0.5 dev lxc1 src 10.10.0.1 mtu 1300',
  VIA_POD,
  'fd12::/48 via fd00:10::5 dev lxc1 src fd00:10::1 mtu 1300',
);
test(
  'another node, both families',
  desired,
  DUAL,
  NODE,
  '10.8.0.0/16 dev cilium_host src 10.10.0.1 mtu 1300',
  '192.168.100.0/24 dev cilium_host src 10.10.0.1 mtu 1300',
  'fd12::/48 dev cilium_host src fd00:10::1 mtu 1300',
);
test(
  'two sites, one of them here',
  desired,
  TWO,
  local({ site: 'paris' }),
  '10.8.0.0/16 dev cilium_host src 10.10.0.1 mtu 1300',
  '10.9.0.0/16 via 10.10.0.5 dev lxc1 src 10.10.0.1 mtu 1300',
);
test(
  'two sites, one of them here, without tunnels',
  desired,
  TWO,
  { ...local({ site: 'berlin' }), tunnels: false },
  '10.8.0.0/16 via 10.10.0.5 dev lxc1 src 10.10.0.1 mtu 1300',
);
test(
  'a frontend of another site is none',
  desired,
  ONE,
  local({ site: 'rome' }),
  '192.168.100.0/24 dev cilium_host src 10.10.0.1 mtu 1300',
);

test('no mtu', desired, withMtu(''), LOCAL, VIA_POD.replace(' mtu 1300', ''));
test('no mtu, into the tunnel', desired, withMtu(''), NODE, '192.168.100.0/24 dev cilium_host src 10.10.0.1');
test('as large an mtu as the interface’s', desired, withMtu(1500), LOCAL, VIA_POD.replace('1300', '1500'));
test('a larger mtu than the interface’s', desired, withMtu(9000), LOCAL, VIA_POD.replace('1300', '1500'));
test(
  'a larger mtu than the tunnel’s',
  desired,
  withMtu(1500),
  NODE,
  '192.168.100.0/24 dev cilium_host src 10.10.0.1 mtu 1450',
);

const POD_ONLY = '192.168.100.0/24 via 10.10.0.5 dev lxc1 mtu 1300';
test('no cilium_host: the pod is reached all the same', desired, ONE, { ...LOCAL, ciliumHost: undefined }, POD_ONLY);
test(
  'cilium_host without an address of the family: likewise',
  desired,
  ONE,
  { ...LOCAL, ciliumHost: { ...CILIUM_HOST, addresses: { 6: 'fd00:10::1' } } },
  POD_ONLY,
);
test(
  'another node without cilium_host',
  desired,
  ONE,
  { ...NODE, ciliumHost: undefined },
  "192.168.100.0/24 no-cilium-host: this node has no device cilium_host: Cilium's agent does not run here yet",
);
test(
  'another node, cilium_host without an address of one family',
  desired,
  DUAL,
  { ...NODE, ciliumHost: { ...CILIUM_HOST, addresses: { 4: '10.10.0.1' } } },
  '10.8.0.0/16 dev cilium_host src 10.10.0.1 mtu 1300',
  '192.168.100.0/24 dev cilium_host src 10.10.0.1 mtu 1300',
  'fd12::/48 no-cilium-host: cilium_host has no IPv6 address: turn on IPv6 in Cilium (enable-ipv6), or take the IPv6 ranges out of the configuration',
);
const noAddress = (family: 4 | 6): string =>
  `no-pod-address: the frontend's pod f-0 has no IPv${family} address: turn on IPv${family} in the cluster (cilium-config enable-ipv${family}), or take the IPv${family} ranges out of the configuration`;
test(
  'a pod without IPv6',
  desired,
  configOf(goodSpec({ peerCIDRs: ['192.168.100.0/24', 'fd12::/48'] })).vpn,
  local({ addresses: { 4: '10.10.0.5' }, routes: { 4: LXC } }),
  VIA_POD,
  `fd12::/48 ${noAddress(6)}`,
);
test(
  'a pod without IPv4',
  desired,
  ONE,
  local({ addresses: { 6: 'fd00:10::5' }, routes: { 4: LXC, 6: LXC } }),
  `192.168.100.0/24 ${noAddress(4)}`,
);
test(
  'no route to the pod of its own: every range of the family',
  desired,
  DUAL,
  local({ routes: { 4: { indirect: 'not through an interface of its own' }, 6: LXC } }),
  '10.8.0.0/16 no-endpoint-route: not through an interface of its own',
  '192.168.100.0/24 no-endpoint-route: not through an interface of its own',
  'fd12::/48 via fd00:10::5 dev lxc1 src fd00:10::1 mtu 1300',
);

const INDIRECT = { indirect: 'no' };
test('a pod that ends: as before while its interface is there', desired, ONE, local({ ends: true }), VIA_POD);
test(
  'a pod that ends, its interface gone: as without it, and nobody is blamed',
  desired,
  DUAL,
  local({ ends: true, routes: { 4: INDIRECT, 6: INDIRECT } }),
  '10.8.0.0/16 dev cilium_host src 10.10.0.1 mtu 1300',
  '192.168.100.0/24 dev cilium_host src 10.10.0.1 mtu 1300',
  'fd12::/48 dev cilium_host src fd00:10::1 mtu 1300',
);
test('a pod that ends, its interface gone, without tunnels: to nowhere, and nobody is blamed', (tt) => {
  const node = { ...local({ ends: true, routes: { 4: INDIRECT, 6: INDIRECT } }), tunnels: false };
  const way = wayOf({ type: 'unreachable', metric: 4_294_967_295 });
  tt.deepEqual(desiredRoutes(ONE, node), [{ cidr: '192.168.100.0/24' as Cidr, site: '', way }]);
});
test(
  'a pod that ends, read between the families',
  desired,
  DUAL,
  local({ ends: true, routes: { 4: INDIRECT, 6: LXC } }),
  '10.8.0.0/16 dev cilium_host src 10.10.0.1 mtu 1300',
  '192.168.100.0/24 dev cilium_host src 10.10.0.1 mtu 1300',
  'fd12::/48 via fd00:10::5 dev lxc1 src fd00:10::1 mtu 1300',
);
test(
  'a pod that ends and has no IPv6',
  desired,
  configOf(goodSpec({ peerCIDRs: ['192.168.100.0/24', 'fd12::/48'] })).vpn,
  local({ ends: true, addresses: { 4: '10.10.0.5' }, routes: { 4: LXC } }),
  VIA_POD,
  `fd12::/48 ${noAddress(6)}`,
);

test('whose they are, and whose are refused', (tt) => {
  const node = local({ site: 'berlin', routes: { 4: { indirect: 'no' } } });
  tt.deepEqual(desiredRoutes(TWO, node), [
    {
      cidr: '10.8.0.0/16' as Cidr,
      site: 'berlin',
      way: wayOf({ type: 'unreachable', metric: 4_294_967_295 }),
      refused: { reason: 'no-endpoint-route', message: 'no' },
    },
    {
      cidr: '10.9.0.0/16' as Cidr,
      site: 'paris',
      way: wayOf(
        { type: 'unicast', device: 'cilium_host', src: '10.10.0.1', mtu: 1300 },
        { type: 'unreachable', metric: 4_294_967_295 },
      ),
    },
  ]);
});

test('as data: to the pod', (tt) => {
  const way = wayOf(
    { type: 'unicast', via: '10.10.0.5', device: 'lxc1', src: '10.10.0.1', mtu: 1300 },
    { type: 'unreachable', metric: 4_294_967_295 },
  );
  tt.deepEqual(desiredRoutes(ONE, LOCAL), [{ cidr: '192.168.100.0/24' as Cidr, site: '', way }]);
});

test('the text of a way tells it from every other', (tt) => {
  const ways = [
    wayOf(),
    wayOf({ type: 'unreachable' }),
    wayOf({ type: 'unicast' }),
    wayOf({ type: 'unicast' }, { type: 'unreachable' }),
    wayOf({ type: 'unicast', via: '10.10.0.5' }),
    wayOf({ type: 'unicast', device: 'lxc1' }),
    wayOf({ type: 'unicast', src: '10.10.0.5' }),
    wayOf({ type: 'unicast', mtu: 1300 }),
    wayOf({ type: 'unicast', metric: 1300 }),
  ];
  tt.is(new Set(ways.map(({ text }) => text)).size, ways.length);
  tt.is(ways[3]?.text, 'unicast; unreachable');
});

type TooLarge = ReturnType<typeof tooLargeMtus>[number];
const tooLarge = test.macro((tt, vpn: Vpn, node: NodeState, ...expected: TooLarge[]) => {
  tt.deepEqual(tooLargeMtus(vpn, freeze(node)), expected);
});
const AT_POD = { site: '', mtu: 1501, device: 'lxc1', limit: 1500 };
test('too large: the pod’s interface', tooLarge, withMtu(1501), LOCAL, AT_POD);
test(
  'too large: the pod’s interface of IPv6 alone',
  tooLarge,
  withMtu(1501),
  local({ routes: { 4: { indirect: 'no' }, 6: LXC } }),
  AT_POD,
);
test('too large: the tunnel', tooLarge, withMtu(1451), NODE, {
  site: '',
  mtu: 1451,
  device: 'cilium_host',
  limit: 1450,
});
test('just as large', tooLarge, withMtu(1500), LOCAL);
test('larger than the tunnel’s, but the pod is here', tooLarge, withMtu(1451), LOCAL);
test('no mtu is none too large', tooLarge, withMtu(''), LOCAL);
test('too large for nobody: no tunnels', tooLarge, withMtu(9000), { ...NODE, tunnels: false });
test('too large for nobody: no cilium_host', tooLarge, withMtu(9000), { ...NODE, ciliumHost: undefined });
test(
  'too large: one of two sites, each at its device',
  tooLarge,
  configOf({
    sites: [goodSite('berlin', '10.8.0.0/16', { mtu: 1500 }), goodSite('paris', '10.9.0.0/16', { mtu: 1500 })],
  }).vpn,
  local({ site: 'berlin' }),
  { site: 'paris', mtu: 1500, device: 'cilium_host', limit: 1450 },
);
