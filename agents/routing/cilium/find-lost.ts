/** Which on-prem ranges Cilium's agent on this node has lost: facts of cilium/cilium pkg/ipcache. Pure. */
import type { Cidr } from '../../../functions/model/cidr.ts';
import type { IpEntry } from './api.ts';

/** What CiliumEndpoints put in: pkg/source, CustomResource. */
const FROM_ENDPOINT = 'custom-resource';

export type Loss =
  /** The agent has no entry for the range, or a policy took it. Taking it out and putting it in again helps. */
  | { readonly cidr: Cidr; readonly kind: 'missing' | 'policy' }
  /** The agent knows neither the range nor the frontend's own address: the CiliumEndpoint has not reached it. */
  | { readonly cidr: Cidr; readonly kind: 'behind' }
  /** The agent sends the range to another node although the frontend runs on this one: it has an older CiliumEndpoint. */
  | { readonly cidr: Cidr; readonly kind: 'elsewhere' }
  /** The range is there, but a part of it is a policy's. Only the policy's change helps. */
  | { readonly cidr: Cidr; readonly kind: 'inside'; readonly part: string };

/**
 * `entries`: those for the range and for all that is inside it. `ranges`: all on-prem ranges, which may lie inside each other.
 * `hosts`: this node's addresses, where the range's frontend runs on it.
 */
export function findLoss(
  cidr: Cidr,
  entries: readonly IpEntry[],
  ranges: ReadonlySet<string>,
  hosts: readonly string[] = [],
): Loss | undefined {
  const own = entries.find((entry) => entry.cidr === cidr);
  if (own === undefined) return { cidr, kind: 'missing' };
  if (!isSteered(own)) return { cidr, kind: 'policy' };
  if (isElsewhere(own, hosts)) return { cidr, kind: 'elsewhere' };
  const part = entries.find((entry) => entry.cidr !== cidr && !ranges.has(entry.cidr) && !isSteered(entry));
  return part === undefined ? undefined : { cidr, kind: 'inside', part: part.cidr };
}

/** Cilium names one address of a node, of either family (pkg/node, GetCiliumEndpointNodeIP): judged where kubelet names one too. */
const isElsewhere = ({ hostIP = '' }: IpEntry, hosts: readonly string[]): boolean => {
  const same = hosts.filter((host) => host.includes(':') === hostIP.includes(':'));
  return hostIP !== '' && same.length > 0 && !same.includes(hostIP);
};

/**
 * The entry is a CiliumEndpoint's. (A policy's has another source or none, and may have kept the name: what the agent does
 * to an entry that it takes over is in pkg/ipcache/metadata.go.)
 */
const isSteered = ({ metadata }: IpEntry): boolean => metadata?.source === FROM_ENDPOINT;
