/** MTU, cipher suites, CHILD_SAs, identities and names. */
import { familyOf, type Cidr } from '../../model/cidr.ts';
import { get, getText, type Result } from '../../model/krm.ts';
import { weakTokens } from '../../model/proposal.ts';
import { localRanges } from '../../model/vpn.ts';
import { FRONTEND, MAX_FRONTEND_NAME, baseName, identityOf } from '../frontends.ts';
import { literalWarnings } from '../inject-ipsec-secret.ts';
import { about, findComponent } from '../items.ts';
import { called, inConfig, type Rule } from './rule.ts';

/** RFC 8200, 5: no IPv6 link may have less. */
const MIN_IPV6_MTU = 1280;
const HIGH_MTU = 1400;

export const mtu: Rule = (config) =>
  config.vpn.sites.flatMap(({ name, mtu: bytes, peerCIDRs }): Result[] => {
    if (bytes === null) return [];
    const path = config.paths.mtu(name);
    if (bytes < MIN_IPV6_MTU && peerCIDRs.some((cidr) => familyOf(cidr) === 6))
      return [
        inConfig(
          config,
          'error',
          path,
          `is too small: with an IPv6 peer CIDR it must be at least ${MIN_IPV6_MTU}`,
          bytes,
        ),
      ];
    return bytes > HIGH_MTU
      ? [
          inConfig(
            config,
            'warning',
            path,
            `leaves less than 100 bytes for ESP on an Ethernet path: above ${HIGH_MTU} large packets are likely lost`,
            bytes,
          ),
        ]
      : [];
  });

export const proposals: Rule = (config) =>
  config.vpn.sites.flatMap(({ name, ipsec }) =>
    (['ike', 'esp'] as const).flatMap((kind) =>
      ipsec.proposals[kind].flatMap((proposal, i): Result[] => {
        const weak = weakTokens(proposal);
        if (weak.length === 0) return [];
        const path = `${config.paths.site(name)}.ipsec.proposals.${kind}[${i}]`;
        return [
          inConfig(
            config,
            'warning',
            path,
            `allows ${weak.join(' and ')}, which RFC 8247 and 8221 advise against`,
            proposal,
          ),
        ];
      }),
    ),
  );

/** Gateways that want a CHILD_SA for each pair are those with a limit of them. */
const MANY_PAIRS = 128;

export const childSAs: Rule = (config) =>
  config.vpn.sites.flatMap((site): Result[] => {
    // Where only the gateway dials, it decides.
    if (site.ipsec.childSAs !== 'perPair' || site.ipsec.startAction === 'none') return [];
    const local = localRanges(config.vpn, site);
    const count = ([4, 6] as const)
      .map((family) => (cidr: Cidr) => familyOf(cidr) === family)
      .reduce((sum, ours) => sum + local.filter(ours).length * site.peerCIDRs.filter(ours).length, 0);
    if (count <= MANY_PAIRS) return [];
    return [
      inConfig(
        config,
        'warning',
        `${config.paths.site(site.name)}.ipsec.childSAs`,
        `makes ${count} CHILD_SAs; the gateway has to hold as many: summarise the ranges, or use perRange where the gateway can`,
        site.ipsec.childSAs,
      ),
    ];
  });

export const literalKeys: Rule = (config) =>
  config.vpn.sites.flatMap(({ name, ipsec: { psk } }) =>
    psk === undefined
      ? []
      : literalWarnings(psk).map((message) =>
          inConfig(config, 'warning', `${config.paths.site(name)}.ipsec.psk`, message),
        ),
  );

/** Gateways replace a tunnel by the next one of the same identity (`unique = replace`). */
export const identities: Rule = (config, items) => {
  const frontend = findComponent(items, 'StatefulSet', FRONTEND)[0];
  const keyed = config.vpn.sites
    .map((site) => ({ name: site.name, peer: site.ipsec.peer, id: identityOf(config.vpn, site, frontend) }))
    .filter(({ id }) => id !== undefined);
  return keyed.flatMap(({ name, peer, id }, i) => {
    const twin = keyed.slice(0, i).find((other) => other.peer === peer && other.id === id);
    if (twin === undefined) return [];
    return [
      inConfig(
        config,
        'warning',
        `${config.paths.site(name)}.ipsec.localID`,
        `is the identity ${id} of ${called(twin.name)} too, to the same gateway: their tunnels would replace each other; give each a localID`,
      ),
    ];
  });
};

export const names: Rule = (config, items) => {
  const frontend = findComponent(items, 'StatefulSet', FRONTEND)[0];
  const base = frontend === undefined ? 'vpn-frontend' : baseName(frontend);
  return config.vpn.sites.flatMap(({ name }): Result[] => {
    const length = base.length + (name === '' ? 0 : name.length + 1);
    if (length <= MAX_FRONTEND_NAME) return [];
    const path = name === '' ? 'metadata.name' : `${config.paths.site(name)}.name`;
    return [
      inConfig(
        config,
        'error',
        path,
        `makes a StatefulSet's name of ${length} characters (${base}${name === '' ? '' : `-${name}`}); its pods' labels leave room for ${MAX_FRONTEND_NAME}: shorten it by ${length - MAX_FRONTEND_NAME}`,
        name,
      ),
    ];
  });
};

/** Several pods of one site would be one IKE identity at several addresses. */
export const replicas: Rule = (_config, items) =>
  findComponent(items, 'StatefulSet', FRONTEND).flatMap((item): Result[] => {
    const count = get(item, 'spec', 'replicas');
    return count === undefined || count === 0 || count === 1
      ? []
      : [
          about(
            item,
            'error',
            'spec.replicas',
            'must be 1: the pods of one site would replace each other at the gateway; more sites are how the VPN scales',
          ),
        ];
  });

/** Bytes that etcd and the API server take for one object, less what is around the configuration; and kubectl's for its annotation. */
const MAX_CONFIG_BYTES = 1_000_000;
const CLIENT_SIDE_BYTES = 250_000;

/** What the agents read has to fit into a ConfigMap. */
export const configSize: Rule = (_config, items) =>
  findComponent(items, 'ConfigMap', 'config').flatMap((item): Result[] => {
    const bytes = Buffer.byteLength(getText(item, 'data', 'config.json') ?? '');
    if (bytes > MAX_CONFIG_BYTES)
      return [
        about(item, 'error', 'data', `is ${bytes} bytes, more than a ConfigMap can hold: summarise the peer CIDRs`),
      ];
    return bytes > CLIENT_SIDE_BYTES
      ? [about(item, 'warning', 'data', `is ${bytes} bytes: kubectl apply takes that with --server-side only`)]
      : [];
  });

export const ignoredFields: Rule = (config) =>
  config.vpn.ignored.map((key) =>
    inConfig(
      config,
      'warning',
      `spec.${key}`,
      key === 'image'
        ? "is the old chart's image, which holds none of these programs: it is ignored; remove it"
        : "is the old chart's and ignored: use kustomize's namePrefix, and remove it",
    ),
  );
