import { isIPv4, isIPv6 } from 'node:net';
import test from 'ava';
import fc from 'fast-check';
import * as E from 'fp-ts/lib/Either.js';
import {
  canonicalAddress,
  Cidr,
  CidrList,
  CidrListOfSome,
  CidrOrList,
  containsAddress,
  containsCidr,
  overlaps,
  parentOf,
  sortCidrs,
} from './cidr.ts';
import { problems } from './codec.ts';

const cidr = (text: string): Cidr => text as Cidr;

const accepted = test.macro((tt, input: string, canonical: string) => {
  tt.deepEqual(Cidr.decode(input), E.right(cidr(canonical)));
});
test('IPv4', accepted, '10.8.0.0/16', '10.8.0.0/16');
test('every IPv4 address', accepted, '0.0.0.0/0', '0.0.0.0/0');
test('one IPv4 host', accepted, '10.8.0.1/32', '10.8.0.1/32');
test('IPv6 in its short form', accepted, 'fd12:3456::/48', 'fd12:3456::/48');
test('IPv6 in full', accepted, 'FD12:3456:0000:0000:0000:0000:0000:0000/48', 'fd12:3456::/48');
test('IPv6 with an IPv4 tail', accepted, '64:ff9b::192.0.2.0/120', '64:ff9b::c000:200/120');
test('IPv6 with nothing but an IPv4 tail', accepted, '::1.2.3.4/128', '::102:304/128');
test('IPv4 mapped into IPv6', accepted, '::ffff:192.0.2.1/128', '::ffff:c000:201/128');
test('one IPv6 host', accepted, '2001:db8::1/128', '2001:db8::1/128');
test('every IPv6 address', accepted, '0:0:0:0:0:0:0:0/0', '::/0');
// RFC 5952, section 4: the longest run of zeros, the first of two, never a single one
test('the longest run of zeros', accepted, '2001:0:0:1:0:0:0:1/128', '2001:0:0:1::1/128');
test('the first of two runs', accepted, '2001:db8:0:0:1:0:0:1/128', '2001:db8::1:0:0:1/128');
test('a single zero stays', accepted, '2001:db8::1:1:1:1:1/128', '2001:db8:0:1:1:1:1:1/128');

const SYNTAX = 'is not a CIDR: write an IPv4 or IPv6 prefix such as 192.168.100.0/24 or fd00:1::/48';
const LENGTH_4 = 'has a bad prefix length: it goes from 0 to 32';
const LENGTH_6 = 'has a bad prefix length: it goes from 0 to 128';

const refused = test.macro((tt, input: unknown, message: string, proposed?: string) => {
  const result = Cidr.decode(input);
  const found = E.isLeft(result) ? problems(result.left) : [];
  tt.deepEqual(found, [{ path: '', message, ...(proposed === undefined ? {} : { proposed }) }]);
});
const hostBits = (network: string): string => `has host bits set: the network is ${network}`;
test('IPv4 host bits', refused, '10.8.0.1/16', hostBits('10.8.0.0/16'), '10.8.0.0/16');
test('IPv4 host bits inside a byte', refused, '172.31.255.255/12', hostBits('172.16.0.0/12'), '172.16.0.0/12');
test('IPv4 host bits of /0', refused, '10.0.0.0/0', hostBits('0.0.0.0/0'), '0.0.0.0/0');
test('IPv6 host bits', refused, 'FD12::1/48', hostBits('fd12::/48'), 'fd12::/48');
test('IPv6 host bits inside a byte', refused, 'fd12:3456:f::/44', hostBits('fd12:3456::/44'), 'fd12:3456::/44');
test('IPv4 without length', refused, '10.8.0.1', 'has no prefix length; one host is /32', '10.8.0.1/32');
test('IPv6 without length', refused, 'FD12::1', 'has no prefix length; one host is /128', 'fd12::1/128');
test('IPv4 length of 33', refused, '10.8.0.0/33', LENGTH_4);
test('IPv6 length of 129', refused, 'fd12::/129', LENGTH_6);
test('length with a leading zero', refused, '10.8.0.0/08', LENGTH_4);
test('negative length', refused, '10.8.0.0/-1', LENGTH_4);
test('length with a space', refused, '10.8.0.0/16 ', LENGTH_4);
test('empty length', refused, '10.8.0.0/', LENGTH_4);
test('netmask', refused, '10.8.0.0/255.255.0.0', LENGTH_4);
test('hexadecimal length', refused, '10.8.0.0/0x10', LENGTH_4);
test('two lengths', refused, '10.8.0.0/16/16', SYNTAX);
test('IPv4 shorthand', refused, '10.8/16', SYNTAX);
test('IPv4 octal', refused, '010.8.0.0/16', SYNTAX);
test('octal in an IPv4 tail', refused, '::010.2.3.4/128', SYNTAX);
test('dots inside of IPv6', refused, '1.2.3.4::/64', SYNTAX);
test('IPv4 hexadecimal', refused, '0x0a.8.0.0/16', SYNTAX);
test('IPv4 as one number', refused, '168296448/16', SYNTAX);
test('IPv4 byte of 256', refused, '10.256.0.0/16', SYNTAX);
test('zone', refused, 'fe80::%eth0/64', SYNTAX);
test('two runs of zeros', refused, 'fd12::1::/64', SYNTAX);
test('leading space', refused, ' 10.8.0.0/16', SYNTAX);
test('name', refused, 'gw.example.com', SYNTAX);
test('empty', refused, '', SYNTAX);
test('number', refused, 10.8, 'expected text, found a number; put it in quotes');
test('list', refused, ['10.8.0.0/16'], 'expected text, found a list');
test('null', refused, null, 'expected text, found nothing');

