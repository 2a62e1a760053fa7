/** IP prefixes in canonical text: masked, IPv6 as RFC 5952 writes it. Arithmetic is ipaddr.js's. */
import type * as t from 'io-ts';
import ipaddr from 'ipaddr.js';
import { list, map, oneOrMany, text, type Codec } from './codec.ts';

interface CidrBrand {
  readonly Cidr: unique symbol;
}
/** A masked prefix, e.g. `10.8.0.0/16` or `fd12:3456::/48`. */
export type Cidr = t.Branded<string, CidrBrand>;

export type Family = 4 | 6;

/** The addresses a prefix covers, as fixed-width hex text that compares like the numbers: `first` <= `last`. */
interface Range {
  readonly family: Family;
  readonly first: string;
  readonly last: string;
  /** IPv4 first, then by address, a wider prefix before those inside it. */
  readonly sortKey: string;
}

/** Strict: no zone, no shorthand (`10.8/16`), no octal. */
export function parseAddress(s: string): ipaddr.IPv4 | ipaddr.IPv6 | undefined {
  if (!s.includes(':')) return parseIpv4(s);
  const text = withoutDots(s);
  return !text.includes('%') && ipaddr.IPv6.isValid(text) ? ipaddr.IPv6.parse(text) : undefined;
}

/** ipaddr.js's own parser, which knows octal and shorthand, takes three times as long, and there may be thousands. */
function parseIpv4(s: string): ipaddr.IPv4 | undefined {
  if (!/^(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}$/.test(s)) return undefined;
  const octets = s.split('.').map(Number);
  return octets.some((octet) => octet > 255) ? undefined : new ipaddr.IPv4(octets);
}

/** An IPv6 address with an IPv4 tail as one without: ipaddr.js takes octal there, and `::1.2.3.4` for `::ffff:1.2.3.4`. */
function withoutDots(s: string): string {
  const tail = s.slice(s.lastIndexOf(':') + 1);
  if (!ipaddr.IPv4.isValidFourPartDecimal(tail)) return s.includes('.') ? '%' : s;
  const digits = hex(ipaddr.IPv4.parse(tail).toByteArray());
  return `${s.slice(0, -tail.length)}${digits.slice(0, 4)}:${digits.slice(4)}`;
}

/** Canonical text of an address, or undefined where it is none. */
export function canonicalAddress(s: string): string | undefined {
  const address = parseAddress(s);
  return address === undefined ? undefined : textOf(address);
}

const textOf = (address: ipaddr.IPv4 | ipaddr.IPv6): string =>
  address instanceof ipaddr.IPv6 ? address.toRFC5952String() : address.toString();

const SYNTAX = 'is not a CIDR: write an IPv4 or IPv6 prefix such as 192.168.100.0/24 or fd00:1::/48';

function parseCidr(s: string): Cidr | { message: string; proposed?: string } {
  if (ranges.has(s as Cidr)) return s as Cidr; // known, so canonical
  const [left = '', mask, ...rest] = s.split('/');
  const address = parseAddress(left);
  if (address === undefined || rest.length > 0) return { message: SYNTAX };
  const bits = address.kind() === 'ipv4' ? 32 : 128;
  const canonical = textOf(address);
  if (mask === undefined)
    return { message: `has no prefix length; one host is /${bits}`, proposed: `${canonical}/${bits}` };
  if (!/^(0|[1-9]\d{0,2})$/.test(mask) || Number(mask) > bits)
    return { message: `has a bad prefix length: it goes from 0 to ${bits}` };
  const bytes = address.toByteArray();
  const network = masked(bytes, Number(mask));
  if (bytes.some((byte, at) => byte !== network[at])) {
    const proposed = `${textOf(ipaddr.fromByteArray(network))}/${mask}`;
    return { message: `has host bits set: the network is ${proposed}`, proposed };
  }
  const cidr = `${canonical}/${mask}` as Cidr;
  ranges.set(cidr, rangeFrom(network, Number(mask)));
  return cidr;
}

const masked = (bytes: readonly number[], prefix: number): number[] =>
  bytes.map((byte, i) => byte & byteMask(prefix, i));

/** The mask's byte number `i`. */
const byteMask = (prefix: number, i: number): number => (0xff00 >> Math.min(8, Math.max(0, prefix - 8 * i))) & 0xff;

export function familyOf(cidr: Cidr): Family {
  return cidr.includes(':') ? 6 : 4;
}

