/** Pre-shared keys: what can be carried exactly, and what is no secret at all. */
import type * as t from 'io-ts';
import { text, type Codec } from './codec.ts';

interface PskBrand {
  readonly Psk: unique symbol;
}
/** A pre-shared key as UTF-8 text without control characters. Never print one. */
export type Psk = t.Branded<string, PskBrand>;

/** Below this many characters a key can be guessed from one captured handshake (RFC 7296, 2.15 asks for full entropy). */
export const SHORT_PSK_CHARACTERS = 20;

const PLACEHOLDERS =
  /^(change[-_ ]?me.*|replace[-_ ]?(me|this)?.*|your[-_ ].*|example|password|passw0rd|secret|psk|pre[-_ ]?shared[-_ ]?key|todo|tbd|test|foo|bar|x+|\*+|\.+|…|<.*>|\{\{.*\}\}|\$\{.*\}|\$\(.*\))$/i;

/** Why `value` can't be a pre-shared key, or undefined. Messages never quote it. */
export function pskProblem(value: string): string | undefined {
  if (value === '') return 'is empty: write the pre-shared key that the other gateway has';
  if (value.includes('\0')) return 'holds a NUL byte, which no gateway accepts in a key typed as text';
  if (/[\u0000-\u001f\u007f]/.test(value))
    return 'holds a line break or another control character: the other gateway would read a different key; remove it (in YAML write the key in one line, in single quotes)';
  if (/^\s|\s$/.test(value))
    return 'begins or ends with white space: the other gateway would likely read a different key';
  if (/\p{Surrogate}/u.test(value)) return 'holds half of a surrogate pair, so it has no UTF-8 form';
  if (PLACEHOLDERS.test(value.trim())) return 'is a placeholder, not a key; `openssl rand -base64 32` makes one';
  return undefined;
}

/** What speaks against a key that can be used. Messages never quote it. */
export function pskWarnings(value: string): string[] {
  const found: string[] = [];
  if (value.length < SHORT_PSK_CHARACTERS)
    found.push(
      `has fewer than ${SHORT_PSK_CHARACTERS} characters and can be guessed from one recorded handshake; \`openssl rand -base64 32\` makes a good one`,
    );
  // strongSwan's swanctl.opt, secrets.ike<suffix>.secret
  if (/^0[sx]/i.test(value))
    found.push(
      'begins with 0s or 0x, after which swanctl.conf reads base64 or hexadecimal digits; here it is the key itself, character by character: decode it first if it comes from there',
    );
  return found;
}

export const Psk: Codec<Psk> = text<Psk>('Psk', {}, (s) => {
  const message = pskProblem(s);
  return message === undefined ? (s as Psk) : { message };
});
