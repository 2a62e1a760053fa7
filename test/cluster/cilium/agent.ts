/** The command line of the stand-in for Cilium's agent, one process a node: README.md. */
import { mkdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, InvalidArgumentError } from 'commander';
import { follow } from '../../../agents/lib/exec.ts';
import type { KubeObject } from '../../../agents/lib/kube/client.ts';
import { createLog } from '../../../agents/lib/log.ts';
import { WorkQueue } from '../../../agents/lib/queue.ts';
import { SayOnce } from '../../../agents/lib/say-once.ts';
import { keepSmall } from '../../../agents/lib/small-process.ts';
import { CiliumAPI } from '../../fakes/cilium-api.ts';
import { Collection } from './collection.ts';
import { Datapath, type Settings } from './datapath.ts';
import { monitorArgs } from './kernel.ts';
import { Kube } from './kube.ts';
import { type NetworkPolicy, policiesText, unsupported } from './policy.ts';
import { type CiliumEndpoint, HOST_DEVICE, type Node, type Pod, prefixOf, samePlace, updateIPCache } from './plan.ts';
import { Publisher } from './publisher.ts';

interface Options extends Omit<Settings, 'closedServices'> {
  readonly serviceCidr: string;
  readonly kubeconfig: string;
  readonly runFolder: string;
}

const RETRY = { firstMs: 500, maxMs: 500 };
/** Between looks at what no event told. */
const RESYNC_MS = 10_000;
/** `ip monitor` says nothing when it is ready. */
const MONITOR_READY_MS = 200;

keepSmall();
const log = createLog('cilium-stand-in');

async function run(options: Options): Promise<void> {
  const { node, nodeAddress, kubeconfig, runFolder, overlay } = options;
  const kube = new Kube(kubeconfig);
  // At first it knows no endpoint, as the real one.
  await mkdir(runFolder, { recursive: true });
  const api = await CiliumAPI.start(runFolder);

  const nodes = new Collection<Node>({
    kube,
    log,
    path: '/api/v1/nodes',
    onChange: (_, before, after) => {
      if (!samePlace(before, after)) queue.add('routes');
    },
    onList: () => queue.add('routes'),
  });
  const endpoints = new Collection<CiliumEndpoint>({
    kube,
    log,
    path: '/apis/cilium.io/v2/ciliumendpoints',
    onChange: (key, before, after) => {
      if (updateIPCache(api.ipcache, before, after, nodeAddress)) {
        queue.add('routes');
        queue.add('policies');
      }
      // A pod's model has not changed; one without a pod is left from before.
      if (before === undefined) queue.add(key);
    },
    onList: () => addAll(),
  });
  const pods = new Collection<Pod>({
    kube,
    log,
    path: '/api/v1/pods',
    query: { fieldSelector: `spec.nodeName=${node}` },
    onChange: (key, _, pod) => {
      queue.add(key);
      endWithDaemonSet(pod);
    },
    onList: () => addAll(),
  });
  const ofPolicies = { kube, log, onChange: () => queue.add('policies'), onList: () => queue.add('policies') };
  const namespaces = new Collection<KubeObject>({ ...ofPolicies, path: '/api/v1/namespaces' });
  const policies = new Collection<NetworkPolicy>({
    ...ofPolicies,
    path: '/apis/networking.k8s.io/v1/networkpolicies',
    onChange: (_, __, policy) => {
      queue.add('policies');
      for (const key of unsupported(policy === undefined ? [] : [policy]))
        log.warn({ key }, 'ipBlock or ports in a NetworkPolicy: their rules allow nothing here');
    },
  });
  const datapath = new Datapath(
    { ...options, closedServices: await closedServices(kube, options.serviceCidr) },
    {
      log,
      api,
      nodes: () => (nodes.synced ? nodes.all() : undefined),
      complete: () => endpoints.synced,
      policies: () => {
        if (![endpoints, namespaces, policies].every(({ synced }) => synced)) return undefined;
        const [all, ipcache] = [endpoints.all(), api.ipcache];
        return policiesText({
          policies: policies.all(),
          namespaces: namespaces.all(),
          endpoints: all,
          ipcache,
          nodeAddress,
        });
      },
    },
  );
  const publisher = new Publisher({
    kube,
    log,
    nodeAddress,
    pods,
    endpoints,
    local: () => datapath.local,
  });
  api.onRegenerated = ({ ipv4, options: { SourceIPVerification } }) => {
    log.info({ address: ipv4, SourceIPVerification }, 'endpoint regenerated');
    queue.add('endpoints');
  };

  const problems = new SayOnce();
  const queue = new WorkQueue(
    async (key) => {
      await reconcile(key);
      problems.over(key);
    },
    {
      backoff: RETRY,
      concurrency: 4,
      onError: (key, error) => {
        const problem = (error as Error).message;
        problems.say(key, problem, () => log.warn({ key, problem }, 'failed, trying again'));
        return undefined;
      },
    },
  );
  /** Keys: `endpoints`, `routes`, `policies`, and a pod's `namespace/name`. */
  async function reconcile(key: string): Promise<void> {
    if (key === 'routes') {
      await datapath.syncRoutes();
      queue.add('endpoints'); // the nodes' addresses
    } else if (key === 'endpoints') {
      const before = datapath.local;
      await datapath.syncEndpoints();
      if (JSON.stringify(before) !== JSON.stringify(datapath.local)) addAll();
    } else if (key === 'policies') await datapath.syncPolicies();
    else await publisher.reconcile(key);
  }
  function addKernel(): void {
    queue.add('endpoints');
    queue.add('routes');
  }
  function addAll(): void {
    queue.add('routes');
    queue.add('policies');
    for (const key of new Set([...pods.keys(), ...endpoints.keys()])) queue.add(key);
  }

  await datapath.setUp();
  log.info({ node, nodeAddress, socket: api.socket, server: kube.server }, 'started');
  setInterval(addKernel, RESYNC_MS);
  await Promise.all([
    ...[nodes, endpoints, pods, namespaces, policies].map((collection) => collection.run()),
    monitor(undefined, ['link', 'route'], addKernel, (line) => {
      if (line.includes('veth')) queue.add('endpoints');
      else if (line.includes(HOST_DEVICE) && line.startsWith('Deleted')) queue.add('routes');
    }),
    monitor(overlay, ['link'], addKernel, () => queue.add('routes')),
  ]);
}

