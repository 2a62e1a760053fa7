import test from 'ava';
import { isRight } from 'fp-ts/lib/Either.js';
import { DEFAULT_ESP, DEFAULT_IKE, EspProposals, IkeProposals } from '../../../functions/model/proposal.ts';
import { decodeMessage, encodeMessage, type Section } from '../vici/message.ts';
import { missingPlugins, type Missing } from './plugins.ts';

/** What strongSwan 5.9.8 of Debian 12 answered to get-algorithms, with the plugins of test/dataplane/strongswan.ts. */
const REAL = {
  encryption: {
    AES_CBC: 'aes',
    AES_ECB: 'aes',
    AES_CTR: 'openssl',
    AES_CFB: 'openssl',
    CAMELLIA_CBC: 'openssl',
    CAMELLIA_CTR: 'openssl',
    CAST_CBC: 'openssl',
    BLOWFISH_CBC: 'openssl',
    '3DES_CBC': 'openssl',
    DES_CBC: 'openssl',
    DES_ECB: 'openssl',
    NULL: 'openssl',
  },
  integrity: {
    HMAC_SHA1_96: 'hmac',
    HMAC_SHA1_128: 'hmac',
    HMAC_SHA1_160: 'hmac',
    HMAC_MD5_96: 'hmac',
    HMAC_MD5_128: 'hmac',
    HMAC_SHA2_256_128: 'hmac',
    HMAC_SHA2_256_256: 'hmac',
    HMAC_SHA2_384_192: 'hmac',
    HMAC_SHA2_384_384: 'hmac',
    HMAC_SHA2_512_256: 'hmac',
    HMAC_SHA2_512_512: 'hmac',
  },
  aead: {
    AES_GCM_16: 'openssl',
    AES_GCM_12: 'openssl',
    AES_GCM_8: 'openssl',
    AES_CCM_16: 'openssl',
    AES_CCM_12: 'openssl',
    AES_CCM_8: 'openssl',
    CHACHA20_POLY1305: 'openssl',
  },
  prf: {
    PRF_KEYED_SHA1: 'sha1',
    PRF_HMAC_SHA1: 'hmac',
    PRF_HMAC_MD5: 'hmac',
    PRF_HMAC_SHA2_256: 'hmac',
    PRF_HMAC_SHA2_384: 'hmac',
    PRF_HMAC_SHA2_512: 'hmac',
  },
  kdf: { KDF_PRF: 'kdf', KDF_PRF_PLUS: 'kdf' },
  dh: {
    MODP_3072: 'gmp',
    MODP_4096: 'gmp',
    MODP_6144: 'gmp',
    MODP_8192: 'gmp',
    MODP_2048: 'gmp',
    MODP_2048_224: 'gmp',
    MODP_2048_256: 'gmp',
    MODP_1536: 'gmp',
    MODP_1024: 'gmp',
    MODP_1024_160: 'gmp',
    MODP_768: 'gmp',
    MODP_CUSTOM: 'gmp',
    CURVE_25519: 'openssl',
    CURVE_448: 'openssl',
    ECP_256: 'openssl',
    ECP_384: 'openssl',
    ECP_521: 'openssl',
    ECP_224: 'openssl',
    ECP_192: 'openssl',
    ECP_256_BP: 'openssl',
    ECP_384_BP: 'openssl',
    ECP_512_BP: 'openssl',
    ECP_224_BP: 'openssl',
  },
  rng: { RNG_WEAK: 'openssl', RNG_STRONG: 'random', RNG_TRUE: 'random' },
  'nonce-gen': { NONCE_GEN: 'nonce' },
};

/** As they come from the socket. */
const missing = (proposals: readonly string[], algorithms: Section): Missing[] =>
  missingPlugins(proposals, decodeMessage(encodeMessage(algorithms)));
const without = (...names: string[]): Section =>
  Object.fromEntries(
    Object.entries(REAL).map(([kind, found]) => [
      kind,
      Object.fromEntries(Object.entries(found).filter(([name]) => !names.includes(name))),
    ]),
  );

test('the defaults need nothing that is not there', (tt) => {
  for (const proposal of [...DEFAULT_IKE, ...DEFAULT_ESP]) tt.deepEqual(missing([proposal], REAL), [], proposal);
});

const lacks = test.macro((tt, proposals: readonly string[], algorithms: Section, expected: readonly string[]) => {
  tt.deepEqual(
    missing(proposals, algorithms).map(({ token, plugin }) => `${token}: ${plugin}`),
    [...expected],
  );
});
test('a charon that can do nothing', lacks, DEFAULT_IKE, {}, [
  'aes256gcm16: gcm',
  'prfsha384: hmac',
  'ecp384: openssl',
  'prfsha256: hmac',
  'curve25519: curve25519',
  'aes256: aes',
  'modp3072: gmp',
]);
test('one without openssl', lacks, DEFAULT_IKE, without('ECP_384', 'CURVE_25519', 'AES_GCM_16'), [
  'aes256gcm16: gcm',
  'ecp384: openssl',
  'curve25519: curve25519',
]);
test('each part once, where several proposals have it', lacks, ['aes256-sha256-ecp256', 'aes256-sha512-ecp256'], {}, [
  'aes256: aes',
  'ecp256: openssl',
]);
const HYBRID = 'aes256gcm16-prfsha384-x25519-ke1_mlkem768';
test('ML-KEM, which 5.9.8 has not', lacks, [HYBRID], REAL, ['ke1_mlkem768: ml']);
// 6.0 calls the section ke (vici_query.c, get_algorithms).
const { dh, ...others } = REAL;
test('6.0 with the plugin ml', lacks, [HYBRID], { ...others, ke: { ...dh, ML_KEM_768: 'ml' } }, []);
test('6.0 without', lacks, [HYBRID], { ...others, ke: dh }, ['ke1_mlkem768: ml']);
test('another size', lacks, ['aes256gcm16-prfsha384-mlkem1024'], { ...others, ke: { ...dh, ML_KEM_768: 'ml' } }, [
  'mlkem1024: ml',
]);
test('a classic group in an additional exchange', lacks, ['aes256-sha256-x25519-ke7_ecp521'], without('ECP_521'), [
  'ke7_ecp521: openssl',
]);
test(
  'what is known elsewhere only is not there',
  lacks,
  ['aes256-sha256-ecp384'],
  { ...without('ECP_384'), rng: { X: 'ECP_384' } },
  ['ecp384: openssl'],
);

