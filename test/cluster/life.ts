import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { capture, ping } from '../dataplane/traffic.ts';
import { startPings } from '../dataplane/pings.ts';
import { fixture } from './default.ts';
import { connectSite, HOST, OWN, untilConnected } from './fixture.ts';
import type { ClusterNode } from './node.ts';
import { listPods, until } from './pods.ts';
import { apply, NAMESPACE, RANGES } from './product.ts';
import { HOSTS, RANGES as ALL_RANGES } from './site.ts';

// What happens to a cluster in its life, each under pings from the site to a pod that is not on the frontend's node. What is
// logged are the figures of docs/benchmarks.md.

const INTERVAL_MS = 20;
const FEW = 2;

interface Limits {
  /** Between two answers. */
  readonly gapMs?: number;
  /** Whether packets are lost. Otherwise at most FEW of hundreds, where two clusters share two cores; usually none. */
  readonly lost?: boolean;
  /** What an agent may call an error, since something is away that it needs. Otherwise none logs any. */
  readonly errors?: RegExp;
}

type Declare = (title: string, run: (t: ExecutionContext) => Promise<void>) => void;

/** `act` resolves when all that it leads to has happened. */
function event(title: string, limits: Limits, act: () => Promise<void>, declare: Declare = test.serial): void {
  const { gapMs = 3000, lost = false, errors = /^$/ } = limits;
  declare(title, async (t) => {
    t.timeout(5 * 60_000);
    const { cluster } = fixture;
    const frontend = await frontendNodeName();
    // As they are now: those of a node that crashed have other addresses.
    const target = (await listPods(cluster, 'pod')).find(({ node }) => node !== frontend)!;
    const since = new Date().toISOString();
    const pings = startPings(cluster.onprem, target.address, { intervalMs: INTERVAL_MS });
    await pings.next(10_000);
    await act();
    await pings.next(60_000);
    await sleep(1000);
    const report = await pings.stop();
    t.log(`longest gap ${report.longestGapMs} ms, ${report.lost.length} of ${report.sent} packets lost`);
    const lines = await errorLines(since);
    for (const line of lines) t.log(line);
    t.deepEqual(
      lines.filter((line) => !errors.test(line)),
      [],
      'lines of level error',
    );
    t.true(report.longestGapMs <= gapMs, `${report.longestGapMs} ms`);
    if (!lost) t.true(report.lost.length <= FEW, String(report.lost));
  });
}

/** One that takes nodes or servers that can be broken. */
const ownEvent = (title: string, limits: Limits, act: () => Promise<void>): void =>
  event(title, limits, act, OWN ? test.serial : test.serial.skip);

const frontendNodeName = () => kubectl('get', 'pod', 'vpn-frontend-0', '-o', 'jsonpath={.spec.nodeName}');

async function frontendNode(): Promise<ClusterNode> {
  const name = await frontendNodeName();
  return fixture.own.nodes.find((node) => node.name === name)!;
}

/** Lines of level error of all containers that run now, and of those that ran there before. Not of pods that are gone. */
async function errorLines(since: string): Promise<string[]> {
  const pods = (await kubectl('get', 'pods', '-o', 'name')).trim().split('\n');
  const logs = await Promise.all(
    pods.flatMap((pod) => [logOf(pod, since), kubectl('logs', pod, ...SINCE(since), '--previous').catch(() => '')]),
  );
  return logs.flatMap((text) => text.split('\n').filter((line) => line.includes('"level":"error"')));
}
const SINCE = (since: string) => ['--all-containers', `--since-time=${since}`];

/** A node that has just started can't be asked for a moment. */
async function logOf(pod: string, since: string): Promise<string> {
  let log: string | undefined;
  await until(`the log of ${pod} is read`, 60_000, async () => {
    log = await kubectl('logs', pod, ...SINCE(since)).catch((error: unknown) =>
      GONE.test(String(error)) ? '' : undefined,
    );
    return log !== undefined;
  });
  return log ?? '';
}
const GONE = /NotFound|not found/;