const address = test.macro((tt, input: string, canonical: string | undefined) => {
  tt.is(canonicalAddress(input), canonical);
});
test('address: IPv4', address, '192.0.2.1', '192.0.2.1');
test('address: IPv6 in upper case', address, '2001:DB8:0:0:0:0:0:1', '2001:db8::1');
test('address: zone', address, 'fe80::1%2', undefined);
test('address: with a length', address, '192.0.2.1/32', undefined);

test('sorted: IPv4 first, by number, wider first, no repeats', (tt) => {
  const sorted = ['9.0.0.0/8', '10.0.0.0/8', '10.0.0.0/16', '100.0.0.0/8', '::/0', 'fd00::/8', 'fd00::/48'].map(cidr);
  tt.deepEqual(sortCidrs([...sorted.toReversed(), cidr('10.0.0.0/8')]), sorted);
});

const lists = test.macro((tt, codec: typeof CidrList, input: unknown, expected: string[] | string) => {
  const result = codec.decode(input);
  if (E.isRight(result)) tt.deepEqual(result.right as string[], expected);
  else
    tt.deepEqual(
      problems(result.left)
        .map(({ path, message }) => `${path}: ${message}`)
        .join('\n'),
      expected,
    );
});
test(
  'list: sorted, canonical, no repeats',
  lists,
  CidrList,
  ['fd00:0::/48', '10.0.0.0/8', 'FD00::/48'],
  ['10.0.0.0/8', 'fd00::/48'],
);
test('list: empty', lists, CidrList, [], []);
test('list: empty where one is needed', lists, CidrListOfSome, [], ': needs at least one entry');
test('list: text', lists, CidrList, '10.0.0.0/8', ': expected a list, found text');
test(
  'list: every bad entry',
  lists,
  CidrList,
  ['x', '10.0.0.0/8', '10.0.0.1/8'],
  [`[0]: ${SYNTAX}`, `[2]: ${hostBits('10.0.0.0/8')}`].join('\n'),
);
test('one or many: one', lists, CidrOrList, '10.0.0.0/8', ['10.0.0.0/8']);
test('one or many: many', lists, CidrOrList, ['10.0.0.0/8', '9.0.0.0/8'], ['9.0.0.0/8', '10.0.0.0/8']);
test('one or many: none', lists, CidrOrList, [], ': needs at least one entry');
test('one or many: a bad one', lists, CidrOrList, '10.0.0.1/8', `: ${hostBits('10.0.0.0/8')}`);

const containment = test.macro((tt, outer: string, inner: string, expected: boolean) => {
  tt.is(containsCidr(cidr(outer), cidr(inner)), expected);
});
test('contains itself', containment, '10.0.0.0/8', '10.0.0.0/8', true);
test('contains a longer one', containment, '10.0.0.0/8', '10.255.0.0/16', true);
test('contains no wider one', containment, '10.255.0.0/16', '10.0.0.0/8', false);
test('contains no neighbour', containment, '10.0.0.0/9', '10.128.0.0/9', false);
test('::/0 contains no IPv4', containment, '::/0', '10.0.0.0/8', false);
test('IPv6 across bytes', containment, 'fd12:3450::/28', 'fd12:345f:ffff::/48', true);

const parent = test.macro((tt, inner: string, length: number, outer: string) => {
  tt.is(parentOf(cidr(inner), length), cidr(outer));
});
test('parent: itself', parent, '10.8.0.0/16', 16, '10.8.0.0/16');
test('parent: at a byte', parent, '10.8.255.0/24', 16, '10.8.0.0/16');
test('parent: inside a byte', parent, '172.31.255.255/32', 12, '172.16.0.0/12');
test('parent: every IPv4 address', parent, '255.255.255.255/32', 0, '0.0.0.0/0');
test('parent: IPv6', parent, 'fd12:345f:ffff::1/128', 28, 'fd12:3450::/28');
test('parent: IPv6 in its short form', parent, 'fd12:0:0:1::/64', 48, 'fd12::/48');
test('parent: IPv4 mapped into IPv6', parent, '::ffff:c000:201/128', 96, '::ffff:0:0/96');
test('parent: every IPv6 address', parent, 'ffff::/16', 0, '::/0');

