import test from 'ava';
import * as E from 'fp-ts/lib/Either.js';
import { problems } from './codec.ts';
import { DEFAULT_ESP, DEFAULT_IKE, EspProposals, IkeProposals, weakTokens } from './proposal.ts';

const codecs = { ike: IkeProposals, esp: EspProposals };
type Kind = keyof typeof codecs;

const accepted = test.macro((tt, kind: Kind, ...proposals: string[]) => {
  tt.deepEqual(codecs[kind].decode(proposals), E.right(proposals));
});
test('IKE defaults', accepted, 'ike', ...DEFAULT_IKE);
test('ESP defaults', accepted, 'esp', ...DEFAULT_ESP);
test('IKE: the order is the preference', accepted, 'ike', ...DEFAULT_IKE.toReversed());
test('IKE: additional key exchanges', accepted, 'ike', 'aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_ecp384');
test('IKE: no PRF beside a classic cipher', accepted, 'ike', 'aes128-sha256-modp3072');
test('IKE: ChaCha20', accepted, 'ike', 'chacha20poly1305-prfsha256-curve25519');
test('ESP: no group', accepted, 'esp', 'aes256gcm16');
test('ESP: extended sequence numbers', accepted, 'esp', 'aes256gcm16-ecp384-esn-noesn');
test('ESP: weak, but complete', accepted, 'esp', '3des-sha1-modp1024');

test('the defaults have no weak part', (tt) => {
  tt.deepEqual([...DEFAULT_IKE, ...DEFAULT_ESP].flatMap(weakTokens), []);
});

const refused = test.macro((tt, kind: Kind, proposal: string, message: string) => {
  const result = codecs[kind].decode(['aes256-sha256-modp3072', proposal]);
  tt.deepEqual(E.isLeft(result) ? problems(result.left) : [], [{ path: '[1]', message }]);
});
const NO_CIPHER = 'names no encryption algorithm, such as aes256gcm16';
const NO_INTEGRITY = 'names no integrity algorithm beside a cipher that needs one, such as sha256';
test('misspelt', refused, 'ike', 'aes265-sha256-modp3072', 'has the unknown part "aes265"; did you mean aes256?');
test('in capitals', refused, 'ike', 'AES256-sha256-modp3072', 'has the unknown part "AES256"; did you mean aes256?');
test('far from any', refused, 'esp', 'aes256-sha256-whatever', 'has the unknown part "whatever"');
test('spaces', refused, 'esp', 'aes256 - sha256', 'has the unknown part "aes256 "; did you mean aes256?');
test('empty', refused, 'esp', '', 'has the unknown part ""');
test(
  'end mark of older notations',
  refused,
  'ike',
  'aes256-sha256-modp3072!',
  'has the unknown part "modp3072!"; did you mean modp3072?',
);
test(
  'unknown additional group',
  refused,
  'ike',
  'aes256gcm16-prfsha384-x25519-ke1_mlkem769',
  'has the unknown part "mlkem769"; did you mean mlkem768?',
);
test('eighth key exchange', refused, 'ike', 'aes256-sha256-modp3072-ke8_x25519', 'has the unknown part "ke8_x25519"');
test('PRF in ESP', refused, 'esp', 'aes256-sha256-prfsha256', 'has the unknown part "prfsha256"; did you mean sha256?');
test('sequence numbers in IKE', refused, 'ike', 'aes256-sha256-modp3072-esn', 'has the unknown part "esn"');
test('IKE without cipher', refused, 'ike', 'sha256-modp3072', NO_CIPHER);
test('ESP without cipher', refused, 'esp', 'sha256-modp3072', NO_CIPHER);
test('IKE without integrity', refused, 'ike', 'aes256-modp3072', NO_INTEGRITY);
test('ESP without integrity', refused, 'esp', 'aes256-modp3072', NO_INTEGRITY);
test(
  'IKE AEAD without PRF',
  refused,
  'ike',
  'aes256gcm16-ecp384',
  'names no PRF beside an AEAD cipher, such as prfsha384',
);
test('IKE without group', refused, 'ike', 'aes256gcm16-prfsha384', 'names no key exchange group, such as ecp384');
test(
  'IKE with additional groups only',
  refused,
  'ike',
  'aes256-sha256-ke1_mlkem768',
  'names no key exchange group, such as ecp384',
);

test('no proposal at all', (tt) => {
  const result = IkeProposals.decode([]);
  tt.deepEqual(E.isLeft(result) ? problems(result.left) : [], [{ path: '', message: 'needs at least one entry' }]);
});

const weak = test.macro((tt, proposal: string, tokens: string[]) => tt.deepEqual(weakTokens(proposal), tokens));
test('weak: 3DES, SHA-1, MODP 1024', weak, '3des-sha1-modp1024', ['3des', 'sha1', 'modp1024']);
test('weak: MODP 2048', weak, 'aes256-sha256-modp2048', ['modp2048']);
test('weak: subgroups', weak, 'aes256-sha256-modp2048s256-modp1024s160', ['modp2048s256', 'modp1024s160']);
test('weak: MD5 and its PRF', weak, 'aes256-md5-prfmd5', ['md5', 'prfmd5']);
test('weak: SHA-1 as a PRF', weak, 'aes256-sha256-prfsha1-ecp256', ['prfsha1']);
test('weak: as an additional exchange', weak, 'aes256-sha256-ecp256-ke1_modp1024', ['ke1_modp1024']);
test('weak: no encryption', weak, 'null-sha256', ['null']);
test('weak: blowfish with a length', weak, 'blowfish128-sha256', ['blowfish128']);
test('weak: MODP 3072 is not', weak, 'aes256-sha256-modp3072', []);
test('weak: SHA-2 is not', weak, 'aes256-sha2_256-ecp256', []);
