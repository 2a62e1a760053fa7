/** The parts of Cilium's objects that endpoint-sync reads. */
import type { KubeObject } from '../lib/kube/client.ts';

/** Cilium's AddressPair: one address or prefix of each family at most. */
export interface AddressPair {
  readonly ipv4?: string;
  readonly ipv6?: string;
}

/** cilium.io/v2. `status` is what the agent of the pod's node wrote. */
export interface CiliumEndpoint extends KubeObject {
  readonly status?: { readonly networking?: { readonly addressing?: readonly AddressPair[] | null } | null } | null;
}
