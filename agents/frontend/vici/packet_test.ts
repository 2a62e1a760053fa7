import test from 'ava';
import fc from 'fast-check';
import { ViciFormatError } from './message.ts';
import { decodePacket, encodePacket, Framer, MAX_SEGMENT, type Packet } from './packet.ts';

/** Numbers are bytes, strings their ASCII. */
const bytes = (...parts: (number | string)[]): Uint8Array =>
  Uint8Array.from(Buffer.concat(parts.map((part) => (typeof part === 'number' ? Buffer.of(part) : Buffer.from(part)))));
const message = bytes(3, 1, 'v', 0, 1, 'a');

/** Both ways; the first four bytes are the transport's length. */
const golden = test.macro((tt, packet: Packet, encoded: Uint8Array) => {
  tt.deepEqual(Uint8Array.from(encodePacket(packet)), encoded);
  tt.deepEqual(decodePacket(encoded.subarray(4)), packet);
});
test(
  'CMD_REQUEST',
  golden,
  { type: 'CMD_REQUEST', name: 'load-conn', message },
  // length 17: type, length of the name, name, message
  bytes(0, 0, 0, 17, 0, 9, 'load-conn', 3, 1, 'v', 0, 1, 'a'),
);
test(
  'CMD_REQUEST without a message',
  golden,
  { type: 'CMD_REQUEST', name: 'version', message: bytes() },
  bytes(0, 0, 0, 9, 0, 7, 'version'),
);
test('CMD_RESPONSE', golden, { type: 'CMD_RESPONSE', message }, bytes(0, 0, 0, 7, 1, 3, 1, 'v', 0, 1, 'a')); // no name
test('CMD_RESPONSE without a message', golden, { type: 'CMD_RESPONSE', message: bytes() }, bytes(0, 0, 0, 1, 1));
test('CMD_UNKNOWN', golden, { type: 'CMD_UNKNOWN' }, bytes(0, 0, 0, 1, 2));
test(
  'EVENT_REGISTER',
  golden,
  { type: 'EVENT_REGISTER', name: 'list-sa' },
  bytes(0, 0, 0, 9, 3, 7, 'list-sa'), // a name and no message
);
test('EVENT_UNREGISTER', golden, { type: 'EVENT_UNREGISTER', name: 'list-sa' }, bytes(0, 0, 0, 9, 4, 7, 'list-sa'));
test('EVENT_CONFIRM', golden, { type: 'EVENT_CONFIRM' }, bytes(0, 0, 0, 1, 5));
test('EVENT_UNKNOWN', golden, { type: 'EVENT_UNKNOWN' }, bytes(0, 0, 0, 1, 6));
test('EVENT', golden, { type: 'EVENT', name: 'log', message }, bytes(0, 0, 0, 11, 7, 3, 'log', 3, 1, 'v', 0, 1, 'a'));
test(
  'the longest name, a length of two bytes',
  golden,
  { type: 'EVENT_REGISTER', name: 'e'.repeat(255) },
  bytes(0, 0, 1, 1, 3, 255, 'e'.repeat(255)), // 0x0101
);
test(
  'the longest',
  golden,
  { type: 'CMD_RESPONSE', message: new Uint8Array(MAX_SEGMENT - 1) },
  bytes(0, 8, 0, 0, 1, '\0'.repeat(MAX_SEGMENT - 1)),
); // 0x00080000: 512 KiB

const refuses = test.macro((tt, segment: Uint8Array, expected: string) => {
  tt.throws(() => decodePacket(segment), { instanceOf: ViciFormatError, message: expected });
});
test('no byte', refuses, bytes(), 'an empty packet');
test('unknown type', refuses, bytes(8), 'a packet of unknown type 8');
for (const type of [0, 3, 4, 7]) {
  test(`${type} without a name`, refuses, bytes(type), 'a packet of 1 bytes whose name ends at byte 2');
  test(`${type} with half a name`, refuses, bytes(type, 3, 'ab'), 'a packet of 4 bytes whose name ends at byte 5');
}
for (const type of [3, 4])
  test(`${type} with a message`, refuses, bytes(type, 1, 'a', 3, 1), '2 bytes too many behind the name of a packet');
for (const type of [2, 5, 6])
  test(`${type} with more`, refuses, bytes(type, 0, 0), '2 bytes too many in a packet of one');

