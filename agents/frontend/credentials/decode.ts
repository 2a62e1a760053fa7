/**
 * The credentials of a site, decoded from the files of its Secrets. What makes certain that no tunnel comes up is a
 * problem; what depends on the other gateway, or on time, is a warning. No text holds a byte of a key.
 */
import { pskProblem, pskWarnings } from '../../../functions/model/psk.ts';
import type { Vpn } from '../../../functions/model/vpn.ts';
import type { SecretFile } from '../../lib/secret-folder.ts';
import { decodeCertificates, type CertificateCredentials, type Findings } from './certificates.ts';

export interface PskCredentials {
  readonly kind: 'psk';
  readonly psk: Uint8Array;
}

export type { CertificateCredentials };

/** `ppk`: post-quantum pre-shared key, on top of either (RFC 8784). */
export type Credentials = (PskCredentials | CertificateCredentials) & { readonly ppk?: Uint8Array };

export type Decoded =
  | { readonly credentials: Credentials; readonly warnings: readonly string[] }
  | { readonly problems: readonly string[] };

type Ipsec = Vpn['sites'][number]['ipsec'];

/** RFC 8784, 6: "at least 256 bits of entropy". */
const PPK_BYTES = 32;

/** The files that the site needs, and where each comes from. */
export function wantedFiles({ pskSecretRef, certificate, ppkSecretRef }: Ipsec): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  const keyOf = (key: string, name: string): string => `the key ${key} of the Secret ${name}`;
  if (certificate === undefined)
    files.set(
      'psk',
      pskSecretRef === undefined ? 'the Secret made of ipsec.psk' : keyOf(pskSecretRef.key, pskSecretRef.name),
    );
  else for (const file of ['tls.crt', 'tls.key', 'ca.crt']) files.set(file, keyOf(file, certificate.secretRef.name));
  if (ppkSecretRef !== undefined) files.set('ppk', keyOf(ppkSecretRef.key, ppkSecretRef.name));
  return files;
}

/** Says every problem at once, each with its file and the cure. */
export function decodeCredentials(ipsec: Ipsec, files: ReadonlyMap<string, SecretFile>, now: Date): Decoded {
  const findings: Findings = { problems: [], warnings: [] };
  const found = readable(ipsec, files, findings);
  const [psk, ppk] = [found.get('psk'), found.get('ppk')];
  const main =
    ipsec.certificate === undefined
      ? pskOf(psk, ppk, findings)
      : decodeCertificates(found, { secret: ipsec.certificate.secretRef.name, localID: ipsec.localID, now }, findings);
  const { problems, warnings } = findings;
  if (problems.length > 0 || main === undefined) return { problems };
  return { credentials: { ...main, ...(ppk === undefined ? {} : { ppk }) }, warnings };
}

function readable(ipsec: Ipsec, files: ReadonlyMap<string, SecretFile>, findings: Findings): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (const [name, source] of wantedFiles(ipsec)) {
    const title = `${name} (${source})`;
    const file = files.get(name) ?? { problem: `${title} has not been read yet` };
    if (!Buffer.isBuffer(file)) {
      findings.problems.push(file.problem);
      continue;
    }
    found.set(name, file);
    if (name === 'psk' || name === 'ppk') checkSharedKey(name, title, file, findings);
  }
  return found;
}

function pskOf(psk: Buffer | undefined, ppk: Buffer | undefined, { warnings }: Findings): PskCredentials | undefined {
  if (psk === undefined) return undefined;
  if (ppk?.equals(psk) === true)
    warnings.push('ppk is the same key as psk and adds nothing to it: make another one with `openssl rand -base64 32`');
  return { kind: 'psk', psk };
}

function checkSharedKey(name: 'psk' | 'ppk', title: string, bytes: Buffer, { problems, warnings }: Findings): void {
  problems.push(...sharedKeyProblems(bytes).map((text) => `${title} ${text}`));
  warnings.push(...(name === 'psk' ? pskWarningsOf(bytes) : ppkWarningsOf(bytes)).map((text) => `${title} ${text}`));
}

/** Undefined: a binary key, which may have any bytes. The same distinction as at render time (rules/secrets.ts). */
function textOf(bytes: Buffer): string | undefined {
  const text = bytes.toString('utf8');
  return Buffer.from(text, 'utf8').equals(bytes) ? text : undefined;
}

/** None or one. */
function sharedKeyProblems(bytes: Buffer): string[] {
  const text = textOf(bytes);
  if (text === undefined) return [];
  const problem = pskProblem(text);
  if (problem === undefined) return [];
  const rest = text.replace(/\r?\n$/, '');
  if (rest === text || pskProblem(rest) !== undefined) return [problem];
  return [
    'ends with a line break, which would be part of the key: make the Secret without it, ' +
      "tr -d '\\r\\n' < FILE | kubectl create secret generic NAME --from-file=KEY=/dev/stdin",
  ];
}

function pskWarningsOf(bytes: Buffer): string[] {
  const text = textOf(bytes);
  return text === undefined ? [] : pskWarnings(text);
}

function ppkWarningsOf(bytes: Buffer): string[] {
  if (bytes.length >= PPK_BYTES) return pskWarningsOf(bytes);
  return [
    `has fewer than ${PPK_BYTES} bytes: against a quantum computer it takes 256 bits (RFC 8784); \`openssl rand -base64 ${PPK_BYTES}\` makes a good one`,
  ];
}
