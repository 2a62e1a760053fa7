/** endpoint-sync and Cilium's ConfigMaps, against a real API server: ip-masq-agent, cilium-config; and cleanup. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import test from 'ava';
import { load } from 'js-yaml';
import { cleanup, until } from './agent.ts';
import {
  agentStatus,
  ask,
  createConfigMap,
  createEndpoint,
  createPod,
  deleteConfigMap,
  deletePod,
  getConfigMap,
  getEndpoint,
  NAMESPACE,
  overwrite,
  prefixes,
  replaceConfigMap,
} from './cilium.ts';
import { ALL_CIDRS, BERLIN, edited, listing, MUNICH, setUp, start } from './fixture.ts';

const fixture = setUp(test);

const ANNOTATION = 'constellation-vpn.io/non-masquerade-cidrs';
const STATE = 'constellation_vpn_ip_masq_agent_config';
const MERGED = { '{state="merged"}': 1, '{state="absent"}': 0, '{state="broken"}': 0 };

const masq = () => getConfigMap(fixture.cluster, 'ip-masq-agent');
const createMasq = (config: string) => createConfigMap(fixture.cluster, 'ip-masq-agent', { config });
const entries = (config = ''): string[] => (load(config) as { nonMasqueradeCIDRs?: string[] }).nonMasqueradeCIDRs ?? [];
const merged = async () => {
  const { data } = await masq();
  const all = new Set(entries(data?.config));
  return ALL_CIDRS.every((cidr) => all.has(cidr)) && (data?.config ?? '');
};

const kept = test.macro({
  exec: async (t, before: string, after: string) => {
    const { agent } = await start(t, fixture);
    await createMasq(before);
    t.is(await until(merged, 'the ranges'), after);
    t.true(await until(async () => isDeepStrictEqual(await agent.metric(STATE), MERGED), 'the metric'));
    await agent.stop();
    const { exitCode, log } = await cleanup(fixture.kubeconfig);
    t.is(exitCode, 0, JSON.stringify(log));
    const { data, metadata } = await masq();
    t.deepEqual({ data, annotations: metadata.annotations }, { data: { config: before }, annotations: undefined });
  },
  title: (title) => `ip-masq-agent: ${title}; cleaned up, the bytes from before are back`,
});

test.serial(
  'YAML stays YAML, with its comments, order and other fields',
  kept,
  '# the cloud\nmasqLinkLocal: true\nnonMasqueradeCIDRs:\n  - 10.0.0.0/8   # nodes\n  - "192.168.178.0/22"\nmasqLinkLocalIPv6: false\nresyncInterval: 60s\n',
  '# the cloud\nmasqLinkLocal: true\nnonMasqueradeCIDRs:\n  - 10.0.0.0/8   # nodes\n  - "192.168.178.0/22"\n  - "10.200.0.0/16"\n  - "172.16.0.0/16"\n  - "192.168.100.0/24"\n  - "fd12:3456::/48"\nmasqLinkLocalIPv6: false\nresyncInterval: 60s\n',
);
test.serial(
  'JSON stays JSON, compact as Helm writes it',
  kept,
  '{"masqLinkLocal":true,"nonMasqueradeCIDRs":["192.168.178.0/22"]}',
  '{"masqLinkLocal":true,"nonMasqueradeCIDRs":["192.168.178.0/22","10.200.0.0/16","172.16.0.0/16","192.168.100.0/24","fd12:3456::/48"]}',
);
test.serial(
  'an empty list, as on QEMU',
  kept,
  '{"masqLinkLocal":true,"nonMasqueradeCIDRs":[]}',
  '{"masqLinkLocal":true,"nonMasqueradeCIDRs":["10.200.0.0/16","172.16.0.0/16","192.168.100.0/24","fd12:3456::/48"]}',
);
test.serial(
  'no list at all',
  kept,
  'masqLinkLocal: true\n',
  'masqLinkLocal: true\nnonMasqueradeCIDRs:\n- 10.200.0.0/16\n- 172.16.0.0/16\n- 192.168.100.0/24\n- "fd12:3456::/48"\n',
);

test.serial('ip-masq-agent: what leaves the configuration leaves the list, what others wrote stays', async (t) => {
  const { rendered } = fixture;
  const { volume } = await start(t, fixture);
  await createMasq('nonMasqueradeCIDRs: [172.16.0.0/16, 10.0.0.0/8]\n');
  await until(merged, 'the ranges');
  // 172.16.0.0/16 was somebody else's before it was ours.
  await volume.set(
    edited(rendered.config, ([berlin]) => {
      berlin!.peerCIDRs = ['fd12:3456::/48'];
    }),
  );
  const gone = async () => {
    const { data, metadata } = await masq();
    return !entries(data?.config).includes('192.168.100.0/24') && { data, metadata };
  };
  const { data, metadata } = await until(gone, 'the range to go');
  t.is(data?.config, 'nonMasqueradeCIDRs: [172.16.0.0/16, 10.0.0.0/8, "10.200.0.0/16", "fd12:3456::/48"]\n');
  t.deepEqual(JSON.parse(metadata.annotations?.[ANNOTATION] ?? ''), {
    [NAMESPACE]: { cidrs: ['10.200.0.0/16', 'fd12:3456::/48'] },
  });
});

test.serial('ip-masq-agent: absent, nothing is made, a metric and a line say so; then it appears', async (t) => {
  const { cluster } = fixture;
  const { agent } = await start(t, fixture);
  const absent = await until(() => agent.log.find(({ msg }) => msg.startsWith('ip-masq-agent has no')), 'the warning');
  t.is(absent.level, 'warn');
  t.deepEqual(await agent.metric(STATE), { ...MERGED, '{state="merged"}': 0, '{state="absent"}': 1 });
  t.is((await cluster.request('GET', '/api/v1/namespaces/kube-system/configmaps/ip-masq-agent')).status, 404);
  const empty = await createMasq('');
  await sleep(300);
  t.deepEqual(await masq(), empty);
  await replaceConfigMap(cluster, { ...empty, data: { config: 'nonMasqueradeCIDRs: []\n' } });
  t.truthy(await until(merged, 'the ranges'));
  t.true(await until(async () => isDeepStrictEqual(await agent.metric(STATE), MERGED), 'the metric'));
});

for (const [title, broken] of [
  ['not YAML', 'nonMasqueradeCIDRs: [10.0.0.0/8\n'],
  ['no list', 'nonMasqueradeCIDRs: 10.0.0.0/8\n'],
  ['no map', '- 10.0.0.0/8\n'],
] as const)
  test.serial(`ip-masq-agent: broken (${title}), untouched, said, and merged once it is mended`, async (t) => {
    const { cluster } = fixture;
    const { agent } = await start(t, fixture);
    const before = await createMasq(broken);
    const said = await until(() => agent.errors().find(({ msg }) => msg.startsWith('ip-masq-agent')), 'the error');
    t.regex(String(said.problem), /ip-masq-agent.*data\.config/);
    t.deepEqual(await agent.metric(STATE), { ...MERGED, '{state="merged"}': 0, '{state="broken"}': 1 });
    await sleep(300);
    t.deepEqual(await masq(), before);
    await replaceConfigMap(cluster, { ...before, data: { config: 'nonMasqueradeCIDRs: []\n' } });
    t.truthy(await until(merged, 'the ranges'));
  });

test.serial(
  'ip-masq-agent: edited by somebody else at the same moment, 100 rounds, nothing of theirs is lost',
  async (t) => {
    t.timeout(180_000);
    const { cluster, rendered } = fixture;
    const { agent, volume } = await start(t, fixture);
    await createMasq('nonMasqueradeCIDRs: [10.0.0.0/8]\nnote: 0\n');
    await until(merged, 'the ranges');
    const fewer = edited(rendered.config, (sites) => sites.splice(1, 1));
    const theirs = ['10.0.0.0/8'];
    let lost = 0;
    for (let round = 1; round <= 100; round++) {
      const ours = volume.set(round % 2 === 0 ? rendered.config : fewer);
      const cidr = `100.64.${round}.0/24`;
      // Read, change, write with the version that was read: as every careful editor does, until it is taken.
      await until(async () => {
        const read = await masq();
        const config = (read.data?.config ?? '')
          .replace('[10.0.0.0/8', `[10.0.0.0/8, ${cidr}`)
          .replace(/note: .*/, `note: ${round}`);
        const answer = await replaceConfigMap(cluster, { ...read, data: { config } }, [409]);
        return 'data' in answer;
      }, `round ${round}`);
      theirs.push(cidr);
      await ours;
      const { data } = await masq();
      if (!theirs.every((each) => data?.config?.includes(each)) || !data?.config?.includes(`note: ${round}\n`))
        lost += 1;
    }
    t.is(lost, 0);
    // Ranges as no round had them: an event of a round before can't have made this state.
    await volume.set(edited(rendered.config, ([berlin]) => berlin!.peerCIDRs.splice(0, 1)));
    const last = [...theirs, ...ALL_CIDRS.filter((cidr) => cidr !== BERLIN.cidrs[0])].toSorted();
    const all = async () => entries((await masq()).data?.config).toSorted();
    await until(async () => isDeepStrictEqual(await all(), last), `the ranges to be ${last.join(' ')}`);
    t.deepEqual(
      agent.errors().filter(({ rule }) => rule === undefined),
      [],
    );
  },
);

