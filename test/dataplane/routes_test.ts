/** The node's routes: on a real kernel, with a real API server. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { until } from '../api/agent.ts';
import { ask, createConfigMap, createPod, deleteConfigMap, deletePod, NAMESPACE, removeAll } from '../api/cilium.ts';
import type { FrontendState } from '../../agents/routing/frontend-state.ts';
import {
  configOf,
  connectSite,
  foreignRoutes,
  logged,
  nowhere,
  ON_A,
  ON_A_WITHOUT_POD,
  ON_B,
  problemOf,
  reaches,
  throughPod,
  throughTunnel,
  untilLogged,
  untilReady,
  untilRoutes,
  untilSettled,
  untilUnready,
  watchRoutes,
} from './node-routes.ts';
import { CILIUM_CONFIG, createSite, POD, PROTO, setUp, SITE, type Routing } from './routing.ts';
import { capture } from './traffic.ts';
import { removeEndpointRoutes } from './world.ts';

const fixture = setUp(test);

const [IPV4, IPV6] = SITE.peerCIDRs as [string, string];
const ONPREM = ['192.168.50.9', 'fd12:3456::9'];
const CLIENT = ['10.10.1.7', 'fd00:10:0:1::7'];
const MUNICH = { name: 'vpn-frontend-munich-0', site: 'munich' };
/** Of a frontend on nodeB, for which another pod's interface does. */
const BY_CLIENT = {
  device: 'lxcclient',
  via: ['10.10.1.7', 'fd00:10:0:1::7'],
  src: ['10.10.1.1', 'fd00:10:0:1::1'],
} as const;
const NATIVE = { ...CILIUM_CONFIG, 'routing-mode': 'native' };
const REFUSED = 'constellation_vpn_routing_ranges_refused';
const PRESENT = 'constellation_vpn_routing_ranges_present';
const REPAIRS = 'constellation_vpn_routing_repairs_total';
const NO_ROUTE = 'no route to this range';
/** With something to spare: what may be over in a moment is said after so long. */
const HELD_BACK_MS = 6_000;

/** Waits for the line about a range and checks what it says. */
async function refuses(t: ExecutionContext, agent: Routing, cidr: string, problem: RegExp): Promise<void> {
  t.regex(problemOf(await untilLogged(agent, NO_ROUTE, (record) => record.cidr === cidr)), problem);
}

/** What the pod with this address hears once it is ready: why which range has no route. */
async function withoutRoute(agent: Routing, ip: string): Promise<Record<string, string>> {
  const answer = async () => JSON.parse((await agent.get(`/frontend?ip=${ip}`)).text) as FrontendState;
  const state = await until(async () => {
    const { ready, withoutRoute: refusals } = await answer();
    return ready && refusals;
  }, 'the frontend to be ready');
  return Object.fromEntries(state.map((line) => line.split(/: (.*)/s, 2) as [string, string]));
}

/** Waits until so many ranges are refused, by reason. */
async function untilRefused(t: ExecutionContext, agent: Routing, expected: Record<string, number>): Promise<void> {
  let seen: Record<string, number> = {};
  const wanted = Object.fromEntries(Object.entries(expected).map(([reason, n]) => [`{reason="${reason}"}`, n]));
  const same = async () => {
    seen = await agent.metric(REFUSED);
    return isDeepStrictEqual(seen, wanted);
  };
  await until(same, 'ranges to be refused').catch(() => undefined);
  t.deepEqual(seen, wanted);
}

