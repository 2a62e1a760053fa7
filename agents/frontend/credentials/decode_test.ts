import { X509Certificate, createPrivateKey, randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { secretRefs } from '../../../functions/src/rules/secrets.ts';
import {
  makeAuthority,
  makeKey,
  makeSelfSigned,
  type Authority,
  type Issued,
  type KeyType,
} from '../../../test/certificates.ts';
import { configOf, goodSpec } from '../../../test/functions/items.ts';
import type { SecretFile } from '../../lib/secret-folder.ts';
import { decodeCredentials, wantedFiles, type Credentials } from './decode.ts';

const PPK = { ppkSecretRef: { name: 'ppk-secret', key: 'quantum', id: 'acme' } };
const CERTIFICATE = { pskSecretRef: null, certificate: { secretRef: { name: 'tls' } } };
const ipsecOf = (more: object = {}) => configOf(goodSpec({}, more)).vpn.sites[0]!.ipsec;

type Files = Record<string, string | Uint8Array | { problem: string }>;

function decode(files: Files, more: object = {}, now = new Date()): ReturnType<typeof decodeCredentials> {
  const entries = Object.entries(files).map(([name, file]): [string, SecretFile] => [
    name,
    typeof file === 'string' ? Buffer.from(file) : file instanceof Uint8Array ? Buffer.from(file) : file,
  ]);
  return decodeCredentials(ipsecOf(more), new Map(entries), now);
}

const saidBy = (decoded: ReturnType<typeof decodeCredentials>): readonly string[] =>
  'problems' in decoded
    ? decoded.problems.map((problem) => `problem ${problem}`)
    : decoded.warnings.map((warning) => `warning ${warning}`);

function compare(tt: ExecutionContext, decoded: ReturnType<typeof decodeCredentials>, expected: readonly string[]) {
  tt.deepEqual(saidBy(decoded), expected);
}

// Shared keys

const KEY = 'Qm9xcmV0c2VjcmV0c2VjcmV0c2VjcmV0';
const PSK_TITLE = 'psk (the key psk of the Secret vpn-psk)';
const PPK_TITLE = 'ppk (the key quantum of the Secret ppk-secret)';
const AT_THE_END =
  'ends with a line break, which would be part of the key: make the Secret without it, ' +
  "tr -d '\\r\\n' < FILE | kubectl create secret generic NAME --from-file=KEY=/dev/stdin";
const CONTROL =
  'holds a line break or another control character: the other gateway would read a different key; remove it (in YAML write the key in one line, in single quotes)';

test('what is read: a pre-shared key', (tt) => {
  tt.deepEqual([...wantedFiles(ipsecOf())], [['psk', 'the key psk of the Secret vpn-psk']]);
});
test('what is read: one in clear', (tt) => {
  tt.deepEqual([...wantedFiles(ipsecOf({ pskSecretRef: null, psk: KEY }))], [['psk', 'the Secret made of ipsec.psk']]);
});
test('what is read: certificates and a PPK', (tt) => {
  tt.deepEqual(
    [...wantedFiles(ipsecOf({ ...CERTIFICATE, ...PPK }))],
    [
      ['tls.crt', 'the key tls.crt of the Secret tls'],
      ['tls.key', 'the key tls.key of the Secret tls'],
      ['ca.crt', 'the key ca.crt of the Secret tls'],
      ['ppk', 'the key quantum of the Secret ppk-secret'],
    ],
  );
});

test('a pre-shared key', (tt) => {
  tt.deepEqual(decode({ psk: KEY }), { credentials: { kind: 'psk', psk: Buffer.from(KEY) }, warnings: [] });
});
test('a PPK beside it', (tt) => {
  const ppk = randomBytes(32);
  tt.deepEqual(decode({ psk: KEY, ppk }, PPK), {
    credentials: { kind: 'psk', psk: Buffer.from(KEY), ppk },
    warnings: [],
  });
});
test('a PPK that nobody asked for is not used', (tt) => {
  const decoded = decode({ psk: KEY, ppk: KEY });
  tt.is('credentials' in decoded && decoded.credentials.ppk, undefined);
});

const shared = test.macro((tt, psk: string | Uint8Array, ...expected: string[]) => {
  compare(tt, decode({ psk }), expected);
});
const SHORT =
  'has fewer than 20 characters and can be guessed from one recorded handshake; `openssl rand -base64 32` makes a good one';
test('psk: short', shared, 'Qm9xcmV0', `warning ${PSK_TITLE} ${SHORT}`);
test('psk: any bytes that are no text', shared, Uint8Array.of(0xff, 0, 10, 13, 0x80, 10));
test('psk: letters of other alphabets', shared, 'ключ-ключ-ключ-ключ-ключ');
test('psk: a line break at the end', shared, `${KEY}\n`, `problem ${PSK_TITLE} ${AT_THE_END}`);
test('psk: the line break of Windows', shared, `${KEY}\r\n`, `problem ${PSK_TITLE} ${AT_THE_END}`);
test('psk: two line breaks', shared, `${KEY}\n\n`, `problem ${PSK_TITLE} ${CONTROL}`);
test('psk: a line break within', shared, `a\n${KEY}`, `problem ${PSK_TITLE} ${CONTROL}`);
test('psk: only a line break', shared, '\n', `problem ${PSK_TITLE} ${CONTROL}`);
test('psk: empty', shared, '', `problem ${PSK_TITLE} is empty: write the pre-shared key that the other gateway has`);
test(
  'psk: a placeholder',
  shared,
  'changeme',
  `problem ${PSK_TITLE} is a placeholder, not a key; \`openssl rand -base64 32\` makes one`,
);
test(
  'psk: a placeholder with a line break is said to be one after the line break is gone',
  shared,
  'changeme\n',
  `problem ${PSK_TITLE} ${CONTROL}`,
);

const ppk = test.macro((tt, key: string | Uint8Array, ...expected: string[]) => {
  compare(tt, decode({ psk: KEY, ppk: key }, PPK), expected);
});
const WEAK =
  'has fewer than 32 bytes: against a quantum computer it takes 256 bits (RFC 8784); `openssl rand -base64 32` makes a good one';
test('ppk: 31 bytes', ppk, 'z'.repeat(31), `warning ${PPK_TITLE} ${WEAK}`);
test('ppk: 32 bytes', ppk, 'z'.repeat(32));
test('ppk: 31 bytes that are no text', ppk, Buffer.alloc(31, 0xff), `warning ${PPK_TITLE} ${WEAK}`);
test('ppk: a line break at the end', ppk, `${'z'.repeat(44)}\n`, `problem ${PPK_TITLE} ${AT_THE_END}`);
test(
  'ppk: digits of swanctl.conf',
  ppk,
  `0x${'ab'.repeat(32)}`,
  `warning ${PPK_TITLE} begins with 0s or 0x, after which swanctl.conf reads base64 or hexadecimal digits; here it is the key itself, character by character: decode it first if it comes from there`,
);
test(
  'ppk: the same as the psk',
  ppk,
  KEY,
  'warning ppk is the same key as psk and adds nothing to it: make another one with `openssl rand -base64 32`',
);

test('files that could not be read, and one that was not yet', (tt) => {
  const problem = '/etc/psk is missing: make it';
  compare(tt, decode({ psk: { problem } }, PPK), [`problem ${problem}`, `problem ${PPK_TITLE} has not been read yet`]);
});

test('a key in a Secret is refused here exactly where it is refused at render time', (tt) => {
  const config = configOf(goodSpec());
  const refusedAtRender = (psk: Uint8Array): boolean => {
    const data = { psk: Buffer.from(psk).toString('base64') };
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'vpn-psk' }, data };
    return secretRefs(config, [secret]).some(({ severity }) => severity === 'error');
  };
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.string().map((s) => `${s}\n`),
    fc.constantFrom('changeme', ' key', 'key ', 'key\r\n', '\ufeffkey', 'a\0b', 'ключ', '\u0085', '\u2028key'),
  );
  const bytes = fc.oneof(
    text.map((s) => new Uint8Array(Buffer.from(s))),
    fc.uint8Array({ minLength: 1, maxLength: 40 }),
  );
  fc.assert(
    fc.property(bytes, (psk) => {
      tt.is('problems' in decode({ psk }), refusedAtRender(psk));
    }),
    { numRuns: 1000 },
  );
});

