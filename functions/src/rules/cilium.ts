/**
 * What Cilium's configuration must be for the VPN to work. Keys and defaults: cilium/cilium pkg/option/config.go, and
 * for the Services' translation bpf/bpf_lxc.c (ENABLE_PER_PACKET_LB).
 */
import { familyOf, type Family } from '../../model/cidr.ts';
import { getText, type Item, type Result, type Severity } from '../../model/krm.ts';
import type { Vpn } from '../../model/vpn.ts';
import { about } from '../items.ts';
import { isCiliumConfig, isPartial } from '../patch-cilium-sctp.ts';
import type { Rule } from './rule.ts';

/** A whole cilium-config among the items is held against every rule; the partial one holds only our key. */
export const ciliumConfig: Rule = ({ vpn }, items) =>
  items.filter((item) => isCiliumConfig(item) && !isPartial(item)).flatMap((item) => check(item, vpn));

/** The values of cilium-config, `''` where a key is absent, and what the configuration asks of them. */
interface Values {
  readonly value: (key: string) => string;
  readonly on: (key: string) => boolean;
  readonly off: (key: string) => boolean;
  /** Address families among the peer CIDRs. */
  readonly families: ReadonlySet<Family>;
}

/** A finding where `breaks` answers true. */
interface CiliumRule {
  readonly key: string;
  readonly severity: Severity;
  readonly breaks: (values: Values) => boolean;
  readonly message: string;
}

/** Before 1.15 the key `tunnel` said both whether and how; since then `routing-mode` says whether. */
const tunnels = ({ value }: Values): boolean =>
  value('tunnel') === '' ? value('routing-mode') !== 'native' : value('tunnel') !== 'disabled';

const socketLoadBalancing = ({ value, on }: Values): boolean =>
  on('bpf-lb-sock') || !['', 'false', 'disabled'].includes(value('kube-proxy-replacement'));

const RULES: readonly CiliumRule[] = [
  {
    key: 'enable-endpoint-routes',
    severity: 'error',
    breaks: ({ on }) => !on('enable-endpoint-routes'),
    message: 'must be "true" (Helm: endpointRoutes.enabled): without it no route can lead to the frontend',
  },
  {
    key: 'routing-mode',
    severity: 'warning',
    breaks: ({ value }) => value('routing-mode') === 'hybrid',
    message: 'hybrid was never tried with the VPN',
  },
  {
    key: 'routing-mode',
    severity: 'warning',
    breaks: (values) => !tunnels(values) && !values.on('enable-wireguard'),
    message:
      "native routing without WireGuard: the network between the nodes must carry the on-prem ranges to the frontend's node",
  },
  {
    key: 'enable-sctp',
    severity: 'error',
    breaks: (values) =>
      socketLoadBalancing(values) &&
      !['enable-sctp', 'bpf-lb-sock-hostns-only', 'enable-envoy-config'].some((key) => values.on(key)),
    message:
      'Services are not translated for VPN traffic: set cilium.sctp or cilium.socketLBHostNamespaceOnly in the configuration',
  },
  {
    key: 'enable-bpf-masquerade',
    severity: 'warning',
    breaks: ({ value, on, off }) =>
      !off('enable-ipv4-masquerade') && !on('enable-bpf-masquerade') && value('egress-masquerade-interfaces') === '',
    message:
      "masquerading by iptables hits what pods of the frontend's node open towards on-prem: turn on BPF masquerading (Helm: bpf.masquerade), or name the uplink in egress-masquerade-interfaces",
  },
  {
    key: 'enable-ip-masq-agent',
    severity: 'warning',
    breaks: ({ on, off }) =>
      !off('enable-ipv4-masquerade') && on('enable-bpf-masquerade') && !on('enable-ip-masq-agent'),
    message:
      'is off: with BPF masquerading the on-prem ranges are exempt only if ip-masq-agent says so (Helm: ipMasqAgent.enabled)',
  },
  {
    key: 'disable-endpoint-crd',
    severity: 'error',
    breaks: ({ on }) => on('disable-endpoint-crd'),
    message: 'CiliumEndpoints are how nodes learn the on-prem ranges: it must not be "true"',
  },
  {
    key: 'kvstore',
    severity: 'error',
    breaks: ({ value }) => value('kvstore') !== '',
    message: 'with a key-value store the agents do not watch CiliumEndpoints: use the CRD mode',
  },
  {
    key: 'ces-controller-mode',
    severity: 'error',
    breaks: ({ value }) => value('ces-controller-mode') === 'slim',
    message: 'slim builds slices from Pods and never sees the on-prem ranges: use the default mode',
  },
  {
    key: 'enable-ipv4',
    severity: 'error',
    breaks: ({ families, off }) => families.has(4) && off('enable-ipv4'),
    message: 'is off, but there are IPv4 peer CIDRs',
  },
  {
    key: 'enable-ipv6',
    severity: 'error',
    breaks: ({ families, on }) => families.has(6) && !on('enable-ipv6'),
    message: 'is not "true", but there are IPv6 peer CIDRs',
  },
  {
    key: 'datapath-mode',
    severity: 'warning',
    breaks: ({ value }) => value('datapath-mode').startsWith('netkit'),
    message: 'netkit devices were never tried with the VPN',
  },
  {
    key: 'cni-chaining-mode',
    severity: 'warning',
    breaks: ({ value }) => !['', 'none'].includes(value('cni-chaining-mode')),
    message: 'CNI chaining was never tried with the VPN',
  },
  {
    key: 'enable-ipsec',
    severity: 'warning',
    breaks: (values) => values.on('enable-ipsec') && !tunnels(values),
    message: "Cilium's own IPsec with native routing was never tried with the VPN",
  },
  {
    key: 'cluster-id',
    severity: 'warning',
    breaks: ({ value }) => !['', '0'].includes(value('cluster-id')),
    message: 'ClusterMesh: other clusters do not learn the on-prem ranges',
  },
];

function check(config: Item, vpn: Vpn): Result[] {
  const value = (key: string): string => getText(config, 'data', key) ?? '';
  const values = {
    value,
    on: (key: string) => value(key) === 'true',
    off: (key: string) => value(key) === 'false',
    families: new Set(vpn.sites.flatMap(({ peerCIDRs }) => peerCIDRs.map(familyOf))),
  };
  return RULES.filter(({ breaks }) => breaks(values)).map(({ key, severity, message }) => ({
    ...about(config, severity, `data.${key}`, message),
    field: { path: `data.${key}`, ...(value(key) === '' ? {} : { currentValue: value(key) }) },
  }));
}
