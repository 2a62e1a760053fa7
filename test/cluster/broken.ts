import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { ping } from '../dataplane/traffic.ts';
import { ciliumRolledOut } from './cilium.ts';
import { type Cluster, startCluster } from './cluster.ts';
import { OWN } from './fixture.ts';
import { createPods, type TestPods, until } from './pods.ts';
import {
  apply,
  type Checkout,
  install,
  makeCheckout,
  NAMESPACE,
  oneNodeAtATime,
  RANGES,
  type RoutingPod,
  routingPods,
  runAll,
  wayBack,
} from './product.ts';

// A change to Cilium that goes wrong: this version's programs, compiled by this clang, can't be loaded with the VPN's key,
// enable-sctp, and this setting. Without the key they can.

const CILIUM = { version: '1.20', clang: 19 } as const;
const SETTING = { 'monitor-aggregation': 'none' };
const FAILING = 'Cilium fails to regenerate endpoints of this node';
const MENDED = 'Cilium regenerates the endpoints of this node again';
/** To start a pod, while other pods' programs are compiled. */
const STARTED_MS = 120_000;
const ownTest = OWN ? test.serial : test.serial.skip;

let cluster: Cluster;
let checkout: Checkout;
let pods: TestPods;

test.before('a cluster', async (t) => {
  if (!OWN) return;
  t.timeout(30 * 60_000, 'Kubernetes, Cilium and the images may have to be built');
  cluster = await startCluster({ cilium: CILIUM, log: (line) => t.log(line) });
  checkout = await makeCheckout();
  await checkout.configure(cluster, { peerCIDRs: RANGES });
  pods = await createPods(cluster);
  const patch = `--patch=${JSON.stringify({ data: SETTING })}`;
  await inKubeSystem('patch', 'configmap', 'cilium-config', '--type=merge', patch);
  await inKubeSystem('rollout', 'restart', 'daemonset/cilium');
  await ciliumRolledOut(cluster.cilium, cluster.kubectl);
});
test.after.always(async () => {
  await cluster?.stop();
  await checkout?.remove();
});

const kubectl = (...args: string[]) => cluster.kubectl(['-n', NAMESPACE, ...args]);
const inKubeSystem = (...args: string[]) => cluster.kubectl(['-n', 'kube-system', ...args]);

/** Whether a new pod on a node gets a network, or is refused one. Throws where neither comes. */
async function startsPod(node: string): Promise<boolean> {
  const name = `new-${node}`;
  const inTest = (...args: string[]) => cluster.kubectl(['-n', 'vpn-test', ...args]);
  const spec = {
    nodeName: node,
    terminationGracePeriodSeconds: 0,
    tolerations: [{ operator: 'Exists' }],
    containers: [{ name: 'test', image: cluster.images.workload }],
  };
  const object = { apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace: 'vpn-test' }, spec };
  await cluster.kubectl(['apply', '-f', '-'], { input: JSON.stringify(object) });
  const uid = await inTest('get', 'pod', name, '-o', 'jsonpath={.metadata.uid}');
  const refusals = `--field-selector=involvedObject.uid=${uid},reason=FailedCreatePodSandBox`;
  let started: boolean | undefined;
  await until(`${name} starts, or is refused a network`, STARTED_MS, async () => {
    const ready = await inTest('get', 'pod', name, '-o', 'jsonpath={.status.conditions[?(@.type=="Ready")].status}');
    if (ready === 'True') started = true;
    else if ((await inTest('get', 'events', refusals, '-o', 'name')) !== '') started = false;
    return started !== undefined;
  });
  await inTest('delete', 'pod', name, '--force', '--grace-period=0');
  return started === true;
}

async function podsReachEachOther(): Promise<boolean> {
  const [one, two] = pods.pods;
  const results = [await ping(one!, two!.address, { count: 2 }), await ping(two!, one!.address, { count: 2 })];
  return results.every(({ received }) => received === 2);
}

/** The way back, until the nodes have said so many times that it is over. Answers the milliseconds. */
async function mend(nodes: readonly RoutingPod[], times: number): Promise<number> {
  await wayBack(cluster, checkout);
  return until('every node that failed says that it is over', 300_000, async () =>
    (await Promise.all(nodes.map(({ said }) => said(MENDED)))).every(({ length }) => length === times),
  );
}

ownTest('before the change pods have their network', async (t) => {
  t.timeout(3 * 60_000);
  t.true(await podsReachEachOther());
  for (const { name } of cluster.nodes) t.true(await startsPod(name));
});

ownTest('the change takes it away: routing says so on every node, in log, metric and Event, once', async (t) => {
  t.timeout(12 * 60_000);
  await install(cluster, checkout);
  await kubectl('rollout', 'status', 'daemonset/vpn-routing', '--timeout=120s');
  const nodes = await routingPods(cluster);
  t.is(nodes.length, cluster.nodes.length);
  const ms = await until('every node says it', 300_000, async () =>
    (await Promise.all(nodes.map(({ said }) => said(FAILING)))).every(({ length }) => length > 0),
  );
  t.log(`said on every node ${ms} ms after the apply`);
  for (const { name, said, metric } of nodes) {
    const [record] = await said(FAILING);
    t.log(JSON.stringify(record));
    t.is(record?.level, 'error');
    t.regex(String(record?.problem), /program .*: load program: /);
    t.true(((await metric('cilium_endpoints_failing')) ?? 0) > 0);
    const events = ['get', 'events', `--field-selector=involvedObject.name=${name},reason=CiliumEndpointsFailing`];
    await until('an Event of the pod', 10_000, async () =>
      (await kubectl(...events, '-o', 'jsonpath={.items[*].message}')).includes('load program'),
    );
    t.is((await kubectl(...events, '-o', 'name')).trim().split('\n').length, 1, name);
  }
  for (const { name } of cluster.nodes) t.false(await startsPod(name));
  await sleep(60_000);
  for (const { said } of nodes) t.is((await said(FAILING)).length, 1);
});

ownTest('the two commands of docs/routing.md bring it back, and routing says that it is over', async (t) => {
  t.timeout(12 * 60_000);
  const nodes = await routingPods(cluster);
  t.log(`over on every node ${await mend(nodes, 1)} ms after the two commands`);
  for (const { metric } of nodes) t.is(await metric('cilium_endpoints_failing'), 0);
  for (const { name } of cluster.nodes) t.true(await startsPod(name));
  await until('pods reach each other', 30_000, podsReachEachOther);
  const key = await inKubeSystem('get', 'configmap', 'cilium-config', '-o', 'jsonpath={.data.enable-sctp}');
  t.is(key, '');
});

ownTest('one node at a time, as docs/routing.md has it: the others stay well', async (t) => {
  t.timeout(12 * 60_000);
  const [first, second] = await routingPods(cluster);
  const { before, forNode } = await oneNodeAtATime();
  await runAll(cluster, checkout, [before]);
  await apply(cluster, checkout);
  await runAll(cluster, checkout, [forNode(first!.node)]);
  await until('the node says it', 240_000, async () => (await first!.said(FAILING)).length === 2);
  t.is((await second!.said(FAILING)).length, 1, 'the other node is as it was');
  t.false(await startsPod(first!.node));
  t.true(await startsPod(second!.node));
  t.log(`over ${await mend([first!], 2)} ms after the two commands`);
  t.true(await startsPod(first!.node));
  t.is((await second!.said(FAILING)).length, 1);
});
