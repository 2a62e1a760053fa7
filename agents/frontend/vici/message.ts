/**
 * VICI's messages: a tree of sections, values and lists of values, as a row of elements. Each begins with its type, one
 * byte; then what it has of: a key (1 byte of length, ASCII), a value (2 bytes of length, big-endian; any bytes). Described
 * in strongSwan's src/libcharon/plugins/vici/README.md, "Message format".
 */

/** What is sent. A string goes as UTF-8. charon ignores the rest of a message from the first key that is not printable ASCII. */
export interface Section {
  readonly [key: string]: Item;
}
export type Value = string | Uint8Array;
export type Item = Value | readonly Value[] | Section;

/**
 * What came, without a prototype. Values as UTF-8, with U+FFFD for what is none. A key may be '': so charon calls its global
 * counters. In charon's order, but that keys such as `7` come first.
 */
export interface Decoded {
  readonly [key: string]: DecodedItem;
}
export type DecodedItem = string | readonly string[] | Decoded;

/** The message says what is wrong, and where: at which byte, counted from 0, or under which key. Never a value. */
export class ViciFormatError extends Error {
  override name = 'ViciFormatError';
}

const SECTION_START = 1;
const SECTION_END = 2;
const KEY_VALUE = 3;
const LIST_START = 4;
const LIST_ITEM = 5;
const LIST_END = 6;

const MAX_KEY_BYTES = 255;
const MAX_VALUE_BYTES = 65_535;
/** charon's own go 5 deep. */
const MAX_DEPTH = 32;

/** Throws ViciFormatError. */
export function encodeMessage(section: Section): Uint8Array {
  const chunks: Uint8Array[] = [];
  putItems(chunks, section, []);
  return Buffer.concat(chunks);
}

function putItems(chunks: Uint8Array[], section: Section, above: readonly string[]): void {
  if (above.length > MAX_DEPTH) throw new ViciFormatError(`more than ${MAX_DEPTH} sections deep: ${above[0]}`);
  for (const [key, item] of Object.entries(section)) putItem(chunks, item, [...above, key]);
}

/** `path`: the keys of the sections around it, and its own. */
function putItem(chunks: Uint8Array[], item: Item, path: readonly string[]): void {
  if (isValue(item)) {
    chunks.push(encodedKey(KEY_VALUE, path), encodedValue(item, path));
  } else if (isList(item)) {
    chunks.push(encodedKey(LIST_START, path));
    for (const value of item) chunks.push(Uint8Array.of(LIST_ITEM), encodedValue(value, path));
    chunks.push(Uint8Array.of(LIST_END));
  } else {
    chunks.push(encodedKey(SECTION_START, path));
    putItems(chunks, item, path);
    chunks.push(Uint8Array.of(SECTION_END));
  }
}

const isValue = (item: Item): item is Value => typeof item === 'string' || item instanceof Uint8Array;
const isList = (item: readonly Value[] | Section): item is readonly Value[] => Array.isArray(item);

function encodedKey(type: number, path: readonly string[]): Uint8Array {
  const key = path.at(-1) ?? '';
  if (!/^[ -~]+$/.test(key)) throw new ViciFormatError(`${path.join('.')}: the key is not printable ASCII, or empty`);
  if (key.length > MAX_KEY_BYTES)
    throw new ViciFormatError(`${path.join('.')}: the key has ${key.length} bytes, ${MAX_KEY_BYTES} is the most`);
  return Buffer.from(`${String.fromCharCode(type, key.length)}${key}`, 'latin1');
}

function encodedValue(value: Value, path: readonly string[]): Uint8Array {
  const bytes = typeof value === 'string' ? Buffer.from(value) : value;
  const { length } = bytes;
  if (length > MAX_VALUE_BYTES)
    throw new ViciFormatError(`${path.join('.')}: a value of ${length} bytes, ${MAX_VALUE_BYTES} is the most`);
  return Buffer.concat([Uint8Array.of(length >> 8, length & 0xff), bytes]);
}

