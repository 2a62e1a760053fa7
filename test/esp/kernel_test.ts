/**
 * The frontend's pod as `routing init` leaves it, on a kernel with ESP: what passes while a real charon's tunnel is up, and
 * that nothing leaves in clear whatever becomes of it. Counted at the node: in the pod, tcpdump sees inner packets in clear.
 *
 * By Node's own runner, not by ava, whose start alone takes a minute in a guest without KVM: hundreds of small files.
 */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BareCharon } from '../dataplane/charon.ts';
import type { Netns } from '../dataplane/netns.ts';
import { capture, ping, tcpTransfer } from '../dataplane/traffic.ts';
import { connectPod, spis, startPeer, startPodCharon, swanctl, TUNNEL, type Connection } from './charon.ts';
import { hasESP } from './has-esp.ts';
import { startPings, type PingReport, type Pings } from '../dataplane/pings.ts';
import { CLIENT, createWorld, MSS, ONPREM, POD, SERVICE, SPOOFED, type World } from './world.ts';

/** A guest without KVM on a busy machine is slow. */
const TEST_LIMIT_MS = 300_000;
const UP_LIMIT_MS = 60_000;
const BACK_LIMIT_MS = 3_000;
const LOG_CHARACTERS = 4_000;
const FAMILIES = [4, 6] as const;

/** One for all, as it takes long to make; each test leaves it as it was. */
let world: World;
before(
  async () => {
    // It also loads the kernel's modules, which takes longer than charon waits.
    assert.ok(await hasESP(), 'a kernel with ESP');
    world = await createWorld();
  },
  { timeout: TEST_LIMIT_MS },
);
after(() => world?.remove());

interface Scenario {
  /** Shown beside the test. */
  log(message: unknown): void;
  /** The last one is called first. */
  defer(cleanUp: () => Promise<unknown>): void;
  /** Both ends; resolves when the tunnel carries traffic, with the counters at 0. */
  tunnel(encap: boolean): Promise<{ pod: BareCharon; peer: BareCharon }>;
  startPod(connection: Connection): Promise<BareCharon>;
  /** Pings from the client to on-prem, until stopped; resolves with the first answer. */
  flowing(intervalMs?: number): Promise<Pings>;
}

/** Counters at 0, and no trace of IPsec after it. Where it fails the charons' logs are shown: the guest's files are gone then. */
function scenario(title: string, body: (scenario: Scenario) => Promise<void>): void {
  void test(title, { timeout: TEST_LIMIT_MS }, async (t) => {
    const cleanUps: (() => Promise<unknown>)[] = [forgetIPsec];
    const charons: BareCharon[] = [];
    t.after(async () => {
      for (const cleanUp of cleanUps.toReversed()) await cleanUp();
    });
    await world.reset();
    try {
      await body(createScenario(t, cleanUps, charons));
    } catch (error) {
      for (const { log } of charons) t.diagnostic(`${log}: ${(await readFile(log, 'utf8')).slice(-LOG_CHARACTERS)}`);
      throw error;
    }
  });
}

const forgetIPsec = async (): Promise<void> => {
  for (const ns of [world.pod, world.peer]) {
    await ns.ip('xfrm state flush', 'xfrm policy flush');
    // The table is not there before charon has made its first route.
    await ns.exec('ip', 'route', 'flush', 'table', '220').catch(() => undefined);
  }
};

function createScenario(t: TestContext, cleanUps: (() => Promise<unknown>)[], charons: BareCharon[]): Scenario {
  const started = (charon: BareCharon): BareCharon => {
    charons.push(charon);
    cleanUps.push(() => charon.kill());
    return charon;
  };
  const scenario: Scenario = {
    log: (message) => t.diagnostic(typeof message === 'string' ? message : JSON.stringify(message)),
    defer: (cleanUp) => void cleanUps.push(cleanUp),
    async tunnel(encap) {
      const peer = started(await startPeer(world, encap));
      const pod = await scenario.startPod({ encap, startAction: 'trap|start' });
      await (await scenario.flowing()).stop();
      await world.reset();
      return { pod, peer };
    },
    async startPod(connection) {
      const pod = started(await startPodCharon(world));
      await connectPod(pod, connection);
      return pod;
    },
    async flowing(intervalMs = 100) {
      const pings = startPings(world.client, ONPREM[4], { intervalMs });
      cleanUps.push(() => pings.stop());
      await pings.next(UP_LIMIT_MS);
      return pings;
    },
  };
  return scenario;
}

