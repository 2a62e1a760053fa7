import test from 'ava';
import { FakeCharon } from '../../../test/fakes/charon.ts';
import { ViciUnavailable } from '../vici/connection.ts';
import { decodeMessage, encodeMessage, type Section } from '../vici/message.ts';
import { listSas, readIkeSa, readSas } from './sas.ts';

// Records of strongSwan 5.9.8's list-sas between two charons; the IKE_SA of the gateway's answer is the second one.

const CONNECTING: Section = {
  uniqueid: '1',
  version: '2',
  state: 'CONNECTING',
  'local-host': '10.10.0.5',
  'local-port': '500',
  'local-id': '%any',
  'remote-host': '198.51.100.7',
  'remote-port': '500',
  'remote-id': '%any',
  initiator: 'yes',
  'initiator-spi': '5a6a67fa0636b73c',
  'responder-spi': '0000000000000000',
  'tasks-active': ['IKE_VENDOR', 'IKE_INIT', 'IKE_NATD', 'IKE_CERT_PRE', 'IKE_AUTH', 'CHILD_CREATE'],
  'child-sas': {},
};
const ESTABLISHED: Section = {
  uniqueid: '1',
  version: '2',
  state: 'ESTABLISHED',
  'local-host': '10.10.0.5',
  'local-port': '4500',
  'local-id': 'vpn-frontend.constellation-vpn',
  'remote-host': '198.51.100.7',
  'remote-port': '4500',
  'remote-id': '198.51.100.7',
  initiator: 'yes',
  'initiator-spi': '5a6a67fa0636b73c',
  'responder-spi': '66daf75c7711c8ab',
  'nat-local': 'yes',
  'nat-remote': 'yes',
  'nat-any': 'yes',
  'encr-alg': 'AES_GCM_16',
  'encr-keysize': '256',
  'prf-alg': 'PRF_HMAC_SHA2_384',
  'dh-group': 'ECP_384',
  established: '3',
  'rekey-time': '14025',
  'child-sas': {
    '192.168.50.0/24-1': {
      name: '192.168.50.0/24',
      uniqueid: '1',
      reqid: '1',
      state: 'INSTALLED',
      mode: 'TUNNEL',
      protocol: 'ESP',
      encap: 'yes',
      'spi-in': '1ca1d746',
      'spi-out': 'ad483065',
      'encr-alg': 'AES_GCM_16',
      'encr-keysize': '256',
      'bytes-in': '0',
      'packets-in': '0',
      'bytes-out': '0',
      'packets-out': '0',
      'rekey-time': '3362',
      'life-time': '3957',
      'install-time': '3',
      'local-ts': ['10.10.0.0/16'],
      'remote-ts': ['192.168.50.0/24'],
    },
    'fd12:3456::/48-3': {
      name: 'fd12:3456::/48',
      uniqueid: '3',
      reqid: '2',
      state: 'INSTALLED',
      mode: 'TUNNEL',
      protocol: 'ESP',
      encap: 'yes',
      'spi-in': '7135cf55',
      'spi-out': 'd7322014',
      'encr-alg': 'AES_GCM_16',
      'encr-keysize': '256',
      'dh-group': 'ECP_384',
      'bytes-in': '168',
      'packets-in': '2',
      'bytes-out': '5000000000',
      'packets-out': '3',
      'use-in': '1',
      'use-out': '1',
      'rekey-time': '3270',
      'life-time': '3959',
      'install-time': '1',
      'local-ts': ['fd00:10::/56'],
      'remote-ts': ['fd12:3456::/48'],
    },
  },
};

/** As they come from the socket. */
const event = (section: Section) => decodeMessage(encodeMessage(section));

const BEGINNING = {
  name: 'site',
  uid: '1',
  version: '2',
  state: 'CONNECTING',
  localHost: '10.10.0.5',
  localId: '%any',
  remoteHost: '198.51.100.7',
  remoteId: '%any',
  establishedSeconds: 0,
  children: [],
};

test('an IKE_SA that is being made', (tt) => {
  tt.deepEqual(readSas([event({ site: CONNECTING })]), [BEGINNING]);
});

test('one that stands, with two CHILD_SAs', (tt) => {
  tt.deepEqual(readIkeSa('site', event(ESTABLISHED)), {
    name: 'site',
    uid: '1',
    version: '2',
    state: 'ESTABLISHED',
    localHost: '10.10.0.5',
    localId: 'vpn-frontend.constellation-vpn',
    remoteHost: '198.51.100.7',
    remoteId: '198.51.100.7',
    establishedSeconds: 3,
    children: [
      {
        name: '192.168.50.0/24',
        uid: '1',
        reqid: '1',
        state: 'INSTALLED',
        mode: 'TUNNEL',
        protocol: 'ESP',
        localTs: ['10.10.0.0/16'],
        remoteTs: ['192.168.50.0/24'],
        bytesIn: 0,
        bytesOut: 0,
        packetsIn: 0,
        packetsOut: 0,
        installedSeconds: 3,
      },
      {
        name: 'fd12:3456::/48',
        uid: '3',
        reqid: '2',
        state: 'INSTALLED',
        mode: 'TUNNEL',
        protocol: 'ESP',
        localTs: ['fd00:10::/56'],
        remoteTs: ['fd12:3456::/48'],
        bytesIn: 168,
        bytesOut: 5_000_000_000,
        packetsIn: 2,
        packetsOut: 3,
        installedSeconds: 1,
      },
    ],
  });
});

test('none, and several: an event each', (tt) => {
  tt.deepEqual(readSas([]), []);
  tt.deepEqual(
    readSas([event({ site: CONNECTING }), event({ other: { ...CONNECTING, uniqueid: '2' } })]).map(({ name, uid }) => [
      name,
      uid,
    ]),
    [
      ['site', '1'],
      ['other', '2'],
    ],
  );
});

test('an updown event: beside the IKE_SA there is a flag, which is none', (tt) => {
  tt.deepEqual(readSas([event({ up: 'yes', site: CONNECTING })]), [BEGINNING]);
});

test('a CHILD_SA without a name has that of its section; what is missing is empty', (tt) => {
  const [sa] = readSas([event({ site: { 'child-sas': { a: {} } } })]);
  const [child] = sa?.children ?? [];
  tt.like(sa, { uid: '', state: '', remoteHost: '', establishedSeconds: 0 });
  tt.like(child, { name: 'a', uid: '', state: '', localTs: [], remoteTs: [], bytesIn: 0, installedSeconds: 0 });
});

test("the SAs of the site's connection, not those of another one", async (tt) => {
  const charon = new FakeCharon();
  tt.deepEqual(await listSas(charon.vici), []);
  charon.gatewayDials('other', 'all', ['10.10.0.0/16'], ['192.168.60.0/24']);
  const uid = charon.gatewayDials('site', 'all', ['10.10.0.0/16'], ['192.168.50.0/24']);
  const sas = await listSas(charon.vici);
  tt.deepEqual(
    sas.map(({ name, children }) => [name, children.map((child) => [child.uid, child.remoteTs])]),
    [['site', [[uid, ['192.168.50.0/24']]]]],
  );
});

test('charon is gone: that is told, not that there is none', async (tt) => {
  const charon = new FakeCharon();
  charon.stop();
  await tt.throwsAsync(listSas(charon.vici), { instanceOf: ViciUnavailable });
});