test.serial('pods and both nodes reach the site, and it them: every node has its routes', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA, nodeB, client, onprem } = site.world;
  await connectSite(site.world);
  const [a, b] = await Promise.all([site.start('nodeA'), site.start('nodeB')]);
  await untilRoutes(t, nodeA, ON_A);
  await untilRoutes(t, nodeB, ON_B);
  const seen = await capture(onprem, 'eth0', 'icmp or icmp6[icmp6type] == icmp6-echo', { direction: 'in' });
  for (const from of [client, nodeA, nodeB]) await reaches(t, from, ONPREM);
  await reaches(t, onprem, [...CLIENT, '10.10.1.1', 'fd00:10:0:1::1', '10.10.0.1', 'fd00:10::1']);
  const sources = (await seen.stop()).map((line) => / IP6? (\S+) > \S+ ICMP6?,? echo request/.exec(line)?.[1]);
  // The host's own, too, come from addresses that the tunnel's traffic selectors have.
  const expected = [...CLIENT, '10.10.0.1', 'fd00:10::1', '10.10.1.1', 'fd00:10:0:1::1'];
  t.deepEqual(new Set(sources.filter((source) => source !== undefined)), new Set(expected));
  for (const agent of [a, b]) {
    await untilReady(agent);
    t.deepEqual(await agent.metric('constellation_vpn_routing_ranges_desired'), { '': 2 });
    t.deepEqual(await agent.metric(PRESENT), { '': 2 });
    t.deepEqual(await agent.metric(REFUSED), {});
    t.deepEqual(agent.errors(), []);
  }
});

test.serial(
  "native routing: the frontend's node has its routes, another one none, also those of an earlier run go",
  async (t) => {
    const site = await createSite(t, fixture, NATIVE);
    const { nodeA, nodeB } = site.world;
    await nodeB.ip(
      `route add ${IPV4} dev cilium_host src 10.10.1.1 mtu 1300 proto ${PROTO}`,
      `route add ${IPV6} dev cilium_host src fd00:10:0:1::1 mtu 1300 proto ${PROTO}`,
    );
    const [, b] = await Promise.all([site.start('nodeA'), site.start('nodeB')]);
    await untilRoutes(t, nodeA, ON_A);
    await untilRoutes(t, nodeB, []);
    await untilReady(b);
    t.deepEqual(await b.metric(PRESENT), { '': 0 });
  },
);

test.serial("Cilium's routing mode changes while the agents run", async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA, nodeB } = site.world;
  await Promise.all([site.start('nodeA'), site.start('nodeB')]);
  await untilRoutes(t, nodeA, ON_A);
  await untilRoutes(t, nodeB, ON_B);
  const setMode = async (data: Record<string, string>) => {
    await deleteConfigMap(fixture.cluster, 'cilium-config');
    await createConfigMap(fixture.cluster, 'cilium-config', data);
  };
  const seen = await watchRoutes(nodeA);
  await setMode(NATIVE);
  await untilRoutes(t, nodeB, []);
  await setMode(CILIUM_CONFIG);
  await untilRoutes(t, nodeB, ON_B);
  t.deepEqual(await seen.stop(), []);
});

test.serial('configuration: a range is added, one removed, all change; the others are not touched', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA, nodeB } = site.world;
  const agents = await Promise.all([site.start('nodeA'), site.start('nodeB')]);
  await untilRoutes(t, nodeA, ON_A);
  await untilRoutes(t, nodeB, ON_B);
  const set = async (...cidrs: string[]) => {
    await site.volume.set(configOf(fixture, { peerCIDRs: cidrs }));
    await untilRoutes(t, nodeA, throughPod(cidrs));
    await untilRoutes(t, nodeB, throughTunnel(cidrs));
  };
  const seen = await watchRoutes(nodeA);
  await set(IPV4, IPV6, '172.16.0.0/12');
  await set(IPV4, IPV6, '172.16.0.0/12', 'fd12:ffff::/64');
  await set(IPV6, '172.16.0.0/12', 'fd12:ffff::/64');
  const changes = await seen.stop();
  t.is(changes.length, 6, changes.join('\n'));
  t.false(changes.some((line) => line.includes('fd12:3456')));
  await set('172.17.0.0/16', '172.18.0.0/24', 'fd13::/32');
  for (const agent of agents) {
    t.deepEqual(await agent.metric(PRESENT), { '': 3 });
    // Nobody had undone anything.
    const kinds = Object.keys(await agent.metric(REPAIRS));
    t.deepEqual(
      kinds.filter((kind) => kind.includes('route')),
      [],
    );
  }
});

