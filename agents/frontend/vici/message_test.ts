import test from 'ava';
import fc from 'fast-check';
import {
  decodeMessage,
  encodeMessage,
  flag,
  type Item,
  list,
  sections,
  type Section,
  text,
  ViciFormatError,
} from './message.ts';

/** Numbers are bytes, strings their ASCII. */
const bytes = (...parts: (number | string)[]): Uint8Array =>
  Buffer.concat(parts.map((part) => (typeof part === 'number' ? Buffer.of(part) : Buffer.from(part))));
/** A line each. */
const elements = (...lines: (number | string)[][]): Uint8Array => bytes(...lines.flat());
const deep = (depth: number): Section => (depth === 0 ? {} : { a: deep(depth - 1) });
/** `deep` as bytes. */
const deepBytes = (depth: number): Uint8Array => {
  const starts = Array.from({ length: depth }, () => bytes(1, 1, 'a'));
  return Buffer.concat([...starts, Buffer.alloc(depth, 2)]);
};

/** Both ways. Objects of the decoder have no prototype: compared as JSON. */
const golden = test.macro((tt, section: Section, encoded: Uint8Array) => {
  tt.deepEqual(encodeMessage(section), encoded);
  tt.is(JSON.stringify(decodeMessage(encoded)), JSON.stringify(section));
});
test('nothing', golden, {}, bytes());
test(
  "the example of the protocol's description",
  golden,
  { key1: 'value1', section1: { 'sub-section': { key2: 'value2' }, list1: ['item1', 'item2'] } },
  elements(
    [3, 4, 'key1', 0, 6, 'value1'], // KEY_VALUE, 4 bytes of key, 6 of value (big-endian)
    [1, 8, 'section1'], // SECTION_START
    [1, 11, 'sub-section'], // SECTION_START, inside
    [3, 4, 'key2', 0, 6, 'value2'], // KEY_VALUE
    [2], // SECTION_END of sub-section
    [4, 5, 'list1'], // LIST_START
    [5, 0, 5, 'item1'], // LIST_ITEM, 5 bytes
    [5, 0, 5, 'item2'], // LIST_ITEM
    [6], // LIST_END
    [2], // SECTION_END of section1
  ),
);
test(
  'empty: a value, a list, an item, a section',
  golden,
  { v: '', l: [], i: [''], s: {} },
  elements(
    [3, 1, 'v', 0, 0], // KEY_VALUE without a byte of value
    [4, 1, 'l', 6], // LIST_START, LIST_END
    [4, 1, 'i', 5, 0, 0, 6], // LIST_START, LIST_ITEM of no byte, LIST_END
    [1, 1, 's', 2], // SECTION_START, SECTION_END
  ),
);
test(
  'a value of more than 255 bytes, the length big-endian',
  golden,
  { v: 'x'.repeat(0x0102) },
  bytes(3, 1, 'v', 1, 2, 'x'.repeat(0x0102)), // KEY_VALUE, 0x0102 bytes
);
test(
  'the longest key and the longest value',
  golden,
  { ['k'.repeat(255)]: 'x'.repeat(65_535), ['l'.repeat(255)]: ['x'.repeat(65_535)], ['s'.repeat(255)]: {} },
  elements(
    [3, 255, 'k'.repeat(255), 255, 255, 'x'.repeat(65_535)], // KEY_VALUE
    [4, 255, 'l'.repeat(255), 5, 255, 255, 'x'.repeat(65_535), 6], // LIST_START, LIST_ITEM, LIST_END
    [1, 255, 's'.repeat(255), 2], // SECTION_START, SECTION_END
  ),
);
test('a value beyond ASCII', golden, { v: 'Köln' }, bytes(3, 1, 'v', 0, 5, 'Köln')); // ö: two bytes of UTF-8
test('a value that begins with a byte order mark', golden, { v: '\uFEFFa' }, bytes(3, 1, 'v', 0, 4, '\uFEFFa'));
test('a key that could be an answer', golden, { ' ~.=': '1' }, bytes(3, 4, ' ~.=', 0, 1, '1'));
test('the same key in two sections', golden, { a: { a: '1' } }, bytes(1, 1, 'a', 3, 1, 'a', 0, 1, '1', 2));
test('the deepest', golden, deep(32), deepBytes(32));

