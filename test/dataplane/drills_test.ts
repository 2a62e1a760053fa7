/** Bad days of a node's routes, and what an agent does to those of a good one: on a real kernel, with a real API server. */
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { settled, until, type LogRecord } from '../api/agent.ts';
import { NAMESPACE } from '../api/cilium.ts';
import type { Netns } from './netns.ts';
import {
  configOf,
  connectSite,
  foreignRoutes,
  logged,
  nowhere,
  ON_A,
  ON_B,
  otherIp,
  problemOf,
  reaches,
  STARTING_MS,
  throughPod,
  throughTunnel,
  untilLogged,
  untilReady,
  untilRoutes,
  untilSettled,
  untilUnready,
  watchRoutes,
} from './node-routes.ts';
import {
  createSite,
  ourRoutes,
  PROTO,
  securityOf,
  setUp,
  SITE,
  startProcess,
  type Routing,
  type Site,
} from './routing.ts';
import { capture, startFlow } from './traffic.ts';
import { recreateInterface } from './world.ts';

const fixture = setUp(test);

const [IPV4, IPV6] = SITE.peerCIDRs as [string, string];
const ONPREM = ['192.168.50.9', 'fd12:3456::9'] as const;
const UNREACHABLE = SITE.peerCIDRs.map((cidr) => `unreachable ${cidr} metric 4294967295`);
const TO_SITE = ONPREM.map((address) => `dst host ${address}`).join(' or ');
const ACCOUNT = `system:serviceaccount:${NAMESPACE}:vpn-routing`;
const CHANGED = 'routes changed';
const REPAIRS = 'constellation_vpn_routing_repairs_total';
const CHECKS = 'constellation_vpn_routing_checks_total';
const PRESENT = 'constellation_vpn_routing_ranges_present';

/** Both agents, with all their routes. */
async function startBoth(t: ExecutionContext, site: Site): Promise<{ a: Routing; b: Routing }> {
  const [a, b] = await Promise.all([site.start('nodeA'), site.start('nodeB')]);
  await untilRoutes(t, site.world.nodeA, ON_A);
  await untilRoutes(t, site.world.nodeB, ON_B);
  await untilReady(a);
  await untilReady(b);
  return { a, b };
}

const flush = (netns: Netns) =>
  Promise.all(['-4', '-6'].map((family) => netns.exec('ip', family, 'route', 'flush', 'proto', String(PROTO))));

/** How often something was put right; 0 where nothing was. */
const repairs = async (agent: Routing, kind: string) => (await agent.metric(REPAIRS))[`{kind="${kind}"}`] ?? 0;
/** How often all of the kernel was read, which a single event does not ask for. */
const checks = async (agent: Routing) => (await agent.metric(CHECKS))['{extent="all"}'];

test.serial('each of our routes is deleted, one by one and all at once: it is back by the event', async (t) => {
  const site = await createSite(t, fixture);
  const { a, b } = await startBoth(t, site);
  const restored = async (agent: Routing, netns: Netns, expected: readonly string[], deletions: readonly string[]) => {
    await untilSettled(agent);
    const before = await checks(agent);
    for (const [i, deletion] of deletions.entries()) {
      await netns.ip(`route delete ${deletion}`);
      await untilRoutes(t, netns, expected);
      await until(async () => (await repairs(agent, 'missing-route')) === i + 1, 'the repair to be counted');
      const seconds = await agent.metric('constellation_vpn_routing_repair_seconds_count');
      t.is(seconds[''], i + 1);
    }
    await flush(netns);
    await untilRoutes(t, netns, expected);
    await until(async () => (await repairs(agent, 'missing-route')) >= 2 * deletions.length, 'all to be counted');
    // It was no look at everything that found them missing.
    t.is(await checks(agent), before);
    const sum = (await agent.metric('constellation_vpn_routing_repair_seconds_sum'))[''] ?? NaN;
    t.true(sum > 0 && sum < 10, `repairs took ${sum} s`);
    t.deepEqual(agent.errors(), []);
  };
  // Both at once: each is to be done before its agent looks at everything again.
  await Promise.all([
    restored(a, site.world.nodeA, ON_A, [`${IPV4} via 10.10.0.5`, `${IPV6} via fd00:10::5`, ...UNREACHABLE]),
    restored(b, site.world.nodeB, ON_B, [`${IPV4} dev cilium_host`, `${IPV6} dev cilium_host`, ...UNREACHABLE]),
  ]);
});