// Certificates

const TLS_CRT = 'tls.crt (Secret tls)';
const TLS_KEY = 'tls.key (Secret tls)';
const CA_CRT = 'ca.crt (Secret tls)';
const DAY_MS = 86_400_000;
const SUBJECT = 'C=DE, O=Acme, CN=vpn';

interface Fixture {
  readonly root: Authority;
  readonly other: Authority;
  readonly middle: Authority;
  /** Of the root; 90 days. */
  readonly leaf: Issued;
  /** Of the intermediate authority. */
  readonly deep: Issued;
}
let fixture: Fixture;
test.before(async () => {
  const [root, other] = await Promise.all([
    makeAuthority('root', { days: 3650 }),
    makeAuthority('other', { days: 3650 }),
  ]);
  const middle = await root.makeAuthority('middle', { days: 3650 });
  const [leaf, deep] = await Promise.all([root.issue({ subject: SUBJECT }), middle.issue({ subject: SUBJECT })]);
  fixture = { root, other, middle, leaf, deep };
});

const tls = ({ bundle, key }: Issued, authority: { certificate: string }): Record<string, string> => ({
  'tls.crt': bundle,
  'tls.key': key,
  'ca.crt': authority.certificate,
});
const der = (pem: string): Buffer => new X509Certificate(pem).raw;
const iso = (date: Date): string => date.toISOString().replace('.000Z', 'Z');
const endOf = (pem: string): Date => new X509Certificate(pem).validToDate;
const startOf = (pem: string): Date => new X509Certificate(pem).validFromDate;
const before = (date: Date, ms: number): Date => new Date(date.getTime() - ms);
const after = (date: Date, ms: number): Date => before(date, -ms);

