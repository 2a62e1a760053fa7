import { connect } from 'node:net';
import type { Server } from 'node:http';
import { networkInterfaces } from 'node:os';
import { text } from 'node:stream/consumers';
import test from 'ava';
import { Gauge, Registry } from 'prom-client';
import { portOf, serve } from './http.ts';

interface Given {
  readonly registry?: Registry;
  readonly unready?: () => string[];
  readonly routes?: Parameters<typeof serve>[0]['routes'];
}

async function serving(given: Given, use: (url: string, server: Server) => Promise<void>): Promise<void> {
  const { registry = new Registry(), unready = () => [], routes = {} } = given;
  const server = await serve({ port: 0, registry, unready, routes });
  try {
    await use(`http://127.0.0.1:${portOf(server)}`, server);
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

const answers = test.macro(
  async (tt, given: Given, method: string, path: string, status: number, body: string, sent?: string) => {
    await serving(given, async (url) => {
      const response = await fetch(url + path, { method, ...(sent === undefined ? {} : { body: sent }) });
      tt.is(response.status, status);
      tt.is(await response.text(), body);
      tt.is(response.headers.get('content-type'), 'text/plain; charset=utf-8');
    });
  },
);
const broken = (): never => {
  throw new Error('s3cret');
};
const echo = { 'POST /echo': (body: string) => ({ status: 202, text: `${body}!` }) };
const ALL = 'GET /livez, GET /readyz, GET /metrics';

test('alive', answers, {}, 'GET', '/livez', 200, 'ok\n');
test('alive, though not ready', answers, { unready: () => ['no'] }, 'GET', '/livez', 200, 'ok\n');
test('alive, though asking for readiness fails', answers, { unready: broken }, 'GET', '/livez', 200, 'ok\n');
test('alive, asked with a query', answers, {}, 'GET', '/livez?verbose', 200, 'ok\n');
test('ready', answers, {}, 'GET', '/readyz', 200, 'ok\n');
test('not ready: every reason', answers, { unready: () => ['a', 'b'] }, 'GET', '/readyz', 503, 'a\nb\n');
test('a defect tells nothing', answers, { unready: broken }, 'GET', '/readyz', 500, 'internal error\n');
test('a route', answers, { routes: echo }, 'POST', '/echo', 202, 'Köln!', 'Köln');
test('a route without a body', answers, { routes: echo }, 'POST', '/echo', 202, '!');
test('a route’s defect', answers, { routes: { 'POST /x': broken } }, 'POST', '/x', 500, 'internal error\n', 'a');
const query = {
  'GET /query': (_: string, query: URLSearchParams) => ({ status: 200, text: JSON.stringify([...query]) }),
};
test(
  'a route’s query, decoded',
  answers,
  { routes: query },
  'GET',
  '/query?a=fd00%3A%3A1&b=&a=2',
  200,
  '[["a","fd00::1"],["b",""],["a","2"]]',
);
test('a route without a query', answers, { routes: query }, 'GET', '/query', 200, '[]');
test('a question mark inside of a query', answers, { routes: query }, 'GET', '/query?a=b?c', 200, '[["a","b?c"]]');
test('a query that is none', answers, { routes: query }, 'GET', '/query?%', 200, '[["%",""]]');
test('unknown path', answers, {}, 'GET', '/', 404, `no such path; there are ${ALL}\n`);
test('unknown method', answers, { routes: echo }, 'GET', '/echo', 404, `no such path; there are ${ALL}, POST /echo\n`);
test('a path is taken literally', answers, {}, 'GET', '/livez/', 404, `no such path; there are ${ALL}\n`);

test('ready or not is asked each time', async (tt) => {
  const reasons = ['waiting'];
  await serving({ unready: () => reasons }, async (url) => {
    tt.is((await fetch(`${url}/readyz`)).status, 503);
    reasons.pop();
    tt.is((await fetch(`${url}/readyz`)).status, 200);
  });
});

test('metrics', async (tt) => {
  const registry = new Registry();
  new Gauge({ name: 'tunnels', help: 'Tunnels.', registers: [registry] }).set(2);
  await serving({ registry }, async (url) => {
    const response = await fetch(`${url}/metrics`);
    tt.is(response.status, 200);
    tt.is(response.headers.get('content-type'), registry.contentType);
    tt.is(await response.text(), '# HELP tunnels Tunnels.\n# TYPE tunnels gauge\ntunnels 2\n');
  });
});

const LIMIT = 64 * 1024;
const size = test.macro(async (tt, bytes: number, taken: boolean) => {
  const bodies: string[] = [];
  const routes = { 'POST /x': (body: string) => (bodies.push(body), { status: 200, text: '' }) };
  await serving({ routes }, async (url) => {
    const asked = fetch(`${url}/x`, { method: 'POST', body: 'x'.repeat(bytes) });
    if (taken) tt.is((await asked).status, 200);
    else await tt.throwsAsync(asked);
    tt.deepEqual(
      bodies.map(({ length }) => length),
      taken ? [bytes] : [],
    );
    tt.is((await fetch(`${url}/livez`)).status, 200);
  });
});
test('the largest body', size, LIMIT, true);
test('a body that is too large', size, LIMIT + 1, false);
test('a body that is much too large', size, 100 * LIMIT, false);

test('a client that leaves in the middle of its request', async (tt) => {
  const bodies: string[] = [];
  const routes = { 'POST /x': (body: string) => (bodies.push(body), { status: 200, text: '' }) };
  await serving({ routes }, async (url, server) => {
    const asked = new Promise((resolve) => server.once('request', resolve));
    const socket = connect(portOf(server), '127.0.0.1');
    socket.write('POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc');
    await asked;
    socket.destroy();
    tt.is((await fetch(`${url}/livez`)).status, 200);
    tt.deepEqual(bodies, []);
  });
});

test('no HTTP', async (tt) => {
  await serving({}, async (url, server) => {
    const socket = connect(portOf(server), '127.0.0.1');
    socket.end('SSH-2.0-OpenSSH_9.9\r\n\r\n');
    tt.regex(await text(socket), /^HTTP\/1\.1 400 /);
    tt.is((await fetch(`${url}/livez`)).status, 200);
  });
});

// Left out as long as an agent dies of it: `new URL('http://agent*[')` throws, and nobody catches it.
test('a target that is no path', async (tt) => {
  await serving({}, async (url, server) => {
    for (const target of ['*[', '*:99999', '*%zz']) {
      const socket = connect(portOf(server), '127.0.0.1');
      socket.end(`GET ${target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n`);
      tt.regex(await text(socket), /^HTTP\/1\.1 40[04] /);
    }
    tt.is((await fetch(`${url}/livez`)).status, 200);
  });
});

test('on every address of the host, of both families', async (tt) => {
  const loopback = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal }) => internal);
  tt.true(loopback.length > 0);
  await serving({}, async (_, server) => {
    for (const { address, family } of loopback) {
      const host = family === 'IPv6' ? `[${address}]` : address;
      tt.is((await fetch(`http://${host}:${portOf(server)}/livez`)).status, 200);
    }
  });
});

test('a port that is taken', async (tt) => {
  await serving({}, async (_, server) => {
    const another = serve({ port: portOf(server), registry: new Registry(), unready: () => [] });
    await tt.throwsAsync(another, { code: 'EADDRINUSE' });
  });
});
