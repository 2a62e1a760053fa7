import { X509Certificate } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { makeAuthority, makeKey, makeSelfSigned } from '../../../test/certificates.ts';
import { subjectIdentity } from './subject.ts';

const derOf = (certificate: string): Buffer => new X509Certificate(certificate).raw;

/** The subject's DER as openssl finds it: the sequence behind the one with the dates. */
async function opensslSubject(der: Buffer): Promise<Buffer> {
  const { stdout } = await execa('openssl', ['asn1parse', '-inform', 'DER'], { input: der });
  const lines = stdout.split('\n');
  const dates = lines.findIndex((line) => /prim: (UTCTIME|GENERALIZEDTIME)/.test(line));
  const subject = lines.slice(dates).find((line) => /:d=2 .*cons: SEQUENCE/.test(line)) ?? '';
  const [, at, header, content] = /^ *(\d+):d=2 +hl=(\d+) +l= *(\d+)/.exec(subject)?.map(Number) ?? [];
  if (at === undefined || header === undefined || content === undefined) throw new Error(stdout);
  return der.subarray(at, at + header + content);
}

const asOpenssl = test.macro(async (tt, certificate: () => Promise<string>, headerHex: RegExp) => {
  const der = derOf(await certificate());
  const expected = (await opensslSubject(der)).toString('hex');
  tt.is(subjectIdentity(der), `asn1dn:#${expected}`);
  tt.regex(expected, headerHex);
});

const selfSigned = (subject: string) => async (): Promise<string> => (await makeSelfSigned({ subject })).certificate;
const units = (count: number): string =>
  Array.from({ length: count }, (_, n) => `OU=${String(n).padStart(2, '0')}${'x'.repeat(58)}`).join(', ');

test('a short one', asOpenssl, selfSigned('CN=vpn'), /^300e310c300a0603550403/);
test('of several parts', asOpenssl, selfSigned('C=DE, O=Acme, CN=vpn'), /^30/);
test('beyond ASCII', asOpenssl, selfSigned('O=Ärzte, CN=Köln'), /^30/);
test('a length of one octet behind the first', asOpenssl, selfSigned(units(2)), /^3081/);
test('a length of two', asOpenssl, selfSigned(units(4)), /^3082/);
test(
  'behind a long issuer, and not the issuer',
  asOpenssl,
  async () => {
    const authority = await makeAuthority('root', { subject: units(5) });
    return (await authority.issue({ subject: 'CN=vpn' })).certificate;
  },
  /^300e/,
);
test(
  'an RSA key',
  asOpenssl,
  async () => (await makeSelfSigned({ subject: 'CN=vpn', keyType: 'rsa-2048' })).certificate,
  /^300e/,
);

/** Version 1, whose DER has no field for it (RFC 5280, 4.1.2.1). */
async function versionOne(subject: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-subject-'));
  try {
    await writeFile(join(folder, 'key'), makeKey('P-256'), { mode: 0o600 });
    const cwd = folder;
    await execa('openssl', ['req', '-new', '-key', 'key', '-subj', subject, '-out', 'csr'], { cwd });
    await writeFile(join(folder, 'none'), '');
    await execa('openssl', 'x509 -req -in csr -signkey key -extfile none -out crt'.split(' '), { cwd });
    return (await execa('openssl', ['x509', '-in', 'crt'], { cwd })).stdout;
  } finally {
    await rm(folder, { recursive: true });
  }
}
test('version 1', async (tt) => {
  const certificate = await versionOne('/O=Acme/CN=vpn');
  const { stdout } = await execa('openssl', ['x509', '-noout', '-text'], { input: certificate });
  tt.regex(stdout, /Version: 1 /);
  const der = derOf(certificate);
  tt.is(subjectIdentity(der), `asn1dn:#${(await opensslSubject(der)).toString('hex')}`);
});

test('no subject', async (tt) => {
  const { certificate } = await (await makeAuthority('root')).issue({ subject: '', san: ['DNS:vpn.acme.example'] });
  tt.is((await opensslSubject(derOf(certificate))).toString('hex'), '3000');
  tt.is(subjectIdentity(derOf(certificate)), undefined);
});

test('a part of a larger memory', async (tt) => {
  const der = derOf((await makeSelfSigned({ subject: 'CN=vpn' })).certificate);
  const memory = new Uint8Array(der.length + 20);
  memory.set(der, 10);
  tt.is(subjectIdentity(memory.subarray(10, 10 + der.length)), subjectIdentity(der));
});
