/** Certificate authorities for tests, made by the command openssl. All in PEM; nothing stays on the disk. */
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';

export type KeyType =
  'rsa-1024' | 'rsa-2048' | 'rsa-3072' | 'P-256' | 'P-384' | 'P-521' | 'secp256k1' | 'ed25519' | 'ed448';

export interface CertificateOptions {
  /** In strongSwan's notation, parts divided by `, `: `C=DE, O=Acme, CN=vpn`. Empty: none. */
  readonly subject?: string;
  /** As OpenSSL takes them: `DNS:vpn.acme.example`, `IP:192.0.2.1`, `email:vpn@acme.example`. */
  readonly san?: readonly string[];
  /** Default: P-256. */
  readonly keyType?: KeyType;
  /** Private key to be used instead of a new one. */
  readonly key?: string;
  /** From now on. Default: 90. A test that needs an expired one looks at it at a later time. */
  readonly days?: number;
  /** More lines for OpenSSL's section of extensions: `extendedKeyUsage = serverAuth`. */
  readonly extensions?: readonly string[];
}

export interface Issued {
  readonly certificate: string;
  /** The certificate and those of the intermediate authorities above it, as cert-manager writes tls.crt. */
  readonly bundle: string;
  /** PKCS#8. */
  readonly key: string;
}

export interface Authority extends Issued {
  /** One for a gateway. */
  issue(options?: CertificateOptions): Promise<Issued>;
  /** An authority below this one. */
  makeAuthority(name: string, options?: CertificateOptions): Promise<Authority>;
}

const DEFAULTS = { subject: '', keyType: 'P-256', days: 90 } as const;
const AUTHORITY = ['basicConstraints = critical, CA:TRUE', 'keyUsage = critical, keyCertSign, cRLSign'];
const GATEWAY = ['basicConstraints = critical, CA:FALSE', 'keyUsage = critical, digitalSignature'];

/** A root. Its subject is `CN=<name>` unless the options have another one. */
export async function makeAuthority(name: string, options: CertificateOptions = {}): Promise<Authority> {
  return asAuthority(await sign({ subject: `CN=${name}`, ...options }, AUTHORITY), '');
}

/** One that is its own authority, like those of a gateway as it comes from the factory. */
export function makeSelfSigned(options: CertificateOptions = {}): Promise<Issued> {
  return sign(options, GATEWAY);
}

/** A new private key, PKCS#8. */
export function makeKey(type: KeyType): string {
  return pairOf(type).privateKey.export({ format: 'pem', type: 'pkcs8' }).toString();
}

function pairOf(type: KeyType): ReturnType<typeof generateKeyPairSync> {
  if (type.startsWith('rsa-')) return generateKeyPairSync('rsa', { modulusLength: Number(type.slice(4)) });
  if (type === 'ed25519') return generateKeyPairSync(type);
  if (type === 'ed448') return generateKeyPairSync(type);
  return generateKeyPairSync('ec', { namedCurve: type });
}

/** `above`: the intermediates from this authority upwards, without the root. */
function asAuthority(issued: Issued, above: string): Authority {
  const below = async (options: CertificateOptions, constraints: readonly string[]): Promise<Issued> => {
    const made = await sign(options, constraints, issued);
    return { ...made, bundle: made.certificate + above };
  };
  return {
    ...issued,
    issue: (options = {}) => below(options, GATEWAY),
    makeAuthority: async (name, options = {}) => {
      const made = await below({ subject: `CN=${name}`, ...options }, AUTHORITY);
      return asAuthority(made, made.bundle);
    },
  };
}

/** Without `by` signed with its own key. */
async function sign(options: CertificateOptions, constraints: readonly string[], by?: Issued): Promise<Issued> {
  const { subject, keyType, days, ...given } = { ...DEFAULTS, ...options };
  const key = given.key ?? makeKey(keyType);
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-certificates-'));
  const file = (name: string): string => join(folder, name);
  try {
    await writeFile(file('config'), configText(options, constraints));
    await writeFile(file('key'), key, { mode: 0o600 });
    await writeFile(file('ca.crt'), by?.certificate ?? '');
    await writeFile(file('ca.key'), by?.key ?? '', { mode: 0o600 });
    const name = subject === '' ? '/' : `/${subject.replaceAll('/', '\\/').split(', ').join('/')}`;
    const what = ['-key', file('key'), '-subj', name, '-utf8', '-days', String(days)];
    const signer = by === undefined ? [] : ['-CA', file('ca.crt'), '-CAkey', file('ca.key')];
    await execa('openssl', [
      'req',
      '-x509',
      '-new',
      '-config',
      file('config'),
      ...what,
      ...signer,
      '-out',
      file('crt'),
    ]);
    const certificate = await readFile(file('crt'), 'utf8');
    return { certificate, bundle: certificate, key };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A name beside an empty subject must be critical (RFC 5280, 4.1.2.6). */
function configText(options: CertificateOptions, constraints: readonly string[]): string {
  const { subject = '', san = [], extensions = [] } = options;
  const names = san.length === 0 ? [] : [`subjectAltName = ${subject === '' ? 'critical, ' : ''}${san.join(', ')}`];
  const lines = [
    '[req]',
    'distinguished_name = dn',
    'x509_extensions = v3',
    '[dn]',
    '[v3]',
    ...constraints,
    ...names,
    ...extensions,
  ];
  return `${lines.join('\n')}\n`;
}
