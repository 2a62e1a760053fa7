import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import test, { type ExecutionContext } from 'ava';
import type { Vpn } from '../../../functions/model/vpn.ts';
import { CiliumAPI } from '../../../test/fakes/cilium-api.ts';
import { kubeconfigText, listen, makeCertificate, type Certificate } from '../../../test/fakes/https-server.ts';
import { configOf, goodSite, goodSpec } from '../../../test/functions/items.ts';
import { KubeClient } from '../../lib/kube/client.ts';
import type { Pod } from '../../lib/kube/objects.ts';
import { createLog } from '../../lib/log.ts';
import { createMetrics, type Metrics } from '../metrics.ts';
import type { Frontend } from '../frontends.ts';
import { CiliumApi, CiliumError } from './api.ts';
import { LostRangesCheck } from './lost-ranges.ts';

const STEERED = { identity: 40_000, metadata: { source: 'custom-resource' } };
const POLICY = { identity: 16_777_217, metadata: { source: 'generated' } };
const PORT = 9811;

/** Time passes where a test says so, and only there. */
let nowMs = 10_000_000;
performance.now = () => nowMs;
const pass = (ms: number): void => {
  nowMs += ms;
};

let folder = '';
let certificate: Certificate;
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-lost-'));
  certificate = await makeCertificate(folder, 'test');
});
test.after.always(() => rm(folder, { recursive: true, force: true }));

function pod(
  name: string,
  ip: string | undefined,
  { site, phase = 'Running' }: { site?: string; phase?: string } = {},
): Pod {
  return {
    metadata: {
      name,
      uid: `uid-${name}`,
      resourceVersion: '1',
      ...(site === undefined ? {} : { labels: { 'constellation-vpn.io/site': site } }),
    },
    status: { phase, ...(ip === undefined ? {} : { podIPs: [{ ip }] }) },
  };
}

interface Bench {
  readonly agent: CiliumAPI;
  readonly check: LostRangesCheck;
  /** What the API server answers, by component. */
  readonly pods: { frontend: readonly Pod[]; 'endpoint-sync': readonly Pod[] };
  /** Queries of the API server. */
  readonly lists: string[];
  /** `address method path body` of each hint. */
  readonly hints: string[];
  /** Starts another endpoint-sync; answers its address. */
  endpointSync(status?: () => number): Promise<string>;
  /** `level msg cidr kind part` of each record. */
  readonly said: string[];
  readonly metrics: Metrics;
  vpn: Vpn | undefined;
  /** Frontends of this node. */
  here: readonly Frontend[];
  /** When it is to be looked at again. */
  look(): Promise<number | undefined>;
  /** Ranges that endpoint-sync can bring back: `pod cidr`. */
  lost(): string[];
}

let benches = 0;
async function start(tt: ExecutionContext, vpn: Vpn | undefined): Promise<Bench> {
  tt.timeout(20_000);
  const own = join(folder, String(benches++));
  await mkdir(own);
  const agent = await CiliumAPI.start(own);
  for (const { peerCIDRs } of vpn?.sites ?? []) for (const cidr of peerCIDRs) agent.ipcache.set(cidr, STEERED);
  agent.ipcache.set('10.10.0.5/32', STEERED);

  const pods: Bench['pods'] = { frontend: [pod('f-0', '10.10.0.5')], 'endpoint-sync': [] };
  const lists: string[] = [];
  const { url, close } = await listen(certificate, (request, response) =>
    list(request.url ?? '', response, pods, lists),
  );
  const kubeconfig = join(own, 'kubeconfig.json');
  await writeFile(kubeconfig, kubeconfigText(url, join(folder, 'test.crt'), { token: 'hunter2' }));
  const kube = new KubeClient(kubeconfig, 'test');
  tt.teardown(async () => {
    kube.close();
    close();
    await agent.stop();
  });

  const hints: string[] = [];
  const said: string[] = [];
  const log = createLog('test', {
    write: (line) => {
      const { level, msg, cidr, kind, part } = JSON.parse(line) as Record<string, string>;
      said.push([level, msg, cidr, kind, part].filter((word) => word !== undefined).join(' '));
    },
  });
  const metrics = createMetrics(() => true);
  const check = new LostRangesCheck({
    kube,
    log,
    metrics,
    namespace: 'vpn',
    node: 'node-a',
    cilium: new CiliumApi(own),
    vpn: () => bench.vpn,
    frontends: () => bench.here,
  });
  const bench: Bench = {
    agent,
    check,
    pods,
    lists,
    hints,
    said,
    metrics,
    vpn,
    here: [],
    endpointSync: (status = () => 200) => endpointSync(tt, hints, status),
    look: async () => ((await check.reconcile()) ?? undefined)?.afterMs,
    lost: () => check.lost.map(({ pod, cidr }) => `${pod} ${cidr}`),
  };
  return bench;
}

