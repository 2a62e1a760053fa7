/**
 * `npm run bench:routing`: routing beside the polling loop that it replaces, on one kernel at the same time, each on a
 * node of its own in network namespaces.
 *
 * With the defaults it takes about 20 minutes. Needs what the tier `dataplane` needs.
 */
import { rm, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { findTool } from '../scripts/tools.ts';
import { until } from '../test/api/agent.ts';
import {
  createSite,
  ourRoutes,
  startFixture,
  STEERED,
  type Fixture,
  type Routing,
  type Site,
} from '../test/dataplane/routing.ts';
import type { Netns } from '../test/dataplane/netns.ts';
import { cpuSeconds, memoryMiB, ms, progress, quantile, row } from './statistics.ts';

const { values } = parseArgs({
  options: {
    help: { type: 'boolean', short: 'h' },
    rounds: { type: 'string', default: '500' },
    'old-rounds': { type: 'string', default: '25' },
    'idle-minutes': { type: 'string', default: '10' },
    ranges: { type: 'string', default: '10000' },
    'range-rounds': { type: 'string', default: '15' },
  },
});
if (values.help === true) {
  console.log(`Usage: npm run bench:routing -- [--rounds 500] [--old-rounds 25] [--idle-minutes 10] [--ranges 10000] [--range-rounds 15]

  --rounds        times that a route is deleted and routing restores it
  --old-rounds    the same for the old loop, at moments that are not in step with it: 10 s each
  --idle-minutes  how long nothing changes, while CPU time is counted
  --ranges        how many on-prem ranges are programmed at once
  --range-rounds  how often that is done, and one of them changed`);
  process.exit(0);
}
const [rounds, oldRounds, idleMinutes, ranges, rangeRounds] = (
  ['rounds', 'old-rounds', 'idle-minutes', 'ranges', 'range-rounds'] as const
).map((name) => Number(values[name])) as [number, number, number, number, number];

const RANGE = '192.168.50.0/24';

async function main(): Promise<void> {
  const teardowns: (() => unknown)[] = [];
  const t = { teardown: (fn: () => unknown) => void teardowns.push(fn) };
  const fixture = await startFixture();
  try {
    const site = await createSite(t, fixture);
    const old = await createSite(t, { ...fixture, cluster: withoutObjects(fixture.cluster) });
    await old.world.nodeA.ip('route replace 192.168.50.0/24 via 10.10.0.5 mtu 1300');
    const flag = join(old.world.folder, 'old-loop');
    await writeFile(flag, '');
    const loops = [startOldLoop(old, flag, ''), startOldLoop(old, flag, (await findTool('kubectl')).path)];
    const agent = await site.start('nodeA');
    await until(async () => (await ourRoutes(site.world.nodeA)).length === 4, 'the routes');

    console.log(`${cpus()[0]?.model ?? ''}, ${cpus().length} cores; Node ${process.version}\n`);
    await idle(
      agent,
      loops.map(({ pid = 0 }) => pid),
    );
    loops[1]?.kill('SIGKILL'); // one of them repairs twice as seldom
    await restorations(site.world.nodeA, old.world.nodeA);
    await rm(flag);
    for (const loop of loops) loop.kill('SIGKILL');
    await many(fixture, site, agent, old);
    await agent.stop();
  } finally {
    for (const teardown of teardowns.reverse()) await teardown();
    await fixture.cluster.stop();
  }
}

/** The old loop asks no API server: its world's objects would be the other one's. */
const withoutObjects = (cluster: Fixture['cluster']): Fixture['cluster'] => ({
  ...cluster,
  request: async () =>
    ({ status: 200, body: { metadata: { name: '' } } }) as Awaited<ReturnType<Fixture['cluster']['request']>>,
});

/** `cli`: as old-routing-loop.sh says. */
function startOldLoop(old: Site, flag: string, cli: string) {
  return execa(join(import.meta.dirname, 'old-routing-loop.sh'), {
    env: {
      NETNS: old.world.nodeA.path,
      POD_IP: '10.10.0.5',
      PEER_CIDRS: RANGE,
      MTU: '1300',
      SOCKET: old.nodeA.cilium.socket,
      FLAG: flag,
      CLI: cli,
    },
    reject: false,
    stderr: 'inherit',
  });
}

async function idle(agent: Routing, loops: readonly number[]): Promise<void> {
  await sleep(40_000); // routing looks again some times after its start
  progress(`idle for ${idleMinutes} minutes`);
  const pids = [agent.pid, ...loops];
  const before = pids.map(cpuSeconds);
  for (let minute = 1; minute <= idleMinutes; minute++) {
    await sleep(60_000);
    progress(`${minute} of ${idleMinutes}`);
  }
  const [ours = 0, ...theirs] = pids.map((pid, i) => cpuSeconds(pid) - (before[i] ?? 0));
  row(`${idleMinutes} idle minutes`, 'CPU seconds', 'of routing (target: 20)');
  row('---', '---', '---');
  row('routing, 2 ranges', ours.toFixed(2), '');
  const names = ["old loop, 1 range, curl in place of Cilium's command line", 'the same, with the weight of kubectl'];
  for (const [i, name] of names.entries()) row(name, (theirs[i] ?? 0).toFixed(2), ((theirs[i] ?? 0) / ours).toFixed(1));
  console.log('');
  memory(agent, '2 ranges, after the idle time');
}

function memory(agent: Routing, when: string): void {
  const { resident, anonymous } = memoryMiB(agent.pid);
  progress(`memory, ${when}: ${resident.toFixed(0)} MiB resident, ${anonymous.toFixed(0)} of it anonymous`);
  console.log(
    `Memory of routing, ${when}: ${resident.toFixed(0)} MiB resident (target: under 60), of it ${anonymous.toFixed(0)} anonymous\n`,
  );
}

/** Times at which a line about a route comes from `ip monitor`. */
class RouteWatch {
  readonly #waiting: { test: (line: string) => boolean; resolve: (at: number) => void }[] = [];

  constructor(netns: Netns) {
    const child = netns.start('ip', ['monitor', 'route'], { buffer: false, stdout: 'pipe' });
    createInterface(child.stdout).on('line', (line) => {
      const at = performance.now();
      for (const waiting of this.#waiting.slice()) {
        if (!waiting.test(line)) continue;
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        waiting.resolve(at);
      }
    });
  }

  when(test: (line: string) => boolean): Promise<number> {
    return new Promise((resolve) => {
      this.#waiting.push({ test, resolve });
    });
  }
}

/** Milliseconds from the event of the deletion to the event of the route that is there again. */
async function restoration(netns: Netns, watch: RouteWatch): Promise<number> {
  const deleted = watch.when((line) => line.startsWith(`Deleted ${RANGE} via`));
  const restored = watch.when((line) => line.startsWith(`${RANGE} via`));
  await netns.ip(`route delete ${RANGE} via 10.10.0.5`);
  return (await restored) - (await deleted);
}

async function restorations(ours: Netns, theirs: Netns): Promise<void> {
  const [watch, oldWatch] = [new RouteWatch(ours), new RouteWatch(theirs)];
  await sleep(500);
  const took: number[] = [];
  const oldTook: number[] = [];
  const old = (async () => {
    for (let i = 0; i < oldRounds; i++) {
      await sleep(Math.random() * 10_000);
      oldTook.push(await restoration(theirs, oldWatch));
      progress(`old loop: ${i + 1} of ${oldRounds} restorations`);
    }
  })();
  for (let i = 0; i < rounds; i++) {
    took.push(await restoration(ours, watch));
    await sleep(20);
    if ((i + 1) % 100 === 0) progress(`routing: ${i + 1} of ${rounds} restorations`);
  }
  await old;
  row('route deleted to restored, ms', 'rounds', 'p50', 'p99', 'max');
  row('---', '---', '---', '---', '---');
  for (const [name, all] of [
    ['routing (target: p99 under 50)', took],
    ['old loop', oldTook],
  ] as const)
    row(name, String(all.length), ms(quantile(all, 0.5)), ms(quantile(all, 0.99)), ms(Math.max(...all)));
  console.log('');
}

const manyRanges = (count: number): string[] =>
  Array.from({ length: count }, (_, i) => `${172 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}.0/24`);

/** A configuration with these ranges. */
function configWith(text: string, peerCIDRs: readonly string[]): string {
  const config = JSON.parse(text) as { spec: { sites: { peerCIDRs: readonly string[] }[] } };
  const [first] = config.spec.sites;
  if (first !== undefined) first.peerCIDRs = peerCIDRs;
  return JSON.stringify(config);
}

/** Milliseconds from the swap of the configuration's volume to the agent's word that all is applied. */
async function programmed({ volume }: Site, agent: Routing, config: string): Promise<number> {
  const seen = agent.log.length;
  const at = Date.now();
  await volume.set(config);
  const changed = await until(
    () => agent.log.slice(seen).find(({ msg }) => msg === 'routes changed'),
    'the routes to be changed',
    60_000,
  );
  return Date.parse(changed.ts) - at;
}

async function many({ rendered }: Fixture, site: Site, agent: Routing, old: Site): Promise<void> {
  const all = manyRanges(ranges);
  const set = (peerCIDRs: readonly string[]): Promise<number> =>
    programmed(site, agent, configWith(rendered.config, peerCIDRs));
  // As Cilium knows them: the loss of thousands is another matter.
  const others = Array.from({ length: rangeRounds + 1 }, (_, i) => other(i));
  for (const cidr of [...all, ...others]) site.nodeA.cilium.ipcache.set(cidr, STEERED);
  await set([other(0)]);
  const one: number[] = [];
  for (let i = 1; i <= rangeRounds; i++) one.push(await set([other(i)]));

  const batch = await writeBatch(site.world.folder, all);
  const bare: number[] = [];
  const ours: number[] = [];
  for (let i = 0; i < rangeRounds; i++) {
    // The old world's node has the same devices, and no agent.
    const startedAt = performance.now();
    await old.world.nodeA.exec('ip', '-batch', batch);
    bare.push(performance.now() - startedAt);
    await old.world.nodeA.exec('ip', 'route', 'flush', 'proto', '233');
    ours.push(await set(all));
    progress(`${ranges} ranges: ${i + 1} of ${rangeRounds}`);
    if (i < rangeRounds - 1) await set([other(0)]);
  }
  await sleep(10_000); // routing looks again some times after many changes
  const oneOfMany: number[] = [];
  for (let i = 0; i < rangeRounds; i++) oneOfMany.push(await set([...all.slice(1), other(i)]));

  row('median of ' + String(rangeRounds), 'ms', 'ratio');
  row('---', '---', '---');
  const median = (of: readonly number[]): number => quantile(of, 0.5);
  const against = (of: readonly number[], base: readonly number[]): string => (median(of) / median(base)).toFixed(2);
  row(`\`ip -batch\` alone, ${ranges} ranges`, ms(median(bare)), '');
  row('routing, from the changed file to the last route (target: 1.3)', ms(median(ours)), against(ours, bare));
  row('one range changed to another, of one', ms(median(one)), '');
  row(`the same, of ${ranges} (target: the same)`, ms(median(oneOfMany)), against(oneOfMany, one));
  console.log('');
  memory(agent, `${ranges} ranges`);
}

/** A range that is in no list. */
const other = (i: number): string => `10.99.${i}.0/24`;

/** The same lines that routing makes. */
async function writeBatch(folder: string, all: readonly string[]): Promise<string> {
  const lines = all.flatMap((cidr) => [
    `route add ${cidr} via 10.10.0.5 dev lxcfrontend src 10.10.0.1 mtu 1300 proto 233`,
    `route add unreachable ${cidr} metric 4294967295 proto 233`,
  ]);
  const batch = join(folder, 'batch');
  await writeFile(batch, `${lines.join('\n')}\n`);
  return batch;
}

await main();
