import test, { type ExecutionContext } from 'ava';
import { isRight } from 'fp-ts/lib/Either.js';
import { VpnSpec } from '../../../functions/model/vpn.ts';
import { FakeCharon } from '../../../test/fakes/charon.ts';
import type { Log } from '../../lib/log.ts';
import type { Again } from '../../lib/queue.ts';
import type { Credentials } from '../credentials/decode.ts';
import { createMetrics } from '../metrics.ts';
import { ViciUnavailable } from '../vici/connection.ts';
import { list, sections, type Decoded } from '../vici/message.ts';
import { Tunnel, type Desired } from './reconcile.ts';

const [A, B, C] = ['192.168.50.0/24', '192.168.60.0/24', '192.168.70.0/24'];
/** What the defaults need. */
const ALGORITHMS = {
  encryption: { AES_CBC: 'aes' },
  aead: { AES_GCM_16: 'openssl' },
  prf: { PRF_HMAC_SHA2_256: 'hmac', PRF_HMAC_SHA2_384: 'hmac' },
  dh: { ECP_384: 'openssl', CURVE_25519: 'openssl', MODP_3072: 'gmp' },
};

interface Wanted {
  readonly ranges?: readonly string[];
  readonly ipsec?: object;
  readonly credentials?: Credentials;
  readonly localId?: string;
}

function desiredOf({ ranges = [A, B], ipsec = {}, credentials, localId = 'us' }: Wanted): Desired {
  const decoded = VpnSpec.decode({
    peerCIDRs: ranges,
    ipsec: { peer: '198.51.100.7', pskSecretRef: { name: 'psk' }, startAction: 'start', ...ipsec },
  });
  if (!isRight(decoded)) throw new Error('the test wrote no valid configuration');
  const [site] = decoded.right.sites;
  if (site === undefined) throw new Error('no site');
  // Anew each time, as the agent reads the Secret.
  return { vpn: decoded.right, site, localId, credentials: credentials ?? { kind: 'psk', psk: Buffer.from('secret') } };
}

class Bench {
  readonly charon = new FakeCharon();
  /** `level message`. */
  readonly log: string[] = [];
  /** Undefined: there is no configuration yet, or no Secret. */
  wanted: Wanted | undefined;
  readonly metrics = createMetrics(
    () => true,
    async () => [],
  );
  readonly tunnel: Tunnel;

  constructor(wanted?: Wanted) {
    this.wanted = wanted;
    this.charon.algorithms = ALGORITHMS;
    this.tunnel = this.newAgent();
  }

  /** Another process in the place of the agent; it is connected. */
  newAgent(): Tunnel {
    const say = (level: string) => (_: object, message: string) => void this.log.push(`${level} ${message}`);
    const tunnel = new Tunnel({
      log: { info: say('info'), warn: say('warn'), error: say('error') } as unknown as Log,
      metrics: this.metrics,
      desired: () => (this.wanted === undefined ? undefined : desiredOf(this.wanted)),
    });
    tunnel.connected(this.charon.vici);
    return tunnel;
  }

  /** What charon was told to do. */
  async reconcile(wanted: Wanted | undefined = this.wanted, tunnel = this.tunnel): Promise<string[]> {
    this.wanted = wanted;
    this.charon.takeOrders();
    await tunnel.reconcile();
    return this.charon.takeOrders();
  }

  /** Until nothing is left to be done. */
  async settle(wanted: Wanted | undefined = this.wanted, tunnel = this.tunnel): Promise<void> {
    for (let round = 0; round < 5; round++) if ((await this.reconcile(wanted, tunnel)).length === 0) return;
    throw new Error('it never ends');
  }

  get children(): string[] {
    return sections(this.charon.connections.get('site') ?? {}, 'children').map(([name]) => name);
  }

  remoteTs(uid: string): readonly string[] {
    const all = this.charon.ikeSas.flatMap(({ children }) => children);
    return all.find((child) => child.uid === uid)?.remoteTs ?? [];
  }
}