function list(url: string, response: ServerResponse, pods: Bench['pods'], lists: string[]): void {
  lists.push(url);
  const component = /component%3D(frontend|endpoint-sync)&/.exec(url)?.[1] as keyof typeof pods;
  response.end(JSON.stringify({ metadata: { resourceVersion: '1' }, items: pods[component] }));
}

/** Its port is always the same, its address is not. */
async function endpointSync(tt: ExecutionContext, hints: string[], status: () => number): Promise<string> {
  const address = `127.${randomInt(1, 255)}.${randomInt(256)}.${randomInt(1, 255)}`;
  const take = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    hints.push(`${address} ${request.method} ${request.url} ${await text(request)}`);
    response.writeHead(status()).end();
  };
  const server = createServer((request, response) => void take(request, response));
  await once(server.listen(PORT, address), 'listening');
  tt.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  return address;
}

const DUAL = configOf(goodSpec({ peerCIDRs: ['10.8.0.0/16', 'fd12::/48'] })).vpn;
const LOST = 'error Cilium has lost this range here 10.8.0.0/16';
const ALL_KNOWN = 'info Cilium knows every range here';

async function counted({ metrics }: Bench): Promise<number | undefined> {
  return (await metrics.lostRanges.get()).values[0]?.value;
}

/** Whether it ever found out what there is to know, and told it. */
async function succeeded({ metrics }: Bench): Promise<boolean> {
  const { values } = await metrics.lastSuccess.get();
  return values.some(({ labels, value }) => labels.task === 'lost-ranges' && value > 0);
}

test.serial('no configuration yet: nobody is asked', async (tt) => {
  const bench = await start(tt, undefined);
  tt.is(await bench.look(), undefined);
  tt.deepEqual(bench.agent.requests, []);
  tt.deepEqual(bench.lost(), []);
  tt.false(await succeeded(bench));
});

test.serial('all is well: one question a range, and nobody else is asked', async (tt) => {
  const bench = await start(tt, DUAL);
  tt.is(await bench.look(), undefined);
  tt.deepEqual(
    bench.agent.requests.map(({ path }) => path),
    ['/v1/ip?cidr=10.8.0.0/16', '/v1/ip?cidr=fd12::/48'],
  );
  tt.deepEqual([bench.lists, bench.hints, bench.said, bench.lost()], [[], [], [], []]);
  tt.true(await succeeded(bench));
  tt.is(await counted(bench), 0);
});

/** All ranges, but not the frontends' own addresses. */
const loseAll = ({ agent, pods }: Bench): void => {
  agent.ipcache.clear();
  for (const { status } of pods.frontend)
    for (const { ip } of status?.podIPs ?? []) agent.ipcache.set(ip.includes(':') ? `${ip}/128` : `${ip}/32`, STEERED);
};

