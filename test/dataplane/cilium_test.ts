/** What `routing` does at Cilium's agent, a stand-in for it: the source check of the frontends, and ranges that it has lost. */
import test from 'ava';
import type { FrontendState } from '../../agents/routing/frontend-state.ts';
import { until } from '../api/agent.ts';
import { ask, createPod, deletePod, NAMESPACE } from '../api/cilium.ts';
import type { CiliumAPI, Endpoint } from '../fakes/cilium-api.ts';
import type { HttpRequest } from './inside.ts';
import type { Netns } from './netns.ts';
import { configOf, logged, ON_A, problemOf, untilLogged, untilReady, untilRoutes } from './node-routes.ts';
import { startProgram } from './program.ts';
import { createSite, POD, setUp, SITE, STEERED, type Routing } from './routing.ts';

const fixture = setUp(test);

const OFF = 'constellation_vpn_routing_source_check_off';
const THE_POD = `{pod="${POD.name}"}`;
const ERRORS = 'constellation_vpn_routing_errors_total';
const FAILED = 'failed, trying again';
const TURNED_OFF = "Cilium's source check turned off";
/** A few of the agent's tries, which are 2 s apart at most. */
const TRIES_MS = 10_000;

function endpoint(cilium: CiliumAPI): Endpoint {
  const found = cilium.endpoints.get(17);
  if (found === undefined) throw new Error('no endpoint');
  return found;
}

const setting = (cilium: CiliumAPI) => endpoint(cilium).options.SourceIPVerification;

const untilOff = (cilium: CiliumAPI, limitMs = TRIES_MS) =>
  until(() => setting(cilium) === 'Disabled', 'the source check to be off', limitMs);

const patches = (cilium: CiliumAPI) => cilium.count('PATCH', /\/config$/);

const frontend = async (agent: Routing, ip = '10.10.0.5'): Promise<FrontendState> =>
  JSON.parse((await agent.get(`/frontend?ip=${ip}`)).text) as FrontendState;

/** Waits until the frontend's pod hears that it has to wait, for a reason that matches. */
const untilWaiting = (agent: Routing, reason: RegExp) =>
  until(
    async () => {
      const { ready, waitingFor } = await frontend(agent);
      return !ready && waitingFor.some((text) => reason.test(text));
    },
    `the frontend to wait because of ${String(reason)}`,
    TRIES_MS,
  );

const untilServed = (agent: Routing) =>
  until(async () => (await frontend(agent)).ready, 'the frontend to hear that it may start', TRIES_MS);

const failures = async (agent: Routing) => (await agent.metric(ERRORS))['{task="source-check"}'] ?? 0;