const up = (charon: FakeCharon): string[] => Object.keys(charon.installed).sort();
/** No command has left a range without an SA. */
const untouched = (tt: ExecutionContext, { charon }: Bench): void => void tt.deepEqual(charon.interrupted, []);
const settled = async (wanted: Wanted): Promise<Bench> => {
  const bench = new Bench(wanted);
  await bench.settle();
  return bench;
};

test('at first: credentials, the connection, and every child is dialled', async (tt) => {
  const bench = new Bench({});
  tt.is(bench.tunnel.problem, 'nothing has been loaded into charon yet');
  tt.deepEqual(await bench.reconcile(), ['load-shared psk', 'load-conn site', `initiate ${A}`, `initiate ${B}`]);
  tt.is(bench.tunnel.problem, undefined);
  tt.deepEqual(bench.children, [A, B, 'all']);
  tt.deepEqual(up(bench.charon), [A, B]);
  tt.deepEqual(bench.log, ['info credentials loaded', 'info connection loaded']);
});

test('twice is once', async (tt) => {
  const bench = new Bench({});
  await bench.reconcile();
  tt.deepEqual(await bench.reconcile(), []);
  tt.deepEqual(await bench.reconcile({ ranges: [A, B] }), []);
  tt.is(bench.log.length, 2);
  const { values } = await bench.metrics.reloads.get();
  tt.deepEqual(
    values.map(({ labels, value }) => [labels.what, value]),
    [
      ['credentials', 1],
      ['connection', 1],
    ],
  );
});

test('nothing without a configuration, or without a charon', async (tt) => {
  const bench = new Bench();
  tt.deepEqual(await bench.reconcile(), []);
  tt.is(bench.tunnel.problem, 'nothing has been loaded into charon yet');
  bench.tunnel.disconnected();
  tt.deepEqual(await bench.reconcile({}), []);
  tt.regex(bench.tunnel.problem ?? '', /^charon does not answer/);
  await tt.throwsAsync(bench.tunnel.sas(), { instanceOf: ViciUnavailable });
});

// Changes

test('a range more', async (tt) => {
  const bench = await settled({ ranges: [A] });
  tt.deepEqual(await bench.reconcile({ ranges: [A, B] }), ['load-conn site', `initiate ${B}`]);
  tt.deepEqual(bench.charon.installed[A]?.length, 1);
  untouched(tt, bench);
});

test('a range less: its SA is dropped, the others stay', async (tt) => {
  const bench = await settled({ ranges: [A, B] });
  const { [A]: kept, [B]: gone } = bench.charon.installed;
  tt.deepEqual(await bench.reconcile({ ranges: [A] }), ['load-conn site', `terminate ${gone?.[0]}`]);
  tt.deepEqual(bench.charon.installed, { [A]: kept ?? [] });
  tt.deepEqual(bench.children, [A, 'all']);
});

for (const looks of [0, 3])
  test(`a changed child is replaced after the new one stands, which it does ${looks === 0 ? 'at once' : 'later'}`, async (tt) => {
    const one = { childSAs: 'one' };
    const bench = await settled({ ranges: [A], ipsec: one });
    const [old] = bench.charon.installed.all ?? [];
    bench.charon.looks = looks;
    tt.deepEqual(await bench.reconcile({ ranges: [A, B], ipsec: one }), [
      'load-conn site',
      'initiate all',
      `terminate ${old}`,
    ]);
    const [now = ''] = bench.charon.installed.all ?? [];
    tt.deepEqual(bench.remoteTs(now), [A, B]);
    tt.deepEqual(bench.charon.installed, { all: [now] });
    untouched(tt, bench);
    tt.deepEqual(await bench.reconcile(), []);
  });

test('of two children the one that is changed is replaced', async (tt) => {
  const many = Array.from({ length: 200 }, (_, n) => `172.16.${n}.0/24`);
  const bench = await settled({ ranges: many });
  const before = bench.charon.installed;
  const orders = await bench.reconcile({ ranges: [...many, '172.17.0.0/24'] });
  tt.is(orders.filter((order) => order.startsWith('initiate')).length, 1);
  tt.is(orders.filter((order) => order.startsWith('terminate')).length, 1);
  const after = bench.charon.installed;
  const changed = Object.keys(before).filter((name) => before[name]?.join() !== after[name]?.join());
  tt.is(changed.length, 1);
  untouched(tt, bench);
});

