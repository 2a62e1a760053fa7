/** Against a small HTTPS server whose lists and watches are scripted. A real one: test/api. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { kubeconfigText, listen, makeCertificate, type Certificate } from '../../../test/fakes/https-server.ts';
import { createLog } from '../log.ts';
import { KubeClient, type KubeObject } from './client.ts';
import { Reflector } from './reflector.ts';

const PODS = '/api/v1/namespaces/vpn/pods';
const WHAT = 'frontend Pods';
const AWAY = "warn can't watch for the moment, trying again";
const REFUSED = "error can't watch, trying again";
const ROLES = 'render and apply the Roles and RoleBindings again';

interface Bench {
  readonly reflector: Reflector<KubeObject>;
  readonly url: string;
  /** What onChange was called with; `-` for a list. */
  readonly changes: string[];
  /** `level msg: problem` of each record. */
  readonly said: string[];
  /** Queries of the requests so far. */
  readonly lists: URLSearchParams[];
  readonly watches: URLSearchParams[];
  /** Ends the run and waits for it. */
  stop(): Promise<void>;
}

/** Answers the nth list, or the nth watch, from 0. */
interface Script {
  readonly list: (response: ServerResponse, n: number) => void;
  /** By default it stays open and silent. */
  readonly watch?: (response: ServerResponse, n: number) => void;
  readonly absent?: string;
}

let folder = '';
let certificate: Certificate;

test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-reflector-'));
  certificate = await makeCertificate(folder, 'test');
});
test.after.always(() => rm(folder, { recursive: true, force: true }));

let benches = 0;
async function bench(tt: ExecutionContext, { list, watch = open, absent }: Script): Promise<Bench> {
  tt.timeout(20_000);
  const lists: URLSearchParams[] = [];
  const watches: URLSearchParams[] = [];
  const { url, close } = await listen(certificate, (request, response) => {
    const query = new URL(request.url ?? '', 'https://a').searchParams;
    if (query.has('watch')) watch(response, watches.push(query) - 1);
    else list(response, lists.push(query) - 1);
  });
  const file = join(folder, `${benches++}.json`);
  await writeFile(file, kubeconfigText(url, join(folder, 'test.crt'), { token: 'hunter2' }));
  const kube = new KubeClient(file, 'test');

  const said: string[] = [];
  const log = createLog('test', {
    write: (line) => {
      const { level, msg, problem = '' } = JSON.parse(line) as Record<string, string>;
      said.push(`${level} ${msg}${problem && `: ${problem}`}`);
    },
  });
  const changes: string[] = [];
  const reflector = new Reflector({
    kube,
    log,
    what: WHAT,
    path: PODS,
    query: { labelSelector: 'a=b' },
    onChange: (name) => changes.push(name ?? '-'),
    ...(absent === undefined ? {} : { absent }),
  });
  tt.is(reflector.problem, `${WHAT}: waiting for the API server at ${url}`);
  const controller = new AbortController();
  const run = reflector.run(controller.signal);
  const stop = async (): Promise<void> => {
    controller.abort();
    await run;
  };
  tt.teardown(async () => {
    await stop();
    kube.close();
    close();
  });
  return { reflector, url, changes, said, lists, watches, stop };
}

async function until(what: () => boolean): Promise<void> {
  while (!what()) await sleep(2);
}

const pod = (name: string, resourceVersion = '1', uid = `uid-${name}`): KubeObject => ({
  metadata: { name, uid, resourceVersion },
});
const listed = (response: ServerResponse, resourceVersion: string, ...items: KubeObject[]): void => {
  response.end(JSON.stringify({ metadata: { resourceVersion }, items }));
};
const failure = (response: ServerResponse, code: number, message: string, headers = {}): void => {
  response.writeHead(code, headers).end(JSON.stringify({ kind: 'Status', code, message }));
};
const line = (type: string, object: unknown): string => `${JSON.stringify({ type, object })}\n`;
/** Sends the headers, as the API server does at once. */
const open = (response: ServerResponse): void => response.flushHeaders();

const names = ({ reflector }: Bench): string =>
  reflector
    .all()
    .map(({ metadata: { name, resourceVersion } }) => `${name}=${resourceVersion}`)
    .join(' ');

test('a list, and what happens from there on', async (tt) => {
  const one = await bench(tt, {
    list: (response) => listed(response, '42', pod('a'), pod('b')),
    watch: (response) => {
      response.write(line('ADDED', pod('c', '43')) + line('MODIFIED', pod('a', '44')));
      response.write(line('DELETED', pod('b', '45')) + line('BOOKMARK', { metadata: { resourceVersion: '50' } }));
      response.write(line('MODIFIED', pod('c', '51')));
    },
  });
  await until(() => one.reflector.get('c')?.metadata.resourceVersion === '51');
  tt.is(names(one), 'a=44 c=51');
  tt.is(one.reflector.get('b'), undefined);
  tt.deepEqual(one.changes, ['-', 'a', 'b', 'c', 'a', 'b', 'c']);
  tt.true(one.reflector.synced);
  await until(() => one.reflector.problem === undefined);
  tt.deepEqual(one.said, []);

  tt.is(one.lists[0]?.toString(), 'labelSelector=a%3Db');
  const { timeoutSeconds, ...query } = Object.fromEntries(one.watches[0] ?? []);
  tt.deepEqual(query, { labelSelector: 'a=b', resourceVersion: '42', allowWatchBookmarks: 'true', watch: 'true' });
  tt.true(Number(timeoutSeconds) >= 270 && Number(timeoutSeconds) <= 330);
});

