/**
 * What Cilium's configuration must be for the VPN to work: held against a cilium-config among the items at render time,
 * and against the cluster's own at run time. Keys and defaults: cilium/cilium pkg/option/config.go, and for the
 * Services' translation bpf/bpf_lxc.c (ENABLE_PER_PACKET_LB).
 */
import type { Family } from './cidr.ts';

/** What the rules look at. */
export interface CiliumValues {
  /** The value of a key of cilium-config, `''` where it is absent. */
  readonly value: (key: string) => string;
  /** Address families among the peer CIDRs. */
  readonly families: ReadonlySet<Family>;
}

/** Something is wrong where `breaks` answers true. */
export interface CiliumRule {
  /** Names the rule in metrics: unique, never changed. */
  readonly id: string;
  /** The key of cilium-config that the message is about. */
  readonly key: string;
  readonly severity: 'error' | 'warning';
  readonly breaks: (values: CiliumValues) => boolean;
  /** A sentence that begins after the key's name. */
  readonly message: string;
}

const on = ({ value }: CiliumValues, key: string): boolean => value(key) === 'true';
const off = ({ value }: CiliumValues, key: string): boolean => value(key) === 'false';

/** Before 1.15 the key `tunnel` said both whether and how; since then `routing-mode` says whether. */
export const tunnels = ({ value }: Pick<CiliumValues, 'value'>): boolean =>
  value('tunnel') === '' ? value('routing-mode') !== 'native' : value('tunnel') !== 'disabled';

const socketLoadBalancing = (values: CiliumValues): boolean =>
  on(values, 'bpf-lb-sock') || !['', 'false', 'disabled'].includes(values.value('kube-proxy-replacement'));

export const CILIUM_RULES: readonly CiliumRule[] = [
  {
    id: 'endpoint-routes',
    key: 'enable-endpoint-routes',
    severity: 'error',
    breaks: (values) => !on(values, 'enable-endpoint-routes'),
    message: 'must be "true" (Helm: endpointRoutes.enabled): without it no route can lead to the frontend',
  },
  {
    id: 'hybrid-routing',
    key: 'routing-mode',
    severity: 'warning',
    breaks: ({ value }) => value('routing-mode') === 'hybrid',
    message: 'hybrid was never tried with the VPN',
  },
  {
    id: 'native-routing',
    key: 'routing-mode',
    severity: 'warning',
    breaks: (values) => !tunnels(values) && !on(values, 'enable-wireguard'),
    message:
      "native routing without WireGuard: the network between the nodes must carry the on-prem ranges to the frontend's node",
  },
  {
    id: 'service-translation',
    key: 'enable-sctp',
    severity: 'error',
    breaks: (values) =>
      socketLoadBalancing(values) &&
      !['enable-sctp', 'bpf-lb-sock-hostns-only', 'enable-envoy-config'].some((key) => on(values, key)),
    message:
      'Services are not translated for VPN traffic: set cilium.sctp or cilium.socketLBHostNamespaceOnly in the configuration',
  },
  {
    id: 'bpf-masquerade',
    key: 'enable-bpf-masquerade',
    severity: 'warning',
    breaks: (values) =>
      !off(values, 'enable-ipv4-masquerade') &&
      !on(values, 'enable-bpf-masquerade') &&
      values.value('egress-masquerade-interfaces') === '',
    message:
      "masquerading by iptables hits what pods of the frontend's node open towards on-prem: turn on BPF masquerading (Helm: bpf.masquerade), or name the uplink in egress-masquerade-interfaces",
  },
  {
    id: 'ip-masq-agent',
    key: 'enable-ip-masq-agent',
    severity: 'warning',
    breaks: (values) =>
      !off(values, 'enable-ipv4-masquerade') &&
      on(values, 'enable-bpf-masquerade') &&
      !on(values, 'enable-ip-masq-agent'),
    message:
      'is off: with BPF masquerading the on-prem ranges are exempt only if ip-masq-agent says so (Helm: ipMasqAgent.enabled)',
  },
  {
    id: 'endpoint-crd',
    key: 'disable-endpoint-crd',
    severity: 'error',
    breaks: (values) => on(values, 'disable-endpoint-crd'),
    message: 'CiliumEndpoints are how nodes learn the on-prem ranges: it must not be "true"',
  },
  {
    id: 'kvstore',
    key: 'kvstore',
    severity: 'error',
    breaks: ({ value }) => value('kvstore') !== '',
    message: 'with a key-value store the agents do not watch CiliumEndpoints: use the CRD mode',
  },
  {
    id: 'slim-slices',
    key: 'ces-controller-mode',
    severity: 'error',
    breaks: ({ value }) => value('ces-controller-mode') === 'slim',
    message: 'slim builds slices from Pods and never sees the on-prem ranges: use the default mode',
  },
  {
    id: 'ipv4',
    key: 'enable-ipv4',
    severity: 'error',
    breaks: (values) => values.families.has(4) && off(values, 'enable-ipv4'),
    message: 'is off, but there are IPv4 peer CIDRs',
  },
  {
    id: 'ipv6',
    key: 'enable-ipv6',
    severity: 'error',
    breaks: (values) => values.families.has(6) && !on(values, 'enable-ipv6'),
    message: 'is not "true", but there are IPv6 peer CIDRs',
  },
  {
    id: 'netkit',
    key: 'datapath-mode',
    severity: 'warning',
    breaks: ({ value }) => value('datapath-mode').startsWith('netkit'),
    message: 'netkit devices were never tried with the VPN',
  },
  {
    id: 'cni-chaining',
    key: 'cni-chaining-mode',
    severity: 'warning',
    breaks: ({ value }) => !['', 'none'].includes(value('cni-chaining-mode')),
    message: 'CNI chaining was never tried with the VPN',
  },
  {
    id: 'cilium-ipsec',
    key: 'enable-ipsec',
    severity: 'warning',
    breaks: (values) => on(values, 'enable-ipsec') && !tunnels(values),
    message: "Cilium's own IPsec with native routing was never tried with the VPN",
  },
  {
    id: 'cluster-mesh',
    key: 'cluster-id',
    severity: 'warning',
    breaks: ({ value }) => !['', '0'].includes(value('cluster-id')),
    message: 'ClusterMesh: other clusters do not learn the on-prem ranges',
  },
];
