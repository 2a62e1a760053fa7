/** The frontend pod's nftables table, as text for `nft -f -`. Pure. */
import { familyOf, type Cidr } from '../../../functions/model/cidr.ts';

export const TABLE = 'inet constellation_vpn';
/** The device that charon's plugin kernel-libipsec encrypts and decrypts by; there is none where the kernel does. */
const CHARON_TUN = '"ipsec0"';
/** An IP header without options and a TCP header without options, in bytes: RFC 9293, 3.7.1. */
const HEADERS = { ipv4: 40, ipv6: 60 } as const;

export interface RulesetInput {
  /** Largest packet towards the on-prem ranges, in bytes; null: no clamp. */
  readonly mtu: number | null;
  readonly peerCIDRs: readonly Cidr[];
}

/**
 * Replaces the table in one transaction, or makes it; nobody else's is touched.
 *
 * Forwarded packets: SYNs in both directions announce no larger segment than fits (never a larger one than they did), and
 * what neither goes into an IPsec policy nor came out of one is dropped: nothing leaves in clear while no tunnel is up. The
 * pod's own packets to the ranges (of the time the pod started) are dropped in the same case.
 */
export function ruleset(input: RulesetInput): string {
  return `table ${TABLE}
delete table ${TABLE}
table ${TABLE} {
${rangeSet(4, input)}${rangeSet(6, input)}  chain forward {
    type filter hook forward priority filter; policy accept;
${clamps(input)}    rt ipsec missing meta ipsec missing iifname != ${CHARON_TUN} oifname != ${CHARON_TUN} counter drop
  }
  chain output {
    type filter hook output priority filter; policy accept;
    ip daddr @ranges4 rt ipsec missing oifname != ${CHARON_TUN} counter drop
    ip6 daddr @ranges6 rt ipsec missing oifname != ${CHARON_TUN} counter drop
  }
}
`;
}

/** The clamps alone, where the kernel can't tell whether a packet has an IPsec policy. */
export function clampRuleset(input: RulesetInput): string {
  return `table ${TABLE}
delete table ${TABLE}
table ${TABLE} {
  chain forward {
    type filter hook forward priority filter; policy accept;
${clamps(input)}  }
}
`;
}

function rangeSet(family: 4 | 6, { peerCIDRs }: RulesetInput): string {
  const elements = peerCIDRs.filter((cidr) => familyOf(cidr) === family);
  const list = elements.length === 0 ? '' : `    elements = { ${elements.join(', ')} }\n`;
  return `  set ranges${family} {
    type ipv${family}_addr
    flags interval
    auto-merge
${list}  }
`;
}

function clamps({ mtu }: RulesetInput): string {
  if (mtu === null) return '';
  return (['ipv4', 'ipv6'] as const)
    .map((family) => {
      const size = mtu - HEADERS[family];
      return `    meta nfproto ${family} tcp flags & (syn | rst) == syn tcp option maxseg size > ${size} tcp option maxseg size set ${size}\n`;
    })
    .join('');
}
