/** What it takes to stand in for an API server whose answers a test scripts. */
import { readFile } from 'node:fs/promises';
import type { RequestListener } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { execa } from 'execa';

export interface Certificate {
  readonly key: string;
  readonly cert: string;
}

/** A certificate of its own authority for 127.0.0.1, good for a day; PEM. */
export async function makeCertificate(folder: string, name: string): Promise<Certificate> {
  const [key, cert] = [join(folder, `${name}.key`), join(folder, `${name}.crt`)];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const subject = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '1'];
  await execa('openssl', ['req', '-x509', ...curve, ...subject, '-keyout', key, '-out', cert]);
  return { key: await readFile(key, 'utf8'), cert: await readFile(cert, 'utf8') };
}

export interface FakeServer {
  readonly server: Server;
  readonly url: string;
  readonly close: () => void;
}

export async function listen(certificate: Certificate, listener: RequestListener): Promise<FakeServer> {
  const server = createServer({ ...certificate, keepAliveTimeout: 60_000 }, listener);
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const close = (): void => {
    server.close();
    server.closeAllConnections();
  };
  return { server, url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`, close };
}

/** `user`: as in a kubeconfig, `{token}` or an auth-provider. */
export function kubeconfigText(server: string, caFile: string, user: object): string {
  return JSON.stringify({
    clusters: [{ name: 'c', cluster: { server, 'certificate-authority': caFile } }],
    users: [{ name: 'u', user }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  });
}
