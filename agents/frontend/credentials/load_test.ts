import { createPrivateKey, X509Certificate } from 'node:crypto';
import test from 'ava';
import { makeAuthority, type Issued } from '../../../test/certificates.ts';
import { FakeCharon } from '../../../test/fakes/charon.ts';
import type { Section } from '../vici/message.ts';
import type { CertificateCredentials, Credentials } from './decode.ts';
import { loadCredentials } from './load.ts';

const PSK: Credentials = { kind: 'psk', psk: Buffer.from('correct horse') };
const PPK = { ppk: Buffer.from('p'.repeat(32)) };

const root = await makeAuthority('root 1');
const otherRoot = await makeAuthority('root 2');
const middle = await root.makeAuthority('intermediate');

const der = ({ certificate }: Issued): Buffer => new X509Certificate(certificate).raw;
const certificateOf = (
  leaf: Issued,
  chain: readonly Issued[],
  authorities: readonly Issued[],
): CertificateCredentials => ({
  kind: 'certificate',
  chain: [leaf, ...chain].map(der),
  authorities: authorities.map(der),
  key: createPrivateKey(leaf.key).export({ format: 'der', type: 'pkcs8' }),
  keyType: 'ecdsa',
  subject: 'CN=vpn',
  expires: new Date(0),
  authoritiesExpire: [new Date(0), new Date(0)],
});
const CERTIFICATE = certificateOf(await middle.issue({ subject: 'CN=vpn' }), [middle], [root, otherRoot]);
const OLD = certificateOf(await otherRoot.issue({ subject: 'CN=old' }), [], [otherRoot]);

const PSK_LOADED = { id: 'psk', type: 'IKE', data: 'correct horse' };
const PPK_LOADED = { id: 'ppk', type: 'ppk', data: 'p'.repeat(32), owners: ['ppk-1'] };
const LOADED = ['NONE CN=vpn', 'NONE CN=intermediate', 'CA CN=root 1', 'CA CN=root 2'];

interface Held {
  readonly shared?: readonly Section[];
  /** How many. */
  readonly keys?: number;
  readonly certificates?: readonly string[];
}
const held = ({ shared, keys, certificates }: FakeCharon): string =>
  heldAs({ shared: [...shared.values()], keys: keys.size, certificates: [...certificates] });
const heldAs = ({ shared = [], keys = 0, certificates = [] }: Held): string =>
  JSON.stringify({ shared, keys, certificates });

/** One after another; `orders`: of the last one. */
const loads = test.macro(async (tt, all: readonly Credentials[], expected: Held, orders: readonly string[]) => {
  const charon = new FakeCharon();
  for (const credentials of all) {
    charon.takeOrders();
    await loadCredentials(charon.vici, credentials, 'ppk-1');
  }
  tt.is(held(charon), heldAs(expected));
  tt.deepEqual(charon.takeOrders(), [...orders]);
});
const LOAD_CERTIFICATE = [
  'clear-creds',
  'load-key any',
  'load-cert NONE',
  'load-cert NONE',
  'load-cert CA',
  'load-cert CA',
];
const WITH_CERTIFICATE = { keys: 1, certificates: LOADED };

test('a pre-shared key', loads, [PSK], { shared: [PSK_LOADED] }, ['load-shared psk']);
test('with a PPK', loads, [{ ...PSK, ...PPK }], { shared: [PSK_LOADED, PPK_LOADED] }, [
  'load-shared psk',
  'load-shared ppk',
]);
test(
  'another pre-shared key: it is never without one',
  loads,
  [{ kind: 'psk', psk: Buffer.from('old') }, PSK],
  {
    shared: [PSK_LOADED],
  },
  ['load-shared psk'],
);
test('no PPK any more', loads, [{ ...PSK, ...PPK }, PSK], { shared: [PSK_LOADED] }, [
  'load-shared psk',
  'unload-shared ppk',
]);
test('a certificate', loads, [CERTIFICATE], WITH_CERTIFICATE, LOAD_CERTIFICATE);
test('a certificate with a PPK', loads, [{ ...CERTIFICATE, ...PPK }], { ...WITH_CERTIFICATE, shared: [PPK_LOADED] }, [
  ...LOAD_CERTIFICATE,
  'load-shared ppk',
]);
test(
  'another certificate: nothing of the old one is left',
  loads,
  [OLD, CERTIFICATE],
  WITH_CERTIFICATE,
  LOAD_CERTIFICATE,
);
test(
  'a certificate instead of a pre-shared key',
  loads,
  [{ ...PSK, ...PPK }, CERTIFICATE],
  WITH_CERTIFICATE,
  LOAD_CERTIFICATE,
);
test('a pre-shared key instead of a certificate', loads, [CERTIFICATE, PSK], { shared: [PSK_LOADED] }, [
  'clear-creds',
  'load-shared psk',
]);
test(
  'the same twice',
  loads,
  [
    { ...PSK, ...PPK },
    { ...PSK, ...PPK },
  ],
  { shared: [PSK_LOADED, PPK_LOADED] },
  ['load-shared psk', 'load-shared ppk'],
);

test("another program's shared keys are unloaded, after ours are there", async (tt) => {
  const charon = new FakeCharon();
  await charon.vici.request('load-shared', { id: 'ike-old', type: 'IKE', data: 'x' });
  await charon.vici.request('load-shared', { id: 'eap', type: 'EAP', data: 'x' });
  charon.takeOrders();
  await loadCredentials(charon.vici, PSK, '');
  tt.deepEqual(charon.takeOrders(), ['load-shared psk', 'unload-shared ike-old', 'unload-shared eap']);
  tt.is(held(charon), heldAs({ shared: [PSK_LOADED] }));
});

test('bytes that are no text', async (tt) => {
  const sent: unknown[] = [];
  const charon = new FakeCharon();
  const { vici } = charon;
  const spy = Object.create(vici) as typeof vici;
  spy.request = (command, message) => {
    if (command === 'load-shared') sent.push(message?.data);
    return vici.request(command, message);
  };
  await loadCredentials(spy, { kind: 'psk', psk: Buffer.of(0, 255, 10) }, '');
  tt.deepEqual(sent, [Buffer.of(0, 255, 10)]);
});

for (const command of ['load-key', 'load-cert', 'get-shared', 'clear-creds'])
  test(`charon refuses ${command}`, async (tt) => {
    const charon = new FakeCharon();
    charon.refusals.set(command, 'parsing ANY private key failed');
    await tt.throwsAsync(loadCredentials(charon.vici, CERTIFICATE, ''), {
      message: `${command}: parsing ANY private key failed`,
    });
  });
