/** What has to be done to a site's SAs, from what charon says it has: pure. */
import { containsCidr, familyOf, Cidr } from '../../../functions/model/cidr.ts';
import type { Site } from '../../../functions/model/vpn.ts';
import type { Child } from '../connection/children.ts';
import type { ChildSa, IkeSa } from './sas.ts';

type StartAction = Site['ipsec']['startAction'];

/** SAs by an earlier configuration, by unique id: they carry traffic until new ones stand in their place. */
export interface Outdated {
  readonly ikeSas: Pick<ReadonlySet<string>, 'has'>;
  readonly childSas: Pick<ReadonlySet<string>, 'has'>;
}

export interface Plan {
  /** Children to initiate, by name. */
  readonly dial: readonly string[];
  /** CHILD_SAs to close, by unique id: their child is no longer in the configuration, or a new one stands. */
  readonly drop: readonly string[];
  /** IKE_SAs to close, by unique id. */
  readonly dropIkeSas: readonly string[];
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
/** Those in which it carries traffic. */
const STANDING: ReadonlySet<string> = new Set(['INSTALLED', 'UPDATING', 'REKEYING', 'REKEYED']);
/** An IKE_SA in these is being made; what was asked of it waits in it (ike_sa_state_t in ike_sa.h). */
const BEGINNING: ReadonlySet<string> = new Set(['CREATED', 'CONNECTING']);

/**
 * Nothing is dialled while an IKE_SA is being made, whoever makes it: two gateways that dial each other at once would end up
 * with two of each SA. With `trap` alone only what is to be replaced is dialled; with `none` nothing, the gateway does it.
 */
export function planTunnel(
  children: readonly Child[],
  startAction: StartAction,
  sas: readonly IkeSa[],
  outdated: Outdated,
): Plan {
  const known = new Set(children.map(({ name }) => name));
  const dialled = children.filter((child) => child.dialled && startAction !== 'none');
  const live = sas.flatMap((ike) =>
    ike.children
      .filter(({ state }) => ALIVE.has(state))
      .map((sa) => ({ sa, old: outdated.ikeSas.has(ike.uid), replaced: outdated.childSas.has(sa.uid) })),
  );
  const fresh = live.filter(({ sa, old, replaced }) => known.has(sa.name) && !old && !replaced).map(({ sa }) => sa);
  const without = (some: readonly ChildSa[]): Set<string> =>
    new Set(dialled.filter((child) => !isUp(child, some)).map(({ name }) => name));
  const missing = without(fresh);
  const notStanding = without(fresh.filter(({ state }) => STANDING.has(state)));

  // Before these stand nothing old goes.
  const standing = live.filter(({ sa, old }) => old && STANDING.has(sa.state));
  const again =
    standing.length === 0
      ? []
      : namesToMakeAgain(
          dialled,
          standing.map(({ sa }) => sa.name),
        );
  const replaced = live.filter((one) => one.replaced && dialled.some(({ name }) => name === one.sa.name));
  // Of a child that is no more, whose ranges may be in another one now.
  const unknown = live.filter(({ sa }) => !known.has(sa.name));
  const heirs = (sa: ChildSa): string[] =>
    dialled
      .filter(({ name, remoteTs }) => notStanding.has(name) && touch(sa.remoteTs, remoteTs))
      .map(({ name }) => name);
  const wanted = new Set([...again, ...replaced.map(({ sa }) => sa.name), ...unknown.flatMap(({ sa }) => heirs(sa))]);

  const ended = unknown.filter(({ sa }) => heirs(sa).length === 0);
  const over = replaced.filter(({ sa }) => !notStanding.has(sa.name));
  const old = sas.filter(({ uid }) => outdated.ikeSas.has(uid));
  const waiting =
    startAction !== 'none' && sas.some(({ state, uid }) => BEGINNING.has(state) && !outdated.ikeSas.has(uid));
  const dial = [...missing].filter((name) => startAction.includes('start') || wanted.has(name));
  return {
    dial: waiting ? [] : dial,
    drop: [...ended, ...over].map(({ sa }) => sa.uid),
    dropIkeSas: again.some((name) => notStanding.has(name)) ? [] : old.map(({ uid }) => uid),
    waiting,
  };
}

/** Of the old IKE_SA's children those that we dial, since the gateway may refuse others; all where it had none of them. */
function namesToMakeAgain(dialled: readonly Child[], standing: readonly string[]): string[] {
  const names = dialled.map(({ name }) => name);
  const stood = names.filter((name) => standing.includes(name));
  return stood.length > 0 ? stood : names;
}

/** By an SA of its own, or by one that the gateway asked for and that holds all its ranges. */
function isUp({ name, localTs, remoteTs }: Child, live: readonly ChildSa[]): boolean {
  return live.some(
    (sa) => sa.name === name || (covers(sa.localTs, localTs, remoteTs) && covers(sa.remoteTs, remoteTs, remoteTs)),
  );
}

/** True where they share an address. */
const touch = (selectors: readonly string[], cidrs: readonly Cidr[]): boolean =>
  selectors
    .filter((selector) => Cidr.is(selector))
    .some((one) => cidrs.some((cidr) => containsCidr(one, cidr) || containsCidr(cidr, one)));

/** Every one of `wanted` that is of a family of `families` is inside one of `selectors`. */
function covers(selectors: readonly string[], wanted: readonly Cidr[], families: readonly Cidr[]): boolean {
  const of = new Set(families.map(familyOf));
  const ranges = selectors.filter((selector) => Cidr.is(selector));
  return wanted
    .filter((cidr) => of.has(familyOf(cidr)))
    .every((cidr) => ranges.some((range) => containsCidr(range, cidr)));
}
