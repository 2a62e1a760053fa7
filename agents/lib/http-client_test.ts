import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import test from 'ava';
import { getJson, postJson, urlOf } from './http-client.ts';
import { portOf } from './http.ts';

const HOUR = 3_600_000;

/** A server that answers like this while `use` runs. */
async function serving<T>(listener: RequestListener, use: (url: string) => Promise<T>): Promise<T> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  try {
    return await use(`http://127.0.0.1:${portOf(server)}/lost-ranges`);
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

test('an answer', async (tt) => {
  const got = await serving(
    (_, response) => response.end('{"lost":[]}'),
    (url) => getJson(url, HOUR),
  );
  tt.deepEqual(got, { lost: [] });
});

test('an answer in pieces, cut inside of a character', async (tt) => {
  const answer = Buffer.from('{"a":"Köln"}');
  const cut = answer.indexOf('ö') + 1;
  const got = await serving(
    (_, response) => {
      response.write(answer.subarray(0, cut), () => setImmediate(() => response.end(answer.subarray(cut))));
    },
    (url) => getJson(url, HOUR),
  );
  tt.deepEqual(got, { a: 'Köln' });
});

/** Every failure is one sentence that begins with what was asked. */
const fails = test.macro(async (tt, listener: RequestListener, reason: RegExp, timeoutMs: number = HOUR) => {
  await serving(listener, async (url) => {
    const error = await tt.throwsAsync(getJson(url, timeoutMs));
    tt.true(error.message.startsWith(`GET ${url}: `), error.message);
    tt.regex(error.message.slice(`GET ${url}: `.length), reason);
  });
});
test('not found', fails, (_, response) => response.writeHead(404).end('{}'), /^status 404$/);
test('moved: not followed', fails, (_, response) => response.writeHead(302, { location: '/' }).end(), /^status 302$/);
test('an error of the server', fails, (_, response) => response.writeHead(500).end('{}'), /^status 500$/);
test('nothing', fails, (_, response) => response.end(), /^the answer is not JSON$/);
test('no JSON', fails, (_, response) => response.end('<html>'), /^the answer is not JSON$/);
test('closed without an answer', fails, (request) => request.socket.destroy(), /^socket hang up$/);
test(
  'closed in the middle',
  fails,
  (_, response) => response.write('{"lost":', () => response.socket?.destroy()),
  /^aborted$/,
);
test('no HTTP', fails, (request) => request.socket.end('SSH-2.0-OpenSSH_9.9\r\n'), /^Parse Error/);
test('no answer', fails, () => undefined, /^no answer within 20 ms$/, 20);
test(
  'an answer that does not end in time',
  fails,
  (_, response) => response.write('{"lost":'),
  /^no answer within 200 ms$/,
  200,
);
test('an answer that does not end at all', fails, (_, response) => endless(response), /^more than 4194304 bytes$/);

function endless(response: Parameters<RequestListener>[1]): void {
  const more = (): void => {
    while (!response.destroyed && response.write(Buffer.alloc(1 << 20, ' ')));
  };
  response.on('drain', more);
  more();
}

test('nobody there', async (tt) => {
  const url = await serving(
    () => undefined,
    (url) => Promise.resolve(url),
  );
  const error = await tt.throwsAsync(getJson(url, HOUR));
  tt.regex(error.message, /^GET http:\/\/127\.0\.0\.1:\d+\/lost-ranges: connect ECONNREFUSED /);
});

test('a hint is sent as JSON, and nothing is read of the answer', async (tt) => {
  const seen: string[] = [];
  const take = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    seen.push(`${request.method} ${request.url} ${await text(request)}`);
    response.writeHead(202).end('thank you');
  };
  const listener: RequestListener = (request, response) => void take(request, response);
  tt.is(await serving(listener, (url) => postJson(url, { node: 'Köln' }, HOUR)), undefined);
  tt.deepEqual(seen, ['POST /lost-ranges {"node":"Köln"}']);
});

const posts = test.macro(async (tt, status: number, taken: boolean) => {
  const listener: RequestListener = (_, response) => response.writeHead(status).end();
  await serving(listener, async (url) => {
    const sent = postJson(url, {}, HOUR);
    if (taken) await tt.notThrowsAsync(sent);
    else await tt.throwsAsync(sent, { message: `POST ${url}: status ${status}` });
  });
});
test('sent: 200', posts, 200, true);
test('sent: nothing to say', posts, 204, true);
test('sent: moved, not followed', posts, 300, false);
test('sent: not understood', posts, 400, false);
test('sent: an error of the server', posts, 503, false);

test('sent, and no answer', async (tt) => {
  await serving(
    () => undefined,
    async (url) => tt.throwsAsync(postJson(url, {}, 20), { message: `POST ${url}: no answer within 20 ms` }),
  );
});

test('only 200 is an answer to a question', async (tt) => {
  const created: RequestListener = (_, response) => response.writeHead(201).end('{}');
  await serving(created, async (url) => tt.throwsAsync(getJson(url, HOUR), { message: `GET ${url}: status 201` }));
});

const urls = test.macro((tt, host: string, url: string) => {
  tt.is(urlOf(host, 9810, '/frontend?ip=a'), url);
});
test('URL: IPv4', urls, '192.0.2.1', 'http://192.0.2.1:9810/frontend?ip=a');
test('URL: IPv6', urls, '2001:db8::1', 'http://[2001:db8::1]:9810/frontend?ip=a');
test('URL: a name', urls, 'node-1.example', 'http://node-1.example:9810/frontend?ip=a');