const kubectl = (...args: string[]) => fixture.cluster.kubectl(['-n', NAMESPACE, ...args]);
const rolledOut = (object: string) => kubectl('rollout', 'status', object, '--timeout=120s');
const restartsOf = (selector: string) =>
  kubectl('get', 'pods', '-l', `app.kubernetes.io/component=${selector}`, '-o', RESTARTS);
const RESTARTS = 'jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[*].restartCount}{"\\n"}{end}';
const READY = 'jsonpath={.items[*].status.containerStatuses[*].ready}';

/** Kills a program on a node with -9, and waits until kubelet has started it again and it is ready. */
async function killAgent(node: ClusterNode, component: string, program: RegExp): Promise<void> {
  const before = await restartsOf(component);
  const pids = await node.pids(program);
  if (pids.length !== 1) throw new Error(`${pids.length} processes match ${program} on ${node.name}`);
  process.kill(pids[0]!, 'SIGKILL');
  await until(`${component} is restarted`, 60_000, async () => (await restartsOf(component)) !== before);
  await ready(component);
}

const ready = (component: string): Promise<number> =>
  until(`${component} is ready`, 60_000, async () => {
    const states = await kubectl('get', 'pods', '-l', `app.kubernetes.io/component=${component}`, '-o', READY);
    return states !== '' && !states.includes('false');
  });

const ROUTING = /constellation-vpn\/routing\.mjs/;

event('a range is added and taken out again', {}, async () => {
  const { cluster, checkout, pods, psk } = fixture;
  const [from, host] = [pods.pods[0]!, HOSTS[2]];
  await connectSite(cluster, psk, ALL_RANGES);
  await checkout.configure(cluster, { peerCIDRs: ALL_RANGES });
  await apply(cluster, checkout);
  await until('the new range is reached', 90_000, async () => (await ping(from, host, { count: 1 })).received === 1);
  await checkout.configure(cluster, { peerCIDRs: RANGES });
  await apply(cluster, checkout);
  await until('the range is gone', 90_000, async () => (await ping(from, host, { count: 1 })).received === 0);
  await until('nobody lists it', 10_000, async () => !(await places()).includes(ALL_RANGES[2]));
});

/** Where ranges are: in the CiliumEndpoint and, of nodes that can be looked at, in their routes. */
async function places(): Promise<string> {
  const nodes = OWN ? fixture.own.nodes : [];
  const routes = await Promise.all(nodes.map((node) => node.exec('ip', 'route', 'show', 'proto', '233')));
  return [await addressing(), ...routes].join('\n');
}
const addressing = () =>
  kubectl(
    'get',
    'ciliumendpoint',
    'vpn-frontend-0',
    '-o',
    'jsonpath={.metadata.resourceVersion} {.status.networking.addressing}',
  );

event('the key is changed on both sides', {}, async () => {
  const { cluster } = fixture;
  const psk = 'another-key-that-both-sides-have-now';
  const loads = async () =>
    (await kubectl('logs', 'vpn-frontend-0', '-c', 'frontend')).split('credentials loaded').length;
  const before = await loads();
  await kubectl('patch', 'secret', 'vpn-psk', '-p', JSON.stringify({ stringData: { psk } }));
  await until('the new key is loaded', 90_000, async () => (await loads()) > before);
  await connectSite(cluster, psk);
  fixture.psk = psk;
});

event('with the new key the gateway starts again', { gapMs: 10_000, lost: true }, async () => {
  const { site } = fixture.cluster;
  await site.stopCharon('SIGTERM');
  await site.startCharon();
});

event('routing and endpoint-sync are rolled out again', {}, async () => {
  await kubectl('rollout', 'restart', 'daemonset/vpn-routing', 'deployment/vpn-endpoint-sync');
  await rolledOut('daemonset/vpn-routing');
  await rolledOut('deployment/vpn-endpoint-sync');
});

ownEvent('routing is killed on both nodes', {}, async () => {
  for (const node of fixture.own.nodes) await killAgent(node, 'routing', ROUTING);
});

