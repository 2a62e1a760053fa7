import { BlockList } from 'node:net';
import test from 'ava';
import fc from 'fast-check';
import type { Item } from '../model/krm.ts';
import {
  base,
  ciliumConfig,
  configOf,
  freeze,
  frontend,
  goodSite,
  goodSpec,
  partialCiliumConfig,
  ref,
  said,
} from '../../test/functions/items.ts';
import { validateVpn } from './validate-vpn.ts';

/** The Secret that goodSpec() refers to. */
const secret = (data: object = { psk: base64('0123456789abcdefghij') }, more: object = {}): Item => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name: 'vpn-psk', namespace: 'constellation-vpn' },
  data,
  ...more,
});
function base64(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64');
}

function findings(spec: object, items: readonly Item[]): string[] {
  const outcome = validateVpn(freeze(items), configOf(spec));
  return outcome.results.map(said);
}

const onSpec = test.macro((tt, spec: object, ...expected: string[]) =>
  tt.deepEqual(findings(spec, [frontend(), secret()]), expected),
);
const onItems = test.macro((tt, items: Item[], ...expected: string[]) =>
  tt.deepEqual(findings(goodSpec(), items), expected),
);
/** Of sites whose Secrets are elsewhere, the info about those left out. */
const onSites = test.macro((tt, spec: object, ...expected: string[]) => {
  tt.deepEqual(
    findings(spec, [frontend()]).filter((line) => !line.startsWith('info')),
    expected,
  );
});

test('nothing to say about a good configuration', onSpec, goodSpec());
test('nothing to say about a good cluster', onItems, [...base(), secret(), ciliumConfig()]);
test('nothing to say about dual stack', (tt) => {
  const spec = goodSpec({
    podCIDR: ['10.10.0.0/16', 'fd10::/56'],
    serviceCIDR: ['10.96.0.0/12', 'fd11::/112'],
    peerCIDRs: ['192.168.100.0/24', 'fd12:3456::/48'],
  });
  tt.deepEqual(findings(spec, [frontend(), secret(), ciliumConfig({ 'enable-ipv6': 'true' })]), []);
});
test('nothing to say about two sites', onSites, {
  sites: [goodSite('a', '10.1.0.0/16'), goodSite('b', '10.2.0.0/16')],
});
test('items come out as the same objects', (tt) => {
  const items = freeze([...base(), secret()]);
  tt.is(validateVpn(items, configOf(goodSpec())).items, items);
});
test('a finding names its object, field and value', (tt) => {
  const { results } = validateVpn(
    [frontend(), secret()],
    configOf(goodSpec({ peerCIDRs: ['10.1.0.0/16', '127.0.0.0/16'] })),
  );
  tt.deepEqual(results, [
    {
      severity: 'error',
      message: 'overlaps the loopback range, which is never routed',
      resourceRef: ref,
      field: { path: 'spec.peerCIDRs[1]', currentValue: '127.0.0.0/16' },
    },
  ]);
});

// Ranges of the cluster and of the sites

test(
  'pods in the Service range',
  onSpec,
  goodSpec({ podCIDR: '10.100.0.0/16' }),
  'error spec.podCIDR: overlaps serviceCIDR: take both from the cluster',
);
test(
  'Services in the pod range',
  onSpec,
  goodSpec({ podCIDR: '10.0.0.0/8' }),
  'error spec.podCIDR: overlaps serviceCIDR: take both from the cluster',
);

const POD = 'overlaps podCIDR 10.10.0.0/16: on-prem and pod ranges must be disjoint';
test('inside the pod range', onSpec, goodSpec({ peerCIDRs: ['10.10.3.0/24'] }), `error spec.peerCIDRs[0]: ${POD}`);
test(
  'around the pod range',
  onSpec,
  goodSpec({ peerCIDRs: ['192.168.0.0/24', '10.0.0.0/12'] }),
  `error spec.peerCIDRs[1]: ${POD}`,
);
test(
  'inside the Service range',
  onSpec,
  goodSpec({ peerCIDRs: ['10.96.0.0/24'] }),
  'error spec.peerCIDRs[0]: overlaps serviceCIDR 10.96.0.0/12: on-prem and Service ranges must be disjoint',
);
test('beside both ranges', onSpec, goodSpec({ peerCIDRs: ['10.11.0.0/16', '10.112.0.0/12'] }));

const reserved = (name: string): string => `error spec.peerCIDRs[0]: overlaps the ${name} range, which is never routed`;
test('loopback', onSpec, goodSpec({ peerCIDRs: ['127.0.0.1/32'] }), reserved('loopback'));
test('link-local', onSpec, goodSpec({ peerCIDRs: ['169.254.0.0/16'] }), reserved('link-local'));
test('multicast', onSpec, goodSpec({ peerCIDRs: ['239.0.0.0/24'] }), reserved('multicast'));
test('this network', onSpec, goodSpec({ peerCIDRs: ['0.1.0.0/16'] }), reserved('this network (0.0.0.0/8)'));
test(
  'around a reserved range',
  onSpec,
  goodSpec({ peerCIDRs: ['126.0.0.0/7'] }),
  reserved('loopback'),
  'warning spec.peerCIDRs[0]: is very wide: the whole range leaves through the tunnel from every pod',
);
const v6 = (cidr: string): object => goodSpec({ podCIDR: ['10.10.0.0/16', 'fd10::/56'], peerCIDRs: [cidr] });
test('IPv6 loopback', onSpec, v6('::1/128'), reserved('loopback'));
test('IPv6 link-local', onSpec, v6('fe80::/64'), reserved('link-local'));
test(
  'IPv6 multicast',
  onSpec,
  v6('ff02::/16'),
  reserved('multicast'),
  'warning spec.peerCIDRs[0]: is very wide: the whole range leaves through the tunnel from every pod',
);

