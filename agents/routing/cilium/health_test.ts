import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import test, { type ExecutionContext } from 'ava';
import { CiliumAPI } from '../../../test/fakes/cilium-api.ts';
import { kubeconfigText, listen, makeCertificate, type Certificate } from '../../../test/fakes/https-server.ts';
import { KubeClient } from '../../lib/kube/client.ts';
import { KubeError } from '../../lib/kube/errors.ts';
import type { Event } from '../../lib/kube/events.ts';
import type { Pod } from '../../lib/kube/objects.ts';
import { createLog } from '../../lib/log.ts';
import { createMetrics, type Metrics } from '../metrics.ts';
import { CiliumApi, CiliumError } from './api.ts';
import { CiliumHealth } from './health.ts';

/** Time passes where a test says so, and only there. */
let nowMs = 10_000_000;
performance.now = () => nowMs;

let folder = '';
let certificate: Certificate;
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-health-'));
  certificate = await makeCertificate(folder, 'test');
});
test.after.always(() => rm(folder, { recursive: true, force: true }));

const FAILURE = 'program tail_ipv4_to_endpoint: load program: operation not supported';
const pod = (name: string, deletionTimestamp?: string): Pod => ({
  metadata: {
    name,
    namespace: 'vpn',
    uid: `uid-${name}`,
    resourceVersion: '1',
    ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
  },
});

class Bench {
  readonly agent: CiliumAPI;
  readonly metrics: Metrics = createMetrics(() => true);
  /** `level msg` of each record, and all of it. */
  readonly said: string[] = [];
  readonly records: Record<string, unknown>[] = [];
  /** What the API server knows of. */
  pods: readonly Pod[] = [pod('vpn-routing-old', '2026-01-31T12:00:00Z'), pod('vpn-routing-x')];
  readonly events: Event[] = [];
  readonly lists: string[] = [];
  /** Status of its answers to a POST. */
  refusal: number | undefined;
  readonly health: CiliumHealth;

  constructor(agent: CiliumAPI, own: string, kube: KubeClient) {
    this.agent = agent;
    for (const id of [4, 17, 900]) agent.add({ id, ipv4: `10.10.0.${id % 200}` });
    const log = createLog('test', {
      write: (line) => {
        const record = JSON.parse(line) as Record<string, unknown>;
        this.records.push(record);
        this.said.push(`${String(record.level)} ${String(record.msg)}`);
      },
    });
    const cilium = new CiliumApi(own);
    this.health = new CiliumHealth({ kube, log, metrics: this.metrics, namespace: 'vpn', node: 'n1', cilium });
  }

  /** Looks now, and lets the time pass until the next look. Answers the seconds until then. */
  async look(): Promise<number> {
    const { afterMs } = await this.health.reconcile();
    nowMs += afterMs;
    return afterMs / 1_000;
  }

  async looks(times: number): Promise<number[]> {
    const found: number[] = [];
    for (let n = 0; n < times; n++) found.push(await this.look());
    return found;
  }

  fail(...ids: number[]): void {
    for (const endpoint of this.agent.endpoints.values())
      endpoint.failure = ids.includes(endpoint.id) ? FAILURE : undefined;
  }

  /** Paths of the agent's that were asked since the last call. */
  asked(): string[] {
    return this.agent.requests.splice(0).map(({ path }) => path);
  }

  /** `failing away`: the metrics' values. */
  async counted(): Promise<string> {
    const values = await Promise.all([this.metrics.ciliumEndpointsFailing.get(), this.metrics.ciliumAgentAway.get()]);
    return values.map((metric) => metric.values.map(({ value }) => value).join('+')).join(' ');
  }

