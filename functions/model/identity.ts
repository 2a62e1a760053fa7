/** Who we are to a site's gateway. */
import type { Site, Vpn } from './vpn.ts';

/**
 * Our IKE identity, e.g. `vpn-frontend-berlin.constellation-vpn`; undefined where it is the certificate's subject. Never
 * the pod's address, which changes. `frontend`: the name of the site's StatefulSet, which kustomize may have changed;
 * inject-peer-cidrs knows it, and writes the identity into the configuration that the agents read.
 */
export function localIdentity(
  { publicAddress }: Vpn,
  { name, ipsec }: Site,
  namespace: string,
  frontend = name === '' ? 'vpn-frontend' : `vpn-frontend-${name}`,
): string | undefined {
  if (ipsec.localID !== undefined) return ipsec.localID;
  return ipsec.certificate === undefined ? (publicAddress ?? `${frontend}.${namespace}`) : undefined;
}