test.serial('configuration: while it is broken the last good one stays, and the metric says so', async (t) => {
  const site = await createSite(t, fixture);
  const a = await site.start('nodeA');
  await untilRoutes(t, site.world.nodeA, ON_A);
  const seen = await watchRoutes(site.world.nodeA);
  const valid = () => a.metric('constellation_vpn_config_valid');
  t.deepEqual(await valid(), { '': 1 });
  for (const [broken, problem] of [
    ['{', /is not JSON/],
    ['', /is empty/],
    [configOf(fixture, { peerCIDRs: ['10.8.0.0/33'] }), /spec\.sites\[0\]\.peerCIDRs\[0\]/],
  ] as const) {
    await site.volume.set(broken);
    const refused = 'configuration refused, the last good one stays in force';
    await untilLogged(a, refused, (record) => problem.test(problemOf(record)));
    t.deepEqual(await valid(), { '': 0 });
  }
  await untilReady(a);
  t.deepEqual(await seen.stop(), []);
  await site.volume.set(configOf(fixture, { peerCIDRs: [IPV4] }));
  await untilRoutes(t, site.world.nodeA, throughPod([IPV4]));
  t.deepEqual(await valid(), { '': 1 });
});

test.serial('configuration: empty at the start, nothing is touched until it is good', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA } = site.world;
  await nodeA.ip(`route add 10.99.0.0/16 via 10.10.0.6 dev lxcneighbour proto ${PROTO}`);
  await site.volume.set('');
  const seen = await watchRoutes(nodeA);
  const a = await site.start('nodeA');
  await untilUnready(a, /^configuration .*: is empty: .*render and apply again$/m);
  await untilLogged(a, 'configuration refused, waiting for a valid one');
  // What the API server says is known by then, too.
  await until(async () => !(await a.get('/readyz')).text.includes('waiting for the API server'), 'the API server');
  t.deepEqual(await a.metric('constellation_vpn_config_valid'), { '': 0 });
  t.regex((await a.get('/frontend?ip=10.10.0.5')).text, /"ready":false.*is empty/);
  t.deepEqual(await seen.stop(), []);
  await site.volume.set(fixture.rendered.config);
  await untilRoutes(t, nodeA, ON_A);
  await untilReady(a);
});

test.serial("configuration: the mtu changes, is larger than the interface's, is none", async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA, nodeB } = site.world;
  const [a, b] = await Promise.all([site.start('nodeA'), site.start('nodeB')]);
  const set = async (mtu: number | null, inForce: number | undefined) => {
    await site.volume.set(configOf(fixture, { mtu }));
    await untilRoutes(t, nodeA, throughPod(SITE.peerCIDRs, { mtu: inForce }));
    await untilRoutes(t, nodeB, throughTunnel(SITE.peerCIDRs, { mtu: inForce }));
  };
  await set(1280, 1280);
  t.is(logged(a, "mtu is larger than the interface's, which is used instead: lower mtu in the configuration"), 0);
  await set(9000, 1500);
  for (const [agent, device] of [
    [a, 'lxcfrontend'],
    [b, 'cilium_host'],
  ] as const) {
    const warning = "mtu is larger than the interface's, which is used instead: lower mtu in the configuration";
    const { level, site: name, mtu, limit, ...rest } = await untilLogged(agent, warning);
    t.deepEqual(
      { level, name, mtu, limit, device: rest.device },
      { level: 'warn', name: 'berlin', mtu: 9000, limit: 1500, device },
    );
  }
  await set(null, undefined);
});