const EVERYTHING = "is every address, the cluster's own and the gateway's among them: list the on-prem ranges";
test('every address', (tt) => {
  tt.true(
    findings(goodSpec({ peerCIDRs: ['0.0.0.0/0'] }), [frontend(), secret()]).includes(
      `error spec.peerCIDRs[0]: ${EVERYTHING}`,
    ),
  );
  tt.true(findings(v6('::/0'), [frontend(), secret()]).includes(`error spec.peerCIDRs[0]: ${EVERYTHING}`));
});

const EXAMPLE = 'is an example range of documentation (RFC 5737, 3849, 9637): write the real one';
for (const cidr of ['192.0.2.0/24', '198.51.100.128/25', '203.0.113.0/24'])
  test(`documentation: ${cidr}`, onSpec, goodSpec({ peerCIDRs: [cidr] }), `warning spec.peerCIDRs[0]: ${EXAMPLE}`);
for (const cidr of ['2001:db8:1::/48', '3fff::/24'])
  test(`documentation: ${cidr}`, onSpec, v6(cidr), `warning spec.peerCIDRs[0]: ${EXAMPLE}`);

const WIDE = 'is very wide: the whole range leaves through the tunnel from every pod';
test('/8 is wide', onSpec, goodSpec({ peerCIDRs: ['11.0.0.0/8'] }), `warning spec.peerCIDRs[0]: ${WIDE}`);
test('/9 is not', onSpec, goodSpec({ peerCIDRs: ['11.0.0.0/9'] }));
test('IPv6 /16 is wide', onSpec, v6('fd77::/16'), `warning spec.peerCIDRs[0]: ${WIDE}`);
test('IPv6 /17 is not', onSpec, v6('fd77::/17'));

const overlap = (cidr: string, site: string): string =>
  `overlaps ${cidr} of ${site}: a range can lie behind one gateway only`;
const ELSEWHERE = { peer: '194.25.0.11' };
test(
  'the same range behind two gateways',
  onSites,
  { sites: [goodSite('b', '10.1.0.0/16', {}, ELSEWHERE), goodSite('a', '10.1.0.0/16')] },
  `error spec.sites[0].peerCIDRs[0]: ${overlap('10.1.0.0/16', 'site a')}`,
);
test(
  'inside of another site’s',
  onSites,
  { sites: [goodSite('a', '10.1.0.0/24'), goodSite('b', '10.1.0.0/16', {}, ELSEWHERE)] },
  `error spec.sites[0].peerCIDRs[0]: ${overlap('10.1.0.0/16', 'site b')}`,
);
const SAME_GATEWAY =
  'of site a, which has the same gateway: a range can belong to one site only; take it out of one of them';
test(
  'the same gateway and the same ranges',
  onSites,
  {
    sites: [
      goodSite('a', '', { peerCIDRs: ['10.1.0.0/16', '10.2.0.0/16'] }),
      goodSite('b', '', { peerCIDRs: ['10.2.0.0/16', '10.1.0.0/16'] }),
    ],
  },
  `error spec.sites[1].peerCIDRs[1]: overlaps 10.1.0.0/16 ${SAME_GATEWAY}`,
  `error spec.sites[1].peerCIDRs[0]: overlaps 10.2.0.0/16 ${SAME_GATEWAY}`,
);
test('the same gateway by the same identity, other ranges', onSites, {
  sites: [
    goodSite('a', '10.1.0.0/16', {}, { remoteID: 'CN=gw' }),
    goodSite('b', '10.2.0.0/16', {}, { remoteID: 'CN=gw' }),
  ],
});
test('inside of the same site’s', onSpec, goodSpec({ peerCIDRs: ['172.20.0.0/16', '172.20.3.0/24'] }));

test(
  'selectors of one family, ranges of both',
  onSpec,
  goodSpec(
    { podCIDR: ['10.10.0.0/16', 'fd10::/56'], peerCIDRs: ['192.168.100.0/24', 'fd12:3456::/48'] },
    { localTrafficSelectors: ['10.10.0.0/16'] },
  ),
  'error spec.peerCIDRs[1]: is IPv6, but localTrafficSelectors has no IPv6 range: no tunnel could be made to it',
);
const NO_FAMILY = 'is IPv6, but podCIDR has no IPv6 range: no pod could use it';
test(
  'IPv6 without IPv6 pods',
  onSpec,
  goodSpec({ peerCIDRs: ['192.168.0.0/24', 'fd12::/48', 'fd13::/48'] }),
  `error spec.peerCIDRs[1]: ${NO_FAMILY}`,
);
test(
  'IPv4 without IPv4 pods',
  onSpec,
  goodSpec({ podCIDR: 'fd10::/56', serviceCIDR: 'fd11::/112' }),
  'error spec.peerCIDRs[0]: is IPv4, but podCIDR has no IPv4 range: no pod could use it',
);

const many = (n: number): string[] =>
  Array.from({ length: n }, (_, i) => `172.${16 + (i >> 12)}.${(i >> 4) & 255}.${(i & 15) << 4}/28`);

// The probe

const OUTSIDE = (ranges: string): string =>
  `lies in no on-prem range of the site (${ranges}): its ping would not go through the tunnel`;
