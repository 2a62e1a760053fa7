import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import test, { type ExecutionContext } from 'ava';
import { createLog } from '../../lib/log.ts';
import { awaitHost } from './await-host.ts';

const READY = { ready: true, waitingFor: [], withoutRoute: [] };
const waiting = (...waitingFor: string[]): object => ({ ready: false, waitingFor, withoutRoute: [] });

const now = performance.now.bind(performance);
let skippedMs = 0;
performance.now = () => now() + skippedMs;

interface Bench {
  /** Its agent's port is always the same, its address is not. */
  readonly hostIP: string;
  /** What was asked for. */
  readonly asked: string[];
  /** `level msg: problem or reason` of each record. */
  readonly said: string[];
  await(options?: { podIP?: string; timeoutMs?: number; signal?: AbortSignal }): Promise<string | undefined>;
}
/** A node whose agent gives one answer after the other: an object, or a status and a text. The last one stays. */
async function node(tt: ExecutionContext, ...answers: (object | [number, string] | 'silence')[]): Promise<Bench> {
  tt.timeout(20_000);
  const hostIP = `127.${randomInt(1, 255)}.${randomInt(256)}.${randomInt(1, 255)}`;
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const answer = answers[Math.min(asked.push(`${request.method} ${request.url}`), answers.length) - 1];
    const [status, text] = Array.isArray(answer) ? answer : [200, JSON.stringify(answer)];
    if (answer !== 'silence') response.writeHead(status).end(text);
  });
  if (answers.length > 0) await once(server.listen(9810, hostIP), 'listening');
  tt.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  const said: string[] = [];
  const log = createLog('test', {
    write: (line) => {
      const { level, msg, problem, reason } = JSON.parse(line) as Record<string, string>;
      said.push([`${level} ${msg}`, problem ?? reason ?? []].flat().join(': '));
    },
  });
  return {
    hostIP,
    asked,
    said,
    await: ({ podIP = '10.10.0.5', timeoutMs = 3_600_000, signal = new AbortController().signal } = {}) =>
      awaitHost({ hostIP, podIP, log, timeoutMs, signal }),
  };
}

const WAITING = "info waiting for the host's side";
const STANDS = "info the host's side stands";

test('ready', async (tt) => {
  const one = await node(tt, READY);
  tt.is(await one.await(), undefined);
  tt.deepEqual(one.asked, ['GET /frontend?ip=10.10.0.5']);
  tt.deepEqual(one.said, [STANDS]);
});

test('ready, a pod of IPv6', async (tt) => {
  const one = await node(tt, READY);
  await one.await({ podIP: 'fd00:10::5' });
  tt.deepEqual(one.asked, ['GET /frontend?ip=fd00%3A10%3A%3A5']);
});

test('ranges without a route are said and keep nobody waiting', async (tt) => {
  const one = await node(tt, { ...READY, withoutRoute: ['10.8.0.0/16: a', 'fd12::/48: b'] });
  tt.is(await one.await(), undefined);
  tt.deepEqual(one.said, [
    'error no route to this range: 10.8.0.0/16: a',
    'error no route to this range: fd12::/48: b',
    STANDS,
  ]);
});

test('asked again until it is ready, each reason said once', async (tt) => {
  const one = await node(tt, waiting('a', 'b'), waiting('a', 'b'), waiting('c'), READY);
  const startedAt = now();
  tt.is(await one.await(), undefined);
  tt.is(one.asked.length, 4);
  tt.deepEqual(one.said, [`${WAITING}: a; b`, `${WAITING}: c`, STANDS]);
  tt.true(now() - startedAt >= 1_450, 'half a second between two questions');
});

/** Given up after the first answer. */
const gives = test.macro(async (tt: ExecutionContext, answer: object | [number, string], expected: RegExp) => {
  const one = await node(tt, answer);
  tt.regex((await one.await({ timeoutMs: 0 })) ?? '', expected);
  tt.is(one.asked.length, 1);
  tt.deepEqual(one.said, []);
});
test('not ready in time: every reason', gives, waiting('a', 'b'), /^a; b$/);
const silent = (reason: string): RegExp =>
  new RegExp(
    `^the routing agent of this node does not answer \\(GET http://127[.\\d]+:9810/frontend\\?ip=10\\.10\\.0\\.5: ${reason}\\): see the DaemonSet vpn-routing, and whether something keeps pods from port 9810 of their node$`,
  );
test('not found', gives, [404, 'no such path'], silent('status 404'));
test('no JSON', gives, [200, '<html>'], silent('the answer is not JSON'));
const OTHER = 'the routing agent of this node gives an answer of another version';
test(
  'a field is missing',
  gives,
  { ready: true, waitingFor: [] },
  new RegExp(`^${OTHER} \\(withoutRoute is missing\\)$`),
);
test('a field is new', gives, { ...READY, more: 1 }, new RegExp(`^${OTHER} \\(more is not a known field`));
test('ready without a word', gives, {}, new RegExp(`^${OTHER} \\(ready is missing\\)$`));

test('nobody there', async (tt) => {
  const one = await node(tt);
  tt.regex((await one.await({ timeoutMs: 0 })) ?? '', silent(`connect ECONNREFUSED ${one.hostIP}:9810`));
});

test('an agent that hangs is given two seconds', async (tt) => {
  const one = await node(tt, 'silence');
  tt.regex((await one.await({ timeoutMs: 0 })) ?? '', silent('no answer within 2000 ms'));
});

test('stopped while it waits', async (tt) => {
  const one = await node(tt, waiting('a'));
  const controller = new AbortController();
  const end = one.await({ signal: controller.signal });
  while (one.said.length === 0) await new Promise((resolve) => setImmediate(resolve));
  controller.abort();
  tt.is(await end, 'a');
  tt.deepEqual(one.said, [`${WAITING}: a`]);
});

test.serial('the same reason is said again after half a minute', async (tt) => {
  const one = await node(tt, waiting('a'), waiting('a'), READY);
  const end = one.await();
  while (one.said.length === 0) await new Promise((resolve) => setImmediate(resolve));
  skippedMs += 30_000;
  await end;
  tt.deepEqual(one.said, [`${WAITING}: a`, `${WAITING}: a`, STANDS]);
});

test.serial('given up after the time, and not before', async (tt) => {
  skippedMs += 2_000_000;
  const one = await node(tt, waiting('a'));
  const end = one.await({ timeoutMs: 3_600_000 });
  while (one.asked.length < 2) await new Promise((resolve) => setImmediate(resolve));
  skippedMs += 3_600_000;
  tt.is(await end, 'a');
});
