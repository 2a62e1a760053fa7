/** Which routes this node should have: a pure function of the configuration and of what is known of the node. */
import { familyOf, type Cidr, type Family } from '../../../functions/model/cidr.ts';
import type { Site, Vpn } from '../../../functions/model/vpn.ts';
import type { Frontend } from '../frontends.ts';
import { hopText, WORST_METRIC, type Hop } from '../kernel/route.ts';

/** A device that leads somewhere. */
export interface Device {
  readonly name: string;
  /** Bytes. */
  readonly mtu: number;
}

/** How the kernel reaches a pod's address: `direct` is a route of the pod's own, which Cilium's endpoint routes are. */
export type PodRoute = { readonly direct: Device } | { readonly indirect: string };

export interface LocalFrontend extends Frontend {
  readonly routes: Readonly<Partial<Record<Family, PodRoute>>>;
}

/** The node as it is. */
export interface NodeState {
  /** Of the sites whose frontend is on this node. */
  readonly frontends: readonly LocalFrontend[];
  /** Cilium's device for the host's own traffic, with its address of each family. */
  readonly ciliumHost: (Device & { readonly addresses: Readonly<Partial<Record<Family, string>>> }) | undefined;
  /** Whether Cilium tunnels between nodes; else the network between them carries the ranges, and other nodes need no route. */
  readonly tunnels: boolean;
}

/** Why a range has no route of ours; the names are label values of a metric. */
export type RefusalReason =
  'foreign-route' | 'node-address' | 'no-pod-address' | 'no-endpoint-route' | 'no-cilium-host' | 'kernel';

export interface Refusal {
  readonly reason: RefusalReason;
  /** A sentence that says what is wrong and what to do. */
  readonly message: string;
}

export const isRefusal = (state: Way | Refusal): state is Refusal => 'reason' in state;

/** The routes to a range; the ranges of a site share it. */
export interface Way {
  readonly hops: readonly Hop[];
  /** The same for the same hops. */
  readonly text: string;
}

/** A range, its routes, and why they don't lead to the site, if so. */
export interface Wanted {
  readonly cidr: Cidr;
  readonly site: string;
  readonly way: Way;
  readonly refused?: Refusal;
}

export const wayOf = (...hops: readonly Hop[]): Way => ({
  hops: hops.map((hop) => ({ ...hop, text: hopText(hop) })),
  text: hops.map((hop) => `${hop.type}${hopText(hop)}`).join('; '),
});

/**
 * Lies below every route of ours, and alone where there can be none: when a device goes, and the kernel takes its routes
 * along, packets end there and don't follow the default route out of the node, in clear.
 */
const NOWHERE: Hop = { type: 'unreachable', metric: WORST_METRIC };

/** Every range of every site that concerns this node. */
export function desiredRoutes({ sites }: Vpn, node: NodeState): Wanted[] {
  const wanted: Wanted[] = [];
  for (const site of sites) {
    const reaches = { 4: reachOf(site, node, 4), 6: reachOf(site, node, 6) };
    for (const cidr of site.peerCIDRs) {
      const reach = reaches[familyOf(cidr)];
      if (reach !== undefined) wanted.push({ cidr, site: site.name, ...reach });
    }
  }
  return wanted;
}

/** The same for all ranges of a site and family. */
type Reach = Pick<Wanted, 'way' | 'refused'>;

/** Undefined where this node needs none. */
function reachOf(site: Site, node: NodeState, family: Family): Reach | undefined {
  const listed = node.frontends.find((one) => one.site === site.name);
  const frontend = listed !== undefined && isGone(listed, family) ? undefined : listed;
  // Until the Pod has gone, too, what it held back does not leave in clear.
  if (frontend === undefined && !node.tunnels) return listed && { way: wayOf(NOWHERE) };
  const hop = frontend === undefined ? throughTunnel(site, node, family) : throughPod(site, frontend, node, family);
  return 'reason' in hop ? { way: wayOf(NOWHERE), refused: hop } : { way: wayOf(hop, NOWHERE) };
}

/** When a pod ends, its interface and the route to it go a moment before the Pod: Cilium has no part in that. */
function isGone({ ends, routes }: LocalFrontend, family: Family): boolean {
  const route = routes[family];
  return ends && route !== undefined && 'indirect' in route;
}

/** To the pod's own interface. */
function throughPod(
  site: Site,
  { pod, addresses, routes }: LocalFrontend,
  node: NodeState,
  family: Family,
): Hop | Refusal {
  const via = addresses[family];
  const podRoute = routes[family];
  if (via === undefined || podRoute === undefined)
    return {
      reason: 'no-pod-address',
      message: `the frontend's pod ${pod} has no IPv${family} address: turn on IPv${family} in the cluster (cilium-config enable-ipv${family}), or take the IPv${family} ranges out of the configuration`,
    };
  if ('indirect' in podRoute) return { reason: 'no-endpoint-route', message: podRoute.indirect };
  const { direct } = podRoute;
  const src = node.ciliumHost?.addresses[family];
  return { type: 'unicast', via, device: direct.name, ...(src === undefined ? {} : { src }), ...mtuOf(site, direct) };
}

/** The host's own traffic, into Cilium's tunnel; its source must be an address that the VPN's traffic selectors have. */
function throughTunnel(site: Site, { ciliumHost }: NodeState, family: Family): Hop | Refusal {
  const src = ciliumHost?.addresses[family];
  if (ciliumHost === undefined || src === undefined)
    return {
      reason: 'no-cilium-host',
      message:
        ciliumHost === undefined
          ? "this node has no device cilium_host: Cilium's agent does not run here yet"
          : `cilium_host has no IPv${family} address: turn on IPv${family} in Cilium (enable-ipv${family}), or take the IPv${family} ranges out of the configuration`,
    };
  return { type: 'unicast', device: ciliumHost.name, src, ...mtuOf(site, ciliumHost) };
}

/** Never more than the device carries: the kernel would take it, and lose the packets. */
function mtuOf({ mtu }: Site, device: Device): { mtu?: number } {
  return mtu === null ? {} : { mtu: Math.min(mtu, device.mtu) };
}

/** Sites whose mtu is larger than their route's device carries. */
export function tooLargeMtus(
  { sites }: Vpn,
  node: NodeState,
): { site: string; mtu: number; device: string; limit: number }[] {
  return sites.flatMap(({ name, mtu }) => {
    const frontend = node.frontends.find(({ site }) => site === name);
    const direct = Object.values(frontend?.routes ?? {}).find((route) => 'direct' in route)?.direct;
    const device = direct ?? (node.tunnels ? node.ciliumHost : undefined);
    if (mtu === null || device === undefined || mtu <= device.mtu) return [];
    return [{ site: name, mtu, device: device.name, limit: device.mtu }];
  });
}
