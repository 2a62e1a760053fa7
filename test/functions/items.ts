/** Small items as base/ has them, and configurations, for the tests of the functions. */
import { decodeConfig, type Config } from '../../functions/model/config.ts';
import type { Item, Result } from '../../functions/model/krm.ts';

/** An object that tests may look into without asking at every step. */
// oxlint-disable-next-line typescript/no-explicit-any
export type Loose = any;

export const ref = { apiVersion: 'constellation-vpn.io/v1alpha1', kind: 'ConstellationVPN', name: 'vpn' };

/** A good configuration: nothing is to be said about it. */
export function goodSpec(more: object = {}, ipsec: object = {}): object {
  return {
    peerCIDRs: ['192.168.100.0/24'],
    ipsec: { peer: '194.25.0.10', pskSecretRef: { name: 'vpn-psk' }, ...ipsec },
    ...more,
  };
}

/** The same as one of the sites. */
export function goodSite(name: string, cidr: string, more: object = {}, ipsec: object = {}): object {
  return {
    name,
    peerCIDRs: [cidr],
    ipsec: { peer: '194.25.0.10', localID: name, pskSecretRef: { name: `${name}-psk` }, ...ipsec },
    ...more,
  };
}

export function configObject(spec: object): Item {
  return { apiVersion: ref.apiVersion, kind: ref.kind, metadata: { name: ref.name }, spec };
}

export function configOf(spec: object): Config {
  const config = decodeConfig(configObject(spec), 'test');
  if ('results' in config) throw new Error(config.results.map(said).join('\n'));
  return freeze(config);
}

/** `severity path: message`, the path with the object's kind where it is not the configuration's. */
export function said({ severity, message, resourceRef, field }: Result): string {
  const place =
    resourceRef === undefined || resourceRef.kind === ref.kind ? '' : `${resourceRef.kind}/${resourceRef.name} `;
  return `${severity} ${place}${field?.path ?? ''}: ${message}`;
}

/** Frozen at every depth: writing to it throws. */
export function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) freeze(inner);
  }
  return value;
}

export function named(items: readonly Item[], kind: string, name: string): Loose {
  const found = items.filter((item: Loose) => item.kind === kind && item.metadata?.name === name);
  if (found.length !== 1) throw new Error(`${found.length} of ${kind} ${name} among ${items.map(title).join(', ')}`);
  return found[0];
}

/** `kind/name`, in which a list of items is easily read. */
export const title = (item: Loose): string => `${item.kind}/${item.metadata?.name}`;

const labels = (component: string): object => ({
  'app.kubernetes.io/name': 'constellation-vpn',
  'constellation-vpn.io/component': component,
  ...(component === 'frontend' ? { 'constellation-vpn.io/site': '' } : {}),
});

const metadata = (name: string, component: string): object => ({
  name,
  namespace: 'constellation-vpn',
  labels: labels(component),
});

export const marker = (): Item => ({
  apiVersion: 'constellation-vpn.io/v1alpha1',
  kind: 'UnrenderedManifests',
  metadata: metadata('run-the-functions', 'unrendered-manifests'),
  spec: { waitingFor: ['inject-peer-cidrs', 'inject-ipsec-secret'] },
});

export const vpnConfig = (): Item => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: metadata('vpn-config', 'config'),
  data: { 'config.json': '' },
});

export const account = (name: string): Item => ({
  apiVersion: 'v1',
  kind: 'ServiceAccount',
  metadata: metadata(name, name.replace('vpn-', '')),
});

export const frontend = (): Item => ({
  apiVersion: 'apps/v1',
  kind: 'StatefulSet',
  metadata: metadata('vpn-frontend', 'frontend'),
  spec: {
    replicas: 1,
    serviceName: 'vpn-frontend',
    selector: { matchLabels: labels('frontend') },
    template: {
      metadata: { labels: labels('frontend'), annotations: { 'kubectl.kubernetes.io/default-container': 'frontend' } },
      spec: {
        containers: [{ name: 'frontend', image: 'constellation-vpn-agents' }],
        volumes: [
          { name: 'config', configMap: { name: 'vpn-config' } },
          { name: 'ipsec', projected: { defaultMode: 288, sources: [] } },
        ],
      },
    },
  },
});

