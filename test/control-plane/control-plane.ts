/**
 * A real etcd and a real kube-apiserver on 127.0.0.1 for tests and benchmarks, with RBAC, from empty in 4 s.
 *
 * There is no controller-manager: no default ServiceAccounts, no garbage collection, no pods of Deployments. Everything
 * is in one temporary folder; both processes die with the thread that started them, however it ends.
 */
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isRecord } from '../../functions/model/krm.ts';
import { findTool } from '../../scripts/tools.ts';
import { applyAll, statusOf } from './apply.ts';
import { AUDIT_POLICY, type AuditEntry, parseAudit } from './audit.ts';
import { type Client, makeClient, type Request } from './client.ts';
import { type Daemon, startDaemon } from './daemon.ts';
import { onFreePort } from './port.ts';

export interface ControlPlane {
  /** https://127.0.0.1:PORT, the same over restarts and wipes. */
  readonly server: string;
  /** PEM by which clients verify the server, the same over restarts and wipes. */
  readonly caFile: string;
  /** Holds everything, among it etcd.log, kube-apiserver.log and audit.log. */
  readonly folder: string;
  /** Of `admin` in the group system:masters, with a token that never ends. */
  readonly adminKubeconfig: string;
  /** Process ids; undefined where it is stopped or has ended. */
  readonly pids: { readonly etcd: number | undefined; readonly apiServer: number | undefined };
  /**
   * Writes a kubeconfig NAME.kubeconfig into the folder and returns its path. @kubernetes/client-node reads the token from
   * `tokenFile`, and again every minute, by the same code as in a pod. Not for kubectl; adminKubeconfig is for both.
   */
  kubeconfig(name: string, tokenFile: string, namespace?: string): Promise<string>;
  /** A token of the ServiceAccount, which has to be there, by the TokenRequest API. `seconds`: 600 or more, default 3600. */
  token(namespace: string, serviceAccount: string, seconds?: number): Promise<string>;
  /** As admin. */
  request: Request;
  /**
   * Server-side apply of every document as admin, with force; first Namespaces, then CRDs, which are served when it
   * resolves (the first object created of a new kind takes the server 2 s all the same). Throws at the first refusal.
   */
  apply(yaml: string): Promise<void>;
  /**
   * SIGTERM, the default: refuses new connections at once, ends after 0 to 1 s, or after 5 s where watches are open, which
   * end then. Does nothing when it is stopped already.
   */
  stopApiServer(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  /** Resolves when /readyz says yes and the namespaces default and kube-system are there. Does nothing when it runs. Throws StartFailed. */
  startApiServer(): Promise<void>;
  /** Ends both at once, removes etcd's data and starts both: as if the data had been lost. resourceVersions start again. */
  wipe(): Promise<void>;
  /** Every request since the start, also over restarts and wipes; but neither the API server's own nor those of this file. */
  audit(): Promise<AuditEntry[]>;
  /** Ends both processes and removes the folder. */
  stop(): Promise<void>;
}

export interface Options {
  /** More flags for kube-apiserver. */
  apiServerFlags?: readonly string[];
}

/** What a server gets that ought to end by itself. */
const STOP_GRACE_MS = 20_000;
const AUDIT_LIMIT_MS = 10_000;
/** In the query of what this file asks itself, to leave it out of audit(). */
const MARK = 'constellation-vpn-control-plane=';

/** Throws ToolMissing, or StartFailed with the end of the log; the folder stays then, nothing runs. */
export async function startControlPlane({ apiServerFlags = [] }: Options = {}): Promise<ControlPlane> {
  const [etcdPath, apiServerPath] = [(await findTool('etcd')).path, (await findTool('kube-apiserver')).path];
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-api-'));
  const file = (name: string) => join(folder, name);
  const adminToken = randomUUID();
  await writeFiles(folder, adminToken);

  const startEtcd = () => startDaemon({ name: 'etcd', path: etcdPath, ...etcdProgram(folder) });
  const startApi = (port: number) => {
    const unverified = makeClient(`https://127.0.0.1:${port}`, undefined, adminToken);
    return startDaemon({
      name: 'kube-apiserver',
      path: apiServerPath,
      args: [...apiServerArgs(folder, port), ...apiServerFlags],
      cwd: folder,
      log: file('kube-apiserver.log'),
      // Another server on this port would not take the token.
      ready: () => isReady(unverified),
    }).finally(() => unverified.close());
  };

  let etcd: Daemon | undefined = await startEtcd();
  const first = await onFreePort(startApi).catch(async (error: unknown) => {
    await etcd?.stop('SIGKILL');
    throw error;
  });
  const { port } = first;
  let apiServer: Daemon | undefined = first.started;
  const server = `https://127.0.0.1:${port}`;
  const caFile = file('certificates/apiserver.crt');
  const client = makeClient(server, await readFile(caFile, 'utf8'), adminToken);

  const writeKubeconfig = async (name: string, user: KubeconfigUser, namespace = 'default') => {
    const path = file(`${name}.kubeconfig`);
    await writeFile(path, kubeconfigText({ server, caFile, name, user, namespace }), { mode: 0o600 });
    return path;
  };
  const stopApiServer = async (signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM') => {
    await apiServer?.stop(signal, STOP_GRACE_MS);
    apiServer = undefined;
    client.close();
  };
  const startApiServer = async () => {
    if (apiServer?.pid === undefined) apiServer = await startApi(port);
  };
  const stopEtcd = async () => {
    await etcd?.stop('SIGKILL');
    etcd = undefined;
  };

  return {
    server,
    caFile,
    folder,
    adminKubeconfig: await writeKubeconfig('admin', { token: adminToken }),
    get pids() {
      return { etcd: etcd?.pid, apiServer: apiServer?.pid };
    },
    // client-node doesn't know user.tokenFile; this is what its loadFromCluster() sets. kubectl knows no such provider.
    kubeconfig: (name, tokenFile, namespace) =>
      writeKubeconfig(name, { 'auth-provider': { name: 'tokenFile', config: { tokenFile } } }, namespace),
    token: (namespace, serviceAccount, seconds = 3600) =>
      requestToken(client.request, namespace, serviceAccount, seconds),
    request: client.request,
    apply: (yaml) => applyAll(yaml, client.request),
    stopApiServer,
    startApiServer,
    async wipe() {
      await stopApiServer('SIGKILL');
      await stopEtcd();
      // The sockets, too: etcd 3.4 takes old ones for another etcd's.
      for (const name of ['etcd', 'etcd.sock:0', 'peer.sock:0']) await rm(file(name), { recursive: true, force: true });
      etcd = await startEtcd();
      await startApiServer();
    },
    audit: async () => readAudit(file('audit.log'), apiServer?.pid === undefined ? undefined : client),
    async stop() {
      await stopApiServer('SIGKILL');
      await stopEtcd();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function writeFiles(folder: string, adminToken: string): Promise<void> {
  const { privateKey, publicKey } = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    privateKeyEncoding: { type: 'sec1', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
  const files = {
    'service-account.key': privateKey,
    'service-account.pub': publicKey,
    // token,user,uid,"groups"
    'tokens.csv': `${adminToken},admin,admin,"system:masters"\n`,
    'audit-policy.yaml': AUDIT_POLICY,
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text, { mode: 0o600 });
}

/**
 * etcd listens on sockets in the folder, not on ports: two can't get in each other's way, and no other user of the machine
 * gets at it. A socket's name has to look like host:port for etcd 3.4.
 */
export function etcdProgram(folder: string) {
  const [clients, peers] = ['unix://etcd.sock:0', 'unix://peer.sock:0'];
  return {
    args: [
      '--name=test',
      '--data-dir=etcd',
      '--unsafe-no-fsync',
      `--listen-client-urls=${clients}`,
      `--advertise-client-urls=${clients}`,
      `--listen-peer-urls=${peers}`,
      `--initial-advertise-peer-urls=${peers}`,
      `--initial-cluster=test=${peers}`,
      '--log-level=warn',
    ],
    cwd: folder,
    log: join(folder, 'etcd.log'),
    ready: () => isHealthy(join(folder, 'etcd.sock:0')),
  };
}

function isHealthy(socketPath: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ socketPath, path: '/health' }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.on('error', reject);
    request.end();
  });
}

/** /readyz doesn't wait for the namespaces that the server makes for itself. */
async function isReady({ request }: Client): Promise<boolean> {
  const namespaces = ['default', 'kube-system'].map((name) => `/api/v1/namespaces/${name}?${MARK}ready`);
  for (const path of ['/readyz', ...namespaces]) if ((await request('GET', path)).status !== 200) return false;
  return true;
}

function apiServerArgs(folder: string, port: number): string[] {
  const file = (name: string) => join(folder, name);
  return [
    `--etcd-servers=unix://${file('etcd.sock:0')}`,
    '--bind-address=127.0.0.1',
    // Where left out, the server looks for the default route and doesn't start without one.
    '--advertise-address=127.0.0.1',
    `--secure-port=${port}`,
    // Makes apiserver.crt here, the server's certificate with its CA's, and keeps the one that is there.
    `--cert-dir=${file('certificates')}`,
    '--authorization-mode=RBAC',
    `--token-auth-file=${file('tokens.csv')}`,
    '--service-account-issuer=https://kubernetes.default.svc',
    `--service-account-key-file=${file('service-account.pub')}`,
    `--service-account-signing-key-file=${file('service-account.key')}`,
    // It would refuse every pod: the controller-manager makes the default ServiceAccounts.
    '--disable-admission-plugins=ServiceAccount',
    '--service-cluster-ip-range=10.96.0.0/16',
    // No Endpoints of the API server itself: they may not hold a loopback address.
    '--endpoint-reconciler-type=none',
    '--allow-privileged=true',
    `--audit-policy-file=${file('audit-policy.yaml')}`,
    `--audit-log-path=${file('audit.log')}`,
    // Megabytes; it would begin a new file at 100.
    '--audit-log-maxsize=100000',
  ];
}

type KubeconfigUser = { token: string } | { 'auth-provider': { name: 'tokenFile'; config: { tokenFile: string } } };

interface Access {
  server: string;
  caFile: string;
  name: string;
  user: KubeconfigUser;
  namespace: string;
}

/** JSON, which is YAML. */
function kubeconfigText({ server, caFile, name, user, namespace }: Access): string {
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster: { server, 'certificate-authority': caFile } }],
    users: [{ name, user }],
    contexts: [{ name, context: { cluster: 'test', user: name, namespace } }],
    'current-context': name,
  };
  return `${JSON.stringify(config, undefined, 2)}\n`;
}

