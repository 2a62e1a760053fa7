/** Against a small HTTPS server that answers as an API server does on a bad day. A real one: test/api. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Server } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setImmediate as turn } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import {
  kubeconfigText,
  listen,
  makeCertificate,
  type Certificate,
  type FakeServer,
} from '../../../test/fakes/https-server.ts';
import { KubeClient, type KubeObject, type WatchEvent } from './client.ts';
import { isRefusal, KubeError, type KubeErrorKind } from './errors.ts';

const PODS = '/api/v1/namespaces/vpn/pods';
const TOKEN = 'hunter2';

interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}
/** `n`: how many requests came before. */
type Answer = (response: ServerResponse, seen: Seen, n: number) => void;

interface Cluster {
  readonly kube: KubeClient;
  readonly server: Server;
  readonly seen: Seen[];
  /** Connections that were made. */
  readonly connections: () => number;
  readonly url: string;
  readonly caFile: string;
  readonly tokenFile: string;
}

let certificates: Certificate[] = [];
let folder = '';

test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-kube-'));
  certificates = [await makeCertificate(folder, 'one'), await makeCertificate(folder, 'two')];
});
test.after.always(() => rm(folder, { recursive: true, force: true }));

async function answerAll(answer: Answer, seen: Seen[]): Promise<FakeServer> {
  const answered = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { method = '', url = '', headers } = request;
    const one = { method, url, headers, body: await text(request) };
    answer(response, one, seen.push(one) - 1);
  };
  return listen(certificates[0]!, (request, response) => void answered(request, response));
}

let clusters = 0;
async function cluster(tt: ExecutionContext, answer: Answer): Promise<Cluster> {
  const seen: Seen[] = [];
  const { server, url, close } = await answerAll(answer, seen);
  let connections = 0;
  server.on('secureConnection', () => (connections += 1));
  const base = join(folder, String(clusters++));
  const [kubeconfig, caFile, tokenFile] = [`${base}.json`, `${base}.crt`, `${base}.token`];
  await writeFile(caFile, certificates[0]?.cert ?? '');
  await writeFile(tokenFile, TOKEN);
  const user = { 'auth-provider': { name: 'tokenFile', config: { tokenFile } } };
  await writeFile(kubeconfig, kubeconfigText(url, caFile, user));
  const kube = new KubeClient(kubeconfig, 'constellation-vpn-test');
  tt.teardown(() => {
    kube.close();
    close();
  });
  return { kube, server, seen, connections: () => connections, url, caFile, tokenFile };
}

const json = (response: ServerResponse, value: unknown, status = 200, headers = {}): void => {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value));
};
const failure = (response: ServerResponse, code: number, reason: string, message: string, headers = {}): void =>
  json(response, { kind: 'Status', status: 'Failure', message, reason, code }, code, headers);

const pod = (name: string): KubeObject => ({ metadata: { name, uid: `uid-${name}`, resourceVersion: '7' } });
const LIST = { metadata: { resourceVersion: '42' }, items: [pod('a'), pod('b')] };

async function refused(tt: ExecutionContext, asked: Promise<unknown>, kind: KubeErrorKind): Promise<KubeError> {
  const error = await tt.throwsAsync(asked, { instanceOf: KubeError });
  tt.is(error.kind, kind, error.message);
  tt.false(error.message.includes(TOKEN));
  return error;
}

test('list: what is asked, and by whom', async (tt) => {
  const { kube, seen, url } = await cluster(tt, (response) => json(response, LIST));
  tt.is(kube.server, url);
  tt.deepEqual(await kube.list(PODS, { labelSelector: 'app.kubernetes.io/name=a,b=c' }), LIST);
  tt.is(seen[0]?.method, 'GET');
  tt.is(seen[0]?.url, `${PODS}?labelSelector=app.kubernetes.io%2Fname%3Da%2Cb%3Dc`);
  tt.is(seen[0]?.headers.authorization, `Bearer ${TOKEN}`);
  tt.is(seen[0]?.headers['user-agent'], 'constellation-vpn-test');
  tt.is(seen[0]?.headers.accept, 'application/json');
});

test('get: the object', async (tt) => {
  const { kube, seen } = await cluster(tt, (response) => json(response, pod('a')));
  tt.deepEqual(await kube.get(`${PODS}/a`), pod('a'));
  tt.is(seen[0]?.url, `${PODS}/a`);
});

test('get: nothing', async (tt) => {
  const { kube } = await cluster(tt, (response) => failure(response, 404, 'NotFound', 'pods "a" not found'));
  tt.is(await kube.get(`${PODS}/a`), undefined);
});

