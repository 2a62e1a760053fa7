import { Counter, Gauge, Histogram } from 'prom-client';
import { createRegistry, registerConfigValid } from '../lib/metrics.ts';

const PREFIX = 'constellation_vpn_routing';

/** `configValid` is asked at each scrape. */
export function createMetrics(configValid: () => boolean) {
  const registry = createRegistry();
  registerConfigValid(registry, configValid);
  const registers = [registry];
  return {
    registry,
    desired: new Gauge({
      name: `${PREFIX}_ranges_desired`,
      help: 'On-prem ranges that this node should have a route to.',
      registers,
    }),
    present: new Gauge({
      name: `${PREFIX}_ranges_present`,
      help: 'On-prem ranges that this node has its route to.',
      registers,
    }),
    refused: new Gauge({
      name: `${PREFIX}_ranges_refused`,
      help: 'On-prem ranges that get no route on this node, by reason; the log has the ranges.',
      labelNames: ['reason'] as const,
      registers,
    }),
    repairs: new Counter({
      name: `${PREFIX}_repairs_total`,
      help: 'What somebody else had undone and was put right: missing-route, changed-route, stale-route, source-check.',
      labelNames: ['kind'] as const,
      registers,
    }),
    repairSeconds: new Histogram({
      name: `${PREFIX}_repair_seconds`,
      help: 'From the event that a route was changed or deleted to its repair, in seconds.',
      buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
      registers,
    }),
    checks: new Counter({
      name: `${PREFIX}_checks_total`,
      help: 'Times that the kernel was read: all of it, or some ranges alone.',
      labelNames: ['extent'] as const,
      registers,
    }),
    sourceCheckOff: new Gauge({
      name: `${PREFIX}_source_check_off`,
      help: "1: Cilium's source check of this frontend's pod is off, as it must be. 0: it is on or not known, and all VPN traffic of the pod is lost.",
      labelNames: ['pod'] as const,
      registers,
    }),
    lostRanges: new Gauge({
      name: `${PREFIX}_lost_ranges`,
      help: "On-prem ranges that Cilium's agent on this node does not know, gave to a policy, or sends to a node without their frontend.",
      registers,
    }),
    ciliumEndpointsFailing: new Gauge({
      name: `${PREFIX}_cilium_endpoints_failing`,
      help: "Endpoints of this node that Cilium's agent fails to regenerate: new pods get no network, others may lose it.",
      registers,
    }),
    ciliumAgentAway: new Gauge({
      name: `${PREFIX}_cilium_agent_away`,
      help: "1: Cilium's agent on this node has not answered for two minutes.",
      registers,
    }),
    errors: new Counter({
      name: `${PREFIX}_errors_total`,
      help: 'Failed attempts, by what was attempted.',
      labelNames: ['task'] as const,
      registers,
    }),
    lastSuccess: new Gauge({
      name: `${PREFIX}_last_success_timestamp_seconds`,
      help: 'When a task last found or made everything right, in seconds since 1970.',
      labelNames: ['task'] as const,
      registers,
    }),
  };
}

export type Metrics = ReturnType<typeof createMetrics>;
