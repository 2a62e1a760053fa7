/**
 * A cluster with the VPN in it and a site that is connected, for the tests of a file, which must be serial. One of its own, or
 * the one that $KUBECONFIG leads to.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext, TestFn } from 'ava';
import { ping } from '../dataplane/traffic.ts';
import { type AnyCluster, type Cluster, startCluster } from './cluster.ts';
import { joinCluster } from './existing.ts';
import { createPods, removePods, type TestPods, until } from './pods.ts';
import { type Checkout, install, makeCheckout, NAMESPACE, RANGES, uninstall } from './product.ts';
import { HOSTS, SITE_ADDRESS } from './site.ts';

export interface Fixture {
  cluster: AnyCluster;
  /** The same, where it is one of its own: with nodes and servers to be broken. Tests of OWN alone may use it. */
  own: Cluster;
  checkout: Checkout;
  pods: TestPods;
  /** Of the site's gateway, and of the Secret. */
  psk: string;
}

/** Whether the tests make their cluster. Those that break nodes and servers are left out otherwise. */
export const OWN = process.env.KUBECONFIG === undefined;
/** The on-prem host, in the first range. */
export const [HOST] = HOSTS;

/** The VPN is not installed yet. */
export function setUp(test: TestFn): Fixture {
  const fixture = {} as Fixture;
  test.before('a cluster', async (t) => {
    t.timeout(20 * 60_000, 'Kubernetes and the images may have to be built');
    fixture.cluster = OWN ? await startOwn(fixture, t) : await joinCluster(process.env);
    fixture.checkout = await makeCheckout();
    fixture.pods = await createPods(fixture.cluster);
    await fixture.checkout.configure(fixture.cluster, { peerCIDRs: RANGES });
  });
  test.afterEach.always(async (t) => {
    if (!t.passed && OWN && fixture.own !== undefined) for (const line of await lastWords(fixture.own)) t.log(line);
  });
  test.after.always(async (t) => {
    t.timeout(10 * 60_000);
    if (!OWN && fixture.checkout !== undefined) {
      await uninstall(fixture.cluster, fixture.checkout).catch((error: unknown) => t.log(error));
      await removePods(fixture.cluster);
    }
    await fixture.cluster?.stop();
    await fixture.checkout?.remove();
  });
  return fixture;
}

async function startOwn(fixture: Fixture, t: ExecutionContext): Promise<Cluster> {
  fixture.own = await startCluster({ log: (line) => t.log(line) });
  return fixture.own;
}

/** Installs the VPN by the README, connects the site, and waits until all is well. */
export async function installed(fixture: Fixture): Promise<void> {
  fixture.psk = (await install(fixture.cluster, fixture.checkout)).psk;
  await connectSite(fixture.cluster, fixture.psk);
  await settled(fixture);
}

/**
 * Resolves when Cilium's agents have started again and all pods of the VPN are ready, which is later than the first packet, and
 * packets go through.
 */
export async function settled(fixture: Fixture): Promise<void> {
  const { kubectl } = fixture.cluster;
  await kubectl(['-n', 'kube-system', 'rollout', 'status', 'daemonset/cilium', '--timeout=180s']);
  await rolledOut(fixture.cluster);
  await untilConnected(fixture, 120_000);
  // An agent programs the interfaces of pods anew after it is ready.
  const api = await kubectl(['get', 'service', 'kubernetes', '-o', 'jsonpath={.spec.clusterIP}']);
  const { onprem } = fixture.cluster;
  await until('the site reaches the API server’s Service', 240_000, async () => {
    const asked = await onprem.start('curl', ['-skm', '2', `https://${api}/healthz`], {});
    return asked.stdout === 'ok';
  });
}

/** Resolves when kubelet says of all pods of the VPN that they are ready. */
export async function rolledOut({ kubectl }: AnyCluster): Promise<void> {
  for (const object of ['daemonset/vpn-routing', 'deployment/vpn-endpoint-sync', 'statefulset/vpn-frontend'])
    await kubectl(['-n', NAMESPACE, 'rollout', 'status', object, '--timeout=120s']);
}

/** The ends of the logs, since a cluster's are gone with it. */
async function lastWords({ nodes, kubectl, site }: Cluster): Promise<string[]> {
  const files = [site.log, ...nodes.map(({ folder }) => join(folder, 'node.log'))];
  const tails = files.map(
    async (file) => `${file}:\n${(await readFile(file, 'utf8')).split('\n').slice(-15).join('\n')}`,
  );
  const pods = (await kubectl(['-n', NAMESPACE, 'get', 'pods', '-o', 'name']))
    .split('\n')
    .filter((name) => name !== '');
  const logs = pods.map((pod) =>
    kubectl(['-n', NAMESPACE, 'logs', pod, '--all-containers', '--prefix', '--tail=15']).catch(String),
  );
  const agents = kubectl(['-n', 'kube-system', 'logs', '-l', 'k8s-app=cilium', '--prefix', '--tail=15']).catch(String);
  return Promise.all([...tails, ...logs, agents, kubectl(['get', 'pods', '-A', '-o', 'wide'])]);
}

/** Configures the other gateway, as docs/frontend.md says. */
export async function connectSite(
  { site, peer, podCIDRs, serviceCIDRs }: AnyCluster,
  psk: string,
  ranges: readonly string[] = RANGES,
  localID: string = SITE_ADDRESS,
): Promise<void> {
  let dial = await peer.dial();
  if (dial === '')
    await until('the load balancer has an address', 300_000, async () => (dial = await peer.dial()) !== '');
  const gateway = {
    psk,
    localID,
    remoteID: peer.id,
    ranges,
    clusterRanges: [...podCIDRs, ...serviceCIDRs],
  };
  await site.load({ ...gateway, ...(dial === undefined ? {} : { dial }) });
}

/** Resolves with the milliseconds until pings from the site reach a pod on every node, one after the other. */
export function untilConnected({ cluster, pods }: Pick<Fixture, 'cluster' | 'pods'>, limitMs: number): Promise<number> {
  return until('pings from the site reach a pod on every node', limitMs, async () => {
    const results = await Promise.all(pods.pods.map((pod) => ping(cluster.onprem, pod.address, { count: 1 })));
    return results.every(({ received }) => received === 1);
  });
}