test('another time for each CHILD_SA: all are replaced', async (tt) => {
  const bench = await settled({ ranges: [A, B] });
  const { [A]: a, [B]: b } = bench.charon.installed;
  tt.deepEqual(await bench.reconcile({ ipsec: { rekeyTime: 1800 } }), [
    'load-conn site',
    `initiate ${A}`,
    `terminate ${a?.[0]}`,
    `initiate ${B}`,
    `terminate ${b?.[0]}`,
  ]);
  untouched(tt, bench);
});

test('a failed replacement keeps the old SA, and says so', async (tt) => {
  tt.timeout(30_000);
  const bench = await settled({ ranges: [A], ipsec: { childSAs: 'one' } });
  const before = bench.charon.installed;
  bench.charon.gateway = 'refuses';
  tt.deepEqual(await bench.reconcile({ ranges: [A, B], ipsec: { childSAs: 'one' } }), [
    'load-conn site',
    'initiate all',
  ]);
  tt.deepEqual(bench.charon.installed, before);
  tt.true(bench.log.includes('error no SA by the new configuration, the old one stays'));
});

test('what only the gateway dials is not replaced', async (tt) => {
  const none = { startAction: 'none' };
  const bench = await settled({ ranges: [A], ipsec: none });
  const uid = bench.charon.gatewayDials('site', 'all', ['10.10.0.0/16'], [A]);
  tt.deepEqual(await bench.reconcile({ ranges: [A, B], ipsec: none }), ['load-conn site']);
  tt.deepEqual(bench.charon.installed, { all: [uid] });
});

test('another cipher suite: another IKE_SA takes the place of the old one', async (tt) => {
  const bench = await settled({ ranges: [A], ipsec: { childSAs: 'one' } });
  const [old] = bench.charon.ikeSas;
  const ipsec = { childSAs: 'one', proposals: { ike: ['aes256gcm16-prfsha384-ecp384'] } };
  tt.deepEqual(await bench.reconcile({ ranges: [A], ipsec }), [
    'load-conn site',
    'initiate all',
    `terminate ${old?.uid}`,
  ]);
  tt.is(bench.charon.ikeSas.length, 1);
  tt.not(bench.charon.ikeSas[0]?.uid, old?.uid);
  untouched(tt, bench);
});

test('another identity of ours', async (tt) => {
  const bench = await settled({ ranges: [A] });
  const [old] = bench.charon.ikeSas;
  tt.deepEqual(await bench.reconcile({ ranges: [A], localId: 'me' }), [
    'load-conn site',
    `initiate ${A}`,
    `terminate ${old?.uid}`,
  ]);
  untouched(tt, bench);
});

test('several ranges and another IKE_SA: in the end all are up again', async (tt) => {
  const bench = await settled({ ranges: [A, B, C] });
  await bench.settle({ ranges: [A, B, C], ipsec: { dpdDelay: 5 } });
  tt.deepEqual(up(bench.charon), [A, B, C]);
  tt.is(bench.charon.ikeSas.length, 1);
});

test('several ranges and another IKE_SA: none is without an SA meanwhile', async (tt) => {
  const bench = await settled({ ranges: [A, B, C] });
  await bench.settle({ ranges: [A, B, C], ipsec: { dpdDelay: 5 } });
  untouched(tt, bench);
});

test('another IKE_SA that only the gateway dials: the old one ends, so that it does', async (tt) => {
  const bench = await settled({ ipsec: { startAction: 'none' } });
  bench.charon.gatewayDials('site', 'all', ['10.10.0.0/16'], [A, B]);
  const [old] = bench.charon.ikeSas;
  tt.deepEqual(await bench.reconcile({ ipsec: { startAction: 'none', dpdDelay: 5 } }), [
    'load-conn site',
    `terminate ${old?.uid}`,
  ]);
});

