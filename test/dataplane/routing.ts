/**
 * The agent `routing` on the nodes of a world, with the user and capabilities of the rendered manifests, the rendered
 * ServiceAccount at a real API server, and a stand-in for Cilium's API on each node.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { ExecutionContext, TestFn } from 'ava';
import { agentBundle, ConfigVolume, samplesOf, until, type LogRecord } from '../api/agent.ts';
import { createConfigMap, createPod, NAMESPACE, removeAll } from '../api/cilium.ts';
import { renderVpn, type Rendered, type SiteInput } from '../api/rendered.ts';
import { NODE_FLAGS } from '../../scripts/build-agents.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { CiliumAPI } from '../fakes/cilium-api.ts';
import type { Netns } from './netns.ts';
import { startRelay, type Relay } from './relay.ts';
import { createWorld, type World } from './world.ts';

export const SITE = { name: 'berlin', peerCIDRs: ['192.168.50.0/24', 'fd12:3456::/48'], mtu: 1300 } satisfies SiteInput;
export const POD = {
  name: 'vpn-frontend-berlin-0',
  site: 'berlin',
  ips: ['10.10.0.5', 'fd00:10::5'],
  node: 'node-a',
  hostIP: '192.0.2.10',
};
/** Our routes' protocol. */
export const PROTO = 233;
/** That the manifests name. */
const PORT = 9810;

export interface Fixture {
  cluster: ControlPlane;
  rendered: Rendered;
  kubeconfig: string;
}

/** One control plane for the tests of a file, which must be serial. */
export function setUp(test: TestFn): Fixture {
  const fixture = {} as Fixture;
  test.before(async (t) => {
    t.timeout(20 * 60_000, 'kube-apiserver and etcd may have to be built');
    Object.assign(fixture, await startFixture());
  });
  test.after.always(async () => fixture.cluster?.stop());
  return fixture;
}

export async function startFixture(): Promise<Fixture> {
  const cluster = await startControlPlane();
  const rendered = await renderVpn([SITE]);
  await cluster.apply(rendered.accounts);
  const tokenFile = join(cluster.folder, 'routing.token');
  await writeFile(tokenFile, await cluster.token(NAMESPACE, 'vpn-routing', 86_400));
  return { cluster, rendered, kubeconfig: await cluster.kubeconfig('routing', tokenFile) };
}

export type NodeName = 'nodeA' | 'nodeB';

/** A node's surroundings of the agent. */
export interface Node {
  readonly netns: Netns;
  readonly cilium: CiliumAPI;
  readonly relay: Relay;
}

export interface Site {
  readonly world: World;
  readonly nodeA: Node;
  readonly nodeB: Node;
  readonly volume: ConfigVolume;
  start(node: NodeName, how?: How): Promise<Routing>;
  init(...args: string[]): Promise<Run>;
  cleanup(node: NodeName, how?: How): Promise<Run>;
}

/** What a process gets instead of what the manifests give it. */
export interface How {
  /** As `securityOf` makes them. */
  readonly security?: readonly string[];
  /** To put another `ip` before the machine's. */
  readonly env?: Record<string, string>;
}

/** A world with the frontend's pod known to the API server and Cilium. All is gone after the test. */
export async function createSite(
  t: Pick<ExecutionContext, 'teardown'>,
  fixture: Fixture,
  ciliumConfig = CILIUM_CONFIG,
): Promise<Site> {
  const { cluster, rendered } = fixture;
  const world = await createWorld();
  const volume = await ConfigVolume.create(rendered.config);
  t.teardown(async () => {
    await world.remove();
    await volume.remove();
    await removeAll(cluster);
  });
  const port = Number(new URL(cluster.server).port);
  const node = async (name: NodeName): Promise<Node> => {
    const folder = join(world.folder, `cilium-${name}`);
    await mkdir(folder);
    const cilium = await CiliumAPI.start(folder);
    t.teardown(() => cilium.stop());
    const relay = await startRelay(world[name], port);
    t.teardown(() => relay.stop());
    return { netns: world[name], cilium, relay };
  };
  const [nodeA, nodeB] = [await node('nodeA'), await node('nodeB')];
  nodeA.cilium.add({ id: 17, ipv4: '10.10.0.5', ipv6: 'fd00:10::5' });
  const known = [...SITE.peerCIDRs, '10.10.0.5/32', 'fd00:10::5/128'];
  for (const { cilium } of [nodeA, nodeB]) for (const cidr of known) cilium.ipcache.set(cidr, STEERED);
  await createConfigMap(cluster, 'cilium-config', ciliumConfig);
  await createPod(cluster, POD);
  const nodes = { nodeA, nodeB };
  const names = { nodeA: 'node-a', nodeB: 'node-b' };
  return {
    world,
    nodeA,
    nodeB,
    volume,
    start: (name, how) => startRouting(fixture, { ...nodes[name], name: names[name], volume }, how),
    init: (...args) => {
      const options = `--config ${volume.file} --pod-ip 10.10.0.5 --host-ip 192.0.2.10 --site berlin --sysctl-folder /proc/sys/net`;
      const security = securityOf(rendered, 'StatefulSet', 'routing-init');
      return runToEnd(world.frontend, security, ['init', ...options.split(' '), ...args]);
    },
    cleanup: (name, { security = securityOf(rendered, 'DaemonSet', 'routing'), env } = {}) =>
      runToEnd(world[name], security, ['cleanup'], env),
  };
}

