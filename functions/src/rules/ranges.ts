/** Address ranges: nothing that the VPN takes may belong to somebody else. */
import {
  type Cidr,
  type Family,
  containsAddress,
  containsCidr,
  familyOf,
  hostCidr,
  overlaps,
  parseAddress,
  prefixLength,
} from '../../model/cidr.ts';
import type { Result } from '../../model/krm.ts';
import { localRanges, type Site } from '../../model/vpn.ts';
import { called, inConfig, type Rule } from './rule.ts';

const cidrs = (...texts: string[]): Cidr[] => texts as Cidr[];

/** RFC 6890 and the registries behind it. */
const RESERVED = [
  { name: 'this network (0.0.0.0/8)', ranges: cidrs('0.0.0.0/8') },
  { name: 'loopback', ranges: cidrs('127.0.0.0/8', '::1/128') },
  { name: 'link-local', ranges: cidrs('169.254.0.0/16', 'fe80::/10') },
  { name: 'multicast', ranges: cidrs('224.0.0.0/4', 'ff00::/8') },
  { name: 'reserved (240.0.0.0/4)', ranges: cidrs('240.0.0.0/4') },
  { name: 'unspecified', ranges: cidrs('::/128') },
];

/** RFC 5737, 3849 and 9637: examples of documents, in use nowhere. */
const DOCUMENTATION = cidrs('192.0.2.0/24', '198.51.100.0/24', '203.0.113.0/24', '2001:db8::/32', '3fff::/20');

/** Prefixes this wide or wider are more likely a mistake than a site. */
const WIDE = { 4: 8, 6: 16 } as const;

const MANY = 10_000;

const touches = (a: Cidr, b: Cidr): boolean => containsCidr(a, b) || containsCidr(b, a);

export const clusterRanges: Rule = (config) => {
  const { podCIDR, serviceCIDR } = config.vpn;
  return podCIDR
    .filter((pod) => serviceCIDR.some((service) => touches(pod, service)))
    .map((pod) => inConfig(config, 'error', 'spec.podCIDR', 'overlaps serviceCIDR: take both from the cluster', pod));
};

export const peerRanges: Rule = (config) => {
  const { sites, podCIDR, serviceCIDR } = config.vpn;
  return sites.flatMap(({ name, peerCIDRs }) =>
    peerCIDRs.flatMap((cidr) => {
      const at = (severity: 'error' | 'warning', message: string): Result =>
        inConfig(config, severity, config.paths.peerCIDR(name, cidr), message, cidr);
      if (prefixLength(cidr) === 0)
        return [
          at('error', "is every address, the cluster's own and the gateway's among them: list the on-prem ranges"),
        ];
      const found: Result[] = [];
      const pod = podCIDR.find((range) => touches(range, cidr));
      const service = serviceCIDR.find((range) => touches(range, cidr));
      if (pod !== undefined)
        found.push(at('error', `overlaps podCIDR ${pod}: on-prem and pod ranges must be disjoint`));
      if (service !== undefined)
        found.push(at('error', `overlaps serviceCIDR ${service}: on-prem and Service ranges must be disjoint`));
      for (const { name: reserved, ranges } of RESERVED)
        if (ranges.some((range) => touches(range, cidr)))
          found.push(at('error', `overlaps the ${reserved} range, which is never routed`));
      if (DOCUMENTATION.some((range) => touches(range, cidr)))
        found.push(at('warning', 'is an example range of documentation (RFC 5737, 3849, 9637): write the real one'));
      if (prefixLength(cidr) <= WIDE[familyOf(cidr)])
        found.push(at('warning', 'is very wide: the whole range leaves through the tunnel from every pod'));
      return found;
    }),
  );
};

export const siteOverlaps: Rule = (config) => {
  const entries = config.vpn.sites.flatMap(({ name, peerCIDRs, ipsec: { peer } }) =>
    peerCIDRs.map((cidr) => ({ name, cidr, peer })),
  );
  return overlaps(entries)
    .filter(({ inner, outer }) => inner.name !== outer.name)
    .map(({ inner, outer }) =>
      inConfig(
        config,
        'error',
        config.paths.peerCIDR(inner.name, inner.cidr),
        inner.peer === outer.peer
          ? `overlaps ${outer.cidr} of ${called(outer.name)}, which has the same gateway: a range can belong to one site only; take it out of one of them`
          : `overlaps ${outer.cidr} of ${called(outer.name)}: a range can lie behind one gateway only`,
        inner.cidr,
      ),
    );
};

/** Each family that a site has needs addresses in the cluster, too, and selectors that the gateway is offered. */
export const families: Rule = (config) => {
  const has = (ranges: readonly Cidr[], family: Family): boolean => ranges.some((cidr) => familyOf(cidr) === family);
  return config.vpn.sites.flatMap((site) =>
    ([4, 6] as const).flatMap((family): Result[] => {
      const cidr = site.peerCIDRs.find((c) => familyOf(c) === family);
      const lacks = !has(config.vpn.podCIDR, family)
        ? `podCIDR has no IPv${family} range: no pod could use it`
        : !has(localRanges(config.vpn, site), family)
          ? `localTrafficSelectors has no IPv${family} range: no tunnel could be made to it`
          : undefined;
      if (cidr === undefined || lacks === undefined) return [];
      const path = config.paths.peerCIDR(site.name, cidr);
      return [inConfig(config, 'error', path, `is IPv${family}, but ${lacks}`, cidr)];
    }),
  );
};

/** So many ranges are named in a message; a site may have thousands. */
const NAMED = 4;