export function prefixLength(cidr: Cidr): number {
  return Number(cidr.slice(cidr.indexOf('/') + 1));
}

/** Of every prefix that was decoded: it is compared with many others, and may be decoded again. */
const ranges = new Map<Cidr, Range>();

function rangeOf(cidr: Cidr): Range {
  return ranges.get(cidr) ?? rangeFrom(bytesOf(cidr), prefixLength(cidr));
}

const bytesOf = (cidr: Cidr): number[] => {
  const address = parseAddress(cidr.slice(0, cidr.indexOf('/')));
  if (address === undefined) throw new Error(`${cidr} is no CIDR`);
  return address.toByteArray();
};

/** `network`: the first address. */
function rangeFrom(network: readonly number[], prefix: number): Range {
  const family = network.length === 4 ? 4 : 6;
  const first = hex(network);
  const last = hex(network.map((byte, i) => byte | (~byteMask(prefix, i) & 0xff)));
  return { family, first, last, sortKey: `${family}${first}${String(prefix).padStart(3, '0')}` };
}

const hex = (bytes: readonly number[]): string => Buffer.from(bytes).toString('hex');

/** Sorted, IPv4 first, then by address, a wider prefix before those inside it; no repeats. */
export function sortCidrs(cidrs: readonly Cidr[]): Cidr[] {
  const keyed = cidrs.map((cidr) => ({ cidr, key: rangeOf(cidr).sortKey }));
  // What the functions wrote is sorted already.
  if (keyed.every(({ key }, i) => i === 0 || (keyed[i - 1]?.key ?? key) < key)) return [...cidrs];
  const sorted = keyed.sort((a, b) => (a.key < b.key ? -1 : Number(a.key > b.key))).map(({ cidr }) => cidr);
  return [...new Set(sorted)];
}

/** The prefix of `length` bits that `cidr` is in; `length` must not be greater than the prefix's own. */
export function parentOf(cidr: Cidr, length: number): Cidr {
  return `${textOf(ipaddr.fromByteArray(masked(bytesOf(cidr), length)))}/${length}` as Cidr;
}

/** The prefix of one address alone; undefined for what is no address. */
export function hostCidr(address: string): Cidr | undefined {
  const canonical = canonicalAddress(address);
  return canonical === undefined ? undefined : (`${canonical}/${canonical.includes(':') ? 128 : 32}` as Cidr);
}

export function containsAddress(cidr: Cidr, address: string): boolean {
  const host = hostCidr(address);
  return host !== undefined && containsCidr(cidr, host);
}

/** True where every address of `inner` is one of `outer`. */
export function containsCidr(outer: Cidr, inner: Cidr): boolean {
  if (familyOf(outer) !== familyOf(inner)) return false;
  const a = rangeOf(outer);
  const b = rangeOf(inner);
  return a.first <= b.first && b.last <= a.last;
}

/**
 * Every entry that shares an address with an earlier one in address order, with the widest such entry around it.
 * Prefixes nest or are disjoint, so a sorted sweep with a stack finds them in O(n log n).
 */
export function overlaps<T extends { readonly cidr: Cidr }>(entries: readonly T[]): { inner: T; outer: T }[] {
  const sorted = entries
    .map((entry) => ({ entry, range: rangeOf(entry.cidr) }))
    .sort(({ range: a }, { range: b }) => (a.sortKey < b.sortKey ? -1 : Number(a.sortKey > b.sortKey)));
  const found: { inner: T; outer: T }[] = [];
  const open: typeof sorted = [];
  for (const current of sorted) {
    let top = open.at(-1);
    while (top !== undefined && (top.range.family !== current.range.family || top.range.last < current.range.first)) {
      open.pop();
      top = open.at(-1);
    }
    for (const outer of open) found.push({ inner: current.entry, outer: outer.entry });
    open.push(current);
  }
  return found;
}

export const Cidr: Codec<Cidr> = text('Cidr', { pattern: '^[0-9A-Fa-f:.]+/[0-9]{1,3}$' }, parseCidr);

/** A list of prefixes: sorted, no repeats. */
export const CidrList: Codec<Cidr[]> = map(list(Cidr), sortCidrs);
/** The same, needing at least one. */
export const CidrListOfSome: Codec<Cidr[]> = map(list(Cidr, 1), sortCidrs);
/** One prefix or a list of them. */
export const CidrOrList: Codec<Cidr[]> = oneOrMany(CidrListOfSome, Cidr);
