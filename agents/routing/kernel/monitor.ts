/**
 * What changes in the kernel's network, as it happens: `ip monitor`. Its lines are hints, not data; iproute2 6.1 prints no
 * JSON here (`ip/ipmonitor.c`), so no more is read of them than what they are about.
 */
import type { Cidr } from '../../../functions/model/cidr.ts';
import { canonicalAddress } from '../../../functions/model/cidr.ts';
import { isMainTable, readPrefix } from './route.ts';

export const MONITOR_ARGS = ['-o', '-N', '-d', 'monitor', 'link', 'address', 'route', 'rule'] as const;

export type KernelEvent =
  /** In the main table. */
  | { readonly about: 'route'; readonly dst: Cidr; readonly proto: number; readonly gone: boolean }
  | { readonly about: 'link'; readonly device: string }
  | { readonly about: 'address'; readonly address: string }
  | { readonly about: 'rule' }
  /** Something that can't be read: anything may have changed. */
  | { readonly about: 'unknown' };

const GONE = 'Deleted ';
const LINK = /^\d+: ([^:@\s]+)(@[^:\s]+)?: </;
const ADDRESS = /^\d+: \S+\s+inet6? ([^/\s]+)/;
const RULE = /^\d+:\tfrom /;
const LINK_LOCAL = /^fe[89ab]/i;
/** Type, destination, and the rest. */
const ROUTE = /^\d+ (\S+) (.*)$/;

/** Undefined for what concerns nobody here: other tables, the default routes, link-local addresses. */
export function readEvent(line: string): KernelEvent | undefined {
  const gone = line.startsWith(GONE);
  const text = gone ? line.slice(GONE.length) : line;
  const [, destination, rest = ''] = ROUTE.exec(text) ?? [];
  if (destination !== undefined) return routeEvent(destination, rest, gone);
  const device = LINK.exec(text)?.[1];
  if (device !== undefined) return { about: 'link', device };
  const address = ADDRESS.exec(text)?.[1];
  return address === undefined ? otherEvent(text) : addressEvent(address);
}

const otherEvent = (text: string): KernelEvent => ({ about: RULE.test(text) ? 'rule' : 'unknown' });

const addressEvent = (address: string): KernelEvent | undefined =>
  LINK_LOCAL.test(address) ? undefined : { about: 'address', address };

function routeEvent(destination: string, rest: string, gone: boolean): KernelEvent | undefined {
  const word = (name: string): string | undefined => new RegExp(`(?:^|\\s)${name} (\\S+)`).exec(rest)?.[1];
  if (!isMainTable(word('table') ?? '254') || destination === 'default') return undefined;
  const dst = readPrefix(destination);
  if (dst === undefined || canonicalAddress(dst.split('/')[0] ?? '') === undefined) return { about: 'unknown' };
  return { about: 'route', dst, proto: Number(word('proto') ?? 'NaN'), gone };
}
