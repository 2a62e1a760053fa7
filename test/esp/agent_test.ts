/**
 * The agent `frontend` beside a charon whose ESP is the kernel's, in the pod as `routing init` leaves it: what production
 * runs. That nothing leaves in clear is counted at the node.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, afterEach, before, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BareCharon } from '../dataplane/charon.ts';
import { startFrontend, untilUp, type Frontend } from '../dataplane/frontend.ts';
import { ping } from '../dataplane/traffic.ts';
import { until } from '../api/agent.ts';
import { Volume } from '../volume.ts';
import { startPeer, startPodCharon } from './charon.ts';
import { hasESP } from './has-esp.ts';
import { startPings } from '../dataplane/pings.ts';
import { CLUSTER_CIDRS, createWorld, ONPREM, PEER, type World } from './world.ts';

/** A guest without KVM on a busy machine is slow. */
const LIMIT_MS = 300_000;
const UP_MS = 60_000;
/** Parts of the peer's 192.168.50.0/24: the first one has ONPREM's address, the others have these. */
const [RANGE, SECOND, THIRD] = ['192.168.50.0/28', '192.168.50.64/28', '192.168.50.128/28'] as const;
const [AT_SECOND, AT_THIRD] = ['192.168.50.65', '192.168.50.129'] as const;
const V6 = 'fd12:3456::/48';

let world: World;
let secrets: Volume;
let config: Volume;
const LOG_CHARACTERS = 4_000;
const logs: (() => Promise<string>)[] = [];
const started: (() => Promise<unknown>)[] = [];
before(
  async () => {
    assert.ok(await hasESP(), 'a kernel with ESP');
    world = await createWorld();
    secrets = await Volume.create({ psk: 'correct horse battery staple' });
    config = await Volume.create({});
    await world.peer.ip(`address add ${AT_SECOND}/32 dev lo`, `address add ${AT_THIRD}/32 dev lo`);
  },
  { timeout: LIMIT_MS },
);
after(() => world?.remove());
afterEach(async () => {
  for (const stop of started.splice(0).toReversed()) await stop();
  for (const ns of [world.pod, world.peer]) await ns.ip('xfrm state flush', 'xfrm policy flush');
  await world.reset();
});

const configure = (peerCIDRs: readonly string[], ipsec: object = {}): Promise<void> =>
  config.set({
    'config.json': JSON.stringify({
      apiVersion: 'constellation-vpn.io/v1alpha1',
      kind: 'ConstellationVPN',
      spec: {
        podCIDR: CLUSTER_CIDRS.filter((cidr) => !cidr.startsWith('10.96.')),
        serviceCIDR: '10.96.0.0/12',
        peerCIDRs,
        ipsec: { peer: PEER, pskSecretRef: { name: 'psk' }, localID: 'frontend', remoteID: 'gateway', ...ipsec },
      },
    }),
  });

async function startCharon(): Promise<BareCharon> {
  const charon = await startPodCharon(world);
  started.push(() => charon.kill());
  logs.push(() => readFile(charon.log, 'utf8'));
  return charon;
}

/** Both ends and the agent; resolves when this many CHILD_SAs stand. */
async function startAll(children: number): Promise<{ agent: Frontend; charon: BareCharon }> {
  const peer = await startPeer(world, true);
  started.push(() => peer.kill());
  logs.push(() => readFile(peer.log, 'utf8'));
  const charon = await startCharon();
  const agent = await startAgent(charon);
  await untilUp(agent, children, UP_MS);
  await world.reset();
  return { agent, charon };
}

async function startAgent({ socket }: BareCharon): Promise<Frontend> {
  const options = `--config ${config.folder}/config.json --secrets ${secrets.folder} --socket ${socket} --port 0`;
  // As root: the rights of the socket are the tier dataplane's matter.
  const agent = await startFrontend(world.pod, options.split(' '), ['--no-new-privs', '--pdeathsig', 'KILL']);
  started.push(() => agent.stop('SIGKILL'));
  logs.push(async () => agent.log.map((record) => JSON.stringify(record)).join('\n'));
  return agent;
}

