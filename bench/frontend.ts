/**
 * `npm run bench:frontend`: the agent beside a real charon and a real gateway, in network namespaces. ESP runs in user space
 * (kernel-libipsec), so throughput says something about the agent, nothing about a node.
 *
 * With the defaults it takes about 6 minutes. Needs what the tier `dataplane` needs.
 */
import { cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { decodeMessage, encodeMessage } from '../agents/frontend/vici/message.ts';
import { until } from '../test/api/agent.ts';
import {
  createSite,
  gatewayConf,
  LOCAL_ID,
  GATEWAY,
  ON_PREM,
  POD_RANGES,
  untilUp,
  type Frontend,
  type Site,
  type SiteOptions,
} from '../test/dataplane/frontend.ts';
import { ping, startFlow, tcpTransfer } from '../test/dataplane/traffic.ts';
import { cpuSeconds, memoryMiB, ms, progress, quantile, row } from './statistics.ts';

const { values } = parseArgs({
  options: {
    help: { type: 'boolean', short: 'h' },
    rounds: { type: 'string', default: '20' },
    'idle-seconds': { type: 'string', default: '60' },
    mib: { type: 'string', default: '16' },
  },
});
if (values.help === true) {
  console.log(`Usage: npm run bench:frontend -- [--rounds 20] [--idle-seconds 60] [--mib 16]

  --rounds        times that charon is killed, a range changed, and so on
  --idle-seconds  how long nothing changes, while CPU time is counted
  --mib           MiB of one transfer through the tunnel`);
  process.exit(0);
}
const rounds = Number(values.rounds);
const bytes = Number(values.mib) * 1024 * 1024;

type Teardown = { teardown: (fn: () => unknown) => void };

async function main(): Promise<void> {
  row('what', 'p50', 'max', 'target');
  row('---', '---', '---', '---');
  await inSite(restarts);
  await inSite(deaths);
  await inSite(changedRange, {
    spec: { peerCIDRs: FIFTY },
    gateway: { children: { cluster: `local_ts = 10.77.0.0/16\nremote_ts = ${POD_RANGES[0]}` } },
  });
  await inSite(throughput);
  decoding();
  console.log(`\n${cpus().length} × ${cpus()[0]?.model}, Node ${process.version}`);
}

async function inSite(
  measure: (site: Site, agent: Frontend, t: Teardown) => Promise<void>,
  options: SiteOptions = {},
): Promise<void> {
  const teardowns: (() => unknown)[] = [];
  const t: Teardown = { teardown: (fn) => void teardowns.push(fn) };
  try {
    const site = await createSite(t, options);
    const agent = await site.startAgent();
    await measure(site, agent, t);
  } finally {
    for (const teardown of teardowns.toReversed()) await teardown();
  }
}

const figure = (what: string, all: readonly number[], target: string, unit = 'ms'): void =>
  row(`${what}, ${all.length} rounds`, `${ms(quantile(all, 0.5))} ${unit}`, `${ms(Math.max(...all))} ${unit}`, target);

/** The gap in a flow of one packet each 10 ms; the new charon is started at once, which a kubelet may delay. */
async function restarts(site: Site, agent: Frontend): Promise<void> {
  const gaps: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await untilUp(agent, 2);
    const flow = await startFlow(site.world.client, site.world.onprem, '192.168.50.9');
    await sleep(500);
    await site.charon.stop('SIGKILL');
    await site.startCharon();
    await untilUp(agent, 2);
    await sleep(500);
    gaps.push((await flow.stop()).longestGapMs);
    progress(`charon killed ${round + 1}/${rounds}: ${gaps.at(-1)} ms`);
  }
  figure('charon killed to packet through again', gaps, '< 3000 ms');

  const seconds = Number(values['idle-seconds']);
  const before = cpuSeconds(agent.pid);
  await sleep(seconds * 1000);
  const { resident, anonymous } = memoryMiB(agent.pid);
  row(`agent, ${seconds} s idle: CPU`, `${(cpuSeconds(agent.pid) - before).toFixed(2)} s`, '', '');
  row('agent: memory, and of it its own', `${resident.toFixed(0)} MiB`, `${anonymous.toFixed(0)} MiB`, '< 60 MiB');
}

/** From the gateway's death to the log line that its IKE_SA is down. */
async function deaths(site: Site, agent: Frontend): Promise<void> {
  const found: number[] = [];
  const downs = (): number => agent.log.filter(({ msg }) => msg === 'IKE_SA down').length;
  for (let round = 0; round < Math.ceil(rounds / 2); round++) {
    await untilUp(agent, 2, 60_000);
    const before = downs();
    await site.gateway.stop('SIGKILL');
    const start = performance.now();
    await until(() => downs() > before, 'the gateway to be found dead', 30_000);
    found.push(performance.now() - start);
    progress(`gateway killed ${round + 1}: ${ms(found.at(-1) ?? 0)} ms`);
    await site.restartGateway();
  }
  figure('gateway killed to found dead', found, '< 5000 ms');
}

const FIFTY = Array.from({ length: 50 }, (_, i) => `10.77.${i}.0/24`);

