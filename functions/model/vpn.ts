/**
 * ConstellationVPN, the one configuration. `ConstellationVpn.decode` gives the canonical form: a list of sites, every
 * default filled in, CIDRs masked, sorted and free of repeats. The canonical form is itself a valid configuration and
 * decodes to itself. This codec is the only source of types, messages, the JSON Schema and the KRMFunctionDefinition.
 */
import * as t from 'io-ts';
import { CidrList, CidrListOfSome, CidrOrList, sortCidrs, type Cidr } from './cidr.ts';
import {
  Codec,
  checked,
  fail,
  flag,
  nameOf,
  integer,
  list,
  map,
  object,
  oneOf,
  optional,
  required,
  text,
  withDefault,
} from './codec.ts';
import type { Problem } from './codec.ts';
import { duration } from './duration.ts';
import { Address, DnsLabel, Host, Identity, ObjectName, SecretKey } from './name.ts';
import { DEFAULT_ESP, DEFAULT_IKE, EspProposals, IkeProposals } from './proposal.ts';
import { Psk } from './psk.ts';

export const API_VERSION = 'constellation-vpn.io/v1alpha1';
export const KIND = 'ConstellationVPN';

const DEFAULT_MTU = 1300;
const MTU_RANGE = { minimum: 576, maximum: 9000 };
const DAY = 86_400;

/** Bytes, or null where path MTU discovery is relied on. */
const mtuNumber = integer(MTU_RANGE.minimum, MTU_RANGE.maximum, 'bytes');
const Mtu: Codec<number | null> = new Codec<number | null>(
  'mtu',
  { oneOf: [{ ...mtuNumber.schema }, { type: 'string', enum: [''] }], nullable: true },
  (u, c) => (u === '' || u === null ? t.success(null) : mtuNumber.validate(u, c)),
);

const anyMap = new Codec<object>('map', { type: 'object' }, (u, c) =>
  typeof u === 'object' && u !== null && !Array.isArray(u)
    ? t.success(u)
    : fail(u, c, `expected a map, found ${nameOf(u)}`),
);

const MTU_TEXT = 'MTU of the routes to the on-prem ranges, in bytes; "" or null leaves it to path MTU discovery.';

const SecretRef = object('secretRef', {
  name: required(ObjectName, "The Secret's name, in the VPN's namespace."),
});

const IpsecFields = object('ipsec', {
  peer: required(Host, 'The on-prem gateway: IPv4 or IPv6 address, or DNS name.'),
  psk: optional(Psk, 'Pre-shared key in clear. Prefer pskSecretRef: this file is usually kept in git.'),
  pskSecretRef: optional(
    object('pskSecretRef', {
      name: required(ObjectName, "The Secret's name, in the VPN's namespace."),
      key: withDefault(SecretKey, 'psk', 'The key in its data.'),
    }),
    'The Secret that holds the pre-shared key.',
  ),
  certificate: optional(
    object('certificate', {
      secretRef: required(
        SecretRef,
        'A kubernetes.io/tls Secret with tls.crt, tls.key and ca.crt, as cert-manager writes it.',
      ),
      remoteID: optional(Identity, "The gateway's identity; the same as ipsec.remoteID."),
    }),
    'Authentication by X.509 certificates.',
  ),
  ppkSecretRef: optional(
    object('ppkSecretRef', {
      name: required(ObjectName, "The Secret's name, in the VPN's namespace."),
      key: withDefault(SecretKey, 'ppk', 'The key in its data.'),
      id: required(Identity, 'The PPK_ID both gateways know the key by.'),
      required: withDefault(flag, true, 'Refuse a gateway that does not use the key.'),
    }),
    'Post-quantum pre-shared key (RFC 8784), mixed in on top of the authentication.',
  ),
  localID: optional(
    Identity,
    'Our IKE identity. Default: publicAddress, else vpn-frontend[-site].namespace; with a certificate its subject.',
  ),
  remoteID: optional(Identity, "The gateway's IKE identity. Default: its address or name (peer)."),
  proposals: withDefault(
    object('proposals', {
      ike: withDefault(IkeProposals, DEFAULT_IKE, "IKE proposals in strongSwan's notation, the preferred one first."),
      esp: withDefault(EspProposals, DEFAULT_ESP, "ESP proposals in strongSwan's notation, the preferred one first."),
    }),
    { ike: DEFAULT_IKE, esp: DEFAULT_ESP },
    'Cipher suites.',
  ),
  dpdDelay: withDefault(
    duration(1, DAY),
    1,
    'Idle time before the gateway is asked whether it lives: seconds, or 30s, 5m, 4h.',
  ),
  rekeyTime: withDefault(
    duration(60, 30 * DAY),
    3600,
    'Lifetime of a CHILD_SA before it is rekeyed: seconds, or 30m, 1h.',
  ),
  startAction: withDefault(
    oneOf(['none', 'start', 'trap', 'trap|start']),
    'trap|start',
    'Who dials: trap on traffic, start at once, none waits for the gateway.',
  ),
  localTrafficSelectors: withDefault(CidrList, [], 'Ranges offered to the gateway. Default: podCIDR and serviceCIDR.'),
  childSAs: withDefault(
    oneOf(['perRange', 'perPair', 'one']),
    'perRange',
    'How traffic is spread over CHILD_SAs: one for each on-prem range, one for each pair of a local and an on-prem range, or one for all.',
  ),
});

