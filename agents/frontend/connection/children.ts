/** How a site's traffic is spread over CHILD_SAs: a pure function of the configuration. */
import { familyOf, type Cidr } from '../../../functions/model/cidr.ts';
import { localRanges, type Site, type Vpn } from '../../../functions/model/vpn.ts';

/** What becomes one CHILD_SA, by swanctl's names. */
export interface Child {
  /** Of a single range: the range. It is in charon's log and in metrics. */
  readonly name: string;
  readonly localTs: readonly Cidr[];
  readonly remoteTs: readonly Cidr[];
  /** Made by us; else only accepted. */
  readonly dialled: boolean;
}

/** A TS payload counts its selectors in one byte (RFC 7296, 3.13). */
const MAX_SELECTORS = 255;
/** With more ranges than this, ranges share CHILD_SAs: each costs both gateways a negotiation an hour. */
export const MAX_CHILDREN = 128;
/** A gateway that asks for all ranges at once gets this one. */
export const ALL = 'all';

/**
 * The children of a site's connection. `ipsec.childSAs` decides what we dial; the one named `all` takes whatever the
 * gateway dials, narrowed to what it asks for. Where only the gateway dials, it is the only one.
 */
export function childrenOf(vpn: Vpn, site: Site): Child[] {
  const { startAction, childSAs } = site.ipsec;
  const local = localRanges(vpn, site);
  const whole = chunks(site.peerCIDRs, MAX_SELECTORS).map((remoteTs, i): Child => {
    const name = i === 0 ? ALL : `${ALL}-${i + 1}`;
    return { name, localTs: local, remoteTs, dialled: startAction !== 'none' && childSAs === 'one' };
  });
  if (startAction === 'none' || childSAs === 'one') return whole;
  const groups = childSAs === 'perPair' ? pairs(local, site.peerCIDRs) : ranges(local, site.peerCIDRs);
  // Of a family that we have none of: without local_ts charon would offer its own address.
  const ours = groups.filter(({ localTs }) => localTs.length > 0);
  // More than one can't be asked for at once, and the message must not be twice as long.
  return whole.length > 1 ? ours : [...ours, ...whole];
}

/** One for each range, with all of ours of its family; many ranges share a fixed number. */
function ranges(local: readonly Cidr[], remote: readonly Cidr[]): Child[] {
  const ours = (cidrs: readonly Cidr[]): Cidr[] =>
    local.filter((cidr) => cidrs.some((other) => familyOf(other) === familyOf(cidr)));
  if (remote.length <= MAX_CHILDREN)
    return remote.map((cidr) => ({ name: cidr, localTs: ours([cidr]), remoteTs: [cidr], dialled: true }));
  // A range stays in its bucket whatever is added and removed beside it.
  const buckets = new Map<number, Cidr[]>();
  for (const cidr of remote) {
    const bucket = bucketOf(cidr);
    buckets.set(bucket, [...(buckets.get(bucket) ?? []), cidr]);
  }
  return [...buckets]
    .sort(([a], [b]) => a - b)
    .flatMap(([bucket, cidrs]) =>
      chunks(cidrs, MAX_SELECTORS).map((remoteTs, i) => ({
        name: `ranges-${bucket}${i === 0 ? '' : `-${i + 1}`}`,
        localTs: ours(remoteTs),
        remoteTs,
        dialled: true,
      })),
    );
}

/** One for each pair of a range of ours and one of theirs. */
function pairs(local: readonly Cidr[], remote: readonly Cidr[]): Child[] {
  return remote.flatMap((theirs) =>
    local
      .filter((cidr) => familyOf(cidr) === familyOf(theirs))
      .map((ours) => ({ name: `${ours}=${theirs}`, localTs: [ours], remoteTs: [theirs], dialled: true })),
  );
}

/** FNV-1a (draft-eastlake-fnv), of which any even spread would do. */
function bucketOf(cidr: Cidr): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(cidr)) hash = Math.imul(hash ^ byte, 0x01000193);
  return (hash >>> 0) % MAX_CHILDREN;
}

function chunks<T>(items: readonly T[], size: number): T[][] {
  const parts: T[][] = [];
  for (let at = 0; at < items.length; at += size) parts.push(items.slice(at, at + size));
  return parts;
}