test.serial(
  'a route of ours is changed, its protocol kept, or has another beside it: right again by the event',
  async (t) => {
    const site = await createSite(t, fixture);
    const { nodeA, nodeB } = site.world;
    const { a, b } = await startBoth(t, site);
    await untilSettled(b);
    for (const [i, route] of [
      `${IPV4} via 10.10.0.5 dev lxcfrontend src 10.10.0.1 mtu 1200`,
      `${IPV4} dev cilium_host src 10.10.0.1 mtu 1300`,
      `${IPV4} via 10.10.0.6 dev lxcneighbour src 10.10.0.1 mtu 1300`,
      `${IPV6} via fd00:10::5 dev lxcfrontend src fd00:10::1 mtu 1400`,
    ].entries()) {
      await nodeA.ip(`route replace ${route} proto ${PROTO}`);
      await untilRoutes(t, nodeA, ON_A);
      await until(async () => (await repairs(a, 'changed-route')) === i + 1, 'the repair to be counted');
    }
    await nodeB.ip(`route replace ${IPV4} via 192.0.2.1 mtu 1300 proto ${PROTO}`);
    await untilRoutes(t, nodeB, ON_B);
    await nodeB.ip(`route add ${IPV4} dev cilium_host metric 5 proto ${PROTO}`);
    await untilRoutes(t, nodeB, ON_B);
    await until(async () => (await repairs(b, 'stale-route')) === 1, 'the repair to be counted');
    t.deepEqual([...a.errors(), ...b.errors()], []);
  },
);

test.serial("the pod's link goes down and comes up: nothing leaves in clear meanwhile", async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA, client } = site.world;
  await connectSite(site.world);
  await startBoth(t, site);
  await reaches(t, client, ONPREM);
  const leaks = await capture(nodeA, 'uplink', TO_SITE);
  const flows = [
    await startFlow(client, site.world.onprem, ONPREM[0]),
    await startFlow(client, site.world.onprem, ONPREM[1]),
  ];
  await nodeA.ip('link set lxcfrontend down');
  await untilRoutes(t, nodeA, nowhere(SITE.peerCIDRs));
  await sleep(300);
  await nodeA.ip(
    'link set lxcfrontend up',
    'route add 10.10.0.5 dev lxcfrontend proto kernel scope link',
    'route add fd00:10::5 dev lxcfrontend proto kernel metric 1024',
  );
  await untilRoutes(t, nodeA, ON_A);
  await reaches(t, client, ONPREM);
  for (const flow of flows) t.true((await flow.stop()).received > 0);
  t.deepEqual(await leaks.stop(), []);
});

test.serial('cilium_host goes down and comes up', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeB } = site.world;
  const { b } = await startBoth(t, site);
  await untilSettled(b);
  await nodeB.ip('link set cilium_host down');
  await untilRoutes(t, nodeB, nowhere(SITE.peerCIDRs));
  await untilUnready(b, /Device for nexthop is not up|Network is down/);
  await nodeB.ip('link set cilium_host up', 'address add fd00:10:0:1::1/128 dev cilium_host nodad');
  await untilRoutes(t, nodeB, ON_B);
  await untilReady(b);
  // What is changed right after the kernel had refused routes is seen, too.
  await nodeB.ip(`route replace ${IPV4} dev cilium_host src 10.10.1.1 mtu 1200 proto ${PROTO}`);
  await untilRoutes(t, nodeB, ON_B);
});

test.serial("the pod's interface is replaced: the routes go by the new one, nothing leaves in clear", async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA, client } = site.world;
  await connectSite(site.world);
  await startBoth(t, site);
  const leaks = await capture(nodeA, 'uplink', TO_SITE);
  const flow = await startFlow(client, site.world.onprem, ONPREM[0]);
  await recreateInterface(site.world, 'lxcfrontend2');
  await untilRoutes(t, nodeA, throughPod(SITE.peerCIDRs, { device: 'lxcfrontend2' }));
  await reaches(t, client, ONPREM);
  await recreateInterface(site.world, 'lxcfrontend');
  await untilRoutes(t, nodeA, ON_A);
  t.true((await flow.stop()).received > 0);
  t.deepEqual(await leaks.stop(), []);
});