test.serial('missing for ten seconds: lost, said once and told; then there again, and told that once', async (tt) => {
  const bench = await start(tt, DUAL);
  const address = await bench.endpointSync();
  bench.pods['endpoint-sync'] = [pod('s-0', address)];
  const hint = `${address} POST /lost-ranges {"node":"node-a"}`;

  bench.agent.ipcache.delete('10.8.0.0/16');
  tt.is(await bench.look(), 10_000);
  pass(9_999);
  tt.is(await bench.look(), 10_000);
  tt.deepEqual([bench.lost(), bench.hints, bench.said], [[], [], []]);
  tt.is(await counted(bench), 0);

  pass(1);
  // Told at each look: an endpoint-sync that starts anew has forgotten it.
  for (const hints of [[hint], [hint, hint]]) {
    tt.is(await bench.look(), undefined);
    tt.deepEqual([bench.lost(), bench.hints, bench.said], [['f-0 10.8.0.0/16'], hints, [`${LOST} missing`]]);
    tt.is(await counted(bench), 1);
  }

  bench.agent.ipcache.set('10.8.0.0/16', STEERED);
  tt.is(await bench.look(), undefined);
  tt.deepEqual([bench.lost(), bench.hints, bench.said], [[], [hint, hint, hint], [`${LOST} missing`, ALL_KNOWN]]);
  tt.is(await bench.look(), undefined);
  tt.is(bench.hints.length, 3);
  tt.is(await counted(bench), 0);
});

test.serial(
  'not even the frontend is known here: what lists both is late, and endpoint-sync can’t help',
  async (tt) => {
    const bench = await start(tt, configOf(goodSpec({ peerCIDRs: ['10.8.0.0/16'] })).vpn);
    bench.agent.ipcache.clear();
    await bench.look();
    pass(10_000);
    await bench.look();
    tt.deepEqual(
      [bench.lost(), bench.hints, bench.said],
      [[], [], ['error Cilium does not know yet where this range is 10.8.0.0/16 behind']],
    );
  },
);

test.serial('the frontend runs here, and Cilium sends its ranges to another node: said once for all', async (tt) => {
  const bench = await start(tt, configOf(goodSpec({ peerCIDRs: ['10.8.0.0/16', '10.9.0.0/16'] })).vpn);
  bench.here = [{ pod: 'f-0', uid: 'u', site: '', addresses: { 4: '10.10.0.5' }, hosts: ['192.0.2.10'], ends: false }];
  const sendTo = (hostIP: string) => {
    for (const range of ['10.8.0.0/16', '10.9.0.0/16']) bench.agent.ipcache.set(range, { ...STEERED, hostIP });
  };
  sendTo('192.0.2.11');
  await lookTwice(bench);
  tt.is(await counted(bench), 2);
  tt.deepEqual([bench.lost(), bench.hints], [[], []], 'endpoint-sync can’t help');
  const line = 'error Cilium does not know yet where this range is 10.8.0.0/16 elsewhere';
  tt.deepEqual(bench.said, [line]);
  sendTo('192.0.2.10');
  await bench.look();
  tt.deepEqual(bench.said, [line, ALL_KNOWN]);

  sendTo('192.0.2.11');
  await lookTwice(bench);
  bench.here = [];
  await bench.look();
  tt.deepEqual(bench.said, [line, ALL_KNOWN, line], 'the frontend has left: whether it is well is not known here');
});

test.serial('missing now and then, never for long: not lost', async (tt) => {
  const bench = await start(tt, DUAL);
  for (let n = 0; n < 3; n++) {
    bench.agent.ipcache.delete('10.8.0.0/16');
    tt.is(await bench.look(), 10_000);
    bench.agent.ipcache.set('10.8.0.0/16', STEERED);
    pass(9_999);
    tt.is(await bench.look(), undefined);
  }
  tt.deepEqual([bench.lost(), bench.said], [[], []]);
});

/** Looks at it, and again when it counts. */
async function lookTwice(bench: Bench): Promise<void> {
  await bench.look();
  pass(10_000);
  await bench.look();
}

test.serial('a policy took it, and a part of another one', async (tt) => {
  const bench = await start(tt, DUAL);
  bench.pods['endpoint-sync'] = [pod('s-0', await bench.endpointSync())];
  bench.agent.ipcache.set('10.8.0.0/16', POLICY);
  bench.agent.ipcache.set('fd12:0:0:7::/64', POLICY);
  await lookTwice(bench);
  tt.deepEqual(bench.lost(), ['f-0 10.8.0.0/16']);
  tt.deepEqual(bench.said, [
    `${LOST} policy`,
    'error Cilium has lost this range here fd12::/48 inside fd12:0:0:7::/64',
  ]);
  tt.is(await counted(bench), 2);
});