test('get: refused is not the same as nothing', async (tt) => {
  const { kube } = await cluster(tt, (response) => failure(response, 403, 'Forbidden', 'no'));
  await refused(tt, kube.get(`${PODS}/a`), 'forbidden');
});

// Not only ASCII: the length is in bytes.
const PATCH = { data: { a: 'Köln' } };
const changes = test.macro(
  async (tt, change: (kube: KubeClient) => Promise<unknown>, method: string, type: string, body: unknown) => {
    const { kube, seen } = await cluster(tt, (response) => json(response, pod('a')));
    tt.deepEqual(await change(kube), pod('a'));
    tt.is(seen[0]?.method, method);
    tt.is(seen[0]?.url, `${PODS}?fieldManager=constellation-vpn-test`);
    tt.is(seen[0]?.headers['content-type'], type);
    tt.deepEqual(JSON.parse(seen[0]?.body ?? ''), body);
  },
);
const OPS = [{ op: 'replace', path: '/data/a', value: 'Köln' }] as const;
test('patch', changes, (kube) => kube.patch(PODS, OPS), 'PATCH', 'application/json-patch+json', OPS);
test('merge', changes, (kube) => kube.merge(PODS, PATCH), 'PATCH', 'application/merge-patch+json', PATCH);
test('create', changes, (kube) => kube.create(PODS, PATCH), 'POST', 'application/json', PATCH);

test('refused: what was asked, and the server’s words', async (tt) => {
  const { kube, seen } = await cluster(tt, (response) =>
    failure(response, 429, 'TooManyRequests', 'please try again later', { 'retry-after': '2' }),
  );
  const error = await refused(tt, kube.patch(`${PODS}/a`, []), 'throttled');
  tt.is(error.message, `PATCH ${PODS}/a: 429 please try again later`);
  tt.is(error.retryAfterMs, 2_000);
  tt.is(seen.length, 1);
});

test('a proxy’s page instead of a Status', async (tt) => {
  const { kube } = await cluster(tt, (response) => response.writeHead(502).end('<h1>Bad Gateway</h1>'));
  const error = await refused(tt, kube.list(PODS, {}), 'server');
  tt.is(error.message, `GET ${PODS}: 502 <h1>Bad Gateway</h1>`);
});

test('a page instead of JSON', async (tt) => {
  const { kube, url } = await cluster(tt, (response) => response.end('<h1>Welcome</h1>'));
  const error = await refused(tt, kube.list(PODS, {}), 'server');
  tt.is(error.message, `GET ${PODS} at ${url}: the answer is not JSON`);
});

// Credentials

test('a token that was rotated: read again, asked again', async (tt) => {
  let accepted = TOKEN;
  const { kube, seen, tokenFile } = await cluster(tt, (response, { headers }) =>
    headers.authorization === `Bearer ${accepted}`
      ? json(response, pod('a'))
      : failure(response, 401, 'Unauthorized', 'Unauthorized'),
  );
  await kube.get(PODS);
  accepted = 'rotated';
  await writeFile(tokenFile, accepted);
  tt.deepEqual(await kube.get(PODS), pod('a'));
  tt.deepEqual(await kube.patch<KubeObject>(PODS, OPS), pod('a'));
  tt.deepEqual(
    seen.map(({ headers }) => headers.authorization),
    [TOKEN, TOKEN, 'rotated', 'rotated'].map((token) => `Bearer ${token}`),
  );
});

test('a token that is not accepted: asked twice, not for ever', async (tt) => {
  const { kube, seen } = await cluster(tt, (response) => failure(response, 401, 'Unauthorized', 'Unauthorized'));
  const error = await refused(tt, kube.list(PODS, {}), 'unauthorized');
  tt.is(error.message, `GET ${PODS}: 401 Unauthorized`);
  tt.is(seen.length, 2);
});

test.serial('neither a kubeconfig nor a Pod', (tt) => {
  delete process.env.KUBERNETES_SERVICE_HOST; // this worker's own
  const error = tt.throws(() => new KubeClient(undefined, 'a'));
  tt.regex(error.message, /^this is not a Pod of a cluster .*--kubeconfig$/);
});

test('a kubeconfig that is not there', (tt) => {
  tt.throws(() => new KubeClient(join(folder, 'none'), 'a'), {
    message: /^the kubeconfig .*\/none can't be read: ENOENT/,
  });
});

