/** The control plane that the other tests of this tier stand on: real etcd, real kube-apiserver. */
import { readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { get } from 'node:https';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CoreV1Api, KubeConfig } from '@kubernetes/client-node';
import test from 'ava';
import { execa } from 'execa';
import { isRecord } from '../../functions/model/krm.ts';
import { parseAudit } from '../control-plane/audit.ts';
import { makeClient } from '../control-plane/client.ts';
import { type ControlPlane, startControlPlane } from '../control-plane/control-plane.ts';
import { StartFailed } from '../control-plane/daemon.ts';
import { onFreePort } from '../control-plane/port.ts';

const CONTROL_PLANE = new URL('../control-plane/', import.meta.url);
const ENDPOINTS = '/apis/cilium.io/v2/namespaces/vpn/ciliumendpoints';
const FIXTURE = `
apiVersion: v1
kind: ServiceAccount
metadata: { name: nobody, namespace: vpn }
---
# only a comment
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: reader, namespace: vpn }
--- # the namespace comes last, and is needed first
apiVersion: v1
kind: Namespace
metadata: { name: vpn }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: reader, namespace: vpn }
rules:
  - { apiGroups: [''], resources: [configmaps], verbs: [list, watch] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: reader, namespace: vpn }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader }
subjects:
  - { kind: ServiceAccount, name: reader, namespace: vpn }
`;

let cluster: ControlPlane;
test.before(async () => {
  cluster = await startControlPlane();
  for (const name of ['ciliumendpoints', 'ciliumendpointslices'])
    await cluster.apply(await readFile(new URL(`crds/${name}.yaml`, CONTROL_PLANE), 'utf8'));
  await cluster.apply(FIXTURE);
});
test.after.always(async () => cluster?.stop());

/** As a ServiceAccount of the namespace vpn, for one request. */
async function as(account: string, method: string, path: string): Promise<{ status: number; body: unknown }> {
  const token = await cluster.token('vpn', account);
  const client = makeClient(cluster.server, await readFile(cluster.caFile, 'utf8'), token);
  return client.request(method, path).finally(() => client.close());
}

/** Names of the processes that run in the folder; one that has ended and that nobody waited for yet doesn't run. */
async function running(folder: string): Promise<string[]> {
  const names: string[] = [];
  for (const pid of await readdir('/proc')) {
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
    if (cwd === folder) names.push((await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => 'ended')).trim());
  }
  return names;
}

async function eventually<T>(what: () => Promise<T>, accept: (value: T) => boolean, limitMs = 20_000): Promise<T> {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const value = await what();
    if (accept(value) || Date.now() > deadline) return value;
    await sleep(50);
  }
}

function opens(host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(Number(new URL(cluster.server).port), host);
    socket.on('error', () => resolve(false));
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
  });
}

test.serial('it listens on 127.0.0.1 and nowhere else', async (t) => {
  t.regex(cluster.server, /^https:\/\/127\.0\.0\.1:\d+$/);
  t.true(await opens('127.0.0.1'));
  t.false(await opens('127.0.0.2'));
});

test.serial('the admin may do everything', async (t) => {
  const { status, body } = await cluster.request('GET', '/api/v1/secrets');
  t.is(status, 200, JSON.stringify(body));
});

test.serial('a wrong token: 401', async (t) => {
  const ca = await readFile(cluster.caFile, 'utf8');
  const client = makeClient(cluster.server, ca, 'wrong');
  t.is((await client.request('GET', '/api/v1/secrets')).status, 401);
  client.close();
});

test.serial('RBAC: an account without roles is refused, one with a role may what it says', async (t) => {
  const path = '/api/v1/namespaces/vpn/configmaps';
  const { status, body } = await as('nobody', 'GET', path);
  t.is(status, 403);
  t.true(isRecord(body) && String(body.message).includes('system:serviceaccount:vpn:nobody'), JSON.stringify(body));
  const allowed = await eventually(
    () => as('reader', 'GET', path),
    (answer) => answer.status === 200,
  );
  t.is(allowed.status, 200, JSON.stringify(allowed.body));
  t.is((await as('reader', 'GET', '/api/v1/namespaces/vpn/secrets')).status, 403);
});