  /** Whether a look finds all well, by its metric. */
  async succeeds(): Promise<boolean> {
    this.metrics.lastSuccess.reset();
    await this.look();
    const { values } = await this.metrics.lastSuccess.get();
    return values.some(({ labels }) => labels.task === 'cilium-health');
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await text(request);
    const reply = (value: object, status = 200): unknown => response.writeHead(status).end(JSON.stringify(value));
    if (request.method === 'GET') {
      this.lists.push(request.url ?? '');
      reply({ metadata: { resourceVersion: '1' }, items: this.pods });
    } else if (this.refusal === undefined) {
      this.events.push(JSON.parse(body) as Event);
      reply({});
    } else reply({ message: 'no' }, this.refusal);
  }
}

let benches = 0;
async function start(tt: ExecutionContext): Promise<Bench> {
  tt.timeout(20_000);
  const own = join(folder, String(benches++));
  await mkdir(own);
  const agent = await CiliumAPI.start(own);
  let bench: Bench | undefined;
  const { url, close } = await listen(certificate, (request, response) => void bench?.answer(request, response));
  const kubeconfig = join(own, 'kubeconfig.json');
  await writeFile(kubeconfig, kubeconfigText(url, join(folder, 'test.crt'), { token: 'hunter2' }));
  const kube = new KubeClient(kubeconfig, 'test');
  tt.teardown(async () => {
    kube.close();
    close();
    await agent.stop();
  });
  bench = new Bench(agent, own, kube);
  return bench;
}

/** Seconds until the next look, after each of those that follow a start of the agent. */
const SOON: readonly number[] = Array.from({ length: 18 }, () => 10);

const BROKEN = 'error Cilium fails to regenerate endpoints of this node: new pods get no network, others may lose it';
const MENDED = 'info Cilium regenerates the endpoints of this node again';
const AWAY = "error Cilium's agent on this node has not answered for two minutes";
const BACK = "info Cilium's agent on this node answers again";

test.serial('all is well: one question a look, a few looks after a start, then one a minute', async (tt) => {
  const bench = await start(tt);
  tt.is(await bench.counted(), '0 0', 'before the first look');
  tt.deepEqual(await bench.looks(20), [...SOON, 60, 60]);
  tt.deepEqual(new Set(bench.asked()), new Set(['/v1/healthz']));
  bench.health.restarted();
  tt.deepEqual(await bench.looks(19), [...SOON, 60]);
  tt.deepEqual(bench.said, []);
  tt.deepEqual(bench.lists, []);
  tt.is(await bench.counted(), '0 0');
  tt.true(await bench.succeeds());
});

test.serial(
  'endpoints fail: a line with the agent’s words and the cure, a metric, an Event of our pod; once',
  async (tt) => {
    const bench = await start(tt);
    await bench.looks(20);
    bench.asked();
    bench.fail(17, 900);
    tt.deepEqual(await bench.looks(2), [10, 10]);
    tt.deepEqual(bench.said, [], 'the agent may still mend it');
    tt.is(await bench.counted(), '0 0');
    tt.is(await bench.look(), 60);
    tt.deepEqual(bench.said, [BROKEN]);
    const [record] = bench.records;
    tt.like(record, { failing: 2, endpoints: 3, endpoint: 17, problem: `Error regenerating endpoint: ${FAILURE}` });
    tt.regex(String(record?.cure), /kubectl apply --server-side .*; kubectl -n kube-system delete pods /);
    tt.is(await bench.counted(), '2 0');
    tt.deepEqual(bench.asked(), ['/v1/healthz', '/v1/healthz', '/v1/healthz', '/v1/endpoint/17/log']);
    tt.is(bench.events.length, 1);
    const [event] = bench.events;
    tt.like(event, {
      type: 'Warning',
      reason: 'CiliumEndpointsFailing',
      reportingComponent: 'constellation-vpn-routing',
    });
    tt.like(event?.involvedObject, { kind: 'Pod', namespace: 'vpn', name: 'vpn-routing-x', uid: 'uid-vpn-routing-x' });
    tt.regex(
      event?.message ?? '',
      /^Cilium fails to regenerate 2 of 3 endpoints of the node n1: .*operation not supp.*kubectl/,
    );
    tt.true((event?.message ?? '').length <= 1_024);

    bench.fail(4, 17, 900);
    tt.deepEqual(await bench.looks(4), [60, 60, 60, 60]);
    tt.deepEqual(bench.said, [BROKEN]);
    tt.is(await bench.counted(), '3 0');
    tt.is(bench.events.length, 1);
    tt.is(bench.lists.length, 1);
    tt.regex(bench.lists[0] ?? '', /\/namespaces\/vpn\/pods\?.*component%3Drouting&fieldSelector=spec\.nodeName%3Dn1/);
  },
);

