/** Which pod of this node is the frontend of which site. */
import { canonicalAddress, type Family } from '../../functions/model/cidr.ts';
import type { Vpn } from '../../functions/model/vpn.ts';
import { SITE_LABEL } from '../lib/kube/paths.ts';
import type { Pod } from '../lib/kube/objects.ts';

export interface Frontend {
  /** The pod's name. */
  readonly pod: string;
  /** The pod's, which another one of that name does not have. */
  readonly uid: string;
  /** The site's name, empty for the unnamed one. */
  readonly site: string;
  /** The pod's address of each family that it has. */
  readonly addresses: Readonly<Partial<Record<Family, string>>>;
  /** Its node's, as kubelet has them, in canonical text: one of each family, of an old kubelet the first alone. */
  readonly hosts: readonly string[];
  /** Its deletion was asked for: its interface goes before the Pod does. */
  readonly ends: boolean;
}

export interface Frontends {
  /** One for each site at most, sorted by site. */
  readonly frontends: readonly Frontend[];
  /** Pods that are none, and why. */
  readonly problems: readonly { readonly pod: string; readonly problem: string }[];
}

/**
 * Of two pods of one site, which only a hand-over has, the newer one that is not being deleted. A pod without an address is
 * not yet one, a pod that has ended is one no more.
 */
export function frontendsOf(pods: readonly Pod[], vpn: Vpn): Frontends {
  const known = new Set(vpn.sites.map(({ name }) => name));
  const bySite = new Map<string, Frontend>();
  const problems: { pod: string; problem: string }[] = [];
  for (const pod of [...pods].sort(preferredFirst)) {
    const frontend = frontendOf(pod);
    if (frontend === undefined) continue;
    const problem = problemOf(pod, frontend, known);
    if (problem !== undefined) problems.push({ pod: frontend.pod, problem });
    else if (!bySite.has(frontend.site)) bySite.set(frontend.site, frontend);
  }
  const frontends = [...bySite.values()].sort((a, b) => (a.site < b.site ? -1 : 1));
  return { frontends, problems };
}

function frontendOf({ metadata, status }: Pod): Frontend | undefined {
  const [first, ...rest] = podAddresses(status);
  if (first === undefined || ['Succeeded', 'Failed'].includes(status?.phase ?? '')) return undefined;
  const addresses: Partial<Record<Family, string>> = {};
  for (const address of [first, ...rest]) addresses[address.includes(':') ? 6 : 4] ??= address;
  const { name, uid, labels, deletionTimestamp } = metadata;
  return {
    pod: name,
    uid,
    site: labels?.[SITE_LABEL] ?? '',
    addresses,
    hosts: hostAddresses(status),
    ends: deletionTimestamp !== undefined,
  };
}

const hostAddresses = (status: Pod['status']): string[] =>
  (status?.hostIPs?.map(({ ip }) => ip) ?? [status?.hostIP ?? '']).flatMap((ip) => canonicalAddress(ip) ?? []);

/** In canonical text. */
export const podAddresses = (status: Pod['status']): string[] =>
  (status?.podIPs ?? []).flatMap(({ ip }) => canonicalAddress(ip) ?? []);

function problemOf({ spec }: Pod, { site }: Frontend, known: ReadonlySet<string>): string | undefined {
  if (spec?.hostNetwork === true)
    return 'is in the host network: a frontend needs a network of its own, take hostNetwork out of its pod template';
  if (known.has(site)) return undefined;
  const sites = [...known].map((name) => (name === '' ? 'the unnamed one' : name)).join(', ');
  return `belongs to the site "${site}" (label ${SITE_LABEL}), which the configuration does not have; it has ${sites}: render and apply again`;
}

function preferredFirst(a: Pod, b: Pod): number {
  const rank = ({ metadata }: Pod): string =>
    `${metadata.deletionTimestamp === undefined ? 1 : 0} ${metadata.creationTimestamp ?? ''} ${metadata.name}`;
  return rank(a) < rank(b) ? 1 : -1;
}
