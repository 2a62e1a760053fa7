/** What the stand-in wants, from what it knows; nothing here acts. */
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { KubeObject } from '../../../agents/lib/kube/client.ts';
import { type Cidr, containsAddress, hostCidr, parentOf } from '../../../functions/model/cidr.ts';
import type { IPCacheEntry } from '../../fakes/cilium-api.ts';

export interface Node extends KubeObject {
  readonly spec?: { readonly podCIDR?: string };
  readonly status?: { readonly addresses?: readonly { readonly type: string; readonly address: string }[] };
}

export interface Pod extends KubeObject {
  readonly spec?: { readonly hostNetwork?: boolean; readonly serviceAccountName?: string };
  readonly status?: { readonly phase?: string; readonly podIPs?: readonly { readonly ip: string }[] };
}

export interface CiliumEndpoint extends KubeObject {
  readonly status?: {
    readonly identity?: { readonly id?: number; readonly labels?: readonly string[] };
    readonly networking?: {
      readonly addressing?: readonly { readonly ipv4?: string }[] | null;
      readonly node?: string;
    } | null;
  };
}

/** A pod of this node, as the kernel knows it: the route to it. */
export interface LocalEndpoint {
  readonly address: string;
  /** The node's end of its veth pair. */
  readonly interfaceName: string;
  /** Whether the route has Cilium's form: CNI's own has `scope host`, and as a gateway the kernel takes none with that. */
  readonly linkScope: boolean;
}

/** One object of `ip -j route show`. */
export interface RouteJson {
  readonly type?: string;
  readonly dst: string;
  /** Of any table but the main one. */
  readonly table?: string;
  readonly gateway?: string;
  readonly dev?: string;
  readonly protocol?: string;
  readonly scope?: string;
  readonly prefsrc?: string;
  readonly metrics?: readonly { readonly mtu?: number }[];
}

/** Destination to what follows it in an `ip route` command: `dev net-n2`. */
export type Routes = ReadonlyMap<Cidr, string>;

export const HOST_DEVICE = 'cilium_host';
/** The overlay network's end of a node's `cilium_host`. */
export const overlayDevice = (node: string): string => `net-${node}`;
/** Where the node's own packets for other nodes' pods go: less by what an encapsulation takes. */
const TUNNEL_MTU = 1450;

/** IPv4, masked, an address alone as /32; undefined for anything else. */
export function prefixOf(text: string): Cidr | undefined {
  if (text === 'default') return '0.0.0.0/0' as Cidr;
  const [address = '', length = '32', ...rest] = text.split('/');
  const host = address.includes(':') ? undefined : hostCidr(address);
  if (host === undefined || rest.length > 0 || !/^\d+$/.test(length) || Number(length) > 32) return undefined;
  return parentOf(host, Number(length));
}

/** The node's own address in a pod range, cilium_host's: 10.244.1.1 of 10.244.1.0/24. */
export const routerOf = (podCIDR: string): string => podCIDR.replace(/\d+\/\d+$/, '1');

const nodeOfEndpoint = (cep: CiliumEndpoint): string => cep.status?.networking?.node ?? '';

export const internalAddresses = ({ status }: Node): string[] =>
  (status?.addresses ?? []).filter(({ type }) => type === 'InternalIP').map(({ address }) => address);

/** kubelet writes into its Node every few seconds. */
export const samePlace = (a: Node | undefined, b: Node | undefined): boolean =>
  isDeepStrictEqual([a?.spec?.podCIDR, a?.status?.addresses], [b?.spec?.podCIDR, b?.status?.addresses]);

export const prefixesOf = (cep: CiliumEndpoint | undefined): Cidr[] =>
  (cep?.status?.networking?.addressing ?? []).flatMap(({ ipv4 = '' }) => prefixOf(ipv4) ?? []);

const modelOf = (cep: CiliumEndpoint | undefined): unknown => [cep?.status?.identity, cep?.status?.networking];

/**
 * As pkg/k8s/watchers/cilium_endpoint.go: whoever changes last has a prefix, and one that is taken away or deleted takes an
 * entry along only where it is its own. So nobody has the prefix then, though another one still lists it. True where the
 * cache changed.
 */
