/** Who may do what at the cluster's API server: one user for each program, told apart by tokens. */
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export interface User {
  readonly name: string;
  readonly groups: readonly string[];
  readonly token: string;
}

export const makeUser = (name: string, ...groups: string[]): User => ({ name, groups, token: randomUUID() });

/** A line of the API server's --token-auth-file. */
export const tokenLine = ({ name, groups, token }: User): string => `${token},${name},${name},"${groups.join(',')}"\n`;

/**
 * Writes `<folder>/<name>.kubeconfig` (JSON, which is YAML) and returns its path. The server's certificate names the first of
 * its addresses alone, so it is checked by the name that it has in every cluster.
 */
export async function writeKubeconfig(folder: string, server: string, caFile: string, user: User): Promise<string> {
  const cluster = { server, 'certificate-authority': caFile, 'tls-server-name': 'kubernetes.default.svc' };
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster }],
    users: [{ name: user.name, user: { token: user.token } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: user.name } }],
    'current-context': 'test',
  };
  const path = join(folder, `${user.name.replaceAll(':', '-')}.kubeconfig`);
  await writeFile(path, `${JSON.stringify(config, undefined, 2)}\n`, { mode: 0o600 });
  return path;
}
