import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { startPings } from '../dataplane/pings.ts';
import { fixture } from './default.ts';
import { connectSite, HOST, OWN, untilConnected } from './fixture.ts';
import { until } from './pods.ts';
import { apply, NAMESPACE, RANGES } from './product.ts';

// What administrators get wrong, and what a cluster says of it. Each test puts right again what it broke.

const kubectl = (...args: string[]) => fixture.cluster.kubectl(['-n', NAMESPACE, ...args]);
const frontendLog = () => kubectl('logs', 'vpn-frontend-0', '-c', 'frontend');
/** One that takes nodes that can be broken. */
const ownTest = OWN ? test.serial : test.serial.skip;
const METRICS = `/api/v1/namespaces/${NAMESPACE}/pods/vpn-frontend-0:9812/proxy/metrics`;
const WAITING =
  'jsonpath={.status.containerStatuses[*].state.waiting.reason} {.status.initContainerStatuses[*].state.waiting.reason}';

/** From the pods' log: the first line with a text that it did not have before. */
async function untilLogged(text: RegExp, before: string): Promise<string> {
  let line: string | undefined;
  await until(`the frontend logs ${text}`, 60_000, async () => {
    const added = (await frontendLog()).split('\n').slice(before.split('\n').length - 1);
    line = added.find((each) => text.test(each));
    return line !== undefined;
  });
  return line!;
}

test.serial('the gateway has another key: log and metric say who refused, and it heals by itself', async (t) => {
  const { cluster, psk } = fixture;
  const before = await frontendLog();
  await connectSite(cluster, 'not-the-key-of-the-secret');
  await cluster.site.stopCharon('SIGTERM');
  await cluster.site.startCharon();
  const line = await untilLogged(/"reason":"authentication"/, before);
  t.regex(line, /pre-shared key/i);
  t.regex(
    await cluster.kubectl(['get', '--raw', METRICS]),
    // The one who was dialed sees the other's proof first.
    OWN
      ? /negotiation_failures_total\{[^}]*side="theirs"[^}]*\} [1-9]/
      : /negotiation_failures_total\{[^}]*side="ours"[^}]*\} [1-9]/,
  );
  await connectSite(cluster, psk);
  t.log(`traffic ${await untilConnected(fixture, 60_000)} ms after the gateway got the right key`);
});

test.serial('the Secret is deleted: the tunnel stays', async (t) => {
  const { cluster, pods, psk } = fixture;
  const pings = startPings(cluster.onprem, pods.pods[0]!.address, { intervalMs: 50 });
  await kubectl('delete', 'secret', 'vpn-psk');
  await sleep(6000); // three of kubelet's rounds
  t.deepEqual((await pings.stop()).lost, []);
  t.is(
    await kubectl('get', 'pod', 'vpn-frontend-0', '-o', 'jsonpath={.status.containerStatuses[*].ready}'),
    'true true',
  );

  // A new pod waits for it, and the cluster says for what.
  await kubectl('delete', 'pod', 'vpn-frontend-0');
  await until('an event names the Secret', 60_000, async () =>
    /secret "vpn-psk" not found/.test(await kubectl('get', 'events', '-o', 'jsonpath={.items[*].message}')),
  );
  await kubectl('create', 'secret', 'generic', 'vpn-psk', `--from-literal=psk=${psk}`);
  t.log(`traffic ${await untilConnected(fixture, 180_000)} ms after the Secret was there again`);
});

test.serial('an image that can’t be pulled: the next apply with the right one mends it', async (t) => {
  const { cluster, checkout } = fixture;
  const images = { ...cluster.images, agents: 'localhost/constellation-vpn/agents:nowhere' };
  await checkout.configure(cluster, { peerCIDRs: RANGES, images });
  await apply(cluster, checkout);
  await until('the frontend’s image is not found', 120_000, async () =>
    /ErrImagePull|ImagePullBackOff/.test(await kubectl('get', 'pod', 'vpn-frontend-0', '-o', WAITING).catch(() => '')),
  );
  await checkout.configure(cluster, { peerCIDRs: RANGES });
  await apply(cluster, checkout);
  t.log(`traffic ${await untilConnected(fixture, 120_000)} ms after the right image`);
  // kubelet tells of it later than packets do.
  t.regex(await kubectl('rollout', 'status', 'statefulset/vpn-frontend', '--timeout=60s'), /complete/);
});

ownTest(
  'no endpoint route on the frontend’s node: routing names the setting, and takes it up when it is there',
  async (t) => {
    const [address = '', name = ''] = (
      await kubectl('get', 'pod', 'vpn-frontend-0', '-o', 'jsonpath={.status.podIP} {.spec.nodeName}')
    ).split(' ');
    const node = fixture.own.nodes.find((each) => each.name === name)!;
    const device = /dev (\S+)/.exec(await node.netns.exec('ip', 'route', 'show', address))![1]!;
    const pod = await kubectl(
      'get',
      'pods',
      '-l',
      'app.kubernetes.io/component=routing',
      `--field-selector=spec.nodeName=${name}`,
      '-o',
      'name',
    );
    const said = async () => (await kubectl('logs', pod)).split('enable-endpoint-routes').length;
    const before = await said();
    await node.netns.ip(`route delete ${address}`);
    await until('routing says what is missing', 90_000, async () => (await said()) > before);
    await node.netns.ip(`route add ${address} dev ${device} proto kernel scope link`);
    const ms = await untilConnected(fixture, 90_000);
    t.log(`traffic ${ms} ms after the route was there again`);
    // At the event, not at the next look in a minute.
    t.true(ms < 20_000);
  },
);

test.serial('the site is well after all of it', async (t) => {
  const { cluster, pods } = fixture;
  const pings = startPings(cluster.onprem, pods.pods[1]!.address, { intervalMs: 20 });
  await sleep(1000);
  t.deepEqual((await pings.stop()).lost, []);
  t.is(await pods.pods[0]!.start('ping', ['-c', '1', '-W', '2', HOST], {}).then(({ exitCode }) => exitCode), 0);
});