/** Runs `body` without the pod's rules, and puts them back. */
async function withoutRules(body: () => Promise<void>): Promise<void> {
  const rules = join(world.folder, 'rules.nft');
  await writeFile(rules, await world.pod.exec('nft', 'list', 'ruleset'));
  await world.pod.exec('nft', 'flush', 'ruleset');
  try {
    await body();
  } finally {
    await world.pod.exec('nft', '-f', rules);
  }
}

/** Lines of `ip xfrm policy` that name a direction; sockets' own are `socket in` and `socket out`. */
const policies = async (ns: Netns): Promise<number> =>
  (await ns.exec('ip', 'xfrm', 'policy')).split('\n').filter((line) => /^\s+dir (in|out|fwd) /.test(line)).length;

const counts = ({ sent, lost }: PingReport) => ({ sent, lost: lost.length });

const bothWays = (title: string, body: (scenario: Scenario, encap: boolean) => Promise<void>): void => {
  for (const encap of [false, true])
    scenario(`${title} (${encap ? 'ESP in UDP' : 'ESP'})`, async (made) => body(made, encap));
};

scenario('without charon nothing leaves, and without the rules all of it does', async () => {
  const { client } = world;
  for (const family of FAMILIES) assert.equal((await ping(client, ONPREM[family])).received, 0, `IPv${family}`);
  assert.equal((await world.seen()).clearOut, 0);
  assert.equal(await world.dropped(), 6);
  await withoutRules(async () => {
    for (const family of FAMILIES)
      assert.equal((await ping(client, ONPREM[family])).received, 3, `a leak in IPv${family}`);
    const { clearOut, clearIn } = await world.seen();
    assert.deepEqual({ clearOut, clearIn }, { clearOut: 6, clearIn: 6 });
  });
});

bothWays('up: everything passes, both ways and in both families, as ESP alone', async (s, encap) => {
  const { client, peer, pod } = world;
  await s.tunnel(encap);
  const paths: [Netns, string][] = [
    ...FAMILIES.flatMap((family): [Netns, string][] => [
      [client, ONPREM[family]],
      [peer, CLIENT[family]],
      [pod, ONPREM[family]],
    ]),
    [peer, SERVICE],
  ];
  for (const [from, to] of paths) {
    const source = from === peer ? { from: to.includes(':') ? ONPREM[6] : ONPREM[4] } : {};
    assert.equal((await ping(from, to, source)).received, 3, `${from.name} to ${to}`);
  }
  const { clearOut, clearIn, esp, espInUdp } = await world.seen();
  s.log({ esp, espInUdp });
  assert.deepEqual({ clearOut, clearIn }, { clearOut: 0, clearIn: 0 });
  const counted = encap ? { esp: 0, espInUdp: paths.length * 6 } : { esp: paths.length * 6, espInUdp: 0 };
  assert.deepEqual({ esp, espInUdp }, counted);
  assert.equal(await world.dropped(), 0);
});

