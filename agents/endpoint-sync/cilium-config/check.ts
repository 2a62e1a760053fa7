/** The cluster's own cilium-config against the rules, and what users are told of it. */
import { createHash } from 'node:crypto';
import { familyOf } from '../../../functions/model/cidr.ts';
import { CILIUM_RULES } from '../../../functions/model/cilium-rules.ts';
import type { Vpn } from '../../../functions/model/vpn.ts';
import type { KubeObject } from '../../lib/kube/client.ts';
import { CILIUM_CONFIG } from '../../lib/kube/paths.ts';
import type { ConfigMap } from '../../lib/kube/objects.ts';

export interface Finding {
  /** The rule's name in metrics. */
  readonly rule: string;
  readonly ok: boolean;
  readonly severity: 'error' | 'warning';
  /** `enable-sctp ("false"): Services are not translated …` */
  readonly message: string;
}

/** Every rule, kept or not. */
export function checkCilium(config: ConfigMap | undefined, vpn: Vpn): Finding[] {
  const present: Finding = {
    rule: 'present',
    ok: config !== undefined,
    severity: 'error',
    message:
      'is not there: Cilium is not installed, or in another namespace (--cilium-namespace, and the Roles beside it)',
  };
  if (config === undefined) return [present];
  const value = (key: string): string => config.data?.[key] ?? '';
  const families = new Set(vpn.sites.flatMap(({ peerCIDRs }) => peerCIDRs.map(familyOf)));
  const rules = CILIUM_RULES.map(({ id, key, severity, breaks, message }) => ({
    rule: id,
    ok: !breaks({ value, families }),
    severity,
    message: `${key} (${value(key) === '' ? 'not set' : `"${value(key)}"`}): ${message}`,
  }));
  return [present, ...rules];
}

export interface Reporter {
  readonly component: string;
  /** The reporting pod's name. */
  readonly instance: string;
}

/**
 * An Event (core/v1) about a frontend's pod. The same finding about the same pod has the same name, so that a restarted
 * agent finds its Event again.
 */
export function eventOf(pod: KubeObject, { rule, severity, message }: Finding, from: Reporter, now: Date) {
  const { name, namespace, uid } = pod.metadata;
  const id = createHash('sha256').update(`${uid} ${rule} ${message}`).digest('hex').slice(0, 16);
  const time = now.toISOString().replace(/\.\d+Z$/, 'Z'); // metav1.Time has no fractions
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name: `${name}.${id}`, namespace },
    involvedObject: { apiVersion: 'v1', kind: 'Pod', namespace, name, uid },
    type: 'Warning',
    reason: severity === 'error' ? 'CiliumConfigError' : 'CiliumConfigWarning',
    message: `${CILIUM_CONFIG} ${message}`,
    source: { component: from.component },
    reportingComponent: from.component,
    reportingInstance: from.instance,
    firstTimestamp: time,
    lastTimestamp: time,
    count: 1,
  };
}