test.serial('a part alone: said, but endpoint-sync is not told what it can’t bring back', async (tt) => {
  const bench = await start(tt, DUAL);
  bench.agent.ipcache.set('10.8.7.0/24', POLICY);
  await lookTwice(bench);
  tt.deepEqual([bench.lost(), bench.hints], [[], []]);
  tt.is(await counted(bench), 1);
});

test.serial('each range with its site’s pod, and none where no frontend runs', async (tt) => {
  const sites = [goodSite('berlin', '10.8.0.0/16'), goodSite('paris', '10.9.0.0/16'), goodSite('rome', '10.10.0.0/16')];
  const bench = await start(tt, configOf({ sites }).vpn);
  bench.pods.frontend = [
    pod('b-0', '10.10.0.5', { site: 'berlin' }),
    pod('p-0', '10.10.0.6', { site: 'paris' }),
    pod('r-0', '10.10.0.7', { site: 'rome', phase: 'Failed' }),
  ];
  bench.pods['endpoint-sync'] = [pod('s-0', await bench.endpointSync())];
  loseAll(bench);
  await lookTwice(bench);
  tt.deepEqual(bench.lost(), ['b-0 10.8.0.0/16', 'p-0 10.9.0.0/16']);
  tt.is(await counted(bench), 2);
  tt.is(
    bench.lists[0],
    '/api/v1/namespaces/vpn/pods?labelSelector=app.kubernetes.io%2Fname%3Dconstellation-vpn%2Capp.kubernetes.io%2Fcomponent%3Dfrontend&resourceVersion=0',
  );
});

test.serial('every endpoint-sync that runs is told', async (tt) => {
  const bench = await start(tt, DUAL);
  const [a, b, c] = [await bench.endpointSync(), await bench.endpointSync(), await bench.endpointSync()];
  bench.pods['endpoint-sync'] = [
    { ...pod('s-0', a), status: { phase: 'Running', podIPs: [{ ip: a }, { ip: 'fd00:10::7' }] } }, // once
    pod('s-1', b),
    pod('s-2', c, { phase: 'Pending' }),
    pod('s-3', undefined),
  ];
  loseAll(bench);
  await lookTwice(bench);
  tt.deepEqual(
    bench.hints.map((hint) => hint.split(' ')[0]),
    [a, b],
  );
  tt.is(
    bench.lists.at(-1),
    '/api/v1/namespaces/vpn/pods?labelSelector=app.kubernetes.io%2Fname%3Dconstellation-vpn%2Capp.kubernetes.io%2Fcomponent%3Dendpoint-sync&resourceVersion=0',
  );
});

test.serial('no endpoint-sync: an error, and told as soon as there is one', async (tt) => {
  const bench = await start(tt, DUAL);
  bench.agent.ipcache.delete('10.8.0.0/16');
  await bench.look();
  pass(10_000);
  const message = 'no endpoint-sync runs that could be told of lost ranges';
  for (let n = 0; n < 2; n++) await tt.throwsAsync(bench.look(), { message });
  tt.deepEqual(bench.lost(), ['f-0 10.8.0.0/16']);
  bench.pods['endpoint-sync'] = [pod('s-0', await bench.endpointSync())];
  await bench.look();
  tt.is(bench.hints.length, 1);
});

test.serial('an endpoint-sync that takes it only the second time', async (tt) => {
  const bench = await start(tt, DUAL);
  let taken = false;
  bench.pods['endpoint-sync'] = [pod('s-0', await bench.endpointSync(() => (taken ? 202 : 503)))];
  bench.agent.ipcache.delete('10.8.0.0/16');
  await bench.look();
  pass(10_000);
  await tt.throwsAsync(bench.look(), { message: /^POST http:\/\/127[.\d]+:9811\/lost-ranges: status 503$/ });
  taken = true;
  await bench.look();
  tt.is(bench.hints.length, 2);
});