function credentialsOf(tt: ExecutionContext, decoded: ReturnType<typeof decodeCredentials>) {
  tt.deepEqual('problems' in decoded ? decoded.problems : [], []);
  const credentials: Credentials | undefined = 'problems' in decoded ? undefined : decoded.credentials;
  if (credentials?.kind !== 'certificate') throw new Error('no certificate');
  return credentials;
}

const kind = test.macro(async (tt, keyType: KeyType, expected: string) => {
  const leaf = await fixture.root.issue({ subject: SUBJECT, keyType });
  const credentials = credentialsOf(tt, decode(tls(leaf, fixture.root), CERTIFICATE));
  tt.deepEqual(credentials, {
    kind: 'certificate',
    chain: [der(leaf.certificate)],
    authorities: [der(fixture.root.certificate)],
    key: createPrivateKey(leaf.key).export({ format: 'der', type: 'pkcs8' }),
    keyType: expected as 'rsa',
    subject: SUBJECT,
    expires: endOf(leaf.certificate),
    authoritiesExpire: [endOf(fixture.root.certificate)],
  });
});
test('RSA of 2048 bits', kind, 'rsa-2048', 'rsa');
test('RSA of 3072 bits', kind, 'rsa-3072', 'rsa');
test('ECDSA on P-256', kind, 'P-256', 'ecdsa');
test('ECDSA on P-384', kind, 'P-384', 'ecdsa');
test('ECDSA on P-521', kind, 'P-521', 'ecdsa');
test('Ed25519', kind, 'ed25519', 'ed25519');

const SUPPORTED = 'supported are RSA of 2048 bits and more, ECDSA on P-256, P-384 or P-521, and Ed25519';
const unsupported = test.macro(async (tt, keyType: KeyType, expected: string) => {
  const leaf = await fixture.root.issue({ subject: SUBJECT, keyType });
  compare(tt, decode(tls(leaf, fixture.root), CERTIFICATE), [`problem ${TLS_KEY} ${expected}: ${SUPPORTED}`]);
});
test('RSA of 1024 bits', unsupported, 'rsa-1024', 'is an RSA key of 1024 bits, which is too weak');
test('ECDSA on another curve', unsupported, 'secp256k1', 'is an ECDSA key on the curve secp256k1');
test('Ed448', unsupported, 'ed448', 'is a key of the kind ed448');

const form = test.macro(async (tt, keyType: KeyType, type: 'pkcs1' | 'sec1') => {
  const leaf = await fixture.root.issue({ subject: SUBJECT, keyType });
  const key = createPrivateKey(leaf.key).export({ format: 'pem', type });
  const credentials = credentialsOf(tt, decode({ ...tls(leaf, fixture.root), 'tls.key': key }, CERTIFICATE));
  tt.deepEqual(credentials.key, createPrivateKey(leaf.key).export({ format: 'der', type: 'pkcs8' }));
});
test('a key in PKCS#1', form, 'rsa-2048', 'pkcs1');
test('a key in SEC1', form, 'P-256', 'sec1');

/** `files` of the fixture's leaf, changed. */
const judged = test.macro(
  (tt, change: (f: Fixture) => Files, expected: (f: Fixture) => readonly string[], more: object = {}) => {
    const files = { ...tls(fixture.leaf, fixture.root), ...change(fixture) };
    compare(tt, decode(files, { ...CERTIFICATE, ...more }), expected(fixture));
  },
);
const problem = (text: string) => () => [`problem ${text}`];
const warning = (text: string) => () => [`warning ${text}`];
const none = () => [];

// tls.key
const withKey = (change: (key: string) => string) => (f: Fixture) => ({ 'tls.key': change(f.leaf.key) });
const PARAMETERS = '-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n';
const ENCRYPTED =
  'is encrypted, and nobody is there to type the passphrase: openssl pkey -in FILE -out CLEAR decrypts it';