const GOOD = {
  'enable-endpoint-routes': 'true',
  'routing-mode': 'tunnel',
  'enable-sctp': 'true',
  'kube-proxy-replacement': 'true',
  'enable-bpf-masquerade': 'true',
  'enable-ip-masq-agent': 'true',
  'enable-ipv4': 'true',
  'enable-ipv6': 'true',
};
const OK = 'constellation_vpn_cilium_config_ok';

interface EventList {
  items: {
    reason: string;
    message: string;
    type: string;
    involvedObject: { name: string; uid: string };
    lastTimestamp: string;
  }[];
}
const events = () => ask<EventList>(fixture.cluster, 'GET', `/api/v1/namespaces/${NAMESPACE}/events`);

test.serial(
  'cilium-config: every broken rule is a line, a metric and an Event of each frontend; mended, all is well',
  async (t) => {
    const { cluster } = fixture;
    const { agent } = await start(t, fixture);
    const berlin = await createPod(cluster, BERLIN);
    const munich = await createPod(cluster, MUNICH);
    const { 'enable-endpoint-routes': _, ...bad } = { ...GOOD, 'enable-sctp': 'false', 'datapath-mode': 'netkit' };
    const config = await createConfigMap(cluster, 'cilium-config', bad);
    const rules = ['endpoint-routes', 'service-translation', 'netkit'];
    await until(
      async () => (await events()).items.filter(({ message }) => !message.includes('is not there')).length === 6,
      'six Events',
    );
    const { items } = await events();
    for (const { name, uid } of [berlin.metadata, munich.metadata]) {
      const own = items.filter(
        ({ involvedObject, message }) => involvedObject.uid === uid && !message.includes('is not there'),
      );
      t.deepEqual(own.map(({ reason }) => reason).toSorted(), [
        'CiliumConfigError',
        'CiliumConfigError',
        'CiliumConfigWarning',
      ]);
      t.true(own.every(({ involvedObject }) => involvedObject.name === name));
      t.true(
        own.some(({ message }) =>
          message.startsWith('cilium-config enable-sctp ("false"): Services are not translated'),
        ),
      );
    }
    const metric = await agent.metric(OK);
    t.deepEqual(
      Object.keys(metric)
        .filter((labels) => metric[labels] === 0)
        .toSorted(),
      rules.map((rule) => `{rule="${rule}"}`).toSorted(),
    );
    t.true(Object.keys(metric).length >= 16);
    for (const rule of rules) t.is(agent.log.filter((line) => line.rule === rule).length, 1, rule);

    await replaceConfigMap(cluster, { ...config, data: GOOD });
    await until(async () => Object.values(await agent.metric(OK)).every((value) => value === 1), 'all rules kept');
    await deleteConfigMap(cluster, 'cilium-config');
    await until(async () => (await agent.metric(OK))['{rule="present"}'] === 0, 'its absence to be noticed');
    t.true(agent.errors().some(({ problem }) => String(problem).includes('is not there')));
  },
);