test('bytes as a value and as an item go as they are', (tt) => {
  const raw = Uint8Array.of(0, 255, 10);
  tt.deepEqual(
    encodeMessage({ v: raw, l: [raw, 'a'] }),
    bytes(3, 1, 'v', 0, 3, 0, 0xff, 10, 4, 1, 'l', 5, 0, 3, 0, 0xff, 10, 5, 0, 1, 'a', 6),
  );
});

const decodes = test.macro((tt, encoded: Uint8Array, expected: object) => {
  tt.is(JSON.stringify(decodeMessage(encoded)), JSON.stringify(expected));
});
test("an empty key: charon's name for its global counters", decodes, bytes(1, 0, 2), { '': {} });
test('no UTF-8', decodes, bytes(3, 1, 'v', 0, 3, 'a', 0xff, 'b'), { v: 'a\uFFFDb' });
test('part of a larger buffer', decodes, bytes(9, 9, 3, 1, 'v', 0, 1, 'a', 9).subarray(2, -1), { v: 'a' });

test('keys that JavaScript means something by', (tt) => {
  const names = ['__proto__', 'constructor', 'toString'];
  for (const name of names) {
    const decoded = decodeMessage(bytes(3, name.length, name, 0, 1, '1', 1, 1, 's', 2));
    tt.is(text(decoded, name), '1');
    tt.deepEqual(Object.keys(decoded), [name, 's']);
    tt.is(text(decodeMessage(bytes()), name), undefined);
    tt.is(text(sections(decoded)[0]?.[1] ?? decoded, name), undefined);
  }
  const own = Object.fromEntries([['__proto__', '1']]);
  tt.deepEqual(encodeMessage(own), bytes(3, 9, '__proto__', 0, 1, '1'));
});

const refuses = test.macro((tt, encoded: Uint8Array, message: string) => {
  tt.throws(() => decodeMessage(encoded), { instanceOf: ViciFormatError, message });
});
test('unknown element', refuses, bytes(3, 1, 'v', 0, 0, 7), 'unknown element 7 at byte 5');
test('element 0', refuses, bytes(0), 'unknown element 0 at byte 0');
test('a key without its length', refuses, bytes(3), 'ends inside of an element at byte 1');
test('a key that is cut', refuses, bytes(1, 3, 'ab'), '3 bytes announced at byte 2, 2 are left');
test('half a length of a value', refuses, bytes(3, 1, 'v', 0), 'ends inside of an element at byte 4');
test('a value that is cut', refuses, bytes(3, 1, 'v', 1, 0, 'secret'), '256 bytes announced at byte 5, 6 are left');
test('an item that is cut', refuses, bytes(4, 1, 'l', 5, 0, 2, 's'), '2 bytes announced at byte 6, 1 are left');
test('a list without an end', refuses, bytes(4, 1, 'l', 5, 0, 0), 'ends inside of an element at byte 6');
test('a section without an end', refuses, bytes(1, 1, 's'), 'ends inside of a section at byte 3');
test(
  'the end of a section too many',
  refuses,
  bytes(1, 1, 's', 2, 2),
  'the end of a section that has not begun at byte 4',
);
test('an item outside of a list', refuses, bytes(5, 0, 1, 'x'), 'element 5 outside of a list at byte 0');
test('the end of a list outside of one', refuses, bytes(1, 1, 's', 6), 'element 6 outside of a list at byte 3');
for (const [name, type] of Object.entries({ section: 1, end: 2, value: 3, list: 4, unknown: 9 }))
  test(`inside of a list: ${name}`, refuses, bytes(4, 1, 'l', type), `element ${type} inside of a list at byte 3`);
