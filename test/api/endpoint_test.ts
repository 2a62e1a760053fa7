/** endpoint-sync and the frontends' CiliumEndpoints, against a real API server. */
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { settled, until, type Agent } from './agent.ts';
import {
  agentStatus,
  createEndpoint,
  createPod,
  deleteEndpoint,
  deletePod,
  getEndpoint,
  overwrite,
  prefixes,
} from './cilium.ts';
import { BERLIN, edited, listing, MUNICH, setUp, start } from './fixture.ts';

const fixture = setUp(test);

const PATCHES = 'constellation_vpn_endpoint_sync_patches_total';
const ENDPOINT = '{object="CiliumEndpoint"}';
/** It counts a patch when the API server has answered, which may be after others see the change. */
const patches = (agent: Agent) => async () => (await agent.metric(PATCHES))[ENDPOINT];
/** The CiliumEndpoint may be right while a watch on something else is still being made. */
const ready = async (agent: Agent) => (await agent.ready()).status === 200;

test.serial('both families are listed, and not a byte of the rest of the object changes', async (t) => {
  const { cluster } = fixture;
  const { agent } = await start(t, fixture);
  const before = await createEndpoint(cluster, await createPod(cluster, BERLIN));
  const after = await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
  t.deepEqual(after.status?.networking?.addressing, [
    { ipv4: '10.10.0.5', ipv6: 'fd00:10::5' },
    { ipv4: '172.16.0.0/16' },
    { ipv4: '192.168.100.0/24' },
    { ipv6: 'fd12:3456::/48' },
  ]);
  t.deepEqual(withoutOurs(after), withoutOurs(before));
  t.true(await until(() => ready(agent), 'to be ready'));
  t.deepEqual(unexpected(agent.errors()), []);
});

function withoutOurs(endpoint: object): object {
  const copy = structuredClone(endpoint) as {
    metadata: Record<string, unknown>;
    status: { networking: Record<string, unknown> };
  };
  for (const field of ['resourceVersion', 'generation', 'managedFields']) delete copy.metadata[field];
  delete copy.status.networking.addressing;
  return copy;
}

/** There is no cilium-config in these tests. */
const unexpected = <T extends { rule?: unknown }>(errors: readonly T[]): T[] =>
  errors.filter(({ rule }) => rule !== 'present');

test.serial('pods of others and their CiliumEndpoints are left alone', async (t) => {
  const { cluster } = fixture;
  const { agent } = await start(t, fixture);
  const other = await createPod(cluster, { ...BERLIN, name: 'vpn-endpoint-sync-x', component: 'endpoint-sync' });
  const before = await createEndpoint(cluster, other);
  await createEndpoint(cluster, await createPod(cluster, BERLIN));
  await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
  await sleep(300);
  t.deepEqual(await getEndpoint(cluster, 'vpn-endpoint-sync-x'), before);
  t.deepEqual(unexpected(agent.errors()), [], 'it did not even try: the Roles would refuse it');
});