bothWays('up: 300 kB of TCP each way arrive, with segments that fit', async (s, encap) => {
  const { client, peer } = world;
  await s.tunnel(encap);
  const filter = 'tcp[tcpflags] & tcp-syn != 0 or (ip6 and ip6[53] & 2 != 0)';
  // A decrypted packet is seen once more, as it is.
  const arriving = [
    await capture(client, 'eth0', filter, { direction: 'in' }),
    await capture(peer, 'eth0', filter, { direction: 'in' }),
  ];
  const transfer = async (from: Netns, to: Netns, address: string) => {
    const { digestsEqual, bytes } = await tcpTransfer(from, to, address, 300_000, { timeoutMs: 30_000 });
    assert.ok(digestsEqual, `${from.name} to ${address}: ${bytes} bytes`);
  };
  await transfer(client, peer, ONPREM[4]);
  await transfer(client, peer, ONPREM[6]);
  await onPremRoutes(async () => {
    await transfer(peer, client, CLIENT[4]);
    await transfer(peer, client, SERVICE);
  });
  const [atClient = [], atPeer = []] = await Promise.all(arriving.map((seen) => seen.stop()));
  const sizes = (lines: readonly string[]) =>
    lines.map((line) => / (IP6?) .*Flags \[S\.?\].*\bmss (\d+)/.exec(line)?.slice(1).join(' '));
  // The client's and the peer's eth0 both have an MTU of 1500. Each end sees a SYN or its answer of each connection.
  const expected = [`IP ${MSS[4]}`, `IP6 ${MSS[6]}`, `IP ${MSS[4]}`, `IP ${MSS[4]}`];
  assert.deepEqual(sizes(atPeer), expected, 'at the peer');
  assert.deepEqual(sizes(atClient), expected, 'at the client');
  const { clearOut, clearIn } = await world.seen();
  assert.deepEqual({ clearOut, clearIn }, { clearOut: 0, clearIn: 0 });
});

/** The peer's own address as a source is outside the tunnel: a program that binds none gets the on-prem one meanwhile. */
async function onPremRoutes(body: () => Promise<void>): Promise<void> {
  const { peer } = world;
  await peer.ip(`route add 10.0.0.0/8 via 203.0.113.1 src ${ONPREM[4]}`);
  try {
    await body();
  } finally {
    await peer.ip('route delete 10.0.0.0/8');
  }
}

bothWays('a trap whose peer is absent: all is lost, nothing leaves', async (s, encap) => {
  await s.startPod({ encap, startAction: 'trap' });
  const before = (await world.xfrm()).XfrmOutNoStates ?? 0;
  const { sent, received } = await ping(world.client, ONPREM[4], { count: 5 });
  assert.deepEqual({ sent, received }, { sent: 5, received: 0 });
  assert.equal((await world.seen()).clearOut, 0);
  // They end in XFRM, before they come to the rules.
  const noStates = ((await world.xfrm()).XfrmOutNoStates ?? 0) - before;
  assert.equal(noStates + (await world.dropped()), 5, JSON.stringify(await world.xfrm()));
});

bothWays('killed under traffic, states flushed, started again: back within 3 s, nothing leaves', async (s, encap) => {
  const { client, pod } = world;
  const ends = await s.tunnel(encap);
  const before = await policies(pod);
  assert.ok(before >= 6);
  const pings = startPings(client, ONPREM[4]);
  await pings.next(UP_LIMIT_MS);
  await ends.pod.kill();
  assert.equal(await policies(pod), before, 'policies stay');
  await sleep(500);
  await pod.ip('xfrm state flush');
  const again = await startPodCharon(world);
  s.defer(() => again.kill());
  assert.equal(await policies(pod), before, 'policies stay');
  await connectPod(again, { encap, startAction: 'trap|start' });
  const ms = await pings.next(UP_LIMIT_MS);
  s.log({ backAfterMs: ms, ...counts(await pings.stop()) });
  assert.ok(ms < BACK_LIMIT_MS, `${ms} ms`);
  assert.equal((await spis(again)).child.length, 1, 'charon knows the SA');
  assert.equal((await world.seen()).clearOut, 0);
});

bothWays('ended by SIGTERM under traffic and started again: nothing leaves', async (s, encap) => {
  const { pod } = world;
  const ends = await s.tunnel(encap);
  const pings = await s.flowing();
  await ends.pod.stop();
  await sleep(500);
  assert.equal(await policies(pod), 0, 'charon takes its policies along');
  assert.ok((await world.dropped()) > 0, 'the rules stand in');
  await s.startPod({ encap, startAction: 'trap|start' });
  await pings.next(UP_LIMIT_MS);
  s.log(counts(await pings.stop()));
  assert.equal((await world.seen()).clearOut, 0);
});