/** Throws ViciFormatError. Takes time in proportion to the bytes. */
export function decodeMessage(bytes: Uint8Array): Decoded {
  const reader = new Reader(bytes);
  const root = newSection();
  /** The open sections, the innermost last. */
  const open = [root];
  while (!reader.atEnd) {
    const at = reader.at;
    const type = reader.byte();
    const section = open.at(-1) ?? root;
    if (type === SECTION_START) open.push(put(section, reader.key(), newSection(), at));
    else if (type === SECTION_END) open.pop();
    else if (type === KEY_VALUE) put(section, reader.key(), reader.value(), at);
    else if (type === LIST_START) put(section, reader.key(), readItems(reader), at);
    else throw new ViciFormatError(`${describe(type)} at byte ${at}`);
    if (open.length === 0) throw new ViciFormatError(`the end of a section that has not begun at byte ${at}`);
    if (open.length > MAX_DEPTH + 1) throw new ViciFormatError(`more than ${MAX_DEPTH} sections deep at byte ${at}`);
  }
  if (open.length > 1) throw new ViciFormatError(`ends inside of a section at byte ${bytes.length}`);
  return root;
}

function readItems(reader: Reader): string[] {
  const items: string[] = [];
  for (;;) {
    const at = reader.at;
    const type = reader.byte();
    if (type === LIST_END) return items;
    if (type !== LIST_ITEM) throw new ViciFormatError(`element ${type} inside of a list at byte ${at}`);
    items.push(reader.value());
  }
}

const describe = (type: number): string =>
  type === LIST_ITEM || type === LIST_END ? `element ${type} outside of a list` : `unknown element ${type}`;

type Open = Record<string, DecodedItem>;
const newSection = (): Open => Object.create(null) as Open;

function put<T extends DecodedItem>(section: Open, key: string, item: T, at: number): T {
  if (key in section) throw new ViciFormatError(`a key for the second time in its section at byte ${at}`);
  section[key] = item;
  return item;
}

class Reader {
  /** Of the next byte. */
  at = 0;
  readonly #bytes: Buffer;
  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length); // the same memory
  }

  get atEnd(): boolean {
    return this.at === this.#bytes.length;
  }

  byte(): number {
    const byte = this.#bytes[this.at];
    if (byte === undefined) throw new ViciFormatError(`ends inside of an element at byte ${this.at}`);
    this.at += 1;
    return byte;
  }

  key(): string {
    return this.#text(this.byte());
  }

  value(): string {
    return this.#text(this.byte() * 256 + this.byte());
  }

  #text(length: number): string {
    const end = this.at + length;
    if (end > this.#bytes.length)
      throw new ViciFormatError(
        `${length} bytes announced at byte ${this.at}, ${this.#bytes.length - this.at} are left`,
      );
    const text = this.#bytes.toString('utf8', this.at, end);
    this.at = end;
    return text;
  }
}

/** A value; undefined where there is none of that name, or no value. */
export function text(section: Decoded, key: string): string | undefined {
  const item = section[key];
  return typeof item === 'string' ? item : undefined;
}

/** `yes`. charon leaves out what is not so. */
export const flag = (section: Decoded, key: string): boolean => section[key] === 'yes';

/** [] where there is none of that name, or no list. */
export function list(section: Decoded, key: string): readonly string[] {
  const item = section[key];
  return isDecodedList(item) ? item : [];
}

/** The sections in a section, or in the one under `key` (none where that is missing): `sections(sa, 'child-sas')`. */
export function sections(section: Decoded, key?: string): [name: string, section: Decoded][] {
  const item = key === undefined ? section : section[key];
  if (!isDecodedSection(item)) return [];
  return Object.entries(item).flatMap(([name, inner]) => (isDecodedSection(inner) ? [[name, inner]] : []));
}

const isDecodedList = (item: DecodedItem | undefined): item is readonly string[] => Array.isArray(item);
const isDecodedSection = (item: DecodedItem | undefined): item is Decoded =>
  typeof item === 'object' && !isDecodedList(item);