interface ConfigMap extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}

/** pkg/option: read at the start alone. bpf_lxc.c: without one of these the load balancer leaves packets from pods alone. */
async function closedServices(kube: Kube, serviceCIDR: string): Promise<string | undefined> {
  for (;;) {
    try {
      const config = await kube.get<ConfigMap>('/api/v1/namespaces/kube-system/configmaps/cilium-config');
      const open = ['enable-sctp', 'bpf-lb-sock-hostns-only'].some((key) => config?.data?.[key] === 'true');
      log.info({ open }, 'cilium-config read: Services for foreign sources');
      return open ? undefined : serviceCIDR;
    } catch (error) {
      log.warn({ problem: (error as Error).message }, "can't read cilium-config, trying again");
      await sleep(RETRY.maxMs);
    }
  }
}

/** The pod of the DaemonSet cilium on this node does nothing; but where it is made anew, the agent starts again. */
let agentPod: string | undefined;
function endWithDaemonSet(pod: Pod | undefined): void {
  if (pod?.metadata.namespace !== 'kube-system' || pod.metadata.labels?.['k8s-app'] !== 'cilium') return;
  if (agentPod !== undefined && agentPod !== pod.metadata.uid) {
    log.info({ pod: pod.metadata.name }, 'the DaemonSet has another pod, starting again');
    process.exit(0);
  }
  agentPod = pod.metadata.uid;
}

async function monitor(
  overlay: string | undefined,
  objects: readonly string[],
  onGap: () => void,
  onLine: (line: string) => void,
): Promise<never> {
  for (;;) {
    const ready = setTimeout(onGap, MONITOR_READY_MS);
    await follow('setpriv', monitorArgs(overlay, ...objects), onLine, new AbortController().signal).catch(
      (error: Error) => log.warn({ problem: error.message }, "can't follow the kernel, trying again"),
    );
    clearTimeout(ready);
    await sleep(RETRY.maxMs);
  }
}

function parsePodCidr(text: string): string {
  if (prefixOf(text) !== text || !text.endsWith('.0/24'))
    throw new InvalidArgumentError('It must be an IPv4 range of 24 bits, such as 10.244.1.0/24.');
  return text;
}

await new Command('agent.ts')
  .description("Stands in for Cilium's agent on one node of the test cluster; runs in the node's namespaces.")
  .requiredOption('--node <name>', "the node's name")
  .requiredOption('--node-address <address>', "the node's InternalIP")
  .requiredOption('--pod-cidr <cidr>', "the node's range of pod addresses, a /24", parsePodCidr)
  .requiredOption('--overlay <file>', 'the network namespace that joins the nodes')
  .requiredOption('--kubeconfig <file>', 'how to reach the API server')
  .option('--service-cidr <cidr>', "the Services' range", '10.96.0.0/16')
  .option('--run-folder <folder>', 'where cilium.sock is made', '/var/run/cilium')
  .action(run)
  .parseAsync();
