import type { Vpn } from '../../functions/model/vpn.ts';
import type { KubeClient } from '../lib/kube/client.ts';
import type { Log } from '../lib/log.ts';
import type { Metrics } from './metrics.ts';

/** What every reconciler works with. */
export interface CommonDeps {
  readonly kube: KubeClient;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Of the VPN. */
  readonly namespace: string;
  /** The configuration in force; undefined while there is none. */
  readonly vpn: () => Vpn | undefined;
}
