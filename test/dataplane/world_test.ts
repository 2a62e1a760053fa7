/** The network that the tests of routes stand on: whatever is missing in it would look like a fault of the agents. */
import { access, readdir, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { identity, type Netns, processesIn } from './netns.ts';
import { startRelay } from './relay.ts';
import { answered, capture, ping, startFlow, tcpTransfer } from './traffic.ts';
import {
  blockIcmp,
  connectPlainTunnel,
  createWorld,
  FORWARDING,
  recreateInterface,
  removeEndpointRoutes,
  type World,
} from './world.ts';

const ONPREM = ['192.168.50.9', 'fd12:3456::9'] as const;
const CLIENT = ['10.10.1.7', 'fd00:10:0:1::7'] as const;
const NEIGHBOUR = ['10.10.0.6', 'fd00:10::6'] as const;
const GATEWAY = '198.51.100.7';

async function create(t: ExecutionContext): Promise<World> {
  const start = performance.now();
  const world = await createWorld();
  t.teardown(() => world.remove());
  t.log(`a world in ${Math.round(performance.now() - start)} ms`);
  return world;
}

/** What `routing` makes. */
async function addRoutes({ nodeA, nodeB }: World): Promise<void> {
  await nodeA.ip(
    'route add 192.168.50.0/24 via 10.10.0.5 dev lxcfrontend src 10.10.0.1',
    'route add fd12:3456::/48 via fd00:10::5 dev lxcfrontend src fd00:10::1',
  );
  await nodeB.ip(
    'route add 192.168.50.0/24 dev cilium_host src 10.10.1.1',
    'route add fd12:3456::/48 dev cilium_host src fd00:10:0:1::1',
  );
}

async function connect(world: World, mtu = 1500): Promise<void> {
  await world.frontend.sysctl(FORWARDING);
  await connectPlainTunnel(world, { mtu });
  await addRoutes(world);
}

/** Expects every echo request to be answered, or none. */
async function reaches(t: ExecutionContext, from: Netns, to: readonly string[], all = true): Promise<void> {
  for (const address of to) {
    if (all) t.true(await answered(from, address), address);
    else t.deepEqual({ address, ...(await ping(from, address)) }, { address, sent: 3, received: 0 });
  }
}

test.serial('pods reach each other and the nodes, the frontend its gateway by the address of the node', async (t) => {
  const world = await create(t);
  await reaches(t, world.client, [...NEIGHBOUR, '10.10.0.5', 'fd00:10::5', '10.10.0.1', 'fd00:10::1']);
  await reaches(t, world.neighbour, [...CLIENT, '10.10.1.1', 'fd00:10:0:1::1']);
  await reaches(t, world.nodeA, ['10.10.1.1', 'fd00:10:0:1::1', '192.0.2.11', '2001:db8:2::11']);
  const seen = await capture(world.gateway, 'eth0', 'icmp', { direction: 'in' });
  await reaches(t, world.frontend, [GATEWAY]);
  const lines = await seen.stop();
  t.true(lines.filter((line) => line.includes(`192.0.2.10 > ${GATEWAY}`)).length >= 3, lines.join('\n'));
});

test.serial('ping from another source address', async (t) => {
  const world = await create(t);
  const seen = await capture(world.neighbour, 'eth0', 'icmp or icmp6[icmp6type] == icmp6-echo', { direction: 'in' });
  for (const [to, from] of [
    [NEIGHBOUR[0], '192.0.2.11'],
    [NEIGHBOUR[1], '2001:db8:2::11'],
  ] as const)
    t.deepEqual(await ping(world.nodeB, to, { from, count: 1 }), { sent: 1, received: 1 });
  const lines = await seen.stop();
  t.regex(lines[0] ?? '', / IP 192\.0\.2\.11 > 10\.10\.0\.6: /);
  t.regex(lines[1] ?? '', / IP6 2001:db8:2::11 > fd00:10::6: /);
});

test.serial('with routes, forwarding and a tunnel, pods and nodes reach the site, and it them', async (t) => {
  const world = await create(t);
  await connect(world);
  for (const from of [world.client, world.neighbour, world.nodeA, world.nodeB]) await reaches(t, from, ONPREM);
  await reaches(t, world.onprem, [...CLIENT, ...NEIGHBOUR]);
});

test.serial('without forwarding in the frontend nothing gets through', async (t) => {
  const world = await create(t);
  await connectPlainTunnel(world);
  await addRoutes(world);
  await reaches(t, world.client, ONPREM, false);
});

test.serial('without routes packets to the site leave by the uplink', async (t) => {
  const world = await create(t);
  const captures = [
    await capture(world.nodeB, 'uplink', 'dst host 192.168.50.9 or dst host fd12:3456::9', { direction: 'out' }),
    await capture(world.wire, 'nodeb', 'dst host 192.168.50.9 or dst host fd12:3456::9'),
    await capture(world.nodeB, 'uplink', 'dst host 192.168.50.9 or dst host fd12:3456::9', { direction: 'in' }),
  ];
  await reaches(t, world.client, ONPREM, false);
  const [out = [], wire = [], back] = await Promise.all(captures.map((one) => one.stop()));
  for (const lines of [out, wire]) {
    t.is(lines.length, 6);
    for (const [at, address] of ONPREM.entries())
      t.is(lines.filter((line) => line.includes(`${CLIENT[at]} > ${address}`)).length, 3);
  }
  t.deepEqual(back, []);
  await t.throwsAsync(capture(world.nodeB, 'uplink', 'no filter'), { message: /uplink in .*-nodeb: .*syntax error/s });
});

test.serial('a route that refuses: ping sends nothing', async (t) => {
  const world = await create(t);
  for (const kind of ['unreachable', 'blackhole', 'prohibit']) {
    await world.nodeB.ip(...ONPREM.map((address) => `route replace ${kind} ${address}`));
    for (const address of ONPREM) t.deepEqual(await ping(world.nodeB, address), { sent: 0, received: 0 }, kind);
  }
  await t.throwsAsync(ping(world.nodeB, ONPREM[0], { from: '10.99.99.99' }), { message: /ping .*-nodeb: / });
});

test.serial('a tunnel with a small MTU carries a transfer', async (t) => {
  const world = await create(t);
  await connect(world, 1300);
  for (const address of ONPREM) {
    const transfer = await tcpTransfer(world.client, world.onprem, address, 1_000_000, { timeoutMs: 20_000 });
    t.like(transfer, { bytes: 1_000_000, digestsEqual: true });
    t.log(`1 MB to ${address} in ${transfer.ms} ms`);
  }
  const back = await tcpTransfer(world.onprem, world.neighbour, NEIGHBOUR[0], 1_000_000, { timeoutMs: 20_000 });
  t.like(back, { bytes: 1_000_000, digestsEqual: true });
});

test.serial('a tunnel with a small MTU and nobody who says so: a transfer hangs', async (t) => {
  const world = await create(t);
  await connect(world, 1300);
  await blockIcmp(world);
  await reaches(t, world.client, ONPREM);
  const transfers = await Promise.all([
    ...ONPREM.map((address) => tcpTransfer(world.client, world.onprem, address, 1_000_000, { timeoutMs: 1500 })),
    ...NEIGHBOUR.map((address) => tcpTransfer(world.onprem, world.neighbour, address, 1_000_000, { timeoutMs: 1500 })),
  ]);
  for (const { ms, ...transfer } of transfers) {
    t.deepEqual(transfer, { bytes: 0, digestsEqual: false });
    t.true(ms >= 1490, `${ms} ms`);
  }
});

test.serial('no connection: a transfer is over at once', async (t) => {
  const world = await create(t);
  await world.nodeB.ip(`route add prohibit ${NEIGHBOUR[0]}`);
  const transfer = await tcpTransfer(world.client, world.neighbour, NEIGHBOUR[0], 1000, { timeoutMs: 20_000 });
  t.like(transfer, { bytes: 0, digestsEqual: false });
  t.true(transfer.ms < 2000);
});

test.serial('a flow tells how long the path was down', async (t) => {
  const world = await create(t);
  for (const to of NEIGHBOUR) {
    const steady = await startFlow(world.client, world.neighbour, to);
    await sleep(300);
    const calm = await steady.stop();
    t.deepEqual({ received: calm.received, lost: calm.lost }, { received: calm.sent, lost: [] });
    t.true(calm.sent >= 15 && calm.longestGapMs < 100, JSON.stringify(calm));

    const flow = await startFlow(world.client, world.neighbour, to);
    await sleep(100);
    await world.nodeB.ip(`route add blackhole ${to}`);
    await sleep(300);
    await world.nodeB.ip(`route delete blackhole ${to}`);
    await sleep(100);
    const { sent, received, longestGapMs, lost } = await flow.stop();
    t.is(sent - received, lost.length);
    t.true(lost.length >= 15 && (lost[0] ?? 0) > 3 && (lost.at(-1) ?? sent) < sent - 3, lost.join(' '));
    t.true(longestGapMs >= 290 && longestGapMs < 500, `${longestGapMs} ms`);
  }
});

test.serial('the interface made anew: other name, no routes of ours, all the rest', async (t) => {
  const world = await create(t);
  await connect(world);
  await recreateInterface(world);
  const links = await world.nodeA.exec('ip', '-brief', 'link');
  t.true(links.includes('lxcfrontend2@') && !links.includes('lxcfrontend@'), links);
  t.is(await world.nodeA.exec('ip', 'route', 'show', '192.168.50.0/24'), '');
  await reaches(t, world.client, ['10.10.0.5', 'fd00:10::5']);
  await reaches(t, world.frontend, [GATEWAY, ...ONPREM]);
  await world.nodeA.ip(
    'route add 192.168.50.0/24 via 10.10.0.5 dev lxcfrontend2 src 10.10.0.1',
    'route add fd12:3456::/48 via fd00:10::5 dev lxcfrontend2 src fd00:10::1',
  );
  await reaches(t, world.client, ONPREM);
  await recreateInterface(world, 'lxcfrontend');
  await reaches(t, world.neighbour, ['10.10.0.5', 'fd00:10::5']);
});

test.serial('a command that fails says which and why', async (t) => {
  const { nodeA } = await create(t);
  await t.throwsAsync(nodeA.ip('link set lo up', 'route delete 10.99.0.0/16', 'link set lo down'), {
    message: /^ip route delete 10\.99\.0\.0\/16: RTNETLINK answers: No such process/,
  });
  await t.throwsAsync(nodeA.ip('link set lo up', 'route add bad'), {
    message: /^ip link .*; route add bad: Error: any/,
  });
  await t.throwsAsync(nodeA.exec('nft', 'list', 'table', 'ip', 'nothing'), { message: /No such file or directory/ });
  t.regex(await nodeA.exec('ip', '-brief', 'link', 'show', 'lo'), /LOWER_UP/);
});

test.serial('without endpoint routes, one route for all pods of the node', async (t) => {
  const world = await create(t);
  const device = async (address: string) =>
    / dev (\S+)/.exec(await world.nodeA.exec('ip', 'route', 'get', address))?.[1];
  t.is(await device('10.10.0.5'), 'lxcfrontend');
  t.is(await device('fd00:10::5'), 'lxcfrontend');
  await removeEndpointRoutes(world);
  t.is(await device('10.10.0.5'), 'cilium_host');
  t.is(await device('fd00:10::5'), 'cilium_host');
  const routes = await world.nodeA.exec('ip', 'route');
  t.true(routes.includes('10.10.0.0/24 via 10.10.0.1 dev cilium_host proto kernel src 10.10.0.1'), routes);
  t.false(routes.includes('lxcfrontend'), routes);
});

/** As an API server: one answer at once, another that goes on. */
async function serve(t: ExecutionContext): Promise<number> {
  const server: Server = createServer((request, response) => {
    response.write('hello\n');
    if (request.url !== '/watch') response.end();
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

const FETCH = `
  const response = await fetch(process.argv[1]).catch((error) => ({ error: error.cause.code }));
  if (response.error) console.log(response.error);
  else for await (const chunk of response.body) process.stdout.write(chunk);`;
const fetchIn = (ns: Netns, url: string) =>
  ns.start(process.execPath, ['--input-type=module', '-e', FETCH, url], { stdin: 'ignore' });

test.serial('a server of the machine is reached by a relay, which can be cut', async (t) => {
  const world = await create(t);
  const port = await serve(t);
  const url = `http://127.0.0.1:${port}`;
  t.like(await fetchIn(world.nodeA, url), { stdout: 'ECONNREFUSED' });
  const relay = await startRelay(world.nodeA, port);
  t.like(await fetchIn(world.nodeA, url), { stdout: 'hello' });
  t.like(await fetchIn(world.nodeB, url), { stdout: 'ECONNREFUSED' });

  const watch = fetchIn(world.nodeA, `${url}/watch`);
  await new Promise((resolve) => watch.stdout.once('data', resolve));
  await relay.cut();
  await relay.cut();
  const { exitCode, stderr } = await watch;
  t.is(exitCode, 1);
  t.regex(stderr, /terminated/);
  t.like(await fetchIn(world.nodeA, url), { stdout: 'ECONNREFUSED' });
  await relay.restore();
  await relay.restore();
  t.like(await fetchIn(world.nodeA, url), { stdout: 'hello' });
  await relay.stop();
  t.like(await fetchIn(world.nodeA, url), { stdout: 'ECONNREFUSED' });
});

const ROLES = ['nodeA', 'nodeB', 'frontend', 'client', 'neighbour', 'wire', 'gateway', 'onprem'] as const;
const namespaces = async (prefix: string) =>
  (await readdir('/run/netns')).filter((name) => name.startsWith(`${prefix}-`)).length;
const isThere = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

test.serial('two worlds at once; remove() leaves no namespace, no process and no file of its own', async (t) => {
  const [world, other] = await Promise.all([create(t), create(t)]);
  const prefix = world.nodeA.name.replace(/-nodea$/, '');
  const identities = new Set(await Promise.all(ROLES.map((role) => identity(world[role].path))));
  t.is(identities.size, 8);
  await startFlow(world.client, world.neighbour, NEIGHBOUR[0]);
  const seen = await capture(world.neighbour, 'eth0', 'udp');
  await startRelay(world.nodeA, await serve(t));
  // Not one of its own: an agent's child, say.
  const child = world.nodeB.start('sh', ['-c', 'trap "" TERM; sleep 1000 & sleep 1000'], { stdin: 'ignore' });
  await writeFile(join(world.folder, 'file'), '');
  t.is(await namespaces(prefix), 8);
  await sleep(50);
  t.true((await processesIn(identities)).length >= 7);

  await world.remove();
  t.is((await child).signal, 'SIGKILL');
  t.is(await namespaces(prefix), 0);
  t.deepEqual(await processesIn(identities), []);
  t.false(await isThere(world.folder));
  t.true((await seen.stop()).length > 0);
  await world.remove();
  await reaches(t, other.client, NEIGHBOUR);
});

test.serial('what a killed process has left is removed by the next', async (t) => {
  const script = `
    const { createWorld } = await import(process.argv[1]);
    const world = await createWorld();
    // A child of a child doesn't die with the test process.
    world.nodeA.start('sh', ['-c', 'sleep 1000 & sleep 1000'], {});
    console.log(world.folder);`;
  const args = ['--input-type=module', '-e', script, new URL('world.ts', import.meta.url).href];
  const child = execa(process.execPath, args, { reject: false, stderr: 'inherit' });
  const [folder = ''] = await new Promise<string[]>((resolve) => {
    child.stdout.once('data', (data) => resolve(String(data).trim().split('\n')));
  });
  const prefix = folder.replace(/.*\//, '');
  const nodeA = new Set([await identity(`/run/netns/${prefix}-nodea`)]);
  await create(t);
  t.is(await namespaces(prefix), 8, 'its process is alive');
  t.true(await isThere(folder));
  child.kill('SIGKILL');
  await child;
  t.true((await processesIn(nodeA)).length > 0);
  await create(t);
  t.is(await namespaces(prefix), 0);
  t.deepEqual(await processesIn(nodeA), []);
  t.false(await isThere(folder));
});