test.serial('a token: of the account, for the time asked for', async (t) => {
  const token = await cluster.token('vpn', 'nobody', 600);
  const claims: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
  t.like(claims, { sub: 'system:serviceaccount:vpn:nobody', iss: 'https://kubernetes.default.svc' });
  t.true(isRecord(claims) && Number(claims.exp) - Number(claims.iat) === 600);
  await t.throwsAsync(cluster.token('vpn', 'none'), {
    message: /^no token for the ServiceAccount vpn\/none: 404 .*"none" not found/,
  });
});

test.serial("kubeconfigs work with Kubernetes' own client", async (t) => {
  const tokenFile = join(cluster.folder, 'nobody.token');
  await writeFile(tokenFile, await cluster.token('vpn', 'nobody'));
  const config = new KubeConfig();
  config.loadFromFile(await cluster.kubeconfig('nobody', tokenFile, 'vpn'));
  t.is(config.getContextObject(config.currentContext)?.namespace, 'vpn');
  await t.throwsAsync(config.makeApiClient(CoreV1Api).listNamespacedPod({ namespace: 'vpn' }), {
    message: /system:serviceaccount:vpn:nobody/,
  });
  config.loadFromFile(cluster.adminKubeconfig);
  const { items } = await config.makeApiClient(CoreV1Api).listNamespacedServiceAccount({ namespace: 'vpn' });
  t.deepEqual(
    items.map(({ metadata }) => metadata?.name),
    ['nobody', 'reader'],
  );
});

test.serial('apply: the same again changes nothing; what is refused is named', async (t) => {
  const version = async () => {
    const { body } = await cluster.request('GET', '/api/v1/namespaces/vpn/serviceaccounts/nobody');
    return isRecord(body) && isRecord(body.metadata) ? body.metadata.resourceVersion : undefined;
  };
  const before = await version();
  await cluster.apply(FIXTURE);
  t.is(await version(), before);
  await t.throwsAsync(
    cluster.apply('{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: vpn}, dat: {b: c}}'),
    {
      message: /^ConfigMap vpn\/a was not applied: \d+ .*\.dat/,
    },
  );
  await t.throwsAsync(cluster.apply('{apiVersion: v1, kind: Frobnicator, metadata: {name: a}}'), {
    message: 'Frobnicator a: the server knows no Frobnicator in v1',
  });
  await t.throwsAsync(cluster.apply('kind: ConfigMap'), { message: /^a document without apiVersion, kind or/ });
});

test.serial('apply: a CRD after an object of its kind', async (t) => {
  await cluster.apply(`
apiVersion: test.example/v1
kind: Thing
metadata: { name: a }
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: things.test.example }
spec:
  group: test.example
  names: { kind: Thing, plural: things }
  scope: Cluster
  versions: [{ name: v1, served: true, storage: true, schema: { openAPIV3Schema: { type: object } } }]
`);
  t.is((await cluster.request('GET', '/apis/test.example/v1/things/a')).status, 200);
});

test.serial('a CiliumEndpoint keeps the status that it is created with, and takes patches of it', async (t) => {
  const status = {
    id: 7,
    identity: { id: 4711, labels: ['k8s:app=frontend'] },
    networking: { addressing: [{ ipv4: '10.0.0.7' }], node: '192.0.2.1' },
    policy: { ingress: { enforcing: false, state: '<status disabled>' } },
    state: 'ready',
  };
  const metadata = { name: 'frontend', namespace: 'vpn' };
  const object = { apiVersion: 'cilium.io/v2', kind: 'CiliumEndpoint', metadata, status };
  const created = await cluster.request('POST', ENDPOINTS, object);
  t.is(created.status, 201, JSON.stringify(created.body));
  t.like(created.body, { status });
  t.is((await cluster.request('GET', `${ENDPOINTS}/frontend/status`)).status, 404);

  const patch = (address: string) =>
    cluster.request(
      'PATCH',
      `${ENDPOINTS}/frontend`,
      [
        { op: 'test', path: '/status/networking/addressing/0/ipv4', value: address },
        { op: 'add', path: '/status/networking/addressing/-', value: { ipv4: '172.16.0.0/12' } },
      ],
      'application/json-patch+json',
    );
  t.is((await patch('10.0.0.8')).status, 422);
  const patched = await patch('10.0.0.7');
  t.is(patched.status, 200, JSON.stringify(patched.body));
  t.like(patched.body, {
    status: { networking: { addressing: [{ ipv4: '10.0.0.7' }, { ipv4: '172.16.0.0/12' }], node: '192.0.2.1' } },
  });

  const refused = { ...object, metadata: { name: 'other' }, status: { state: 'asleep' } };
  t.is((await cluster.request('POST', ENDPOINTS, refused)).status, 422);
});

