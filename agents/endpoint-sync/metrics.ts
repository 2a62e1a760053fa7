import { Counter, Gauge, Histogram } from 'prom-client';
import { createRegistry, registerConfigValid } from '../lib/metrics.ts';

const PREFIX = 'constellation_vpn_endpoint_sync';

/** Label `object`: CiliumEndpoint, ip-masq-agent, cilium-config or lost-ranges. `configValid` is asked at each scrape. */
export function createMetrics(configValid: () => boolean) {
  const registry = createRegistry();
  registerConfigValid(registry, configValid);
  const registers = [registry];
  const labelNames = ['object'] as const;
  return {
    registry,
    reconciles: new Counter({
      name: `${PREFIX}_reconciles_total`,
      help: 'Times that an object was compared with what it should be.',
      labelNames,
      registers,
    }),
    patches: new Counter({
      name: `${PREFIX}_patches_total`,
      help: 'Patches that the API server took.',
      labelNames,
      registers,
    }),
    conflicts: new Counter({
      name: `${PREFIX}_conflicts_total`,
      help: 'Patches refused because the object had changed in between.',
      labelNames,
      registers,
    }),
    errors: new Counter({
      name: `${PREFIX}_errors_total`,
      help: 'Reconciles that failed, by what the API server or the way to it said.',
      labelNames: ['object', 'reason'] as const,
      registers,
    }),
    lastSuccess: new Gauge({
      name: `${PREFIX}_last_success_timestamp_seconds`,
      help: 'When an object was last found or made right, in seconds since 1970.',
      labelNames,
      registers,
    }),
    restored: new Histogram({
      name: `${PREFIX}_restore_seconds`,
      help: 'From the event that showed an overwritten CiliumEndpoint to the patch that restored it, in seconds.',
      buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30],
      registers,
    }),
    ciliumConfigOk: new Gauge({
      name: 'constellation_vpn_cilium_config_ok',
      help: '1: cilium-config keeps the rule. 0: it breaks it, see the log or the Events of the frontend pods.',
      labelNames: ['rule'] as const,
      registers,
    }),
    ipMasqAgent: new Gauge({
      name: 'constellation_vpn_ip_masq_agent_config',
      help: '1 at the state of ip-masq-agent: merged (our ranges are in), absent (nothing to merge into) or broken (not touched); none of them while a patch does not get through.',
      labelNames: ['state'] as const,
      registers,
    }),
    lostRanges: new Gauge({
      name: 'constellation_vpn_lost_ranges',
      help: 'On-prem ranges that nodes miss although a CiliumEndpoint lists them.',
      registers,
    }),
  };
}

export type Metrics = ReturnType<typeof createMetrics>;