test(
  'key: text and a block of EC parameters before it',
  judged,
  withKey((k) => `Bag\n${PARAMETERS}${k}`),
  none,
);
test(
  'key: indented, and with the line breaks of Windows',
  judged,
  withKey((k) => k.replaceAll('\n', '\r\n  ')),
  none,
);
test(
  'key: encrypted',
  judged,
  withKey((k) =>
    createPrivateKey(k)
      .export({ format: 'pem', type: 'pkcs8', cipher: 'aes-256-cbc', passphrase: 'hunter2' })
      .toString(),
  ),
  problem(`${TLS_KEY} ${ENCRYPTED}`),
);
test(
  'key: encrypted, as of old',
  judged,
  withKey((k) =>
    createPrivateKey(k).export({ format: 'pem', type: 'sec1', cipher: 'aes-256-cbc', passphrase: 'x' }).toString(),
  ),
  problem(`${TLS_KEY} ${ENCRYPTED}`),
);
const NO_KEY =
  'holds no private key in PEM form (-----BEGIN PRIVATE KEY-----); openssl pkey -inform DER -in FILE makes it of one in DER form';
test(
  'key: none',
  judged,
  withKey(() => 'hunter2'),
  problem(`${TLS_KEY} ${NO_KEY}`),
);
test(
  'key: DER',
  judged,
  (f) => ({ 'tls.key': createPrivateKey(f.leaf.key).export({ format: 'der', type: 'pkcs8' }) }),
  problem(`${TLS_KEY} ${NO_KEY}`),
);
test(
  'key: two',
  judged,
  withKey((k) => k + makeKey('P-256')),
  problem(`${TLS_KEY} holds 2 private keys: leave only that of the certificate in tls.crt`),
);
test(
  'key: cut off',
  judged,
  withKey((k) => k.slice(0, 150)),
  problem(`${TLS_KEY} is cut off, there is no matching -----END: paste the whole key`),
);
test(
  'key: not base64',
  judged,
  withKey((k) => k.replaceAll('\n', '\\n')),
  problem(`${TLS_KEY} is not base64: paste the key again, unchanged`),
);
test(
  'key: some base64',
  judged,
  withKey(() => '-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n'),
  problem(`${TLS_KEY} holds no key that can be parsed: paste it again, unchanged`),
);
test(
  'key: OpenSSH',
  judged,
  withKey((k) => k.replaceAll('PRIVATE', 'OPENSSH PRIVATE')),
  problem(`${TLS_KEY} is in OpenSSH's own form: ssh-keygen -p -N '' -m PKCS8 -f FILE converts it`),
);
test(
  'key: DSA',
  judged,
  withKey((k) => k.replaceAll('PRIVATE', 'DSA PRIVATE')),
  problem(`${TLS_KEY} holds a key of an unsupported kind: ${SUPPORTED}`),
);
test(
  'key: of another certificate',
  judged,
  (f) => ({ 'tls.key': f.deep.key }),
  problem(`${TLS_KEY} is not the key of the certificate in tls.crt: put both files of one issuance into the Secret`),
);
test(
  'key: of none of several certificates',
  judged,
  (f) => ({ 'tls.crt': f.deep.bundle }),
  problem(`${TLS_KEY} is not the key of any certificate in tls.crt: put both files of one issuance into the Secret`),
);

// tls.crt
const withCertificate = (change: (pem: string, f: Fixture) => string) => (f: Fixture) => ({
  'tls.crt': change(f.leaf.certificate, f),
});
const NO_CERTIFICATE =
  'holds no certificate in PEM form (-----BEGIN CERTIFICATE-----); openssl x509 -inform DER -in FILE makes it of one in DER form';