test.serial('a CiliumEndpointSlice is cluster-wide and needs endpoints', async (t) => {
  const path = '/apis/cilium.io/v2alpha1/ciliumendpointslices';
  const object = { apiVersion: 'cilium.io/v2alpha1', kind: 'CiliumEndpointSlice', metadata: { name: 'a' } };
  t.is((await cluster.request('POST', path, object)).status, 422);
  const endpoints = [{ name: 'frontend', id: 4711, networking: { addressing: [{ ipv4: '10.0.0.7' }] } }];
  const created = await cluster.request('POST', path, { ...object, namespace: 'vpn', endpoints });
  t.is(created.status, 201, JSON.stringify(created.body));
  t.like(created.body, { endpoints, namespace: 'vpn' });
});

test.serial('the audit log has every request once, at once, and an open watch, too', async (t) => {
  await as('nobody', 'GET', '/api/v1/namespaces/vpn/configmaps/some?pretty=true');
  const watch = get(
    `${cluster.server}/api/v1/namespaces/vpn/configmaps?watch=1`,
    {
      ca: await readFile(cluster.caFile),
      headers: { authorization: `Bearer ${await cluster.token('vpn', 'reader')}` },
    },
    (response) => response.on('error', () => undefined),
  );
  await new Promise((resolve) => watch.once('response', resolve));
  const entries = await cluster.audit();
  const { at, ...refused } = entries.find(({ name }) => name === 'some') ?? { at: 0 };
  t.deepEqual(refused, {
    user: 'system:serviceaccount:vpn:nobody',
    verb: 'get',
    resource: 'configmaps',
    namespace: 'vpn',
    name: 'some',
    code: 403,
    path: '/api/v1/namespaces/vpn/configmaps/some?pretty=true',
    userAgent: 'constellation-vpn-test',
  });
  t.true(Math.abs(Date.now() - at) < 60_000);

  const watches = (of: typeof entries) => of.filter(({ verb, user }) => verb === 'watch' && user.endsWith(':reader'));
  t.like(watches(entries), [{ resource: 'configmaps', code: 200 }]);
  watch.destroy();
  const events = async () =>
    (await readFile(join(cluster.folder, 'audit.log'), 'utf8')).split('"verb":"watch"').length - 1;
  t.is(await eventually(events, (count) => count === 2), 2, 'its start and its end');
  t.is(watches(await cluster.audit()).length, 1);
  t.is(entries.filter(({ user, path }) => user === 'system:apiserver' || /readyz|control-plane=/.test(path)).length, 0);
  t.is(entries.find(({ code }) => code === 401)?.user, '');
});

test('a line of the audit log that was cut off is left out', (t) => {
  const event = '{"auditID":"1","verb":"get","requestURI":"/a","responseStatus":{"code":200}}';
  t.deepEqual(
    parseAudit(`{"auditID":"0","ver${event}\n${event}\n{"audit`).map(({ path }) => path),
    ['/a'],
  );
});

test.serial('a restart of the API server keeps data, tokens and address', async (t) => {
  const token = await cluster.token('vpn', 'nobody');
  const { server, pids } = cluster;
  await cluster.stopApiServer('SIGKILL');
  t.deepEqual(cluster.pids, { etcd: pids.etcd, apiServer: undefined });
  await t.throwsAsync(cluster.request('GET', '/version'), { code: 'ECONNREFUSED' });
  t.true((await cluster.audit()).length > 0);
  await cluster.startApiServer();
  t.not(cluster.pids.apiServer, pids.apiServer);
  t.is(cluster.server, server);
  t.is((await cluster.request('GET', `${ENDPOINTS}/frontend`)).status, 200);
  const client = makeClient(server, await readFile(cluster.caFile, 'utf8'), token);
  t.is((await client.request('GET', ENDPOINTS)).status, 403);
  client.close();
});

