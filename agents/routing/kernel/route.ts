/** Routes as data, and as `ip route` reads and prints them (ip-route(8), iproute2 `ip/iproute.c`). */
import { familyOf, hostCidr, type Cidr } from '../../../functions/model/cidr.ts';

/**
 * rtm_protocol of every route that is ours: how they are told from others', also after a restart. The kernel gives no
 * meaning to numbers above RTPROT_STATIC (linux/rtnetlink.h). Taken by others are 8-18, 42, 80 (Calico), 99, 186-192
 * (iproute2's rt_protos) and up to 198 (FRR's zebra/rt_netlink.h).
 */
export const PROTO = 233;
/** The metric of a route that any other wins over. */
export const WORST_METRIC = 4_294_967_295;

/** What `ip` leaves out: RTN_UNICAST, and RTPROT_BOOT, the protocol of a route that was made by hand. */
const UNICAST = '1';
const BOOT = '3';
const TYPES: Record<string, Hop['type'] | undefined> = { 1: 'unicast', 7: 'unreachable' };

/** A route without its destination: many ranges share one. */
export interface Hop {
  readonly type: 'unicast' | 'unreachable';
  readonly device?: string;
  readonly via?: string;
  readonly src?: string;
  /** Bytes. */
  readonly mtu?: number;
  /** Of several routes to one prefix the one with the least wins. Default: the kernel's for the family. */
  readonly metric?: number;
  /** hopText's, made once where thousands of ranges share it. */
  readonly text?: string;
}

/** A route of the main table as it is. */
export interface SeenRoute {
  readonly dst: Cidr;
  readonly type: Hop['type'] | 'other';
  readonly proto: number;
  readonly metric: number;
  readonly device: string | undefined;
  readonly via: string | undefined;
  readonly src: string | undefined;
  readonly mtu: number | undefined;
}

/** Where it names none, the kernel's own (IP6_RT_PRIO_USER in net/ip6_route.h; 0 in IPv4). It holds one route of ours for each. */
export const metricOf = (dst: Cidr, { metric }: Pick<Hop, 'metric'>): number =>
  metric ?? (familyOf(dst) === 6 ? 1024 : 0);

/** The kernel's route once ours was set. */
export const seenAs = (dst: Cidr, hop: Hop): SeenRoute => ({
  dst,
  type: hop.type,
  proto: PROTO,
  metric: metricOf(dst, hop),
  device: hop.device,
  via: hop.via,
  src: hop.src,
  mtu: hop.mtu,
});

/** As `ip route` takes it, without our protocol: `10.8.0.0/16 via 10.10.0.5 dev lxc1 src 10.10.0.1 mtu 1300`. */
export const routeText = (dst: Cidr, hop: Hop): string =>
  `${hop.type === 'unreachable' ? 'unreachable ' : ''}${dst}${hop.text ?? hopText(hop)}`;

/** The part after the destination. */
export function hopText({ via, device, src, mtu, metric }: Hop): string {
  let text = '';
  if (via !== undefined) text += ` via ${via}`;
  if (device !== undefined) text += ` dev ${device}`;
  if (src !== undefined) text += ` src ${src}`;
  if (mtu !== undefined) text += ` mtu ${mtu}`;
  if (metric !== undefined) text += ` metric ${metric}`;
  return text;
}

/** True where the kernel's route is what was asked for. (The device of an unreachable one is the kernel's own.) */
export function sameRoute(seen: SeenRoute, hop: Hop): boolean {
  return (
    seen.type === hop.type &&
    seen.via === hop.via &&
    seen.src === hop.src &&
    seen.mtu === hop.mtu &&
    (hop.type === 'unreachable' || seen.device === hop.device)
  );
}

/** One object of `ip -j -N route show`, which leaves out what is usual. */
interface RouteJson {
  readonly type?: string;
  readonly dst: string;
  /** Of any table but the main one. */
  readonly table?: string;
  readonly gateway?: string;
  readonly dev?: string;
  readonly protocol?: string;
  readonly prefsrc?: string;
  readonly metric?: number;
  readonly metrics?: readonly { readonly mtu?: number }[];
}

/**
 * Those of the main table. `default` has no place here: it is in no range, and a range that holds everything is refused for
 * what is inside it.
 */
export function readRoutes(objects: readonly unknown[]): SeenRoute[] {
  return (objects as readonly RouteJson[]).flatMap((route) => {
    const dst = route.table === undefined ? readPrefix(route.dst) : undefined;
    return dst === undefined ? [] : [readRoute(dst, route)];
  });
}

function readRoute(
  dst: Cidr,
  { type = UNICAST, protocol = BOOT, metric = 0, gateway, dev, prefsrc, metrics }: RouteJson,
): SeenRoute {
  return {
    dst,
    type: TYPES[type] ?? 'other',
    proto: Number(protocol),
    metric,
    via: gateway,
    device: dev,
    src: prefsrc,
    mtu: metrics?.[0]?.mtu,
  };
}

/** `10.8.0.0/16`, or an address alone; undefined for anything else. The kernel masks, and writes addresses as we do. */
export function readPrefix(text: string): Cidr | undefined {
  if (!text.includes('/')) return hostCidr(text);
  return /^[0-9a-f:.]+\/\d+$/.test(text) ? (text as Cidr) : undefined;
}
