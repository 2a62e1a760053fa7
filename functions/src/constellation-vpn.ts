/** constellation-vpn: the three mutators and the validator in one process. */
import type { Config } from '../model/config.ts';
import type { Item, Outcome, Result } from '../model/krm.ts';
import { injectIpsecSecret } from './inject-ipsec-secret.ts';
import { injectPeerCidrs } from './inject-peer-cidrs.ts';
import { patchCiliumSctp } from './patch-cilium-sctp.ts';
import { validateVpn } from './validate-vpn.ts';

export const NAME = 'constellation-vpn';

export const usage = `Runs inject-peer-cidrs, inject-ipsec-secret, patch-cilium-sctp and validate-vpn, in this order, in one process.
`;

export function constellationVpn(items: readonly Item[], config: Config): Outcome {
  const results = new Map<string, Result>(); // the same finding of two functions is one
  let current = items;
  for (const step of [injectPeerCidrs, injectIpsecSecret, patchCiliumSctp, validateVpn]) {
    const outcome = step(current, config);
    current = outcome.items;
    for (const result of outcome.results) results.set(JSON.stringify(result), result);
  }
  return { items: current, results: [...results.values()] };
}