ownEvent('endpoint-sync is killed', {}, async () => {
  const nodeName = await kubectl(
    'get',
    'pods',
    '-l',
    'app.kubernetes.io/component=endpoint-sync',
    '-o',
    'jsonpath={.items[0].spec.nodeName}',
  );
  const node = fixture.own.nodes.find(({ name }) => name === nodeName)!;
  await killAgent(node, 'endpoint-sync', /constellation-vpn\/endpoint-sync\.mjs/);
});

ownEvent('the agent frontend is killed', {}, async () => {
  await killAgent(await frontendNode(), 'frontend', /constellation-vpn\/frontend\.mjs/);
});

ownEvent('charon is killed, and nothing leaves the pod in clear', { gapMs: 5000, lost: true }, async () => {
  const node = await frontendNode();
  const address = await kubectl('get', 'pod', 'vpn-frontend-0', '-o', 'jsonpath={.status.podIP}');
  const device = /dev (\S+)/.exec(await node.exec('ip', 'route', 'show', address))![1]!;
  const clear = await capture(node.netns, device, `dst net ${RANGES[0]}`, { direction: 'in' });
  const toSite = fixture.pods.pods.map((pod) => pod.start('ping', ['-i', '0.1', '-w', '6', HOST], {}));
  await killAgent(node, 'frontend', /charon-systemd/);
  await Promise.all(toSite);
  const packets = await clear.stop();
  if (packets.length > 0) throw new Error(`in clear: ${packets.join('\n')}`);
});

ownEvent('kubelet and containerd are killed on both nodes', {}, async () => {
  const killed = new Set<number>();
  for (const node of fixture.own.nodes) {
    for (const program of PROGRAMS) {
      const [pid] = await node.pids(program);
      killed.add(pid!);
      process.kill(pid!, 'SIGKILL');
    }
  }
  for (const node of fixture.own.nodes)
    for (const program of PROGRAMS)
      await until(`${program} runs on ${node.name}`, 60_000, async () => {
        const pids = await node.pids(program);
        return pids.length === 1 && !killed.has(pids[0]!);
      });
  // A lease that is renewed: kubelet works again.
  const since = new Date().toISOString();
  await until('kubelets work', 60_000, async () => {
    const renewed = await fixture.cluster.kubectl(['-n', 'kube-node-lease', 'get', 'leases', '-o', RENEWED]);
    return renewed
      .trim()
      .split(' ')
      .every((time) => time > since);
  });
  for (const component of ['routing', 'endpoint-sync', 'frontend']) await ready(component);
});
const PROGRAMS = [/\/kubelet\S* --config/, /\/containerd\S* --config/];
const RENEWED = 'jsonpath={.items[*].spec.renewTime}';

ownEvent('Cilium’s agent is killed on the other node', {}, async () => {
  const frontend = await frontendNode();
  await restartCilium(fixture.own.nodes.find((node) => node !== frontend)!);
});

ownEvent('Cilium’s agent is killed on the frontend’s node', { gapMs: 5000, lost: true }, async () => {
  await restartCilium(await frontendNode());
});

const CILIUM_AWAY =
  /source-check.*(nobody listens on the socket|there is no such socket|knows no endpoint with the address)/;
ownEvent(
  'Cilium’s agents are killed on both nodes at once',
  { gapMs: 10_000, lost: true, errors: CILIUM_AWAY },
  async () => {
    await restartCilium(...fixture.own.nodes);
  },
);

event('the CiliumEndpoint is overwritten', { gapMs: 3000, lost: true }, async () => {
  const address = await kubectl('get', 'pod', 'vpn-frontend-0', '-o', 'jsonpath={.status.podIP}');
  const patch = [{ op: 'replace', path: '/status/networking/addressing', value: [{ ipv4: address }] }];
  for (let round = 0; round < 10; round += 1) {
    await kubectl('patch', 'ciliumendpoint', 'vpn-frontend-0', '--type=json', '-p', JSON.stringify(patch));
    await sleep(200);
  }
});

