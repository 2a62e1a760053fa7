import { createServer, type RequestListener } from 'node:http';
import test from 'ava';
import { getJson } from './http-client.ts';
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