scenario('ended by SIGTERM without the rules: it leaves in clear', async (s) => {
  const ends = await s.tunnel(false);
  await withoutRules(async () => {
    await ends.pod.stop();
    await ping(world.client, ONPREM[4]);
    assert.equal((await world.seen()).clearOut, 3);
  });
});

bothWays('its IKE_SA ended under traffic: the trap makes another, nothing leaves', async (s, encap) => {
  const ends = await s.tunnel(encap);
  const old = await spis(ends.pod);
  const pings = await s.flowing();
  await swanctl(ends.pod, '--terminate', '--ike', TUNNEL);
  s.log({ nextAfterMs: await pings.next(UP_LIMIT_MS), ...counts(await pings.stop()) });
  const { ike, child } = await spis(ends.pod);
  assert.equal(child.length, 1);
  assert.notDeepEqual(ike, old.ike);
  assert.equal((await world.seen()).clearOut, 0);
});

bothWays('rekeyed under traffic: not one packet is lost', async (s, encap) => {
  const { pod } = await s.tunnel(encap);
  const pings = await s.flowing(20);
  const old = await spis(pod);
  await swanctl(pod, '--rekey', '--child', TUNNEL);
  await sleep(1_500);
  const newChild = await spis(pod);
  assert.notDeepEqual(newChild.child, old.child);
  assert.deepEqual(newChild.ike, old.ike);
  await swanctl(pod, '--rekey', '--ike', TUNNEL);
  await sleep(1_500);
  assert.notDeepEqual((await spis(pod)).ike, old.ike);
  await pings.next(UP_LIMIT_MS);
  const { sent, lost } = await pings.stop();
  s.log(`${sent} sent`);
  assert.deepEqual(lost, []);
  const { clearOut, clearIn } = await world.seen();
  assert.deepEqual({ clearOut, clearIn }, { clearOut: 0, clearIn: 0 });
});

/** How many of 3 packets in clear, as if from on-prem, that the node hands to the frontend's pod come to the client. */
async function spoofed(): Promise<number> {
  const { node, client } = world;
  const source = '192.168.50.66';
  // Only what the node sends, not what comes back from the pod.
  const rule = ['iif', 'lo', 'from', source, 'lookup', SPOOFED];
  await node.ip(`address add ${source}/32 dev lo`);
  await node.exec('ip', 'rule', 'add', ...rule);
  const seen = await capture(client, 'eth0', `icmp and src host ${source}`, { direction: 'in' });
  try {
    await ping(node, CLIENT[4], { from: source });
  } finally {
    await node.exec('ip', 'rule', 'delete', ...rule);
    await node.ip(`address delete ${source}/32 dev lo`);
  }
  return (await seen.stop()).length;
}

scenario('packets in clear as if from on-prem are not forwarded, with policies or without', async (s) => {
  const without = { forwarded: await spoofed(), dropped: await world.dropped() };
  assert.deepEqual(without, { forwarded: 0, dropped: 3 });
  await withoutRules(async () => {
    assert.equal(await spoofed(), 3, 'without the rules they are');
  });
  await s.tunnel(false);
  const before = await world.xfrm();
  assert.equal(await spoofed(), 0);
  const after = await world.xfrm();
  s.log({ before, after, dropped: await world.dropped() });
  assert.equal((after.XfrmInTmplMismatch ?? 0) - (before.XfrmInTmplMismatch ?? 0), 3);
});

scenario("the pod's own answers don't leave in clear", async (s) => {
  const ends = await s.tunnel(false);
  const ask = () => ping(world.peer, POD[4], { from: ONPREM[4] });
  assert.equal((await ask()).received, 3, 'through the tunnel');
  await ends.pod.stop();
  await world.reset();
  assert.equal((await ask()).received, 0);
  const { clearIn, clearOut } = await world.seen();
  assert.deepEqual({ clearIn, clearOut }, { clearIn: 3, clearOut: 0 });
  assert.equal(await world.dropped(), 3);
  await withoutRules(async () => {
    assert.equal((await ask()).received, 3, 'a leak');
  });
});