test('a kubeconfig that is no YAML, or names no server', async (tt) => {
  const file = join(folder, 'odd');
  for (const [content, message] of [
    ['', /^the kubeconfig .*\/odd can't be read: /],
    ['{', /^the kubeconfig .*\/odd can't be read: [^\n]*$/],
    ['{clusters: [], users: [], contexts: []}', /^the kubeconfig .*\/odd names no server/],
  ] as const) {
    await writeFile(file, content);
    tt.throws(() => new KubeClient(file, 'a'), { message });
  }
});

// Connections

test('one connection for requests one after the other', async (tt) => {
  const { kube, connections } = await cluster(tt, (response) => json(response, LIST));
  for (let n = 0; n < 5; n++) await kube.list(PODS, {});
  tt.is(connections(), 1);
});

test('a kept connection that the server closes when it is used again: asked again', async (tt) => {
  const { kube, seen, connections } = await cluster(tt, (response, _, n) =>
    n === 1 ? response.socket?.destroy() : json(response, pod('a')),
  );
  await kube.get(PODS);
  tt.deepEqual(await kube.patch<KubeObject>(PODS, OPS), pod('a'));
  tt.deepEqual(
    seen.map(({ method }) => method),
    ['GET', 'PATCH', 'PATCH'],
  );
  tt.is(seen[2]?.body, seen[1]?.body);
  tt.is(connections(), 2);
});

test('several kept connections that are all dead: asked again on a new one', async (tt) => {
  const { kube, seen } = await cluster(tt, (response, _, n) => {
    if (n < 4)
      setTimeout(() => json(response, pod('a')), 20); // four at the same time make four connections
    else if (n === 4) response.socket?.destroy();
    else json(response, pod('a'));
  });
  await Promise.all([1, 2, 3, 4].map(() => kube.get(PODS)));
  tt.deepEqual(await kube.patch<KubeObject>(PODS, OPS), pod('a'));
  tt.is(seen.length, 6);
});

test('a kept connection is lost, and the token was rotated: both are mended', async (tt) => {
  const { kube, tokenFile, seen } = await cluster(tt, (response, { headers }, n) => {
    if (n === 1) response.socket?.destroy();
    else if (n === 0 || headers.authorization === 'Bearer rotated') json(response, pod('a'));
    else failure(response, 401, 'Unauthorized', 'Unauthorized');
  });
  await kube.get(PODS);
  await writeFile(tokenFile, 'rotated');
  tt.deepEqual(await kube.patch<KubeObject>(PODS, OPS), pod('a'));
  tt.is(seen.length, 4);
});

test('a new connection that the server closes: not asked again', async (tt) => {
  const { kube, seen, url } = await cluster(tt, (response) => response.socket?.destroy());
  const error = await refused(tt, kube.list(PODS, {}), 'unreachable');
  tt.is(error.message, `no answer from the API server at ${url}: socket hang up`);
  tt.is(seen.length, 1);
});

test('closed in the middle of an answer', async (tt) => {
  const { kube, url } = await cluster(tt, (response) => {
    response.writeHead(200, { 'content-length': 1_000 });
    response.write('{"items":[', () => response.socket?.destroy());
  });
  const error = await refused(tt, kube.list(PODS, {}), 'unreachable');
  tt.regex(error.message, new RegExp(`^no answer from the API server at ${url}: .`));
});

test('closed in the middle of a refusal', async (tt) => {
  const { kube } = await cluster(tt, (response) => {
    response.writeHead(403, { 'content-length': 1_000 });
    response.write('{"message":', () => response.socket?.destroy());
  });
  await refused(tt, kube.list(PODS, {}), 'forbidden');
});

test('nobody there', async (tt) => {
  const { kube, server, url } = await cluster(tt, () => undefined);
  await new Promise((resolve) => server.close(resolve));
  const error = await refused(tt, kube.list(PODS, {}), 'unreachable');
  tt.regex(
    error.message,
    new RegExp(`^no answer from the API server at ${url}: connect ECONNREFUSED 127\\.0\\.0\\.1:`),
  );
});

test('a server that never answers: given up when the signal says so', async (tt) => {
  const controller = new AbortController();
  const { kube } = await cluster(tt, () => controller.abort());
  await refused(tt, kube.list(PODS, {}, controller.signal), 'unreachable');
});

test('an authority that changed: read again, not the process started again', async (tt) => {
  const { kube, server, seen, caFile, url } = await cluster(tt, (response) => json(response, LIST));
  await kube.list(PODS, {});
  server.setSecureContext(certificates[1] ?? {});
  server.closeAllConnections();
  const error = await refused(tt, kube.list(PODS, {}), 'unreachable');
  tt.regex(error.message, new RegExp(`^no answer from the API server at ${url}: .*certificate`));
  tt.true(isRefusal(error)); // nobody but an administrator can mend it
  tt.is(seen.length, 1); // no token went to a server that nobody vouches for
  await writeFile(caFile, certificates[1]?.cert ?? '');
  tt.deepEqual(await kube.list(PODS, {}), LIST);
});

// Watches

type Event = WatchEvent<KubeObject>;
const line = (type: string, object: unknown): string => `${JSON.stringify({ type, object })}\n`;
const labelled = (name: string): object => ({ ...pod(name), labels: { place: 'Köln 🚇' } });
const EVENTS = [line('ADDED', labelled('a')), line('BOOKMARK', pod('')), '\n', line('DELETED', labelled('b'))].join('');
const never = (): AbortSignal => new AbortController().signal;

async function watched(
  kube: KubeClient,
  query: Record<string, string>,
  onEvent: (event: Event) => void,
  signal: AbortSignal,
): Promise<void> {
  for await (const event of await kube.watch<KubeObject>(PODS, query, signal)) onEvent(event);
}

/** Cut inside of lines, escapes and characters: what is written in one turn of the event loop would be sent together. */
async function byteByByte(response: ServerResponse, body: string): Promise<void> {
  for (const byte of Buffer.from(body)) {
    response.write(Buffer.of(byte));
    await turn();
  }
  response.end();
}

test('watch: each event in order, however the bytes are cut; resolves when the server ends it', async (tt) => {
  const { kube, seen } = await cluster(tt, (response) => {
    void byteByByte(response, EVENTS);
  });
  const events: Event[] = [];
  await watched(kube, { resourceVersion: '42' }, (event) => events.push(event), never());
  tt.is(seen[0]?.url, `${PODS}?resourceVersion=42&watch=true`);
  tt.deepEqual(
    events.map(({ type }) => type),
    ['ADDED', 'BOOKMARK', 'DELETED'],
  );
  tt.deepEqual(events[0]?.object as unknown, labelled('a'));
  tt.deepEqual(events[2]?.object as unknown, labelled('b'));
});

test('watch: several events in one chunk', async (tt) => {
  const { kube } = await cluster(tt, (response) => response.end(EVENTS + EVENTS));
  let count = 0;
  await watched(kube, {}, () => (count += 1), never());
  tt.is(count, 6);
});

test('watch: an event comes when it comes, not at the end', async (tt) => {
  const controller = new AbortController();
  const { kube } = await cluster(tt, (response) => response.write(line('ADDED', pod('a'))));
  const watching = watched(kube, {}, () => controller.abort(), controller.signal);
  await refused(tt, watching, 'unreachable');
});

test('watch: too old', async (tt) => {
  const gone = { kind: 'Status', code: 410, reason: 'Expired', message: 'too old resource version: 1 (2)' };
  const { kube } = await cluster(tt, (response) => response.end(line('ERROR', gone)));
  const events: Event[] = [];
  await watched(kube, {}, (event) => events.push(event), never());
  tt.deepEqual(events as unknown, [{ type: 'ERROR', object: gone }]);
});

test('watch: broken off; what came before was told', async (tt) => {
  const { kube, url } = await cluster(tt, (response) => {
    response.write(line('ADDED', pod('a')) + '{"type":"ADD', () => response.socket?.destroy());
  });
  const names: string[] = [];
  const watching = watched(kube, {}, ({ object }) => names.push(object.metadata.name), never());
  const error = await refused(tt, watching, 'unreachable');
  tt.regex(error.message, new RegExp(`^watch ${PODS} at ${url} broke off: .`));
  tt.deepEqual(names, ['a']);
});

test('watch: refused', async (tt) => {
  const { kube } = await cluster(tt, (response) => failure(response, 403, 'Forbidden', 'cannot watch resource "pods"'));
  const error = await refused(
    tt,
    watched(kube, {}, () => tt.fail(), never()),
    'forbidden',
  );
  tt.is(error.message, `GET ${PODS}: 403 cannot watch resource "pods"`);
});

test('watch: no JSON', async (tt) => {
  const { kube } = await cluster(tt, (response) => response.end('<h1>Welcome</h1>\n'));
  await refused(
    tt,
    watched(kube, {}, () => tt.fail(), never()),
    'unreachable',
  );
});

test('watch: what the reader of the events throws is its own, not the network', async (tt) => {
  const { kube } = await cluster(tt, (response) => response.end(EVENTS));
  const broken = (): never => {
    throw new RangeError('a bug');
  };
  await tt.throwsAsync(watched(kube, {}, broken, never()), { instanceOf: RangeError, message: 'a bug' });
});

test('watch: a token that was rotated', async (tt) => {
  const { kube, tokenFile } = await cluster(tt, (response, { headers }) =>
    headers.authorization === 'Bearer rotated'
      ? response.end(line('ADDED', pod('a')))
      : failure(response, 401, 'Unauthorized', 'Unauthorized'),
  );
  await refused(tt, kube.list(PODS, {}), 'unauthorized'); // the old one is known now
  await writeFile(tokenFile, 'rotated');
  let count = 0;
  await watched(kube, {}, () => (count += 1), never());
  tt.is(count, 1);
});