test('probe', onSpec, goodSpec({ probe: '192.168.100.7' }));
test('probe that is a range of its own', onSpec, goodSpec({ peerCIDRs: ['192.168.100.7/32'], probe: '192.168.100.7' }));
test('probe is within a range, or refused', (tt) => {
  const address = fc.tuple(fc.nat(3), fc.nat(255)).map(([third, last]) => `172.20.${third}.${last}`);
  const range = fc.tuple(fc.nat(3), fc.constantFrom('0/24', '0/25', '128/25', '64/26', '7/32'));
  const ranges = fc.uniqueArray(range, { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(address, ranges, (probe, given) => {
      const peerCIDRs = given.map(([third, last]) => `172.20.${third}.${last}`);
      const list = new BlockList();
      for (const [network = '', length] of peerCIDRs.map((cidr) => cidr.split('/')))
        list.addSubnet(network, Number(length));
      const found = findings(goodSpec({ peerCIDRs, probe }), [frontend(), secret()]);
      tt.is(found.length, list.check(probe) ? 0 : 1, found.join());
    }),
  );
});
test(
  'probe in the second range',
  onSpec,
  goodSpec({ peerCIDRs: ['172.20.0.0/16', '172.31.0.0/16'], probe: '172.31.0.1' }),
);
test(
  'probe elsewhere',
  onSpec,
  goodSpec({ peerCIDRs: ['192.168.100.0/24', '172.20.0.0/16'], probe: '192.168.101.7' }),
  `error spec.probe: ${OUTSIDE('172.20.0.0/16, 192.168.100.0/24')}`,
);
test(
  'probe outside of many ranges',
  onSpec,
  goodSpec({ peerCIDRs: many(10), probe: '192.168.101.7' }),
  `error spec.probe: ${OUTSIDE('172.16.0.0/28, 172.16.0.16/28, 172.16.0.32/28, 172.16.0.48/28 and 6 more')}`,
);
test(
  'probe in another site’s range',
  onSites,
  { sites: [goodSite('b', '10.2.0.0/16', { probe: '10.1.0.7' }), goodSite('a', '10.1.0.0/16', { probe: '10.1.0.7' })] },
  `error spec.sites[0].probe: ${OUTSIDE('10.2.0.0/16')}`,
);
test(
  'probe of a family that pods lack',
  onSpec,
  goodSpec({ peerCIDRs: ['192.168.100.0/24', 'fd12::/48'], probe: 'fd12::7' }),
  `error spec.peerCIDRs[1]: ${NO_FAMILY}`,
  'error spec.probe: is IPv6, but podCIDR has no IPv6 range: no pod could ping it',
);
test(
  'probe of a family that pods and ranges lack',
  onSpec,
  goodSpec({ probe: 'fd12::7' }),
  'error spec.probe: is IPv6, but podCIDR has no IPv6 range: no pod could ping it',
  `error spec.probe: ${OUTSIDE('192.168.100.0/24')}`,
);
test('probe of IPv6 pods', onSpec, {
  ...goodSpec({
    podCIDR: ['10.10.0.0/16', 'fd10::/56'],
    peerCIDRs: ['192.168.100.0/24', 'fd12::/48'],
    probe: 'fd12::7',
  }),
});
test('a finding about the probe names its value', (tt) => {
  const { results } = validateVpn([frontend(), secret()], configOf(goodSpec({ probe: '10.1.2.3' })));
  tt.deepEqual(
    results.map(({ field, resourceRef }) => ({ field, resourceRef })),
    [{ field: { path: 'spec.probe', currentValue: '10.1.2.3' }, resourceRef: ref }],
  );
});

test('10,000 ranges', onSpec, goodSpec({ peerCIDRs: many(10_000) }));
test(
  '10,001 ranges',
  onSpec,
  goodSpec({ peerCIDRs: many(10_001) }),
  "warning spec: has 10001 peer CIDRs: beyond 10000, Cilium's and the kernel's tables get slow; summarise them",
);

// Gateways and our own address

const inPeer = (cidr: string, site = 'the site'): string => `lies in ${cidr}, a peer CIDR of ${site}`;
const INTO = ": the tunnel's own packets would go into the tunnel";
test(
  'gateway in its own range',
  onSpec,
  goodSpec({}, { peer: '192.168.100.1' }),
  `error spec.ipsec.peer: ${inPeer('192.168.100.0/24')}${INTO}`,
);
test(
  'gateway in another site’s range',
  onSites,
  { sites: [goodSite('a', '10.1.0.0/16'), goodSite('b', '10.2.0.0/16', {}, { peer: '10.1.0.1' })] },
  `error spec.sites[1].ipsec.peer: ${inPeer('10.1.0.0/16', 'site a')}${INTO}`,
);
test(
  'IPv6 gateway in a range',
  onSpec,
  goodSpec({ podCIDR: ['10.10.0.0/16', 'fd10::/56'], peerCIDRs: ['fd12::/48'] }, { peer: 'fd12::1' }),
  `error spec.ipsec.peer: ${inPeer('fd12::/48')}${INTO}`,
);
test(
  'gateway in the pod range',
  onSpec,
  goodSpec({}, { peer: '10.10.0.1' }),
  "error spec.ipsec.peer: lies in the cluster's own range 10.10.0.0/16",
);
test(
  'gateway in the Service range',
  onSpec,
  goodSpec({}, { peer: '10.96.0.1' }),
  "error spec.ipsec.peer: lies in the cluster's own range 10.96.0.0/12",
);
const EXAMPLE_ADDRESS = 'is an example address of documentation (RFC 5737, 3849, 9637): write the real one';
test(
  'gateway of documentation',
  onSpec,
  goodSpec({}, { peer: '203.0.113.10' }),
  `warning spec.ipsec.peer: ${EXAMPLE_ADDRESS}`,
);
test(
  'IPv6 gateway of documentation',
  onSpec,
  goodSpec({}, { peer: '2001:db8::1' }),
  `warning spec.ipsec.peer: ${EXAMPLE_ADDRESS}`,
);
const EXAMPLE_NAME = 'is an example name of documentation (RFC 2606): write the real gateway';
for (const name of ['example.com', 'gw.example.org', 'gw.example', 'gw.test', 'gw.invalid'])
  test(
    `name of documentation: ${name}`,
    onSpec,
    goodSpec({}, { peer: name }),
    `warning spec.ipsec.peer: ${EXAMPLE_NAME}`,
  );
for (const name of ['gw.test.com', 'gw.invalid.org', 'gw.myexample.com', 'example.company.de', 'contest'])
  test(`name of somebody: ${name}`, onSpec, goodSpec({}, { peer: name }));

test(
  'our address in a peer range',
  onSpec,
  goodSpec({ publicAddress: '192.168.100.7' }),
  `error spec.publicAddress: ${inPeer('192.168.100.0/24')}`,
);
test(
  'our address of documentation',
  onSpec,
  goodSpec({ publicAddress: '198.51.100.20' }),
  `warning spec.publicAddress: ${EXAMPLE_ADDRESS}`,
);
test('our address', onSpec, goodSpec({ publicAddress: '194.25.0.20' }));

test(
  'selector outside of the cluster',
  onSpec,
  goodSpec({}, { localTrafficSelectors: ['10.10.0.0/24', '172.31.0.0/16', '10.0.0.0/8'] }),
  'warning spec.ipsec.localTrafficSelectors: offers 10.0.0.0/8, which lies outside of podCIDR and serviceCIDR: nothing there answers',
  'warning spec.ipsec.localTrafficSelectors: offers 172.31.0.0/16, which lies outside of podCIDR and serviceCIDR: nothing there answers',
);

// MTU, cipher suites, identities, names

const HIGH_MTU = 'leaves less than 100 bytes for ESP on an Ethernet path: above 1400 large packets are likely lost';
const LOW_MTU = 'is too small: with an IPv6 peer CIDR it must be at least 1280';
const dual = (mtu: unknown): object =>
  goodSpec({ mtu, podCIDR: ['10.10.0.0/16', 'fd10::/56'], peerCIDRs: ['fd12::/48'] });
test('mtu of 1400', onSpec, goodSpec({ mtu: 1400 }));
test('mtu of 1401', onSpec, goodSpec({ mtu: 1401 }), `warning spec.mtu: ${HIGH_MTU}`);
test('mtu of 576', onSpec, goodSpec({ mtu: 576 }));
test('mtu of 1279 with IPv6', onSpec, dual(1279), `error spec.mtu: ${LOW_MTU}`);
test('mtu of 1280 with IPv6', onSpec, dual(1280));
test('mtu left to discovery', onSpec, dual(''));
test(
  "a site's mtu",
  onSites,
  { sites: [goodSite('a', '10.1.0.0/16', { mtu: 1500 })] },
  `warning spec.sites[0].mtu: ${HIGH_MTU}`,
);

// CHILD_SAs

const pairs = (n: number): string =>
  `makes ${n} CHILD_SAs; the gateway has to hold as many: summarise the ranges, or use perRange where the gateway can`;
const perPair = (remote: number, more: object = {}, ipsec: object = {}): object =>
  goodSpec({ peerCIDRs: many(remote), ...more }, { childSAs: 'perPair', ...ipsec });
test('128 pairs', onSpec, perPair(64));
test('130 pairs', onSpec, perPair(65), `warning spec.ipsec.childSAs: ${pairs(130)}`);
test('1000 ranges, a CHILD_SA for each, or one', (tt) => {
  for (const childSAs of ['perRange', 'one'])
    tt.deepEqual(findings(perPair(1000, {}, { childSAs }), [frontend(), secret()]), []);
});
test('pairs that the gateway dials, if any', onSpec, perPair(65, {}, { startAction: 'none' }));
test('pairs with ranges of our own choice', onSpec, perPair(128, {}, { localTrafficSelectors: ['10.10.0.0/24'] }));
test(
  'pairs with more ranges of our own choice',
  onSpec,
  perPair(43, {}, { localTrafficSelectors: ['10.10.0.0/24', '10.10.1.0/24', '10.10.2.0/24'] }),
  `warning spec.ipsec.childSAs: ${pairs(129)}`,
);
test('pairs are of one family each', (tt) => {
  const dual = { podCIDR: ['10.10.0.0/16', 'fd10::/56'], serviceCIDR: ['10.96.0.0/12', 'fd11::/112'] };
  const v6 = (n: number) => Array.from({ length: n }, (_, i) => `fd12:0:${i.toString(16)}::/48`);
  const found = (n: number) =>
    findings(perPair(0, { ...dual, peerCIDRs: [...many(32), ...v6(n)] }), [frontend(), secret()]);
  tt.deepEqual(found(32), []);
  tt.deepEqual(found(33), [`warning spec.ipsec.childSAs: ${pairs(130)}`]);
});
test(
  'pairs of a site',
  onSites,
  { sites: [goodSite('b', '', { peerCIDRs: many(65) }, { childSAs: 'perPair' }), goodSite('a', '10.1.0.0/16')] },
  `warning spec.sites[0].ipsec.childSAs: ${pairs(130)}`,
);

const weak = (what: string): string => `allows ${what}, which RFC 8247 and 8221 advise against`;
test(
  'weak proposals',
  onSpec,
  goodSpec({}, { proposals: { ike: ['aes256-sha256-modp3072', '3des-sha1-modp1024'], esp: ['aes256-sha1-modp2048'] } }),
  `warning spec.ipsec.proposals.ike[1]: ${weak('3des and sha1 and modp1024')}`,
  `warning spec.ipsec.proposals.esp[0]: ${weak('sha1 and modp2048')}`,
);

const CLEAR = 'is a secret in a file that is usually kept in git: put it into a Secret and name that in pskSecretRef';
const SHORT =
  'has fewer than 20 characters and can be guessed from one recorded handshake; `openssl rand -base64 32` makes a good one';
test(
  'literal key',
  onSpec,
  goodSpec({}, { pskSecretRef: null, psk: 'k'.repeat(20) }),
  `warning spec.ipsec.psk: ${CLEAR}`,
);
test(
  'short literal key',
  onSpec,
  goodSpec({}, { pskSecretRef: null, psk: 'k'.repeat(19) }),
  `warning spec.ipsec.psk: ${CLEAR}`,
  `warning spec.ipsec.psk: ${SHORT}`,
);

const twin = (id: string, site: string): string =>
  `is the identity ${id} of ${site} too, to the same gateway: their tunnels would replace each other; give each a localID`;
const sites = (a: object, b: object, more: object = {}): object => ({
  sites: [goodSite('a', '10.1.0.0/16', {}, a), goodSite('b', '10.2.0.0/16', {}, b)],
  ...more,
});
test(
  'one identity twice to one gateway',
  onSites,
  sites({ localID: '@me' }, { localID: '@me' }),
  `warning spec.sites[1].ipsec.localID: ${twin('@me', 'site a')}`,
);
test(
  'publicAddress as identity twice',
  onSites,
  sites({ localID: null }, { localID: null }, { publicAddress: '194.25.0.20' }),
  `warning spec.sites[1].ipsec.localID: ${twin('194.25.0.20', 'site a')}`,
);
test(
  'the name of another site’s frontend as identity',
  onSites,
  sites({ localID: null }, { localID: 'vpn-frontend-a.constellation-vpn' }),
  `warning spec.sites[1].ipsec.localID: ${twin('vpn-frontend-a.constellation-vpn', 'site a')}`,
);
test('one identity to two gateways', onSites, sites({ localID: '@me' }, { localID: '@me', peer: '194.25.0.11' }));
test('identities by pod name differ', onSites, sites({ localID: null }, { localID: null }));
test(
  'identities of certificates are their subjects',
  onSites,
  sites(
    { localID: null, pskSecretRef: null, certificate: { secretRef: { name: 'a' } } },
    { localID: null, pskSecretRef: null, certificate: { secretRef: { name: 'b' } } },
    { publicAddress: '194.25.0.20' },
  ),
);

const long = (n: number): object => ({ sites: [goodSite('s'.repeat(n), '10.1.0.0/16')] });
test('a name that just fits', onSites, long(39));
test(
  'a name too long',
  onSites,
  long(40),
  `error spec.sites[0].name: makes a StatefulSet's name of 53 characters (vpn-frontend-${'s'.repeat(40)}); its pods' labels leave room for 52: shorten it by 1`,
);
test('a prefix too long', (tt) => {
  const name = `${'p'.repeat(41)}vpn-frontend`;
  const items = [
    {
      ...frontend(),
      metadata: { name, namespace: 'constellation-vpn', labels: { 'constellation-vpn.io/component': 'frontend' } },
    },
    secret(),
  ];
  tt.deepEqual(findings(goodSpec(), items), [
    `error metadata.name: makes a StatefulSet's name of 53 characters (${name}); its pods' labels leave room for 52: shorten it by 1`,
  ]);
});
test("a frontend's own site is no part of the next one's name", (tt) => {
  const { metadata } = frontend() as { metadata: object };
  const labels = { 'constellation-vpn.io/component': 'frontend', 'constellation-vpn.io/site': 'a'.repeat(30) };
  const items = [{ ...frontend(), metadata: { ...metadata, name: `vpn-frontend-${'a'.repeat(30)}`, labels } }];
  tt.deepEqual(
    findings({ sites: [goodSite('b'.repeat(30), '10.1.0.0/16')] }, items).filter((line) => line.startsWith('error')),
    [],
  );
});

test(
  "the old chart's fields",
  onSpec,
  goodSpec({ image: 'registry.example.com/a', nameOverride: 'x', fullnameOverride: 'y' }),
  "warning spec.image: is the old chart's image, which holds none of these programs: it is ignored; remove it",
  "warning spec.nameOverride: is the old chart's and ignored: use kustomize's namePrefix, and remove it",
  "warning spec.fullnameOverride: is the old chart's and ignored: use kustomize's namePrefix, and remove it",
);

// Secrets

const ABSENT = "is not among the items: create it in the VPN's namespace, or the frontend waits for it";
test(
  'Secret elsewhere',
  onItems,
  [frontend()],
  `info spec.ipsec.pskSecretRef: Secret vpn-psk with the key psk ${ABSENT}`,
);
test(
  'Secrets elsewhere',
  onSpec,
  goodSpec(
    {},
    { pskSecretRef: null, certificate: { secretRef: { name: 'tls' } }, ppkSecretRef: { name: 'ppk', id: 'me' } },
  ),
  `info spec.ipsec.certificate.secretRef: Secret tls with the keys tls.crt, tls.key, ca.crt ${ABSENT}`,
  `info spec.ipsec.ppkSecretRef: Secret ppk with the key ppk ${ABSENT}`,
);
const DATA = 'Secret/vpn-psk data.psk:';
test(
  'Secret without the key',
  onItems,
  [frontend(), secret({ key: 'a2V5' })],
  `error ${DATA} is missing: the configuration refers to the key psk`,
);
test(
  'Secret of nothing',
  onItems,
  [frontend(), secret({}, { data: null })],
  `error ${DATA} is missing: the configuration refers to the key psk`,
);
test('Secret with an empty key', onItems, [frontend(), secret({ psk: '' })], `error ${DATA} is empty`);
test(
  'Secret that is not base64',
  onItems,
  [frontend(), secret({ psk: 'not base64!' })],
  `error ${DATA} is not base64: use stringData for text`,
);
test(
  'Secret with a line break',
  onItems,
  [frontend(), secret({ psk: base64('0123456789abcdefghij\n') })],
  `error ${DATA} holds a line break or another control character: the other gateway would read a different key; remove it (in YAML write the key in one line, in single quotes)`,
);
test(
  'Secret with NUL',
  onItems,
  [frontend(), secret({ psk: base64('0123456789\0abcdefghij') })],
  `error ${DATA} holds a NUL byte, which no gateway accepts in a key typed as text`,
);
test(
  'Secret with a placeholder',
  onItems,
  [frontend(), secret({ psk: base64('changeme') })],
  `error ${DATA} is a placeholder, not a key; \`openssl rand -base64 32\` makes one`,
);
test(
  'Secret with a short key',
  onItems,
  [frontend(), secret({ psk: base64('k'.repeat(19)) })],
  `warning ${DATA} ${SHORT}`,
);
test('Secret with a binary key', onItems, [
  frontend(),
  secret({ psk: Buffer.from([0xff, 0x00, 0x0a]).toString('base64') }),
]);
test('Secret with folded base64', onItems, [frontend(), secret({ psk: `${base64('0123456789abcdefghij')}\n` })]);
test('Secret with text', onItems, [frontend(), secret({}, { stringData: { psk: '0123456789abcdefghij' } })]);
test(
  'Secret with a bad text',
  onItems,
  [frontend(), secret({}, { stringData: { psk: 'TODO' } })],
  `error ${DATA} is a placeholder, not a key; \`openssl rand -base64 32\` makes one`,
);
test('Secret encrypted by SOPS', onItems, [
  frontend(),
  secret({ psk: 'ENC[AES256_GCM,data:x]' }, { sops: { version: '3.9' } }),
]);
test(
  'Secret encrypted by SOPS, without the key',
  onItems,
  [frontend(), secret({ key: 'ENC[x]' }, { sops: {} })],
  `error ${DATA} is missing: the configuration refers to the key psk`,
);
test(
  'Secret of another namespace',
  onItems,
  [frontend(), secret(undefined, { metadata: { name: 'vpn-psk', namespace: 'other' } })],
  'error Secret/vpn-psk metadata.namespace: must be constellation-vpn, where the frontend that mounts it is',
);
test('Secret under its name before kustomize', onItems, [
  frontend(),
  secret(undefined, {
    metadata: {
      name: 'acme-vpn-psk-7h4',
      namespace: 'constellation-vpn',
      annotations: { 'internal.config.kubernetes.io/previousNames': 'vpn-psk,vpn-psk' },
    },
  }),
]);
test('certificate Secret without an authority', (tt) => {
  const tls = {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'tls', namespace: 'constellation-vpn' },
    data: { 'tls.crt': 'YQ==', 'tls.key': 'YQ==' },
  };
  const spec = goodSpec({}, { pskSecretRef: null, certificate: { secretRef: { name: 'tls' } } });
  tt.deepEqual(findings(spec, [frontend(), tls]), [
    'error Secret/tls data.ca.crt: is missing: the configuration refers to the key ca.crt',
  ]);
});
test('a short PPK is somebody else’s business', (tt) => {
  const ppk = {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'ppk', namespace: 'constellation-vpn' },
    data: { ppk: 'YQ==' },
  };
  tt.deepEqual(findings(goodSpec({}, { ppkSecretRef: { name: 'ppk', id: 'me' } }), [frontend(), secret(), ppk]), []);
});
test('a PPK with a line break is refused, as the frontend would', (tt) => {
  const ppk = {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'ppk', namespace: 'constellation-vpn' },
    data: { ppk: Buffer.from('a key\n').toString('base64') },
  };
  const found = findings(goodSpec({}, { ppkSecretRef: { name: 'ppk', id: 'me' } }), [frontend(), secret(), ppk]);
  tt.is(found.length, 1);
  tt.regex(found[0] ?? '', /^error Secret\/ppk data\.ppk: holds a line break/);
});