test(
  'certificate: none',
  judged,
  withCertificate(() => 'hunter2'),
  problem(`${TLS_CRT} ${NO_CERTIFICATE}`),
);
test(
  'certificate: empty file',
  judged,
  withCertificate(() => ''),
  problem(`${TLS_CRT} ${NO_CERTIFICATE}`),
);
test(
  'certificate: DER',
  judged,
  (f) => ({ 'tls.crt': der(f.leaf.certificate) }),
  problem(`${TLS_CRT} ${NO_CERTIFICATE}`),
);
test(
  'certificate: CR LF',
  judged,
  withCertificate((pem) => pem.replaceAll('\n', '\r\n')),
  none,
);
test(
  'certificate: all in one line',
  judged,
  withCertificate((pem) => pem.replaceAll('\n', ' ')),
  none,
);
test(
  'certificate: twice',
  judged,
  withCertificate((pem) => pem + pem),
  none,
);
test(
  'certificate: the key beside it',
  judged,
  withCertificate((pem, f) => pem + f.leaf.key),
  warning(`${TLS_CRT}, block 2, is a private key, which is not needed here: take it out, it only gets seen`),
);
test(
  'certificate: only the key',
  judged,
  withCertificate((_, f) => f.leaf.key),
  problem(`${TLS_CRT} ${NO_CERTIFICATE}`),
);
test(
  'certificate: another END than BEGIN',
  judged,
  withCertificate((pem) => pem.replace('END CERTIFICATE', 'END X509 CERTIFICATE')),
  problem(`${TLS_CRT}, block 1, is cut off, there is no matching -----END: paste the whole certificate`),
);
test(
  'certificate: all that is damaged, by number',
  judged,
  withCertificate((pem) => {
    const base64 = pem.replace('MII', '!!!');
    const parsed = '-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n';
    return base64 + parsed + pem + pem.slice(0, 200);
  }),
  () => [
    `problem ${TLS_CRT}, block 1, is not base64: paste the certificate again, unchanged`,
    `problem ${TLS_CRT}, block 2, holds no certificate that can be parsed: paste it again, unchanged`,
    `problem ${TLS_CRT}, block 4, is cut off, there is no matching -----END: paste the whole certificate`,
  ],
);
test(
  'certificate: cut off before the next one',
  judged,
  withCertificate((pem) => pem.slice(0, 200) + pem),
  () => [`problem ${TLS_CRT}, block 1, is cut off, there is no matching -----END: paste the whole certificate`],
);

const chain = test.macro(
  (tt, change: (f: Fixture) => string, expected: (f: Fixture) => string[], ...said: string[]) => {
    const decoded = decode({ ...tls(fixture.deep, fixture.root), 'tls.crt': change(fixture) }, CERTIFICATE);
    tt.deepEqual(
      credentialsOf(tt, decoded).chain,
      expected(fixture).map((pem) => der(pem)),
    );
    compare(tt, decoded, said);
  },
);
const leafAndMiddle = ({ deep, middle }: Fixture): string[] => [deep.certificate, middle.certificate];
test('chain: the leaf and its authority', chain, ({ deep }) => deep.bundle, leafAndMiddle);
test(
  'chain: text around the blocks, no line break between them',
  chain,
  ({ deep, middle }) => `subject=CN = vpn\n${deep.certificate.trim()}${middle.certificate}i:CN = root: -----\n`,
  leafAndMiddle,
);
test(
  'chain: the leaf last',
  chain,
  ({ deep, middle }) => middle.certificate + deep.certificate,
  leafAndMiddle,
  `warning ${TLS_CRT}, block 2, is the certificate of tls.key: put it first, other programs read only that one`,
);
test(
  'chain: no root, which charon would believe',
  chain,
  ({ deep, root, other }) => deep.bundle + root.certificate + other.certificate,
  leafAndMiddle,
);
test(
  'chain: no certificate of another gateway, which charon would believe',
  chain,
  ({ deep, leaf }) => deep.bundle + leaf.certificate,
  leafAndMiddle,
  `warning ${TLS_CRT}, block 3, is neither the certificate of tls.key nor of an authority and is left out: remove it`,
);
const NO_ROOT = `warning ${TLS_CRT}, block 1, leads to no root in tls.crt or ca.crt: if the other gateway doesn't know its authority, add the intermediate certificates to tls.crt`;
test(
  'chain: the intermediate is missing',
  chain,
  ({ deep }) => deep.certificate,
  ({ deep }) => [deep.certificate],
  NO_ROOT,
);
test(
  'chain: to a root that the other gateway does not come from',
  judged,
  (f) => ({ 'ca.crt': f.other.certificate }),
  () => [NO_ROOT],
);
test(
  'chain: to a root of its own, in tls.crt',
  judged,
  (f) => ({ 'tls.crt': f.leaf.certificate + f.root.certificate, 'ca.crt': f.other.certificate }),
  none,
);
test(
  'chain: intermediate in ca.crt',
  judged,
  (f) => ({
    ...tls(f.deep, f.root),
    'tls.crt': f.deep.certificate,
    'ca.crt': f.middle.certificate + f.root.certificate,
  }),
  none,
);
test('chain: an authority of the same name with another key is another one', async (tt) => {
  const namesake = await makeAuthority('root');
  compare(tt, decode(tls(fixture.leaf, namesake), CERTIFICATE), [NO_ROOT]);
});
test('chain: the same, of a certificate that does not say which key it was signed with', async (tt) => {
  const namesake = await makeAuthority('root');
  const leaf = await fixture.root.issue({ subject: SUBJECT, extensions: ['authorityKeyIdentifier = none'] });
  compare(tt, decode(tls(leaf, fixture.root), CERTIFICATE), []);
  compare(tt, decode(tls(leaf, namesake), CERTIFICATE), [NO_ROOT]);
});
test('a certificate that is its own authority', async (tt) => {
  const own = await makeSelfSigned({ subject: SUBJECT });
  const credentials = credentialsOf(tt, decode(tls(own, fixture.other), CERTIFICATE));
  tt.deepEqual(credentials.chain, [der(own.certificate)]);
});