/** `make`: on nodeA, each with `route add`; `range`: the one that it is in. */
const FOREIGN: { range: string; make: string; message: RegExp }[] = [
  {
    range: '10.20.0.0/16',
    make: '10.20.0.0/16 via 192.0.2.1',
    message: /has a route to it already \(dev uplink, proto 3\)/,
  },
  {
    range: '10.21.0.0/16',
    make: '10.21.5.0/24 via 192.0.2.1 proto 186',
    message: /has a route to 10\.21\.5\.0\/24, which is inside \(dev uplink, proto 186\)/,
  },
  { range: '10.22.0.0/16', make: '10.22.0.0/16 via 192.0.2.1 metric 500', message: /has a route to it already/ },
  {
    range: '10.23.0.0/16',
    make: 'blackhole 10.23.7.7',
    message: /has a route to 10\.23\.7\.7\/32, which is inside \(proto 3\)/,
  },
  {
    range: '10.24.0.0/16',
    make: '10.24.0.0/16 nexthop via 192.0.2.1 dev uplink nexthop via 10.10.0.6 dev lxcneighbour',
    message: /has a route to it already/,
  },
  {
    range: 'fd20::/32',
    make: 'fd20::/32 via 2001:db8:2::11',
    message: /has a route to it already \(dev uplink, proto 3\)/,
  },
  { range: 'fd21::/32', make: 'fd21:0:5::/48 dev uplink', message: /has a route to fd21:0:5::\/48, which is inside/ },
  { range: 'fd22::/32', make: 'fd22::/32 via 2001:db8:2::11 metric 7', message: /has a route to it already/ },
];
const RANGES = [...FOREIGN.map(({ range }) => range), '10.30.0.0/16', 'fd30::/32'];

test.serial("others' routes are left as they are, their ranges refused; once they go ours come", async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA } = site.world;
  // On an on-link network, too, is no on-prem range.
  await nodeA.ip(
    ...FOREIGN.map(({ make }) => `route add ${make}`),
    'address add 10.30.1.1/32 dev uplink',
    'address add fd30::1/128 dev uplink nodad',
  );
  await site.volume.set(configOf(fixture, { peerCIDRs: [...SITE.peerCIDRs, ...RANGES] }));
  const before = await foreignRoutes(nodeA);
  const a = await site.start('nodeA');
  await untilRoutes(t, nodeA, ON_A);
  // To an address of IPv6 the kernel has a route, too, which is not the reason.
  await untilRefused(t, a, { 'foreign-route': FOREIGN.length, 'node-address': 2 });
  // The log has a line for each cause, with the first of its ranges; the frontend hears of every one.
  await refuses(t, a, '10.20.0.0/16', FOREIGN[0]?.message ?? /-/);
  const refusals = await withoutRoute(a, '10.10.0.5');
  t.deepEqual(Object.keys(refusals).toSorted(), RANGES.toSorted());
  for (const { range, message } of FOREIGN) {
    t.regex(refusals[range] ?? '', message);
    t.regex(refusals[range] ?? '', /and it is not ours: remove that route, or correct peerCIDRs$/);
  }
  t.regex(
    refusals['10.30.0.0/16'] ?? '',
    /^10\.30\.1\.1, an address of this node, is in the range: .*correct peerCIDRs$/,
  );
  t.regex(refusals['fd30::/32'] ?? '', /^fd30::1, an address of this node, is in the range/);
  t.deepEqual(await a.metric(PRESENT), { '': 2 });
  t.is(await foreignRoutes(nodeA), before);

  await untilSettled(a);
  const granted = [...SITE.peerCIDRs];
  for (const { range, make } of FOREIGN) {
    await nodeA.ip(`route delete ${make}`);
    granted.push(range);
    await untilRoutes(t, nodeA, throughPod(granted));
  }
  await nodeA.ip('address delete 10.30.1.1/32 dev uplink', 'address delete fd30::1/128 dev uplink');
  await untilRoutes(t, nodeA, throughPod([...SITE.peerCIDRs, ...RANGES]));
  await untilRefused(t, a, {});
  await untilLogged(a, 'every range has its route');
});