test.serial('well again: one line, the metric at 0; and another time it is said again', async (tt) => {
  const bench = await start(tt);
  bench.fail(17);
  await bench.looks(19);
  tt.false(await bench.succeeds());
  bench.fail();
  tt.deepEqual(await bench.looks(2), [10, 10]);
  tt.deepEqual(bench.said, [BROKEN]);
  tt.is(await bench.counted(), '1 0', 'not over yet');
  await bench.look();
  tt.deepEqual(bench.said, [BROKEN, MENDED]);
  tt.is(await bench.counted(), '0 0');
  tt.true(await bench.succeeds());
  bench.asked();
  await bench.look();
  tt.deepEqual(bench.asked(), ['/v1/healthz']);
  bench.fail(4);
  await bench.looks(5);
  tt.deepEqual(bench.said, [BROKEN, MENDED, BROKEN]);
  tt.is(bench.events.length, 2);
});

test.serial('one endpoint after the other fails for a moment: nothing is said', async (tt) => {
  const bench = await start(tt);
  for (const id of [4, 17, 900, 4, 17, 900]) {
    bench.fail(id);
    tt.is(await bench.look(), 10);
  }
  tt.deepEqual(bench.said, []);
  tt.is(await bench.counted(), '0 0');
});

test.serial('one has failed for long enough: told with all that fail by then', async (tt) => {
  const bench = await start(tt);
  bench.fail(17);
  await bench.looks(2);
  bench.fail(4, 17, 900);
  await bench.look();
  tt.like(bench.records[0], { failing: 3, endpoints: 3, endpoint: 17 });
  tt.is(await bench.counted(), '3 0');
});

test.serial('the first is well, and others fail, each for a moment: not over', async (tt) => {
  const bench = await start(tt);
  bench.fail(17);
  await bench.looks(4);
  for (const id of [4, 900, 4, 900, 4]) {
    bench.fail(id);
    await bench.look();
  }
  tt.deepEqual(bench.said, [BROKEN]);
  tt.is(await bench.counted(), '1 0');
});

test.serial('the agent starts again, and what failed is not tried yet: not taken for well', async (tt) => {
  const bench = await start(tt);
  const { agent } = bench;
  bench.fail(4, 17, 900);
  await bench.looks(4);
  const endpoints = [...agent.endpoints.values()];
  agent.endpoints.clear(); // it has restored none
  await bench.looks(4);
  for (const endpoint of endpoints) agent.endpoints.set(endpoint.id, Object.assign(endpoint, { regenerating: true }));
  await bench.looks(4);
  for (const endpoint of endpoints) endpoint.regenerating = false;
  await bench.looks(4);
  tt.deepEqual(bench.said, [BROKEN]);
  tt.is(await bench.counted(), '3 0');
  bench.fail();
  await bench.looks(4);
  tt.deepEqual(bench.said, [BROKEN, MENDED]);
});

test.serial('the endpoint that failed is gone, and no other fails: over', async (tt) => {
  const bench = await start(tt);
  bench.fail(900);
  await bench.looks(4);
  bench.agent.endpoints.delete(900);
  await bench.looks(3);
  tt.deepEqual(bench.said, [BROKEN, MENDED]);
});