// ca.crt
test('authorities: several', (tt) => {
  const { leaf, root, other, middle } = fixture;
  const files = { ...tls(leaf, root), 'ca.crt': other.certificate + middle.certificate + root.certificate };
  const { authorities, authoritiesExpire } = credentialsOf(tt, decode(files, CERTIFICATE));
  const expected = [other, middle, root].map(({ certificate }) => certificate);
  tt.deepEqual(
    authorities,
    expected.map((pem) => der(pem)),
  );
  tt.deepEqual(
    authoritiesExpire,
    expected.map((pem) => endOf(pem)),
  );
});
test('authorities: none', judged, () => ({ 'ca.crt': '\n' }), problem(`${CA_CRT} ${NO_CERTIFICATE}`));
const NO_AUTHORITY =
  "is not the certificate of an authority (basicConstraints CA:TRUE) and is left out: put the authority's there";
test(
  'authorities: a gateway’s certificate',
  judged,
  (f) => ({ 'ca.crt': f.leaf.certificate }),
  problem(`${CA_CRT}, block 1, ${NO_AUTHORITY}`),
);
test('authorities: a gateway’s certificate beside a good one', (tt) => {
  const { leaf, root } = fixture;
  const decoded = decode({ ...tls(leaf, root), 'ca.crt': leaf.certificate + root.certificate }, CERTIFICATE);
  tt.deepEqual(credentialsOf(tt, decoded).authorities, [der(root.certificate)]);
  compare(tt, decoded, [`warning ${CA_CRT}, block 1, ${NO_AUTHORITY}`]);
});
test(
  'authorities: no root',
  judged,
  (f) => ({ ...tls(f.deep, f.root), 'ca.crt': f.middle.certificate }),
  problem(
    `${CA_CRT} holds no root: add the self-signed certificate of the authority that the other gateway's certificate leads to, intermediates alone are not believed`,
  ),
);
test('authorities: a weak one', async (tt) => {
  const weak = await makeAuthority('weak', { keyType: 'rsa-1024' });
  const leaf = await weak.issue({ subject: SUBJECT });
  compare(tt, decode(tls(leaf, weak), CERTIFICATE), [
    `warning ${CA_CRT}, block 1, has an RSA key of 1024 bits, which is too weak: replace it`,
  ]);
});

// Time
const RENEW = 'renew it (with cert-manager, look at its Certificate and its issuer)';
const leafAt = test.macro(
  (tt, nowOf: (from: Date, to: Date) => Date, expected: (from: string, to: string) => string[]) => {
    const [from, to] = [startOf(fixture.leaf.certificate), endOf(fixture.leaf.certificate)];
    compare(
      tt,
      decode(tls(fixture.leaf, fixture.root), CERTIFICATE, nowOf(from, to)),
      expected(iso(from), iso(to)).map((text) => text.replace(' ', ` ${TLS_CRT}, block 1, `)),
    );
  },
);
test(
  'leaf: in its last second',
  leafAt,
  (_, to) => to,
  (_, to) => [`warning expires on ${to}: ${RENEW}`],
);
test(
  'leaf: a second later',
  leafAt,
  (_, to) => after(to, 1000),
  (_, to) => [`problem expired on ${to}: ${RENEW}`],
);
test('leaf: 14 days before', leafAt, (_, to) => before(to, 14 * DAY_MS), none);
test(
  'leaf: less than 14 days before',
  leafAt,
  (_, to) => before(to, 14 * DAY_MS - 1000),
  (_, to) => [`warning expires on ${to}: ${RENEW}`],
);

