/**
 * What Cilium's configuration must be for the VPN to work. Keys and defaults: cilium/cilium pkg/option/config.go, and
 * for the Services' translation bpf/bpf_lxc.c (ENABLE_PER_PACKET_LB).
 */
import { familyOf } from '../../model/cidr.ts';
import { getText, type Item, type Result } from '../../model/krm.ts';
import type { Vpn } from '../../model/vpn.ts';
import { about } from '../items.ts';
import { isCiliumConfig, isPartial } from '../patch-cilium-sctp.ts';
import type { Rule } from './rule.ts';

/** A whole cilium-config among the items is held against every rule; the partial one holds only our key. */
export const ciliumConfig: Rule = ({ vpn }, items) =>
  items.filter((item) => isCiliumConfig(item) && !isPartial(item)).flatMap((item) => check(item, vpn));

function check(config: Item, vpn: Vpn): Result[] {
  const value = (key: string): string => getText(config, 'data', key) ?? '';
  const on = (key: string): boolean => value(key) === 'true';
  const off = (key: string): boolean => value(key) === 'false';
  const error = (key: string, message: string): Result => about(config, 'error', `data.${key}`, message);
  const warning = (key: string, message: string): Result => about(config, 'warning', `data.${key}`, message);
  const found: Result[] = [];

  if (!on('enable-endpoint-routes'))
    found.push(
      error(
        'enable-endpoint-routes',
        'must be "true" (Helm: endpointRoutes.enabled): without it no route can lead to the frontend',
      ),
    );

  const tunnel = value('tunnel') !== '' ? value('tunnel') !== 'disabled' : value('routing-mode') !== 'native';
  if (value('routing-mode') === 'hybrid') found.push(warning('routing-mode', 'hybrid was never tried with the VPN'));
  else if (!tunnel && !on('enable-wireguard'))
    found.push(
      warning(
        'routing-mode',
        "native routing without WireGuard: the network between the nodes must carry the on-prem ranges to the frontend's node",
      ),
    );

  const socketLb =
    value('kube-proxy-replacement') !== '' && !['false', 'disabled'].includes(value('kube-proxy-replacement'));
  const perPacket =
    on('enable-sctp') ||
    on('bpf-lb-sock-hostns-only') ||
    on('enable-envoy-config') ||
    (!socketLb && !on('bpf-lb-sock'));
  if (!perPacket)
    found.push(
      error(
        'enable-sctp',
        'Services are not translated for VPN traffic: set cilium.sctp or cilium.socketLBHostNamespaceOnly in the configuration',
      ),
    );

  if (!off('enable-ipv4-masquerade') && !on('enable-bpf-masquerade') && value('egress-masquerade-interfaces') === '')
    found.push(
      warning(
        'enable-bpf-masquerade',
        "masquerading by iptables hits what pods of the frontend's node open towards on-prem: turn on BPF masquerading (Helm: bpf.masquerade), or name the uplink in egress-masquerade-interfaces",
      ),
    );
  if (on('enable-bpf-masquerade') && !on('enable-ip-masq-agent'))
    found.push(
      warning(
        'enable-ip-masq-agent',
        'is off: with BPF masquerading the on-prem ranges are exempt only if ip-masq-agent says so (Helm: ipMasqAgent.enabled)',
      ),
    );

  if (on('disable-endpoint-crd'))
    found.push(
      error('disable-endpoint-crd', 'CiliumEndpoints are how nodes learn the on-prem ranges: it must not be "true"'),
    );
  if (value('kvstore') !== '')
    found.push(error('kvstore', 'with a key-value store the agents do not watch CiliumEndpoints: use the CRD mode'));
  if (value('ces-controller-mode') === 'slim')
    found.push(
      error(
        'ces-controller-mode',
        'slim builds slices from Pods and never sees the on-prem ranges: use the default mode',
      ),
    );

  const families = new Set(vpn.sites.flatMap(({ peerCIDRs }) => peerCIDRs.map(familyOf)));
  if (families.has(4) && off('enable-ipv4')) found.push(error('enable-ipv4', 'is off, but there are IPv4 peer CIDRs'));
  if (families.has(6) && !on('enable-ipv6'))
    found.push(error('enable-ipv6', 'is not "true", but there are IPv6 peer CIDRs'));

  for (const [key, unverified, what] of [
    ['datapath-mode', value('datapath-mode').startsWith('netkit'), 'netkit devices'],
    ['cni-chaining-mode', !['', 'none'].includes(value('cni-chaining-mode')), 'CNI chaining'],
    ['enable-ipsec', on('enable-ipsec') && !tunnel, "Cilium's own IPsec with native routing"],
    ['cluster-id', !['', '0'].includes(value('cluster-id')), 'ClusterMesh'],
  ] as const)
    if (unverified) found.push(warning(key, `${what}: never tried with the VPN`));
  return found;
}
