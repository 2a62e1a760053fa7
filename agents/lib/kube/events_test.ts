import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import test, { type ExecutionContext } from 'ava';
import { kubeconfigText, listen, makeCertificate, type Certificate } from '../../../test/fakes/https-server.ts';
import { KubeClient } from './client.ts';
import { KubeError } from './errors.ts';
import { eventOf, Events, type Event, type Notice } from './events.ts';

const POD = { metadata: { name: 'vpn-frontend-0', namespace: 'vpn', uid: 'uid-of-the-pod', resourceVersion: '5' } };
const NOTICE: Notice = { id: 'kvstore etcd', reason: 'CiliumConfigError', message: 'kvstore must not be "etcd"' };
const FROM = { component: 'constellation-vpn-endpoint-sync', instance: 'vpn-endpoint-sync-7d4b9-x2x8k' };
const NOW = new Date('2026-01-31T12:00:00.789Z');
const nameOf = (pod = POD, notice = NOTICE, from = FROM, now = NOW): string =>
  eventOf(pod, notice, from, now).metadata.name;

test('an Event of a pod', (tt) => {
  const { metadata, ...event } = eventOf(POD, NOTICE, FROM, NOW);
  tt.is(metadata.namespace, 'vpn');
  tt.regex(metadata.name, /^vpn-frontend-0\.[0-9a-f]{16}$/);
  tt.deepEqual(event, {
    apiVersion: 'v1',
    kind: 'Event',
    involvedObject: { apiVersion: 'v1', kind: 'Pod', namespace: 'vpn', name: 'vpn-frontend-0', uid: 'uid-of-the-pod' },
    type: 'Warning',
    reason: 'CiliumConfigError',
    message: 'kvstore must not be "etcd"',
    source: { component: FROM.component },
    reportingComponent: FROM.component,
    reportingInstance: FROM.instance,
    firstTimestamp: '2026-01-31T12:00:00Z',
    lastTimestamp: '2026-01-31T12:00:00Z',
    count: 1,
  });
});

test('the same notice has the same name, whoever reports it and whenever', (tt) => {
  tt.is(nameOf(POD, { ...NOTICE, message: 'other' }, { ...FROM, instance: 'another' }, new Date(0)), nameOf());
});

test('another pod or notice has another name', (tt) => {
  const madeAgain = { metadata: { ...POD.metadata, uid: 'made again' } };
  const names = [nameOf(), nameOf(madeAgain), nameOf(POD, { ...NOTICE, id: 'kvstore consul' })];
  tt.is(new Set(names).size, names.length);
});

/** Time passes where a test says so, and only there. */
let nowMs = 10_000_000;
performance.now = () => nowMs;

let folder = '';
let certificate: Certificate;
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-events-'));
  certificate = await makeCertificate(folder, 'test');
});
test.after.always(() => rm(folder, { recursive: true, force: true }));

interface Bench {
  readonly events: Events;
  /** `method message: status` of each request; the message is the Event's after it. */
  readonly asked: string[];
  /** Status of all answers; undefined: as an API server answers. */
  refusal: number | undefined;
}
let benches = 0;
async function start(tt: ExecutionContext): Promise<Bench> {
  const bench: Omit<Bench, 'events'> = { asked: [], refusal: undefined };
  const there = new Map<string, string>();
  const answer = ({ method, url = '' }: IncomingMessage, sent: Event): number => {
    const path = url.replace(/\?.*$/, '');
    const name = method === 'POST' ? `${path}/${sent.metadata.name}` : path;
    const status = bench.refusal ?? (method === 'POST' && there.has(name) ? 409 : 200);
    if (status === 200) there.set(name, sent.message);
    bench.asked.push(`${method} ${there.get(name)}: ${status}`);
    return status;
  };
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const sent = JSON.parse(await text(request)) as Event;
    response.writeHead(answer(request, sent), { 'content-type': 'application/json' });
    response.end(JSON.stringify({ reason: 'AlreadyExists' }));
  };
  const { url, close } = await listen(certificate, (request, response) => void serve(request, response));
  const kubeconfig = join(folder, `${benches++}.json`);
  await writeFile(kubeconfig, kubeconfigText(url, join(folder, 'test.crt'), { token: 'hunter2' }));
  const kube = new KubeClient(kubeconfig, 'test');
  tt.teardown(() => {
    kube.close();
    close();
  });
  return Object.assign(bench, { events: new Events(kube, 'vpn') });
}
const event = (id: string, message = id): Event => eventOf(POD, { id, reason: 'R', message }, FROM, NOW);

test.serial('written once, and again before Kubernetes forgets it', async (tt) => {
  const { events, asked } = await start(tt);
  await events.keep([event('a'), event('b')]);
  nowMs += 50 * 60_000 - 1;
  await events.keep([event('a'), event('b')]);
  tt.deepEqual(asked.splice(0), ['POST a: 200', 'POST b: 200']);
  nowMs += 1;
  await events.keep([event('b')]);
  await events.keep([event('b')]);
  tt.deepEqual(asked, ['POST b: 409', 'PATCH b: 200']);
});

test.serial('over and there again: written again, with its words of then', async (tt) => {
  const { events, asked } = await start(tt);
  await events.keep([event('a')]);
  await events.keep([]);
  await events.keep([event('a', 'three of them')]);
  tt.deepEqual(asked, ['POST a: 200', 'POST a: 409', 'PATCH three of them: 200']);
});

test.serial('refused: thrown, and tried again the next time', async (tt) => {
  const bench = await start(tt);
  bench.refusal = 403;
  const error = await tt.throwsAsync(bench.events.keep([event('a')]), { instanceOf: KubeError });
  tt.is(error.kind, 'forbidden');
  bench.refusal = undefined;
  await bench.events.keep([event('a')]);
  tt.deepEqual(bench.asked, ['POST undefined: 403', 'POST a: 200']);
});
