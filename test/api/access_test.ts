/** What endpoint-sync and routing may and may not do, and how endpoint-sync takes refusals: a real API server with RBAC on. */
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { makeClient } from '../control-plane/client.ts';
import { settled, until } from './agent.ts';
import {
  ask,
  createConfigMap,
  createEndpoint,
  createPod,
  NAMESPACE,
  overwrite,
  agentStatus,
  removeAll,
} from './cilium.ts';
import { BERLIN, installCrds, listing, MUNICH, setUp, start, writeToken } from './fixture.ts';

const fixture = setUp(test);
const accountOf = (agent: string): string => `system:serviceaccount:${NAMESPACE}:vpn-${agent}`;
const ACCOUNT = accountOf('endpoint-sync');

interface Review {
  status: { allowed: boolean };
}
interface Asked {
  verb: string;
  group?: string;
  resource: string;
  namespace?: string;
  name?: string;
}

async function allowed(
  user: string,
  { verb, group = '', resource, namespace = NAMESPACE, name = '' }: Asked,
): Promise<boolean> {
  const { status } = await ask<Review>(fixture.cluster, 'POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', {
    spec: {
      user,
      groups: ['system:serviceaccounts', 'system:authenticated'],
      resourceAttributes: { verb, group, resource, namespace, name },
    },
  });
  return status.allowed;
}

const VERBS = ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete', 'deletecollection'];
const RESOURCES: [group: string, resource: string][] = [
  ...[
    'pods',
    'configmaps',
    'secrets',
    'services',
    'serviceaccounts',
    'events',
    'nodes',
    'namespaces',
    'pods/exec',
    'pods/log',
    'serviceaccounts/token',
  ].map((resource): [string, string] => ['', resource]),
  ...['ciliumendpoints', 'ciliumendpointslices', 'ciliumnodes', 'ciliumidentities', 'ciliumnetworkpolicies'].map(
    (resource): [string, string] => ['cilium.io', resource],
  ),
  ['apps', 'daemonsets'],
  ['apps', 'deployments'],
  ['rbac.authorization.k8s.io', 'roles'],
  ['coordination.k8s.io', 'leases'],
];
const NAMES = ['', 'x', BERLIN.name, MUNICH.name, 'cilium-config', 'ip-masq-agent'];
const READ = ['get', 'list', 'watch'];
const inOwnNamespace = (verbs: readonly string[], resource: string): string[] =>
  verbs.flatMap((verb) => NAMES.map((name) => `${verb} ${resource} ${NAMESPACE}/${name}`));
const reading = (configMap: string): string[] => READ.map((verb) => `${verb} configmaps kube-system/${configMap}`);
/** All that they may, in words of `verb resource namespace/name`. */
const MAY = {
  'endpoint-sync': [
    ...inOwnNamespace(READ, 'pods'),
    ...inOwnNamespace(READ, 'ciliumendpoints'),
    ...inOwnNamespace(['create', 'patch'], 'events'),
    ...[BERLIN, MUNICH].map(({ name }) => `patch ciliumendpoints ${NAMESPACE}/${name}`),
    ...reading('cilium-config'),
    ...reading('ip-masq-agent'),
    'patch configmaps kube-system/ip-masq-agent',
  ],
  routing: [
    ...inOwnNamespace(READ, 'pods'),
    ...inOwnNamespace(['create', 'patch'], 'events'),
    ...reading('cilium-config'),
  ],
};

for (const [agent, expected] of Object.entries(MAY))
  test.serial(`the rendered Roles allow what ${agent} does, and nothing else`, async (t) => {
    t.timeout(120_000);
    const asked = RESOURCES.flatMap(([group, resource]) =>
      VERBS.flatMap((verb) =>
        [NAMESPACE, 'kube-system', 'default', ''].flatMap((namespace) =>
          NAMES.map((name) => ({ verb, group, resource, namespace, name })),
        ),
      ),
    );
    const may: string[] = [];
    for (let i = 0; i < asked.length; i += 100) {
      const batch = asked.slice(i, i + 100);
      const answers = await Promise.all(batch.map((one) => allowed(accountOf(agent), one)));
      batch.forEach(
        ({ verb, resource, namespace, name }, j) =>
          answers[j] === true && may.push(`${verb} ${resource} ${namespace}/${name}`),
      );
    }
    t.deepEqual(may.toSorted(), expected.toSorted());
  });