test.serial(
  "somebody's route appears while the agent runs: ours goes, theirs stays, and ours comes back",
  async (t) => {
    const site = await createSite(t, fixture);
    const { nodeA } = site.world;
    await site.volume.set(configOf(fixture, { peerCIDRs: [...SITE.peerCIDRs, ...RANGES] }));
    const a = await site.start('nodeA');
    await untilRoutes(t, nodeA, throughPod([...SITE.peerCIDRs, ...RANGES]));
    await untilSettled(a);
    const others = await foreignRoutes(nodeA);
    for (const { range, make, message } of FOREIGN) {
      // The same prefix with the same metric takes the place of ours.
      await nodeA.ip(`route replace ${make}`);
      const theirs = await foreignRoutes(nodeA);
      t.true(theirs.length > others.length);
      await untilRoutes(t, nodeA, throughPod([...SITE.peerCIDRs, ...RANGES].filter((cidr) => cidr !== range)));
      await untilRefused(t, a, { 'foreign-route': 1 });
      await refuses(t, a, range, message);
      t.is(await foreignRoutes(nodeA), theirs);
      await nodeA.ip(`route delete ${make}`);
      await untilRoutes(t, nodeA, throughPod([...SITE.peerCIDRs, ...RANGES]));
    }
    await nodeA.ip('address add 10.30.1.1/32 dev uplink', 'address add fd30::1/128 dev uplink nodad');
    await untilRoutes(t, nodeA, throughPod([...SITE.peerCIDRs, ...RANGES.slice(0, -2)]));
    await nodeA.ip('address delete 10.30.1.1/32 dev uplink', 'address delete fd30::1/128 dev uplink');
    await untilRoutes(t, nodeA, throughPod([...SITE.peerCIDRs, ...RANGES]));
    t.is(await foreignRoutes(nodeA), others);
  },
);

test.serial(
  'what an earlier run has left is put right at the start: ranges, devices, pods and metrics of then',
  async (t) => {
    const site = await createSite(t, fixture);
    const { nodeA, nodeB } = site.world;
    const left = [
      `route add 10.99.0.0/16 via 10.10.0.6 dev lxcneighbour`,
      `route add unreachable 10.98.0.0/16 metric 4294967295`,
      `route add fd99::/32 dev cilium_host`,
      `route add unreachable fd98::/32 metric 4294967295`,
      // An old pod's, an old device's, and one more with another metric.
      `route add ${IPV4} via 10.10.0.6 dev lxcneighbour src 10.10.0.1 mtu 1300`,
      `route add ${IPV4} dev cilium_host metric 77`,
      `route add ${IPV6} dev cilium_host src fd00:10::1 mtu 1300`,
    ];
    await nodeA.ip(...left.map((line) => `${line} proto ${PROTO}`));
    await nodeB.ip(
      `route add ${IPV4} via 192.0.2.1 mtu 1300 proto ${PROTO}`,
      `route add ${IPV6} dev cilium_host proto ${PROTO}`,
    );
    const [a] = await Promise.all([site.start('nodeA'), site.start('nodeB')]);
    await untilRoutes(t, nodeA, ON_A);
    await untilRoutes(t, nodeB, ON_B);
    t.is((await a.metric(REPAIRS))['{kind="stale-route"}'], 4);
  },
);

test.serial(
  'the pod is deleted: its node goes by cilium_host as others do; it comes with another address',
  async (t) => {
    const site = await createSite(t, fixture);
    const { nodeA } = site.world;
    await site.start('nodeA');
    await untilRoutes(t, nodeA, ON_A);
    await deletePod(fixture.cluster, POD.name);
    await untilRoutes(t, nodeA, ON_A_WITHOUT_POD);
    await nodeA.ip('route add 10.10.0.15 dev lxcfrontend', 'route add fd00:10::15 dev lxcfrontend');
    await createPod(fixture.cluster, { ...POD, ips: ['10.10.0.15', 'fd00:10::15'] });
    await untilRoutes(t, nodeA, throughPod(SITE.peerCIDRs, { via: ['10.10.0.15', 'fd00:10::15'] }));
  },
);

/** Its deletion is asked for; kubelet, which there is none of here, would take the Pod away when it has ended. */
const endPod = (name: string): Promise<unknown> =>
  ask(fixture.cluster, 'DELETE', `/api/v1/namespaces/${NAMESPACE}/pods/${name}?gracePeriodSeconds=60`);