const maker = test.macro((tt, item: object) => tt.deepEqual(findings(goodSpec(), [frontend(), item as Item]), []));
test('made by cert-manager', maker, { kind: 'Certificate', metadata: { name: 'x' }, spec: { secretName: 'vpn-psk' } });
test('made by External Secrets, by name', maker, { kind: 'ExternalSecret', metadata: { name: 'vpn-psk' }, spec: {} });
test('made by External Secrets, by target', maker, {
  kind: 'ExternalSecret',
  metadata: { name: 'x' },
  spec: { target: { name: 'vpn-psk' } },
});
test('made by Sealed Secrets', maker, { kind: 'SealedSecret', metadata: { name: 'vpn-psk' } });
test(
  'made for another',
  onItems,
  [frontend(), { kind: 'Certificate', metadata: { name: 'vpn-psk' }, spec: { secretName: 'x' } }],
  `info spec.ipsec.pskSecretRef: Secret vpn-psk with the key psk ${ABSENT}`,
);

test('no finding shows a key', (tt) => {
  for (const psk of ['Zq9', 'Zq9\n', 'Zq9\0', ' Zq9', '<Zq9>']) {
    const coded = base64(psk);
    const { results } = validateVpn([frontend(), secret({ psk: coded })], configOf(goodSpec()));
    tt.true(results.length > 0);
    tt.false(JSON.stringify(results).includes('Zq9') || JSON.stringify(results).includes(coded));
  }
});