test.serial('asked with its own token, the API server refuses what it has no business with', async (t) => {
  const { cluster, tokenFile } = fixture;
  await createEndpoint(cluster, await createPod(cluster, { ...BERLIN, name: 'other-0', component: 'other' }));
  await createConfigMap(cluster, 'cilium-config', {});
  t.teardown(() => removeAll(cluster));
  const own = makeClient(cluster.server, await readFile(cluster.caFile, 'utf8'), await readFile(tokenFile, 'utf8'));
  t.teardown(() => own.close());
  const endpoints = `/apis/cilium.io/v2/namespaces/${NAMESPACE}/ciliumendpoints`;
  const merge = 'application/merge-patch+json';
  const labels = { metadata: { labels: { x: 'y' } } };
  for (const [method, path, body, type] of [
    ['PATCH', `${endpoints}/other-0`, labels, merge],
    ['DELETE', `${endpoints}/other-0`],
    ['GET', '/apis/cilium.io/v2/ciliumendpoints'],
    ['GET', `/api/v1/namespaces/${NAMESPACE}/secrets`],
    ['GET', '/api/v1/namespaces/kube-system/configmaps'],
    ['PATCH', '/api/v1/namespaces/kube-system/configmaps/cilium-config', labels, merge],
    ['DELETE', '/api/v1/namespaces/kube-system/configmaps/ip-masq-agent'],
    ['POST', '/api/v1/namespaces/kube-system/configmaps', { metadata: { name: 'ip-masq-agent' } }],
    ['PATCH', `/api/v1/namespaces/${NAMESPACE}/pods/other-0`, labels, merge],
    ['POST', '/api/v1/namespaces/kube-system/events', { metadata: { name: 'x' } }],
  ] as const)
    t.is((await own.request(method, path, body, type)).status, 403, `${method} ${path}`);
  t.is((await own.request('GET', `${endpoints}/other-0`)).status, 200, 'the token itself is accepted');
});

test.serial('in its normal life it asks for nothing that is refused, and writes only what is its own', async (t) => {
  const { cluster } = fixture;
  const began = Date.now();
  const { agent } = await start(t, fixture);
  for (const frontend of [BERLIN, MUNICH]) await createEndpoint(cluster, await createPod(cluster, frontend));
  await createConfigMap(cluster, 'ip-masq-agent', { config: '{"nonMasqueradeCIDRs":[]}' });
  await createConfigMap(cluster, 'cilium-config', { 'enable-sctp': 'false', 'kube-proxy-replacement': 'true' });
  for (const { name, cidrs } of [BERLIN, MUNICH]) await until(listing(cluster, name, cidrs), 'the ranges');
  await until(
    async () => (await agent.metric('constellation_vpn_cilium_config_ok'))['{rule="service-translation"}'] === 0,
    'cilium-config',
  );
  const requests = async () => (await cluster.audit()).filter(({ user, at }) => user === ACCOUNT && at >= began);
  await settled(async () => (await requests()).length, 'the number of requests');
  await agent.stop();
  const seen = await requests();
  t.true(seen.length > 10);
  t.deepEqual(
    seen.filter(({ code }) => code === 403),
    [],
  );
  const writes = new Set(
    seen
      .filter(({ verb }) => !['get', 'list', 'watch'].includes(verb))
      .map(
        ({ verb, resource, namespace, name }) =>
          `${verb} ${resource} ${namespace}/${resource === 'events' ? '' : name}`,
      ),
  );
  t.deepEqual([...writes].toSorted(), [
    `create events ${NAMESPACE}/`,
    `patch ciliumendpoints ${NAMESPACE}/${BERLIN.name}`,
    `patch ciliumendpoints ${NAMESPACE}/${MUNICH.name}`,
    'patch configmaps kube-system/ip-masq-agent',
  ]);
});

test.serial('nothing changes: no request but the watches', async (t) => {
  const { cluster } = fixture;
  const { agent } = await start(t, fixture);
  await createEndpoint(cluster, await createPod(cluster, BERLIN));
  await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
  const count = async () => (await cluster.audit()).filter(({ user }) => user === ACCOUNT).length;
  const before = await settled(count, 'the number of requests');
  const reconciles = await agent.metric('constellation_vpn_endpoint_sync_reconciles_total');
  await sleep(12_000); // what polls every 10 s would show
  t.is(await count(), before);
  t.deepEqual(await agent.metric('constellation_vpn_endpoint_sync_reconciles_total'), reconciles);
});