test.serial('the pod ends: as before while its interface is there, and then gone, without a word', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA } = site.world;
  const a = await site.start('nodeA');
  await untilRoutes(t, nodeA, ON_A);
  await untilSettled(a);
  const seen = await watchRoutes(nodeA);
  await endPod(POD.name);
  await sleep(1_000);
  t.deepEqual(await seen.stop(), []);
  await nodeA.ip('link delete lxcfrontend');
  await untilRoutes(t, nodeA, ON_A_WITHOUT_POD);
  await sleep(HELD_BACK_MS);
  t.deepEqual(await a.metric(REFUSED), {});
  await deletePod(fixture.cluster, POD.name);
  t.is(logged(a, NO_ROUTE), 0);
  t.deepEqual(a.errors(), []);
});

test.serial('the pod moves to another node and back', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA, nodeB } = site.world;
  await Promise.all([site.start('nodeA'), site.start('nodeB')]);
  await untilRoutes(t, nodeA, ON_A);
  await untilRoutes(t, nodeB, ON_B);
  await deletePod(fixture.cluster, POD.name);
  await createPod(fixture.cluster, { ...POD, ips: CLIENT, node: 'node-b', hostIP: '192.0.2.11' });
  await untilRoutes(t, nodeB, throughPod(SITE.peerCIDRs, BY_CLIENT));
  await untilRoutes(t, nodeA, ON_A_WITHOUT_POD);
  await deletePod(fixture.cluster, POD.name);
  await createPod(fixture.cluster, POD);
  await untilRoutes(t, nodeA, ON_A);
  await untilRoutes(t, nodeB, ON_B);
});

test.serial('two sites with a frontend on either node, each with an mtu of its own', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA, nodeB } = site.world;
  await createPod(fixture.cluster, { ...MUNICH, ips: CLIENT, node: 'node-b', hostIP: '192.0.2.11' });
  const ranges = ['172.16.0.0/16', 'fd16::/48'];
  await site.volume.set(configOf(fixture, {}, { name: 'munich', peerCIDRs: ranges, mtu: 1350 }));
  await Promise.all([site.start('nodeA'), site.start('nodeB')]);
  const away = throughTunnel(ranges, { src: ['10.10.0.1', 'fd00:10::1'], mtu: 1350 });
  await untilRoutes(t, nodeA, [...ON_A, ...away]);
  const there = throughPod(ranges, { ...BY_CLIENT, mtu: 1350 });
  await untilRoutes(t, nodeB, [...ON_B, ...there]);
  await deletePod(fixture.cluster, MUNICH.name);
  await untilRoutes(t, nodeB, [...ON_B, ...throughTunnel(ranges, { mtu: 1350 })]);
});

for (const [title, ip, has, lacks, without] of [
  ['IPv6', '10.10.0.5', IPV4, IPV6, 6],
  ['IPv4', 'fd00:10::5', IPV6, IPV4, 4],
] as const)
  test.serial(`a pod without ${title}: those ranges are refused, the others have their routes`, async (t) => {
    const site = await createSite(t, fixture);
    await deletePod(fixture.cluster, POD.name);
    await createPod(fixture.cluster, { ...POD, ips: [ip] });
    const a = await site.start('nodeA');
    await untilRoutes(t, site.world.nodeA, [...throughPod([has]), ...nowhere([lacks])]);
    const advice = `the frontend's pod ${POD.name} has no IPv${without} address: turn on IPv${without} in the cluster`;
    await refuses(t, a, lacks, new RegExp(advice));
    await untilRefused(t, a, { 'no-pod-address': 1 });
    await untilReady(a);
    t.true((await withoutRoute(a, ip))[lacks]?.startsWith(advice));
  });