const Ipsec: Codec<IpsecInput> = map(checked(IpsecFields, ipsecProblems), finishIpsec);

const PEER_CIDRS_TEXT = 'On-prem ranges behind the gateway.';
const PROBE_TEXT =
  'IP address of an on-prem host that answers ping, in one of the peerCIDRs: the frontend pings it through the tunnel and reports latency and loss.';

const SiteInput = object('site', {
  name: optional(DnsLabel, 'Part of object names. May be left out where there is only one site.'),
  peerCIDRs: required(CidrListOfSome, PEER_CIDRS_TEXT),
  mtu: optional(Mtu, MTU_TEXT),
  ipsec: required(Ipsec, 'The tunnel to the gateway.'),
  probe: optional(Address, PROBE_TEXT),
});

/** The fields of the old chart that mean nothing here; accepted so that its values work verbatim. */
export const IGNORED_FIELDS = ['image', 'nameOverride', 'fullnameOverride'] as const;
const ignoredText = text('ignored', {}, (s) => s);

const SpecInput = object('spec', {
  podCIDR: withDefault(CidrOrList, ['10.10.0.0/16' as Cidr], "The cluster's pod range; a list for dual stack."),
  serviceCIDR: withDefault(CidrOrList, ['10.96.0.0/12' as Cidr], "The cluster's Service range; a list for dual stack."),
  mtu: withDefault(Mtu, DEFAULT_MTU, MTU_TEXT),
  peerCIDRs: optional(CidrList, `${PEER_CIDRS_TEXT} Short form of one site, together with ipsec.`),
  ipsec: optional(Ipsec, 'The tunnel of the one site, together with peerCIDRs.'),
  probe: optional(Address, `${PROBE_TEXT} Of the one site, beside peerCIDRs.`),
  sites: optional(list(SiteInput), 'The sites, each with a gateway of its own; instead of peerCIDRs, ipsec and probe.'),
  publicAddress: optional(Address, "The load balancer's address: our IKE identity, and where the other gateway dials."),
  cilium: withDefault(
    object('cilium', {
      sctp: optional(flag, 'Have Cilium translate Services for VPN traffic by enable-sctp. The default.'),
      socketLBHostNamespaceOnly: optional(
        flag,
        'The same by bpf-lb-sock-hostns-only, at the price of pod socket termination.',
      ),
      restartAgents: withDefault(
        flag,
        true,
        "Restart Cilium's agents with the change; they read it only at their start.",
      ),
    }),
    { restartAgents: true },
    'The one change to Cilium.',
  ),
  image: optional(ignoredText, "The old chart's image. Ignored: it holds none of these programs."),
  nameOverride: optional(ignoredText, "The old chart's. Ignored: use kustomize's namePrefix."),
  fullnameOverride: optional(ignoredText, "The old chart's. Ignored: use kustomize's namePrefix."),
});

