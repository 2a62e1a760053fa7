import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { type Cluster, startCluster } from './cluster.ts';
import { OWN } from './fixture.ts';
import { until } from './pods.ts';
import { type Checkout, makeCheckout, NAMESPACE, RANGES } from './product.ts';

// The VPN in a cluster whose network is not Cilium.

let cluster: Cluster;
let checkout: Checkout;

test.before('a cluster', async (t) => {
  if (!OWN) return;
  t.timeout(20 * 60_000, 'Kubernetes and the images may have to be built');
  cluster = await startCluster({ nodes: 1, cilium: false, log: (line) => t.log(line) });
  checkout = await makeCheckout();
});
test.after.always(async () => {
  await cluster?.stop();
  await checkout?.remove();
});

const kubectl = (...args: string[]) => cluster.kubectl(['-n', NAMESPACE, ...args]);
const RESTARTS =
  'jsonpath={range .items[*]}{.status.initContainerStatuses[*].restartCount} {.status.containerStatuses[*].restartCount} {end}';

(OWN ? test.serial : test.serial.skip)('agents say what they miss, and nothing crashes in a loop', async (t) => {
  t.timeout(3 * 60_000);
  await checkout.configure(cluster, { peerCIDRs: RANGES });
  await cluster.kubectl(['apply', '--server-side', '-f', '-'], { input: await checkout.build('overlays/mine') });
  await kubectl('create', 'secret', 'generic', 'vpn-psk', '--from-literal=psk=a-key-that-is-long-enough-for-a-test');
  const logs = (what: string, ...args: string[]) => kubectl('logs', what, ...args).catch(() => '');
  await until('each says it', 90_000, async () => {
    const said = await Promise.all([
      logs('daemonset/vpn-routing'),
      logs('deployment/vpn-endpoint-sync'),
      logs('vpn-frontend-0', '-c', 'routing-init'),
    ]);
    return said.every((text) => /cilium/i.test(text));
  });
  await sleep(10_000);
  const restarts = await kubectl('get', 'pods', '-o', RESTARTS);
  t.regex(restarts, /\d/);
  t.deepEqual(
    restarts.split(' ').filter((count) => count !== '' && count !== '0'),
    [],
  );
  t.log(await logs('daemonset/vpn-routing'));
  t.log(await logs('deployment/vpn-endpoint-sync'));
  t.log(await logs('vpn-frontend-0', '-c', 'routing-init'));
});
