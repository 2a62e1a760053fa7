/** Routes as data, and as `ip route` reads and prints them (ip-route(8), iproute2 `ip/iproute.c`). */
import { canonicalAddress, familyOf, hostCidr, type Cidr } from '../../../functions/model/cidr.ts';

/**
 * rtm_protocol of every route that is ours: how they are told from others', also after a restart. Numbers from 128 on are
 * free for use (linux/rtnetlink.h: RTPROT_STATIC and above are not interpreted by the kernel); routing daemons use 186-192.
 */
export const PROTO = 197;
/** The metric of a route that any other wins over. */
export const WORST_METRIC = 4_294_967_295;

const TABLE_MAIN = 254;
const TYPES: Record<string, Route['type'] | undefined> = { 1: 'unicast', 7: 'unreachable' };

export interface Route {
  readonly dst: Cidr;
  readonly type: 'unicast' | 'unreachable';
  readonly device?: string;
  readonly via?: string;
  readonly src?: string;
  /** Bytes. */
  readonly mtu?: number;
  /** Of several routes to one prefix the one with the least wins. Default: the kernel's for the family. */
  readonly metric?: number;
}

/** A route of the main table as it is. */
export interface SeenRoute extends Omit<Route, 'type'> {
  readonly type: Route['type'] | 'other';
  readonly proto: number;
  readonly metric: number;
}

/** The kernel's for a route that names none (IP6_RT_PRIO_USER in net/ip6_route.h; 0 in IPv4). */
const metricOf = ({ dst, metric }: Route): number => metric ?? (familyOf(dst) === 6 ? 1024 : 0);

/** The kernel holds one route of ours for each of these. */
export const routeKey = (route: Route | SeenRoute): string => `${route.dst} ${metricOf(route as Route)}`;

/** As `ip route` takes it, without our protocol: `10.8.0.0/16 via 10.10.0.5 dev lxc1 src 10.10.0.1 mtu 1300`. */
export function routeText(route: Route): string {
  const words = [route.type === 'unreachable' ? `unreachable ${route.dst}` : route.dst];
  const { via, device, src, mtu, metric } = route;
  for (const [name, value] of Object.entries({ via, dev: device, src, mtu, metric }))
    if (value !== undefined) words.push(name, String(value));
  return words.join(' ');
}

/** True where the kernel's route is what was asked for. (The device of an unreachable one is the kernel's own.) */
export function sameRoute(seen: SeenRoute, route: Route): boolean {
  return (
    seen.type === route.type &&
    seen.via === route.via &&
    seen.src === route.src &&
    seen.mtu === route.mtu &&
    (route.type === 'unreachable' || seen.device === route.device)
  );
}

/** One object of `ip -j -N -d route show`. */
interface RouteJson {
  readonly type?: string;
  readonly dst: string;
  readonly gateway?: string;
  readonly dev?: string;
  readonly protocol?: string;
  readonly prefsrc?: string;
  readonly metric?: number;
  readonly metrics?: readonly { readonly mtu?: number }[];
}

/** `default` has no place here: it is in no range, and a range that holds everything is refused for what is inside it. */
export function readRoutes(objects: readonly unknown[]): SeenRoute[] {
  return (objects as readonly RouteJson[]).flatMap((route) => {
    const dst = readPrefix(route.dst);
    return dst === undefined ? [] : [readRoute(dst, route)];
  });
}

function readRoute(
  dst: Cidr,
  { type = '1', protocol, metric = 0, gateway, dev, prefsrc, metrics }: RouteJson,
): SeenRoute {
  const fields = { via: gateway, device: dev, src: prefsrc, mtu: metrics?.[0]?.mtu };
  return {
    dst,
    type: TYPES[type] ?? 'other',
    proto: Number(protocol),
    metric,
    ...Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)),
  };
}

/** `10.8.0.0/16`, or an address alone; undefined for `default`. The kernel masks, and writes addresses as we do. */
export function readPrefix(text: string): Cidr | undefined {
  if (text.includes('/')) return text as Cidr;
  return canonicalAddress(text) === undefined ? undefined : hostCidr(text);
}

export const isMainTable = (table: string): boolean => Number(table) === TABLE_MAIN;