export const service = (): Item => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: metadata('vpn-frontend', 'frontend'),
  spec: { type: 'LoadBalancer', selector: labels('frontend'), ports: [{ name: 'isakmp', port: 500, protocol: 'UDP' }] },
});

export const budget = (): Item => ({
  apiVersion: 'policy/v1',
  kind: 'PodDisruptionBudget',
  metadata: metadata('vpn-frontend', 'frontend'),
  spec: { maxUnavailable: 1, selector: { matchLabels: labels('frontend') } },
});

export const endpointSyncRole = (): Item => ({
  apiVersion: 'rbac.authorization.k8s.io/v1',
  kind: 'Role',
  metadata: metadata('vpn-endpoint-sync', 'endpoint-sync'),
  rules: [
    { apiGroups: ['cilium.io'], resources: ['ciliumendpoints'], verbs: ['get', 'list', 'watch'] },
    { apiGroups: ['cilium.io'], resources: ['ciliumendpoints'], resourceNames: ['vpn-frontend-0'], verbs: ['patch'] },
    { apiGroups: [''], resources: ['configmaps'], resourceNames: ['other'], verbs: ['get'] },
  ],
});

const beside = (name: string, component: string): object => ({
  name,
  namespace: 'kube-system',
  labels: labels(component),
  annotations: { 'constellation-vpn.io/namespace': 'kube-system' },
});

export const ciliumReader = (): Item => ({
  apiVersion: 'rbac.authorization.k8s.io/v1',
  kind: 'Role',
  metadata: beside('vpn-cilium-config-reader', 'cilium-config-reader'),
  rules: [{ apiGroups: [''], resources: ['configmaps'], resourceNames: ['cilium-config'], verbs: ['get'] }],
});

export const ciliumReaderBinding = (): Item => ({
  apiVersion: 'rbac.authorization.k8s.io/v1',
  kind: 'RoleBinding',
  metadata: beside('vpn-cilium-config-reader', 'cilium-config-reader'),
  roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'vpn-cilium-config-reader' },
  subjects: [{ kind: 'ServiceAccount', name: 'vpn-routing', namespace: 'constellation-vpn' }],
});

/** What the functions look for in base/, with two objects of somebody else. */
export const base = (): Item[] => [
  { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'constellation-vpn' } },
  marker(),
  vpnConfig(),
  account('vpn-routing'),
  frontend(),
  service(),
  budget(),
  endpointSyncRole(),
  ciliumReader(),
  ciliumReaderBinding(),
  { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'foreign', namespace: 'other' }, data: { a: 'b' } },
];

/** The whole ConfigMap of a cluster where nothing is wrong. */
export const ciliumConfig = (data: object = {}): Item => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'cilium-config', namespace: 'kube-system' },
  data: {
    'enable-ipv4': 'true',
    'enable-ipv6': 'false',
    'enable-endpoint-routes': 'true',
    'routing-mode': 'tunnel',
    'tunnel-protocol': 'vxlan',
    'kube-proxy-replacement': 'true',
    'enable-sctp': 'true',
    'enable-ipv4-masquerade': 'true',
    'enable-bpf-masquerade': 'true',
    'enable-ip-masq-agent': 'true',
    'disable-endpoint-crd': 'false',
    'datapath-mode': 'veth',
    'cluster-id': '0',
    'cni-chaining-mode': 'none',
    ...data,
  },
});

const partial = { 'constellation-vpn.io/partial': 'true', 'kustomize.toolkit.fluxcd.io/ssa': 'Merge' };

/** base/cilium. */
export const partialCiliumConfig = (): Item => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'cilium-config', namespace: 'kube-system', annotations: partial },
  data: { 'enable-sctp': 'true' },
});
export const partialCiliumAgent = (): Item => ({
  apiVersion: 'apps/v1',
  kind: 'DaemonSet',
  metadata: { name: 'cilium', namespace: 'kube-system', annotations: partial },
  spec: { template: { metadata: { annotations: { 'constellation-vpn.io/cilium-config': 'enable-sctp=true' } } } },
});

/** As kustomize hands over an item to which it has given a prefix and a namespace. */
export function prefixed(item: Loose, prefix: string, namespace: string): Item {
  const { name, annotations } = item.metadata;
  return {
    ...item,
    metadata: {
      ...item.metadata,
      name: prefix + name,
      namespace,
      annotations: { ...annotations, 'internal.config.kubernetes.io/previousNames': name },
    },
  };
}