test('another IKE_SA that the gateway refuses: the old one stays', async (tt) => {
  tt.timeout(30_000);
  const bench = await settled({ ranges: [A] });
  const before = bench.charon.installed;
  bench.charon.gateway = 'refuses';
  tt.deepEqual(await bench.reconcile({ ranges: [A], ipsec: { dpdDelay: 5 } }), ['load-conn site', `initiate ${A}`]);
  tt.deepEqual(bench.charon.installed, before);
});

// Credentials

const certificate = (key: string): Credentials => ({
  kind: 'certificate',
  chain: [Buffer.from(`leaf of ${key}`)],
  authorities: [Buffer.from('root')],
  key: Buffer.from(key),
  keyType: 'ecdsa',
  subject: 'CN=vpn',
  expires: new Date(0),
  authoritiesExpire: [new Date(0)],
});

test('another key: loaded, and the SAs stay', async (tt) => {
  const bench = await settled({});
  tt.deepEqual(await bench.reconcile({ credentials: { kind: 'psk', psk: Buffer.from('another') } }), [
    'load-shared psk',
  ]);
  untouched(tt, bench);
});

test('a certificate that is read again is the same', async (tt) => {
  const ipsec = { pskSecretRef: undefined, certificate: { secretRef: { name: 'tls' } } };
  const bench = await settled({ ipsec, credentials: certificate('a') });
  tt.deepEqual(await bench.reconcile({ ipsec, credentials: certificate('a') }), []);
  tt.deepEqual(await bench.reconcile({ ipsec, credentials: certificate('b') }), [
    'clear-creds',
    'load-key any',
    'load-cert NONE',
    'load-cert CA',
  ]);
  untouched(tt, bench);
});

test('another id of the same PPK: the key is loaded for it', async (tt) => {
  const wanted = (id: string): Wanted => ({
    ipsec: { ppkSecretRef: { name: 'ppk', id } },
    credentials: { kind: 'psk', psk: Buffer.from('secret'), ppk: Buffer.from('p'.repeat(32)) },
  });
  const bench = await settled(wanted('one'));
  await bench.reconcile(wanted('two'));
  tt.deepEqual(list(bench.charon.shared.get('ppk') ?? {}, 'owners'), ['two']);
});

for (const command of ['load-shared', 'load-conn'])
  test(`charon refuses ${command}: that is the problem, and it is tried again`, async (tt) => {
    const bench = new Bench({});
    bench.charon.refusals.set(command, 'no such thing');
    await tt.throwsAsync(bench.reconcile(), { message: `${command}: no such thing` });
    tt.is(bench.tunnel.problem, `${command}: no such thing`);
    bench.charon.refusals.clear();
    await bench.settle();
    tt.is(bench.tunnel.problem, undefined);
    tt.deepEqual(up(bench.charon), [A, B]);
  });

test('a refused change leaves what is there', async (tt) => {
  const bench = await settled({ ranges: [A] });
  bench.charon.refusals.set('load-conn', 'invalid value for: proposals, config discarded');
  await tt.throwsAsync(bench.reconcile({ ranges: [A, B] }));
  await tt.throwsAsync(bench.reconcile());
  tt.deepEqual(up(bench.charon), [A]);
  bench.charon.refusals.clear();
  await bench.settle();
  tt.deepEqual(up(bench.charon), [A, B]);
  untouched(tt, bench);
});

// A new charon, a new agent

test('a new charon: all is loaded again', async (tt) => {
  const bench = await settled({});
  bench.charon.stop();
  await tt.throwsAsync(bench.tunnel.sas(), { instanceOf: ViciUnavailable });
  bench.tunnel.disconnected();
  bench.charon.restart();
  bench.tunnel.connected(bench.charon.vici);
  tt.is(bench.tunnel.problem, 'nothing has been loaded into charon yet');
  tt.deepEqual(await bench.reconcile(), ['load-shared psk', 'load-conn site', `initiate ${A}`, `initiate ${B}`]);
});

test('charon goes away meanwhile', async (tt) => {
  const bench = new Bench({});
  bench.charon.stop();
  await tt.throwsAsync(bench.reconcile(), { instanceOf: ViciUnavailable });
});