// The pod of a node that died is listed as running for minutes.
test.serial('an endpoint-sync that does not answer keeps no other from being told', async (tt) => {
  const bench = await start(tt, DUAL);
  bench.pods['endpoint-sync'] = [pod('s-0', '127.0.0.1'), pod('s-1', await bench.endpointSync())];
  bench.agent.ipcache.delete('10.8.0.0/16');
  await bench.look();
  pass(10_000);
  await bench.look().catch(() => undefined);
  tt.is(bench.hints.length, 1);
});

test.serial('Cilium’s agent is away: nothing is known, what was lost stays', async (tt) => {
  const bench = await start(tt, DUAL);
  bench.pods['endpoint-sync'] = [pod('s-0', await bench.endpointSync())];
  bench.agent.ipcache.delete('10.8.0.0/16');
  await lookTwice(bench);
  await bench.agent.stop();
  tt.is(await bench.look(), undefined);
  tt.deepEqual(bench.lost(), ['f-0 10.8.0.0/16']);
  tt.is(await counted(bench), 1);
  tt.is(bench.hints.length, 1);
});

test.serial('Cilium’s agent is away from the start', async (tt) => {
  const bench = await start(tt, DUAL);
  await bench.agent.stop();
  tt.is(await bench.look(), undefined);
  tt.false(await succeeded(bench));
});

test.serial('Cilium’s agent says no', async (tt) => {
  const bench = await start(tt, DUAL);
  bench.agent.fail(500);
  const { kind } = await tt.throwsAsync(bench.look(), { instanceOf: CiliumError });
  tt.is(kind, 'refused');
});

const manyRanges = (count: number): Vpn =>
  configOf(
    goodSpec({
      peerCIDRs: [...Array.from({ length: count - 2 }, (_, i) => `10.8.${i}.0/24`), '10.8.0.0/16', 'fd12::/48'],
    }),
  ).vpn;

test.serial('32 ranges are asked for one by one', async (tt) => {
  const bench = await start(tt, manyRanges(32));
  await bench.look();
  tt.is(bench.agent.count('GET', /cidr=/), 32);
  tt.is(bench.agent.requests.length, 32);
});

test.serial('33 ranges are asked for at once, and judged alike', async (tt) => {
  const bench = await start(tt, manyRanges(33));
  bench.pods['endpoint-sync'] = [pod('s-0', await bench.endpointSync())];
  const { ipcache } = bench.agent;
  for (const prefix of ['0.0.0.0/0', '10.10.0.5/32', '192.0.2.10/32', '::/0']) ipcache.set(prefix, POLICY);
  tt.is(await bench.look(), undefined);
  tt.deepEqual(
    bench.agent.requests.map(({ path }) => path),
    ['/v1/ip'],
  );

  ipcache.delete('10.8.3.0/24');
  ipcache.set('10.8.4.0/24', POLICY);
  ipcache.set('10.8.5.7/32', POLICY);
  await lookTwice(bench);
  tt.deepEqual(bench.lost(), ['f-0 10.8.3.0/24', 'f-0 10.8.4.0/24']);
  const said = (rest: string): string => `error Cilium has lost this range here ${rest}`;
  tt.deepEqual(bench.said, [
    said('10.8.0.0/16 inside 10.8.5.7/32'),
    said('10.8.3.0/24 missing'),
    said('10.8.4.0/24 policy'),
    said('10.8.5.0/24 inside 10.8.5.7/32'),
  ]);
});

test.serial('one of several is back: nothing is said, the others stay', async (tt) => {
  const bench = await start(tt, DUAL);
  bench.pods['endpoint-sync'] = [pod('s-0', await bench.endpointSync())];
  loseAll(bench);
  await lookTwice(bench);
  bench.agent.ipcache.set('10.8.0.0/16', STEERED);
  await bench.look();
  tt.deepEqual(bench.lost(), ['f-0 fd12::/48']);
  tt.is(bench.hints.length, 2);
  tt.is(bench.said.length, 2);
  bench.agent.ipcache.delete('10.8.0.0/16');
  await lookTwice(bench);
  tt.is(bench.said.at(-1), `${LOST} missing`);
});
