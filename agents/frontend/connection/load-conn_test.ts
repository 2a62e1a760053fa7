import test from 'ava';
import { isRight } from 'fp-ts/lib/Either.js';
import { VpnSpec } from '../../../functions/model/vpn.ts';
import { decodeMessage, encodeMessage, type Section } from '../vici/message.ts';
import { childrenOf } from './children.ts';
import { CONNECTION, connectionOf, loadConn } from './load-conn.ts';

const PSK = { pskSecretRef: { name: 'psk' } };

/** The whole message for a site with this `ipsec`. */
function messageOf(ipsec: object = PSK, localId = 'vpn-frontend.constellation-vpn', peerCIDRs = ['192.168.50.0/24']) {
  const decoded = VpnSpec.decode({ peerCIDRs, ipsec: { peer: '198.51.100.7', ...ipsec } });
  if (!isRight(decoded)) throw new Error('the test wrote no valid configuration');
  const [site] = decoded.right.sites;
  if (site === undefined) throw new Error('no site');
  return loadConn(connectionOf(site, localId, childrenOf(decoded.right, site)));
}
const sectionOf = (message: Section, ...path: string[]): Section =>
  path.reduce<Section>((section, key) => (section[key] ?? {}) as Section, message);
const ikeOf = (message: Section): Section => {
  const { children: _, ...ike } = sectionOf(message, CONNECTION);
  return ike;
};

const IKE = {
  version: '2',
  remote_addrs: ['198.51.100.7', '0.0.0.0/0', '::/0'],
  proposals: ['aes256gcm16-prfsha384-ecp384', 'aes256gcm16-prfsha256-curve25519', 'aes256-sha256-modp3072'],
  encap: 'yes',
  mobike: 'no',
  fragmentation: 'yes',
  dpd_delay: '1',
  rekey_time: '14400',
  unique: 'replace',
  keyingtries: '0',
  send_cert: 'always',
  local: { auth: 'psk', id: 'vpn-frontend.constellation-vpn' },
  remote: { auth: 'psk', id: '198.51.100.7' },
};
const CHILD = {
  mode: 'tunnel',
  local_ts: ['10.10.0.0/16', '10.96.0.0/12'],
  remote_ts: ['192.168.50.0/24'],
  esp_proposals: ['aes256gcm16-ecp384', 'aes256gcm16-curve25519', 'aes256-sha256-modp3072'],
  rekey_time: '3600',
  start_action: 'trap',
};
const PASSIVE = { start_action: 'none' };

test('a pre-shared key, and every default', (tt) => {
  tt.deepEqual(messageOf(), {
    site: { ...IKE, children: { '192.168.50.0/24': CHILD, all: { ...CHILD, ...PASSIVE } } },
  });
});

const ike = test.macro((tt, ipsec: object, expected: object, localId?: string) => {
  tt.deepEqual(ikeOf(messageOf(ipsec, localId)), { ...IKE, ...expected });
});
const CERTIFICATE = { certificate: { secretRef: { name: 'tls' } } };
test(
  'certificates: who we are is the subject',
  ike,
  CERTIFICATE,
  { local: { auth: 'pubkey', id: 'asn1dn:#300d' }, remote: { auth: 'pubkey', id: '198.51.100.7' } },
  'asn1dn:#300d',
);
test(
  'certificates: the gateway by its name',
  ike,
  { certificate: { secretRef: { name: 'tls' }, remoteID: 'gw.example.com' } },
  { local: { auth: 'pubkey', id: 'us' }, remote: { auth: 'pubkey', id: 'gw.example.com' } },
  'us',
);
test(
  'a gateway by name, which is its identity',
  ike,
  { ...PSK, peer: 'vpn.example.com' },
  {
    remote_addrs: ['vpn.example.com', '0.0.0.0/0', '::/0'],
    remote: { auth: 'psk', id: 'vpn.example.com' },
  },
);
test(
  'a gateway with an identity of its own',
  ike,
  { ...PSK, peer: '2001:db8::7', remoteID: 'gw' },
  {
    remote_addrs: ['2001:db8::7', '0.0.0.0/0', '::/0'],
    remote: { auth: 'psk', id: 'gw' },
  },
);
test(
  'a PPK that is a must',
  ike,
  { ...PSK, ppkSecretRef: { name: 'ppk', id: 'ppk-1' } },
  {
    ppk_id: 'ppk-1',
    ppk_required: 'yes',
  },
);
test(
  'a PPK that may be left out',
  ike,
  { ...PSK, ppkSecretRef: { name: 'ppk', id: 'ppk-1', required: false } },
  {
    ppk_id: 'ppk-1',
    ppk_required: 'no',
  },
);
test(
  'proposals and times',
  ike,
  { ...PSK, dpdDelay: '30s', proposals: { ike: ['aes128-sha256-x25519'] } },
  {
    dpd_delay: '30',
    proposals: ['aes128-sha256-x25519'],
  },
);

const child = test.macro((tt, ipsec: object, dialled: object, passive: object | undefined) => {
  const { all, ...others } = sectionOf(messageOf({ ...PSK, ...ipsec }), CONNECTION, 'children') as Record<
    string,
    object
  >;
  tt.deepEqual(all, passive);
  tt.deepEqual(others, Object.keys(dialled).length === 0 ? {} : { '192.168.50.0/24': dialled });
});
const ALL_PASSIVE = { ...CHILD, ...PASSIVE };
test('trap|start', child, { startAction: 'trap|start' }, CHILD, ALL_PASSIVE);
test('trap', child, { startAction: 'trap' }, CHILD, ALL_PASSIVE);
test(
  'start: the agent dials, not charon',
  child,
  { startAction: 'start' },
  { ...CHILD, start_action: 'none' },
  ALL_PASSIVE,
);
test('none', child, { startAction: 'none' }, {}, ALL_PASSIVE);
test('one for all', child, { childSAs: 'one' }, {}, CHILD);
test(
  'its proposals and its time',
  child,
  { childSAs: 'one', rekeyTime: '30m', proposals: { esp: ['aes128gcm16'] } },
  {},
  { ...CHILD, rekey_time: '1800', esp_proposals: ['aes128gcm16'] },
);

/** charon drops a larger message (VICI README, transport protocol). */
const MAX_BYTES = 512 * 1024;
test('what goes over the socket is what was meant', (tt) => {
  const message = messageOf({ ...CERTIFICATE, ppkSecretRef: { name: 'ppk', id: 'ppk-1' }, childSAs: 'perPair' });
  tt.is(JSON.stringify(decodeMessage(encodeMessage(message))), JSON.stringify(message));
});
test('ten thousand ranges fit into a message', (tt) => {
  const many = Array.from({ length: 10_000 }, (_, n) => `172.${16 + (n >> 12)}.${(n >> 4) & 255}.${(n & 15) << 4}/28`);
  for (const childSAs of ['perRange', 'one']) {
    const { length } = encodeMessage(messageOf({ ...PSK, childSAs }, 'us', many));
    tt.true(length < MAX_BYTES, `${childSAs}: ${length}`);
  }
});
