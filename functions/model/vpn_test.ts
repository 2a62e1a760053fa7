import test from 'ava';
import fc from 'fast-check';
import * as E from 'fp-ts/lib/Either.js';
import { Cidr } from './cidr.ts';
import { problems } from './codec.ts';
import { DEFAULT_ESP, DEFAULT_IKE } from './proposal.ts';
import { API_VERSION, ConstellationVpn, encodeVpn, KIND, type Vpn } from './vpn.ts';

type Json = Record<string, unknown>;
const object = (spec: unknown): Json => ({ apiVersion: API_VERSION, kind: KIND, metadata: { name: 'vpn' }, spec });

function decoded(spec: unknown): Vpn {
  const result = ConstellationVpn.decode(object(spec));
  if (E.isLeft(result)) throw new Error(JSON.stringify(problems(result.left)));
  return result.right;
}

/** `path: message` of every problem, a proposed value behind it. */
function complaints(input: unknown): string[] {
  const result = ConstellationVpn.decode(input);
  if (E.isRight(result)) return [];
  return problems(result.left).map(
    ({ path, message, proposed }) =>
      `${path}: ${message}${proposed === undefined ? '' : ` -> ${JSON.stringify(proposed)}`}`,
  );
}

const short = (more: Json = {}, ipsec: Json = {}): Json => ({
  peerCIDRs: ['192.168.100.0/24'],
  ipsec: { peer: '203.0.113.10', pskSecretRef: { name: 'vpn-psk' }, ...ipsec },
  ...more,
});
const site = (more: Json = {}, ipsec: Json = {}): Json => short({ name: 'berlin', ...more }, ipsec);

const DEFAULTS = {
  podCIDR: ['10.10.0.0/16'],
  serviceCIDR: ['10.96.0.0/12'],
  cilium: { sctp: true, socketLBHostNamespaceOnly: false, restartAgents: true },
  ignored: [],
};
const IPSEC_DEFAULTS = {
  proposals: { ike: DEFAULT_IKE, esp: DEFAULT_ESP },
  dpdDelay: 1,
  rekeyTime: 3600,
  startAction: 'trap|start',
  localTrafficSelectors: [],
  childSAs: 'perRange',
};

test('short form: one site without a name, every default filled in', (tt) => {
  tt.deepEqual<unknown, unknown>(decoded(short()), {
    ...DEFAULTS,
    sites: [
      {
        name: '',
        peerCIDRs: ['192.168.100.0/24'],
        mtu: 1300,
        ipsec: {
          ...IPSEC_DEFAULTS,
          peer: '203.0.113.10',
          remoteID: '203.0.113.10',
          pskSecretRef: { name: 'vpn-psk', key: 'psk' },
        },
      },
    ],
  });
});

test('sites form: sorted by name, canonical, what is given kept', (tt) => {
  const vpn = decoded({
    podCIDR: ['fd10::/56', '10.244.0.0/16'],
    serviceCIDR: '10.0.0.0/20',
    mtu: 1350,
    publicAddress: '2001:DB8::20',
    cilium: { socketLBHostNamespaceOnly: true, restartAgents: false },
    sites: [
      site(
        { name: 'vienna', mtu: '', peerCIDRs: ['FD12::/48', '172.16.0.0/16', 'fd12:0::/48'], probe: 'FD12:0::0A' },
        {
          peer: 'GW.Example.com',
          pskSecretRef: null,
          certificate: { secretRef: { name: 'vienna-tls' }, remoteID: 'CN=gw' },
          ppkSecretRef: { name: 'vienna-ppk', id: 'vienna' },
          localID: 'vpn@example.com',
          proposals: { ike: ['aes256-sha256-modp3072'] },
          dpdDelay: '30s',
          rekeyTime: '2h',
          startAction: 'none',
          localTrafficSelectors: ['10.244.0.0/16', '10.0.0.0/20'],
          childSAs: 'perPair',
        },
      ),
      site({}, { pskSecretRef: { name: 'berlin-psk', key: 'key' }, remoteID: '@berlin' }),
    ],
  });
  tt.deepEqual<unknown, unknown>(vpn, {
    podCIDR: ['10.244.0.0/16', 'fd10::/56'],
    serviceCIDR: ['10.0.0.0/20'],
    publicAddress: '2001:db8::20',
    cilium: { sctp: false, socketLBHostNamespaceOnly: true, restartAgents: false },
    ignored: [],
    sites: [
      {
        name: 'berlin',
        peerCIDRs: ['192.168.100.0/24'],
        mtu: 1350,
        ipsec: {
          ...IPSEC_DEFAULTS,
          peer: '203.0.113.10',
          remoteID: '@berlin',
          pskSecretRef: { name: 'berlin-psk', key: 'key' },
        },
      },
      {
        name: 'vienna',
        peerCIDRs: ['172.16.0.0/16', 'fd12::/48'],
        mtu: null,
        probe: 'fd12::a',
        ipsec: {
          peer: 'gw.example.com',
          remoteID: 'CN=gw',
          certificate: { secretRef: { name: 'vienna-tls' } },
          ppkSecretRef: { name: 'vienna-ppk', key: 'ppk', id: 'vienna', required: true },
          localID: 'vpn@example.com',
          proposals: { ike: ['aes256-sha256-modp3072'], esp: DEFAULT_ESP },
          dpdDelay: 30,
          rekeyTime: 7200,
          startAction: 'none',
          localTrafficSelectors: ['10.0.0.0/20', '10.244.0.0/16'],
          childSAs: 'perPair',
        },
      },
    ],
  });
});

