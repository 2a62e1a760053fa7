/**
 * What changes in the kernel's network, as it happens: `ip monitor`. Its lines are hints, not data; iproute2 6.1 prints no
 * JSON here (`ip/ipmonitor.c`), so no more is read of them than what they are about.
 */
import type { Cidr } from '../../../functions/model/cidr.ts';
import { PROTO, readPrefix } from './route.ts';

export const MONITOR_ARGS = ['-o', '-N', '-d', 'monitor', 'link', 'address', 'route', 'rule'] as const;

export type KernelEvent =
  /** In the main table. */
  | { readonly about: 'route'; readonly dst: Cidr }
  | { readonly about: 'link'; readonly device: string }
  | { readonly about: 'address'; readonly address: string }
  | { readonly about: 'rule' }
  /** Something that can't be read: anything may have changed. */
  | { readonly about: 'unknown' };

const MAIN_TABLE = '254';
const GONE = 'Deleted ';
const OURS = ` proto ${PROTO} `;
const LINK = /^\d+: ([^:@\s]+)(@[^:\s]+)?: </;
const ADDRESS = /^\d+: \S+\s+inet6? ([^/\s]+)/;
const RULE = /^\d+:\tfrom /;
const LINK_LOCAL = /^fe[89ab]/i;
/** Type, destination, and the rest. */
const ROUTE = /^\d+ (\S+) (.*)$/;

/** A route of ours was added or changed: by us, as a rule, and then thousands of lines at a time. */
export const isOurs = (line: string): boolean => line.includes(OURS) && !line.startsWith(GONE);

/** Undefined for what concerns nobody here: other tables, default routes, link-local addresses. */
export const readEvent = (line: string): KernelEvent | undefined =>
  eventOf(line.startsWith(GONE) ? line.slice(GONE.length) : line);

function eventOf(text: string): KernelEvent | undefined {
  const [, destination, rest = ''] = ROUTE.exec(text) ?? [];
  if (destination !== undefined) return routeEvent(destination, rest);
  const [, device] = LINK.exec(text) ?? [];
  if (device !== undefined) return { about: 'link', device };
  const [, address] = ADDRESS.exec(text) ?? [];
  return address === undefined ? otherEvent(text) : addressEvent(address);
}

const otherEvent = (text: string): KernelEvent => ({ about: RULE.test(text) ? 'rule' : 'unknown' });

const addressEvent = (address: string): KernelEvent | undefined =>
  LINK_LOCAL.test(address) ? undefined : { about: 'address', address };

function routeEvent(destination: string, rest: string): KernelEvent | undefined {
  const table = /(?:^|\s)table (\S+)/.exec(rest)?.[1] ?? MAIN_TABLE;
  if (table !== MAIN_TABLE || destination === 'default') return undefined;
  const dst = readPrefix(destination);
  return dst === undefined ? { about: 'unknown' } : { about: 'route', dst };
}
