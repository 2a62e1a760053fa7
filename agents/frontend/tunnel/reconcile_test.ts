import { createPrivateKey, X509Certificate } from 'node:crypto';
import anyTest, { type ExecutionContext } from 'ava';
import { isRight } from 'fp-ts/lib/Either.js';
import { VpnSpec } from '../../../functions/model/vpn.ts';
import { makeAuthority, type Issued } from '../../../test/certificates.ts';
import { ALGORITHMS, FakeCharon } from '../../../test/fakes/charon.ts';
import type { Log } from '../../lib/log.ts';
import type { CertificateCredentials, Credentials } from '../credentials/decode.ts';
import { createMetrics } from '../metrics.ts';
import { ViciUnavailable } from '../vici/connection.ts';
import { list, sections, type Decoded } from '../vici/message.ts';
import { Tunnel, type Desired } from './reconcile.ts';

/** Time passes where a test says so, and only there; the clock is the same for every test of the file: one after the other. */
let nowMs = 10_000_000;
performance.now = () => nowMs;
const test = anyTest.serial;

const [A, B, C] = ['192.168.50.0/24', '192.168.60.0/24', '192.168.70.0/24'];
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
  /** `level message`, with the children's names where it is about some. */
  readonly log: string[] = [];
  /** When the last run wants another one, in milliseconds; undefined: when something happens. */
  afterMs: number | undefined;
  /** Undefined: there is no configuration yet, or no Secret. */
  wanted: Wanted | undefined;
  readonly metrics = createMetrics(
    () => true,
    async () => [],
  );
  readonly tunnel: Tunnel;

  constructor(wanted?: Wanted) {
    this.wanted = wanted;
    this.tunnel = this.newAgent();
  }

  /** Another process in the place of the agent; it is connected. */
  newAgent(): Tunnel {
    const say = (level: string) => (keys: object, message: string) => {
      const names = 'children' in keys && Array.isArray(keys.children) ? `: ${keys.children.join(' ')}` : '';
      this.log.push(`${level} ${message}${names}`);
    };
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
    this.afterMs = (await tunnel.reconcile())?.afterMs;
    return this.charon.takeOrders();
  }

  /** The same, when the last run wanted it. */
  async later(): Promise<string[]> {
    nowMs += this.afterMs ?? 0;
    return this.reconcile();
  }

  /** Until nothing is left to be done, as soon as something has happened. What charon was told, run by run. */
  async settle(wanted: Wanted | undefined = this.wanted, tunnel = this.tunnel): Promise<string[][]> {
    const runs: string[][] = [];
    for (let round = 0; round < 10; round++) {
      const orders = await this.reconcile(wanted, tunnel);
      if (orders.length === 0 && this.afterMs === undefined) return runs;
      runs.push(orders);
    }
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

const ONE = { childSAs: 'one' };
const STAYS = 'error no SA by the new configuration yet, the old one stays';

test('at first: credentials, the connection, and every child is dialled', async (tt) => {
  const bench = new Bench({});
  tt.is(bench.tunnel.problem, 'nothing has been loaded into charon yet');
  tt.deepEqual(await bench.reconcile(), ['load-shared psk', 'load-conn site', `initiate ${A}`, `initiate ${B}`]);
  tt.is(bench.tunnel.problem, undefined);
  tt.deepEqual(bench.children, [A, B, 'all']);
  tt.deepEqual(up(bench.charon), [A, B]);
  tt.deepEqual(bench.log, ['info credentials loaded', 'info connection loaded']);
});

test('charon is told to begin, not waited for; what resolves a name has a minute', async (tt) => {
  const bench = new Bench({ ranges: [A] });
  bench.charon.gatewayDials('site', 'old', ['10.10.0.0/16'], [C]);
  await bench.tunnel.reconcile();
  const sent = (command: string): unknown => {
    const found = bench.charon.requests.find((request) => request.command === command);
    return command === 'load-conn' ? found?.timeoutMs : [found?.message, found?.timeoutMs];
  };
  const now = { timeout: '-1', loglevel: '-1' };
  tt.deepEqual(sent('initiate'), [{ ike: 'site', child: A, 'init-limits': 'no', ...now }, 60_000]);
  tt.deepEqual(sent('terminate'), [{ 'child-id': '1', ...now }, undefined]);
  tt.is(sent('load-conn'), 60_000);
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
});

// Changes

test('a range more', async (tt) => {
  const bench = await settled({ ranges: [A] });
  tt.deepEqual(await bench.reconcile({ ranges: [A, B] }), ['load-conn site', `initiate ${B}`]);
  tt.deepEqual(await bench.settle(), []);
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
    const bench = await settled({ ranges: [A], ipsec: ONE });
    const [old] = bench.charon.installed.all ?? [];
    bench.charon.looks = looks;
    tt.deepEqual(await bench.reconcile({ ranges: [A, B], ipsec: ONE }), ['load-conn site', 'initiate all']);
    for (let look = 0; look < looks; look++) tt.deepEqual(await bench.reconcile(), []);
    tt.deepEqual(await bench.reconcile(), [`terminate ${old}`]);
    const [now = ''] = bench.charon.installed.all ?? [];
    tt.deepEqual(bench.remoteTs(now), [A, B]);
    tt.deepEqual(bench.charon.installed, { all: [now] });
    untouched(tt, bench);
    tt.deepEqual(await bench.settle(), []);
  });

test('of two children the one that is changed is replaced', async (tt) => {
  const many = Array.from({ length: 200 }, (_, n) => `172.16.${n}.0/24`);
  const bench = await settled({ ranges: many });
  const before = bench.charon.installed;
  const orders = (await bench.settle({ ranges: [...many, '172.17.0.0/24'] })).flat();
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
  tt.deepEqual(await bench.settle({ ipsec: { rekeyTime: 1800 } }), [
    ['load-conn site', `initiate ${A}`, `initiate ${B}`],
    [`terminate ${a?.[0]}`, `terminate ${b?.[0]}`],
  ]);
  untouched(tt, bench);
});

test('each child is replaced for itself', async (tt) => {
  const bench = await settled({ ranges: [A, B] });
  const { [A]: a, [B]: b } = bench.charon.installed;
  bench.charon.refusedChildren.add(B);
  await bench.reconcile({ ipsec: { rekeyTime: 1800 } });
  tt.deepEqual(await bench.reconcile(), [`terminate ${a?.[0]}`]);
  tt.deepEqual(bench.charon.installed[B], b);
  bench.charon.refusedChildren.clear();
  tt.deepEqual(await bench.later(), [`initiate ${B}`]);
  tt.deepEqual(await bench.settle(), [[`terminate ${b?.[0]}`]]);
  untouched(tt, bench);
});

test('changed again before the first change was through: the last one is what counts', async (tt) => {
  const bench = await settled({ ranges: [A], ipsec: ONE });
  const [first] = bench.charon.installed.all ?? [];
  await bench.reconcile({ ranges: [A, B], ipsec: ONE });
  const [, second] = bench.charon.installed.all ?? [];
  tt.deepEqual(await bench.settle({ ranges: [A, B, C], ipsec: ONE }), [
    ['load-conn site', 'initiate all'],
    [`terminate ${first}`, `terminate ${second}`],
  ]);
  tt.deepEqual(bench.remoteTs(bench.charon.installed.all?.[0] ?? ''), [A, B, C]);
  untouched(tt, bench);
});

test('a failed replacement keeps the old SA, says so once, and is tried again until it succeeds', async (tt) => {
  const said = (): string[] => bench.log.filter((line) => line.startsWith('error'));
  const bench = await settled({ ranges: [A], ipsec: ONE });
  const before = bench.charon.installed;
  bench.charon.gateway = 'refuses';
  tt.deepEqual(await bench.reconcile({ ranges: [A, B], ipsec: ONE }), ['load-conn site', 'initiate all']);
  for (const tries of [1, 2, 3, 4, 5]) {
    tt.is(said().length, 0, `${tries}`);
    tt.deepEqual(bench.charon.installed, before);
    tt.deepEqual(await bench.later(), ['initiate all']);
    if (tries === 3) tt.deepEqual(said(), [`${STAYS}: all`]);
    if (tries >= 3) bench.log.splice(0);
  }
  bench.charon.gateway = 'answers';
  tt.deepEqual(await bench.later(), ['initiate all']);
  tt.deepEqual(await bench.settle(), [[`terminate ${before.all?.[0]}`]]);
  untouched(tt, bench);

  // Another time it is said again.
  bench.charon.gateway = 'refuses';
  await bench.reconcile({ ranges: [A, B, C], ipsec: ONE });
  for (const tries of [1, 2, 3, 4]) tt.deepEqual(await bench.later(), ['initiate all'], `${tries}`);
  tt.deepEqual(said(), [`${STAYS}: all`]);
});

test('what is refused without an old SA is not said: nothing stays', async (tt) => {
  const bench = new Bench({ ranges: [A] });
  bench.charon.gateway = 'refuses';
  await bench.reconcile();
  for (let n = 0; n < 5; n++) await bench.later();
  tt.deepEqual(
    bench.log.filter((line) => line.startsWith('error')),
    [],
  );
});

test('rekeyed: the old SA is listed for a while, and stands for nothing', async (tt) => {
  const bench = await settled({ ranges: [A] });
  bench.charon.rekey(A);
  tt.deepEqual(bench.charon.installed, { [A]: ['2'] });
  tt.deepEqual(await bench.settle(), []);
  const [sa] = bench.charon.ikeSas;
  if (sa !== undefined) sa.children = sa.children.filter(({ uid }) => uid === '1');
  tt.deepEqual(await bench.reconcile(), [`initiate ${A}`]);
});

test("another child's new SA is not the one that is waited for", async (tt) => {
  const bench = await settled({ ranges: [A], ipsec: ONE });
  const before = bench.charon.installed;
  bench.charon.gateway = 'refuses';
  tt.deepEqual(await bench.reconcile({ ranges: [A, B], ipsec: ONE }), ['load-conn site', 'initiate all']);
  const uid = bench.charon.gatewayDials('site', 'other', ['10.10.0.0/16'], [C]);
  tt.deepEqual(await bench.reconcile(), [`terminate ${uid}`]);
  tt.deepEqual(await bench.reconcile(), []);
  tt.deepEqual(bench.charon.installed, before);
});

test('the gateway dials what is to be replaced', async (tt) => {
  const bench = await settled({ ranges: [A], ipsec: ONE });
  const [old] = bench.charon.installed.all ?? [];
  bench.charon.gateway = 'refuses';
  await bench.reconcile({ ranges: [A, B], ipsec: ONE });
  const uid = bench.charon.gatewayDials('site', 'all', ['10.10.0.0/16'], [A, B]);
  tt.deepEqual(await bench.settle(), [[`terminate ${old}`]]);
  tt.deepEqual(bench.charon.installed, { all: [uid] });
});

test('the old SA ends while its replacement is refused: it is dialled as before', async (tt) => {
  const bench = await settled({ ranges: [A], ipsec: ONE });
  bench.charon.gateway = 'refuses';
  await bench.reconcile({ ranges: [A, B], ipsec: ONE });
  bench.charon.ikeSas = [];
  tt.deepEqual(await bench.reconcile(), []);
  bench.charon.gateway = 'answers';
  tt.deepEqual(await bench.later(), ['initiate all']);
  tt.deepEqual(await bench.settle(), []);
});

test('what only the gateway dials is not replaced', async (tt) => {
  const none = { startAction: 'none' };
  const bench = await settled({ ranges: [A], ipsec: none });
  const uid = bench.charon.gatewayDials('site', 'all', ['10.10.0.0/16'], [A]);
  tt.deepEqual(await bench.settle({ ranges: [A, B], ipsec: none }), [['load-conn site']]);
  tt.deepEqual(bench.charon.installed, { all: [uid] });
});

test('another cipher suite: another IKE_SA takes the place of the old one', async (tt) => {
  const bench = await settled({ ranges: [A], ipsec: { childSAs: 'one' } });
  const [old] = bench.charon.ikeSas;
  const ipsec = { childSAs: 'one', proposals: { ike: ['aes256gcm16-prfsha384-ecp384'] } };
  tt.deepEqual(await bench.settle({ ranges: [A], ipsec }), [
    ['load-conn site', 'initiate all'],
    [`terminate ${old?.uid}`],
  ]);
  tt.is(bench.charon.ikeSas.length, 1);
  tt.not(bench.charon.ikeSas[0]?.uid, old?.uid);
  untouched(tt, bench);
});

test('another identity of ours', async (tt) => {
  const bench = await settled({ ranges: [A] });
  const [old] = bench.charon.ikeSas;
  tt.deepEqual(await bench.settle({ ranges: [A], localId: 'me' }), [
    ['load-conn site', `initiate ${A}`],
    [`terminate ${old?.uid}`],
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

test('another IKE_SA: while its children come one after the other, the old one stays', async (tt) => {
  const bench = await settled({ ranges: [A, B] });
  const [old] = bench.charon.ikeSas;
  bench.charon.refusedChildren.add(B);
  tt.deepEqual(await bench.reconcile({ ipsec: { dpdDelay: 5 } }), ['load-conn site', `initiate ${A}`, `initiate ${B}`]);
  tt.deepEqual(await bench.reconcile(), []);
  bench.charon.refusedChildren.clear();
  tt.deepEqual(await bench.later(), [`initiate ${B}`]);
  tt.deepEqual(await bench.settle(), [[`terminate ${old?.uid}`]]);
  untouched(tt, bench);
});

test('another IKE_SA while the old child is being rekeyed: that one carries traffic, too', async (tt) => {
  const bench = await settled({ ranges: [A] });
  const [child] = bench.charon.ikeSas[0]?.children ?? [];
  if (child !== undefined) child.state = 'REKEYING';
  bench.charon.gateway = 'refuses';
  tt.deepEqual(await bench.reconcile({ ranges: [A], ipsec: { dpdDelay: 5 } }), ['load-conn site', `initiate ${A}`]);
});

test('another IKE_SA that is silent: it is waited for, and the old one stays', async (tt) => {
  const bench = await settled({ ranges: [A] });
  const before = bench.charon.installed;
  const [old] = bench.charon.ikeSas;
  bench.charon.gateway = 'silent';
  tt.deepEqual(await bench.reconcile({ ranges: [A], ipsec: { dpdDelay: 5 } }), ['load-conn site', `initiate ${A}`]);
  for (let n = 0; n < 3; n++) tt.deepEqual(await bench.later(), []);
  tt.deepEqual(bench.charon.installed, before);
  bench.charon.ikeSas = bench.charon.ikeSas.slice(0, 1);
  bench.charon.gateway = 'answers';
  tt.deepEqual(await bench.later(), [`initiate ${A}`]);
  tt.deepEqual(await bench.settle(), [[`terminate ${old?.uid}`]]);
  untouched(tt, bench);
});

test('another IKE_SA, and a range that the gateway has refused all the time', async (tt) => {
  const bench = new Bench({ ranges: [A, B] });
  bench.charon.refusedChildren.add(B);
  await bench.reconcile();
  const [old] = bench.charon.ikeSas;
  await bench.reconcile({ ranges: [A, B], ipsec: { dpdDelay: 5 } });
  tt.deepEqual(await bench.reconcile(), [`terminate ${old?.uid}`]);
  tt.is(bench.charon.installed[A]?.length, 1);
  untouched(tt, bench);
});

test('a gateway that never answered is given up as soon as there is another one', async (tt) => {
  const bench = new Bench({ ranges: [A], ipsec: { peer: '192.0.2.99' } });
  bench.charon.gateway = 'silent';
  await bench.reconcile();
  const [old] = bench.charon.ikeSas;
  // The other one is not up yet, either.
  bench.charon.gateway = 'refuses';
  tt.deepEqual(await bench.reconcile({ ranges: [A] }), ['load-conn site', `terminate ${old?.uid}`, `initiate ${A}`]);
  bench.charon.gateway = 'answers';
  tt.deepEqual(await bench.later(), [`initiate ${A}`]);
  tt.deepEqual(up(bench.charon), [A]);
});

test('another IKE_SA while the gateway has dialled all', async (tt) => {
  const bench = await settled({ ipsec: { startAction: 'none' } });
  bench.charon.gatewayDials('site', 'all', ['10.0.0.0/8'], [A, B]);
  await bench.settle({ ranges: [A, B] });
  const [old] = bench.charon.ikeSas;
  tt.deepEqual(await bench.settle({ ranges: [A, B], ipsec: { dpdDelay: 5 } }), [
    ['load-conn site', `initiate ${A}`, `initiate ${B}`],
    [`terminate ${old?.uid}`],
  ]);
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
  const bench = await settled({ ranges: [A] });
  const before = bench.charon.installed;
  bench.charon.gateway = 'refuses';
  tt.deepEqual(await bench.reconcile({ ranges: [A], ipsec: { dpdDelay: 5 } }), ['load-conn site', `initiate ${A}`]);
  for (let n = 0; n < 4; n++) tt.deepEqual(await bench.later(), [`initiate ${A}`]);
  tt.deepEqual(bench.charon.installed, before);
  const said = (): string[] => bench.log.filter((line) => line.startsWith('error'));
  tt.deepEqual(said(), [`${STAYS}: ${A}`]);

  // It is over, and another time it is said again.
  bench.charon.gateway = 'answers';
  await bench.later();
  await bench.settle();
  bench.charon.gateway = 'refuses';
  await bench.reconcile({ ranges: [A], ipsec: { dpdDelay: 6 } });
  for (let n = 0; n < 4; n++) await bench.later();
  tt.is(said().length, 2);
});

for (const [what, change] of [
  ['CHILD_SA', { rekeyTime: 1800 }],
  ['IKE_SA', { dpdDelay: 5 }],
] as const)
  test(`the old configuration again before another ${what} stands: the old one is good again`, async (tt) => {
    const bench = await settled({ ranges: [A] });
    const before = bench.charon.installed;
    bench.charon.gateway = 'refuses';
    await bench.reconcile({ ranges: [A], ipsec: change });
    await bench.later();
    bench.charon.gateway = 'answers';
    tt.deepEqual(await bench.settle({ ranges: [A] }), [['load-conn site']]);
    tt.deepEqual(bench.charon.installed, before);
  });

test('changed twice while the gateway refuses: the first one is not good again', async (tt) => {
  const bench = await settled({ ranges: [A] });
  const [old] = bench.charon.ikeSas;
  const [child] = old?.children ?? [];
  bench.charon.gateway = 'refuses';
  await bench.reconcile({ ranges: [A], ipsec: { dpdDelay: 5 } });
  bench.charon.gateway = 'answers';
  tt.deepEqual(await bench.settle({ ranges: [A], ipsec: { dpdDelay: 5, rekeyTime: 1800 } }), [
    ['load-conn site', `initiate ${A}`],
    // Its child is outdated as well.
    [`terminate ${child?.uid}`, `terminate ${old?.uid}`],
  ]);
});

test('the old configuration again after one child of the other stands: that one goes', async (tt) => {
  const bench = await settled({ ranges: [A, B] });
  const before = bench.charon.installed;
  bench.charon.refusedChildren.add(B);
  await bench.reconcile({ ipsec: { dpdDelay: 5 } });
  const [, other] = bench.charon.ikeSas;
  bench.charon.refusedChildren.clear();
  tt.deepEqual(await bench.settle({}), [['load-conn site', `terminate ${other?.uid}`]]);
  tt.deepEqual(bench.charon.installed, before);
  untouched(tt, bench);
});

// Credentials

const der = ({ certificate }: Issued): Buffer => new X509Certificate(certificate).raw;
async function newCertificate(): Promise<CertificateCredentials> {
  const authority = await makeAuthority('root');
  const leaf = await authority.issue({ subject: 'CN=vpn' });
  return {
    kind: 'certificate',
    chain: [der(leaf)],
    authorities: [der(authority)],
    key: createPrivateKey(leaf.key).export({ format: 'der', type: 'pkcs8' }),
    keyType: 'ecdsa',
    subject: 'CN=vpn',
    expires: new Date(0),
    authoritiesExpire: [new Date(0)],
  };
}

test('another key: loaded, and the SAs stay', async (tt) => {
  const bench = await settled({});
  tt.deepEqual(await bench.reconcile({ credentials: { kind: 'psk', psk: Buffer.from('another') } }), [
    'load-shared psk',
  ]);
  untouched(tt, bench);
});

test('a certificate that is read again is the same', async (tt) => {
  const ipsec = { pskSecretRef: undefined, certificate: { secretRef: { name: 'tls' } } };
  const credentials = await newCertificate();
  const bench = await settled({ ipsec, credentials });
  tt.deepEqual(
    await bench.reconcile({ ipsec, credentials: { ...credentials, key: Buffer.from(credentials.key) } }),
    [],
  );
  tt.deepEqual(await bench.reconcile({ ipsec, credentials: await newCertificate() }), [
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

test('a key that was refused may be half loaded: the old one is loaded again', async (tt) => {
  const bench = await settled({});
  bench.charon.refusals.set('load-shared', 'no');
  await tt.throwsAsync(bench.reconcile({ credentials: { kind: 'psk', psk: Buffer.from('another') } }));
  bench.charon.refusals.clear();
  tt.deepEqual(await bench.reconcile({}), ['load-shared psk']);
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
    tt.deepEqual([...bench.charon.shared.keys()], ['psk']);
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

test('a refused change, and then a good one: what the last good one made is replaced', async (tt) => {
  const bench = await settled({ ranges: [A] });
  const [old] = bench.charon.ikeSas;
  bench.charon.refusals.set('load-conn', 'invalid value for: proposals, config discarded');
  await tt.throwsAsync(bench.reconcile({ ranges: [A], ipsec: { dpdDelay: 5 } }));
  bench.charon.refusals.clear();
  tt.deepEqual(await bench.settle({ ranges: [A], ipsec: { dpdDelay: 6 } }), [
    ['load-conn site', `initiate ${A}`],
    [`terminate ${old?.uid}`],
  ]);
  untouched(tt, bench);
});

// A new charon, a new agent

test('a new charon: all is loaded again', async (tt) => {
  const bench = await settled({});
  bench.charon.stop();
  await tt.throwsAsync(bench.reconcile(), { instanceOf: ViciUnavailable });
  bench.tunnel.disconnected();
  bench.charon.restart();
  bench.tunnel.connected(bench.charon.vici);
  tt.is(bench.tunnel.problem, 'nothing has been loaded into charon yet');
  tt.deepEqual(await bench.reconcile(), ['load-shared psk', 'load-conn site', `initiate ${A}`, `initiate ${B}`]);
});

test('a new charon counts its SAs from 1: what was outdated before is not meant', async (tt) => {
  for (const change of [{ rekeyTime: 1800 }, { dpdDelay: 5 }]) {
    const bench = await settled({ ranges: [A] });
    const { installed, ikeSas } = bench.charon;
    bench.charon.gateway = 'refuses';
    await bench.reconcile({ ranges: [A], ipsec: change });
    bench.tunnel.disconnected();
    bench.charon.restart();
    bench.tunnel.connected(bench.charon.vici);
    bench.charon.gateway = 'answers';
    // Whatever was tried before.
    tt.deepEqual(await bench.settle(), [['load-shared psk', 'load-conn site', `initiate ${A}`]]);
    tt.deepEqual(bench.charon.installed, installed);
    tt.is(bench.charon.ikeSas[0]?.uid, ikeSas[0]?.uid);
  }
});

test('nor is one that the gateway has made with a new charon before we look', async (tt) => {
  for (const change of [{ rekeyTime: 1800 }, { dpdDelay: 5 }]) {
    const bench = await settled({ ranges: [A] });
    const { installed } = bench.charon;
    bench.charon.gateway = 'refuses';
    await bench.reconcile({ ranges: [A], ipsec: change });
    bench.tunnel.disconnected();
    bench.charon.restart();
    bench.tunnel.connected(bench.charon.vici);
    bench.charon.gatewayDials('site', A, ['10.10.0.0/16'], [A]);
    tt.deepEqual(bench.charon.installed, installed, 'the same numbers');
    tt.deepEqual(await bench.settle(), [['load-shared psk', 'load-conn site']]);
  }
});

for (const command of ['get-keys', 'load-conn', 'list-sas', 'initiate', 'terminate'])
  test(`charon goes away at ${command}: that is told, and no mistake of the configuration`, async (tt) => {
    const bench = new Bench({ ranges: [A], ipsec: { startAction: 'trap|start' } });
    bench.charon.gatewayDials('site', 'old', ['10.10.0.0/16'], [C]);
    bench.charon.diesAt = command;
    await tt.throwsAsync(bench.reconcile(), { instanceOf: ViciUnavailable });
    tt.deepEqual(
      bench.log.filter((line) => !line.startsWith('info')),
      [],
    );
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
  const runs = await bench.settle({ ranges: [A, B], ipsec: { childSAs: 'one' } }, bench.newAgent());
  tt.deepEqual(runs, [['load-shared psk', 'load-conn site', 'initiate all'], [`terminate ${old}`]]);
  untouched(tt, bench);
});

const INSIDE = { ranges: ['10.32.0.0/11', '10.33.0.0/16', A], ipsec: { childSAs: 'one' } };
test('a new agent, and ranges inside others, which charon leaves out: the SAs stay', async (tt) => {
  const bench = await settled(INSIDE);
  const before = bench.charon.installed;
  tt.deepEqual(bench.remoteTs(before.all?.[0] ?? ''), ['10.32.0.0/11', A]);
  tt.deepEqual(await bench.settle(INSIDE, bench.newAgent()), [['load-shared psk', 'load-conn site']]);
  tt.deepEqual(bench.charon.installed, before);
});

test('a range inside another one more or less: the SA stays', async (tt) => {
  const bench = await settled(INSIDE);
  const before = bench.charon.installed;
  tt.deepEqual(await bench.settle({ ...INSIDE, ranges: ['10.32.0.0/11', A] }), [['load-conn site']]);
  tt.deepEqual(await bench.settle(INSIDE), [['load-conn site']]);
  tt.deepEqual(bench.charon.installed, before);
  const [, ...rest] = INSIDE.ranges;
  const [[, ...orders] = []] = await bench.settle({ ...INSIDE, ranges: rest });
  tt.deepEqual(orders, ['initiate all']);
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
  tt.deepEqual(await bench.settle({ ranges: [A, B] }), [['load-conn site']]);
});

test('a gateway that refuses: longer and longer between two tries, until one succeeds', async (tt) => {
  const bench = new Bench({ ranges: [A] });
  bench.charon.gateway = 'refuses';
  await bench.reconcile();
  for (const most of [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]) {
    const ms = bench.afterMs ?? 0;
    tt.true(ms >= most / 2 && ms <= most, `${most}: ${ms}`);
    tt.deepEqual(await bench.later(), [`initiate ${A}`]);
  }
  bench.charon.gateway = 'answers';
  tt.deepEqual(await bench.later(), [`initiate ${A}`]);
  await bench.reconcile();
  tt.is(bench.afterMs, undefined);
  bench.charon.ikeSas = [];
  tt.deepEqual(await bench.reconcile(), [`initiate ${A}`]);
  tt.true((bench.afterMs ?? 0) <= 1000, `${bench.afterMs}`);
});

test('whatever happens meanwhile, the next try is not before its time', async (tt) => {
  const bench = new Bench({ ranges: [A] });
  bench.charon.gateway = 'refuses';
  await bench.reconcile();
  const whole = bench.afterMs ?? 0;
  for (const part of [0, 0.25, 0.5]) {
    nowMs += whole / 4;
    tt.deepEqual(await bench.reconcile(), []);
    tt.true(Math.abs((bench.afterMs ?? 0) - whole * (0.75 - part)) < 1, `${part}: ${bench.afterMs}`);
  }
  tt.deepEqual(await bench.later(), [`initiate ${A}`]);
  // These looks were no tries.
  tt.true((bench.afterMs ?? 0) <= 2000);
});

test('each child has a time of its own: what ends beside one that is refused is dialled at once', async (tt) => {
  const bench = new Bench({ ranges: [A, B] });
  bench.charon.refusedChildren.add(A);
  for (let n = 0; n < 2; n++) await bench.reconcile();
  for (let n = 0; n < 4; n++) tt.deepEqual(await bench.later(), [`initiate ${A}`]);
  const [sa] = bench.charon.ikeSas;
  if (sa !== undefined) sa.children = [];
  tt.deepEqual(await bench.reconcile(), [`initiate ${B}`]);
  tt.true((bench.afterMs ?? 0) <= 1000, 'the sooner one is when to look again');
  tt.deepEqual(await bench.later(), []);
  tt.true((bench.afterMs ?? 0) > 1000);
});

test('a new range is dialled at once although another one is refused', async (tt) => {
  const bench = new Bench({ ranges: [A] });
  bench.charon.refusedChildren.add(A);
  await bench.reconcile();
  for (let n = 0; n < 4; n++) await bench.later();
  tt.true((await bench.reconcile({ ranges: [A, B] })).includes(`initiate ${B}`));
  tt.deepEqual(up(bench.charon), [B]);
});

test('another configuration is tried soon', async (tt) => {
  const bench = new Bench({ ranges: [A] });
  bench.charon.gateway = 'refuses';
  await bench.reconcile();
  for (let n = 0; n < 5; n++) await bench.later();
  tt.deepEqual(await bench.reconcile({ ranges: [A], ipsec: { dpdDelay: 5 } }), ['load-conn site', `initiate ${A}`]);
  tt.true((bench.afterMs ?? 0) <= 1000);
});

test('a silent gateway: it is dialled once, and looked at again', async (tt) => {
  const bench = new Bench({ ranges: [A] });
  bench.charon.gateway = 'silent';
  tt.deepEqual(await bench.reconcile(), ['load-shared psk', 'load-conn site', `initiate ${A}`]);
  for (let n = 0; n < 3; n++) {
    tt.deepEqual(await bench.later(), []);
    tt.true((bench.afterMs ?? 0) >= 100 && (bench.afterMs ?? 0) <= 30_000);
  }
  bench.charon.ikeSas = [];
  tt.deepEqual(await bench.later(), [`initiate ${A}`]);
  tt.true((bench.afterMs ?? 0) > 1000 - 1, 'the second try');
});

test('charon refuses to dial: no mistake of ours', async (tt) => {
  const bench = new Bench({ ranges: [A] });
  bench.charon.refusals.set('initiate', 'establishing CHILD_SA failed');
  await bench.reconcile();
  tt.true((bench.afterMs ?? 0) > 0);
  tt.is(bench.tunnel.problem, undefined);
});

// Traps

const TRAPS = { ranges: [A, B], ipsec: { startAction: 'trap' } };

test('traps: nobody dials', async (tt) => {
  const bench = new Bench(TRAPS);
  tt.deepEqual(await bench.reconcile(), ['load-shared psk', 'load-conn site']);
  tt.deepEqual(bench.charon.traps, [A, B]);
  tt.deepEqual(await bench.reconcile(), []);
});

test('traps: what ends is left to traffic', async (tt) => {
  const bench = new Bench(TRAPS);
  await bench.settle();
  await bench.charon.vici.request('initiate', { ike: 'site', child: A });
  tt.deepEqual(await bench.settle(), []);
  bench.charon.ikeSas = [];
  tt.deepEqual(await bench.settle(), []);
});

for (const [what, change] of [
  ['CHILD_SA', { rekeyTime: 1800 }],
  ['IKE_SA', { dpdDelay: 5 }],
] as const)
  test(`traps: an outdated ${what} is replaced, and no other one is made`, async (tt) => {
    const bench = new Bench(TRAPS);
    await bench.settle();
    await bench.charon.vici.request('initiate', { ike: 'site', child: A });
    const [old] = bench.charon.ikeSas;
    const uid = what === 'IKE_SA' ? old?.uid : old?.children[0]?.uid;
    tt.deepEqual(await bench.settle({ ...TRAPS, ipsec: { ...TRAPS.ipsec, ...change } }), [
      ['load-conn site', `initiate ${A}`],
      [`terminate ${uid}`],
    ]);
    tt.deepEqual(up(bench.charon), [A]);
    untouched(tt, bench);
  });

test('trap|start: both', async (tt) => {
  const bench = new Bench({ ranges: [A], ipsec: { startAction: 'trap|start' } });
  await bench.settle();
  tt.deepEqual(bench.charon.traps, [A]);
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
  tt.is(said.length, 2);
  tt.false(said.some((line) => /secret"|115,101,99/.test(line)));
});