test('an empty list: known, and told', async (tt) => {
  const one = await bench(tt, { list: (response) => listed(response, '42') });
  await until(() => one.watches.length === 1);
  tt.true(one.reflector.synced);
  tt.is(one.reflector.problem, undefined);
  tt.deepEqual(one.changes, ['-']);
});

test('a watch that ends: a list again, which tells of everything, gone or not, and no word in the log', async (tt) => {
  const one = await bench(tt, {
    list: (response, n) =>
      n === 0 ? listed(response, '42', pod('a'), pod('b')) : listed(response, '50', pod('b', '49'), pod('c')),
    watch: (response, n) => (n === 0 ? response.end() : open(response)),
  });
  await until(() => one.watches.length === 2);
  tt.is(names(one), 'b=49 c=1');
  tt.deepEqual(one.changes, ['-', 'a', 'b', '-', 'a', 'b', 'c']);
  tt.is(one.watches[1]?.get('resourceVersion'), '50');
  tt.deepEqual(one.said, []);
});

test('a watch that is too old: a list again, until then the copy stays', async (tt) => {
  const gone = { kind: 'Status', code: 410, reason: 'Expired', message: 'too old resource version: 42 (1000)' };
  let kept = '';
  const one: Bench = await bench(tt, {
    list: (response, n) => {
      if (n === 1) kept = names(one);
      listed(response, n === 0 ? '42' : '1000', pod(n === 0 ? 'a' : 'b'));
    },
    watch: (response, n) => (n === 0 ? response.end(line('ERROR', gone)) : open(response)),
  });
  await until(() => one.watches.length === 2);
  tt.is(kept, 'a=1');
  tt.is(names(one), 'b=1');
  tt.is(one.watches[1]?.get('resourceVersion'), '1000');
});

test('a server that lost its data: a list with a lower version is taken', async (tt) => {
  const one = await bench(tt, {
    list: (response, n) =>
      n === 0 ? listed(response, '1000', pod('a', '900')) : listed(response, '7', pod('a', '5', 'new')),
    watch: (response, n) => (n === 0 ? response.end() : open(response)),
  });
  await until(() => one.watches.length === 2);
  tt.deepEqual(one.reflector.get('a'), pod('a', '5', 'new'));
  tt.is(one.watches[1]?.get('resourceVersion'), '7');
});

test('a watch that breaks off: said once, the copy stays until the next list', async (tt) => {
  let broken: string | undefined;
  const one: Bench = await bench(tt, {
    list: (response, n) => {
      if (n === 1) broken = one.reflector.problem;
      listed(response, '42', pod('a'));
    },
    watch: (response, n) =>
      n === 0 ? response.write(line('ADDED', pod('b')), () => response.socket?.destroy()) : open(response),
  });
  await until(() => one.watches.length === 2);
  tt.true(broken?.startsWith(`${WHAT}: watch ${PODS} at ${one.url} broke off: `), broken);
  await until(() => one.reflector.problem === undefined);
  tt.deepEqual(one.said, [`${AWAY}: ${broken}`, 'info the API server answers again']);
  tt.deepEqual(one.changes, ['-', 'a', 'b', '-', 'a', 'b']);
});

test('refused: said once however often, and why; then it works', async (tt) => {
  const one = await bench(tt, {
    list: (response, n) =>
      n < 3 ? failure(response, 403, 'cannot list resource "pods"') : listed(response, '42', pod('a')),
  });
  const problem = `${WHAT}: GET ${PODS}: 403 cannot list resource "pods"`;
  await until(() => one.lists.length === 2);
  tt.is(one.reflector.problem, problem);
  tt.false(one.reflector.synced);
  await until(() => one.watches.length === 1);
  await until(() => one.reflector.problem === undefined);
  tt.deepEqual(one.said, [`${REFUSED}: ${problem}: ${ROLES}`, 'info the API server answers again']);
});

test('another reason is said, too', async (tt) => {
  const one = await bench(tt, {
    list: (response, n) => failure(response, n === 0 ? 403 : 404, 'no'),
  });
  await until(() => one.lists.length === 2 && one.said.length === 2);
  tt.is(one.said[0], `${REFUSED}: ${WHAT}: GET ${PODS}: 403 no: ${ROLES}`);
  tt.is(one.said[1], `${REFUSED}: ${WHAT}: GET ${PODS}: 404 no: is this a Kubernetes API server?`);
});

