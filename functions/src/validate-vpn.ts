/** validate-vpn: everything that can be known before deployment, all of it in one run. Changes nothing. */
import type { Config } from '../model/config.ts';
import type { Item, Outcome } from '../model/krm.ts';
import { ciliumConfig } from './rules/cilium.ts';
import { policyCIDRs } from './rules/policies.ts';
import {
  clusterRanges,
  count,
  families,
  gateways,
  peerRanges,
  probes,
  selectors,
  siteOverlaps,
} from './rules/ranges.ts';
import type { Rule } from './rules/rule.ts';
import { secretRefs } from './rules/secrets.ts';
import {
  childSAs,
  configSize,
  identities,
  ignoredFields,
  literalKeys,
  mtu,
  names,
  proposals,
  replicas,
} from './rules/tunnels.ts';

export const NAME = 'validate-vpn';

export const usage = `Checks the configuration, and with it the Secrets, network policies and cilium-config among the items.
Changes nothing.
`;

const RULES: readonly Rule[] = [
  clusterRanges,
  peerRanges,
  siteOverlaps,
  families,
  probes,
  count,
  gateways,
  selectors,
  mtu,
  proposals,
  childSAs,
  literalKeys,
  identities,
  names,
  replicas,
  configSize,
  ignoredFields,
  secretRefs,
  policyCIDRs,
  ciliumConfig,
];

export function validateVpn(items: readonly Item[], config: Config): Outcome {
  return { items, results: RULES.flatMap((rule) => rule(config, items)) };
}