test.serial('pods that are no frontend, and two of one site', async (t) => {
  const site = await createSite(t, fixture);
  const { cluster } = fixture;
  const { nodeA } = site.world;
  await createPod(cluster, { ...POD, name: 'vpn-frontend-paris-0', site: 'paris', ips: ['10.10.0.6', 'fd00:10::6'] });
  await createHostNetworkPod('vpn-frontend-berlin-7');
  const a = await site.start('nodeA');
  await untilRoutes(t, nodeA, ON_A);
  const isNone = async (pod: string) =>
    (await untilLogged(a, 'this pod is no frontend', (one) => one.pod === pod)).problem;
  const unknown =
    /belongs to the site "paris" \(label .*\), which the configuration does not have; it has berlin: render and apply again/;
  t.regex(String(await isNone('vpn-frontend-paris-0')), unknown);
  t.regex((await a.get('/frontend?ip=10.10.0.6')).text, /"ready":false.*vpn-frontend-paris-0 belongs to the site/);
  const inHost = /is in the host network: .*take hostNetwork out of its pod template/;
  t.regex(String(await isNone('vpn-frontend-berlin-7')), inHost);
  t.regex((await a.get('/frontend?ip=192.0.2.10')).text, /"ready":false.*is in the host network/);

  // The newer one, unless it is on its way out.
  await createPod(cluster, { ...POD, name: 'vpn-frontend-berlin-1', ips: ['10.10.0.6', 'fd00:10::6'] });
  const byNeighbour = throughPod(SITE.peerCIDRs, { device: 'lxcneighbour', via: ['10.10.0.6', 'fd00:10::6'] });
  await untilRoutes(t, nodeA, byNeighbour);
  await endPod('vpn-frontend-berlin-1');
  await untilRoutes(t, nodeA, ON_A);
  await deletePod(cluster, POD.name);
  await untilRoutes(t, nodeA, byNeighbour);
  await deletePod(cluster, 'vpn-frontend-berlin-1');
  await untilRoutes(t, nodeA, ON_A_WITHOUT_POD);
});

async function createHostNetworkPod(name: string): Promise<void> {
  const { cluster } = fixture;
  const path = `/api/v1/namespaces/${NAMESPACE}/pods`;
  await ask(cluster, 'POST', path, {
    metadata: {
      name,
      labels: {
        'app.kubernetes.io/name': 'constellation-vpn',
        'app.kubernetes.io/component': 'frontend',
        'constellation-vpn.io/site': SITE.name,
      },
    },
    spec: {
      nodeName: POD.node,
      hostNetwork: true,
      containers: [{ name: 'main', image: 'none' }],
      automountServiceAccountToken: false,
    },
  });
  const status = { phase: 'Running', hostIP: '192.0.2.10', podIP: '192.0.2.10', podIPs: [{ ip: '192.0.2.10' }] };
  await ask(cluster, 'PATCH', `${path}/${name}/status`, { status }, { contentType: 'application/merge-patch+json' });
}

test.serial('no endpoint routes: says which setting is missing, heals when the routes come', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA } = site.world;
  await removeEndpointRoutes(site.world);
  const before = await foreignRoutes(nodeA);
  const a = await site.start('nodeA');
  await untilRefused(t, a, { 'no-endpoint-route': 2 });
  const cure = /reaches the pod .* through cilium_host, .*set enable-endpoint-routes to "true" in cilium-config/;
  await refuses(t, a, IPV4, cure);
  t.is(a.errors().length, 1);
  t.is(a.errors()[0]?.ranges, 2);
  t.is(await foreignRoutes(nodeA), before);
  await untilRoutes(t, nodeA, nowhere(SITE.peerCIDRs));
  t.regex((await a.get('/frontend?ip=10.10.0.5')).text, /"ready":false.*enable-endpoint-routes/);
  await untilSettled(a);
  await nodeA.ip('route add 10.10.0.5 dev lxcfrontend scope link');
  await untilRoutes(t, nodeA, [...throughPod([IPV4]), ...nowhere([IPV6])]);
  t.is((await a.metric(REFUSED))['{reason="no-endpoint-route"}'], 1);
  await nodeA.ip('route add fd00:10::5 dev lxcfrontend metric 1024');
  await untilRoutes(t, nodeA, ON_A);
  await untilRefused(t, a, {});
});