const unsendable = test.macro((tt, packet: Packet, expected: string) => {
  tt.throws(() => encodePacket(packet), { instanceOf: ViciFormatError, message: expected });
});
test(
  'an empty name',
  unsendable,
  { type: 'EVENT_REGISTER', name: '' },
  'the name of a packet is not printable ASCII, or empty',
);
test(
  'a name beyond ASCII',
  unsendable,
  { type: 'EVENT_REGISTER', name: 'é' },
  'the name of a packet is not printable ASCII, or empty',
);
test(
  'a name of 256 bytes',
  unsendable,
  { type: 'EVENT_REGISTER', name: 'e'.repeat(256) },
  'a name of 256 bytes, 255 is the most',
);
test(
  'a byte too many',
  unsendable,
  { type: 'CMD_RESPONSE', message: new Uint8Array(MAX_SEGMENT) },
  'a packet of 524289 bytes, 524288 is the most that charon takes',
);

test('property: of any bytes comes a packet or a ViciFormatError', (tt) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 9 }), fc.uint8Array({ maxLength: 20 }), (type, rest) => {
      const segment = Uint8Array.from([type, ...rest]);
      try {
        tt.deepEqual(Uint8Array.from(encodePacket(decodePacket(segment)).subarray(4)), segment);
      } catch (error) {
        tt.true(error instanceof ViciFormatError, String(error));
      }
    }),
    { numRuns: 1000 },
  );
});

const framed = (segment: Uint8Array): Uint8Array => {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(segment.length);
  return Buffer.concat([head, segment]);
};

test('property: the same segments whatever the chunks', (tt) => {
  const segments = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 6 });
  fc.assert(
    fc.property(segments, fc.array(fc.integer({ min: 0, max: 200 })), (all, sizes) => {
      const stream = Buffer.concat(all.map(framed));
      const framer = new Framer();
      const found: Uint8Array[] = [];
      let at = 0;
      for (const size of [...sizes, stream.length]) {
        found.push(...framer.push(stream.subarray(at, at + size)));
        at += size;
      }
      tt.deepEqual(found, all);
    }),
  );
});
test('a segment comes with its last byte, not before', (tt) => {
  const framer = new Framer();
  const counts = [...framed(bytes('ab')), ...framed(bytes())].map((byte) => framer.push(Uint8Array.of(byte)).length);
  tt.deepEqual(counts, [0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
});
test('a segment does not change with the chunk that it was in', (tt) => {
  const chunk = framed(bytes('ab'));
  const [segment] = new Framer().push(chunk);
  chunk.fill(0);
  tt.deepEqual(segment, bytes('ab'));
});
test('the longest segment', (tt) => {
  const framer = new Framer();
  tt.deepEqual(framer.push(bytes(0, 8, 0, 0)), []);
  tt.is(framer.push(new Uint8Array(MAX_SEGMENT))[0]?.length, MAX_SEGMENT);
});
test('one that is too long is refused at its length', (tt) => {
  const expected = {
    instanceOf: ViciFormatError,
    message: 'a packet of 524289 bytes is announced, 524288 is the most',
  };
  tt.throws(() => new Framer().push(bytes(0, 8, 0, 1)), expected);
  tt.throws(() => new Framer().push(bytes(255, 255, 255, 255)), { message: /4294967295 bytes/ });
});
test('takes time in proportion to the bytes, one at a time', (tt) => {
  const ms = (count: number): number => {
    const stream = framed(new Uint8Array(count));
    let fastest = Infinity;
    for (let run = 0; run < 3; run++) {
      const framer = new Framer();
      const start = performance.now();
      for (let at = 0; at < stream.length; at++) framer.push(stream.subarray(at, at + 1));
      fastest = Math.min(fastest, performance.now() - start);
    }
    return fastest;
  };
  ms(MAX_SEGMENT);
  // A busy machine may spoil one attempt; what is quadratic fails each.
  for (let attempt = 1; ; attempt++) {
    const [small, large] = [ms(MAX_SEGMENT / 8), ms(MAX_SEGMENT)];
    tt.log(`64 KiB: ${small.toFixed(1)} ms, 512 KiB: ${large.toFixed(1)} ms`);
    if (large < 24 * small || attempt === 4) return tt.true(large < 24 * small);
  }
});
