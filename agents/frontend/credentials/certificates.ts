/**
 * Authentication by certificates: tls.crt, tls.key and ca.crt of one Secret, as cert-manager writes them. Each
 * certificate is to be loaded alone: charon reads only the first of a bundle. What is loaded is also believed: charon
 * makes every certificate with the CA constraint an authority, a self-signed one a trust anchor, and trusts any other
 * certificate itself (vici_cred.c, load_cert). So of tls.crt nothing is kept that is not needed.
 */
import { X509Certificate, createPrivateKey, type KeyObject } from 'node:crypto';
import { canonicalAddress } from '../../../functions/model/cidr.ts';
import { readPem, type PemBlock } from './pem.ts';

export interface CertificateCredentials {
  readonly kind: 'certificate';
  /** DER, the leaf first, then the intermediate authorities in the file's order, without roots. */
  readonly chain: readonly Uint8Array[];
  /** DER. Roots and intermediates that the other gateway's certificate may lead to; at least one root. */
  readonly authorities: readonly Uint8Array[];
  /** PKCS#8 DER. */
  readonly key: Uint8Array;
  readonly keyType: 'rsa' | 'ecdsa' | 'ed25519';
  /** For people, as strongSwan writes it: `C=DE, O=Acme, CN=vpn`. Empty only where ipsec.localID says who we are. */
  readonly subject: string;
  /** When the leaf ends. */
  readonly expires: Date;
  /** When the authorities end, in their order. */
  readonly authoritiesExpire: readonly Date[];
}

interface Context {
  /** The Secret's name. */
  readonly secret: string;
  readonly localID: string | undefined;
  readonly now: Date;
}

export interface Findings {
  readonly problems: string[];
  readonly warnings: string[];
}

interface Certificate {
  readonly x509: X509Certificate;
  /** Undefined: of a kind that OpenSSL doesn't know. */
  readonly publicKey: KeyObject | undefined;
  readonly selfSigned: boolean;
  /** For messages: `tls.crt (Secret a), block 2,`. */
  readonly title: string;
}

const DAY_MS = 86_400_000;
/** Said this long before the end. cert-manager renews when a third of the lifetime is left, 30 days of 90. */
const SOON_MS = 14 * DAY_MS;
/** Of a short-lived one this part of its lifetime. */
const SOON_PART = 1 / 4;
const RSA_BITS = 2048;
const SUPPORTED = `supported are RSA of ${RSA_BITS} bits and more, ECDSA on P-256, P-384 or P-521, and Ed25519`;
const CURVES: readonly string[] = ['prime256v1', 'secp384r1', 'secp521r1'];

/** Not to be used where it finds a problem. `files`: those that could be read, of the others nothing is said here. */
export function decodeCertificates(
  files: ReadonlyMap<string, Buffer>,
  context: Context,
  findings: Findings,
): CertificateCredentials | undefined {
  const read = (name: string): Certificate[] | undefined => {
    const bytes = files.get(name);
    return bytes && readCertificates(bytes, titleOf(name, context), findings);
  };
  const own = read('tls.crt');
  const authorities = read('ca.crt');
  const keyBytes = files.get('tls.key');
  const key = keyBytes && readKey(keyBytes, titleOf('tls.key', context), findings);

  const leaf = own && findLeaf(own, key?.object, context, findings);
  const usable = authorities && usableAuthorities(authorities, context, findings);
  if (own === undefined || leaf === undefined) return undefined;
  const intermediates = usableIntermediates(own, leaf, context, findings);
  checkIdentity(leaf, context, findings);
  if (usable === undefined || key === undefined) return undefined;
  checkPath(leaf, [...own, ...usable], findings);
  return {
    kind: 'certificate',
    chain: [leaf, ...intermediates].map(({ x509 }) => x509.raw),
    authorities: usable.map(({ x509 }) => x509.raw),
    key: key.object.export({ format: 'der', type: 'pkcs8' }),
    keyType: key.type,
    subject: subjectOf(leaf),
    expires: leaf.x509.validToDate,
    authoritiesExpire: usable.map(({ x509 }) => x509.validToDate),
  };
}