ownEvent('the API server is started again', {}, async () => {
  const { servers } = fixture.own;
  await servers.stopServer('kube-apiserver');
  await sleep(2000);
  await servers.startServer('kube-apiserver');
  for (const component of ['routing', 'endpoint-sync', 'frontend']) await ready(component);
  await operatorWorks();
});

/** The next operator waits for the lease of one that is evicted or crashes, and nodes learn nothing meanwhile: another event. */
async function moveOperatorFrom(node: string): Promise<void> {
  if (!OWN) return;
  const { kubectl: inCluster } = fixture.cluster;
  const operator = [
    '-n',
    'kube-system',
    'get',
    'pods',
    '-l',
    'io.cilium/app=operator',
    '-o',
    'jsonpath={.items[*].spec.nodeName}',
  ];
  if ((await inCluster(operator)) !== node) return;
  await inCluster(['cordon', node]);
  await inCluster(['-n', 'kube-system', 'delete', 'pods', '-l', 'io.cilium/app=operator']);
  await inCluster(['-n', 'kube-system', 'rollout', 'status', 'deployment/cilium-operator', '--timeout=120s']);
  await operatorWorks();
  await inCluster(['uncordon', node]);
}

/** Cilium's operator holds its lease from now on, and renews it. Without the API server it ends itself. */
async function operatorWorks(): Promise<void> {
  const lease = [
    '-n',
    'kube-system',
    'get',
    'lease',
    'cilium-operator-resource-lock',
    '-o',
    'jsonpath={.spec.renewTime}',
  ];
  const since = new Date().toISOString();
  await until('cilium-operator works', 120_000, async () => (await fixture.cluster.kubectl(lease)) > since);
}

ownEvent('etcd is away for 20 s', {}, async () => {
  const { servers } = fixture.own;
  await servers.stopServer('etcd', 'SIGKILL');
  await sleep(20_000);
  await servers.startServer('etcd');
  await until('the API server answers', 60_000, async () => (await kubectl('get', 'pods').catch(() => '')) !== '');
  for (const component of ['routing', 'endpoint-sync', 'frontend']) await ready(component);
  await operatorWorks();
});

event('the frontend’s pod is deleted', { gapMs: 20_000, lost: true }, async () => {
  await kubectl('delete', 'pod', 'vpn-frontend-0');
  await rolledOut('statefulset/vpn-frontend');
});

event('the frontend’s node is drained', { gapMs: 20_000, lost: true }, async () => {
  const node = await frontendNodeName();
  await moveOperatorFrom(node);
  await fixture.cluster.kubectl(['drain', node, '--ignore-daemonsets', '--force', '--delete-emptydir-data']);
  await rolledOut('statefulset/vpn-frontend');
  await fixture.cluster.kubectl(['uncordon', node]);
});

// The nodes learn from CiliumEndpointSlices, which only the operator writes.
ownEvent(
  'cilium-operator is away for 60 s while the frontend moves',
  { gapMs: 150_000, lost: true, errors: /cilium-operator.*Cilium does not know yet where this range is/ },
  async () => {
    const scaleOperator = (replicas: number) =>
      fixture.cluster.kubectl(['-n', 'kube-system', 'scale', 'deployment/cilium-operator', `--replicas=${replicas}`]);
    const old = await frontendNodeName();
    const since = new Date().toISOString();
    const named = async () => (await errorLines(since)).filter((line) => line.includes('cilium-operator')).length;
    try {
      await scaleOperator(0);
      const gone = ['wait', '--for=delete', 'pod', '-l', 'io.cilium/app=operator', '--timeout=60s'];
      await fixture.cluster.kubectl(['-n', 'kube-system', ...gone]);
      const back = sleep(60_000);
      await fixture.cluster.kubectl(['cordon', old]);
      await kubectl('delete', 'pod', 'vpn-frontend-0');
      await rolledOut('statefulset/vpn-frontend');
      await until('routing names the operator', 50_000, async () => (await named()) > 0);
      await back;
    } finally {
      await fixture.cluster.kubectl(['uncordon', old]);
      await scaleOperator(1);
    }
    await operatorWorks();
    await untilConnected(fixture, 150_000);
    if ((await named()) !== 1) throw new Error(`the operator is named ${await named()} times, not once`);
  },
);

