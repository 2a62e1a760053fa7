/** A whole cilium-config among the items is held against every rule; the partial one holds only our key. */
import { familyOf } from '../../model/cidr.ts';
import { CILIUM_RULES } from '../../model/cilium-rules.ts';
import { getText, type Item, type Result } from '../../model/krm.ts';
import type { Vpn } from '../../model/vpn.ts';
import { about } from '../items.ts';
import { isCiliumConfig, isPartial } from '../patch-cilium-sctp.ts';
import type { Rule } from './rule.ts';

export const ciliumConfig: Rule = ({ vpn }, items) =>
  items.filter((item) => isCiliumConfig(item) && !isPartial(item)).flatMap((item) => check(item, vpn));

function check(config: Item, vpn: Vpn): Result[] {
  const value = (key: string): string => getText(config, 'data', key) ?? '';
  const families = new Set(vpn.sites.flatMap(({ peerCIDRs }) => peerCIDRs.map(familyOf)));
  return CILIUM_RULES.filter(({ breaks }) => breaks({ value, families })).map(({ key, severity, message }) => ({
    ...about(config, severity, `data.${key}`, message),
    field: { path: `data.${key}`, ...(value(key) === '' ? {} : { currentValue: value(key) }) },
  }));
}