test("the old chart's values, verbatim", (tt) => {
  const vpn = decoded({
    podCIDR: '10.10.0.0/16',
    serviceCIDR: '10.96.0.0/12',
    peerCIDRs: ['10.1.0.0/24'],
    mtu: '',
    ipsec: { psk: 'an old key of the old chart', peer: '192.0.2.1' },
    image: 'registry.example.com/strongswan@sha256:0000',
    nameOverride: '',
    fullnameOverride: 'vpn',
  });
  tt.deepEqual<unknown, unknown>(vpn.sites[0], {
    name: '',
    peerCIDRs: ['10.1.0.0/24'],
    mtu: null,
    ipsec: { ...IPSEC_DEFAULTS, psk: 'an old key of the old chart', peer: '192.0.2.1', remoteID: '192.0.2.1' },
  });
  tt.deepEqual(vpn.ignored, ['image', 'nameOverride', 'fullnameOverride']);
});

const mtu = test.macro((tt, given: Json, expected: number | null) =>
  tt.is(decoded(short(given)).sites[0]?.mtu, expected),
);
test('mtu: absent', mtu, {}, 1300);
test('mtu: ""', mtu, { mtu: '' }, null);
test('mtu: null', mtu, { mtu: null }, null);
test('mtu: smallest', mtu, { mtu: 576 }, 576);
test('mtu: largest', mtu, { mtu: 9000 }, 9000);
test("mtu: a site's own goes before the common one", (tt) => {
  const { sites } = decoded({ mtu: 1400, sites: [site({ name: 'a', mtu: 1200 }), site({ name: 'b' })] });
  tt.deepEqual(
    sites.map(({ mtu }) => mtu),
    [1200, 1400],
  );
});
test('mtu: null of a site goes before the common one', (tt) => {
  tt.is(decoded({ mtu: 1400, sites: [site({ mtu: null })] }).sites[0]?.mtu, null);
});

const childSAs = test.macro((tt, given: unknown, expected: 'perRange' | 'perPair' | 'one') =>
  tt.is(decoded(short({}, { childSAs: given })).sites[0]?.ipsec.childSAs, expected),
);
test('childSAs: absent', childSAs, undefined, 'perRange');
test('childSAs: null', childSAs, null, 'perRange');
test('childSAs: perRange', childSAs, 'perRange', 'perRange');
test('childSAs: perPair', childSAs, 'perPair', 'perPair');
test('childSAs: one', childSAs, 'one', 'one');

const probe = test.macro((tt, spec: Json, expected: string | undefined) => {
  const site = decoded(spec).sites[0];
  tt.is(site?.probe, expected);
  tt.is('probe' in site!, expected !== undefined);
});
test('probe: absent', probe, short(), undefined);
test('probe: null', probe, short({ probe: null }), undefined);
test('probe: of the short form', probe, short({ probe: '192.168.100.7' }), '192.168.100.7');
test('probe: in canonical text', probe, short({ probe: 'FD12:0:0::07' }), 'fd12::7');
test('probe: null of a site', probe, { sites: [site({ probe: null })] }, undefined);
test('probe: of a site', probe, { sites: [site({ probe: '192.168.100.7' })] }, '192.168.100.7');