type IpsecInput = t.TypeOf<typeof IpsecFields>;

/** Exactly one of the three ways to authenticate, and one remote identity. */
function ipsecProblems(ipsec: Record<string, unknown>): Problem[] {
  const found: Problem[] = [];
  const ways = ['psk', 'pskSecretRef', 'certificate'].filter((key) => ipsec[key] !== undefined);
  if (ways.length !== 1)
    found.push({
      path: '',
      message: `needs exactly one of pskSecretRef, certificate and psk; there is ${ways.length === 0 ? 'none' : ways.join(' and ')}${ways.length > 1 ? ' (in an overlay set the one of the default configuration to null)' : ''}`,
    });
  const { certificate, remoteID } = ipsec;
  const inner =
    typeof certificate === 'object' && certificate !== null && 'remoteID' in certificate
      ? certificate.remoteID
      : undefined;
  if (inner !== undefined && remoteID !== undefined && inner !== remoteID)
    found.push({ path: 'remoteID', message: 'differs from certificate.remoteID: keep one of them' });
  return found;
}

/** Canonical: the identity in one place, and filled in. */
function finishIpsec(ipsec: IpsecInput): IpsecInput {
  const { certificate, ...rest } = ipsec;
  return {
    ...rest,
    ...(certificate === undefined ? {} : { certificate: { secretRef: certificate.secretRef } }),
    remoteID: ipsec.remoteID ?? certificate?.remoteID ?? ipsec.peer,
  };
}

type SpecFields = t.TypeOf<typeof SpecInput>;

export interface Site {
  /** A DNS label; empty where the only site has no name. */
  readonly name: string;
  readonly peerCIDRs: Cidr[];
  /** Bytes; null where path MTU discovery is relied on. */
  readonly mtu: number | null;
  readonly ipsec: IpsecInput;
  /** Address of an on-prem host that answers ping. */
  readonly probe?: string;
}

export interface Vpn {
  readonly podCIDR: Cidr[];
  readonly serviceCIDR: Cidr[];
  /** Sorted by name. */
  readonly sites: Site[];
  readonly publicAddress?: string;
  readonly cilium: {
    readonly sctp: boolean;
    readonly socketLBHostNamespaceOnly: boolean;
    readonly restartAgents: boolean;
  };
  /** Those of the old chart's fields that were there and mean nothing here. */
  readonly ignored: readonly string[];
}

function specProblems(spec: Record<string, unknown>): Problem[] {
  const found = spec.sites === undefined ? shortFormProblems(spec) : sitesProblems(spec);
  const cilium = spec.cilium;
  const both = ['sctp', 'socketLBHostNamespaceOnly'] as const;
  if (
    typeof cilium === 'object' &&
    cilium !== null &&
    both.every((key) => (cilium as Record<string, unknown>)[key] === true)
  )
    found.push({ path: 'cilium', message: 'needs one of sctp and socketLBHostNamespaceOnly, not both' });
  return found;
}

function shortFormProblems({ peerCIDRs, ipsec }: Record<string, unknown>): Problem[] {
  const found: Problem[] = [];
  if (peerCIDRs === undefined || (Array.isArray(peerCIDRs) && peerCIDRs.length === 0))
    found.push({ path: 'peerCIDRs', message: 'is missing: list at least one on-prem range, or use sites' });
  if (ipsec === undefined)
    found.push({
      path: 'ipsec',
      message: 'is missing: name the gateway and its key, ipsec: {peer: …, pskSecretRef: {name: …}}',
    });
  return found;
}

