/**
 * The control plane, in the network namespace of the first node, as in a cluster that kubeadm made: its address is a node's, and
 * answers to the on-prem network leave by that node's routes.
 */
import { generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { findTool, type ToolName } from '../../scripts/tools.ts';
import { makeAuthority } from '../certificates.ts';
import { type Client, makeClient } from '../control-plane/client.ts';
import { etcdProgram } from '../control-plane/control-plane.ts';
import { type Daemon, type Program, startDaemon } from '../control-plane/daemon.ts';
import type { Netns } from '../dataplane/netns.ts';
import { makeUser, tokenLine, type User, writeKubeconfig } from './kubeconfig.ts';

export interface ServersOptions {
  readonly folder: string;
  readonly netns: Netns;
  /** Of that node, 10.77.0.11. */
  readonly address: string;
  /** By which this machine reaches the API server. */
  readonly adminAddress: string;
  readonly serviceCIDRs: readonly string[];
  readonly podCIDRs: readonly string[];
  readonly users: readonly User[];
}

type ServerName = 'etcd' | 'kube-apiserver' | 'kube-controller-manager' | 'kube-scheduler';

export interface Servers {
  readonly client: Client;
  readonly server: string;
  readonly caFile: string;
  /** Of who calls the kubelets. */
  readonly kubeletClientCAFile: string;
  stopServer(name: ServerName, signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  startServer(name: ServerName): Promise<void>;
  stop(): Promise<void>;
}

export const API_PORT = 6443;
const GRACE_MS = 20_000;

/** Resolves when the API server is ready; the others find it by themselves. Throws StartFailed with the end of a log. */
export async function startServers(options: ServersOptions): Promise<Servers> {
  const { folder, netns, address, adminAddress, users } = options;
  const file = (name: string): string => join(folder, name);
  const admin = makeUser('cluster-admin', 'system:masters');
  const manager = makeUser('system:kube-controller-manager');
  const scheduler = makeUser('system:kube-scheduler');
  await writeFiles(folder, [...users, admin, manager, scheduler]);
  const caFile = file('certificates/apiserver.crt');
  const inside = `https://${address}:${API_PORT}`;
  const kubeconfig = (user: User) => writeKubeconfig(folder, inside, caFile, user);
  const managerConfig = await kubeconfig(manager);
  const schedulerConfig = await kubeconfig(scheduler);

  const server = `https://${adminAddress}:${API_PORT}`;
  const client = makeClient(server, undefined, admin.token);
  const ready = async (): Promise<boolean> => (await client.request('GET', '/readyz')).status === 200;
  const always = async (): Promise<boolean> => true;
  const programs: Record<ServerName, Omit<Program, 'name' | 'path'>> = {
    etcd: etcdProgram(folder),
    'kube-apiserver': { args: apiServerArgs(options), cwd: folder, log: file('kube-apiserver.log'), ready },
    'kube-controller-manager': {
      args: managerArgs(options, managerConfig),
      cwd: folder,
      log: file('kube-controller-manager.log'),
      ready: always,
    },
    'kube-scheduler': {
      args: [`--kubeconfig=${schedulerConfig}`, '--leader-elect=false'],
      cwd: folder,
      log: file('kube-scheduler.log'),
      ready: always,
    },
  };
  const daemons = new Map<ServerName, Daemon>();
  const startServer = async (name: ServerName): Promise<void> => {
    const { path } = await findTool(name satisfies ToolName);
    const { args, ...program } = programs[name];
    const enter = [`--net=${netns.path}`, path, ...args];
    daemons.set(name, await startDaemon({ name, path: 'nsenter', args: enter, ...program }));
  };
  const stopServer = async (name: ServerName, signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> => {
    await daemons.get(name)?.stop(signal, GRACE_MS);
    client.close();
  };
  const stop = async (): Promise<void> => {
    for (const name of [...daemons.keys()].toReversed()) await stopServer(name, 'SIGKILL');
  };

  try {
    for (const name of Object.keys(programs) as ServerName[]) await startServer(name);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    client,
    server,
    caFile,
    kubeletClientCAFile: file('kubelet-client-ca.crt'),
    stopServer,
    startServer,
    stop,
  };
}

async function writeFiles(folder: string, users: readonly User[]): Promise<void> {
  const { privateKey, publicKey } = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    privateKeyEncoding: { type: 'sec1', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
  const authority = await makeAuthority('kubelet-client-ca');
  const client = await authority.issue({
    subject: 'O=system:masters, CN=kube-apiserver-kubelet-client',
    extensions: ['extendedKeyUsage = clientAuth'],
  });
  const files = {
    'service-account.key': privateKey,
    'service-account.pub': publicKey,
    'tokens.csv': users.map(tokenLine).join(''),
    'kubelet-client-ca.crt': authority.certificate,
    'kubelet-client.crt': client.certificate,
    'kubelet-client.key': client.key,
    'admission.json': JSON.stringify(ADMISSION),
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text, { mode: 0o600 });
}

/** Stricter than Kubernetes' own default, so that a namespace gets what its labels say, and nothing without them. */
const ADMISSION = {
  apiVersion: 'apiserver.config.k8s.io/v1',
  kind: 'AdmissionConfiguration',
  plugins: [
    {
      name: 'PodSecurity',
      configuration: {
        apiVersion: 'pod-security.admission.config.k8s.io/v1',
        kind: 'PodSecurityConfiguration',
        defaults: { enforce: 'restricted', 'enforce-version': 'latest' },
        exemptions: { namespaces: ['kube-system'] },
      },
    },
  ],
};

function apiServerArgs({ folder, address, serviceCIDRs }: ServersOptions): string[] {
  const file = (name: string): string => join(folder, name);
  return [
    `--etcd-servers=unix://${file('etcd.sock:0')}`,
    '--bind-address=0.0.0.0',
    `--advertise-address=${address}`,
    `--secure-port=${API_PORT}`,
    // Makes apiserver.crt there, the server's certificate with its CA's.
    `--cert-dir=${file('certificates')}`,
    '--authorization-mode=Node,RBAC',
    '--enable-admission-plugins=NodeRestriction',
    `--admission-control-config-file=${file('admission.json')}`,
    '--allow-privileged=true',
    `--token-auth-file=${file('tokens.csv')}`,
    '--service-account-issuer=https://kubernetes.default.svc',
    `--service-account-key-file=${file('service-account.pub')}`,
    `--service-account-signing-key-file=${file('service-account.key')}`,
    `--kubelet-client-certificate=${file('kubelet-client.crt')}`,
    `--kubelet-client-key=${file('kubelet-client.key')}`,
    '--kubelet-preferred-address-types=InternalIP',
    `--service-cluster-ip-range=${serviceCIDRs.join(',')}`,
  ];
}

function managerArgs({ folder, podCIDRs }: ServersOptions, kubeconfig: string): string[] {
  return [
    `--kubeconfig=${kubeconfig}`,
    '--leader-elect=false',
    '--use-service-account-credentials',
    '--node-monitor-grace-period=16s',
    `--service-account-private-key-file=${join(folder, 'service-account.key')}`,
    `--root-ca-file=${join(folder, 'certificates/apiserver.crt')}`,
    `--cluster-cidr=${podCIDRs.join(',')}`,
  ];
}