for (const [first, one] of Object.entries({ value: [3, 1, 'k', 0, 0], list: [4, 1, 'k', 6], section: [1, 1, 'k', 2] }))
  for (const [second, two] of Object.entries({
    value: [3, 1, 'k', 0, 0],
    list: [4, 1, 'k', 6],
    section: [1, 1, 'k', 2],
  }))
    test(
      `a key twice: ${first}, ${second}`,
      refuses,
      bytes(...one, ...two),
      `a key for the second time in its section at byte ${bytes(...one).length}`,
    );
test('too deep', refuses, deepBytes(33), 'more than 32 sections deep at byte 96');

const unsendable = test.macro((tt, section: Section, message: string) => {
  tt.throws(() => encodeMessage(section), { instanceOf: ViciFormatError, message });
});
test(
  'a key of 256 bytes',
  unsendable,
  { s: { ['k'.repeat(256)]: 'secret' } },
  `s.${'k'.repeat(256)}: the key has 256 bytes, 255 is the most`,
);
test('an empty key', unsendable, { s: { '': 'secret' } }, 's.: the key is not printable ASCII, or empty');
test('a key beyond ASCII', unsendable, { Köln: {} }, 'Köln: the key is not printable ASCII, or empty');
test('a key with a control character', unsendable, { 'a\n': [] }, 'a\n: the key is not printable ASCII, or empty');
test(
  'a value of 65,536 bytes',
  unsendable,
  { s: { v: 'x'.repeat(65_536) } },
  's.v: a value of 65536 bytes, 65535 is the most',
);
test(
  'the length of a value is that of its UTF-8',
  unsendable,
  { v: 'ö'.repeat(32_768) },
  'v: a value of 65536 bytes, 65535 is the most',
);
test(
  'an item of 65,536 bytes',
  unsendable,
  { l: [new Uint8Array(65_536)] },
  'l: a value of 65536 bytes, 65535 is the most',
);
test('sections too deep', unsendable, deep(33), 'more than 32 sections deep: a');
test('a section in itself', (tt) => {
  const endless: Record<string, Item> = {};
  endless.a = endless;
  tt.throws(() => encodeMessage(endless), { instanceOf: ViciFormatError });
});

const key = fc.oneof(
  { weight: 5, arbitrary: fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 12 }) },
  { weight: 1, arbitrary: fc.constantFrom('__proto__', '7', 'k'.repeat(255)) },
);
const value = fc.string({ unit: 'grapheme', maxLength: 20 });
const { message } = fc.letrec<{ message: Section }>((tie) => ({
  message: fc.dictionary(key, fc.oneof({ maxDepth: 4 }, value, fc.array(value, { maxLength: 4 }), tie('message')), {
    maxKeys: 5,
  }),
}));

test('property: what was encoded is decoded', (tt) => {
  fc.assert(
    fc.property(message, (section) => {
      tt.is(JSON.stringify(decodeMessage(encodeMessage(section))), JSON.stringify(section));
    }),
  );
});
test('property: no cut message is taken for another, but between two elements of the root', (tt) => {
  fc.assert(
    fc.property(message, (section) => {
      const whole = encodeMessage(section);
      const ends = new Set([0]);
      for (let count = 1; count <= Object.keys(section).length; count++)
        ends.add(encodeMessage(Object.fromEntries(Object.entries(section).slice(0, count))).length);
      for (let length = 0; length <= whole.length; length++) {
        const cut = whole.subarray(0, length);
        if (ends.has(length)) tt.notThrows(() => decodeMessage(cut));
        else tt.throws(() => decodeMessage(cut), { instanceOf: ViciFormatError });
      }
    }),
    { numRuns: 50 },
  );
});
/** Bytes as they are likelier to be a message. */
const noise = fc.array(fc.oneof(fc.integer({ min: 0, max: 7 }), fc.integer({ min: 0, max: 255 })), { maxLength: 60 });
test('property: of any bytes comes a message or a ViciFormatError, and what is decoded can be decoded again', (tt) => {
  let decoded = 0;
  fc.assert(
    fc.property(noise, (numbers) => {
      try {
        decodeMessage(Uint8Array.from(numbers));
        decoded += 1;
      } catch (error) {
        tt.true(error instanceof ViciFormatError, String(error));
      }
    }),
    { numRuns: 5000 },
  );
  tt.true(decoded > 100, `${decoded} were messages`);
});
test('property: one byte that is changed makes no other error', (tt) => {
  fc.assert(
    fc.property(message, fc.nat(), fc.integer({ min: 0, max: 255 }), (section, at, byte) => {
      const encoded = encodeMessage(section);
      encoded[at % (encoded.length + 1)] = byte;
      try {
        decodeMessage(encoded);
      } catch (error) {
        tt.true(error instanceof ViciFormatError, String(error));
      }
    }),
    { numRuns: 1000 },
  );
});