/** One of 50 ranges is replaced by another while the other 49 are pinged 50 times a second. */
async function changedRange(site: Site, agent: Frontend): Promise<void> {
  const { gateway, client } = site.world;
  await gateway.ip(...Array.from({ length: 52 }, (_, i) => `address add 10.77.${i}.1/24 dev lan`));
  await site.world.nodeA.ip('route add 10.77.0.0/16 via 10.10.0.5 dev lxcfrontend src 10.10.0.1');
  await site.world.nodeB.ip('route add 10.77.0.0/16 dev cilium_host src 10.10.1.1');
  await untilUp(agent, 50, 60_000);
  const loads: number[] = [];
  const ups: number[] = [];
  let [sent, received] = [0, 0];
  for (let round = 0; round < Math.ceil(rounds / 2); round++) {
    const [last, next] = round % 2 === 0 ? ['10.77.49.0/24', '10.77.50.0/24'] : ['10.77.50.0/24', '10.77.49.0/24'];
    const pings = FIFTY.slice(0, 49).map((_, i) => ping(client, `10.77.${i}.1`, { count: 100 }));
    await sleep(700);
    const seen = agent.log.length;
    const start = Date.now();
    await site.configure({ peerCIDRs: [...FIFTY.slice(0, 49), next ?? ''] });
    const at = async (msg: string, child?: string): Promise<number> => {
      const record = await until(
        () => agent.log.slice(seen).find((one) => one.msg === msg && (child === undefined || one.child === child)),
        `${msg} ${child}`,
      );
      return Date.parse(record.ts) - start;
    };
    loads.push(await at('connection loaded'));
    ups.push(await at('CHILD_SA up', next));
    await at('CHILD_SA down', last);
    for (const result of await Promise.all(pings)) {
      sent += result.sent;
      received += result.received;
    }
    progress(`range changed ${round + 1}: loaded ${loads.at(-1)} ms, up ${ups.at(-1)} ms, ${sent - received} lost`);
  }
  figure('one of 50 ranges changed to loaded', loads, '< 100 ms');
  figure('one of 50 ranges changed to its CHILD_SA up', ups, '');
  row(`packets lost on the other 49, of ${sent}`, String(sent - received), '', '0');
}

/** Two of the same charon: with our agent, and with a swanctl.conf by hand and no agent. Transfers in turns, ABBA. */
async function throughput(site: Site, agent: Frontend, t: Teardown): Promise<void> {
  const byHand = await createSite(t);
  await byHand.charon.load(
    gatewayConf({
      remoteAddress: GATEWAY,
      children: { cluster: `local_ts = ${POD_RANGES.join(',')}\nremote_ts = ${ON_PREM.join(',')}` },
      local: `auth = psk\nid = ${LOCAL_ID}`,
      remote: `auth = psk\nid = ${GATEWAY}`,
    }),
  );
  await byHand.charon.swanctl('--initiate', '--child', 'cluster');
  await untilUp(agent, 2);
  const measure = async ({ world: { client, onprem } }: Site): Promise<number> => {
    const { ms: took, digestsEqual } = await tcpTransfer(client, onprem, '192.168.50.9', bytes, { timeoutMs: 120_000 });
    if (!digestsEqual) throw new Error('the transfer did not arrive');
    return (bytes * 8) / took / 1000;
  };
  const rates = { agent: [] as number[], hand: [] as number[] };
  for (const one of [site, byHand]) await measure(one); // warm
  for (let round = 0; round < rounds * 2; round++) {
    const order = round % 2 === 0 ? (['agent', 'hand'] as const) : (['hand', 'agent'] as const);
    for (const name of order) rates[name].push(await measure(name === 'agent' ? site : byHand));
    progress(`throughput ${round + 1}: ${ms(rates.agent.at(-1) ?? 0)} and ${ms(rates.hand.at(-1) ?? 0)} Mbit/s`);
  }
  const [ours, theirs] = [quantile(rates.agent, 0.5), quantile(rates.hand, 0.5)];
  row(
    `throughput with the agent, and with swanctl.conf by hand, ${rates.agent.length} rounds`,
    `${ms(ours)} Mbit/s`,
    `${ms(theirs)} Mbit/s, ratio ${(ours / theirs).toFixed(3)}`,
    '>= 0.99',
  );
}

/** As list-sas answers: sections of short values. */
function decoding(): void {
  for (const kib of [64, 128, 256, 512]) {
    const sa = (i: number) => [
      `child-${i}`,
      { name: `10.77.${i}.0/24`, state: 'INSTALLED', 'local-ts': ['10.10.0.0/16'] },
    ];
    let count = 1;
    while (encodeMessage(Object.fromEntries(Array.from({ length: count * 2 }, (_, i) => sa(i)))).length < kib * 1024)
      count *= 2;
    let [low, high] = [count, count * 2];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      const size = encodeMessage(Object.fromEntries(Array.from({ length: middle }, (_, i) => sa(i)))).length;
      if (size < kib * 1024) low = middle;
      else high = middle;
    }
    const message = encodeMessage(Object.fromEntries(Array.from({ length: low }, (_, i) => sa(i))));
    const times = Array.from({ length: 50 }, () => {
      const start = performance.now();
      decodeMessage(message);
      return performance.now() - start;
    });
    row(
      `VICI message of ${kib} KiB decoded, 50 rounds`,
      `${ms(quantile(times, 0.5))} ms`,
      `${ms(Math.max(...times))} ms`,
      'linear',
    );
  }
}

await main();