// The pod keeps its uid, but not its address nor its interface.
const BOOTS = /there is no such socket/;
ownEvent('the frontend’s node crashes and starts again', { gapMs: 60_000, lost: true, errors: BOOTS }, async () => {
  const node = await frontendNode();
  await moveOperatorFrom(node.name);
  const uid = await uidOfFrontend();
  await node.crash();
  await node.start();
  await until('the frontend runs again', 60_000, async () => (await node.pids(/charon-systemd/)).length === 1);
  if ((await uidOfFrontend()) !== uid) throw new Error('the pod is another one');
});
const uidOfFrontend = () => kubectl('get', 'pod', 'vpn-frontend-0', '-o', 'jsonpath={.metadata.uid}');

ownEvent('all images are replaced', { gapMs: 20_000, lost: true }, async () => {
  const { own, checkout } = fixture;
  await checkout.configure(own, { peerCIDRs: RANGES, images: own.images.next });
  await apply(own, checkout);
  for (const object of ['statefulset/vpn-frontend', 'deployment/vpn-endpoint-sync', 'daemonset/vpn-routing'])
    await rolledOut(object);
});

// examples/user-namespaces: charon is the one program that strangers speak to.
for (const [title, components, inNamespace] of [
  ['the pods get user namespaces', ['../../examples/user-namespaces'], true],
  ['the pods are without user namespaces again', [], false],
] as const)
  ownEvent(title, { gapMs: 20_000, lost: true }, async () => {
    const { own, checkout } = fixture;
    await checkout.configure(own, { peerCIDRs: RANGES, components });
    await apply(own, checkout);
    for (const object of ['statefulset/vpn-frontend', 'deployment/vpn-endpoint-sync']) await rolledOut(object);
    for (const program of [/charon-systemd/, /constellation-vpn\/endpoint-sync\.mjs/])
      await until(`${program} is ${inNamespace ? 'nobody' : 'somebody'} on its node`, 60_000, async () => {
        const maps = await uidMaps(program);
        return maps.length === 1 && /^ *0 +0 /.test(maps[0]!) !== inNamespace;
      });
  });

/** Of each process of a program on any node, which of the machine's users its user 0 is. */
async function uidMaps(program: RegExp): Promise<string[]> {
  const pids = await Promise.all(fixture.own.nodes.map((node) => node.pids(program)));
  return Promise.all(pids.flat().map((pid) => readFile(`/proc/${pid}/uid_map`, 'utf8').catch(() => '')));
}

test.serial('after all of it pods on every node reach the site, and the other way round', async (t) => {
  const { cluster } = fixture;
  for (const pod of await listPods(cluster, 'pod')) {
    t.like(await ping(pod, HOST), { sent: 3, received: 3 }, pod.node);
    t.like(await ping(cluster.onprem, pod.address), { sent: 3, received: 3 }, pod.node);
  }
});

/** Kills it with -9; kubelet starts another one, which overwrites all of its node's CiliumEndpoints. */
async function restartCilium(...nodes: ClusterNode[]): Promise<void> {
  const before = await addressing();
  const killed = await Promise.all(nodes.map(async (node) => (await node.pids(AGENT))[0]!));
  for (const pid of killed) process.kill(pid, 'SIGKILL');
  for (const [index, node] of nodes.entries())
    await until(`another agent runs on ${node.name}`, 60_000, async () => {
      const [other] = await node.pids(AGENT);
      return other !== undefined && other !== killed[index];
    });
  await fixture.cluster.kubectl(['-n', 'kube-system', 'rollout', 'status', 'daemonset/cilium', '--timeout=120s']);
  if (!nodes.includes(await frontendNode())) return;
  await until('the CiliumEndpoint is overwritten and put right', 60_000, async () => {
    const now = await addressing();
    return now.split(' ')[0] !== before.split(' ')[0] && RANGES.every((range) => now.includes(range));
  });
}
const AGENT = /^cilium-agent --config-dir/;
