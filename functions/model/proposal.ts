/**
 * strongSwan's proposal strings, e.g. `aes256gcm16-prfsha384-ecp384`.
 * Keywords: strongSwan's table of IKEv2 cipher suites (docs, config/proposals) and src/libstrongswan/crypto/proposal.
 */
import { list, nearest, text, type Codec } from './codec.ts';

const words = (s: string): string[] => s.trim().split(/\s+/);

const AEAD = words(`aes128gcm8 aes128gcm12 aes128gcm16 aes192gcm8 aes192gcm12 aes192gcm16 aes256gcm8 aes256gcm12
  aes256gcm16 aes128gcm64 aes128gcm96 aes128gcm128 aes192gcm64 aes192gcm96 aes192gcm128 aes256gcm64 aes256gcm96
  aes256gcm128 aes128ccm8 aes128ccm12 aes128ccm16 aes192ccm8 aes192ccm12 aes192ccm16 aes256ccm8 aes256ccm12
  aes256ccm16 aes128ccm64 aes128ccm96 aes128ccm128 aes192ccm64 aes192ccm96 aes192ccm128 aes256ccm64 aes256ccm96
  aes256ccm128 camellia128ccm8 camellia128ccm12 camellia128ccm16 camellia192ccm8 camellia192ccm12 camellia192ccm16
  camellia256ccm8 camellia256ccm12 camellia256ccm16 chacha20poly1305 aes128gmac aes192gmac aes256gmac`);
const CIPHERS = words(`aes aes128 aes192 aes256 aes128ctr aes192ctr aes256ctr camellia camellia128 camellia192
  camellia256 camellia128ctr camellia192ctr camellia256ctr 3des cast128 blowfish blowfish128 blowfish192 blowfish256
  null`);
const HASHES = words(`md5 md5_128 sha sha1 sha1_160 sha256 sha2_256 sha256_96 sha384 sha2_384 sha512 sha2_512 aesxcbc
  aescmac aes128gmac aes192gmac aes256gmac`);
const PRFS = words('prfmd5 prfsha1 prfsha256 prfsha384 prfsha512 prfaesxcbc prfaescmac');
const GROUPS = words(`modp768 modp1024 modp1024s160 modp1536 modp2048 modp2048s224 modp2048s256 modp3072 modp4096
  modp6144 modp8192 ecp192 ecp224 ecp256 ecp384 ecp521 ecp224bp ecp256bp ecp384bp ecp512bp curve25519 x25519 curve448
  x448 mlkem512 mlkem768 mlkem1024`);
const ADDITIONAL = /^ke[1-7]_(.+)$/;
const NUMBERS = words('esn noesn');

const WEAK =
  /^(3des|cast128|blowfish.*|null|md5.*|sha|sha1.*|prfmd5|prfsha1|modp(768|1024.*|1536|2048.*)|ecp192|ecp224)$/;

/** The weak parts of a proposal, in its order: 64-bit block ciphers, MD5, SHA-1, groups of about 112 bits and less. */
export function weakTokens(proposal: string): string[] {
  return proposal.split('-').filter((token) => WEAK.test(token.replace(ADDITIONAL, '$1')));
}

function problemOf(token: string, kind: 'ike' | 'esp'): string | undefined {
  const group = ADDITIONAL.exec(token)?.[1];
  if (group !== undefined) return GROUPS.includes(group) ? undefined : unknown(group, GROUPS);
  const known = [...AEAD, ...CIPHERS, ...HASHES, ...GROUPS, ...(kind === 'ike' ? PRFS : NUMBERS)];
  return known.includes(token) ? undefined : unknown(token, known);
}

function unknown(token: string, known: readonly string[]): string {
  const near = nearest(token, known);
  return `has the unknown part "${token}"${near === undefined ? '' : `; did you mean ${near}?`}`;
}

const has = (tokens: readonly string[], kinds: readonly string[]): boolean =>
  tokens.some((token) => kinds.includes(token));

/** What a complete proposal needs, RFC 7296 3.3.3. */
function missingPart(tokens: readonly string[], kind: 'ike' | 'esp'): string | undefined {
  const aead = has(tokens, AEAD);
  if (!aead && !has(tokens, CIPHERS)) return 'names no encryption algorithm, such as aes256gcm16';
  if (!aead && !has(tokens, HASHES))
    return 'names no integrity algorithm beside a cipher that needs one, such as sha256';
  if (kind === 'ike' && aead && !has(tokens, PRFS)) return 'names no PRF beside an AEAD cipher, such as prfsha384';
  if (kind === 'ike' && !has(tokens, GROUPS)) return 'names no key exchange group, such as ecp384';
  return undefined;
}

function proposal(kind: 'ike' | 'esp'): Codec<string> {
  return text(`${kind} proposal`, {}, (s) => {
    const tokens = s.split('-');
    const message =
      tokens.map((token) => problemOf(token, kind)).find((m) => m !== undefined) ?? missingPart(tokens, kind);
    return message === undefined ? s : { message };
  });
}

export const IkeProposals: Codec<string[]> = list(proposal('ike'), 1);
export const EspProposals: Codec<string[]> = list(proposal('esp'), 1);

/** Forward secrecy and AEAD first; the last of each is for gateways that know no AEAD. */
export const DEFAULT_IKE = [
  'aes256gcm16-prfsha384-ecp384',
  'aes256gcm16-prfsha256-curve25519',
  'aes256-sha256-modp3072',
];
export const DEFAULT_ESP = ['aes256gcm16-ecp384', 'aes256gcm16-curve25519', 'aes256-sha256-modp3072'];
