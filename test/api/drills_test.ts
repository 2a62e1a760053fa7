/** Bad days: the API server goes and comes back, loses its data; many sites; two agents at once. */
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { makeClient } from '../control-plane/client.ts';
import type { ControlPlane } from '../control-plane/control-plane.ts';
import { ConfigVolume, settled, startAgent, until, type Agent } from './agent.ts';
import {
  agentStatus,
  ask,
  NAMESPACE,
  createConfigMap,
  createEndpoint,
  createPod,
  getEndpoint,
  listEndpoints,
  overwrite,
  prefixes,
  removeAll,
} from './cilium.ts';
import { BERLIN, edited, installCrds, listing, MUNICH, setUp, start, writeToken } from './fixture.ts';
import { renderVpn } from './rendered.ts';

const fixture = setUp(test);
const PATCHES = 'constellation_vpn_endpoint_sync_patches_total';
const ENDPOINT = '{object="CiliumEndpoint"}';

const AWAY = "can't watch for the moment, trying again";
/** endpoint-sync's. */
const WATCHES = 4;

/** Errors in the log; there is no cilium-config in these tests. */
const unexpected = (agent: Agent) => agent.errors().filter(({ rule }) => rule !== 'present');

test.serial('the API server is killed for 15 s: not ready, and right again soon after', async (t) => {
  t.timeout(180_000);
  const { cluster } = fixture;
  const { agent } = await start(t, fixture);
  const endpoint = await createEndpoint(cluster, await createPod(cluster, BERLIN));
  await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
  await cluster.stopApiServer('SIGKILL');
  await until(async () => (await agent.ready()).status === 503, 'not to be ready');
  t.true((await agent.ready()).text.includes(cluster.server));
  await sleep(15_000); // the pauses between two tries are as long as they get
  await cluster.startApiServer();
  const came = performance.now();
  await overwrite(cluster, endpoint, agentStatus(BERLIN.ips, 2));
  await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
  t.log(`restored ${Math.round(performance.now() - came)} ms after the API server was ready`);
  t.truthy(await until(async () => (await agent.ready()).status === 200, 'to be ready'));
});

test.serial('the API server restarts: a warning for each watch, and no error', async (t) => {
  t.timeout(180_000);
  const { cluster } = fixture;
  const { agent } = await start(t, fixture);
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    await until(async () => (await agent.ready()).status === 200, 'to be ready');
    const before = agent.log.length;
    await cluster.stopApiServer(signal);
    await cluster.startApiServer();
    const said = (msg: string) => agent.log.slice(before).filter((record) => record.msg === msg);
    await until(() => said('the API server answers again').length === WATCHES, 'all watches to stand');
    const warnings = said(AWAY);
    t.is(new Set(warnings.map(({ what }) => what)).size, WATCHES);
    t.is(warnings.length, WATCHES);
    t.true(warnings.every(({ level }) => level === 'warn'));
    t.deepEqual(unexpected(agent), []);
  }
});

