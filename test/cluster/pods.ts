/** Pods of the tests, and what runs in them: by `kubectl exec`, so in any cluster. */
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import type { Place } from '../dataplane/netns.ts';
import type { AnyCluster } from './cluster.ts';

export interface TestPod extends Place {
  readonly node: string;
  readonly address: string;
  /** One a family; the first is `address`. */
  readonly addresses: readonly string[];
}

/** One of each on each node: in the pods' network, in the host's, and where nothing is allowed. */
export interface TestPods {
  readonly pods: readonly TestPod[];
  readonly hosts: readonly TestPod[];
  /** In a namespace of their own, whose NetworkPolicy denies all. */
  readonly denied: readonly TestPod[];
  /** Of a DNS server, that knows one name: `vpn.example`, 192.0.2.53. */
  readonly dnsService: string;
}

const NAMESPACE = 'vpn-test';
/** In `vpn-test-denied` a NetworkPolicy denies all that no other policy allows. */
export const NAMESPACES = [NAMESPACE, 'vpn-test-denied'] as const;
const APPS = { pod: NAMESPACE, host: NAMESPACE, denied: NAMESPACES[1] } as const;
type App = keyof typeof APPS;
/** Of test/cluster/Containerfile.workload. */
const INSIDE = ['/usr/bin/node', '/opt/test/inside.ts'] as const;
const READY_LIMIT_MS = 180_000;

/** Makes them and waits for them. */
export async function createPods(cluster: AnyCluster): Promise<TestPods> {
  const { kubectl, images } = cluster;
  const list = { apiVersion: 'v1', kind: 'List', items: objects(images.workload) };
  await kubectl(['apply', '-f', '-'], { input: JSON.stringify(list) });
  for (const [app, namespace] of Object.entries(APPS))
    await kubectl(['-n', namespace, 'rollout', 'status', `daemonset/${app}`, `--timeout=${READY_LIMIT_MS / 1000}s`]);
  await kubectl(['-n', NAMESPACE, 'wait', '--for=condition=Ready', 'pod/dns', `--timeout=${READY_LIMIT_MS / 1000}s`]);
  const dnsService = await kubectl(['-n', NAMESPACE, 'get', 'service', 'dns', '-o', 'jsonpath={.spec.clusterIP}']);
  const [pods, hosts, denied] = [
    await listPods(cluster, 'pod'),
    await listPods(cluster, 'host'),
    await listPods(cluster, 'denied'),
  ];
  return { pods, hosts, denied, dnsService };
}

/** As they are now, by their nodes. */
export async function listPods(cluster: AnyCluster, app: App): Promise<TestPod[]> {
  const namespace = APPS[app];
  const listed = await cluster.kubectl(['-n', namespace, 'get', 'pods', '-l', `app=${app}`, '-o', 'json']);
  const { items } = JSON.parse(listed) as {
    items: {
      metadata: { name: string };
      spec: { nodeName: string };
      status: { podIP: string; podIPs: { ip: string }[] };
    }[];
  };
  return items
    .map(({ metadata, spec, status }) => ({
      ...podPlace(cluster, namespace, metadata.name),
      node: spec.nodeName,
      address: status.podIP,
      addresses: status.podIPs.map(({ ip }) => ip),
    }))
    .toSorted((a, b) => a.node.localeCompare(b.node));
}

export async function removePods({ kubectl }: AnyCluster): Promise<void> {
  await kubectl(['delete', 'namespace', ...NAMESPACES, '--ignore-not-found']);
}

/** A container of a running pod. */
export function podPlace(
  { kubectlPath, kubeconfig }: Pick<AnyCluster, 'kubectlPath' | 'kubeconfig'>,
  namespace: string,
  name: string,
  container?: string,
): Place {
  const chosen = container === undefined ? [] : ['-c', container];
  return {
    name: `pod ${namespace}/${name}`,
    inside: INSIDE,
    start(command, args, options) {
      const exec = ['-n', namespace, 'exec', '-i', name, ...chosen, '--', command, ...args];
      return execa(kubectlPath, exec, { ...options, env: { KUBECONFIG: kubeconfig }, reject: false }) as never;
    },
  };
}

/** Polls until it is true, every 100 ms. Throws with `what` after the limit. Answers the milliseconds that it took. */
export async function until(what: string, limitMs: number, isSo: () => Promise<boolean>): Promise<number> {
  const start = performance.now();
  for (;;) {
    if (await isSo()) return Math.round(performance.now() - start);
    if (performance.now() - start > limitMs) throw new Error(`not in ${limitMs / 1000} s: ${what}`);
    await sleep(100);
  }
}

function objects(image: string): unknown[] {
  const container = (args?: readonly string[]) => ({
    name: 'test',
    image,
    ...(args === undefined ? {} : { args }),
  });
  const common = { terminationGracePeriodSeconds: 0, automountServiceAccountToken: false };
  const daemonSet = (name: App, hostNetwork: boolean) => ({
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: { name, namespace: APPS[name] },
    spec: {
      selector: { matchLabels: { app: name } },
      template: {
        metadata: { labels: { app: name } },
        spec: { ...common, hostNetwork, tolerations: [{ operator: 'Exists' }], containers: [container()] },
      },
    },
  });
  return [
    ...NAMESPACES.map((name) => ({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name, labels: { 'pod-security.kubernetes.io/enforce': 'privileged' } },
    })),
    {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'deny-all', namespace: APPS.denied },
      spec: { podSelector: {}, policyTypes: ['Ingress', 'Egress'] },
    },
    daemonSet('pod', false),
    daemonSet('host', true),
    daemonSet('denied', false),
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'dns', namespace: NAMESPACE, labels: { app: 'dns' } },
      spec: {
        ...common,
        containers: [
          container([
            'dnsmasq',
            '--keep-in-foreground',
            '--user=root',
            '--group=root',
            '--no-resolv',
            '--no-hosts',
            '--address=/vpn.example/192.0.2.53',
          ]),
        ],
      },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'dns', namespace: NAMESPACE },
      spec: {
        selector: { app: 'dns' },
        ports: ['UDP', 'TCP'].map((protocol) => ({ name: protocol.toLowerCase(), port: 53, protocol })),
      },
    },
  ];
}