test.serial('the API server is away: repairs go on, and so does the configuration', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA } = site.world;
  const { a } = await startBoth(t, site);
  await site.nodeA.relay.cut();
  await untilUnready(a, new RegExp(`^frontend Pods .*: .*${fixture.cluster.server}.*\n.*cilium-config.*: .*`));
  await flush(nodeA);
  await untilRoutes(t, nodeA, ON_A);
  await site.volume.set(configOf(fixture, { peerCIDRs: [...SITE.peerCIDRs, '172.16.0.0/16'] }));
  await untilRoutes(t, nodeA, throughPod([...SITE.peerCIDRs, '172.16.0.0/16']));
  await recreateInterface(site.world);
  await untilRoutes(t, nodeA, throughPod([...SITE.peerCIDRs, '172.16.0.0/16'], { device: 'lxcfrontend2' }));
  await site.nodeA.relay.restore();
  await untilReady(a);
});

test.serial('the API server is away at the start: the routes of before stay until it answers', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA, nodeB } = site.world;
  const { a, b } = await startBoth(t, site);
  for (const agent of [a, b]) t.is(await agent.stop(), 0);
  await site.nodeA.relay.cut();
  await site.nodeB.relay.cut();
  const seen = [await watchRoutes(nodeA), await watchRoutes(nodeB)];
  await site.volume.set(configOf(fixture, { peerCIDRs: [IPV4, '172.16.0.0/16'] }));
  const again = [await site.start('nodeA'), await site.start('nodeB')];
  for (const agent of again) {
    await untilUnready(agent, /^frontend Pods of the node node-. .*: no answer from the API server at .*ECONNREFUSED/m);
    t.regex((await agent.get('/frontend?ip=10.10.0.5')).text, /"ready":false.*API server/);
    t.is((await agent.get('/livez')).status, 200);
  }
  for (const watch of seen) t.deepEqual(await watch.stop(), []);
  await site.nodeA.relay.restore();
  await site.nodeB.relay.restore();
  await untilRoutes(t, nodeA, throughPod([IPV4, '172.16.0.0/16']), 60_000);
  await untilRoutes(t, nodeB, throughTunnel([IPV4, '172.16.0.0/16']), 60_000);
  for (const agent of again) await untilReady(agent);
});

test.serial('agents end, are killed and start again under flows: no packet is lost, no route changes', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA, nodeB, client, onprem } = site.world;
  await connectSite(site.world);
  let { a, b } = await startBoth(t, site);
  await reaches(t, client, ONPREM);
  const seen = [await watchRoutes(nodeA), await watchRoutes(nodeB)];
  const flows = [await startFlow(client, onprem, ONPREM[0]), await startFlow(client, onprem, ONPREM[1])];
  for (const signal of ['SIGTERM', 'SIGKILL', 'SIGTERM'] as const) {
    const codes = await Promise.all([a.stop(signal), b.stop(signal)]);
    t.deepEqual(codes, signal === 'SIGTERM' ? [0, 0] : [undefined, undefined]);
    ({ a, b } = await startBoth(t, site));
    // A second run has nothing to do.
    t.is(logged(a, CHANGED) + logged(b, CHANGED), 0);
    t.deepEqual(await a.metric(PRESENT), { '': 2 });
  }
  for (const watch of seen) t.deepEqual(await watch.stop(), []);
  for (const flow of flows) {
    const { sent, lost } = await flow.stop();
    t.true(sent > 100);
    t.deepEqual(lost, []);
  }
});