/** By keyword, strongSwan's own name of it: proposal_keywords_static.txt, crypter.c, prf.c, signer.c and key_exchange.c. */
const KEYWORDS = new Map<string, string>();
const also = (algorithm: string, ...keywords: string[]): void =>
  keywords.forEach((keyword) => KEYWORDS.set(keyword, algorithm));
const BITS = ['128', '192', '256'];
for (const [icv, octets] of ['8 8', '12 12', '16 16', '64 8', '96 12', '128 16'].map((pair) => pair.split(' ')))
  for (const bits of BITS) {
    also(`AES_GCM_${octets}`, `aes${bits}gcm${icv}`);
    also(`AES_CCM_${octets}`, `aes${bits}ccm${icv}`);
    if (Number(icv) <= 16) also(`CAMELLIA_CCM_${octets}`, `camellia${bits}ccm${icv}`);
  }
also('AES_CBC', 'aes', ...BITS.map((bits) => `aes${bits}`));
also('AES_CTR', ...BITS.map((bits) => `aes${bits}ctr`));
also('CAMELLIA_CBC', 'camellia', ...BITS.map((bits) => `camellia${bits}`));
also('CAMELLIA_CTR', ...BITS.map((bits) => `camellia${bits}ctr`));
also('NULL_AES_GMAC', ...BITS.map((bits) => `aes${bits}gmac`));
also('BLOWFISH_CBC', 'blowfish', ...BITS.map((bits) => `blowfish${bits}`));
also('CHACHA20_POLY1305', 'chacha20poly1305');
also('3DES_CBC', '3des');
also('CAST_CBC', 'cast128');
also('NULL', 'null');
also('HMAC_MD5_96', 'md5');
also('HMAC_MD5_128', 'md5_128');
also('HMAC_SHA1_96', 'sha', 'sha1');
also('HMAC_SHA1_160', 'sha1_160');
also('HMAC_SHA2_256_128', 'sha256', 'sha2_256');
also('HMAC_SHA2_256_96', 'sha256_96');
also('HMAC_SHA2_384_192', 'sha384', 'sha2_384');
also('HMAC_SHA2_512_256', 'sha512', 'sha2_512');
also('AES_XCBC_96', 'aesxcbc');
also('AES_CMAC_96', 'aescmac');
also('PRF_HMAC_MD5', 'prfmd5');
also('PRF_HMAC_SHA1', 'prfsha1');
for (const bits of ['256', '384', '512']) also(`PRF_HMAC_SHA2_${bits}`, `prfsha${bits}`);
also('PRF_AES128_XCBC', 'prfaesxcbc');
also('PRF_AES128_CMAC', 'prfaescmac');
for (const bits of '768 1024 1536 2048 3072 4096 6144 8192'.split(' ')) also(`MODP_${bits}`, `modp${bits}`);
also('MODP_1024_160', 'modp1024s160');
also('MODP_2048_224', 'modp2048s224');
also('MODP_2048_256', 'modp2048s256');
for (const bits of '192 224 256 384 521'.split(' ')) also(`ECP_${bits}`, `ecp${bits}`);
for (const bits of '224 256 384 512'.split(' ')) also(`ECP_${bits}_BP`, `ecp${bits}bp`);
also('CURVE_25519', 'curve25519', 'x25519');
also('CURVE_448', 'curve448', 'x448');
for (const size of '512 768 1024'.split(' ')) also(`ML_KEM_${size}`, `mlkem${size}`);

/** In 5.9.8 integrity comes with the plugin that a PRF needs, the rest is hardly ever asked for. */
const NOT_JUDGED =
  /^(camellia.*|aes\d+gmac|blowfish.*|cast128|null|md5.*|sha.*|aesxcbc|aescmac|prfmd5|prfaes.*|modp\d+s\d+)$/;

for (const [keyword, algorithm] of KEYWORDS)
  test(`${keyword} is ${algorithm}${NOT_JUDGED.test(keyword) ? ', which is not judged' : ''}`, (tt) => {
    // The model knows the keyword.
    const complete = [
      keyword,
      `${keyword}-aes128-sha256-prfsha256-ecp256`,
      `${keyword}-sha256-ecp256`,
      `aes128-${keyword}`,
    ];
    tt.true(
      complete.some((proposal) => isRight(IkeProposals.decode([proposal])) || isRight(EspProposals.decode([proposal]))),
    );
    tt.deepEqual(missing([keyword], { some: { [algorithm]: 'plugin' } }), []);
    const rest = Object.fromEntries(
      [...KEYWORDS.values()].filter((name) => name !== algorithm).map((name) => [name, 'x']),
    );
    tt.deepEqual(
      missing([keyword], { rest }).map(({ token }) => token),
      NOT_JUDGED.test(keyword) ? [] : [keyword],
    );
  });

for (const token of ['esn', 'noesn', 'none', 'anything', 'ke1_', 'ke1_anything', ''])
  test(`"${token}" is not judged`, lacks, [token], {}, []);
