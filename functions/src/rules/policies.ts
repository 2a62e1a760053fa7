/**
 * Network policies. A CIDR in a policy that lies in a peer CIDR breaks Cilium's steering: the same prefix loses its
 * tunnel peer, a longer one inside wins the lookup without one (cilium/cilium pkg/ipcache/metadata.go).
 */
import { Cidr, overlaps } from '../../model/cidr.ts';
import { problems } from '../../model/codec.ts';
import { isRecord, type Item } from '../../model/krm.ts';
import * as E from 'fp-ts/lib/Either.js';
import { about, kindOf } from '../items.ts';
import { called, type Rule } from './rule.ts';

const KINDS = ['NetworkPolicy', 'CiliumNetworkPolicy', 'CiliumClusterwideNetworkPolicy', 'CiliumCIDRGroup'];

export const policyCIDRs: Rule = ({ vpn }, items) => {
  const ranges = vpn.sites.flatMap(({ name, peerCIDRs }) => peerCIDRs.map((cidr) => ({ cidr, site: name })));
  const places = new Map<Cidr, Place[]>();
  for (const item of items.filter((candidate) => KINDS.includes(kindOf(candidate))))
    for (const { path, cidr } of cidrsOf(item)) places.set(cidr, [...(places.get(cidr) ?? []), { item, path }]);
  const written = [...places].map(([cidr, at]) => ({ cidr, at }));
  return overlaps<Entry>([...ranges, ...written]).flatMap(({ inner, outer }) => {
    if (!('at' in inner) || 'at' in outer) return [];
    const message = `${inner.cidr} lies in the peer CIDR ${outer.cidr} of ${called(outer.site)}, which Cilium then no longer sends to the tunnel: select the frontend's pods by their labels instead`;
    return inner.at
      .filter(({ path }) => !(isException(path) && inner.cidr === outer.cidr))
      .map(({ item, path }) => about(item, 'error', path, message));
  });
};

interface Place {
  readonly item: Item;
  readonly path: string;
}

type Entry = { readonly cidr: Cidr } & ({ readonly site: string } | { readonly at: readonly Place[] });

/** What a policy leaves out of a wider range is no prefix in Cilium's tables, but every piece of the rest is one. */
const isException = (path: string): boolean => /\.except\[\d+\]$/.test(path);

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