test.serial('cilium-config: a restarted agent finds its Events again', async (t) => {
  const { cluster } = fixture;
  const { agent } = await start(t, fixture);
  await createPod(cluster, BERLIN);
  await createConfigMap(cluster, 'cilium-config', { ...GOOD, 'enable-sctp': 'false' });
  const one = async () => (await events()).items.find(({ message }) => message.includes('enable-sctp'));
  const before = await until(one, 'the Event');
  await agent.stop();
  await sleep(1100); // Events' times are whole seconds
  await start(t, fixture);
  await until(async () => (await one())?.lastTimestamp !== before.lastTimestamp, 'the Event to be renewed');
  t.is((await events()).items.filter(({ message }) => message.includes('enable-sctp')).length, 1);
});

test.serial('cleanup: refused while endpoint-sync runs, takes all out, twice is once', async (t) => {
  const { cluster, kubeconfig } = fixture;
  const { agent } = await start(t, fixture);
  const running = { ...BERLIN, name: 'vpn-endpoint-sync-0', component: 'endpoint-sync' };
  await createPod(cluster, running);
  const pod = await createPod(cluster, BERLIN);
  await createEndpoint(cluster, pod);
  await createMasq('nonMasqueradeCIDRs: []\n');
  const config = await createConfigMap(cluster, 'cilium-config', GOOD);
  await until(merged, 'the ranges');
  await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
  await agent.stop();

  const refused = await cleanup(kubeconfig);
  t.is(refused.exitCode, 1);
  t.regex(
    String(refused.log[0]?.problem),
    /endpoint-sync is running \(Pod vpn-endpoint-sync-0\).*delete its Deployment first/,
  );
  t.truthy(await listing(cluster, BERLIN.name, BERLIN.cidrs)());

  await deletePod(cluster, running.name);
  for (const round of ['first', 'second']) {
    const { exitCode, log } = await cleanup(kubeconfig);
    t.is(exitCode, 0, `${round}: ${JSON.stringify(log)}`);
    t.is(log.at(-1)?.msg, 'nothing of endpoint-sync is left');
    const endpoint = await getEndpoint(cluster, BERLIN.name);
    t.deepEqual(prefixes(endpoint), []);
    t.deepEqual(endpoint.status, agentStatus(BERLIN.ips) as object);
    t.is((await masq()).data?.config, 'nonMasqueradeCIDRs: []\n');
  }
  t.deepEqual(await getConfigMap(cluster, 'cilium-config'), config);
});

test.serial('cleanup: what it may not do is said, the rest is done', async (t) => {
  const { cluster, kubeconfig } = fixture;
  const { agent } = await start(t, fixture);
  const pod = await createPod(cluster, BERLIN);
  const endpoint = await createEndpoint(cluster, pod);
  await createMasq('nonMasqueradeCIDRs: []\n');
  await until(merged, 'the ranges');
  await agent.stop();
  // A frontend that is in no Role any more.
  const stray = await createPod(cluster, { ...BERLIN, name: 'vpn-frontend-old-0' });
  await createEndpoint(cluster, stray, {
    ...agentStatus(['10.10.0.6']),
    networking: { addressing: [{ ipv4: '10.10.0.6' }, { ipv4: '10.1.0.0/16' }], node: '192.0.2.11' },
  });
  await overwrite(cluster, endpoint, agentStatus(BERLIN.ips));
  const { exitCode, log } = await cleanup(kubeconfig);
  t.is(exitCode, 1);
  const [error] = log.filter(({ level }) => level === 'error');
  t.regex(String(error?.problem), /vpn-frontend-old-0.*cannot patch resource "ciliumendpoints"/);
  t.is((await masq()).data?.config, 'nonMasqueradeCIDRs: []\n');
});
