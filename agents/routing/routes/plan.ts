/** What has to change: the kernel's routes against those that should be. Pure. */
import { hostCidr, type Cidr } from '../../../functions/model/cidr.ts';
import { metricOf, PROTO, routeText, sameRoute, type Hop, type SeenRoute } from '../kernel/route.ts';
import type { Refusal, Wanted } from './desired.ts';
import type { RangeIndex } from '../range-index.ts';

export interface Step {
  readonly do: 'add' | 'replace' | 'delete';
  readonly cidr: Cidr;
  /** The rest of the line for `ip route`. */
  readonly route: string;
}

export interface Plan {
  /** Empty: converged. */
  readonly steps: readonly Step[];
  /** Ranges that can't be reached, and why. */
  readonly refused: ReadonlyMap<Cidr, Refusal>;
}

/** What was read of the kernel. */
export interface Seen {
  /** Of the main table; for a plan of some ranges alone, those in these ranges. */
  readonly routes: readonly SeenRoute[];
  /** The node's own addresses, of all devices. */
  readonly addresses: readonly string[];
}

/**
 * `concerned`: a plan of these ranges alone, wanted or not; default: of everything. A route of ours that nothing wants is
 * deleted, a route of somebody else's never touched: a range that has one, or one inside it, is refused.
 */
export function planRoutes(index: RangeIndex<Wanted>, seen: Seen, concerned?: ReadonlySet<Cidr>): Plan {
  const refused = conflicts(index, seen);

  const ours = oursAmong(seen.routes, concerned);
  const steps: Step[] = [];
  for (const one of index.all()) {
    if (refused.has(one.cidr)) continue; // somebody else's
    if (one.refused !== undefined) refused.set(one.cidr, one.refused);
    const there = ours.get(one.cidr) ?? [];
    for (const hop of one.way.hops) stepTo(one.cidr, hop, there, steps);
  }
  // What is left nothing wants.
  for (const routes of ours.values()) for (const route of routes) steps.push(deletion(route));
  return { steps, refused };
}

/** By destination, so that a range takes one look, whatever it has. */
function oursAmong(routes: readonly SeenRoute[], concerned: ReadonlySet<Cidr> | undefined): Map<Cidr, SeenRoute[]> {
  const ours = new Map<Cidr, SeenRoute[]>();
  for (const route of routes) {
    if (route.proto !== PROTO || concerned?.has(route.dst) === false) continue;
    const there = ours.get(route.dst);
    if (there === undefined) ours.set(route.dst, [route]);
    else there.push(route);
  }
  return ours;
}

/** At most one step; the route is no longer `there` then. */
function stepTo(cidr: Cidr, hop: Hop, there: SeenRoute[], steps: Step[]): void {
  const at = there.length === 0 ? -1 : there.findIndex(({ metric }) => metric === metricOf(cidr, hop));
  const [found] = at === -1 ? [] : there.splice(at, 1);
  if (found === undefined) steps.push({ do: 'add', cidr, route: routeText(cidr, hop) });
  else if (!sameRoute(found, hop)) steps.push({ do: 'replace', cidr, route: routeText(cidr, hop) });
}

const deletion = ({ dst, metric, type }: SeenRoute): Step => ({
  do: 'delete',
  cidr: dst,
  route: routeText(dst, { type: type === 'unreachable' ? type : 'unicast', ...(metric === 0 ? {} : { metric }) }),
});

/** Ranges that somebody else's route, or an address of this node, is in. */
function conflicts(index: RangeIndex<Wanted>, { routes, addresses }: Seen): Map<Cidr, Refusal> {
  const found = new Map<Cidr, Refusal>();
  for (const route of routes) {
    if (route.proto === PROTO) continue;
    for (const { cidr } of index.around(route.dst))
      found.set(cidr, { reason: 'foreign-route', message: foreign(cidr, route) });
  }
  for (const address of addresses) {
    const host = hostCidr(address);
    for (const { cidr } of host === undefined ? [] : index.around(host))
      found.set(cidr, {
        reason: 'node-address',
        message: `${address}, an address of this node, is in the range: it is no on-prem range, correct peerCIDRs`,
      });
  }
  return found;
}

function foreign(cidr: Cidr, { dst, device, proto }: SeenRoute): string {
  const what =
    dst === cidr ? 'this node has a route to it already' : `this node has a route to ${dst}, which is inside`;
  return `${what} (${device === undefined ? '' : `dev ${device}, `}proto ${proto}), and it is not ours: remove that route, or correct peerCIDRs`;
}