test.serial(
  'the pod is known before its endpoint routes are there: not said, but told to its init container',
  async (t) => {
    const site = await createSite(t, fixture);
    const { nodeA } = site.world;
    const hosts = ['10.10.0.5 dev lxcfrontend scope link', 'fd00:10::5 dev lxcfrontend metric 1024'];
    await nodeA.ip(...hosts.map((host) => `route delete ${host}`));
    const a = await site.start('nodeA');
    await until(
      async () => (await a.get('/frontend?ip=10.10.0.5')).text.includes('enable-endpoint-routes'),
      'the init container to be told',
    );
    t.deepEqual(await a.metric(REFUSED), { '{reason="no-endpoint-route"}': 2 });
    await nodeA.ip(...hosts.map((host) => `route add ${host}`));
    await untilRoutes(t, nodeA, ON_A);
    await sleep(HELD_BACK_MS);
    t.is(logged(a, NO_ROUTE), 0);
    t.is(logged(a, 'every range has its route'), 0);
    t.deepEqual(a.errors(), []);
  },
);

test.serial('cilium_host is not there at the start and comes, has another address, another mtu, none', async (t) => {
  const site = await createSite(t, fixture);
  const { nodeB } = site.world;
  await nodeB.ip('link delete cilium_host');
  const b = await site.start('nodeB');
  await untilRefused(t, b, { 'no-cilium-host': 2 });
  await refuses(t, b, IPV4, /has no device cilium_host: Cilium's agent does not run here yet/);
  await untilRoutes(t, nodeB, nowhere(SITE.peerCIDRs));
  await untilSettled(b);
  await nodeB.ip(
    'link add cilium_host type veth peer name cilium_net',
    'link set cilium_net arp off up',
    'link set cilium_host arp off up',
    'address add 10.10.1.1/32 dev cilium_host',
    'address add fd00:10:0:1::1/128 dev cilium_host nodad',
  );
  await untilRoutes(t, nodeB, ON_B);

  await nodeB.ip('link set cilium_host mtu 1290');
  await untilRoutes(t, nodeB, throughTunnel(SITE.peerCIDRs, { mtu: 1290 }));
  await untilLogged(b, "mtu is larger than the interface's, which is used instead: lower mtu in the configuration");
  await nodeB.ip('link set cilium_host mtu 1500');
  await untilRoutes(t, nodeB, ON_B);

  await nodeB.ip(
    'address add 10.10.1.2/32 dev cilium_host',
    'address delete 10.10.1.1/32 dev cilium_host',
    'address add fd00:10:0:1::2/128 dev cilium_host nodad',
    'address delete fd00:10:0:1::1/128 dev cilium_host',
  );
  await untilRoutes(t, nodeB, throughTunnel(SITE.peerCIDRs, { src: ['10.10.1.2', 'fd00:10:0:1::2'] }));
  await nodeB.ip('address delete fd00:10:0:1::2/128 dev cilium_host');
  await untilRoutes(t, nodeB, [...throughTunnel([IPV4], { src: ['10.10.1.2', ''] }), ...nowhere([IPV6])]);
  await refuses(t, b, IPV6, /cilium_host has no IPv6 address: turn on IPv6 in Cilium/);
});

test.serial("the frontend's node without cilium_host: its routes name no source, until it comes", async (t) => {
  const site = await createSite(t, fixture);
  const { nodeA } = site.world;
  await nodeA.ip('link delete cilium_host');
  const a = await site.start('nodeA');
  await untilRoutes(t, nodeA, throughPod(SITE.peerCIDRs, { src: undefined }));
  await nodeA.ip(
    'link add cilium_host type veth peer name cilium_net',
    'address add 10.10.0.1/32 dev cilium_host',
    'link set cilium_host up',
    'address add fd00:10::1/128 dev cilium_host nodad',
  );
  await untilRoutes(t, nodeA, ON_A);
  await untilReady(a);
});

test.serial('no pods and no cilium-config: as in tunnel mode, which is the default', async (t) => {
  const site = await createSite(t, fixture);
  await removeAll(fixture.cluster);
  const b = await site.start('nodeB');
  await untilRoutes(t, site.world.nodeB, ON_B);
  await untilReady(b);
});