test.serial(
  'the configuration is swapped 100 times under a flow: none of its packets is lost, the end is right',
  async (t) => {
    const site = await createSite(t, fixture);
    const { nodeA, nodeB, client, onprem } = site.world;
    await connectSite(site.world);
    const { a, b } = await startBoth(t, site);
    await reaches(t, client, ONPREM);
    const flows = [await startFlow(client, onprem, ONPREM[0]), await startFlow(client, onprem, ONPREM[1])];
    const seen = [await watchRoutes(nodeA), await watchRoutes(nodeB)];
    const other = '172.16.0.0/16';
    for (let i = 0; i < 100; i++) {
      await site.volume.set(
        configOf(fixture, { peerCIDRs: i % 2 === 0 ? [other, ...SITE.peerCIDRs] : SITE.peerCIDRs }),
      );
      // Sometimes time enough for it, sometimes not.
      await sleep(i % 10 === 0 ? 100 : 5);
    }
    await site.volume.set(configOf(fixture, { peerCIDRs: [other, ...SITE.peerCIDRs] }));
    await untilRoutes(t, nodeA, throughPod([other, ...SITE.peerCIDRs]));
    await untilRoutes(t, nodeB, throughTunnel([other, ...SITE.peerCIDRs]));
    for (const watch of seen) {
      const lines = await watch.stop();
      t.true(lines.length > 5);
      t.deepEqual(
        lines.filter((line) => !line.includes(other)),
        [],
      );
    }
    for (const flow of flows) t.deepEqual((await flow.stop()).lost, []);
    t.deepEqual([...a.errors(), ...b.errors()], []);
  },
);

test.serial(
  '10,000 ranges: all there; one goes and one comes; a restart changes none; all deleted, all back',
  async (t) => {
    const site = await createSite(t, fixture);
    const { nodeA } = site.world;
    const cidrs = Array.from({ length: 10_000 }, (_, i) => `20.${i >> 8}.${i & 255}.0/24`);
    await site.volume.set(configOf(fixture, { peerCIDRs: cidrs }));
    const a = await site.start('nodeA');
    const limitMs = 60_000;
    await untilRoutes(t, nodeA, throughPod(cidrs), limitMs);
    const seen = await watchRoutes(nodeA);
    const changed = [...cidrs.slice(1), '30.0.0.0/24'];
    await site.volume.set(configOf(fixture, { peerCIDRs: changed }));
    await untilRoutes(t, nodeA, throughPod(changed), limitMs);
    const lines = await seen.stop();
    t.is(lines.length, 4, lines.slice(0, 10).join('\n'));
    t.true(
      lines.every((line) => line.includes('30.0.0.0/24') || (line.includes('Deleted') && line.includes('20.0.0.0/24'))),
    );
    t.is(await a.stop(), 0);

    const again = await watchRoutes(nodeA);
    const second = await site.start('nodeA');
    await untilReady(second, limitMs);
    t.deepEqual(await second.metric(PRESENT), { '': 10_000 });
    t.deepEqual(await again.stop(), []);
    t.is(logged(second, CHANGED), 0);

    await nodeA.exec('ip', 'route', 'flush', 'proto', String(PROTO));
    await untilRoutes(t, nodeA, throughPod(changed), limitMs);
    await untilReady(second, limitMs);
  },
);

test.serial('ip is missing, fails, works: says so, goes on, and heals', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA } = site.world;
  const ip = await otherIp(nodeA);
  await ip.set('missing');
  const a = await site.start('nodeA', { env: ip.env });
  await untilUnready(a, /^the kernel's routes are not watched, only looked at once a minute: ip: is not on PATH$/m);
  await untilUnready(a, /^ip: is not on PATH$/m);
  // Cilium needs no ip.
  await until(
    () => site.nodeA.cilium.endpoints.get(17)?.options.SourceIPVerification === 'Disabled',
    'the source check',
  );
  t.regex((await a.get('/frontend?ip=10.10.0.5')).text, /"ready":false.*ip: is not on PATH/);
  t.is((await a.get('/livez')).status, 200);
  await ip.set('works');
  await untilRoutes(t, nodeA, ON_A, 60_000);
  await untilReady(a);
  await untilLogged(a, 'the kernel is watched again');
  await untilLogged(a, 'does not fail any more');

  await ip.set('fails');
  await nodeA.ip(`route delete ${IPV4} via 10.10.0.5`);
  await untilUnready(a, /^ip: ended with exit code 3: out of luck$/m);
  t.is(
    problemOf(await untilLogged(a, 'failed, trying again', ({ problem }) => String(problem).includes('luck'))),
    'ip: ended with exit code 3: out of luck',
  );
  await ip.set('works');
  await untilRoutes(t, nodeA, ON_A, 60_000);
  await untilReady(a);
  t.deepEqual(await a.metric(PRESENT), { '': 2 });
  t.is(await a.stop(), 0);
});

