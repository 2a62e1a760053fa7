/** What has to be done to a site's SAs, from what charon says it has: pure. */
import { containsCidr, familyOf, Cidr } from '../../../functions/model/cidr.ts';
import type { Child } from '../connection/children.ts';
import type { ChildSa, IkeSa } from './sas.ts';

export interface Plan {
  /** Children to initiate, by name. */
  readonly dial: readonly string[];
  /** CHILD_SAs to close, by unique id: their child is no longer in the configuration. */
  readonly drop: readonly string[];
  /** An IKE_SA is being made: there may be more to dial when it stands, or has failed. */
  readonly waiting: boolean;
}

/** States in which a CHILD_SA carries traffic or is about to (child_sa_state_t in strongSwan's child_sa.h). */
const ALIVE: ReadonlySet<string> = new Set([
  'CREATED',
  'ROUTED',
  'INSTALLING',
  'INSTALLED',
  'UPDATING',
  'REKEYING',
  'REKEYED',
  'RETRYING',
]);
/** An IKE_SA in these is being made; what was asked of it waits in it (ike_sa_state_t in ike_sa.h). */
const BEGINNING: ReadonlySet<string> = new Set(['CREATED', 'CONNECTING']);

/**
 * `dials`: whether it is us who dial. Nothing is dialled while an IKE_SA is being made, whoever makes it: two gateways that
 * dial each other at once would end up with two of each SA.
 */
export function planTunnel(children: readonly Child[], dials: boolean, sas: readonly IkeSa[]): Plan {
  const known = new Set(children.map(({ name }) => name));
  const live = sas.flatMap((sa) => sa.children).filter(({ state }) => ALIVE.has(state));
  const drop = live.filter(({ name }) => !known.has(name)).map(({ uid }) => uid);
  const waiting = dials && sas.some(({ state }) => BEGINNING.has(state));
  if (!dials || waiting) return { dial: [], drop, waiting };
  const kept = live.filter(({ name }) => known.has(name));
  const dial = children.filter((child) => child.dialled && !isUp(child, kept)).map(({ name }) => name);
  return { dial, drop, waiting };
}

/** By an SA of its own, or by one that the gateway asked for and that holds all its ranges. */
function isUp({ name, localTs, remoteTs }: Child, live: readonly ChildSa[]): boolean {
  return live.some(
    (sa) => sa.name === name || (covers(sa.localTs, localTs, remoteTs) && covers(sa.remoteTs, remoteTs, remoteTs)),
  );
}

/** Every one of `wanted` that is of a family of `families` is inside one of `selectors`. */
function covers(selectors: readonly string[], wanted: readonly Cidr[], families: readonly Cidr[]): boolean {
  const of = new Set(families.map(familyOf));
  const ranges = selectors.filter((selector) => Cidr.is(selector));
  return wanted
    .filter((cidr) => of.has(familyOf(cidr)))
    .every((cidr) => ranges.some((range) => containsCidr(range, cidr)));
}