test.serial('the endpoint’s log can’t be read: said all the same', async (tt) => {
  const bench = await start(tt);
  bench.fail(17);
  bench.agent.fail(403, { path: /\/log$/ });
  await bench.looks(4);
  tt.deepEqual(bench.said, [BROKEN]);
  tt.is(bench.records[0]?.problem, "look into the log of Cilium's agent on this node");
});

test.serial('whether it is well can’t be asked: not taken for well', async (tt) => {
  const bench = await start(tt);
  bench.fail(17);
  await bench.looks(4);
  bench.fail();
  bench.agent.fail(429, { path: /^\/v1\/endpoint\/17\/healthz$/, times: 5 });
  await bench.looks(5);
  tt.deepEqual(bench.said, [BROKEN]);
  await bench.looks(3);
  tt.deepEqual(bench.said, [BROKEN, MENDED]);
});

test.serial('an agent that restarts: not a word', async (tt) => {
  const bench = await start(tt);
  await bench.looks(20);
  await bench.agent.stop();
  bench.health.restarted();
  tt.deepEqual(
    await bench.looks(11),
    Array.from({ length: 11 }, () => 10),
  );
  await bench.agent.start();
  bench.health.restarted();
  await bench.looks(8);
  tt.deepEqual(bench.said, []);
  tt.is(await bench.counted(), '0 0');
});

test.serial('an agent that does not come back: said once, with an Event; and that it is back', async (tt) => {
  const bench = await start(tt);
  await bench.looks(20);
  await bench.agent.stop({ leaveSocket: true });
  await bench.looks(12);
  tt.deepEqual(bench.said, []);
  tt.is(await bench.look(), 60);
  tt.deepEqual(bench.said, [AWAY]);
  tt.regex(String(bench.records[0]?.problem), /nobody listens on the socket$/);
  tt.regex(String(bench.records[0]?.cure), /^look into the log of Cilium's agent on this node; if it began /);
  tt.is(await bench.counted(), '0 1');
  tt.deepEqual(
    bench.events.map(({ reason, involvedObject }) => `${reason} ${involvedObject.name}`),
    ['CiliumAgentAway vpn-routing-x'],
  );
  await bench.looks(3);
  tt.deepEqual(bench.said, [AWAY]);
  tt.is(bench.events.length, 1);
  // It starts, and ends at once, as in a crash loop.
  await bench.agent.start();
  bench.health.restarted();
  await bench.looks(2);
  await bench.agent.stop();
  bench.health.restarted();
  await bench.looks(3);
  tt.deepEqual(bench.said, [AWAY]);
  await bench.agent.start();
  await bench.looks(3);
  tt.deepEqual(bench.said, [AWAY, BACK]);
  tt.true(await bench.succeeds());
  tt.is(await bench.counted(), '0 0');
});

test.serial('the Event is refused: said before, thrown, and tried again', async (tt) => {
  const bench = await start(tt);
  bench.refusal = 403;
  bench.fail(17);
  await bench.looks(2);
  await tt.throwsAsync(bench.look(), { instanceOf: KubeError });
  tt.deepEqual(bench.said, [BROKEN]);
  tt.is(await bench.counted(), '1 0');
  bench.refusal = undefined;
  await bench.look();
  tt.deepEqual(bench.said, [BROKEN]);
  tt.is(bench.events.length, 1);
});

test.serial('in no pod, as from a checkout: no Event', async (tt) => {
  const bench = await start(tt);
  bench.pods = [];
  bench.fail(17);
  await bench.looks(5);
  tt.deepEqual(bench.said, [BROKEN]);
  tt.deepEqual(bench.events, []);
});

test.serial('the agent refuses: thrown', async (tt) => {
  const bench = await start(tt);
  bench.agent.fail(403);
  const error = await tt.throwsAsync(bench.look(), { instanceOf: CiliumError });
  tt.is(error.kind, 'refused');
});
