import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Cidr } from '../../../functions/model/cidr.ts';
import { CiliumAPI } from '../../../test/fakes/cilium-api.ts';
import { CiliumApi, CiliumError, SOCKET } from './api.ts';

const V4 = '10.10.0.5';
const V6 = 'fd00:10::5';

async function scratch(tt: ExecutionContext): Promise<string> {
  tt.timeout(10_000);
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-cilium-'));
  tt.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

interface Bench {
  readonly agent: CiliumAPI;
  readonly api: CiliumApi;
  readonly folder: string;
  /** `method path body: status` of each request. */
  readonly requests: () => string[];
}
/** An agent that knows one endpoint. */
async function bench(tt: ExecutionContext): Promise<Bench> {
  const folder = await scratch(tt);
  const agent = await CiliumAPI.start(folder);
  tt.teardown(() => agent.stop());
  agent.patchMs = 0;
  agent.add({ id: 17, ipv4: V4, ipv6: V6 });
  const requests = (): string[] =>
    agent.requests.map(({ method, path, body, status }) => `${method} ${path} ${JSON.stringify(body)}: ${status}`);
  return { agent, api: new CiliumApi(folder), folder, requests };
}

/** The answers of an agent that says this, whatever it is asked. */
async function answering(tt: ExecutionContext, listener: RequestListener): Promise<CiliumApi> {
  const folder = await scratch(tt);
  const server = createServer(listener);
  await once(server.listen(join(folder, SOCKET)), 'listening');
  tt.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  return new CiliumApi(folder);
}

test('on, turned off, and off', async (tt) => {
  const { api, requests } = await bench(tt);
  tt.true(await api.sourceCheck(V4));
  tt.true(await api.turnSourceCheckOff(V4));
  tt.false(await api.sourceCheck(V4));
  const path = '/v1/endpoint/ipv4:10.10.0.5/config';
  tt.deepEqual(requests(), [
    `GET ${path} undefined: 200`,
    `PATCH ${path} {"options":{"SourceIPVerification":"Disabled"}}: 200`,
    `GET ${path} undefined: 200`,
  ]);
});

test('by an IPv6 address', async (tt) => {
  const { api, requests } = await bench(tt);
  tt.true(await api.sourceCheck(V6));
  tt.deepEqual(requests(), ['GET /v1/endpoint/ipv6:fd00:10::5/config undefined: 200']);
});

test('no such endpoint', async (tt) => {
  const { api } = await bench(tt);
  tt.is(await api.sourceCheck('10.10.9.9'), undefined);
  tt.false(await api.turnSourceCheckOff('10.10.9.9'));
  tt.false(await api.setByAnnotation('10.10.9.9'));
});

const checked = test.macro(async (tt, answer: unknown, expected: boolean) => {
  const api = await answering(tt, (_, response) => response.end(JSON.stringify(answer)));
  tt.is(await api.sourceCheck(V4), expected);
});
test('an agent without the option checks nothing', checked, { realized: { options: { Debug: 'Enabled' } } }, false);
test('an agent without options', checked, { realized: {} }, false);
test('an agent without anything realized', checked, {}, false);

const annotated = test.macro(async (tt, status: number, body: string, expected: boolean) => {
  const paths: unknown[] = [];
  const api = await answering(tt, ({ method, url }, response) => {
    paths.push(`${method} ${url}`);
    response.writeHead(status).end(body);
  });
  tt.is(await api.setByAnnotation(V4), expected);
  tt.deepEqual(paths, ['GET /v1/endpoint/ipv4:10.10.0.5/log']);
});
const logged = (message: string): string => JSON.stringify([{ code: 'OK', state: 'ready', message }]);
test('set by annotation', annotated, 200, logged('Applied Source IP verification annotation: Enabled'), true);
test('never set by annotation', annotated, 200, logged('Successfully regenerated endpoint program'), false);
test('a log without entries', annotated, 200, '[]', false);
test(
  'an agent without such a log',
  annotated,
  404,
  'path /log: source IP verification annotation was not found',
  false,
);

test('entries of a range and of what is inside', async (tt) => {
  const { agent, api, requests } = await bench(tt);
  const steered = { hostIP: '192.0.2.10', identity: 40_000, metadata: { source: 'custom-resource' } };
  for (const prefix of ['10.8.0.0/16', '10.8.1.0/24', '10.0.0.0/8', 'fd12::/48']) agent.ipcache.set(prefix, steered);
  tt.deepEqual(await api.entries('10.8.0.0/16' as Cidr), [
    { cidr: '10.8.0.0/16', ...steered },
    { cidr: '10.8.1.0/24', ...steered },
  ]);
  tt.deepEqual(
    (await api.entries('fd12::/48' as Cidr)).map(({ cidr }) => cidr),
    ['fd12::/48'],
  );
  tt.is((await api.entries()).length, 4);
  tt.deepEqual(await api.entries('10.9.0.0/16' as Cidr), []);
  tt.deepEqual(requests(), [
    'GET /v1/ip?cidr=10.8.0.0/16 undefined: 200',
    'GET /v1/ip?cidr=fd12::/48 undefined: 200',
    'GET /v1/ip undefined: 200',
    'GET /v1/ip?cidr=10.9.0.0/16 undefined: 404',
  ]);
});

const FAILURE = 'program tail_ipv4_to_endpoint: load program: operation not supported';
test('controllers, health and log of endpoints', async (tt) => {
  const { agent, api, requests } = await bench(tt);
  agent.add({ id: 4, ipv4: '10.10.0.6' }).failure = FAILURE;
  const found = await api.controllers();
  const failures = new Map(found.map(({ name, status }) => [name, status?.['consecutive-failure-count'] ?? 0]));
  tt.is(failures.get('endpoint-17-regeneration-recovery'), 0);
  tt.true((failures.get('endpoint-4-regeneration-recovery') ?? 0) > 0);
  tt.is(await api.endpointHealth(17), 'OK');
  tt.is(await api.endpointHealth(4), 'Warning');
  tt.deepEqual(await api.endpointLog(17), []);
  const [newest] = await api.endpointLog(4);
  tt.like(newest, { code: 'Failure', message: `Error regenerating endpoint: ${FAILURE}` });
  tt.is(await api.endpointHealth(5), undefined);
  tt.deepEqual(await api.endpointLog(5), []);
  tt.deepEqual(requests(), [
    'GET /v1/healthz undefined: 200',
    'GET /v1/endpoint/17/healthz undefined: 200',
    'GET /v1/endpoint/4/healthz undefined: 200',
    'GET /v1/endpoint/17/log undefined: 200',
    'GET /v1/endpoint/4/log undefined: 200',
    'GET /v1/endpoint/5/healthz undefined: 404',
    'GET /v1/endpoint/5/log undefined: 404',
  ]);
});

test('an agent that has no list of its controllers yet', async (tt) => {
  const api = await answering(tt, (_, response) => response.end('{"cilium":{"state":"Warning"}}'));
  tt.deepEqual(await api.controllers(), []);
});

type Kind = CiliumError['kind'];
const fails = test.macro(async (tt, status: number, kind: Kind) => {
  const { agent, api, folder } = await bench(tt);
  agent.fail(status, { times: 8 });
  const path = '/v1/endpoint/ipv4:10.10.0.5';
  const said = `at ${folder}/cilium.sock: status ${status} "failed with ${status} as the test wants it"`;
  const asked: [string, () => Promise<unknown>][] = [
    [`GET ${path}/config`, () => api.sourceCheck(V4)],
    [`PATCH ${path}/config`, () => api.turnSourceCheckOff(V4)],
    [`GET ${path}/log`, () => api.setByAnnotation(V4)],
    ['GET /v1/healthz', () => api.controllers()],
    ['GET /v1/endpoint/17/healthz', () => api.endpointHealth(17)],
    ['GET /v1/endpoint/17/log', () => api.endpointLog(17)],
    ['GET /v1/ip', () => api.entries()],
    ['GET /v1/ip?cidr=fd12%3A%3A%2F48', () => api.entries('fd12::/48' as Cidr)],
  ];
  for (const [what, ask] of asked) {
    const error = await tt.throwsAsync(ask(), { instanceOf: CiliumError, message: `${what} ${said}` });
    tt.is(error.kind, kind);
  }
});
test('moved', fails, 300, 'refused');
test('not understood', fails, 400, 'refused');
test('forbidden', fails, 403, 'refused');
test('busy', fails, 429, 'away');
test('an error', fails, 500, 'refused');
test('not up yet', fails, 503, 'away');

test('a long error is cut', async (tt) => {
  const api = await answering(tt, (_, response) => response.writeHead(500).end(`\n${'x'.repeat(1_000)}\n`));
  const { message } = await tt.throwsAsync(api.entries(), { instanceOf: CiliumError });
  tt.regex(message, /: status 500 x{200}$/);
});

test('no JSON', async (tt) => {
  const api = await answering(tt, (_, response) => response.end('<html>'));
  for (const ask of [api.sourceCheck(V4), api.controllers(), api.entries()]) {
    const error = await tt.throwsAsync(ask, { instanceOf: CiliumError });
    tt.is(error.message, "the answer of Cilium's agent is not JSON");
    tt.is(error.kind, 'refused');
  }
});

const away = test.macro(async (tt, end: (agent: CiliumAPI) => Promise<unknown>, reason: string) => {
  const { agent, api, folder } = await bench(tt);
  await end(agent);
  const error = await tt.throwsAsync(api.entries(), { instanceOf: CiliumError });
  tt.is(error.message, `GET /v1/ip at ${folder}/cilium.sock: ${reason}`);
  tt.is(error.kind, 'away');
});
test('stopped', away, (agent) => agent.stop(), 'there is no such socket');
test('killed', away, (agent) => agent.stop({ leaveSocket: true }), 'nobody listens on the socket');
test(
  'killed while it is asked',
  away,
  async (agent) => {
    agent.hang = true;
    void stopOnceAsked(agent);
  },
  'socket hang up',
);
async function stopOnceAsked(agent: CiliumAPI): Promise<void> {
  while (agent.requests.length === 0) await new Promise((resolve) => setImmediate(resolve));
  await agent.stop();
}

test.serial('hangs: given up after 20 s', async (tt) => {
  const { agent, api, folder } = await bench(tt);
  agent.hang = true;
  const real = AbortSignal.timeout.bind(AbortSignal);
  const limits: number[] = [];
  AbortSignal.timeout = (ms) => {
    limits.push(ms);
    return real(20);
  };
  const asked = api.entries().finally(() => {
    AbortSignal.timeout = real;
  });
  const error = await tt.throwsAsync(asked, { instanceOf: CiliumError });
  tt.is(error.message, `GET /v1/ip at ${folder}/cilium.sock: no answer within 20000 ms`);
  tt.is(error.kind, 'away');
  tt.deepEqual(limits, [20_000]);
});