test('a restart of the server: one warning, though each try fails in another way', async (tt) => {
  const one = await bench(tt, {
    list: (response, n) => {
      if (n === 1) response.socket?.destroy();
      else if (n === 2) failure(response, 403, 'role not found');
      else if (n === 3) failure(response, 429, 'storage is (re)initializing');
      else listed(response, '42', pod('a'));
    },
    watch: (response, n) =>
      n === 0 ? response.write(line('ADDED', pod('b')), () => response.socket?.destroy()) : open(response),
  });
  await until(() => one.lists.length === 3);
  await until(() => one.reflector.problem === `${WHAT}: GET ${PODS}: 403 role not found`);
  await until(() => one.watches.length === 2);
  await until(() => one.reflector.problem === undefined);
  tt.is(one.said.length, 2, one.said.join('\n'));
  tt.true(one.said[0]?.startsWith(`${AWAY}: ${WHAT}: watch ${PODS} at ${one.url} broke off: `), one.said[0]);
  tt.is(one.said[1], 'info the API server answers again');
});

test('a watch that is refused: said, though the list comes each time', async (tt) => {
  const one = await bench(tt, {
    list: (response) => listed(response, '42', pod('a')),
    watch: (response) => failure(response, 403, 'cannot watch resource "pods"'),
  });
  await until(() => one.watches.length === 3);
  tt.deepEqual(one.said, [`${REFUSED}: ${WHAT}: GET ${PODS}: 403 cannot watch resource "pods": ${ROLES}`]);
  tt.is(names(one), 'a=1');
  tt.regex(one.reflector.problem ?? '', /403/);
});

test('a watch that lived for a while and then broke off: the next list comes at once, whatever was before', async (tt) => {
  let brokeAt = 0;
  let listedAt = 0;
  const one = await bench(tt, {
    list: (response, n) => {
      if (n < 5) failure(response, 500, 'etcdserver: no leader');
      else {
        listedAt = performance.now();
        listed(response, '42', pod('a'));
      }
    },
    watch: (response, n) => {
      open(response);
      if (n === 0)
        setTimeout(() => {
          brokeAt = performance.now();
          response.socket?.destroy();
        }, 5_200);
    },
  });
  await until(() => one.watches.length === 2);
  // After six failures in a row it would be between 1.6 and 3.2 s.
  tt.true(listedAt - brokeAt < 1_500, `${Math.round(listedAt - brokeAt)} ms`);
});

test('a collection that is not there: what the administrator should know', async (tt) => {
  const one = await bench(tt, {
    list: (response, n) => (n === 0 ? failure(response, 404, 'page not found') : listed(response, '42')),
    absent: 'Cilium is missing',
  });
  await until(() => one.reflector.problem === `${WHAT}: Cilium is missing`);
  await until(() => one.reflector.problem === undefined);
  tt.is(one.said[0], `${REFUSED}: ${WHAT}: Cilium is missing`);
  tt.true(one.reflector.synced);
});

test('a collection that is not there, and nothing to add', async (tt) => {
  const one = await bench(tt, { list: (response) => failure(response, 404, 'not found') });
  await until(() => one.reflector.problem === `${WHAT}: GET ${PODS}: 404 not found`);
  tt.pass();
});

test('asked to wait: not asked again before', async (tt) => {
  const one = await bench(tt, { list: (response) => failure(response, 429, 'later', { 'retry-after': '3600' }) });
  await until(() => one.said.length === 1);
  await sleep(300); // the first backoff is 100 ms at most
  tt.is(one.lists.length, 1);
  await one.stop();
});

const stops = test.macro(async (tt, script: Script, when: (one: Bench) => boolean) => {
  const one = await bench(tt, script);
  await until(() => when(one));
  const before = one.said.length;
  await one.stop();
  tt.is(one.said.length, before);
  tt.is(one.lists.length, 1);
});
const silent = (): void => undefined;
test('the end: while a list is awaited', stops, { list: silent }, ({ lists }) => lists.length === 1);
test(
  'the end: while a watch is awaited',
  stops,
  { list: (response) => listed(response, '1'), watch: silent },
  ({ watches }) => watches.length === 1,
);
test(
  'the end: while a watch is open',
  stops,
  { list: (response) => listed(response, '1'), watch: (response) => response.write(line('ADDED', pod('a'))) },
  ({ reflector }) => reflector.get('a') !== undefined,
);
test(
  'the end: while it holds back',
  stops,
  { list: (response) => failure(response, 429, 'later', { 'retry-after': '3600' }) },
  ({ said }) => said.length === 1,
);

test('a server that never answers: waiting, and not ready', async (tt) => {
  const one = await bench(tt, { list: silent });
  await until(() => one.lists.length === 1);
  tt.false(one.reflector.synced);
  tt.is(one.reflector.problem, `${WHAT}: waiting for the API server at ${one.url}`);
});
