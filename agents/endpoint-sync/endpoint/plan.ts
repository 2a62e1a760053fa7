/**
 * What a frontend's CiliumEndpoint must list: its own addresses, as Cilium's agent wrote them, and the on-prem ranges of
 * its site. Every other node's agent puts each entry of `.status.networking.addressing` into its ipcache, a prefix as
 * well as an address (cilium/cilium pkg/k8s/watchers/cilium_endpoint.go, pkg/ipcache/ipcache.go).
 */
import { canonicalAddress, familyOf, sortCidrs, type Cidr } from '../../../functions/model/cidr.ts';
import type { JsonPatchOp } from '../../lib/json-patch.ts';
import type { Pod } from '../../lib/kube/objects.ts';
import type { AddressPair, CiliumEndpoint } from '../objects.ts';

export type EndpointPlan =
  | { readonly kind: 'converged' }
  /** Not yet: an event will tell when. */
  | { readonly kind: 'waiting'; readonly reason: string }
  | {
      readonly kind: 'patch';
      readonly ops: readonly JsonPatchOp[];
      readonly added: readonly string[];
      readonly removed: readonly string[];
    };

const FAMILIES = ['ipv4', 'ipv6'] as const;
type Field = (typeof FAMILIES)[number];
const fieldOf = (cidr: Cidr): Field => (familyOf(cidr) === 4 ? 'ipv4' : 'ipv6');

/** Cilium itself writes addresses only: in a frontend's CiliumEndpoint every prefix is ours. */
const isPrefix = (value: string): boolean => value.includes('/');

const addressingOf = ({ status }: CiliumEndpoint): readonly AddressPair[] => status?.networking?.addressing ?? [];

/** The prefixes that a CiliumEndpoint lists, sorted, repeats kept. */
export function prefixesOf(endpoint: CiliumEndpoint): string[] {
  return addressingOf(endpoint)
    .flatMap((pair) => FAMILIES.map((field) => pair[field] ?? ''))
    .filter(isPrefix)
    .sort();
}

/**
 * `cidrs`: those of the pod's site, none to take all of ours out. The patch applies only to the very object that was
 * seen: someone who changed it in between is not overwritten, and their event brings us back.
 */
export function planEndpoint(endpoint: CiliumEndpoint, pod: Pod, cidrs: readonly Cidr[]): EndpointPlan {
  const owner = endpoint.metadata.ownerReferences?.find(({ kind }) => kind === 'Pod');
  if (owner !== undefined && owner.uid !== pod.metadata.uid)
    return { kind: 'waiting', reason: 'the CiliumEndpoint still belongs to an earlier pod of that name' };
  const addressing = addressingOf(endpoint);
  const own = addressing.map(withoutPrefixes).filter((pair) => pair !== undefined);
  const missing = missingAddresses(own, pod);
  if (addressing.length === 0 || own.length + missing.length === 0)
    return { kind: 'waiting', reason: "Cilium's agent has not written the endpoint's addresses yet" };

  const before = prefixesOf(endpoint);
  const wanted = sortCidrs(cidrs);
  const listed = new Set(addressing.flatMap((pair) => FAMILIES.map((field) => `${field} ${pair[field]}`)));
  const same =
    missing.length === 0 &&
    before.length === wanted.length &&
    wanted.every((cidr) => listed.has(`${fieldOf(cidr)} ${cidr}`));
  if (same) return { kind: 'converged' };
  const { uid, resourceVersion } = endpoint.metadata;
  return {
    kind: 'patch',
    ops: [
      { op: 'test', path: '/metadata/uid', value: uid },
      // Not a `test`: this one is answered by a true 409, which no refusal looks like.
      { op: 'replace', path: '/metadata/resourceVersion', value: resourceVersion },
      {
        op: 'replace',
        path: '/status/networking/addressing',
        value: [...own, ...missing, ...wanted.map((cidr) => ({ [fieldOf(cidr)]: cidr }))],
      },
    ],
    added: difference(wanted, before),
    removed: difference(before, wanted),
  };
}

function difference(from: readonly string[], without: readonly string[]): string[] {
  const left = new Set(without);
  return from.filter((entry) => !left.has(entry));
}

/** The pair itself where it holds no prefix, what else it holds where it does, undefined where that is nothing. */
function withoutPrefixes(pair: AddressPair): AddressPair | undefined {
  const kept = Object.entries(pair).filter(([, value]) => typeof value !== 'string' || !isPrefix(value));
  if (kept.length === Object.keys(pair).length) return pair;
  return kept.length === 0 ? undefined : Object.fromEntries(kept);
}

/** The pod's addresses that no pair holds: someone took them out. */
function missingAddresses(pairs: readonly AddressPair[], pod: Pod): AddressPair[] {
  const listed = new Set(pairs.flatMap((pair) => FAMILIES.map((field) => canonicalAddress(pair[field] ?? ''))));
  return (pod.status?.podIPs ?? [])
    .filter(({ ip }) => !listed.has(canonicalAddress(ip)))
    .map(({ ip }) => (ip.includes(':') ? { ipv6: ip } : { ipv4: ip }));
}