const cilium = test.macro((tt, given: unknown, sctp: boolean, hostOnly: boolean, restart = true) => {
  tt.deepEqual(decoded(short({ cilium: given })).cilium, {
    sctp,
    socketLBHostNamespaceOnly: hostOnly,
    restartAgents: restart,
  });
});
test('cilium: absent', cilium, undefined, true, false);
test('cilium: null', cilium, null, true, false);
test('cilium: empty', cilium, {}, true, false);
test('cilium: sctp', cilium, { sctp: true }, true, false);
test('cilium: the other one', cilium, { socketLBHostNamespaceOnly: true }, false, true);
test('cilium: the other one, off', cilium, { socketLBHostNamespaceOnly: false }, true, false);
test('cilium: neither', cilium, { sctp: false }, false, false);
test('cilium: no restart', cilium, { restartAgents: false }, true, false, false);

test('null is as good as absent', (tt) => {
  const nothing = { podCIDR: null, serviceCIDR: null, sites: null, publicAddress: null, image: null };
  tt.deepEqual(
    decoded(short(nothing, { localID: null, proposals: null, dpdDelay: null, psk: null })),
    decoded(short()),
  );
});

test('one of the sites form may have no name', (tt) => {
  tt.deepEqual(decoded({ sites: [short()] }), decoded(short()));
});

test('the same identity in both places', (tt) => {
  const certificate = { secretRef: { name: 'tls' }, remoteID: 'CN=gw' };
  const { ipsec } = decoded(short({}, { pskSecretRef: null, certificate, remoteID: 'CN=gw' })).sites[0]!;
  tt.is(ipsec.remoteID, 'CN=gw');
  tt.deepEqual(ipsec.certificate, { secretRef: { name: 'tls' } });
});

test('defaults are nobody’s to change', (tt) => {
  decoded(short()).sites[0]!.ipsec.proposals.ike.push('spoilt');
  tt.deepEqual(decoded(short()).sites[0]!.ipsec.proposals.ike, DEFAULT_IKE);
});

const complains = test.macro((tt, spec: unknown, ...expected: string[]) => {
  tt.deepEqual(complaints(object(spec)), expected);
});
const WAYS = 'needs exactly one of pskSecretRef, certificate and psk; there is';
const SPEC_FIELDS =
  'podCIDR, serviceCIDR, mtu, peerCIDRs, ipsec, probe, sites, publicAddress, cilium, image, nameOverride, fullnameOverride';
const MISSING_RANGE = 'is missing: list at least one on-prem range, or use sites';
const MISSING_IPSEC = 'is missing: name the gateway and its key, ipsec: {peer: …, pskSecretRef: {name: …}}';

test('no spec', complains, undefined, 'spec: is missing');
test('spec is null', complains, null, 'spec: is missing');
test('spec is a list', complains, [], `spec: expected a map of fields (${SPEC_FIELDS}), found a list`);
test('empty spec', complains, {}, `spec.peerCIDRs: ${MISSING_RANGE}`, `spec.ipsec: ${MISSING_IPSEC}`);
test('no peer CIDR', complains, short({ peerCIDRs: [] }), `spec.peerCIDRs: ${MISSING_RANGE}`);
test('peer CIDRs of null', complains, short({ peerCIDRs: null }), `spec.peerCIDRs: ${MISSING_RANGE}`);
test('no ipsec', complains, short({ ipsec: null }), `spec.ipsec: ${MISSING_IPSEC}`);
test(
  'a site without ranges',
  complains,
  { sites: [site({ peerCIDRs: [] })] },
  'spec.sites[0].peerCIDRs: needs at least one entry',
);
test('a site without ipsec', complains, { sites: [site({ ipsec: null })] }, 'spec.sites[0].ipsec: is missing');
test('no site', complains, { sites: [] }, 'spec.sites: needs at least one site');
test('sites of text', complains, { sites: 'berlin' }, 'spec.sites: expected a list, found text');
test(
  'sites beside the short form',
  complains,
  short({ sites: [site()] }),
  'spec.peerCIDRs: is the short form of one site; beside sites, move it into an entry of sites (in an overlay set it to null: the default configuration has it)',
  'spec.ipsec: is the short form of one site; beside sites, move it into an entry of sites (in an overlay set it to null: the default configuration has it)',
);
test(
  'sites beside the probe of the short form',
  complains,
  { probe: '192.168.100.7', sites: [site()] },
  'spec.probe: is the short form of one site; beside sites, move it into an entry of sites',
);
test(
  'no names',
  complains,
  { sites: [site({ name: null }), site({ name: null })] },
  'spec.sites[0].name: is missing: beside other sites each needs a name',
  'spec.sites[1].name: is missing: beside other sites each needs a name',
);
test(
  'a name twice',
  complains,
  { sites: [site(), site({ name: 'munich' }), site()] },
  'spec.sites[2].name: is that of sites[0] too: names must differ',
);
test(
  'a name that is no label',
  complains,
  { sites: [site({ name: 'Berlin' })] },
  'spec.sites[0].name: is not a DNS label: use at most 63 lower-case letters, digits and dashes, a letter or digit at both ends -> "berlin"',
);
test(
  'a name of digits without quotes',
  complains,
  { sites: [site({ name: 1 })] },
  'spec.sites[0].name: expected text, found a number; put it in quotes',
);