test.serial('an endpoint without addresses waits for its agent to write them', async (t) => {
  const { cluster } = fixture;
  const { agent } = await start(t, fixture);
  const endpoint = await createEndpoint(cluster, await createPod(cluster, BERLIN), null);
  await sleep(300);
  t.is((await getEndpoint(cluster, BERLIN.name)).status, undefined);
  await overwrite(cluster, endpoint, { state: 'waiting-for-identity' });
  await sleep(300);
  t.deepEqual(prefixes(await getEndpoint(cluster, BERLIN.name)), []);
  await overwrite(cluster, endpoint, agentStatus(BERLIN.ips));
  t.truthy(await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges'));
  t.deepEqual(unexpected(agent.errors()), []);
});

test.serial('overwritten three hundred times in a row: restored each time', async (t) => {
  t.timeout(120_000);
  const { cluster } = fixture;
  const { agent } = await start(t, fixture);
  const endpoint = await createEndpoint(cluster, await createPod(cluster, BERLIN));
  await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
  for (let i = 0; i < 300; i++) {
    await overwrite(cluster, endpoint, agentStatus(BERLIN.ips, i));
    await until(listing(cluster, BERLIN.name, BERLIN.cidrs), `restoration ${i}`);
  }
  t.is(await settled(patches(agent), 'the number of patches'), 301);
  t.deepEqual(unexpected(agent.errors()), []);
});

test.serial('overwritten by several at once, without a pause: right in the end, and then nothing more', async (t) => {
  const { cluster } = fixture;
  const { agent } = await start(t, fixture);
  const endpoint = await createEndpoint(cluster, await createPod(cluster, BERLIN));
  await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
  // Each write has an address of its own: a lost update would show.
  const addressOf = (id: number) => `10.10.${id >> 8}.${id & 255}`;
  const writer = async (first: number) => {
    for (let id = first; id < first + 50; id++) await overwrite(cluster, endpoint, agentStatus([addressOf(id)], id));
  };
  await Promise.all([0, 50, 100, 150, 200, 250].map(writer));
  await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
  await settled(patches(agent), 'the number of patches');
  const { status } = await getEndpoint(cluster, BERLIN.name);
  t.is(status?.networking?.addressing?.[0]?.ipv4, addressOf((status as { id?: number }).id ?? -1));
  t.deepEqual(unexpected(agent.errors()), []);
});

test.serial(
  "the pod comes back under the same name: its new endpoint is patched, the old one's end is no error",
  async (t) => {
    const { cluster } = fixture;
    const { agent } = await start(t, fixture);
    for (let i = 0; i < 20; i++) {
      const ips = [`10.10.0.${10 + i}`];
      await createEndpoint(cluster, await createPod(cluster, { ...BERLIN, ips }));
      const endpoint = await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
      t.deepEqual(endpoint.status?.networking?.addressing?.[0], { ipv4: ips[0] });
      // In either order, and with and without a pause: the garbage collector decides.
      await Promise.all([deletePod(cluster, BERLIN.name), deleteEndpoint(cluster, BERLIN.name)]);
    }
    t.deepEqual(unexpected(agent.errors()), []);
  },
);

test.serial('an endpoint that still belongs to the pod before is not touched', async (t) => {
  const { cluster } = fixture;
  await start(t, fixture);
  const first = await createPod(cluster, BERLIN);
  await deletePod(cluster, BERLIN.name);
  await createPod(cluster, BERLIN);
  const before = await createEndpoint(cluster, first);
  await sleep(500);
  t.deepEqual(await getEndpoint(cluster, BERLIN.name), before);
});

test.serial('a changed configuration takes effect, a broken one does not', async (t) => {
  const { cluster, rendered } = fixture;
  const { agent, volume } = await start(t, fixture);
  await createEndpoint(cluster, await createPod(cluster, BERLIN));
  await createEndpoint(cluster, await createPod(cluster, MUNICH));
  await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges of berlin');
  const munich = await until(listing(cluster, MUNICH.name, MUNICH.cidrs), 'the range of munich');

  const berlin = ['172.17.0.0/16', '192.168.100.0/24', 'fd12:3456::/48'];
  await volume.set(edited(rendered.config, ([site]) => site!.peerCIDRs.splice(0, 1, '172.17.0.0/16')));
  t.truthy(await until(listing(cluster, BERLIN.name, berlin), 'the new range'));
  t.deepEqual(await getEndpoint(cluster, MUNICH.name), munich);

  for (const broken of [
    '',
    '{',
    '[]',
    rendered.config.replace('v1alpha1', 'v9'),
    rendered.config.replace('/16', '/99'),
  ]) {
    const before = agent.errors().length;
    await volume.set(broken);
    await until(() => agent.errors().length > before, 'an error in the log');
    t.deepEqual(await agent.metric('constellation_vpn_config_valid'), { '': 0 });
    t.is((await agent.ready()).status, 200);
  }
  t.true(agent.errors().some(({ problem }) => String(problem).includes('apiVersion expected one of')));
  t.truthy(await listing(cluster, BERLIN.name, berlin)());

  await volume.set(rendered.config);
  t.truthy(await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the first ranges'));
  t.deepEqual(await agent.metric('constellation_vpn_config_valid'), { '': 1 });
});

for (const [title, config, problem] of [
  ['missing', null, 'is missing'],
  ['empty', '\n', 'is empty: the manifests were applied without the functions'],
  ['not JSON', 'spec: {}', 'is not JSON'],
] as const)
  test.serial(
    `a configuration that is ${title} at the start: not ready, nothing touched, until it is there`,
    async (t) => {
      const { cluster, rendered } = fixture;
      const { agent, volume } = await start(t, fixture, config);
      const before = await createEndpoint(cluster, await createPod(cluster, BERLIN));
      await until(async () => !(await agent.ready()).text.includes('has not been read yet'), 'the file to be read');
      const { status, text } = await agent.ready();
      t.is(status, 503);
      t.true(text.includes(problem), text);
      t.true(text.includes(volume.file), text);
      await sleep(300);
      t.deepEqual(await getEndpoint(cluster, BERLIN.name), before);
      await volume.set(rendered.config);
      t.truthy(await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges'));
      t.true(await until(() => ready(agent), 'to be ready'));
    },
  );

test.serial('a range that a node lost is taken out and put in again, once', async (t) => {
  t.timeout(120_000);
  const { cluster } = fixture;
  const { agent } = await start(t, fixture);
  const node = { name: 'vpn-routing-x', site: '', ips: ['127.0.0.77'], component: 'routing', hostIP: '127.0.0.77' };
  await createPod(cluster, node);
  await createEndpoint(cluster, await createPod(cluster, BERLIN));
  await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');

  // The routing agent of the node, as agents/lib/lost-ranges.ts describes it.
  let lost: object[] = [{ pod: BERLIN.name, cidr: '172.16.0.0/16' }];
  const routing = createServer((_, response) => response.end(JSON.stringify({ lost })));
  await new Promise<void>((resolve) => {
    routing.listen(9810, '127.0.0.77', resolve);
  });
  t.teardown(() => routing.close());
  const hint = (body: string) => fetch(`${agent.url}/lost-ranges`, { method: 'POST', body });
  t.is((await hint('{"node": 7}')).status, 400);
  t.is((await hint('{"node": "node-1"}')).status, 202);

  const without = BERLIN.cidrs.slice(1);
  t.truthy(await until(listing(cluster, BERLIN.name, without), 'the range to be out', 40_000));
  t.truthy(await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the range to be in again'));
  const { resourceVersion } = (await getEndpoint(cluster, BERLIN.name)).metadata;
  // The node reports it again and again: nothing is done, it is said once.
  const said = () => agent.errors().filter(({ msg }) => msg.startsWith('a node still lacks'));
  await until(() => said().length > 0, 'the agent to give up', 40_000);
  for (let i = 0; i < 5; i++) await hint('{"node": "node-1"}');
  await sleep(1000);
  t.is((await getEndpoint(cluster, BERLIN.name)).metadata.resourceVersion, resourceVersion);
  t.is(said().length, 1);
  t.deepEqual(await agent.metric('constellation_vpn_lost_ranges'), { '': 1 });
  lost = [];
  await hint('{"node": "node-1"}');
  t.truthy(await until(async () => (await agent.metric('constellation_vpn_lost_ranges'))[''] === 0, 'the metric'));
});

test.serial('hints of nodes that do not answer, and of nodes that do not exist, hold nothing up', async (t) => {
  const { cluster } = fixture;
  const { agent } = await start(t, fixture);
  const endpoint = await createEndpoint(cluster, await createPod(cluster, BERLIN));
  await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
  // Takes connections, and says nothing.
  const silent = createServer(() => {});
  await new Promise<void>((resolve) => {
    silent.listen(9810, '127.0.0.78', resolve);
  });
  t.teardown(() => {
    silent.closeAllConnections();
    silent.close();
  });
  const nodes = Array.from({ length: 12 }, (_, i) => `dead-${i}`);
  for (const node of nodes)
    await createPod(cluster, {
      name: `vpn-routing-${node}`,
      site: '',
      ips: ['127.0.0.78'],
      component: 'routing',
      hostIP: '127.0.0.78',
      node,
    });
  const began = Date.now();
  const hint = (node: string) => fetch(`${agent.url}/lost-ranges`, { method: 'POST', body: JSON.stringify({ node }) });
  await Promise.all(nodes.map(hint));
  for (let i = 0; i < 500; i++) await hint(`made-up-${i}`);
  for (let i = 0; i < 20; i++) {
    await overwrite(cluster, endpoint, agentStatus(BERLIN.ips, i));
    await until(listing(cluster, BERLIN.name, BERLIN.cidrs), `restoration ${i}`);
  }
  t.is(await settled(patches(agent), 'the number of patches'), 21);
  const seconds = (Date.now() - began) / 1000;
  const lists = (await cluster.audit()).filter(
    ({ verb, resource, path, at }) => verb === 'list' && resource === 'pods' && path.includes('routing') && at >= began,
  );
  t.true(lists.length >= 1 && lists.length <= seconds + 2, `${lists.length} lists of routing agents in ${seconds} s`);
  const told = () => agent.errors().filter(({ msg }) => msg === 'a routing agent does not tell what it lost').length;
  t.truthy(await until(() => told() === nodes.length, 'each silent node to be named'));
});

test.serial('twice is once: a restarted agent finds everything right and changes nothing', async (t) => {
  const { cluster } = fixture;
  const { agent } = await start(t, fixture);
  await createEndpoint(cluster, await createPod(cluster, BERLIN));
  await until(listing(cluster, BERLIN.name, BERLIN.cidrs), 'the ranges');
  t.is(await agent.stop(), 0);
  const { resourceVersion } = (await getEndpoint(cluster, BERLIN.name)).metadata;
  const second = (await start(t, fixture)).agent;
  await until(() => ready(second), 'the second agent to be ready');
  await sleep(500);
  t.is((await getEndpoint(cluster, BERLIN.name)).metadata.resourceVersion, resourceVersion);
  t.is((await second.metric(PATCHES))[ENDPOINT], undefined);
});