const SHORT_FORM = 'is the short form of one site; beside sites, move it into an entry of sites';
const SHORT_FORM_FIELDS = {
  peerCIDRs: `${SHORT_FORM} (in an overlay set it to null: the default configuration has it)`,
  ipsec: `${SHORT_FORM} (in an overlay set it to null: the default configuration has it)`,
  probe: SHORT_FORM,
};

function sitesProblems(spec: Record<string, unknown>): Problem[] {
  const { sites } = spec;
  const found = Object.entries(SHORT_FORM_FIELDS)
    .filter(([path]) => spec[path] !== undefined)
    .map(([path, message]) => ({ path, message }));
  if (!Array.isArray(sites)) return found;
  if (sites.length === 0) found.push({ path: 'sites', message: 'needs at least one site' });
  const names = sites.map((site: unknown) =>
    typeof site === 'object' && site !== null && 'name' in site ? site.name : null,
  );
  names.forEach((name, i) => {
    const path = `sites[${i}].name`;
    const first = names.indexOf(name);
    if (name === null && sites.length > 1)
      found.push({ path, message: 'is missing: beside other sites each needs a name' });
    else if (first !== i) found.push({ path, message: `is that of sites[${first}] too: names must differ` });
  });
  return found;
}

function canonicalVpn(spec: SpecFields): Vpn {
  const { sites, peerCIDRs = [], ipsec, probe, cilium, publicAddress } = spec;
  const short = { peerCIDRs, ...(probe === undefined ? {} : { probe }) };
  const given = sites ?? (ipsec === undefined ? [] : [{ ...short, ipsec }]);
  const socketLBHostNamespaceOnly = cilium.socketLBHostNamespaceOnly ?? false;
  return {
    podCIDR: spec.podCIDR,
    serviceCIDR: spec.serviceCIDR,
    sites: given
      .map((site) => ({ name: '', mtu: spec.mtu, ...site }))
      .sort((a, b) => (a.name < b.name ? -1 : Number(a.name > b.name))),
    ...(publicAddress === undefined ? {} : { publicAddress }),
    cilium: {
      sctp: cilium.sctp ?? !socketLBHostNamespaceOnly,
      socketLBHostNamespaceOnly,
      restartAgents: cilium.restartAgents,
    },
    ignored: IGNORED_FIELDS.filter((key) => spec[key] !== undefined),
  };
}

/** The `spec` of the configuration. */
export const VpnSpec: Codec<Vpn> = map(checked(SpecInput, specProblems), canonicalVpn);

const Envelope = object('the configuration', {
  apiVersion: required(oneOf([API_VERSION]), 'The version of this format.'),
  kind: required(oneOf([KIND]), 'The kind of this object.'),
  metadata: optional(anyMap, 'Name, labels and annotations.'),
  spec: required(VpnSpec, 'The VPN.'),
});

/** The whole object. Shape: `{apiVersion, kind, metadata, spec}`; answers the canonical spec. */
export const ConstellationVpn: Codec<Vpn> = map(Envelope, ({ spec }) => spec);

/** The ranges that are offered to the site's gateway, sorted. */
export function localRanges({ podCIDR, serviceCIDR }: Vpn, { ipsec: { localTrafficSelectors } }: Site): Cidr[] {
  return localTrafficSelectors.length > 0 ? localTrafficSelectors : sortCidrs([...podCIDR, ...serviceCIDR]);
}

/** The canonical spec as a configuration object that decodes to the same `vpn`. */
export function encodeVpn(vpn: Vpn): { apiVersion: string; kind: string; spec: Record<string, unknown> } {
  const { ignored: _, sites, ...rest } = vpn;
  const named = sites.map(({ name, ...site }) => (name === '' ? site : { name, ...site }));
  return { apiVersion: API_VERSION, kind: KIND, spec: { ...rest, sites: named } };
}
