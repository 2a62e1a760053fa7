/** Nothing leaves in clear, whatever becomes of a real tunnel between two real charons, under traffic both ways. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { startCharon, type Charon } from './charon.ts';
import { until } from '../api/agent.ts';
import { createSite, ourRoutes, setUp, type Site } from './routing.ts';
import { answered, capture, startFlow, type Capture } from './traffic.ts';

const fixture = setUp(test);

const PSK = 'correct horse battery staple';
const REMOTE = ['192.168.50.0/24', 'fd12:3456::/48'];
const LOCAL = ['10.10.0.0/16', 'fd00:10::/56'];
const TO_ON_PREM = REMOTE.map((cidr) => `dst net ${cidr}`).join(' or ');

const gatewayCharon = ({ world }: Site): Promise<Charon> =>
  startCharon({
    netns: world.gateway,
    folder: join(world.folder, 'gw'),
    role: 'gateway',
    remoteAddress: '%any',
    localTs: REMOTE,
    remoteTs: LOCAL,
    psk: PSK,
    ids: { local: 'gateway', remote: 'frontend' },
  });
const frontendCharon = ({ world }: Site, generation: number): Promise<Charon> =>
  startCharon({
    netns: world.frontend,
    folder: join(world.folder, `fe${generation}`),
    role: 'frontend',
    remoteAddress: '198.51.100.7',
    localTs: LOCAL,
    remoteTs: REMOTE,
    psk: PSK,
    ids: { local: 'frontend', remote: 'gateway' },
  });

interface Watched {
  /**
   * Packets to the site outside ESP: out of the pod, and between the sites. (What the gateway sends while it has no tunnel is
   * the gateway's: it has no kill switch here.)
   */
  clear(): Promise<string[]>;
  /** Packets of ESP in UDP between the sites. */
  encrypted(): Promise<number>;
}

async function watch({ world }: Site): Promise<Watched> {
  const [pod, wire, esp]: Capture[] = await Promise.all([
    capture(world.frontend, 'eth0', TO_ON_PREM, { direction: 'out' }),
    capture(world.wire, 'gateway', TO_ON_PREM),
    capture(world.wire, 'gateway', 'udp port 4500'),
  ]);
  return {
    clear: async () => [...((await pod?.stop()) ?? []), ...((await wire?.stop()) ?? [])],
    encrypted: async () => ((await esp?.stop()) ?? []).filter((line) => line.includes('UDP-encap: ESP')).length,
  };
}

async function started(t: ExecutionContext): Promise<Site> {
  const site = await createSite(t, fixture);
  const agents = [await site.start('nodeA'), await site.start('nodeB')];
  t.teardown(() => Promise.all(agents.map((agent) => agent.stop('SIGKILL'))));
  t.is((await site.init('--timeout', '60')).exitCode, 0);
  await until(async () => (await ourRoutes(site.world.nodeB)).length === 4, "nodeB's routes");
  return site;
}

test.serial('down, going up, up, terminated, killed, up again and stopped: zero packets in clear', async (t) => {
  t.timeout(120_000);
  const site = await started(t);
  const { client, onprem, nodeA, nodeB } = site.world;
  const gateway = await gatewayCharon(site);
  t.teardown(() => gateway.kill());
  const watched = await watch(site);
  const flows = [
    await startFlow(client, onprem, '192.168.50.9'),
    await startFlow(client, onprem, 'fd12:3456::9'),
    await startFlow(onprem, client, '10.10.1.7'),
  ];
  await sleep(500); // no charon at all
  let charon = await frontendCharon(site, 1);
  t.teardown(() => charon.kill());
  await sleep(300);
  await charon.initiate();
  await sleep(700);
  for (const from of [client, nodeA, nodeB])
    for (const to of ['192.168.50.9', 'fd12:3456::9'])
      t.true(await answered(from, to), `${from.name} to ${to} through the tunnel`);
  await charon.terminate();
  await sleep(300);
  await charon.initiate();
  await sleep(500);
  await charon.kill();
  await sleep(500);
  charon = await frontendCharon(site, 2);
  await charon.initiate();
  await sleep(500);
  await charon.stop();
  await sleep(300);

  const reports = await Promise.all(flows.map((flow) => flow.stop()));
  for (const [i, { sent, received }] of reports.entries()) {
    t.true(received > 50, `flow ${i}: ${received} of ${sent} came through while the tunnel was up`);
    t.true(received < sent, `flow ${i}: and none while it was not`);
  }
  t.deepEqual(await watched.clear(), []);
  t.true((await watched.encrypted()) > 300);
});

test.serial('without the kill switch the same shows packets in clear', async (t) => {
  t.timeout(60_000);
  const site = await started(t);
  const { client, onprem, frontend } = site.world;
  const gateway = await gatewayCharon(site);
  t.teardown(() => gateway.kill());
  const charon = await frontendCharon(site, 1);
  t.teardown(() => charon.kill());
  await frontend.exec('nft', 'flush', 'ruleset');
  const watched = await watch(site);
  const flow = await startFlow(client, onprem, '192.168.50.9');
  await charon.initiate();
  await sleep(300);
  await charon.kill();
  await sleep(300);
  await flow.stop();
  t.true((await watched.clear()).length > 0);
  t.true((await watched.encrypted()) > 0);
});