test('no error shows a value', (tt) => {
  const encoded = encodeMessage({ s: { data: 'secret', owners: ['secret', 'secret'] }, x: 'secret' });
  for (let at = 0; at < encoded.length; at++)
    for (const byte of [0, 1, 2, 3, 4, 5, 6, 7, 255]) {
      const spoilt = encoded.slice();
      spoilt[at] = byte;
      try {
        decodeMessage(spoilt);
      } catch (error) {
        tt.notRegex(String(error), /secret|ecre/);
      }
    }
});

test('takes time in proportion to the bytes', (tt) => {
  const fastestMs = (kib: number): number => {
    const encoded = messageOf(kib * 1024);
    let fastest = Infinity;
    for (let run = 0; run < 4; run++) {
      const start = performance.now();
      decodeMessage(encoded);
      fastest = Math.min(fastest, performance.now() - start);
    }
    return fastest;
  };
  fastestMs(512);
  // A busy machine may spoil one attempt; what is quadratic fails each.
  for (let attempt = 1; ; attempt++) {
    const found = [64, 128, 256, 512].map((kib) => [kib, fastestMs(kib)] as const);
    tt.log(found.map(([kib, ms]) => `${kib} KiB: ${ms.toFixed(2)} ms`).join(', '));
    const ratio = (found[3]?.[1] ?? Infinity) / (found[0]?.[1] ?? 0);
    if (ratio < 24 || attempt === 4) return tt.true(ratio < 24, '8 times the bytes, far less than 64 times the time');
  }
});

/** As list-sas has them: sections of short values and lists. */
function messageOf(size: number): Uint8Array {
  const sa = (number: number): Section => ({
    uniqueid: String(number),
    state: 'INSTALLED',
    'bytes-in': '1234567',
    'local-ts': ['10.10.0.0/16', 'fd00:10::/56'],
  });
  const one = encodeMessage({ 'sa-100000': sa(100_000) }).length;
  const all = Array.from(
    { length: Math.floor(size / one) },
    (_, at) => [`sa-${at + 100_000}`, sa(at + 100_000)] as const,
  );
  return encodeMessage(Object.fromEntries(all));
}

test('reading', (tt) => {
  const decoded = decodeMessage(
    encodeMessage({ v: 'a', yes: 'yes', no: 'no', l: ['a', 'b'], s: { one: { a: '1' }, v: '2', l: [], two: {} } }),
  );
  tt.is(text(decoded, 'v'), 'a');
  for (const name of ['l', 's', 'none']) tt.is(text(decoded, name), undefined, name);
  tt.deepEqual(list(decoded, 'l'), ['a', 'b']);
  for (const name of ['v', 's', 'none']) tt.deepEqual(list(decoded, name), [], name);
  const names = (found: ReturnType<typeof sections>): string[] => found.map(([name]) => name);
  tt.deepEqual(names(sections(decoded)), ['s']);
  tt.deepEqual(names(sections(decoded, 's')), ['one', 'two']);
  tt.is(text(sections(decoded, 's')[0]?.[1] ?? {}, 'a'), '1');
  for (const name of ['v', 'l', 'none']) tt.deepEqual(sections(decoded, name), [], name);
  for (const name of ['v', 'no', 'l', 's', 'none']) tt.false(flag(decoded, name), name);
  tt.true(flag(decoded, 'yes'));
});