// Network policies

const lies = (cidr: string): string =>
  `${cidr} lies in the peer CIDR 192.168.100.0/24 of the site, which Cilium then no longer sends to the tunnel: select the frontend's pods by their labels instead`;
const policy = (kind: string, spec: unknown): Item => ({
  apiVersion: 'example/v1',
  kind,
  metadata: { name: 'p', namespace: 'n' },
  spec,
});
const policies = test.macro((tt, item: Item, ...expected: string[]) =>
  tt.deepEqual(findings(goodSpec(), [frontend(), secret(), item]), expected),
);
test(
  'policy: ipBlock',
  policies,
  policy('NetworkPolicy', { ingress: [{ from: [{ ipBlock: { cidr: '192.168.100.0/24' } }] }] }),
  `error NetworkPolicy/p spec.ingress[0].from[0].ipBlock.cidr: ${lies('192.168.100.0/24')}`,
);
test(
  'policy: except',
  policies,
  policy('NetworkPolicy', { egress: [{ to: [{ ipBlock: { cidr: '0.0.0.0/0', except: ['192.168.100.128/25'] } }] }] }),
  `error NetworkPolicy/p spec.egress[0].to[0].ipBlock.except[0]: ${lies('192.168.100.128/25')}`,
);
test(
  'policy: toCIDR',
  policies,
  policy('CiliumNetworkPolicy', { egress: [{ toCIDR: ['192.168.100.7/32'] }] }),
  `error CiliumNetworkPolicy/p spec.egress[0].toCIDR[0]: ${lies('192.168.100.7/32')}`,
);
test(
  'policy: toCIDRSet',
  policies,
  policy('CiliumClusterwideNetworkPolicy', { egress: [{ toCIDRSet: [{ cidr: '192.168.100.0/25' }] }] }),
  `error CiliumClusterwideNetworkPolicy/p spec.egress[0].toCIDRSet[0].cidr: ${lies('192.168.100.0/25')}`,
);
test(
  'policy: specs',
  policies,
  { ...policy('CiliumNetworkPolicy', undefined), specs: [{}, { ingress: [{ fromCIDR: ['192.168.100.0/24'] }] }] },
  `error CiliumNetworkPolicy/p specs[1].ingress[0].fromCIDR[0]: ${lies('192.168.100.0/24')}`,
);
test(
  'policy: a group of CIDRs',
  policies,
  policy('CiliumCIDRGroup', { externalCIDRs: ['192.168.100.0/26'] }),
  `error CiliumCIDRGroup/p spec.externalCIDRs[0]: ${lies('192.168.100.0/26')}`,
);
test(
  'policy: around',
  policies,
  policy('NetworkPolicy', { ingress: [{ from: [{ ipBlock: { cidr: '192.168.0.0/16' } }] }] }),
);
test(
  'policy: beside',
  policies,
  policy('NetworkPolicy', { ingress: [{ from: [{ ipBlock: { cidr: '192.168.101.0/24' } }] }] }),
);
test(
  'policy: by labels',
  policies,
  policy('NetworkPolicy', { podSelector: {}, ingress: [{ from: [{ podSelector: { matchLabels: { a: 'b' } } }] }] }),
);
test('policy: of another kind', policies, policy('SomethingElse', { cidr: '192.168.100.0/24' }));
test(
  'policy: host bits',
  policies,
  policy('NetworkPolicy', { ingress: [{ from: [{ ipBlock: { cidr: '192.168.100.7/24' } }] }] }),
  `error NetworkPolicy/p spec.ingress[0].from[0].ipBlock.cidr: ${lies('192.168.100.0/24')}`,
);
test(
  'policy: an address',
  policies,
  policy('CiliumNetworkPolicy', { egress: [{ toCIDR: ['192.168.100.7'] }] }),
  `error CiliumNetworkPolicy/p spec.egress[0].toCIDR[0]: ${lies('192.168.100.7/32')}`,
);