const titleOf = (name: string, { secret }: Context): string => `${name} (Secret ${secret})`;
const subjectOf = ({ x509 }: Certificate): string => (x509.subject ?? '').replaceAll('\n', ', ');
const dateOf = (date: Date): string => date.toISOString().replace('.000Z', 'Z');

// Reading

/** Each once. */
function readCertificates(bytes: Buffer, title: string, { problems, warnings }: Findings): Certificate[] {
  const blocks = readPem(bytes);
  const found = new Map<string, Certificate>();
  let certificates = 0;
  blocks.forEach(({ label, content }, i) => {
    const where = `${title}, block ${i + 1},`;
    if (label.endsWith('PRIVATE KEY'))
      warnings.push(`${where} is a private key, which is not needed here: take it out, it only gets seen`);
    if (!['CERTIFICATE', 'X509 CERTIFICATE', 'TRUSTED CERTIFICATE'].includes(label)) return;
    certificates++;
    const certificate = typeof content === 'string' ? content : parseCertificate(content.der, where);
    if (typeof certificate === 'string') problems.push(`${where} ${damage(certificate, 'certificate')}`);
    else found.set(certificate.x509.fingerprint256, certificate);
  });
  if (certificates === 0)
    problems.push(
      `${title} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----); openssl x509 -inform DER -in FILE makes it of one in DER form`,
    );
  return [...found.values()];
}

type Damage = Exclude<PemBlock['content'], object> | 'damaged';

const damage = (what: Damage, noun: string): string =>
  ({
    'cut off': `is cut off, there is no matching -----END: paste the whole ${noun}`,
    'not base64': `is not base64: paste the ${noun} again, unchanged`,
    encrypted: 'is encrypted, and nobody is there to type the passphrase: openssl pkey -in FILE -out CLEAR decrypts it',
    damaged: `holds no ${noun} that can be parsed: paste it again, unchanged`,
  })[what];

function parseCertificate(der: Buffer, title: string): Certificate | Damage {
  try {
    const x509 = new X509Certificate(der);
    if (Number.isNaN(x509.validFromDate.getTime()) || Number.isNaN(x509.validToDate.getTime())) return 'damaged';
    const publicKey = attempt(() => x509.publicKey);
    return { x509, publicKey, selfSigned: isIssuedBy(x509, { x509, publicKey }), title };
  } catch {
    return 'damaged';
  }
}

function attempt<T>(get: () => T): T | undefined {
  try {
    return get();
  } catch {
    return undefined;
  }
}

function isIssuedBy(x509: X509Certificate, by: Pick<Certificate, 'x509' | 'publicKey'>): boolean {
  const { publicKey } = by;
  if (publicKey === undefined || !x509.checkIssued(by.x509)) return false;
  return attempt(() => x509.verify(publicKey)) ?? false;
}

interface Key {
  readonly object: KeyObject;
  readonly type: CertificateCredentials['keyType'];
}

/** How the DER of a block is to be read; other kinds of keys are refused. */
const KEY_FORMATS: ReadonlyMap<string, 'pkcs8' | 'pkcs1' | 'sec1'> = new Map([
  ['PRIVATE KEY', 'pkcs8'],
  ['RSA PRIVATE KEY', 'pkcs1'],
  ['EC PRIVATE KEY', 'sec1'],
]);

function readKey(bytes: Buffer, title: string, { problems }: Findings): Key | undefined {
  const blocks = readPem(bytes).filter(({ label }) => label.endsWith('PRIVATE KEY'));
  const [block] = blocks;
  const refuse = (problem: string): undefined => void problems.push(`${title} ${problem}`);
  if (block === undefined)
    return refuse(
      'holds no private key in PEM form (-----BEGIN PRIVATE KEY-----); openssl pkey -inform DER -in FILE makes it of one in DER form',
    );
  if (blocks.length > 1)
    return refuse(`holds ${blocks.length} private keys: leave only that of the certificate in tls.crt`);
  const object = parseKey(block);
  if (typeof object === 'string') return refuse(object);
  const type = keyType(object);
  return typeof type === 'object' ? refuse(type.problem) : { object, type };
}