test.serial('ip hangs: it is killed after a while, the agent answers meanwhile, and heals', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA } = site.world;
  const ip = await otherIp(nodeA);
  await ip.set('hangs');
  const a = await site.start('nodeA', { env: ip.env });
  await untilUnready(a, /^the routes have not been looked at yet$/m);
  await until(
    () => site.nodeA.cilium.endpoints.get(17)?.options.SourceIPVerification === 'Disabled',
    'the source check',
  );
  t.is((await a.get('/livez')).status, 200);
  await untilUnready(a, /^ip: did not end within \d+ ms and was killed$/m, 60_000);
  await ip.set('works');
  await untilRoutes(t, nodeA, ON_A, 60_000);
  await untilReady(a);
});

test.serial('ip monitor is killed: another one watches', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA } = site.world;
  const { a } = await startBoth(t, site);
  const monitor = await until(() => childOf(a.pid), 'the monitor');
  process.kill(monitor, 'SIGKILL');
  // In between nobody sees it go.
  await nodeA.ip(`route delete ${IPV4} via 10.10.0.5`);
  const { problem } = await untilLogged(a, "can't watch the kernel, trying again");
  t.is(problem, "the kernel's routes are not watched, only looked at once a minute: ip: ended with SIGKILL");
  await untilRoutes(t, nodeA, ON_A);
  await until(async () => ((await childOf(a.pid)) ?? monitor) !== monitor, 'another monitor');
  await sleep(STARTING_MS);
  await untilReady(a);
  const before = await checks(a);
  await nodeA.ip(`route delete ${IPV4} via 10.10.0.5`);
  await untilRoutes(t, nodeA, ON_A);
  t.is(await checks(a), before);
});

/** The only lasting child of an agent. */
async function childOf(pid: number): Promise<number | undefined> {
  const children = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim();
  return /^\d+$/.test(children) ? Number(children) : undefined;
}

/** As the manifests say, without capabilities. */
const powerless = () => [
  ...securityOf(fixture.rendered, 'DaemonSet', 'routing').filter((option) => !option.startsWith('--bounding-set')),
  '--bounding-set=-all',
];

test.serial('without NET_ADMIN: says that it is missing, and turns the source check off all the same', async (t) => {
  const site = await createSite(t, fixture);
  const a = await site.start('nodeA', { security: powerless() });
  const message =
    /the kernel does not permit it: the container lacks the capability NET_ADMIN \(securityContext\.capabilities\.add\)/;
  await untilUnready(a, message);
  t.regex(problemOf(await untilLogged(a, 'failed, trying again')), message);
  t.regex(problemOf(await untilLogged(a, 'no route to this range')), message);
  await until(
    () => site.nodeA.cilium.endpoints.get(17)?.options.SourceIPVerification === 'Disabled',
    'the source check',
  );
  t.deepEqual(await ourRoutes(site.world.nodeA), []);
  t.deepEqual(await a.metric('constellation_vpn_routing_ranges_refused'), { '{reason="kernel"}': 2 });
});

/** What cleanup says where all is well. */
const CLEAN = 'no route of the VPN is left on this node';

test.serial('cleanup: every route of ours goes from every node, others stay; twice is once', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA, nodeB } = site.world;
  const { a, b } = await startBoth(t, site);
  for (const agent of [a, b]) await agent.stop();
  await nodeA.ip(
    // Of a configuration of long ago, and somebody else's.
    `route add 10.99.0.0/16 dev cilium_host metric 4 proto ${PROTO}`,
    `route add fd99::/32 dev cilium_host metric 4 proto ${PROTO}`,
    `route add unreachable 10.98.0.0/16 proto ${PROTO}`,
    `route add 10.97.0.0/16 via 192.0.2.1 proto ${PROTO + 1}`,
    `route add fd97::/32 via 2001:db8:2::1 proto ${PROTO - 1}`,
  );
  for (const [node, netns, deleted] of [
    ['nodeA', nodeA, 7],
    ['nodeB', nodeB, 4],
  ] as const) {
    const before = await foreignRoutes(netns);
    const said = async () => {
      const { exitCode, stderr, log } = await site.cleanup(node);
      t.deepEqual({ exitCode, stderr }, { exitCode: 0, stderr: '' });
      return log.map((record) => [record.msg, record.deleted]);
    };
    t.deepEqual(await said(), [[CLEAN, deleted]]);
    t.deepEqual(await ourRoutes(netns), []);
    t.deepEqual(await said(), [[CLEAN, 0]]);
    t.is(await foreignRoutes(netns), before);
  }
});