test('a new agent: the SAs stay', async (tt) => {
  const bench = await settled({});
  const before = bench.charon.installed;
  tt.deepEqual(await bench.reconcile({}, bench.newAgent()), ['load-shared psk', 'load-conn site']);
  tt.deepEqual(bench.charon.installed, before);
  untouched(tt, bench);
});

test('a new agent with other ranges', async (tt) => {
  const bench = await settled({ ranges: [A], ipsec: { childSAs: 'one' } });
  const [old] = bench.charon.installed.all ?? [];
  const orders = await bench.reconcile({ ranges: [A, B], ipsec: { childSAs: 'one' } }, bench.newAgent());
  tt.deepEqual(orders, ['load-shared psk', 'load-conn site', 'initiate all', `terminate ${old}`]);
  untouched(tt, bench);
});

test('connections and shared keys of others are unloaded', async (tt) => {
  const bench = new Bench({});
  await bench.charon.vici.request('load-conn', { old: { version: '2', children: {} } });
  await bench.charon.vici.request('load-shared', { id: 'old', type: 'IKE', data: 'x' });
  const orders = await bench.reconcile();
  tt.deepEqual(orders.slice(0, 4), ['load-shared psk', 'unload-shared old', 'unload-conn old', 'load-conn site']);
  tt.deepEqual([...bench.charon.connections.keys()], ['site']);
  tt.deepEqual([...bench.charon.shared.keys()], ['psk']);
});

test('a CHILD_SA by a name that is nowhere in the configuration', async (tt) => {
  const bench = await settled({ ranges: [A] });
  const uid = bench.charon.gatewayDials('site', 'old', ['10.10.0.0/16'], [C]);
  tt.deepEqual(await bench.reconcile(), [`terminate ${uid}`]);
});

test('one that has gone already is no mistake', async (tt) => {
  const bench = await settled({ ranges: [A] });
  bench.charon.gatewayDials('site', 'old', ['10.10.0.0/16'], [C]);
  bench.charon.refusals.set('terminate', 'no matching SAs to terminate found');
  await tt.notThrowsAsync(bench.reconcile());
});

// Dialling

test('the gateway has dialled: we do not', async (tt) => {
  const bench = new Bench({ ranges: [A, B], ipsec: { startAction: 'none' } });
  await bench.reconcile();
  bench.charon.gatewayDials('site', 'all', ['10.0.0.0/8'], [A, B]);
  tt.deepEqual(await bench.reconcile({ ranges: [A, B] }), ['load-conn site']);
});

test('a gateway that refuses: longer and longer between two tries, until one succeeds', async (tt) => {
  const bench = new Bench({ ranges: [A] });
  bench.charon.gateway = 'refuses';
  const waits: number[] = [];
  for (let n = 0; n < 8; n++) waits.push(((await bench.tunnel.reconcile()) as Again).afterMs);
  [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000].forEach((most, i) => {
    const ms = waits[i] ?? 0;
    tt.true(ms >= most / 2 && ms <= most, `${i}: ${ms}`);
  });
  bench.charon.gateway = 'answers';
  await bench.tunnel.reconcile();
  tt.is(await bench.tunnel.reconcile(), undefined);
  bench.charon.ikeSas = [];
  const again = (await bench.tunnel.reconcile()) as Again;
  tt.true(again.afterMs <= 1000, `${again.afterMs}`);
});

test('another configuration is tried soon', async (tt) => {
  const bench = new Bench({ ranges: [A] });
  bench.charon.gateway = 'refuses';
  for (let n = 0; n < 5; n++) await bench.tunnel.reconcile();
  bench.wanted = { ranges: [A], ipsec: { dpdDelay: 5 } };
  tt.true(((await bench.tunnel.reconcile()) as Again).afterMs <= 1000);
});

test('a silent gateway: it is dialled once, and looked at again', async (tt) => {
  const bench = new Bench({ ranges: [A] });
  bench.charon.gateway = 'silent';
  tt.deepEqual(await bench.reconcile(), ['load-shared psk', 'load-conn site', `initiate ${A}`]);
  for (let n = 0; n < 3; n++) {
    const again = (await bench.tunnel.reconcile()) as Again;
    tt.true(again.afterMs >= 100 && again.afterMs <= 30_000);
  }
  tt.deepEqual(bench.charon.takeOrders(), []);
  bench.charon.ikeSas = [];
  tt.deepEqual(await bench.reconcile(), [`initiate ${A}`]);
});

