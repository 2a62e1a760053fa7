/** The node's nftables table: what stands in for Cilium's programs at the pods' interfaces. */
import { HOST_DEVICE, type LocalEndpoint } from './plan.ts';

export const TABLE = 'ip cilium-stand-in';
/** On packets from pods: their routes are other ones than the host's. Neither kube-proxy's (0x4000) nor kubelet's (0x8000). */
export const POD_MARK = 0x20000;

export interface Sets {
  /** Who may send with which address. */
  readonly endpoints: readonly LocalEndpoint[];
  /** Interfaces that may send with any. */
  readonly unchecked: readonly string[];
  /** All nodes' addresses. */
  readonly nodes: readonly string[];
}

const elementsOf = ({ endpoints, unchecked, nodes }: Sets): Record<string, string[]> => ({
  endpoints: endpoints.map(({ interfaceName, address }) => `"${interfaceName}" . ${address}`).sort(),
  unchecked: unchecked.map((name) => `"${name}"`).sort(),
  nodes: [...nodes].sort(),
});

/** For `nft -f -`: new contents of all sets, in one transaction. */
export const setsText = (sets: Sets): string =>
  Object.entries(elementsOf(sets))
    .map(
      ([name, elements]) =>
        `flush set ${TABLE} ${name}\n` +
        (elements.length === 0 ? '' : `add element ${TABLE} ${name} { ${elements.join(', ')} }\n`),
    )
    .join('');

export interface Networks {
  readonly podCIDR: string;
  /** Where foreign sources do not reach Services: their range. */
  readonly closedServices: string | undefined;
}

/** The same with the whole table, whatever there was of it before. */
export const rulesetText = (sets: Sets, { podCIDR, closedServices }: Networks): string => `
table ${TABLE}
delete table ${TABLE}
table ${TABLE} {
  set endpoints { type ifname . ipv4_addr; }
  set unchecked { type ifname; }
  set nodes { type ipv4_addr; }
  chain from-pods {
    type filter hook prerouting priority raw;
    iifname != "veth*" return
    iifname != @unchecked iifname . ip saddr != @endpoints drop
    ${closedServices === undefined ? '' : `iifname . ip saddr != @endpoints ip daddr ${closedServices} drop`}
    meta mark set meta mark | ${POD_MARK}
  }
  chain to-world {
    type nat hook postrouting priority srcnat;
    oifname { "veth*", "${HOST_DEVICE}", "lo" } return
    ip saddr ${podCIDR} ip daddr != @nodes masquerade
  }
}
${setsText(sets)}`;
