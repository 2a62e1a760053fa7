import test from 'ava';
import fc from 'fast-check';
import { containsCidr, familyOf, parentOf, type Cidr } from '../../functions/model/cidr.ts';
import { RangeIndex } from './range-index.ts';

const cidr = (text: string): Cidr => text as Cidr;
const entry = (text: string): { cidr: Cidr; site: string } => ({ cidr: cidr(text), site: `of ${text}` });
const ENTRIES = ['10.0.0.0/8', '10.8.0.0/16', '10.8.1.0/24', '192.168.7.7/32', '::/0', 'fd12::/48'].map(entry);

const around = test.macro((tt, prefix: string, ...expected: string[]) => {
  const found = new RangeIndex(ENTRIES).around(cidr(prefix));
  tt.deepEqual(found.map(({ cidr }) => cidr).sort(), expected.map(cidr));
  for (const one of found) tt.true(ENTRIES.includes(one)); // the very object
});
test('an address in nested ranges', around, '10.8.1.7/32', '10.0.0.0/8', '10.8.0.0/16', '10.8.1.0/24');
test('a range itself, and what it is in', around, '10.8.0.0/16', '10.0.0.0/8', '10.8.0.0/16');
test('a prefix between two lengths', around, '10.8.0.0/23', '10.0.0.0/8', '10.8.0.0/16');
test('a wider prefix is in none', around, '10.0.0.0/7');
test('how many', (tt) => {
  tt.is(new RangeIndex([...ENTRIES, ...ENTRIES]).size, ENTRIES.length);
});
test('a neighbour', around, '11.0.0.0/8');
test('one address, itself a range', around, '192.168.7.7/32', '192.168.7.7/32');
test('IPv6 in IPv6 alone', around, 'fd12:0:0:1::/64', '::/0', 'fd12::/48');
test('0.0.0.0/0 is not in ::/0', around, '0.0.0.0/0');
test('an IPv4 address mapped into IPv6', around, '::ffff:a08:107/128', '::/0');

test('one entry, and all of them', (tt) => {
  const index = new RangeIndex(ENTRIES);
  tt.is(index.get(cidr('10.8.0.0/16')), ENTRIES[1]);
  tt.is(index.get(cidr('10.8.0.0/17')), undefined);
  tt.deepEqual(index.all(), ENTRIES);
});

test('empty', (tt) => {
  const index = new RangeIndex([]);
  tt.is(index.get(cidr('10.8.0.0/16')), undefined);
  tt.deepEqual(index.all(), []);
  tt.deepEqual(index.around(cidr('10.8.0.0/16')), []);
});

/** Few bits that differ, so that prefixes often hold each other. */
const prefix = fc
  .record({ v6: fc.boolean(), bits: fc.integer({ min: 0, max: 32 }), byte: fc.constantFrom(0, 1, 128, 255) })
  .map(({ v6, bits, byte }) =>
    v6
      ? parentOf(cidr(`fd${byte.toString(16).padStart(2, '0')}::${byte}/128`), bits * 4)
      : parentOf(cidr(`10.${byte}.${byte}.${byte}/32`), bits),
  );

test('as by looking at every entry', (tt) => {
  fc.assert(
    fc.property(fc.uniqueArray(prefix, { maxLength: 20 }), prefix, (cidrs, asked) => {
      const found = new RangeIndex(cidrs.map((cidr) => ({ cidr }))).around(asked);
      tt.deepEqual(
        found.map(({ cidr }) => cidr).sort(),
        cidrs.filter((one) => familyOf(one) === familyOf(asked) && containsCidr(one, asked)).sort(),
      );
    }),
    { numRuns: 2_000 },
  );
});
