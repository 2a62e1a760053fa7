import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import test from 'ava';
import { UnixHttpError, unixRequest, type UnixAnswer } from './unix-http.ts';

const HOUR = 3_600_000;
const PATH = '/v1/ip?cidr=10.8.0.0%2F16';

let folder = '';
let sockets = 0;
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-unix-'));
});
test.after.always(() => rm(folder, { recursive: true, force: true }));

/** A server that answers like this while `use` runs. */
async function serving<T>(listener: RequestListener, use: (socketPath: string) => Promise<T>): Promise<T> {
  const socketPath = join(folder, `${sockets++}.sock`);
  const server = createServer(listener);
  await once(server.listen(socketPath), 'listening');
  try {
    return await use(socketPath);
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

const get = (socketPath: string, timeoutMs: number = HOUR): Promise<UnixAnswer> =>
  unixRequest({ socketPath, method: 'GET', path: PATH, timeoutMs });

/** `method path content-type content-length body` as the server saw it. */
const sends = test.macro(async (tt, method: 'GET' | 'PATCH', body: object | undefined, expected: string) => {
  const echo: RequestListener = (request, response) => {
    const { 'content-type': type, 'content-length': length } = request.headers;
    void text(request).then((sent) => response.end(`${request.method} ${request.url} ${type} ${length} ${sent}`));
  };
  const sent = { method, path: PATH, timeoutMs: HOUR, ...(body === undefined ? {} : { body }) };
  tt.deepEqual(await serving(echo, (socketPath) => unixRequest({ ...sent, socketPath })), {
    status: 200,
    text: expected,
  });
});
test('nothing but a path', sends, 'GET', undefined, `GET ${PATH} undefined undefined `);
test('a body', sends, 'PATCH', { a: 'ö' }, `PATCH ${PATH} application/json 10 {"a":"ö"}`);
test('an empty body', sends, 'PATCH', {}, `PATCH ${PATH} application/json 2 {}`);

const answers = test.macro(async (tt, listener: RequestListener, expected: UnixAnswer) => {
  tt.deepEqual(await serving(listener, get), expected);
});
test('an answer', answers, (_, response) => response.end('[]\n'), { status: 200, text: '[]\n' });
test('no body', answers, (_, response) => response.writeHead(404).end(), { status: 404, text: '' });
test('an error', answers, (_, response) => response.writeHead(503).end('"api not ready"'), {
  status: 503,
  text: '"api not ready"',
});
test('moved: not followed', answers, (_, response) => response.writeHead(302, { location: '/' }).end(), {
  status: 302,
  text: '',
});
const KOELN = Buffer.from('Köln');
test(
  'in pieces, cut inside of a character',
  answers,
  (_, response) => response.write(KOELN.subarray(0, 2), () => setImmediate(() => response.end(KOELN.subarray(2)))),
  { status: 200, text: 'Köln' },
);
const LIMIT = 32 * 1024 * 1024;
test('the largest answer', async (tt) => {
  const { text } = await serving((_, response) => response.end(Buffer.alloc(LIMIT, ' ')), get);
  tt.is(text.length, LIMIT);
});

type Reason = UnixHttpError['reason'];
const fails = test.macro(
  async (tt, listener: RequestListener, reason: Reason, message: RegExp, timeoutMs: number = HOUR) => {
    const asked = serving(listener, (socketPath) => get(socketPath, timeoutMs));
    const error = await tt.throwsAsync(asked, { instanceOf: UnixHttpError, message });
    tt.is(error.reason, reason);
    tt.true(error.cause instanceof Error);
  },
);
test('no answer', fails, () => undefined, 'timeout', /^no answer within 20 ms$/, 20);
test(
  'an answer that does not end in time',
  fails,
  (_, response) => response.write('[', () => undefined),
  'timeout',
  /^no answer within 200 ms$/,
  200,
);
test('closed without an answer', fails, (request) => request.socket.destroy(), 'broken', /^socket hang up$/);
test(
  'closed in the middle',
  fails,
  (_, response) => response.write('[', () => response.socket?.destroy()),
  'broken',
  /^aborted$/,
);
test('no HTTP', fails, (request) => request.socket.end('SSH-2.0-OpenSSH_9.9\r\n'), 'broken', /^Parse Error/);
test(
  'an answer that is too large',
  fails,
  (_, response) => response.end(Buffer.alloc(LIMIT + 1, ' ')),
  'broken',
  /^more than 33554432 bytes$/,
);

const absent = test.macro(async (tt, make: (path: string) => Promise<void>, message: string) => {
  const socketPath = join(folder, `${sockets++}.sock`);
  await make(socketPath);
  const error = await tt.throwsAsync(get(socketPath), { instanceOf: UnixHttpError, message });
  tt.is(error.reason, 'absent');
});
test('no socket', absent, async () => undefined, 'there is no such socket');
test('a file that nobody listens at', absent, (path) => writeFile(path, ''), 'nobody listens on the socket');