export function updateIPCache(
  cache: Map<string, IPCacheEntry>,
  before: CiliumEndpoint | undefined,
  after: CiliumEndpoint | undefined,
  nodeAddress: string,
): boolean {
  if (isDeepStrictEqual(modelOf(before), modelOf(after))) return false;
  const prefixes = prefixesOf(after);
  for (const prefix of prefixesOf(before))
    if (!prefixes.includes(prefix) && isOf(cache.get(prefix), before)) cache.delete(prefix);
  if (after !== undefined) for (const prefix of prefixes) cache.set(prefix, entryOf(after, nodeAddress));
  return true;
}

function isOf(entry: IPCacheEntry | undefined, cep: CiliumEndpoint | undefined): boolean {
  return entry?.metadata?.name === cep?.metadata.name && entry?.metadata?.namespace === cep?.metadata.namespace;
}

function entryOf(cep: CiliumEndpoint, nodeAddress: string): IPCacheEntry {
  const { name, namespace = '' } = cep.metadata;
  const hostIP = nodeOfEndpoint(cep);
  return {
    ...(hostIP === nodeAddress ? {} : { hostIP }),
    identity: cep.status?.identity?.id ?? 0,
    metadata: { name, namespace, source: 'custom-resource' },
  };
}

const remote = (cache: ReadonlyMap<string, IPCacheEntry>): [Cidr, string][] =>
  [...cache].flatMap(([prefix, { hostIP = '' }]) => (hostIP === '' ? [] : [[prefix as Cidr, hostIP]]));

/** For packets from this node's pods, which go by the ipcache. */
export const podRoutes = (cache: ReadonlyMap<string, IPCacheEntry>): Routes =>
  new Map(remote(cache).map(([prefix]) => [prefix, `dev ${HOST_DEVICE}`]));

/** In the overlay network, for what comes from this node: where the ipcache says, and to the other nodes' cilium_host. */
export function overlayRoutes(
  cache: ReadonlyMap<string, IPCacheEntry>,
  nodes: readonly Node[],
  own: string,
): Map<Cidr, string> {
  const others = nodes.filter(({ metadata }) => metadata.name !== own);
  const via = ({ metadata }: Node): string => `dev ${overlayDevice(metadata.name)}`;
  const devices = new Map(others.flatMap((node) => internalAddresses(node).map((address) => [address, via(node)])));
  const routers = others.flatMap((node): [Cidr, string][] => {
    const router = prefixOf(routerOf(node.spec?.podCIDR ?? ''));
    return router === undefined ? [] : [[router, via(node)]];
  });
  return new Map([
    ...routers,
    ...remote(cache).flatMap(([prefix, hostIP]): [Cidr, string][] => {
      const device = devices.get(hostIP);
      return device === undefined ? [] : [[prefix, device]];
    }),
  ]);
}

/** The host's own way to the other nodes' pods, in the main table. */
export function hostRoutes(nodes: readonly Node[], own: string, router: string): Map<Cidr, string> {
  const hop = `via ${router} dev ${HOST_DEVICE} proto kernel src ${router} mtu ${TUNNEL_MTU}`;
  return new Map(
    nodes.flatMap(({ metadata, spec }) => {
      const prefix = metadata.name === own ? undefined : prefixOf(spec?.podCIDR ?? '');
      return prefix === undefined ? [] : [[prefix, hop]];
    }),
  );
}

/** Of one table; without `unreachable default` and the like. */
export function routesIn(table: string | undefined, seen: readonly RouteJson[]): Map<Cidr, string> {
  return new Map(
    seen.flatMap((route): [Cidr, string][] => {
      const prefix = route.table === table && route.type === undefined ? prefixOf(route.dst) : undefined;
      return prefix === undefined ? [] : [[prefix, hopOf(route)]];
    }),
  );
}

