/** A cluster with the VPN in it and a site that is connected, for the tests of a file, which must be serial. */
import type { TestFn } from 'ava';
import { ping } from '../dataplane/traffic.ts';
import { type Cluster, LOAD_BALANCER, POD_CIDR, SERVICE_CIDR, startCluster } from './cluster.ts';
import { createPods, type TestPods, until } from './pods.ts';
import { type Checkout, install, makeCheckout, RANGES } from './product.ts';
import { HOSTS, SITE_ADDRESS } from './site.ts';

export interface Fixture {
  cluster: Cluster;
  checkout: Checkout;
  pods: TestPods;
  /** Of the site's gateway, and of the Secret. */
  psk: string;
}

/** The on-prem host, in the first range. */
export const [HOST] = HOSTS;

/** `installed` (default): the VPN runs and packets go through. */
export function setUp(test: TestFn, { installed = true }: { installed?: boolean } = {}): Fixture {
  const fixture = {} as Fixture;
  test.before('a cluster', async (t) => {
    t.timeout(20 * 60_000, 'Kubernetes and the images may have to be built');
    const log = (line: string) => t.log(line);
    fixture.cluster = await startCluster({ log });
    fixture.checkout = await makeCheckout();
    fixture.pods = await createPods(fixture.cluster);
    await fixture.checkout.configure({ peerCIDRs: RANGES }, fixture.cluster.images);
    if (!installed) return;
    fixture.psk = (await install(fixture.cluster, fixture.checkout)).psk;
    await connectSite(fixture.cluster, fixture.psk);
    await untilConnected(fixture, 120_000);
  });
  test.after.always(async () => {
    await fixture.cluster?.stop();
    await fixture.checkout?.remove();
  });
  return fixture;
}

/** The other gateway, as docs/frontend.md says. */
export async function connectSite({ site }: Cluster, psk: string, ranges: readonly string[] = RANGES): Promise<void> {
  const clusterRanges = [POD_CIDR, SERVICE_CIDR];
  await site.load({ psk, localID: SITE_ADDRESS, remoteID: LOAD_BALANCER, ranges, clusterRanges });
}

/** Resolves with the milliseconds until pings from the site reach a pod on every node, one after the other. */
export function untilConnected({ cluster, pods }: Fixture, limitMs: number): Promise<number> {
  return until('pings from the site reach a pod on every node', limitMs, async () => {
    const results = await Promise.all(pods.pods.map((pod) => ping(cluster.onprem, pod.address, { count: 1 })));
    return results.every(({ received }) => received === 1);
  });
}
