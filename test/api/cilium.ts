/** What Cilium's agents and the kubelet do to the objects that endpoint-sync watches, done by hand as an administrator. */
import type { ControlPlane } from '../control-plane/control-plane.ts';

export const NAMESPACE = 'constellation-vpn';
export const CILIUM_NAMESPACE = 'kube-system';

const PODS = `/api/v1/namespaces/${NAMESPACE}/pods`;
const ENDPOINTS = `/apis/cilium.io/v2/namespaces/${NAMESPACE}/ciliumendpoints`;
const CONFIG_MAPS = `/api/v1/namespaces/${CILIUM_NAMESPACE}/configmaps`;

export interface AddressPair {
  ipv4?: string;
  ipv6?: string;
}
export interface KubeObject {
  metadata: { name: string; uid: string; resourceVersion: string; annotations?: Record<string, string> };
}
export interface CiliumEndpoint extends KubeObject {
  status?: { networking?: { addressing?: AddressPair[]; node?: string } };
}
export interface ConfigMap extends KubeObject {
  data?: Record<string, string>;
}
export interface Pod extends KubeObject {
  status: { podIPs?: { ip: string }[] };
}

type Cluster = Pick<ControlPlane, 'request'>;

/** Throws where the status is another than 2xx or one of `also`. */
export async function ask<T>(
  { request }: Cluster,
  method: string,
  path: string,
  body?: unknown,
  { contentType, also = [] }: { contentType?: string; also?: number[] } = {},
): Promise<T> {
  const response = await request(method, path, body, contentType);
  if (response.status >= 300 && !also.includes(response.status))
    throw new Error(`${method} ${path}: ${response.status} ${JSON.stringify(response.body)}`);
  return response.body as T;
}

const JSON_PATCH = { contentType: 'application/json-patch+json' };

export interface Frontend {
  /** The pod's name. */
  name: string;
  /** Of the unnamed site: ''. */
  site: string;
  ips: string[];
  component?: string;
  hostIP?: string;
  node?: string;
}

/** A pod that runs, as far as the API server knows: kubelet's part is its status. */
export async function createPod(cluster: Cluster, frontend: Frontend): Promise<Pod> {
  const { name, site, ips, component = 'frontend', hostIP = '192.0.2.11', node = 'node-1' } = frontend;
  const pod = {
    metadata: {
      name,
      labels: {
        'app.kubernetes.io/name': 'constellation-vpn',
        'app.kubernetes.io/component': component,
        'constellation-vpn.io/site': site,
      },
    },
    spec: { nodeName: node, containers: [{ name: 'main', image: 'none' }], automountServiceAccountToken: false },
  };
  const { metadata } = await ask<Pod>(cluster, 'POST', PODS, pod);
  return ask<Pod>(
    cluster,
    'PATCH',
    `${PODS}/${metadata.name}/status`,
    {
      status: {
        phase: 'Running',
        hostIP,
        hostIPs: [{ ip: hostIP }],
        podIP: ips[0],
        podIPs: ips.map((ip) => ({ ip })),
      },
    },
    { contentType: 'application/merge-patch+json' },
  );
}

export const deletePod = (cluster: Cluster, name: string): Promise<unknown> =>
  ask(cluster, 'DELETE', `${PODS}/${name}?gracePeriodSeconds=0`, undefined, { also: [404] });

/** The whole status as the agent of the pod's node writes it: it knows nothing of on-prem ranges. */
export function agentStatus(ips: readonly string[], id = 1234) {
  const ipv4 = ips.find((ip) => !ip.includes(':'));
  const ipv6 = ips.find((ip) => ip.includes(':'));
  return {
    encryption: { key: 255 },
    'external-identifiers': {
      'container-id': 'c0ffee',
      'k8s-namespace': NAMESPACE,
      'cni-attachment-id': 'c0ffee:eth0',
    },
    id,
    identity: { id: 40_000, labels: ['k8s:app.kubernetes.io/component=frontend'] },
    'named-ports': [{ name: 'isakmp', port: 500, protocol: 'UDP' }],
    networking: {
      addressing: [{ ...(ipv4 === undefined ? {} : { ipv4 }), ...(ipv6 === undefined ? {} : { ipv6 }) }],
      node: '192.0.2.11',
    },
    state: 'ready',
  };
}

