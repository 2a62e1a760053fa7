/**
 * Network policies. A CIDR in a policy that lies in a peer CIDR breaks Cilium's steering: the same prefix loses its
 * tunnel peer, a longer one inside wins the lookup without one (cilium/cilium pkg/ipcache/metadata.go).
 */
import { Cidr, containsCidr } from '../../model/cidr.ts';
import { isRecord, type Item } from '../../model/krm.ts';
import * as E from 'fp-ts/lib/Either.js';
import { about, kindOf } from '../items.ts';
import { called, type Rule } from './rule.ts';

const KINDS = ['NetworkPolicy', 'CiliumNetworkPolicy', 'CiliumClusterwideNetworkPolicy', 'CiliumCIDRGroup'];

export const policyCIDRs: Rule = ({ vpn }, items) => {
  const ranges = vpn.sites.flatMap(({ name, peerCIDRs }) => peerCIDRs.map((cidr) => ({ name, cidr })));
  return items
    .filter((item) => KINDS.includes(kindOf(item)))
    .flatMap((item) =>
      cidrsOf(item).flatMap(({ path, cidr }) => {
        const hit = ranges.find((range) => containsCidr(range.cidr, cidr));
        if (hit === undefined) return [];
        return [
          about(
            item,
            'error',
            path,
            `${cidr} lies in the peer CIDR ${hit.cidr} of ${called(hit.name)}, which Cilium then no longer sends to the tunnel: select the frontend's pods by their labels instead`,
          ),
        ];
      }),
    );
};

/** Every text of the spec that is a CIDR or an address, with its path: ipBlock.cidr, except, toCIDR, cidrGroups … */
function cidrsOf(item: Item): { path: string; cidr: Cidr }[] {
  const found: { path: string; cidr: Cidr }[] = [];
  const walk = (value: unknown, path: string): void => {
    if (typeof value === 'string') {
      const cidr = Cidr.decode(value);
      if (E.isRight(cidr)) found.push({ path, cidr: cidr.right });
    } else if (Array.isArray(value)) value.forEach((inner, i) => walk(inner, `${path}[${i}]`));
    else if (isRecord(value)) for (const [key, inner] of Object.entries(value)) walk(inner, `${path}.${key}`);
  };
  walk(item.spec, 'spec');
  if (Array.isArray(item.specs)) walk(item.specs, 'specs');
  return found;
}