const QUOTES = 'expected text, found a number; put it in quotes';
test('no way to authenticate', complains, short({}, { pskSecretRef: null }), `spec.ipsec: ${WAYS} none`);
const NULL_HINT = '(in an overlay set the one of the default configuration to null)';
test(
  'two ways',
  complains,
  short({}, { psk: 'gIq0kB5r3mR0o8kq2t1yBw9x' }),
  `spec.ipsec: ${WAYS} psk and pskSecretRef ${NULL_HINT}`,
);
test(
  'three ways',
  complains,
  { sites: [site({}, { psk: 'gIq0kB5r3mR0o8kq2t1yBw9x', certificate: { secretRef: { name: 'tls' } } })] },
  `spec.sites[0].ipsec: ${WAYS} psk and pskSecretRef and certificate ${NULL_HINT}`,
);
test(
  'two identities',
  complains,
  short({}, { pskSecretRef: null, certificate: { secretRef: { name: 'tls' }, remoteID: 'CN=a' }, remoteID: 'CN=b' }),
  'spec.ipsec.remoteID: differs from certificate.remoteID: keep one of them',
);
test('no gateway', complains, short({}, { peer: null }), 'spec.ipsec.peer: is missing');
test(
  'empty gateway',
  complains,
  short({}, { peer: '' }),
  'spec.ipsec.peer: is empty: write an IP address or a DNS name',
);
test(
  'empty key',
  complains,
  short({}, { pskSecretRef: null, psk: '' }),
  'spec.ipsec.psk: is empty: write the pre-shared key that the other gateway has',
);
test(
  'Secret as text',
  complains,
  short({}, { pskSecretRef: 'vpn-psk' }),
  'spec.ipsec.pskSecretRef: expected a map of fields (name, key), found text',
);
test(
  'certificate without Secret',
  complains,
  short({}, { pskSecretRef: null, certificate: {} }),
  'spec.ipsec.certificate.secretRef: is missing',
);
test(
  'PPK without id',
  complains,
  short({}, { ppkSecretRef: { name: 'ppk' } }),
  'spec.ipsec.ppkSecretRef.id: is missing',
);
test(
  'unknown proposal part',
  complains,
  short({}, { proposals: { esp: ['aes256gmc16'] } }),
  'spec.ipsec.proposals.esp[0]: has the unknown part "aes256gmc16"; did you mean aes256gcm16?',
);
test(
  'no proposal',
  complains,
  short({}, { proposals: { ike: [] } }),
  'spec.ipsec.proposals.ike: needs at least one entry',
);
test('dpdDelay of 0', complains, short({}, { dpdDelay: 0 }), 'spec.ipsec.dpdDelay: must be from 1 to 86400 seconds');
test(
  'rekeyTime of 10 s',
  complains,
  short({}, { rekeyTime: '10s' }),
  'spec.ipsec.rekeyTime: must be from 60 to 2592000 seconds',
);
test(
  'startAction',
  complains,
  short({}, { startAction: 'trapp' }),
  'spec.ipsec.startAction: expected one of none, start, trap, trap|start -> "trap"',
);
test(
  'childSAs',
  complains,
  short({}, { childSAs: 'perrange' }),
  'spec.ipsec.childSAs: expected one of perRange, perPair, one -> "perRange"',
);
test('childSAs of a number', complains, short({}, { childSAs: 1 }), `spec.ipsec.childSAs: ${QUOTES}`);
test('probe by name', complains, short({ probe: 'nas.example' }), 'spec.probe: is not an IP address');
test(
  'probe of a range',
  complains,
  { sites: [site({ probe: '192.168.100.7/32' })] },
  'spec.sites[0].probe: is not an IP address',
);
test('empty probe', complains, short({ probe: '' }), 'spec.probe: is not an IP address');
test(
  'two probes',
  complains,
  short({ probe: ['192.168.100.7', '192.168.100.8'] }),
  'spec.probe: expected text, found a list',
);
test(
  'selector',
  complains,
  short({}, { localTrafficSelectors: ['10.0.0.1/8'] }),
  'spec.ipsec.localTrafficSelectors[0]: has host bits set: the network is 10.0.0.0/8 -> "10.0.0.0/8"',
);