async function requestToken(request: Request, namespace: string, account: string, seconds: number): Promise<string> {
  const answer = await request('POST', `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`, {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenRequest',
    spec: { expirationSeconds: seconds },
  });
  const { status } = isRecord(answer.body) ? answer.body : {};
  if (!isRecord(status) || typeof status.token !== 'string')
    throw new Error(`no token for the ServiceAccount ${namespace}/${account}: ${statusOf(answer)}`);
  return status.token;
}

/** `client`: undefined where the server is down. */
async function readAudit(log: string, client: Client | undefined): Promise<AuditEntry[]> {
  if (client) await caughtUp(log, client);
  return parseAudit(await readFile(log, 'utf8')).filter(({ path }) => !path.includes(MARK));
}

/**
 * A request is logged just after its answer went out. So one more is sent, and once that is in the log, those before it are,
 * too.
 */
async function caughtUp(log: string, client: Client): Promise<void> {
  const mark = `${MARK}${randomUUID()}`;
  await client.request('GET', `/version?${mark}`);
  const deadline = Date.now() + AUDIT_LIMIT_MS;
  while (!(await readFile(log, 'utf8')).includes(mark)) {
    if (Date.now() > deadline) throw new Error(`${log} lacks a request of ${AUDIT_LIMIT_MS / 1000} s ago: ${mark}`);
    await sleep(5);
  }
}
