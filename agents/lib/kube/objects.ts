/** The parts of the cluster's objects that more than one agent reads. */
import type { KubeObject } from './client.ts';

export interface ConfigMap extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}

export interface Pod extends KubeObject {
  readonly spec?: { readonly nodeName?: string; readonly hostNetwork?: boolean };
  readonly status?: {
    readonly phase?: string;
    readonly podIPs?: readonly { readonly ip: string }[];
    readonly hostIP?: string;
    /** One of each family that the node has; since Kubernetes 1.29. */
    readonly hostIPs?: readonly { readonly ip: string }[];
  };
}