const member = test.macro((tt, range: string, host: string, expected: boolean) => {
  tt.is(containsAddress(cidr(range), host), expected);
});
test('first address', member, '10.8.0.0/16', '10.8.0.0', true);
test('last address', member, '10.8.0.0/16', '10.8.255.255', true);
test('one after the last', member, '10.8.0.0/16', '10.9.0.0', false);
test('one before the first', member, '10.8.0.0/16', '10.7.255.255', false);
test('of the other family', member, '::/0', '10.8.0.0', false);
test('no address', member, '0.0.0.0/0', 'gw.example.com', false);

// Brute force: prefixes of a /28, so that all 16 addresses of each family can be looked at
const small = fc
  .record({ v6: fc.boolean(), host: fc.integer({ min: 0, max: 15 }), bits: fc.integer({ min: 0, max: 4 }) })
  .map(({ v6, host, bits }) => {
    const first = host & (0xf0 >> bits) & 0xf;
    return {
      cidr: cidr(v6 ? `fd00::${first === 0 ? '' : first.toString(16)}/${124 + bits}` : `10.0.0.${first}/${28 + bits}`),
      covers: Array.from({ length: 1 << (4 - bits) }, (_, i) => `${v6}${first + i}`),
    };
  });

test('overlaps: as by brute force', (tt) => {
  fc.assert(
    fc.property(fc.array(small, { maxLength: 12 }), (entries) => {
      const pairs = entries.flatMap((a, i) =>
        entries
          .slice(i + 1)
          .filter((b) => a.covers.some((one) => b.covers.includes(one)))
          .map((b) => new Set([a, b])),
      );
      const found = overlaps(entries);
      tt.is(found.length, pairs.length);
      for (const { inner, outer } of found) {
        tt.true(outer.covers.length >= inner.covers.length);
        tt.true(pairs.some((pair) => pair.has(inner) && pair.has(outer) && inner !== outer));
      }
    }),
  );
});

test('contains: as by brute force', (tt) => {
  fc.assert(
    fc.property(small, small, (a, b) => {
      tt.is(
        containsCidr(a.cidr, b.cidr),
        b.covers.every((one) => a.covers.includes(one)),
      );
    }),
  );
});

test('addresses are what node:net takes for some, written as URLs write them', (tt) => {
  const text = fc.oneof(
    fc
      .array(fc.constantFrom(':', '::', '.', '0', '1', '00', 'f', 'FFFF', '255', '256', '10000', '1.2.3.4'), {
        maxLength: 12,
      })
      .map((parts) => parts.join('')),
    fc.ipV4Extended(),
    fc.ipV6(),
  );
  fc.assert(
    fc.property(text, (host) => {
      const canonical = isIPv6(host) ? new URL(`http://[${host}]`).hostname.slice(1, -1) : host;
      tt.is(canonicalAddress(host), isIPv4(host) || isIPv6(host) ? canonical : undefined, host);
    }),
    { numRuns: 5000 },
  );
});

test('canonical form decodes to itself', (tt) => {
  const ip = fc.oneof(
    fc.tuple(fc.ipV4(), fc.integer({ min: 0, max: 32 })),
    fc.tuple(fc.ipV6(), fc.integer({ min: 0, max: 128 })),
  );
  fc.assert(
    fc.property(ip, ([host, bits]) => {
      const result = Cidr.decode(`${host}/${bits}`);
      const canonical = E.isRight(result) ? result.right : problems(result.left)[0]?.proposed;
      tt.deepEqual(Cidr.decode(canonical), E.right(canonical as Cidr));
    }),
  );
});

test('parent: the one prefix of its length that holds it', (tt) => {
  const ip = fc.oneof(
    fc.record({ host: fc.ipV4(), bits: fc.integer({ min: 0, max: 32 }) }),
    fc.record({ host: fc.ipV6(), bits: fc.integer({ min: 0, max: 128 }) }),
  );
  fc.assert(
    fc.property(ip, fc.nat(), ({ host, bits }, seed) => {
      const full = host.includes(':') ? 128 : 32;
      const inner = parentOf(cidr(`${host}/${full}`), bits);
      const length = seed % (bits + 1);
      const outer = parentOf(inner, length);
      tt.deepEqual(Cidr.decode(outer), E.right(outer));
      tt.true(outer.endsWith(`/${length}`));
      tt.true(containsCidr(outer, inner));
    }),
  );
});