// cilium-config

const cilium = test.macro((tt, data: object, ...expected: string[]) => {
  const items = [frontend(), secret(), ciliumConfig(data)];
  tt.deepEqual(
    findings(goodSpec(), items),
    expected.map((line) => line.replace(' ', ' ConfigMap/cilium-config data.')),
  );
});
const NO_ROUTES =
  'error enable-endpoint-routes: must be "true" (Helm: endpointRoutes.enabled): without it no route can lead to the frontend';
test('endpoint routes off', cilium, { 'enable-endpoint-routes': 'false' }, NO_ROUTES);
test('endpoint routes absent', cilium, { 'enable-endpoint-routes': null }, NO_ROUTES);

const NATIVE =
  "warning routing-mode: native routing without WireGuard: the network between the nodes must carry the on-prem ranges to the frontend's node";
test('native routing', cilium, { 'routing-mode': 'native' }, NATIVE);
test('native routing with WireGuard', cilium, { 'routing-mode': 'native', 'enable-wireguard': 'true' });
test('native routing before 1.15', cilium, { 'routing-mode': null, tunnel: 'disabled' }, NATIVE);
test('tunnel before 1.15', cilium, { 'routing-mode': null, tunnel: 'geneve' });
test('routing mode absent', cilium, { 'routing-mode': null });
test(
  'hybrid routing',
  cilium,
  { 'routing-mode': 'hybrid' },
  'warning routing-mode: hybrid was never tried with the VPN',
);