/** `status: null`: the object is there, its status is not yet. */
export function createEndpoint(
  cluster: Cluster,
  pod: Pod,
  status: object | null = agentStatus((pod.status.podIPs ?? []).map(({ ip }) => ip)),
): Promise<CiliumEndpoint> {
  const { name, uid } = pod.metadata;
  return ask<CiliumEndpoint>(cluster, 'POST', ENDPOINTS, {
    apiVersion: 'cilium.io/v2',
    kind: 'CiliumEndpoint',
    metadata: {
      name,
      labels: { 'app.kubernetes.io/component': 'frontend' },
      ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name, uid, blockOwnerDeletion: true }],
    },
    ...(status === null ? {} : { status }),
  });
}

/** What the owning agent sends after its restart, or a label change: guarded by the uid, the status as a whole. */
export const overwrite = (cluster: Cluster, endpoint: CiliumEndpoint, status: object): Promise<CiliumEndpoint> =>
  ask<CiliumEndpoint>(
    cluster,
    'PATCH',
    `${ENDPOINTS}/${endpoint.metadata.name}`,
    [
      { op: 'test', path: '/metadata/uid', value: endpoint.metadata.uid },
      { op: 'add', path: '/status', value: status },
    ],
    JSON_PATCH,
  );

export const getEndpoint = (cluster: Cluster, name: string): Promise<CiliumEndpoint> =>
  ask<CiliumEndpoint>(cluster, 'GET', `${ENDPOINTS}/${name}`);
export const listEndpoints = async (cluster: Cluster): Promise<CiliumEndpoint[]> =>
  (await ask<{ items: CiliumEndpoint[] }>(cluster, 'GET', ENDPOINTS)).items;
export const deleteEndpoint = (cluster: Cluster, name: string): Promise<unknown> =>
  ask(cluster, 'DELETE', `${ENDPOINTS}/${name}`, undefined, { also: [404] });

/** The prefixes that an endpoint lists, `ipv4 10.8.0.0/16`, in order. */
export function prefixes(endpoint: CiliumEndpoint): string[] {
  return (endpoint.status?.networking?.addressing ?? [])
    .flatMap((pair) => Object.entries(pair))
    .filter(([, value]) => value.includes('/'))
    .map(([field, value]) => `${field} ${value}`);
}

export const getConfigMap = (cluster: Cluster, name: string): Promise<ConfigMap> =>
  ask<ConfigMap>(cluster, 'GET', `${CONFIG_MAPS}/${name}`);
export const createConfigMap = (cluster: Cluster, name: string, data: Record<string, string>): Promise<ConfigMap> =>
  ask<ConfigMap>(cluster, 'POST', CONFIG_MAPS, { metadata: { name }, data });
export const replaceConfigMap = (cluster: Cluster, configMap: ConfigMap, also: number[] = []): Promise<ConfigMap> =>
  ask<ConfigMap>(cluster, 'PUT', `${CONFIG_MAPS}/${configMap.metadata.name}`, configMap, { also });
export const deleteConfigMap = (cluster: Cluster, name: string): Promise<unknown> =>
  ask(cluster, 'DELETE', `${CONFIG_MAPS}/${name}`, undefined, { also: [404] });

/** All that the tests made in the VPN's namespace, and Cilium's ConfigMaps, away. */
export async function removeAll(cluster: Cluster): Promise<void> {
  for (const path of [`${PODS}?gracePeriodSeconds=0`, ENDPOINTS, `/api/v1/namespaces/${NAMESPACE}/events`])
    await ask(cluster, 'DELETE', path, undefined, { also: [404] });
  for (const name of ['ip-masq-agent', 'cilium-config']) await deleteConfigMap(cluster, name);
}