const MTU = 'expected a whole number of bytes';
test('mtu too small', complains, short({ mtu: 575 }), `spec.mtu: ${MTU} from 576 to 9000`);
test('mtu too large', complains, short({ mtu: 9001 }), `spec.mtu: ${MTU} from 576 to 9000`);
test('mtu with a fraction', complains, short({ mtu: 1300.5 }), `spec.mtu: ${MTU} from 576 to 9000`);
test('mtu in quotes', complains, short({ mtu: '1300' }), 'spec.mtu: expected a number; remove the quotes -> 1300');
test('mtu with a unit', complains, short({ mtu: '1300B' }), `spec.mtu: ${MTU}, found text`);
test('mtu of a flag', complains, short({ mtu: false }), `spec.mtu: ${MTU}, found a boolean`);
test("a site's mtu", complains, { sites: [site({ mtu: 100 })] }, `spec.sites[0].mtu: ${MTU} from 576 to 9000`);

test(
  'publicAddress by name',
  complains,
  short({ publicAddress: 'vpn.example.com' }),
  'spec.publicAddress: is not an IP address',
);
test(
  'both ways for Cilium',
  complains,
  short({ cilium: { sctp: true, socketLBHostNamespaceOnly: true } }),
  'spec.cilium: needs one of sctp and socketLBHostNamespaceOnly, not both',
);
test(
  'flag as text',
  complains,
  short({ cilium: { restartAgents: 'yes' } }),
  'spec.cilium.restartAgents: expected true or false, found text',
);
test('list where text belongs', complains, short({ image: ['a'] }), 'spec.image: expected text, found a list');
test(
  'list of lists',
  complains,
  short({ peerCIDRs: [['10.0.0.0/8']] }),
  'spec.peerCIDRs[0]: expected text, found a list',
);

const UNKNOWN = 'is not a known field;';
test(
  'misspelt: peerCidrs',
  complains,
  { ...short(), peerCIDRs: undefined, peerCidrs: ['10.0.0.0/8'] },
  `spec.peerCIDRs: ${MISSING_RANGE}`,
  `spec.peerCidrs: ${UNKNOWN} did you mean peerCIDRs?`,
);
test(
  'misspelt: podCIDRs',
  complains,
  short({ podCIDRs: '10.0.0.0/8' }),
  `spec.podCIDRs: ${UNKNOWN} did you mean podCIDR?`,
);
test(
  'misspelt in a site',
  complains,
  { sites: [site({}, { dpddelay: 3 })] },
  `spec.sites[0].ipsec.dpddelay: ${UNKNOWN} did you mean dpdDelay?`,
);
test(
  'misspelt: secretref',
  complains,
  short({}, { pskSecretRef: { name: 'a', kay: 'b' } }),
  `spec.ipsec.pskSecretRef.kay: ${UNKNOWN} did you mean key?`,
);
test('unlike any', complains, short({ replicaCount: 2 }), `spec.replicaCount: ${UNKNOWN} known fields: ${SPEC_FIELDS}`);
test(
  '__proto__',
  complains,
  JSON.parse(JSON.stringify(short()).replace('{', '{"__proto__":{"mtu":1},')),
  `spec.__proto__: ${UNKNOWN} known fields: ${SPEC_FIELDS}`,
);
test(
  'constructor',
  complains,
  short({}, { constructor: 1 }),
  `spec.ipsec.constructor: ${UNKNOWN} known fields: peer, psk, pskSecretRef, certificate, ppkSecretRef, localID, remoteID, proposals, dpdDelay, rekeyTime, startAction, localTrafficSelectors, childSAs`,
);