const NO_NAT =
  'error enable-sctp: Services are not translated for VPN traffic: set cilium.sctp or cilium.socketLBHostNamespaceOnly in the configuration';
const off = (data: object): object => ({ 'enable-sctp': 'false', ...data });
test('no translation', cilium, off({}), NO_NAT);
test('no translation: the key is absent', cilium, { 'enable-sctp': null }, NO_NAT);
test('no translation: strict', cilium, off({ 'kube-proxy-replacement': 'strict' }), NO_NAT);
test(
  'no translation: socket load balancing by itself',
  cilium,
  off({ 'kube-proxy-replacement': 'false', 'bpf-lb-sock': 'true' }),
  NO_NAT,
);
test('translation: host namespace only', cilium, off({ 'bpf-lb-sock-hostns-only': 'true' }));
test('translation: Envoy configuration', cilium, off({ 'enable-envoy-config': 'true' }));
test('translation: no socket load balancing', cilium, off({ 'kube-proxy-replacement': 'false' }));
test('translation: no replacement said', cilium, off({ 'kube-proxy-replacement': null }));
test(
  'translation: replacement disabled',
  cilium,
  off({ 'kube-proxy-replacement': 'disabled', 'bpf-lb-sock': 'false' }),
);

const IPTABLES =
  "warning enable-bpf-masquerade: masquerading by iptables hits what pods of the frontend's node open towards on-prem: turn on BPF masquerading (Helm: bpf.masquerade), or name the uplink in egress-masquerade-interfaces";
test('iptables masquerading', cilium, { 'enable-bpf-masquerade': 'false' }, IPTABLES);
test(
  'iptables masquerading by default',
  cilium,
  { 'enable-bpf-masquerade': null, 'enable-ipv4-masquerade': null },
  IPTABLES,
);
test('iptables masquerading on the uplink', cilium, {
  'enable-bpf-masquerade': 'false',
  'egress-masquerade-interfaces': 'eth0',
});
test('no masquerading', cilium, { 'enable-bpf-masquerade': 'false', 'enable-ipv4-masquerade': 'false' });
test(
  'no ip-masq-agent',
  cilium,
  { 'enable-ip-masq-agent': 'false' },
  'warning enable-ip-masq-agent: is off: with BPF masquerading the on-prem ranges are exempt only if ip-masq-agent says so (Helm: ipMasqAgent.enabled)',
);
test('no ip-masq-agent, no masquerading', cilium, {
  'enable-ip-masq-agent': 'false',
  'enable-ipv4-masquerade': 'false',
});