test('leaf: not yet valid, as soon as everything', async (tt) => {
  const from = startOf(fixture.root.certificate);
  compare(tt, decode(tls(fixture.leaf, fixture.root), CERTIFICATE, before(from, DAY_MS)), [
    `problem ${TLS_CRT}, block 1, is not valid before ${iso(startOf(fixture.leaf.certificate))}: wait, or correct this node's clock`,
    `problem ${CA_CRT}, block 1, is not valid before ${iso(from)}: wait, or correct this node's clock`,
  ]);
});
test('a short-lived leaf: nothing is said while cert-manager has still time to renew it', async (tt) => {
  const leaf = await fixture.root.issue({ subject: SUBJECT, days: 4 });
  const to = endOf(leaf.certificate);
  compare(tt, decode(tls(leaf, fixture.root), CERTIFICATE, before(to, 1.1 * DAY_MS)), []);
  compare(tt, decode(tls(leaf, fixture.root), CERTIFICATE, before(to, 0.9 * DAY_MS)), [
    `warning ${TLS_CRT}, block 1, expires on ${iso(to)}: ${RENEW}`,
  ]);
});
const AUTHORITY_CURE = 'put a new certificate of that authority beside it';
test('an authority: expires soon, expired, expired beside a good one', async (tt) => {
  const old = await makeAuthority('old', { days: 40 });
  const to = endOf(old.certificate);
  const files = tls(fixture.leaf, old);
  compare(
    tt,
    decode(
      { ...files, 'tls.crt': fixture.leaf.certificate + fixture.root.certificate },
      CERTIFICATE,
      before(to, 5 * DAY_MS),
    ),
    [`warning ${CA_CRT}, block 1, expires on ${iso(to)}: ${AUTHORITY_CURE}`],
  );
  compare(tt, decode(files, CERTIFICATE, after(to, DAY_MS)), [
    `problem ${CA_CRT}, block 1, expired on ${iso(to)}: ${AUTHORITY_CURE}`,
  ]);
  const both = decode(
    { ...files, 'ca.crt': old.certificate + fixture.root.certificate },
    CERTIFICATE,
    after(to, DAY_MS),
  );
  compare(tt, both, [`warning ${CA_CRT}, block 1, expired on ${iso(to)}: ${AUTHORITY_CURE}`]);
  tt.deepEqual(credentialsOf(tt, both).authorities, [der(fixture.root.certificate)]);
});
test('a new authority that is not valid yet, beside the old one: loaded', async (tt) => {
  // openssl of Debian 12 makes no certificate of the future: this one is seen from the second before it was made.
  await sleep(Math.max(0, startOf(fixture.leaf.certificate).getTime() + 2000 - Date.now()));
  const young = await makeAuthority('young');
  const from = startOf(young.certificate);
  const now = before(from, 1000);
  const files = { ...tls(fixture.leaf, fixture.root), 'ca.crt': young.certificate + fixture.root.certificate };
  const decoded = decode(files, CERTIFICATE, now);
  compare(tt, decoded, [
    `warning ${CA_CRT}, block 1, is not valid before ${iso(from)}: wait, or correct this node's clock`,
  ]);
  tt.is(credentialsOf(tt, decoded).authorities.length, 2);
});
test('an expired intermediate: the other gateway may know a newer one', async (tt) => {
  const middle = await fixture.root.makeAuthority('middle', { days: 1 });
  const leaf = await middle.issue({ subject: SUBJECT });
  const to = endOf(middle.certificate);
  compare(tt, decode(tls(leaf, fixture.root), CERTIFICATE, after(to, DAY_MS)), [
    `warning ${TLS_CRT}, block 2, expired on ${iso(to)}: put a new certificate of that authority in its place`,
  ]);
});

// Identity
const identity = test.macro(
  async (tt, options: { subject?: string; san?: string[] }, localID: string | null, ...expected: string[]) => {
    const leaf = await fixture.root.issue(options);
    compare(tt, decode(tls(leaf, fixture.root), { ...CERTIFICATE, localID }), expected);
  },
);
const SAN = ['DNS:vpn.acme.example', 'IP:192.0.2.1', 'IP:2001:db8::1', 'email:vpn@acme.example'];
const noSan = (id: string): string =>
  `warning ${TLS_CRT}, block 1, has no subjectAltName ${id}, which is ipsec.localID: the other gateway will likely refuse it; make them agree`;
for (const id of ['vpn.acme.example', '@vpn.acme.example', '192.0.2.1', '2001:db8:0::1', 'vpn@acme.example'])
  test(`identity: ${id}, which the certificate has`, identity, { subject: SUBJECT, san: SAN }, id);
for (const id of ['acme.example', 'vpn', '192.0.2.2', '2001:db8::2', 'me@acme.example'])
  test(`identity: ${id}, which it has not`, identity, { subject: SUBJECT, san: SAN }, id, noSan(id));
for (const id of ['C=DE, CN=other', 'keyid:abcd', '@#abcd', '%any'])
  test(`identity: ${id}, not to be compared here`, identity, { subject: SUBJECT, san: SAN }, id);