/** The key, or what is wrong with it. */
function parseKey({ label, content }: PemBlock): KeyObject | string {
  const format = KEY_FORMATS.get(label);
  if (label === 'ENCRYPTED PRIVATE KEY') return damage('encrypted', 'key');
  if (typeof content === 'string') return damage(content, 'key');
  if (label === 'OPENSSH PRIVATE KEY')
    return "is in OpenSSH's own form: ssh-keygen -p -N '' -m PKCS8 -f FILE converts it";
  if (format === undefined) return `holds a key of an unsupported kind: ${SUPPORTED}`;
  const key = attempt(() => createPrivateKey({ key: content.der, format: 'der', type: format }));
  return key ?? damage('damaged', 'key');
}

function keyType(key: KeyObject): Key['type'] | { problem: string } {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  if (type === 'ed25519') return 'ed25519';
  if (type === 'rsa') {
    const bits = details?.modulusLength ?? 0;
    return bits >= RSA_BITS ? 'rsa' : { problem: `is an RSA key of ${bits} bits, which is too weak: ${SUPPORTED}` };
  }
  if (type === 'ec') {
    const curve = details?.namedCurve ?? 'an unnamed one';
    return CURVES.includes(curve) ? 'ecdsa' : { problem: `is an ECDSA key on the curve ${curve}: ${SUPPORTED}` };
  }
  return { problem: `is a key of the kind ${type}: ${SUPPORTED}` };
}

// Judging

type Age = 'expired' | 'not yet valid' | 'expires soon' | 'valid';

function ageOf({ x509 }: Certificate, now: Date): Age {
  const [from, to] = [x509.validFromDate.getTime(), x509.validToDate.getTime()];
  if (now.getTime() > to) return 'expired';
  if (now.getTime() < from) return 'not yet valid';
  return to - now.getTime() < Math.min(SOON_MS, (to - from) * SOON_PART) ? 'expires soon' : 'valid';
}

/** Undefined of one that is valid for long. */
function aboutAge(certificate: Certificate, now: Date, cure: string): string | undefined {
  const { x509, title } = certificate;
  const age = ageOf(certificate, now);
  if (age === 'valid') return undefined;
  if (age === 'not yet valid')
    return `${title} is not valid before ${dateOf(x509.validFromDate)}: wait, or correct this node's clock`;
  return `${title} ${age === 'expired' ? 'expired' : 'expires'} on ${dateOf(x509.validToDate)}: ${cure}`;
}

const RENEW = 'renew it (with cert-manager, look at its Certificate and its issuer)';
const RENEW_AUTHORITY = 'put a new certificate of that authority beside it';

/** The certificate of the key; where there is no key, the first one. Undefined where tls.crt has none. */
function findLeaf(
  own: readonly Certificate[],
  key: KeyObject | undefined,
  context: Context,
  { problems, warnings }: Findings,
): Certificate | undefined {
  const leaf = key === undefined ? own[0] : own.find(({ x509 }) => attempt(() => x509.checkPrivateKey(key)));
  if (leaf === undefined) {
    if (own.length > 0)
      problems.push(
        `${titleOf('tls.key', context)} is not the key of ${own.length === 1 ? 'the certificate' : 'any certificate'} in tls.crt: put both files of one issuance into the Secret`,
      );
    return undefined;
  }
  if (leaf !== own[0])
    warnings.push(`${leaf.title} is the certificate of tls.key: put it first, other programs read only that one`);
  const age = aboutAge(leaf, context.now, RENEW);
  if (age !== undefined) (ageOf(leaf, context.now) === 'expires soon' ? warnings : problems).push(age);
  return leaf;
}

/**
 * What is to be sent along with the leaf. No roots: the other gateway believes only its own, and charon here would
 * believe this one. Nor certificates of others.
 */