test(
  'no CiliumEndpoints',
  cilium,
  { 'disable-endpoint-crd': 'true' },
  'error disable-endpoint-crd: CiliumEndpoints are how nodes learn the on-prem ranges: it must not be "true"',
);
test(
  'key-value store',
  cilium,
  { kvstore: 'etcd' },
  'error kvstore: with a key-value store the agents do not watch CiliumEndpoints: use the CRD mode',
);
test(
  'slim slices',
  cilium,
  { 'ces-controller-mode': 'slim' },
  'error ces-controller-mode: slim builds slices from Pods and never sees the on-prem ranges: use the default mode',
);
test('default slices', cilium, { 'ces-controller-mode': 'default' });
test('IPv4 off', cilium, { 'enable-ipv4': 'false' }, 'error enable-ipv4: is off, but there are IPv4 peer CIDRs');
test('IPv4 by default', cilium, { 'enable-ipv4': null });
for (const value of ['false', null])
  test(`IPv6 peers, enable-ipv6 ${value}`, (tt) => {
    tt.deepEqual(findings(v6('fd12::/48'), [frontend(), secret(), ciliumConfig({ 'enable-ipv6': value })]), [
      'error ConfigMap/cilium-config data.enable-ipv6: is not "true", but there are IPv6 peer CIDRs',
    ]);
  });
test(
  'netkit',
  cilium,
  { 'datapath-mode': 'netkit-l2' },
  'warning datapath-mode: netkit devices were never tried with the VPN',
);
test(
  'CNI chaining',
  cilium,
  { 'cni-chaining-mode': 'aws-cni' },
  'warning cni-chaining-mode: CNI chaining was never tried with the VPN',
);
test('IPsec with a tunnel', cilium, { 'enable-ipsec': 'true' });
test(
  'IPsec with native routing',
  cilium,
  { 'enable-ipsec': 'true', 'routing-mode': 'native' },
  NATIVE,
  "warning enable-ipsec: Cilium's own IPsec with native routing was never tried with the VPN",
);
test(
  'ClusterMesh',
  cilium,
  { 'cluster-id': '7' },
  'warning cluster-id: ClusterMesh: other clusters do not learn the on-prem ranges',
);
test('ClusterMesh: no id', cilium, { 'cluster-id': null });

test('everything at once', (tt) => {
  const items = [
    frontend(),
    secret(),
    ciliumConfig({ 'enable-endpoint-routes': 'false', kvstore: 'etcd', 'enable-sctp': 'false' }),
  ];
  tt.is(findings(goodSpec({ peerCIDRs: ['127.0.0.0/8'], mtu: 1500 }), items).length, 6);
});
test('the partial cilium-config is no whole one', onItems, [frontend(), secret(), partialCiliumConfig()]);
test('a ConfigMap without data', (tt) => {
  const bare = { ...ciliumConfig(), data: undefined };
  tt.true(findings(goodSpec(), [frontend(), secret(), bare]).length > 0);
});
test('items without metadata, spec or kind are foreign', onItems, [
  frontend(),
  secret(),
  {},
  { kind: 'NetworkPolicy' },
  { kind: 'ConfigMap', metadata: null },
  { metadata: { labels: 'x' } },
]);

// Since the first review

for (const count of [2, 3])
  test(
    `${count} replicas`,
    onItems,
    [replicated(count), secret()],
    'error StatefulSet/vpn-frontend spec.replicas: must be 1: the pods of one site would replace each other at the gateway; more sites are how the VPN scales',
  );
for (const count of [0, 1]) test(`${count} replicas are fine`, onItems, [replicated(count), secret()]);
function replicated(replicas: number): Item {
  const { spec, ...rest } = frontend() as { spec: object };
  return { ...rest, spec: { ...spec, replicas } };
}

const sized = (bytes: number): Item => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'vpn-config', labels: { 'constellation-vpn.io/component': 'config' } },
  data: { 'config.json': 'x'.repeat(bytes) },
});
test('a configuration of 250 kB', onItems, [frontend(), secret(), sized(250_000)]);
test(
  'a configuration of more than kubectl puts into its annotation',
  onItems,
  [frontend(), secret(), sized(250_001)],
  'warning ConfigMap/vpn-config data: is 250001 bytes: kubectl apply takes that with --server-side only',
);
test(
  'a configuration of more than a ConfigMap holds',
  onItems,
  [frontend(), secret(), sized(1_000_001)],
  'error ConfigMap/vpn-config data: is 1000001 bytes, more than a ConfigMap can hold: summarise the peer CIDRs',
);

for (const [peer, name] of [
  ['127.0.0.1', 'loopback'],
  ['169.254.169.254', 'link-local'],
  ['fe80::1', 'link-local'],
  ['224.0.0.1', 'multicast'],
  ['255.255.255.255', 'reserved (240.0.0.0/4)'],
  ['0.0.0.0', 'this network (0.0.0.0/8)'],
  ['::', 'unspecified'],
] as const)
  test(
    `gateway at ${peer}`,
    onSpec,
    goodSpec({}, { peer }),
    `error spec.ipsec.peer: is a ${name} address, where no gateway can be`,
  );

const excepting = (...except: string[]): Item => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name: 'all' },
  spec: { egress: [{ to: [{ ipBlock: { cidr: '0.0.0.0/0', except } }] }] },
});
test('a policy that leaves out just the peer CIDR', onItems, [frontend(), secret(), excepting('192.168.100.0/24')]);
test(
  'a policy that leaves out a part of it',
  onItems,
  [frontend(), secret(), excepting('192.168.100.0/25')],
  "error NetworkPolicy/all spec.egress[0].to[0].ipBlock.except[0]: 192.168.100.0/25 lies in the peer CIDR 192.168.100.0/24 of the site, which Cilium then no longer sends to the tunnel: select the frontend's pods by their labels instead",
);

test(
  'a key that YAML takes for a number',
  onItems,
  [frontend(), secret({}, { stringData: { psk: 1234567 } })],
  'error Secret/vpn-psk data.psk: is no text to YAML: put it in quotes',
);
test(
  "the MTU's place is where it is said",
  onSites,
  { mtu: 1500, sites: [goodSite('a', '10.1.0.0/16'), goodSite('b', '10.2.0.0/16', { mtu: 1450 })] },
  'warning spec.mtu: leaves less than 100 bytes for ESP on an Ethernet path: above 1400 large packets are likely lost',
  'warning spec.sites[1].mtu: leaves less than 100 bytes for ESP on an Ethernet path: above 1400 large packets are likely lost',
);