test(
  'identity: a name in the subject alone is none',
  identity,
  { subject: 'CN=vpn.acme.example' },
  'vpn.acme.example',
  noSan('vpn.acme.example'),
);
test(
  'identity: a wildcard is not for gateways',
  identity,
  { subject: SUBJECT, san: ['DNS:*.acme.example'] },
  'vpn.acme.example',
  noSan('vpn.acme.example'),
);
const NO_SUBJECT = `problem ${TLS_CRT}, block 1, has no subject to be our identity, as cert-manager makes them without commonName: set ipsec.localID to a name that it has`;
test('identity: no subject', identity, { san: SAN }, null, `${NO_SUBJECT}, vpn.acme.example`);
test('identity: no subject, an address', identity, { san: ['IP:192.0.2.1'] }, null, `${NO_SUBJECT}, 192.0.2.1`);
test('identity: no subject and no other name', identity, {}, null, NO_SUBJECT);
test('identity: no subject is needed where there is a localID', identity, { san: SAN }, 'vpn.acme.example');

test('a PPK beside certificates', (tt) => {
  const key = randomBytes(32);
  const decoded = decode({ ...tls(fixture.leaf, fixture.root), ppk: key }, { ...CERTIFICATE, ...PPK });
  tt.deepEqual(credentialsOf(tt, decoded).ppk, key);
});

test('every problem at once', async (tt) => {
  const leaf = await fixture.root.issue({ days: 1 });
  const files = { 'tls.crt': leaf.certificate, 'tls.key': 'x', 'ca.crt': leaf.certificate, ppk: 'a\nb' };
  const now = after(endOf(leaf.certificate), DAY_MS);
  const problems = saidBy(decode(files, { ...CERTIFICATE, ...PPK }, now));
  tt.deepEqual(
    problems.map((text) => /^problem (\S+)/.exec(text)?.[1]),
    ['ppk', 'tls.key', 'tls.crt', 'ca.crt', 'ca.crt', 'tls.crt'],
    problems.join('\n'),
  );
});

test('whatever the files hold: nothing is thrown, and nothing of them is said', (tt) => {
  const { leaf, root } = fixture;
  const good = { ...tls(leaf, root), psk: KEY, ppk: KEY };
  const SECRET = 'hunter2hunter2';
  const secret = fc.constantFrom<Uint8Array>(
    Buffer.from(SECRET),
    Buffer.from(`-----BEGIN ${SECRET.toUpperCase()}-----\n${SECRET}\n-----END ${SECRET.toUpperCase()}-----`),
    Buffer.from(`-----BEGIN ${SECRET.toUpperCase()} PRIVATE KEY-----`),
    ...['CERTIFICATE', 'PRIVATE KEY', 'RSA PRIVATE KEY', 'EC PRIVATE KEY', 'OPENSSH PRIVATE KEY'].map((label) =>
      Buffer.from(`-----BEGIN ${label}-----\n${Buffer.from(SECRET).toString('base64')}\n-----END ${label}-----\n`),
    ),
    Buffer.from(`${SECRET}\n`),
    Buffer.from(`0x${SECRET}`),
  );
  const names = fc.constantFrom('tls.crt', 'tls.key', 'ca.crt', 'psk', 'ppk');
  /** Random bytes, a secret where it doesn't belong, or a good file with some bytes of it changed or gone. */
  const file = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    secret,
    fc.tuple(secret, secret).map((parts) => Buffer.concat(parts)),
    fc.tuple(names, fc.nat(1000), fc.uint8Array({ maxLength: 4 }), fc.nat(100)).map(([name, at, put, skip]) => {
      const whole = Buffer.from(good[name as keyof typeof good]);
      return Buffer.concat([whole.subarray(0, at), put, whole.subarray(at + skip)]);
    }),
  );
  const changed = fc.dictionary(names, file, { minKeys: 1 });
  /** What the files hold, in pieces of 8 characters, but for what messages are made of. */
  const pieces = (text: string): string[] => text.match(/[A-Za-z0-9+/]{8,}/g) ?? [];
  fc.assert(
    fc.property(changed, fc.boolean(), (files, byCertificate) => {
      const decoded = decode({ ...good, ...files }, { ...(byCertificate ? CERTIFICATE : {}), ...PPK });
      const said = saidBy(decoded).join('\n');
      tt.false(said.toLowerCase().includes('hunter2'), said);
      for (const piece of [KEY, ...[leaf.key, root.key].flatMap((pem) => pieces(pem.replaceAll(/-----.*-----/g, '')))])
        tt.false(said.includes(piece), said);
    }),
    { numRuns: 2000 },
  );
});