/** Where it fails the logs are shown: the guest's files are gone then. */
function scenario(title: string, body: (t: TestContext) => Promise<void>): void {
  void test(title, { timeout: LIMIT_MS }, async (t) => {
    logs.length = 0;
    try {
      await body(t);
    } catch (error) {
      for (const read of logs) t.diagnostic((await read()).slice(-LOG_CHARACTERS));
      throw error;
    }
  });
}

const allClear = async (): Promise<void> => {
  const { clearOut, clearIn } = await world.seen();
  assert.deepEqual({ clearOut, clearIn }, { clearOut: 0, clearIn: 0 });
};

const childrenOf = async (agent: Frontend): Promise<string> =>
  Object.keys(await agent.metric('ipsec_child_sa_state')).join('\n');

scenario('a range changed among others: nothing is lost on those that stay, nothing leaves', async (t) => {
  await configure([RANGE, SECOND, V6]);
  const { agent } = await startAll(3);
  const pings = startPings(world.client, ONPREM[4], { intervalMs: 20 });
  const pings6 = startPings(world.client, ONPREM[6], { intervalMs: 20 });
  await Promise.all([pings.next(UP_MS), pings6.next(UP_MS)]);
  assert.equal((await ping(world.client, AT_SECOND)).received, 3);
  await configure([RANGE, THIRD, V6]);
  await until(
    async () => {
      const names = await childrenOf(agent);
      return names.includes(`name="${THIRD}"`) && !names.includes(`name="${SECOND}"`);
    },
    'the ranges to change',
    UP_MS,
  );
  assert.equal((await ping(world.client, AT_THIRD)).received, 3);
  assert.equal((await ping(world.client, AT_SECOND)).received, 0);
  const reports = [await pings.stop(), await pings6.stop()];
  t.diagnostic(JSON.stringify(reports));
  for (const { lost } of reports) assert.deepEqual(lost, []);
  await allClear();
});

scenario('one CHILD_SA for all, with another range: replaced under traffic, nothing leaves', async (t) => {
  const ipsec = { childSAs: 'one' };
  await configure([RANGE, V6], ipsec);
  const { agent } = await startAll(1);
  const pings = startPings(world.client, ONPREM[4], { intervalMs: 20 });
  await pings.next(UP_MS);
  await configure([RANGE, SECOND, V6], ipsec);
  await until(
    async () => {
      const names = (await childrenOf(agent)).split('\n');
      return names.length === 1 && names[0]?.includes(SECOND) === true;
    },
    'the new CHILD_SA alone',
    UP_MS,
  );
  assert.equal((await ping(world.client, AT_SECOND)).received, 3);
  const { sent, lost } = await pings.stop();
  t.diagnostic(`${lost.length} of ${sent} lost`);
  // Some milliseconds, in a guest without KVM more; for ever if the new one could not take over.
  assert.ok(lost.length < sent / 4);
  await allClear();
});

scenario('charon killed under traffic: loaded again, back within 3 s, nothing leaves', async (t) => {
  await configure([RANGE, V6]);
  const { agent, charon } = await startAll(2);
  const pings = startPings(world.client, ONPREM[4]);
  await pings.next(UP_MS);
  await charon.kill();
  await sleep(300);
  // The image's entry point.
  await world.pod.ip('xfrm state flush');
  const next = await startCharon();
  await agent.stop('SIGKILL');
  // Another folder, hence another agent; in a cluster the socket comes again at its place.
  const again = await startAgent(next);
  const ms = await pings.next(UP_MS);
  await untilUp(again, 2, UP_MS);
  t.diagnostic(`back ${ms} ms after the agent's start`);
  assert.ok(ms < 10_000, `${ms} ms`);
  await pings.stop();
  assert.equal((await ping(world.client, ONPREM[6])).received, 3);
  await allClear();
});

scenario('SIGTERM to both under traffic: the peer hears of it, nothing leaves', async () => {
  await configure([RANGE, V6]);
  const { agent, charon } = await startAll(2);
  const pings = startPings(world.client, ONPREM[4]);
  await pings.next(UP_MS);
  await Promise.all([charon.stop(), agent.stop('SIGTERM')]);
  await sleep(500);
  await pings.stop();
  assert.match(await readFile(charon.log, 'utf8'), /sending DELETE for IKE_SA/);
  await allClear();
});