const envelope = test.macro((tt, input: unknown, ...expected: string[]) => tt.deepEqual(complaints(input), expected));
test(
  'unknown apiVersion',
  envelope,
  { ...object(short()), apiVersion: 'constellation-vpn.io/v1' },
  'apiVersion: expected one of constellation-vpn.io/v1alpha1 -> "constellation-vpn.io/v1alpha1"',
);
test('no apiVersion', envelope, { ...object(short()), apiVersion: undefined }, 'apiVersion: is missing');
test('another kind', envelope, { ...object(short()), kind: 'ConfigMap' }, 'kind: expected one of ConstellationVPN');
test('metadata as text', envelope, { ...object(short()), metadata: 'vpn' }, 'metadata: expected a map, found text');
test(
  'fields beside spec',
  envelope,
  { ...object(short()), data: {}, specs: {} },
  `data: ${UNKNOWN} known fields: apiVersion, kind, metadata, spec`,
  `specs: ${UNKNOWN} did you mean spec?`,
);
test(
  'text in place of the object',
  envelope,
  'vpn',
  ': expected a map of fields (apiVersion, kind, metadata, spec), found text',
);

test(
  'every problem in one run',
  complains,
  {
    podCIDR: '10.10.0.1/16',
    mtu: 1,
    sites: [
      { name: 'A', peerCIDRs: ['x', '10.0.0.1/8'], ipsec: { peer: '1.2.3', pskk: 'abc' } },
      { name: 'b', ipsec: { peer: 'gw', psk: 'changeme', proposals: { ike: ['aes'] } } },
    ],
    cilium: { sctp: 1 },
    sitez: 1,
  },
  'spec.podCIDR: has host bits set: the network is 10.10.0.0/16 -> "10.10.0.0/16"',
  `spec.mtu: ${MTU} from 576 to 9000`,
  'spec.sites[0].name: is not a DNS label: use at most 63 lower-case letters, digits and dashes, a letter or digit at both ends -> "a"',
  'spec.sites[0].peerCIDRs[0]: is not a CIDR: write an IPv4 or IPv6 prefix such as 192.168.100.0/24 or fd00:1::/48',
  'spec.sites[0].peerCIDRs[1]: has host bits set: the network is 10.0.0.0/8 -> "10.0.0.0/8"',
  `spec.sites[0].ipsec: ${WAYS} none`,
  'spec.sites[0].ipsec.peer: is not an IP address: write one without port or prefix length, or a DNS name',
  `spec.sites[0].ipsec.pskk: ${UNKNOWN} did you mean psk?`,
  'spec.sites[1].peerCIDRs: is missing',
  'spec.sites[1].ipsec.psk: is a placeholder, not a key; `openssl rand -base64 32` makes one',
  'spec.sites[1].ipsec.proposals.ike[0]: names no integrity algorithm beside a cipher that needs one, such as sha256',
  'spec.cilium.sctp: expected true or false, found a number',
  `spec.sitez: ${UNKNOWN} did you mean sites?`,
);

// Properties, of configurations made at random

const label = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?$/);
const bits = (address: fc.Arbitrary<string>, most: number) =>
  fc.tuple(address, fc.integer({ min: 0, max: most })).map(([host, length]) => `${host}/${length}`);
/** Masked by the codec's own proposal. */
const range = fc.oneof(bits(fc.ipV4(), 32), bits(fc.ipV6(), 128)).map((text) => {
  const result = Cidr.decode(text);
  return E.isRight(result) ? text : problems(result.left)[0]?.proposed;
});
const ranges = fc.uniqueArray(range, { minLength: 1, maxLength: 5 });
const key = fc.base64String({ minLength: 32, maxLength: 44 });
const reference = fc.record(
  { name: label, key: fc.stringMatching(/^[-._a-zA-Z0-9]{1,8}$/) },
  { requiredKeys: ['name'] },
);
const authentication = fc.oneof(
  fc.record({ psk: key }),
  fc.record({ pskSecretRef: reference }),
  fc.record({ certificate: fc.record({ secretRef: fc.record({ name: label }) }) }),
);
const tunnel = fc
  .tuple(
    fc.record(
      {
        peer: fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain()),
        ppkSecretRef: fc.record({ name: label, id: label, required: fc.boolean() }),
        localID: label,
        remoteID: label,
        proposals: fc.record({ ike: fc.constant(['aes256-sha256-modp3072']) }, { requiredKeys: [] }),
        dpdDelay: fc.oneof(
          fc.integer({ min: 1, max: 86_400 }),
          fc.integer({ min: 1, max: 24 }).map((n) => `${n}h`),
        ),
        startAction: fc.constantFrom('none', 'start', 'trap', 'trap|start'),
        localTrafficSelectors: ranges,
        childSAs: fc.constantFrom('perRange', 'perPair', 'one'),
      },
      { requiredKeys: ['peer'] },
    ),
    authentication,
  )
  .map(([ipsec, way]) => ({ ...ipsec, ...way }));
