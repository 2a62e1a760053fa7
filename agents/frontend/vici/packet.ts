/**
 * VICI's packets, and their way over a stream: each goes behind its length, 4 bytes big-endian. A packet is its type, one
 * byte; the name, behind one byte of length, where its type has one; and the message, where it has one. Described in
 * strongSwan's src/libcharon/plugins/vici/README.md, "Transport protocol" and "Packet layer".
 */
import { ViciFormatError } from './message.ts';

/** charon drops the connection for a longer one, and sends no longer one: an answer that would be is never sent at all. */
export const MAX_SEGMENT = 512 * 1024;

const TYPES = {
  CMD_REQUEST: 0,
  CMD_RESPONSE: 1,
  CMD_UNKNOWN: 2,
  EVENT_REGISTER: 3,
  EVENT_UNREGISTER: 4,
  EVENT_CONFIRM: 5,
  EVENT_UNKNOWN: 6,
  EVENT: 7,
} as const;

/** `message`: encoded, see message.ts. */
export type Packet =
  | { readonly type: 'CMD_REQUEST'; readonly name: string; readonly message: Uint8Array }
  | { readonly type: 'CMD_RESPONSE'; readonly message: Uint8Array }
  | { readonly type: 'EVENT_REGISTER' | 'EVENT_UNREGISTER'; readonly name: string }
  | { readonly type: 'EVENT'; readonly name: string; readonly message: Uint8Array }
  | { readonly type: 'CMD_UNKNOWN' | 'EVENT_CONFIRM' | 'EVENT_UNKNOWN' };

const LENGTH_BYTES = 4;
const MAX_NAME_BYTES = 255;

/** As it goes over the stream, with its length. Throws ViciFormatError. */
export function encodePacket(packet: Packet): Uint8Array {
  const name = 'name' in packet ? encodedName(packet.name) : Buffer.alloc(0);
  const message = 'message' in packet ? packet.message : Buffer.alloc(0);
  const length = 1 + name.length + message.length;
  if (length > MAX_SEGMENT)
    throw new ViciFormatError(`a packet of ${length} bytes, ${MAX_SEGMENT} is the most that charon takes`);
  const head = Buffer.alloc(LENGTH_BYTES + 1);
  head.writeUInt32BE(length);
  head.writeUInt8(TYPES[packet.type], LENGTH_BYTES);
  return Buffer.concat([head, name, message]);
}

function encodedName(name: string): Buffer {
  if (!/^[ -~]+$/.test(name)) throw new ViciFormatError('the name of a packet is not printable ASCII, or empty');
  if (name.length > MAX_NAME_BYTES)
    throw new ViciFormatError(`a name of ${name.length} bytes, ${MAX_NAME_BYTES} is the most`);
  return Buffer.from(`${String.fromCharCode(name.length)}${name}`, 'latin1');
}

/** One segment of the stream, without its length. The message is a view on it. Throws ViciFormatError. */
export function decodePacket(segment: Uint8Array): Packet {
  const [type] = segment;
  if (type === undefined) throw new ViciFormatError('an empty packet');
  switch (type) {
    case TYPES.CMD_REQUEST:
      return { type: 'CMD_REQUEST', ...named(segment) };
    case TYPES.CMD_RESPONSE:
      return { type: 'CMD_RESPONSE', message: segment.subarray(1) };
    case TYPES.CMD_UNKNOWN:
      return { type: 'CMD_UNKNOWN', ...bare(segment) };
    case TYPES.EVENT_REGISTER:
      return { type: 'EVENT_REGISTER', ...nameAlone(segment) };
    case TYPES.EVENT_UNREGISTER:
      return { type: 'EVENT_UNREGISTER', ...nameAlone(segment) };
    case TYPES.EVENT_CONFIRM:
      return { type: 'EVENT_CONFIRM', ...bare(segment) };
    case TYPES.EVENT_UNKNOWN:
      return { type: 'EVENT_UNKNOWN', ...bare(segment) };
    case TYPES.EVENT:
      return { type: 'EVENT', ...named(segment) };
    default:
      throw new ViciFormatError(`a packet of unknown type ${type}`);
  }
}

function bare(segment: Uint8Array): object {
  if (segment.length > 1) throw new ViciFormatError(`${segment.length - 1} bytes too many in a packet of one`);
  return {};
}

function nameAlone(segment: Uint8Array): { name: string } {
  const { name, message } = named(segment);
  if (message.length > 0) throw new ViciFormatError(`${message.length} bytes too many behind the name of a packet`);
  return { name };
}

function named(segment: Uint8Array): { name: string; message: Uint8Array } {
  const end = 2 + (segment[1] ?? 0);
  if (segment.length < end)
    throw new ViciFormatError(`a packet of ${segment.length} bytes whose name ends at byte ${end}`);
  return { name: Buffer.from(segment.subarray(2, end)).toString('latin1'), message: segment.subarray(end) };
}

/** Cuts what arrives, in whatever chunks, into segments. Of no use any more once it has thrown. */
export class Framer {
  readonly #length = Buffer.alloc(LENGTH_BYTES);
  /** How much of the length is there, and of the segment. */
  #lengthBytes = 0;
  #bytes = 0;
  /** Made once its length is known. */
  #segment: Uint8Array | undefined;

  /** The segments that this chunk completes. Throws ViciFormatError when a longer one than MAX_SEGMENT is announced. */
  push(chunk: Uint8Array): Uint8Array[] {
    const segments: Uint8Array[] = [];
    let at = 0;
    while (at < chunk.length) {
      at += this.#segment === undefined ? this.#takeLength(chunk, at) : this.#take(this.#segment, chunk, at);
      if (this.#segment === undefined || this.#bytes < this.#segment.length) continue;
      segments.push(this.#segment);
      this.#segment = undefined;
      this.#lengthBytes = 0;
      this.#bytes = 0;
    }
    return segments;
  }

  #takeLength(chunk: Uint8Array, at: number): number {
    const part = chunk.subarray(at, at + LENGTH_BYTES - this.#lengthBytes);
    this.#length.set(part, this.#lengthBytes);
    this.#lengthBytes += part.length;
    if (this.#lengthBytes < LENGTH_BYTES) return part.length;
    const length = this.#length.readUInt32BE();
    if (length > MAX_SEGMENT)
      throw new ViciFormatError(`a packet of ${length} bytes is announced, ${MAX_SEGMENT} is the most`);
    this.#segment = new Uint8Array(length);
    return part.length;
  }

  #take(segment: Uint8Array, chunk: Uint8Array, at: number): number {
    const part = chunk.subarray(at, at + segment.length - this.#bytes);
    segment.set(part, this.#bytes);
    this.#bytes += part.length;
    return part.length;
  }
}