function usableIntermediates(
  own: readonly Certificate[],
  leaf: Certificate,
  { now }: Context,
  { warnings }: Findings,
): Certificate[] {
  const others = own.filter((one) => one !== leaf && !one.selfSigned);
  return others.filter((one) => {
    const age = aboutAge(one, now, 'put a new certificate of that authority in its place');
    if (age !== undefined) warnings.push(age);
    if (!one.x509.ca)
      warnings.push(
        `${one.title} is neither the certificate of tls.key nor of an authority and is left out: remove it`,
      );
    return one.x509.ca;
  });
}

/**
 * Those of ca.crt that can be used now or later. While a root is valid, the others only cause warnings: a bundle holds
 * the old and the new one while an authority is replaced.
 */
function usableAuthorities(
  authorities: readonly Certificate[],
  { now, ...context }: Context,
  { problems, warnings }: Findings,
): Certificate[] {
  const said: string[] = [];
  const usable = authorities.filter((one) => {
    const age = aboutAge(one, now, RENEW_AUTHORITY);
    if (age !== undefined) said.push(age);
    const bits = one.publicKey?.asymmetricKeyDetails?.modulusLength ?? RSA_BITS;
    if (bits < RSA_BITS) said.push(`${one.title} has an RSA key of ${bits} bits, which is too weak: replace it`);
    if (!one.x509.ca)
      said.push(
        `${one.title} is not the certificate of an authority (basicConstraints CA:TRUE) and is left out: put the authority's there`,
      );
    return one.x509.ca && ageOf(one, now) !== 'expired';
  });
  const current = usable.filter((one) => ageOf(one, now) !== 'not yet valid');
  const works = current.some(({ selfSigned }) => selfSigned);
  (works ? warnings : problems).push(...said);
  // strongSwan's credential_manager.c: "accept only self-signed CAs as trust anchor"
  if (!works && current.length > 0)
    problems.push(
      `${titleOf('ca.crt', { now, ...context })} holds no root: add the self-signed certificate of the authority that the other gateway's certificate leads to, intermediates alone are not believed`,
    );
  return usable;
}

/** Whether the other gateway can find the way to a root; it may know authorities that are in no file here. */
function checkPath(leaf: Certificate, known: readonly Certificate[], { warnings }: Findings): void {
  const seen = new Set([leaf]);
  for (const one of seen) {
    if (one.selfSigned) return;
    for (const by of known) if (isIssuedBy(one.x509, by)) seen.add(by);
  }
  warnings.push(
    `${leaf.title} leads to no root in tls.crt or ca.crt: if the other gateway doesn't know its authority, add the intermediate certificates to tls.crt`,
  );
}

/** A gateway believes an identity that the certificate has, as its subject or among its subjectAltNames. */
function checkIdentity(leaf: Certificate, { localID }: Context, { problems, warnings }: Findings): void {
  const { x509, title } = leaf;
  if (localID === undefined && subjectOf(leaf) === '') {
    const [name] = x509.subjectAltName?.match(/(?<=^(DNS|IP Address|email):)[^",]+/) ?? [];
    problems.push(
      `${title} has no subject to be our identity, as cert-manager makes them without commonName: set ipsec.localID to a name that it has${name === undefined ? '' : `, ${name}`}`,
    );
  }
  if (localID !== undefined && !hasName(x509, localID))
    warnings.push(
      `${title} has no subjectAltName ${localID}, which is ipsec.localID: the other gateway will likely refuse it; make them agree`,
    );
}

/** True as well where it is not one of the kinds that can be compared here: a distinguished name, a type prefix. */
function hasName(x509: X509Certificate, id: string): boolean {
  const address = canonicalAddress(id);
  if (address !== undefined) return x509.checkIP(address) !== undefined;
  if (/[=:#%/]/.test(id)) return true;
  const name = id.replace(/^@+/, '');
  if (name.includes('@')) return x509.checkEmail(name, { subject: 'never' }) !== undefined;
  return x509.checkHost(name, { subject: 'never', wildcards: false }) !== undefined;
}
