/** Which on-prem ranges Cilium's agent on this node has lost: facts of cilium/cilium pkg/ipcache. Pure. */
import type { Cidr } from '../../../functions/model/cidr.ts';
import type { IpEntry } from './api.ts';

/** What CiliumEndpoints put in: pkg/source, CustomResource. */
const FROM_ENDPOINT = 'custom-resource';

export type Loss =
  /** The agent has no entry for the range, or a policy took it. Taking it out and putting it in again helps. */
  | { readonly cidr: Cidr; readonly kind: 'missing' | 'policy' }
  /** The agent knows neither the range nor the frontend's own address: what lists both has not reached this node. */
  | { readonly cidr: Cidr; readonly kind: 'behind' }
  /** The range is there, but a part of it is a policy's. Only the policy's change helps. */
  | { readonly cidr: Cidr; readonly kind: 'inside'; readonly part: string };

/** `entries`: those for the range and for all that is inside it. `ranges`: all on-prem ranges, which may lie inside each other. */
export function findLoss(cidr: Cidr, entries: readonly IpEntry[], ranges: ReadonlySet<string>): Loss | undefined {
  const own = entries.find((entry) => entry.cidr === cidr);
  if (own === undefined) return { cidr, kind: 'missing' };
  if (!isSteered(own)) return { cidr, kind: 'policy' };
  const part = entries.find((entry) => entry.cidr !== cidr && !ranges.has(entry.cidr) && !isSteered(entry));
  return part === undefined ? undefined : { cidr, kind: 'inside', part: part.cidr };
}

/**
 * The entry is a CiliumEndpoint's. (A policy's has another source or none, and may have kept the name: what the agent does
 * to an entry that it takes over is in pkg/ipcache/metadata.go.)
 */
const isSteered = ({ metadata }: IpEntry): boolean => metadata?.source === FROM_ENDPOINT;