test.serial('a missing permission: the line names verb, resource and object; given back, it works', async (t) => {
  const { cluster, rendered } = fixture;
  const role = `/apis/rbac.authorization.k8s.io/v1/namespaces/${NAMESPACE}/roles/vpn-endpoint-sync`;
  const { rules, ...rest } = await ask<{ rules: { verbs: string[] }[]; metadata: object }>(cluster, 'GET', role);
  await ask(cluster, 'PUT', role, {
    ...rest,
    rules: rules.filter(({ verbs }) => !verbs.includes('patch') || verbs.includes('create')),
  });
  t.teardown(() => cluster.apply(rendered.accounts));
  const { agent } = await start(t, fixture);
  await createEndpoint(cluster, await createPod(cluster, BERLIN));
  const error = await until(() => agent.errors().find(({ msg }) => msg === 'failed, trying again'), 'the error');
  t.regex(
    String(error.problem),
    /ciliumendpoints\.cilium\.io "vpn-frontend-berlin-0" is forbidden: .*cannot patch resource "ciliumendpoints"/,
  );
  t.true(
    ((await agent.metric('constellation_vpn_endpoint_sync_errors_total'))[
      '{object="CiliumEndpoint",reason="forbidden"}'
    ] ?? 0) > 0,
  );
  await cluster.apply(rendered.accounts);
  t.truthy(await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges'));
  t.is(agent.errors().filter(({ msg }) => msg === 'failed, trying again').length, 1);
});

test.serial('no permission to watch: not ready, and why; given back, it works', async (t) => {
  const { cluster, rendered } = fixture;
  const binding = `/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings/vpn-ip-masq-agent-editor`;
  await ask(cluster, 'DELETE', binding);
  t.teardown(() => cluster.apply(rendered.accounts));
  const { agent } = await start(t, fixture);
  await until(() => agent.errors().some(({ problem }) => String(problem).includes('ip-masq-agent')), 'the error');
  const { status, text } = await agent.ready();
  t.is(status, 503);
  t.regex(
    text,
    /ConfigMap kube-system\/ip-masq-agent: .*cannot list resource "configmaps".*in the namespace "kube-system"/,
  );
  // The rest works all the same.
  await createEndpoint(cluster, await createPod(cluster, BERLIN));
  await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
  await cluster.apply(rendered.accounts);
  t.truthy(await until(async () => (await agent.ready()).status === 200, 'to be ready'));
});

test.serial('the token is rotated: the new one is used, also at once when the old one is refused', async (t) => {
  const { cluster, rendered, tokenFile } = fixture;
  const { agent } = await start(t, fixture);
  const endpoint = await createEndpoint(cluster, await createPod(cluster, BERLIN));
  await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
  const old = makeClient(cluster.server, await readFile(cluster.caFile, 'utf8'), await readFile(tokenFile, 'utf8'));
  t.teardown(() => old.close());
  // A new ServiceAccount of the same name: every token of the old one is refused, once the API server has forgotten, after
  // ten seconds, that it accepted them.
  await ask(cluster, 'DELETE', `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/vpn-endpoint-sync`);
  await cluster.apply(rendered.accounts);
  await writeToken(fixture);
  await until(async () => (await old.request('GET', '/version')).status === 401, 'the old token to be refused');
  await overwrite(cluster, endpoint, agentStatus(BERLIN.ips, 2));
  t.truthy(await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges'));
  t.deepEqual(await agent.metric('constellation_vpn_endpoint_sync_errors_total'), {});
});

test.serial('without the CRD: says that Cilium is missing, and works once it is there', async (t) => {
  const { cluster } = fixture;
  await ask(cluster, 'DELETE', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ciliumendpoints.cilium.io');
  await until(
    async () =>
      (await cluster.request('GET', `/apis/cilium.io/v2/namespaces/${NAMESPACE}/ciliumendpoints`)).status === 404,
    'the CRD to go',
  );
  t.teardown(() => installCrds(cluster));
  const { agent } = await start(t, fixture);
  await until(() => agent.errors().find(({ problem }) => String(problem).includes('Cilium is missing')), 'the error');
  t.is((await agent.ready()).status, 503);
  await installCrds(cluster);
  await createEndpoint(cluster, await createPod(cluster, BERLIN));
  t.truthy(await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges'));
  t.truthy(await until(async () => (await agent.ready()).status === 200, 'to be ready'));
});

test.serial('it never touches CiliumEndpointSlices', async (t) => {
  const seen = (await fixture.cluster.audit()).filter(({ user }) => user === ACCOUNT);
  t.true(seen.length > 0);
  t.deepEqual(
    seen.filter(({ resource }) => resource === 'ciliumendpointslices'),
    [],
  );
});
