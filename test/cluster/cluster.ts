/**
 * A real Kubernetes cluster on this machine, without virtualisation: etcd, API server, controllers and kubelets with
 * containerd, each node in namespaces of its own, and Cilium (cilium.ts). In place of a cloud there is a router with a load
 * balancer, and behind NAT an on-prem site with a strongSwan gateway.
 *
 *   n1 10.77.0.11, pods 10.244.1.0/24, with the control plane       n2 10.77.0.12, pods 10.244.2.0/24
 *    +----------------- wire: br0 10.77.0.1/24 -------------------------+
 *                       load balancer 203.0.113.20, masquerades as 198.51.100.1
 *                        |
 *                       nat 198.51.100.7 ---- gateway 192.168.1.2 ---- onprem 172.31.50.9, 172.31.51.9, 172.31.52.9
 *
 * Everything dies with this process, however that ends; what it leaves in the file system the next one removes.
 */
import { randomInt } from 'node:crypto';
import { chmod, cp, glob, mkdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { threadId } from 'node:worker_threads';
import { execa } from 'execa';
import { cacheFolder, findTool, ToolMissing, type ToolName } from '../../scripts/tools.ts';
import { applyAll } from '../control-plane/apply.ts';
import type { Request } from '../control-plane/client.ts';
import { StartFailed } from '../control-plane/daemon.ts';
import { createGroup, type Group, ip, type Netns } from '../dataplane/netns.ts';
import { FORWARDING } from '../dataplane/world.ts';
import { lacking } from '../lacking.ts';
import { type Cilium, type CiliumOptions, ciliumKinds, ciliumRolledOut, completed, installCilium } from './cilium.ts';
import { buildImages, type ClusterImages, type Images, keepNewest } from './images.ts';
import { makeUser, writeKubeconfig } from './kubeconfig.ts';
import { startLoadBalancer } from './load-balancer.ts';
import { type ClusterNode, removeLeftoverCgroups, startNode } from './node.ts';
import { API_PORT, startServers, type Servers } from './servers.ts';
import { startSite, type Site } from './site.ts';

export interface ClusterOptions {
  /** 1 to 3. */
  readonly nodes?: number;
  /** Which Cilium, where it is not the usual one. False: none, as in a cluster with another network. */
  readonly cilium?: CiliumOptions | false;
  /** Pods, Services and nodes with IPv6 besides IPv4. */
  readonly dualStack?: boolean;
  /** Takes a line of progress. */
  readonly log?: (line: string) => void;
}

/** What most tests need; also of a cluster that was there before (existing.ts). */
export interface AnyCluster {
  /** Of an administrator, for this machine's own programs. */
  readonly kubeconfig: string;
  /** Absolute path. */
  readonly kubectlPath: string;
  /** Resolves with stdout, rejects with kubectl's words. */
  readonly kubectl: (args: readonly string[], options?: { input?: string; timeoutMs?: number }) => Promise<string>;
  /** One a family. */
  readonly podCIDRs: readonly string[];
  readonly serviceCIDRs: readonly string[];
  readonly images: Images;
  /** Where the site's gateway finds the cluster: its identity, and what to dial where the cluster can't dial the site. */
  readonly peer: { readonly id: string; readonly dial: () => Promise<string | undefined> };
  readonly site: Site;
  readonly onprem: Netns;
  readonly stop: () => Promise<void>;
}

export interface Cluster extends AnyCluster {
  readonly folder: string;
  readonly nodes: readonly ClusterNode[];
  readonly servers: Servers;
  readonly gateway: Netns;
  readonly images: ClusterImages;
  /** Undefined where there is none. */
  readonly cilium: Cilium | undefined;
}

const POD_CIDRS = ['10.244.0.0/16', 'fd00:10:244::/56'];
const SERVICE_CIDRS = ['10.96.0.0/16', 'fd00:10:96::/112'];
const LOAD_BALANCER = '203.0.113.20';

/** This machine's way to the first node. Called as what a group makes: 15 characters at most. */
const DEVICE = `cvpn-${process.pid}-${threadId.toString(36)}`;
const KEPT_FAILURES = 3;

/** Throws ToolMissing, or StartFailed with the end of a log. Nothing is left then but the logs, where the message says. */
export async function startCluster({
  nodes: count = 2,
  cilium: chosen = {},
  dualStack = false,
  log = () => undefined,
}: ClusterOptions = {}): Promise<Cluster> {
  const cilium = completed(chosen);
  const missing = await lacking('cluster', log);
  if (missing !== undefined) throw new ToolMissing(missing);
  // Found or built already, with words.
  const pathOf = async (tool: ToolName) => (await findTool(tool, { log: () => undefined })).path;
  const kubectlPath = await pathOf('kubectl');
  const programs = {
    kubelet: await pathOf('kubelet'),
    kubeProxy: await pathOf('kube-proxy'),
    containerd: await pathOf('containerd'),
    shim: await pathOf('containerd-shim-runc-v2'),
    ctr: await pathOf('ctr'),
    runc: await pathOf('runc'),
  };
  const images = await buildImages(cilium, log);
  const names = Array.from({ length: count }, (_, index) => `n${index + 1}`);
  const group = await createGroup<string>([...names, 'wire', 'nat', 'gateway', 'onprem']);
  // Root in a pod with a user namespace goes through it to the pod's files; what is secret in it is the owner's alone.
  await chmod(group.folder, 0o711);
  await removeLeftoverCgroups();
  const undo: (() => Promise<void>)[] = [() => group.remove()];
  const stop = async (): Promise<void> => {
    const failures: unknown[] = [];
    for (const each of undo.splice(0).toReversed()) await each().catch((error: unknown) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  };
  try {
    const space = (name: string): Netns => group.spaces[name]!;
    const adminAddress = await connect(group, names);
    // The kernel keeps a namespace as long as connections in it are on their way out, for minutes, and this with it.
    undo.push(() => ip(`link delete ${DEVICE}`));
    log('control plane: starting');
    const users = {
      kubelet: names.map((name) => makeUser(`system:node:${name}`, 'system:nodes')),
      kubeProxy: makeUser('system:kube-proxy'),
      admin: makeUser('admin', 'system:masters'),
    };
    const families = familiesOf(dualStack);
    const [podCIDRs, serviceCIDRs] = [POD_CIDRS.slice(0, families), SERVICE_CIDRS.slice(0, families)];
    const servers = await startServers({
      folder: group.folder,
      netns: space('n1'),
      address: addressOf(0),
      adminAddress,
      serviceCIDRs,
      podCIDRs,
      users: [...users.kubelet, users.kubeProxy, users.admin],
    });
    undo.push(() => servers.stop());
    const { request } = servers.client;
    await applyAll(firstObjects(names, families), request);
    await applyAll(await ciliumKinds(cilium, log), request);

    const kubeconfigOf = (user: Parameters<typeof writeKubeconfig>[3], server = `https://${addressOf(0)}:6443`) =>
      writeKubeconfig(group.folder, server, servers.caFile, user);
    const kubeconfig = await kubeconfigOf(users.admin, servers.server);
    const facts = { host: addressOf(0), port: API_PORT, podCIDRs, dualStack };
    await installCilium(cilium, facts, { folder: group.folder, kubeconfig, log });
    log(`nodes: ${names.join(', ')}`);
    const nodes = await all(
      names.map(async (name, index) => {
        const node = await startNode({
          name,
          netns: space(name),
          addresses: addressesOf(index).slice(0, families),
          podCIDRs: podCIDRsOf(index).slice(0, families),
          folder: join(group.folder, name),
          programs,
          kubeconfigs: {
            kubelet: await kubeconfigOf(users.kubelet[index]!),
            kubeProxy: await kubeconfigOf(users.kubeProxy),
          },
          clientCAFile: servers.kubeletClientCAFile,
          pauseImage: images.workload,
          images: images.files,
          network: cilium === undefined ? 'ptp' : cilium.replacesKubeProxy ? 'cilium' : 'cilium and kube-proxy',
        });
        undo.push(() => node.stop());
        return node;
      }),
    );
    const site = await startSite({
      wire: space('wire'),
      nat: space('nat'),
      gateway: space('gateway'),
      onprem: space('onprem'),
    });
    undo.push(() => site.stop());
    const balancer = await startLoadBalancer({
      request,
      wire: space('wire'),
      address: LOAD_BALANCER,
      nodes: Object.fromEntries(nodes.map(({ name, address }) => [name, address])),
    });
    undo.push(() => balancer.stop());
    await ready(names, request);
    await ciliumRolledOut(cilium, kubectlOf(kubectlPath, kubeconfig));
    log('cluster: ready');
    return {
      folder: group.folder,
      kubeconfig,
      kubectlPath,
      kubectl: kubectlOf(kubectlPath, kubeconfig),
      podCIDRs,
      serviceCIDRs,
      images,
      cilium,
      peer: { id: LOAD_BALANCER, dial: async () => undefined },
      nodes,
      servers,
      site,
      onprem: space('onprem'),
      gateway: space('gateway'),
      stop,
    };
  } catch (error) {
    const explained = withLogs(error, group.folder, await keepLogs(group.folder));
    await stop().catch((left: Error) => log(`cluster: not everything could be removed: ${left.message}`));
    throw explained;
  }
}

/** As Promise.all, but while anything is under way it does not reject: what that has set up can be undone then. */
async function all<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

/** Copies a group's logs to the cache folder, which keeps those of the last failures. Answers where they are. */
async function keepLogs(folder: string): Promise<string> {
  const clusters = join(cacheFolder(process.env), 'clusters');
  const kept = join(clusters, `failed-${basename(folder)}`);
  await mkdir(kept, { recursive: true });
  for await (const log of glob(['*.log', 'n*/*.log'], { cwd: folder })) await cp(join(folder, log), join(kept, log));
  await keepNewest(KEPT_FAILURES, clusters, 'failed-cvpn-');
  return kept;
}

/** The same error, that names the logs where they are now. */
function withLogs(error: unknown, folder: string, kept: string): unknown {
  if (error instanceof ToolMissing || !(error instanceof Error)) return error;
  const message = `${error.message.replaceAll(folder, kept)}\nAll logs of the cluster: ${kept}`;
  return error instanceof StartFailed ? new StartFailed(message, error.output) : new Error(message, { cause: error });
}

export const kubectlOf =
  (path: string, kubeconfig: string): AnyCluster['kubectl'] =>
  async (args, { input = '', timeoutMs = 120_000 } = {}) =>
    (await execa(path, args, { env: { KUBECONFIG: kubeconfig }, input, timeout: timeoutMs })).stdout;

const familiesOf = (dualStack: boolean): number => (dualStack ? 2 : 1);
const addressOf = (index: number): string => `10.77.0.${11 + index}`;
const addressesOf = (index: number): string[] => [addressOf(index), `fd00:10:77::${11 + index}`];
const podCIDRsOf = (index: number): string[] => [`10.244.${index + 1}.0/24`, `fd00:10:244:${index + 1}::/64`];

/** Answers the address by which this machine reaches the first node. */
async function connect({ spaces }: Group<string>, names: readonly string[]): Promise<string> {
  const wire = spaces.wire!;
  // Of 64 thousand pairs; two clusters at once must not share one.
  const pair = `169.254.${randomInt(64, 128)}`;
  const host = randomInt(0, 64) * 4;
  const [here, there] = [`${pair}.${host + 1}`, `${pair}.${host + 2}`];
  await ip(
    ...names.map((name) => `link add eth0 netns ${spaces[name]!.name} type veth peer name ${name} netns ${wire.name}`),
    `link add ${DEVICE} type veth peer name admin netns ${spaces.n1!.name}`,
    `link set ${DEVICE} up`,
    `address add ${here}/30 dev ${DEVICE}`,
  );
  await wire.sysctl(FORWARDING);
  await wire.ip(
    'link set lo up',
    'link add br0 type bridge mcast_snooping 0',
    'link set br0 up',
    'address add 10.77.0.1/24 dev br0',
    'address add fd00:10:77::1/64 dev br0 nodad',
    ...names.map((name) => `link set ${name} master br0 up`),
  );
  for (const [index, name] of names.entries()) {
    await spaces[name]!.ip(
      'link set lo up',
      'link set eth0 up',
      `address add ${addressOf(index)}/24 dev eth0`,
      `address add ${addressesOf(index)[1]}/64 dev eth0 nodad`,
      'route add default via 10.77.0.1',
      'route add default via fd00:10:77::1',
    );
  }
  await spaces.n1!.ip('link set admin up', `address add ${there}/30 dev admin`);
  return there;
}

/** Nodes with the ranges that their CNI has, and what kube-proxy may. */
function firstObjects(names: readonly string[], families: number): string {
  const nodes = names.map((name, index) => ({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, labels: { 'kubernetes.io/hostname': name } },
    spec: { podCIDR: podCIDRsOf(index)[0], podCIDRs: podCIDRsOf(index).slice(0, families) },
  }));
  const proxy = {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: 'kube-proxy' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'system:node-proxier' },
    subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'system:kube-proxy' }],
  };
  return [...nodes, proxy].map((object) => JSON.stringify(object)).join('\n---\n');
}

async function ready(names: readonly string[], request: Request): Promise<void> {
  const deadline = Date.now() + 120_000;
  for (const name of names) {
    while (!(await isReady(name, request))) {
      if (Date.now() > deadline) throw new StartFailed(`node ${name} is not ready: see its kubelet.log`, '');
      await sleep(100);
    }
  }
  // Made by a controller; no pod can be made before.
  while ((await request('GET', '/api/v1/namespaces/default/serviceaccounts/default')).status !== 200) {
    if (Date.now() > deadline) throw new StartFailed('no default ServiceAccount: see kube-controller-manager.log', '');
    await sleep(100);
  }
}

async function isReady(name: string, request: Request): Promise<boolean> {
  const { body } = await request('GET', `/api/v1/nodes/${name}`);
  const { status } = body as { status?: { conditions?: { type: string; status: string }[] } };
  return status?.conditions?.some((it) => it.type === 'Ready' && it.status === 'True') ?? false;
}
