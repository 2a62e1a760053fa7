/**
 * Network policies. A CIDR in a policy that lies in a peer CIDR breaks Cilium's steering: the same prefix loses its
 * tunnel peer, a longer one inside wins the lookup without one (cilium/cilium pkg/ipcache/metadata.go).
 */
import { Cidr, containsCidr } from '../../model/cidr.ts';
import { problems } from '../../model/codec.ts';
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

/** A CIDR as Cilium and Kubernetes take it: host bits are ignored, an address is one host. */
function masked(text: string): Cidr | undefined {
  const cidr = Cidr.decode(text);
  if (E.isRight(cidr)) return cidr.right;
  const proposed = Cidr.decode(problems(cidr.left)[0]?.proposed);
  return E.isRight(proposed) ? proposed.right : undefined;
}

/** Every text of the spec that is a CIDR or an address, with its path: ipBlock.cidr, except, toCIDR, cidrGroups … */
function cidrsOf(item: Item): { path: string; cidr: Cidr }[] {
  const found: { path: string; cidr: Cidr }[] = [];
  const walk = (value: unknown, path: string): void => {
    if (typeof value === 'string') {
      const cidr = masked(value);
      if (cidr !== undefined) found.push({ path, cidr });
    } else if (Array.isArray(value)) value.forEach((inner, i) => walk(inner, `${path}[${i}]`));
    else if (isRecord(value)) for (const [key, inner] of Object.entries(value)) walk(inner, `${path}.${key}`);
  };
  walk(item.spec, 'spec');
  if (Array.isArray(item.specs)) walk(item.specs, 'specs');
  return found;
}