test.serial(
  'the API server comes back with its data gone: what is made anew is patched, versions count again',
  async (t) => {
    t.timeout(180_000);
    const { cluster, rendered } = fixture;
    const { agent } = await start(t, fixture);
    let endpoint = await createEndpoint(cluster, await createPod(cluster, BERLIN));
    // A history long enough that the new versions are lower for a while.
    for (let i = 0; i < 100; i++) endpoint = await overwrite(cluster, endpoint, agentStatus(BERLIN.ips, i));
    await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
    const version = Number((await getEndpoint(cluster, BERLIN.name)).metadata.resourceVersion);
    await cluster.wipe();
    await installCrds(cluster);
    await cluster.apply(rendered.accounts);
    await writeToken(fixture);
    const anew = await createEndpoint(cluster, await createPod(cluster, BERLIN));
    t.true(Number(anew.metadata.resourceVersion) < version);
    t.truthy(await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges'));
    t.truthy(await until(async () => (await agent.ready()).status === 200, 'to be ready'));
    for (let i = 0; i < 20; i++) {
      await overwrite(cluster, anew, agentStatus(BERLIN.ips, i));
      await until(listing(cluster, BERLIN.name, BERLIN.cidrs), `restoration ${i}`);
    }
  },
);

test.serial('no API server at the start: waits, says which address, works when it comes', async (t) => {
  const { cluster } = fixture;
  await createEndpoint(cluster, await createPod(cluster, BERLIN));
  await cluster.stopApiServer();
  const { agent } = await start(t, fixture);
  await until(() => agent.log.find(({ msg }) => msg === AWAY), 'a warning');
  const { status, text } = await agent.ready();
  t.is(status, 503);
  t.true(text.includes(`no answer from the API server at ${cluster.server}: connect ECONNREFUSED`), text);
  await cluster.startApiServer();
  t.truthy(await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges'));
});

/** Sites with `ranges` on-prem ranges each, none in another. */
const manySites = (count: number, ranges: number) =>
  Array.from({ length: count }, (_, i) => ({
    name: `s${i}`,
    ips: [`10.10.2.${i}`],
    peerCIDRs: Array.from(
      { length: ranges },
      (_, j) => `172.${16 + (i >> 4)}.${((i & 15) << 4) + (j >> 4)}.${(j & 15) << 4}/28`,
    ),
  }));

/** Renders these sites, and makes their Roles, pods and CiliumEndpoints. */
async function createSites(t: ExecutionContext, sites: ReturnType<typeof manySites>) {
  const { cluster, rendered } = fixture;
  const many = await renderVpn(sites.map(({ name, peerCIDRs }) => ({ name, peerCIDRs })));
  await cluster.apply(many.accounts);
  t.teardown(() => cluster.apply(rendered.accounts));
  const podOf = (site: string) => `vpn-frontend-${site}-0`;
  const endpoints = await Promise.all(
    sites.map(async ({ name, ips }) =>
      createEndpoint(cluster, await createPod(cluster, { name: podOf(name), site: name, ips })),
    ),
  );
  const complete = async () => {
    const listed = new Map((await listEndpoints(cluster)).map((one) => [one.metadata.name, prefixes(one).length]));
    return sites.every(({ name, peerCIDRs }) => listed.get(podOf(name)) === peerCIDRs.length);
  };
  return { config: many.config, endpoints, complete };
}

test.serial('200 sites with 50 ranges each', async (t) => {
  t.timeout(240_000);
  const { cluster } = fixture;
  const sites = manySites(200, 50);
  const { config, endpoints, complete } = await createSites(t, sites);
  await createConfigMap(cluster, 'ip-masq-agent', { config: 'nonMasqueradeCIDRs: []\n' });
  const { agent } = await start(t, fixture, config);
  t.true(await until(complete, 'all ranges'));
  // All of Cilium's agents restart at once.
  await Promise.all(endpoints.map((endpoint, i) => overwrite(cluster, endpoint, agentStatus(sites[i]?.ips ?? [], i))));
  t.true(await until(complete, 'all ranges again'));
  t.deepEqual(unexpected(agent), []);
  await until(async () => (await agent.metric(PATCHES))['{object="ip-masq-agent"}'] === 1, 'ip-masq-agent');
});

test.serial(
  'the API server asks to slow down (429, Retry-After): the agent does, and all is right in the end',
  async (t) => {
    t.timeout(120_000);
    const { cluster } = fixture;
    const { config, complete } = await createSites(t, manySites(30, 2));
    t.teardown(await throttle(cluster, 'patch'));
    const began = Date.now();
    const { agent } = await start(t, fixture, config);
    t.true(await until(complete, 'all ranges'));
    const errors = await agent.metric('constellation_vpn_endpoint_sync_errors_total');
    t.true((errors['{object="CiliumEndpoint",reason="throttled"}'] ?? 0) > 0, JSON.stringify(errors));
    // Retry-After is one second: the next try for the same object comes no sooner.
    const patches = (await cluster.audit()).filter(
      ({ verb, resource, at }) => verb === 'patch' && resource === 'ciliumendpoints' && at >= began,
    );
    const refused = patches.filter(({ code }) => code === 429);
    t.true(refused.length > 0);
    for (const { name, at } of refused) {
      const next = patches.find((one) => one.name === name && one.at > at);
      t.true(next !== undefined && next.at - at >= 950, `${name}: tried again after ${(next?.at ?? 0) - at} ms`);
    }
  },
);

test.serial(
  'an admission policy refuses what it writes: said, not shown as merged, and right once it is gone',
  async (t) => {
    const { cluster } = fixture;
    const admission = '/apis/admissionregistration.k8s.io/v1';
    const user = `system:serviceaccount:${NAMESPACE}:vpn-endpoint-sync`;
    const remove = async () => {
      for (const kind of ['validatingadmissionpolicybindings', 'validatingadmissionpolicies'])
        await ask(cluster, 'DELETE', `${admission}/${kind}/protect`, undefined, { also: [404] });
    };
    t.teardown(remove);
    await ask(cluster, 'POST', `${admission}/validatingadmissionpolicies`, {
      metadata: { name: 'protect' },
      spec: {
        matchConstraints: {
          resourceRules: [
            { apiGroups: [''], apiVersions: ['v1'], operations: ['UPDATE'], resources: ['configmaps'] },
            { apiGroups: ['cilium.io'], apiVersions: ['v2'], operations: ['UPDATE'], resources: ['ciliumendpoints'] },
          ],
        },
        validations: [{ expression: `request.userInfo.username != '${user}'`, message: 'hands off' }],
      },
    });
    await ask(cluster, 'POST', `${admission}/validatingadmissionpolicybindings`, {
      metadata: { name: 'protect' },
      spec: { policyName: 'protect', validationActions: ['Deny'] },
    });
    const endpoint = await createEndpoint(cluster, await createPod(cluster, BERLIN));
    const masq = await createConfigMap(cluster, 'ip-masq-agent', { config: 'nonMasqueradeCIDRs: []\n' });
    // Until the policy is in force, which takes the API server a moment, an agent would get through.
    const patch = [{ op: 'add', path: '/metadata/labels', value: { probe: 'x' } }];
    const own = makeClient(
      cluster.server,
      await readFile(cluster.caFile, 'utf8'),
      await readFile(fixture.tokenFile, 'utf8'),
    );
    t.teardown(() => own.close());
    const path = `/api/v1/namespaces/kube-system/configmaps/${masq.metadata.name}`;
    await until(
      async () => (await own.request('PATCH', path, patch, 'application/json-patch+json')).status === 422,
      'the policy',
    );
    const { agent } = await start(t, fixture);
    const said = (what: string) =>
      agent.errors().find(({ object, problem }) => object === what && String(problem).includes('hands off'));
    t.truthy(await until(() => said(`CiliumEndpoint ${BERLIN.name}`), 'the refusal of the CiliumEndpoint'));
    t.truthy(await until(() => said('ip-masq-agent'), 'the refusal of the ConfigMap'));
    t.is((await agent.metric('constellation_vpn_ip_masq_agent_config'))['{state="merged"}'], 0);
    const errors = await agent.metric('constellation_vpn_endpoint_sync_errors_total');
    t.true((errors['{object="CiliumEndpoint",reason="invalid"}'] ?? 0) > 0, JSON.stringify(errors));
    await remove();
    t.truthy(await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges'));
    t.is((await getEndpoint(cluster, BERLIN.name)).metadata.uid, endpoint.metadata.uid);
  },
);

/** From now on only one request of endpoint-sync with this verb is served at a time; another one meanwhile gets 429. Answers the way back. */
async function throttle(cluster: ControlPlane, verb: string): Promise<() => Promise<void>> {
  const flow = 'flowcontrol.apiserver.k8s.io/v1';
  const level = `/apis/${flow}/prioritylevelconfigurations`;
  const schema = `/apis/${flow}/flowschemas`;
  const limited = {
    nominalConcurrencyShares: 0,
    lendablePercent: 0,
    borrowingLimitPercent: 0,
    limitResponse: { type: 'Reject' },
  };
  const subjects = [{ kind: 'ServiceAccount', serviceAccount: { name: 'vpn-endpoint-sync', namespace: NAMESPACE } }];
  const resourceRules = [{ verbs: [verb], apiGroups: ['*'], resources: ['*'], namespaces: ['*'] }];
  await ask(cluster, 'POST', level, {
    metadata: { name: 'one-at-a-time' },
    spec: { type: 'Limited', limited },
  });
  await ask(cluster, 'POST', schema, {
    metadata: { name: 'one-at-a-time' },
    spec: {
      matchingPrecedence: 2,
      priorityLevelConfiguration: { name: 'one-at-a-time' },
      rules: [{ subjects, resourceRules }],
    },
  });
  const inForce = async () => {
    const { status } = await ask<{ status?: { conditions?: { type: string; status: string }[] } }>(
      cluster,
      'GET',
      `${schema}/one-at-a-time`,
    );
    return status?.conditions?.some((condition) => condition.type === 'Dangling' && condition.status === 'False');
  };
  await until(inForce, 'the limit to be in force');
  return async () => {
    for (const path of [schema, level]) await ask(cluster, 'DELETE', `${path}/one-at-a-time`);
  };
}

test.serial('two agents with one configuration: no fight, patches stop', async (t) => {
  const { cluster } = fixture;
  const { agent: one } = await start(t, fixture);
  const { agent: two } = await start(t, fixture);
  const endpoint = await createEndpoint(cluster, await createPod(cluster, BERLIN));
  for (let i = 0; i < 50; i++) {
    await overwrite(cluster, endpoint, agentStatus(BERLIN.ips, i));
    await until(listing(cluster, BERLIN.name, BERLIN.cidrs), `restoration ${i}`);
  }
  const patches = async () =>
    ((await one.metric(PATCHES))[ENDPOINT] ?? 0) + ((await two.metric(PATCHES))[ENDPOINT] ?? 0);
  const all = await settled(patches, 'the number of patches', 2_000);
  t.true(all === 50 || all === 51, `each overwriting is answered by one of the two: ${all}`);
  t.deepEqual(
    [...one.errors(), ...two.errors()].filter(({ rule }) => rule !== 'present'),
    [],
  );
});

test.serial(
  'two agents that disagree, as while a Deployment rolls: they hold back, and agree in the end',
  async (t) => {
    t.timeout(120_000);
    const { cluster, rendered } = fixture;
    const { agent: one } = await start(t, fixture);
    const volume = await ConfigVolume.create(edited(rendered.config, ([berlin]) => berlin!.peerCIDRs.pop()));
    const two = await startAgent(fixture.kubeconfig, volume);
    t.teardown(async () => {
      await two.stop('SIGKILL');
      await volume.remove();
      await removeAll(cluster);
    });
    await createEndpoint(cluster, await createPod(cluster, BERLIN));
    await sleep(10_000);
    const patches = async () =>
      ((await one.metric(PATCHES))[ENDPOINT] ?? 0) + ((await two.metric(PATCHES))[ENDPOINT] ?? 0);
    const some = await patches();
    t.true(some >= 2 && some < 20, `${some} patches in 10 s`);
    const warned = () =>
      [...one.log, ...two.log].some(
        ({ msg, level }) => level === 'warn' && msg.includes('are two endpoint-syncs running'),
      );
    await until(warned, 'the warning');
    await volume.set(rendered.config);
    t.truthy(await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'agreement', 70_000));
    await settled(patches, 'the number of patches', 1_500);
    t.truthy(await listing(cluster, BERLIN.name, BERLIN.cidrs)());
  },
);

test.serial('killed in the middle of its work, again and again: the next one makes it right', async (t) => {
  t.timeout(120_000);
  const { cluster } = fixture;
  const endpoint = await createEndpoint(cluster, await createPod(cluster, BERLIN));
  await createEndpoint(cluster, await createPod(cluster, MUNICH));
  for (let i = 0; i < 5; i++) {
    const volume = await ConfigVolume.create(fixture.rendered.config);
    const agent = await startAgent(fixture.kubeconfig, volume);
    const writing = (async () => {
      for (let j = 0; j < 20; j++) await overwrite(cluster, endpoint, agentStatus(BERLIN.ips, j));
    })();
    await sleep(20 * i);
    await agent.stop('SIGKILL');
    await writing;
    await volume.remove();
  }
  await start(t, fixture);
  t.truthy(await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges'));
  t.truthy(await until(listing(cluster, MUNICH.name, MUNICH.cidrs), 'the range'));
});