function hopOf({ gateway, dev, protocol = 'boot', prefsrc, metrics }: RouteJson): string {
  const mtu = metrics?.[0]?.mtu;
  const parts = [
    gateway === undefined ? '' : `via ${gateway}`,
    `dev ${dev}`,
    protocol === 'boot' ? '' : `proto ${protocol}`,
    prefsrc === undefined ? '' : `src ${prefsrc}`,
    mtu === undefined ? '' : `mtu ${mtu}`,
  ];
  return parts.filter((part) => part !== '').join(' ');
}

/** Of the main table those that hostRoutes() is about, whatever their end. */
export const seenHostRoutes = (seen: readonly RouteJson[]): Map<Cidr, string> =>
  routesIn(
    undefined,
    seen.filter(({ dev, protocol, gateway }) => dev === HOST_DEVICE && protocol === 'kernel' && gateway !== undefined),
  );

/** `ip` commands, none where it is so already. `table`: `main`, or its number. */
export function planRoutes(seen: Routes, wanted: Routes, table: string): string[] {
  const gone = [...seen.keys()].filter((prefix) => !wanted.has(prefix));
  const added = [...wanted].filter(([prefix, hop]) => seen.get(prefix) !== hop);
  return [
    ...gone.map((prefix) => `route delete ${prefix} table ${table} ${seen.get(prefix)}`),
    ...added.map(([prefix, hop]) => `route replace ${prefix} table ${table} ${hop}`),
  ];
}

/** One of the VPN's routes goes by a pod's address. */
export const localEndpoints = (seen: readonly RouteJson[], podCIDR: string): LocalEndpoint[] =>
  seen
    .filter(({ gateway, table, type }) => gateway === undefined && table === undefined && type === undefined)
    .filter(({ dst, dev = '' }) => dev.startsWith('veth') && containsAddress(podCIDR as Cidr, dst))
    .map(({ dst, dev = '', scope }) => ({ address: dst, interfaceName: dev, linkScope: scope === 'link' }));

/** `ip` commands that make Cilium's endpoint routes of CNI's. */
export const planEndpointRoutes = (endpoints: readonly LocalEndpoint[]): string[] =>
  endpoints
    .filter(({ linkScope }) => !linkScope)
    .map(({ address, interfaceName }) => `route replace ${address} dev ${interfaceName} proto kernel scope link`);

/** On its node, 16 bits: the address without the pod range. */
export const endpointId = (address: string): number => {
  const [, , third = 0, last = 0] = address.split('.').map(Number);
  return (third % 256) * 256 + last;
};

/** What Cilium makes a CiliumEndpoint's `.status` of; undefined where a pod has, or should have, none. */
export function statusOf(pod: Pod, endpoints: readonly LocalEndpoint[], nodeAddress: string) {
  const addresses = (pod.status?.podIPs ?? []).map(({ ip }) => ip);
  const endpoint = endpoints.find(({ address }) => addresses.includes(address));
  if (endpoint === undefined || !isAlive(pod)) return undefined;
  const { address } = endpoint;
  return {
    id: endpointId(address),
    identity: identityOf(pod),
    networking: { addressing: [{ ipv4: address }], node: nodeAddress },
    state: 'ready',
  };
}

export const isAlive = ({ spec, status }: Pod): boolean =>
  spec?.hostNetwork !== true && (status?.phase === 'Running' || status?.phase === 'Pending');

/** Cilium hands out numbers of 16 bits from 256 on; here the labels make the number. */
export function identityOf({ metadata, spec }: Pod): { id: number; labels: string[] } {
  const labels = [
    ...Object.entries(metadata.labels ?? {}).map(([name, value]) => `k8s:${name}=${value}`),
    `k8s:io.cilium.k8s.policy.serviceaccount=${spec?.serviceAccountName ?? 'default'}`,
    `k8s:io.kubernetes.pod.namespace=${metadata.namespace}`,
  ].sort();
  const hash = createHash('sha256').update(labels.join('\n')).digest().readUInt32BE();
  return { id: 256 + (hash % (65_536 - 256)), labels };
}

export const isOnNode = (cep: CiliumEndpoint | undefined, nodeAddress: string): cep is CiliumEndpoint =>
  cep !== undefined && nodeOfEndpoint(cep) === nodeAddress;