const anyMtu = fc.oneof(fc.integer({ min: 576, max: 9000 }), fc.constantFrom('', null));
const common = fc.record(
  {
    podCIDR: fc.oneof(range, ranges),
    serviceCIDR: ranges,
    mtu: anyMtu,
    publicAddress: fc.oneof(fc.ipV4(), fc.ipV6()),
    cilium: fc.record({ sctp: fc.boolean(), restartAgents: fc.boolean() }, { requiredKeys: [] }),
    image: fc.string(),
  },
  { requiredKeys: [] },
);
const anyProbe = fc.oneof(fc.ipV4(), fc.ipV6());
const anySite = fc.record(
  { name: label, peerCIDRs: ranges, ipsec: tunnel, mtu: anyMtu, probe: anyProbe },
  { requiredKeys: ['name', 'peerCIDRs', 'ipsec'] },
);
const anySpec = fc
  .oneof(
    fc.tuple(
      common,
      fc.record({ peerCIDRs: ranges, ipsec: tunnel, probe: anyProbe }, { requiredKeys: ['peerCIDRs', 'ipsec'] }),
    ),
    fc.tuple(
      common,
      fc.record({ sites: fc.uniqueArray(anySite, { selector: ({ name }) => name, minLength: 1, maxLength: 4 }) }),
    ),
  )
  .map(([a, b]) => ({ ...a, ...b }));

test('canonical form decodes to itself', (tt) => {
  fc.assert(
    fc.property(anySpec, (spec) => {
      const vpn = decoded(spec);
      const again = ConstellationVpn.decode(JSON.parse(JSON.stringify(encodeVpn(vpn))));
      tt.deepEqual(again, E.right({ ...vpn, ignored: [] }));
    }),
  );
});

test('the order of sites and ranges is nothing', (tt) => {
  fc.assert(
    fc.property(fc.uniqueArray(anySite, { selector: ({ name }) => name, minLength: 1, maxLength: 4 }), (sites) => {
      const turned = sites.toReversed().map((one) => ({ ...one, peerCIDRs: one.peerCIDRs.toReversed() }));
      tt.deepEqual(decoded({ sites: turned }), decoded({ sites }));
    }),
  );
});

test('decoding changes no input', (tt) => {
  fc.assert(
    fc.property(anySpec, (spec) => {
      const before = structuredClone(spec);
      decoded(spec);
      tt.deepEqual(spec, before);
    }),
  );
});

test('anything at all: decoded, or complaints with a place and a sentence, no exception', (tt) => {
  const names = fc.constantFrom('sites', 'ipsec', 'peerCIDRs', 'mtu', 'cilium', 'psk', 'name', 'peer', 'podCIDR');
  const anything = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 5 },
      fc.jsonValue(),
      fc.array(tie('value'), { maxLength: 3 }),
      fc.dictionary(names, tie('value')),
    ),
  })).value;
  fc.assert(
    fc.property(anything, (spec) => {
      for (const line of complaints(object(spec))) tt.regex(line, /^spec.*: \S/s);
    }),
  );
});

test('no complaint holds the key', (tt) => {
  const wrong = fc.oneof(
    fc.string({ unit: 'binary' }).map((s) => `Zq9\0${s}`),
    fc.string({ unit: 'binary' }).map((s) => [`Zq9${s}`]),
    fc.string({ unit: 'binary' }).map((s) => ({ Zq8: `Zq9${s}` })),
  );
  fc.assert(
    fc.property(wrong, (psk) => {
      const found = complaints(object(short({}, { psk, pskSecretRef: null })));
      tt.true(found.length > 0);
      tt.false(found.join('\n').includes('Zq9'));
    }),
  );
});