/** What Helm's values routingMode=tunnel and endpointRoutes.enabled=true make. */
export const CILIUM_CONFIG = { 'routing-mode': 'tunnel', 'enable-endpoint-routes': 'true' };
/** As Cilium's agents see what a CiliumEndpoint lists: the pod's addresses, and ranges. */
export const STEERED = {
  hostIP: '192.0.2.10',
  identity: 40_000,
  metadata: { name: POD.name, namespace: NAMESPACE, source: 'custom-resource' },
};

interface Container {
  readonly name: string;
  readonly securityContext?: {
    readonly runAsUser?: number;
    readonly allowPrivilegeEscalation?: boolean;
    readonly capabilities?: { readonly drop?: readonly string[]; readonly add?: readonly string[] };
  };
}
interface Workload {
  readonly kind: string;
  readonly spec: {
    readonly template: { readonly spec: Record<'containers' | 'initContainers', Container[] | undefined> };
  };
}

/** `setpriv` arguments that give a process what the securityContext of a container gives it. */
export function securityOf({ items }: Rendered, kind: string, container: string): string[] {
  const { runAsUser, allowPrivilegeEscalation, capabilities } = contextOf(
    items as unknown as Workload[],
    kind,
    container,
  );
  if (allowPrivilegeEscalation !== false || capabilities?.drop?.join() !== 'ALL' || runAsUser === undefined)
    throw new Error(`${container} keeps capabilities, may gain some or names no user`);
  const added = (capabilities.add ?? []).map((name) => `+${name.toLowerCase()}`);
  return [
    ...`--no-new-privs --reuid ${runAsUser} --regid ${runAsUser} --clear-groups --inh-caps=-all`.split(' '),
    `--bounding-set=${['-all', ...added].join(',')}`,
  ];
}

function contextOf(
  items: readonly Workload[],
  kind: string,
  container: string,
): NonNullable<Container['securityContext']> {
  const containers = items
    .filter((item) => item.kind === kind)
    .flatMap(({ spec: { template } }) => [template.spec.containers, template.spec.initContainers])
    .flatMap((list) => list ?? []);
  return containers.find(({ name }) => name === container)?.securityContext ?? {};
}

export interface Routing {
  readonly pid: number;
  readonly log: LogRecord[];
  /** Records of level error. */
  errors(): LogRecord[];
  /** The samples of a metric, by their labels as written. */
  metric(name: string): Promise<Record<string, number>>;
  get(path: string): Promise<{ status: number; text: string }>;
  stop(signal?: NodeJS.Signals): Promise<number | undefined>;
}

async function startRouting(
  { rendered, kubeconfig }: Fixture,
  { netns, cilium, name, volume }: Node & { name: string; volume: ConfigVolume },
  { security = securityOf(rendered, 'DaemonSet', 'routing'), env }: How = {},
): Promise<Routing> {
  const options = `--kubeconfig ${kubeconfig} --namespace ${NAMESPACE} --node ${name} --config ${volume.file}`;
  const args = [...options.split(' '), '--cilium-folder', dirname(cilium.socket)];
  return startAgentIn(netns, security, args, env);
}

/** Resolves when its HTTP server listens. `env`: to put another `ip` before the machine's. */
export async function startAgentIn(
  netns: Netns,
  security: readonly string[],
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<Routing> {
  const agent = await startProcess(netns, security, args, env);
  await until(() => agent.log.some(({ msg }) => msg === 'started'), 'routing to start');
  return agent;
}

/** The same of a command that says nothing when it listens. */
export async function startProcess(
  netns: Netns,
  security: readonly string[],
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<Routing> {
  const command = [...security, process.execPath, ...NODE_FLAGS, await agentBundle('routing'), ...args];
  const child = netns.start('setpriv', command, { buffer: false, stderr: 'inherit', stdout: 'pipe', env });
  const log: LogRecord[] = [];
  createInterface(child.stdout).on('line', (line) => log.push(JSON.parse(line) as LogRecord));
  const get = async (path: string): Promise<{ status: number; text: string }> => {
    const port = Number(log.find(({ msg }) => msg === 'started')?.port ?? PORT);
    const url = `http://127.0.0.1:${port}${path}`;
    const text = await netns.exec('curl', '-s', '-w', '\n%{http_code}', url);
    const end = text.lastIndexOf('\n');
    return { status: Number(text.slice(end + 1)), text: text.slice(0, end) };
  };
  return {
    pid: child.pid ?? 0,
    log,
    errors: () => log.filter(({ level }) => level === 'error'),
    metric: async (name) => samplesOf((await get('/metrics')).text, name),
    get,
    async stop(signal = 'SIGTERM') {
      child.kill(signal);
      return (await child).exitCode;
    },
  };
}

export interface Run {
  readonly exitCode: number | undefined;
  readonly log: LogRecord[];
  readonly stderr: string;
}

/** A command of the agent's that ends by itself. */
export async function runToEnd(
  netns: Netns,
  security: readonly string[],
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<Run> {
  const command = [...security, process.execPath, ...NODE_FLAGS, await agentBundle('routing'), ...args];
  const { exitCode, stdout, stderr } = await netns.start('setpriv', command, { env, timeout: 60_000 });
  const lines = stdout.split('\n').filter((line) => line !== '');
  return { exitCode, log: lines.map((line) => JSON.parse(line) as LogRecord), stderr };
}

/** Routes of ours in a namespace, as `ip route` prints them, sorted. */
export async function ourRoutes(netns: Netns): Promise<string[]> {
  const list = async (family: string) =>
    (await netns.exec('ip', family, 'route', 'show', 'table', 'main', 'proto', String(PROTO))).split('\n');
  return [...(await list('-4')), ...(await list('-6'))].map((line) => line.trim()).filter((line) => line !== '');
}
