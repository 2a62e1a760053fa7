/** The cluster's own cilium-config against the rules, and what users are told of it. */
import { familyOf } from '../../../functions/model/cidr.ts';
import { CILIUM_RULES } from '../../../functions/model/cilium-rules.ts';
import type { Vpn } from '../../../functions/model/vpn.ts';
import type { Notice } from '../../lib/kube/events.ts';
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

/** The same finding with another value is another notice. */
export const noticeOf = ({ rule, severity, message }: Finding): Notice => ({
  id: `${rule} ${message}`,
  reason: severity === 'error' ? 'CiliumConfigError' : 'CiliumConfigWarning',
  message: `${CILIUM_CONFIG} ${message}`,
});