test.serial('an API server that was killed from outside starts again', async (t) => {
  process.kill(cluster.pids.apiServer ?? NaN, 'SIGKILL');
  t.is(
    await eventually(
      async () => cluster.pids.apiServer,
      (pid) => pid === undefined,
    ),
    undefined,
  );
  await cluster.startApiServer();
  t.is((await cluster.request('GET', '/version')).status, 200);
});

test.serial('a wipe loses all data, and resourceVersions start again', async (t) => {
  const resourceVersion = async () => {
    const { body } = await cluster.request('GET', '/api/v1/configmaps?limit=1');
    return Number(isRecord(body) && isRecord(body.metadata) ? body.metadata.resourceVersion : NaN);
  };
  for (let i = 0; i < 100; i += 1)
    await cluster.request('POST', '/api/v1/namespaces/vpn/configmaps', { metadata: { generateName: 'a' } });
  const before = await resourceVersion();
  const { server } = cluster;
  await cluster.wipe();
  const after = await resourceVersion();
  t.true(after < before, `${after} after ${before}`);
  t.is(cluster.server, server);
  t.is((await cluster.request('GET', '/api/v1/namespaces/vpn')).status, 404);
  t.is((await cluster.request('GET', '/api/v1/namespaces/kube-system')).status, 200);
  t.is((await cluster.request('GET', ENDPOINTS)).status, 404);
  await cluster.apply(FIXTURE);
  t.is((await as('nobody', 'GET', ENDPOINTS)).status, 403);
});

test.serial('a failed start shows the end of the log, and leaves nothing running', async (t) => {
  const error = await t.throwsAsync(startControlPlane({ apiServerFlags: ['--no-such-flag'] }), {
    instanceOf: StartFailed,
    message:
      /^kube-apiserver ended with exit code 1\. Its log, \S+\/kube-apiserver\.log, ends with:\n(?: {2}.*\n)* {2}Error: unknown flag: --no-such-flag$/i,
  });
  const folder = dirname(/log, (\S+),/.exec(error.message)?.[1] ?? '');
  t.deepEqual(await running(folder), []);
  await rm(folder, { recursive: true });
});

test.serial('a second one beside the first; killed with -9, its parent takes both processes along', async (t) => {
  const script = `
    const { startControlPlane } = await import('${new URL('control-plane.ts', CONTROL_PLANE).href}');
    const { folder } = await startControlPlane();
    process.stdout.write(folder + '\\n');`;
  const parent = execa(process.execPath, ['--input-type=module', '--eval', script], { reject: false });
  t.teardown(() => parent.kill('SIGKILL'));
  const folder = await new Promise<string>((resolve) =>
    parent.stdout.once('data', (line: Buffer) => resolve(line.toString().trim())),
  );
  t.is((await running(folder)).length, 2);
  t.is((await cluster.request('GET', '/readyz')).status, 200);
  parent.kill('SIGKILL');
  await parent;
  t.deepEqual(
    await eventually(
      () => running(folder),
      (names) => names.length === 0,
    ),
    [],
  );
  await rm(folder, { recursive: true });
});

test('a port that another program took in between', async (t) => {
  const tried: number[] = [];
  const taken = (port: number) => {
    tried.push(port);
    return Promise.reject(new StartFailed('', 'listen tcp 127.0.0.1: bind: address already in use'));
  };
  const { port } = await onFreePort((each) => (tried.length < 2 ? taken(each) : Promise.resolve('started')));
  t.false(tried.includes(port));
  await t.throwsAsync(onFreePort(taken), { instanceOf: StartFailed });
  t.is(tried.length, 2 + 5);
  const other = (port: number) => {
    tried.push(port);
    return Promise.reject(new StartFailed('', 'unknown flag'));
  };
  await t.throwsAsync(onFreePort(other), { instanceOf: StartFailed });
  t.is(tried.length, 2 + 5 + 1, 'another failure is no reason to try again');
});