test('charon refuses to dial: no mistake of ours', async (tt) => {
  const bench = new Bench({ ranges: [A] });
  bench.charon.refusals.set('initiate', 'establishing CHILD_SA failed');
  tt.true(((await bench.tunnel.reconcile()) as Again).afterMs > 0);
  tt.is(bench.tunnel.problem, undefined);
});

// Traps

const TRAPS = { ranges: [A, B], ipsec: { startAction: 'trap' } };

test('traps: nobody dials', async (tt) => {
  const bench = new Bench(TRAPS);
  tt.deepEqual(await bench.reconcile(), ['load-shared psk', 'load-conn site']);
  tt.deepEqual([...bench.charon.traps], [A, B]);
  tt.deepEqual(await bench.reconcile(), []);
});

test('a trap that is missing is installed, not that of a passive child', async (tt) => {
  const bench = new Bench(TRAPS);
  bench.charon.installsTraps = false;
  tt.deepEqual((await bench.reconcile()).slice(2), [`install ${A}`, `install ${B}`]);
  bench.charon.traps.delete(A);
  tt.deepEqual(await bench.reconcile(), [`install ${A}`]);
  tt.deepEqual(await bench.reconcile(), []);
});

test('without traps none is looked for', async (tt) => {
  const bench = await settled({});
  await bench.tunnel.reconcile();
  tt.false(bench.charon.requests.some(({ command }) => command === 'list-policies'));
});

test('a trap that cannot be installed: said once, until it could', async (tt) => {
  const warnings = (): number => bench.log.filter((line) => line.startsWith('warn')).length;
  const bench = new Bench({ ...TRAPS, ranges: [A] });
  bench.charon.installsTraps = false;
  bench.charon.refusals.set('install', 'installing policy failed');
  for (let n = 0; n < 3; n++) await bench.reconcile();
  tt.is(bench.tunnel.problem, undefined);
  tt.deepEqual(bench.log.slice(2), ['warn traffic to these ranges does not dial the gateway yet']);
  bench.charon.refusals.clear();
  await bench.reconcile();
  bench.charon.traps.clear();
  bench.charon.refusals.set('install', 'installing policy failed');
  await bench.reconcile();
  tt.is(warnings(), 2);
});

test('trap|start: both', async (tt) => {
  const bench = new Bench({ ranges: [A], ipsec: { startAction: 'trap|start' } });
  await bench.settle();
  tt.deepEqual([...bench.charon.traps], [A]);
  tt.deepEqual(up(bench.charon), [A]);
});

// Plugins

test('a plugin that is missing is named once, and the rest is loaded', async (tt) => {
  const errors = (): string[] => bench.log.filter((line) => line.startsWith('error'));
  const bench = new Bench({ ranges: [A] });
  bench.charon.algorithms = { ...ALGORITHMS, dh: { MODP_3072: 'gmp', CURVE_25519: 'x' } };
  await bench.settle();
  tt.is(errors().length, 1);
  tt.regex(errors()[0] ?? '', /^error charon lacks the plugin/);
  await bench.settle({ ranges: [A, B] });
  tt.is(errors().length, 1);
  tt.deepEqual(up(bench.charon), [A, B]);
});

test('no secret is in the log', async (tt) => {
  const said: string[] = [];
  const charon = new FakeCharon();
  const say = (...all: unknown[]): void => void said.push(JSON.stringify(all));
  const tunnel = new Tunnel({
    log: { info: say, warn: say, error: say },
    metrics: new Bench().metrics,
    desired: () => desiredOf({}),
  });
  tunnel.connected(charon.vici);
  await tunnel.reconcile();
  const psk: Decoded | undefined = charon.shared.get('psk');
  tt.is(psk?.data, 'secret');
  tt.true(said.length > 2);
  tt.false(said.some((line) => /secret"|115,101,99/.test(line)));
});