test.serial(
  'the source check is turned off once, at the frontend that runs on the node; the frontend waits for it',
  async (t) => {
    const site = await createSite(t, fixture);
    const { cilium } = site.nodeA;
    cilium.patchMs = 3000;
    const b = await site.start('nodeB');
    const a = await site.start('nodeA');
    // Cilium says so at once, and does so when it answers.
    await untilWaiting(a, /^Cilium's source check is on and being turned off$/);
    t.deepEqual(await a.metric(OFF), {});
    await untilServed(a);
    t.deepEqual(await frontend(a), { ready: true, waitingFor: [], withoutRoute: [] });
    t.is(setting(cilium), 'Disabled');
    const { pod, ms } = await untilLogged(a, TURNED_OFF);
    t.is(pod, POD.name);
    t.true(Number(ms) >= 3000);
    t.deepEqual(await a.metric(OFF), { [THE_POD]: 1 });
    t.is((await a.metric('constellation_vpn_routing_repairs_total'))['{kind="source-check"}'], 1);
    await untilReady(b);
    t.is(site.nodeB.cilium.count('GET', /endpoint/), 0);
    // It looks again after 1 s and 2 s.
    await until(() => cilium.count('GET', /\/config$/) >= 3, 'another look', TRIES_MS);
    t.is(patches(cilium), 1);
    t.deepEqual(cilium.requests.find(({ method }) => method === 'PATCH')?.body, {
      options: { SourceIPVerification: 'Disabled' },
    });

    await deletePod(fixture.cluster, POD.name);
    await until(async () => (await a.metric(OFF))[THE_POD] === undefined, 'the metric to go');
    t.regex(
      (await frontend(a)).waitingFor.join(),
      /^the routing agent of the node node-a knows no frontend with the address 10\.10\.0\.5 yet$/,
    );
  },
);

test.serial('what is off at the start is left alone', async (t) => {
  const site = await createSite(t, fixture);
  const { cilium } = site.nodeA;
  endpoint(cilium).options.SourceIPVerification = 'Disabled';
  const a = await site.start('nodeA');
  await untilServed(a);
  t.deepEqual(await a.metric(OFF), { [THE_POD]: 1 });
  t.is(patches(cilium), 0);
});

test.serial('a pod that has IPv6 alone is found by that address', async (t) => {
  const site = await createSite(t, fixture);
  await deletePod(fixture.cluster, POD.name);
  await createPod(fixture.cluster, { ...POD, ips: ['fd00:10::5'] });
  const a = await site.start('nodeA');
  await untilOff(site.nodeA.cilium);
  await until(async () => (await frontend(a, 'fd00:10::5')).ready, 'the frontend to hear that it may start');
  t.true(site.nodeA.cilium.requests.some(({ path }) => path === '/v1/endpoint/ipv6:fd00:10::5/config'));
});

test.serial("Cilium's agent restarts, slowly, is killed: the check is off again", async (t) => {
  const site = await createSite(t, fixture);
  const { cilium } = site.nodeA;
  cilium.patchMs = 100;
  const a = await site.start('nodeA');
  await untilServed(a);
  // It looks after 1, 3, 7 and 15 s by itself: here not for a while.
  await until(() => cilium.count('GET', /\/config$/) === 4, 'the look after 7 s', 15_000);
  for (const [i, restart] of [
    { downMs: 300, restoreMs: 1500 },
    { downMs: 500, restoreMs: 0, leaveSocket: true },
    { downMs: 0, restoreMs: 0 },
  ].entries()) {
    await cilium.restart(restart);
    await untilOff(cilium);
    await until(() => logged(a, TURNED_OFF) === i + 2, 'it to be logged');
    t.is(patches(cilium), i + 2);
  }
  t.deepEqual(a.errors(), []);
  await untilServed(a);
});

test.serial('the endpoint is restored over what was set after a restart: looked at again', async (t) => {
  const site = await createSite(t, fixture);
  const { cilium } = site.nodeA;
  cilium.patchMs = 100;
  const a = await site.start('nodeA');
  await untilServed(a);
  endpoint(cilium).options.SourceIPVerification = 'Enabled';
  await untilOff(cilium);
  await until(() => logged(a, TURNED_OFF) === 2, 'it to be logged');
  t.deepEqual(a.errors(), []);
});

test.serial(
  'no socket for more than 10 s: nobody is bothered for that long, then it is said once; what was off counts as off',
  async (t) => {
    const site = await createSite(t, fixture);
    const { cilium } = site.nodeA;
    cilium.patchMs = 100;
    await cilium.stop();
    const a = await site.start('nodeA');
    await untilRoutes(t, site.world.nodeA, ON_A);
    // Nothing else waits for it.
    await untilReady(a);
    await untilWaiting(a, /^GET \/v1\/endpoint\/ipv4:10\.10\.0\.5\/config at .*cilium\.sock: there is no such socket$/);
    t.deepEqual(await a.metric(OFF), { [THE_POD]: 0 });
    const error = await untilLogged(a, FAILED);
    t.is(a.errors()[0], error);
    t.is(error.task, `source-check ${POD.name}`);
    t.regex(problemOf(error), /there is no such socket$/);
    const { ts } = await untilLogged(a, 'started');
    t.true(Date.parse(error.ts) - Date.parse(ts) > 9_000);
    await cilium.start();
    await untilOff(cilium);
    await untilServed(a);
    await untilLogged(a, 'does not fail any more');
    t.is(a.errors().length, 1);
    // Of ranges nothing is known meanwhile, so none is lost.
    t.deepEqual(await a.metric('constellation_vpn_routing_lost_ranges'), { '': 0 });

    const before = await failures(a);
    await cilium.stop({ leaveSocket: true });
    await until(async () => (await failures(a)) > before, 'another look');
    t.deepEqual(await a.metric(OFF), { [THE_POD]: 1 });
    t.true((await frontend(a)).ready);
  },
);

test.serial('429, 503 and 404 are normal life', async (t) => {
  const site = await createSite(t, fixture);
  const { cilium } = site.nodeA;
  cilium.patchMs = 100;
  for (const [status, method] of [
    [429, 'GET'],
    [503, 'GET'],
    [404, 'GET'],
    [429, 'PATCH'],
    [404, 'PATCH'],
    [503, 'PATCH'],
  ] as const)
    cilium.fail(status, { method, path: /\/config$/ });
  const a = await site.start('nodeA');
  await untilWaiting(a, /^Cilium's agent knows no endpoint with the address 10\.10\.0\.5 \(pod .*\) yet$/);
  await untilOff(cilium, 20_000);
  await untilServed(a);
  t.is(await failures(a), 6);
  t.deepEqual(a.errors(), []);
});

test.serial('500 and 403 are no normal life: said at once, and tried again', async (t) => {
  const site = await createSite(t, fixture);
  const { cilium } = site.nodeA;
  cilium.fail(500, { method: 'GET', path: /\/config$/ });
  cilium.fail(403, { method: 'PATCH' });
  const a = await site.start('nodeA');
  await untilOff(cilium);
  await untilServed(a);
  const said = a.log.filter(({ msg }) => msg === FAILED).map(problemOf);
  t.is(said.length, 2);
  t.regex(said[0] ?? '', /^GET .*\/config at .*cilium\.sock: status 500 /);
  t.regex(said[1] ?? '', /^PATCH .*\/config at .*cilium\.sock: status 403 /);
  await untilLogged(a, 'does not fail any more');
});

test.serial('it hangs: the agent goes on, and asks again in the end', async (t) => {
  const site = await createSite(t, fixture);
  const { cilium } = site.nodeA;
  cilium.hang = true;
  const a = await site.start('nodeA');
  await until(() => cilium.count('GET', /\/config$/) > 0, 'the first question');
  cilium.hang = false;
  await untilRoutes(t, site.world.nodeA, ON_A);
  t.is((await a.get('/livez')).status, 200);
  await untilOff(cilium, 30_000);
  await untilServed(a);
  t.is(await failures(a), 1);
});

test.serial(
  'Cilium resets the check by annotation: not fought, the log names the annotation, and it heals',
  async (t) => {
    const site = await createSite(t, fixture);
    const { cilium } = site.nodeA;
    Object.assign(cilium, { patchMs: 100, resetByAnnotation: true });
    const a = await site.start('nodeA');
    const annotation = /annotate the namespace with config\.cilium\.io\/delegate-source-ip-verification="true"/;
    const stays = "Cilium's source check stays on, all VPN traffic of this pod is lost";
    const { pod, problem } = await untilLogged(a, stays);
    t.is(pod, POD.name);
    t.regex(String(problem), annotation);
    t.deepEqual(await a.metric(OFF), { [THE_POD]: 0 });
    await untilWaiting(a, annotation);
    t.is(patches(cilium), 1);
    const looks = cilium.count('GET', /\/config$/);
    await until(() => cilium.count('GET', /\/config$/) > looks, 'another look');
    t.is(patches(cilium), 1);
    t.is(logged(a, stays), 1);

    // The administrator has annotated it.
    Object.assign(cilium, { resetByAnnotation: false });
    endpoint(cilium).options.SourceIPVerification = 'Disabled';
    await untilLogged(a, "Cilium's source check is off", undefined, 20_000);
    t.deepEqual(await a.metric(OFF), { [THE_POD]: 1 });
    t.true((await frontend(a)).ready);
    t.is(patches(cilium), 1);
  },
);

/** An event of the pod, which tells nothing. */
const touchPod = () =>
  ask(
    fixture.cluster,
    'PATCH',
    `/api/v1/namespaces/${NAMESPACE}/pods/${POD.name}`,
    { metadata: { annotations: { touched: 'yes' } } },
    { contentType: 'application/merge-patch+json' },
  );

test.serial(
  'somebody turns it on again and again: turned off after longer and longer pauses, with a warning',
  async (t) => {
    const site = await createSite(t, fixture);
    const { cilium } = site.nodeA;
    cilium.patchMs = 0;
    const a = await site.start('nodeA');
    for (let i = 0; i < 3; i++) {
      await untilOff(cilium);
      await until(() => logged(a, TURNED_OFF) === i + 1, 'it to be logged');
      endpoint(cilium).options.SourceIPVerification = 'Enabled';
    }
    const { level } = await untilLogged(
      a,
      "somebody turns Cilium's source check on again and again, it is turned off after longer and longer pauses",
    );
    t.is(level, 'warn');
    // It looks, and leaves it for a while.
    const looks = cilium.count('GET', /\/config$/);
    await touchPod();
    await until(() => cilium.count('GET', /\/config$/) > looks, 'another look');
    await untilWaiting(a, /^Cilium's source check is on and being turned off$/);
    t.is(patches(cilium), 3);
    t.deepEqual(await a.metric(OFF), { [THE_POD]: 0 });
    await untilOff(cilium);
  },
);

/** What endpoint-sync is told of lost ranges, as it comes; it answers with these statuses. */
async function startReceiver(netns: Netns, ...statuses: number[]): Promise<HttpRequest[]> {
  const program = await startProgram(netns, 'http-server', 9811, ...statuses);
  await createPod(fixture.cluster, {
    name: 'vpn-endpoint-sync-0',
    site: '',
    component: 'endpoint-sync',
    ips: ['192.0.2.11'],
    node: 'node-b',
  });
  const hints: HttpRequest[] = [];
  const read = async () => {
    for (;;) hints.push(await program.next<HttpRequest>());
  };
  // Until it ends, with its namespace.
  read().catch(() => undefined);
  return hints;
}

/** As an ipBlock of a network policy leaves it. */
const OF_POLICY = { identity: 16_777_217, metadata: { source: 'generated' } };
const LOST = 'Cilium has lost this range here';
const LOST_RANGES = 'constellation_vpn_routing_lost_ranges';
const HINT = { method: 'POST', path: '/lost-ranges', body: '{"node":"node-b"}' };
/** The agent looks a second time after 10 s. */
const CONFIRM_MS = 20_000;

const lostAt = async (agent: Routing): Promise<unknown> =>
  (JSON.parse((await agent.get('/lost-ranges')).text) as { lost: unknown }).lost;

test.serial(
  'ranges that Cilium lost: the log, the metric, GET /lost-ranges, and a hint to endpoint-sync',
  async (t) => {
    const site = await createSite(t, fixture);
    const { cilium, netns } = site.nodeB;
    const hints = await startReceiver(netns, 200);
    const [missing, missing6, taken, partly, late] = [
      '172.16.0.0/16',
      'fd16::/48',
      '172.17.0.0/16',
      '172.18.0.0/16',
      '172.19.0.0/16',
    ] as const;
    const cidrs = [...SITE.peerCIDRs, missing, missing6, taken, partly, late];
    // Of a site whose frontend does not run nothing is lost.
    const away = { name: 'munich', peerCIDRs: ['172.30.0.0/16'] };
    await site.volume.set(configOf(fixture, { peerCIDRs: cidrs }, away));
    cilium.ipcache.set(taken, OF_POLICY);
    cilium.ipcache.set(partly, STEERED).set('172.18.5.0/24', OF_POLICY);
    const b = await site.start('nodeB');
    await until(() => cilium.count('GET', /\/v1\/ip\?cidr=/) === cidrs.length + 1, 'the first look');
    t.deepEqual(await b.metric(LOST_RANGES), { '': 0 });
    // A new range is not lost.
    cilium.ipcache.set(late, STEERED);

    const kindOf = async (cidr: string) => {
      const { kind, pod, level } = await untilLogged(b, LOST, (record) => record.cidr === cidr, CONFIRM_MS);
      return { kind, pod, level };
    };
    const error = { pod: POD.name, level: 'error' };
    t.deepEqual(await kindOf(missing), { kind: 'missing', ...error });
    t.deepEqual(await kindOf(missing6), { kind: 'missing', ...error });
    t.deepEqual(await kindOf(taken), { kind: 'policy', ...error });
    t.deepEqual(await kindOf(partly), { kind: 'inside', ...error });
    t.is(logged(b, LOST), 4);
    t.is(b.log.find(({ kind }) => kind === 'inside')?.part, '172.18.5.0/24');
    await until(() => hints.length === 1, 'the hint');
    t.deepEqual(await b.metric(LOST_RANGES), { '': 4 });
    // What only the policy's change brings back is none of endpoint-sync's business.
    t.deepEqual(
      await lostAt(b),
      [missing, taken, missing6].map((cidr) => ({ pod: POD.name, cidr })),
    );

    for (const cidr of [missing, missing6, taken]) cilium.ipcache.set(cidr, STEERED);
    cilium.ipcache.delete('172.18.5.0/24');
    // A new configuration is a reason to look.
    await site.volume.set(configOf(fixture, { peerCIDRs: cidrs.slice(0, -1) }, away));
    await untilLogged(b, 'Cilium knows every range here');
    await until(() => hints.length === 2, 'another hint');
    t.deepEqual(hints, [HINT, HINT]);
    t.deepEqual(await lostAt(b), []);
    t.deepEqual(await b.metric(LOST_RANGES), { '': 0 });
    t.is(logged(b, LOST), 4);
  },
);

test.serial('many ranges are asked for at once; endpoint-sync is told when it comes, until it takes it', async (t) => {
  const site = await createSite(t, fixture);
  const { cilium, netns } = site.nodeB;
  const cidrs = Array.from({ length: 40 }, (_, i) => `172.16.${i}.0/24`);
  await site.volume.set(configOf(fixture, { peerCIDRs: cidrs }));
  for (const cidr of cidrs.slice(2)) cilium.ipcache.set(cidr, STEERED);
  cilium.ipcache.set('172.16.0.0/24', OF_POLICY).set('172.16.39.128/25', OF_POLICY).set('10.0.0.0/8', OF_POLICY);
  const b = await site.start('nodeB');
  await until(() => logged(b, LOST) === 3, 'the lost ranges', CONFIRM_MS);
  t.deepEqual(
    b.log.filter(({ msg }) => msg === LOST).map(({ cidr, kind }) => `${String(cidr)} ${String(kind)}`),
    ['172.16.0.0/24 policy', '172.16.1.0/24 missing', '172.16.39.0/24 inside'],
  );
  t.is(cilium.count('GET', /\/v1\/ip\?cidr=172/), 0);
  t.true(cilium.count('GET', /\/v1\/ip$/) >= 2);
  const nobody = await untilLogged(b, FAILED, ({ task }) => task === 'lost-ranges');
  t.is(problemOf(nobody), 'no endpoint-sync runs that could be told of lost ranges');
  const hints = await startReceiver(netns, 503, 200);
  await untilLogged(b, 'does not fail any more', undefined, 20_000);
  t.deepEqual(hints, [HINT, HINT]);
  t.deepEqual(await lostAt(b), [
    { pod: POD.name, cidr: '172.16.0.0/24' },
    { pod: POD.name, cidr: '172.16.1.0/24' },
  ]);
});