/** A ping of the frontend's has to go through the tunnel. */
export const probes: Rule = (config) =>
  config.vpn.sites.flatMap((site): Result[] => {
    const { name, peerCIDRs, probe } = site;
    if (probe === undefined) return [];
    const at = (message: string): Result =>
      inConfig(config, 'error', `${config.paths.site(name)}.probe`, message, probe);
    const found: Result[] = [];
    const family = probe.includes(':') ? 6 : 4;
    if (!config.vpn.podCIDR.some((cidr) => familyOf(cidr) === family))
      found.push(at(`is IPv${family}, but podCIDR has no IPv${family} range: no pod could ping it`));
    if (!ownersOf([probe], [site]).has(hostCidr(probe))) {
      const more = peerCIDRs.length > NAMED ? ` and ${peerCIDRs.length - NAMED} more` : '';
      const named = `${peerCIDRs.slice(0, NAMED).join(', ')}${more}`;
      found.push(at(`lies in no on-prem range of the site (${named}): its ping would not go through the tunnel`));
    }
    return found;
  });

export const count: Rule = (config) => {
  const total = config.vpn.sites.reduce((sum, { peerCIDRs }) => sum + peerCIDRs.length, 0);
  return total <= MANY
    ? []
    : [
        inConfig(
          config,
          'warning',
          'spec',
          `has ${total} peer CIDRs: beyond ${MANY}, Cilium's and the kernel's tables get slow; summarise them`,
        ),
      ];
};

/** The gateways' own addresses stay outside of what goes through the tunnels. */
export const gateways: Rule = (config) => {
  const { sites, podCIDR, serviceCIDR, publicAddress } = config.vpn;
  const owners = ownersOf(
    [...sites.map(({ ipsec }) => ipsec.peer), ...(publicAddress === undefined ? [] : [publicAddress])],
    sites,
  );
  const inside = (address: string) => owners.get(hostCidr(address));
  const found = sites.flatMap(({ name, ipsec: { peer } }): Result[] => {
    const at = (severity: 'error' | 'warning', message: string) =>
      inConfig(config, severity, `${config.paths.site(name)}.ipsec.peer`, message, peer);
    if (parseAddress(peer) === undefined)
      return EXAMPLE_NAME.test(peer)
        ? [at('warning', 'is an example name of documentation (RFC 2606): write the real gateway')]
        : [];
    const owner = inside(peer);
    if (owner !== undefined)
      return [
        at(
          'error',
          `lies in ${owner.cidr}, a peer CIDR of ${called(owner.site)}: the tunnel's own packets would go into the tunnel`,
        ),
      ];
    const reserved = reservedName(peer);
    if (reserved !== undefined) return [at('error', `is a ${reserved} address, where no gateway can be`)];
    const own = [...podCIDR, ...serviceCIDR].find((cidr) => containsAddress(cidr, peer));
    if (own !== undefined) return [at('error', `lies in the cluster's own range ${own}`)];
    return documented(peer) ? [at('warning', DOCUMENTATION_ADDRESS)] : [];
  });
  if (publicAddress === undefined) return found;
  const owner = inside(publicAddress);
  if (owner !== undefined)
    found.push(
      inConfig(
        config,
        'error',
        'spec.publicAddress',
        `lies in ${owner.cidr}, a peer CIDR of ${called(owner.site)}`,
        publicAddress,
      ),
    );
  if (documented(publicAddress))
    found.push(inConfig(config, 'warning', 'spec.publicAddress', DOCUMENTATION_ADDRESS, publicAddress));
  return found;
};

/** For each address that lies in a peer CIDR, as a prefix: that CIDR and its site. */
function ownersOf(addresses: readonly string[], sites: readonly Site[]): ReadonlyMap<Cidr | undefined, Owner> {
  const hosts = [...new Set(addresses.map(hostCidr))].filter((host) => host !== undefined);
  const ranges = sites.flatMap(({ name, peerCIDRs }) => peerCIDRs.map((cidr) => ({ cidr, site: name })));
  const found = overlaps<{ cidr: Cidr } | Owner>([...ranges, ...hosts.map((cidr) => ({ cidr }))]);
  return new Map(
    found.flatMap(({ inner, outer }) => (!('site' in inner) && 'site' in outer ? [[inner.cidr, outer]] : [])),
  );
}

interface Owner {
  readonly cidr: Cidr;
  readonly site: string;
}

const reservedName = (address: string): string | undefined =>
  RESERVED.find(({ ranges }) => ranges.some((range) => containsAddress(range, address)))?.name;

const DOCUMENTATION_ADDRESS = 'is an example address of documentation (RFC 5737, 3849, 9637): write the real one';
const EXAMPLE_NAME = /(^|\.)(example(\.(com|net|org))?|test|invalid)$/;
const documented = (address: string): boolean => DOCUMENTATION.some((range) => containsAddress(range, address));

export const selectors: Rule = (config) => {
  const { sites, podCIDR, serviceCIDR } = config.vpn;
  return sites.flatMap(({ name, ipsec: { localTrafficSelectors } }) =>
    localTrafficSelectors
      .filter((cidr) => ![...podCIDR, ...serviceCIDR].some((range) => containsCidr(range, cidr)))
      .map((cidr) =>
        inConfig(
          config,
          'warning',
          `${config.paths.site(name)}.ipsec.localTrafficSelectors`,
          `offers ${cidr}, which lies outside of podCIDR and serviceCIDR: nothing there answers`,
          cidr,
        ),
      ),
  );
};