test.serial('cleanup without NET_ADMIN: says so and ends with 1; nothing to do needs none', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeB } = site.world;
  t.is((await site.cleanup('nodeB', { security: powerless() })).exitCode, 0);
  await nodeB.ip(
    `route add ${IPV4} dev cilium_host proto ${PROTO}`,
    `route add ${IPV6} dev cilium_host proto ${PROTO}`,
  );
  const { exitCode, stderr, log } = await site.cleanup('nodeB', { security: powerless() });
  t.deepEqual({ exitCode, stderr }, { exitCode: 1, stderr: '' });
  t.is(log.length, 1);
  t.regex(problemOf(log[0] as LogRecord), /^2 routes are left, 192\.168\.50\.0\/24 the first of them: .*NET_ADMIN/);
  t.is((await ourRoutes(nodeB)).length, 2);
});

test.serial(
  'cleanup --stay: ready once nothing is left, not ready while something is, until it is ended',
  async (t) => {
    const site = await createSite(t, fixture);
    const { nodeB } = site.world;
    const own = securityOf(fixture.rendered, 'DaemonSet', 'routing');
    await nodeB.ip(`route add ${IPV4} dev cilium_host proto ${PROTO}`);
    const answer = (cleanup: Routing) =>
      until(
        () =>
          cleanup.get('/readyz').then(
            (got) => !got.text.includes('not done yet') && got,
            () => undefined,
          ),
        'an answer',
      );
    const kept = await startProcess(nodeB, powerless(), ['cleanup', '--stay']);
    const { status, text } = await answer(kept);
    t.is(status, 503);
    t.regex(text, /^1 routes are left, .*NET_ADMIN/);
    t.is(await kept.stop(), 0);

    const cleanup = await startProcess(nodeB, own, ['cleanup', '--stay']);
    t.deepEqual(await answer(cleanup), { status: 200, text: 'ok\n' });
    t.deepEqual(
      cleanup.log.map(({ msg, deleted }) => [msg, deleted]),
      [[CLEAN, 1]],
    );
    t.deepEqual(await ourRoutes(nodeB), []);
    t.is(await cleanup.stop(), 0);
  },
);

test.serial('nothing changes: no request, no route, no line in the log', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA, nodeB } = site.world;
  const { a, b } = await startBoth(t, site);
  await until(
    () => site.nodeA.cilium.endpoints.get(17)?.options.SourceIPVerification === 'Disabled',
    'the source check',
  );
  await until(() => logged(a, "Cilium's source check turned off") > 0, 'the log');
  const requests = async () => (await fixture.cluster.audit()).filter(({ user }) => user === ACCOUNT).length;
  await settled(requests, 'the number of requests');
  const seen = [await watchRoutes(nodeA), await watchRoutes(nodeB)];
  const before = { requests: await requests(), lines: a.log.length + b.log.length };
  await sleep(12_000); // what polls every 10 s would show
  t.deepEqual({ requests: await requests(), lines: a.log.length + b.log.length }, before);
  for (const watch of seen) t.deepEqual(await watch.stop(), []);
});

test.serial('in all these tests nothing was asked but what the Role allows, and nothing was written', async (t) => {
  const seen = (await fixture.cluster.audit()).filter(({ user }) => user === ACCOUNT);
  const kinds = seen.map(({ verb, resource, namespace, code }) => `${verb} ${resource} ${namespace} ${code}`);
  t.deepEqual([...new Set(kinds)].toSorted(), [
    'list configmaps kube-system 200',
    `list pods ${NAMESPACE} 200`,
    'watch configmaps kube-system 200',
    `watch pods ${NAMESPACE} 200`,
  ]);
});
