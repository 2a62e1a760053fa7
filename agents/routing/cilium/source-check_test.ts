import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { CiliumAPI, type Endpoint } from '../../../test/fakes/cilium-api.ts';
import { createLog } from '../../lib/log.ts';
import type { Frontend } from '../frontends.ts';
import { createMetrics, type Metrics } from '../metrics.ts';
import { CiliumApi, CiliumError } from './api.ts';
import { SourceCheck } from './source-check.ts';

const POD = 'vpn-frontend-0';
const IP = '10.10.0.5';

/** Time passes where a test says so, and only there; the clock is the same for every test of the file. */
let nowMs = 10_000_000;
performance.now = () => nowMs;
const pass = (ms: number): void => {
  nowMs += ms;
};

const AS_ASKED: Frontend = { pod: POD, uid: 'u', site: '', addresses: {}, hosts: [], ends: false };

class Bench {
  readonly agent: CiliumAPI;
  readonly endpoint: Endpoint;
  readonly check: SourceCheck;
  readonly metrics: Metrics;
  /** `level msg: problem` of each record. */
  readonly said: string[] = [];
  /** Over once the agent has been killed, where a test does that meanwhile. */
  killed: Promise<void> | undefined;
  frontend: Frontend | undefined = {
    pod: POD,
    uid: 'u',
    site: '',
    addresses: { 4: IP, 6: 'fd00:10::5' },
    hosts: [],
    ends: false,
  };

  private constructor(agent: CiliumAPI, folder: string) {
    this.agent = agent;
    agent.patchMs = 0;
    agent.resetMs = 0;
    this.endpoint = agent.add({ id: 17, ipv4: IP, ipv6: 'fd00:10::5' });
    this.metrics = createMetrics(() => true);
    const log = createLog('test', {
      write: (line) => {
        const { level, msg, problem = '' } = JSON.parse(line) as Record<string, string>;
        this.said.push(`${level} ${msg}${problem && `: ${problem}`}`);
      },
    });
    const frontend = (pod: string): Frontend | undefined => (pod === POD ? this.frontend : undefined);
    this.check = new SourceCheck({ log, metrics: this.metrics, cilium: new CiliumApi(folder), frontend });
  }

  static async start(tt: ExecutionContext): Promise<Bench> {
    tt.timeout(20_000);
    const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-source-'));
    const agent = await CiliumAPI.start(folder);
    tt.teardown(async () => {
      await agent.stop();
      await rm(folder, { recursive: true, force: true });
    });
    return new Bench(agent, folder);
  }

  /** When it is to be looked at again. */
  async look(): Promise<number | undefined> {
    return ((await this.check.reconcile(POD)) ?? undefined)?.afterMs;
  }

  /** A look that fails. */
  async fails(tt: ExecutionContext, message: RegExp, kind: CiliumError['kind'] = 'away'): Promise<void> {
    const error = await tt.throwsAsync(this.check.reconcile(POD), { instanceOf: CiliumError, message });
    tt.is(error.kind, kind);
  }

  /** What was asked since it was last looked at, without the endpoint. */
  asked(): string {
    const requests = this.agent.requests.splice(0);
    return requests.map(({ method, path }) => `${method} ${path.replace(/^.*\//, '')}`).join(', ');
  }

  get problem(): string | undefined {
    return this.check.problemOf(AS_ASKED);
  }

  /** Somebody turns it on, without an annotation. */
  turnOn(): void {
    this.endpoint.options.SourceIPVerification = 'Enabled';
  }

  /** `pod=off repairs`: the metrics' values. */
  async counted(): Promise<string> {
    const { values: off } = await this.metrics.sourceCheckOff.get();
    const { values: repairs } = await this.metrics.repairs.get();
    const found = off.map(({ labels, value }) => `${labels.pod}=${value}`).join(' ');
    return `${found} ${repairs.map(({ labels, value }) => `${labels.kind}=${value}`).join(' ')}`;
  }

  /** Seconds since 1970; 0: never. */
  async succeededAt(): Promise<number> {
    const { values } = await this.metrics.lastSuccess.get();
    return values.find(({ labels }) => labels.task === 'source-check')?.value ?? 0;
  }
}

const OFF = "info Cilium's source check turned off";
const ON = "Cilium's source check is on and being turned off";

test.serial('not looked at yet', async (tt) => {
  const { check, agent } = await Bench.start(tt);
  tt.is(check.problemOf(AS_ASKED), "Cilium's source check has not been looked at yet");
  tt.deepEqual(agent.requests, []);
});

test.serial('off: one question, and again after pauses that grow and end', async (tt) => {
  const bench = await Bench.start(tt);
  bench.endpoint.options.SourceIPVerification = 'Disabled';
  for (const afterMs of [1_000, 2_000, 4_000, 8_000, 15_000, undefined, undefined]) {
    tt.is(await bench.look(), afterMs);
    tt.is(bench.asked(), 'GET config');
    tt.is(bench.problem, undefined);
  }
  tt.is(await bench.counted(), `${POD}=1 `);
  tt.deepEqual(bench.said, []);
});

test.serial('on: turned off once', async (tt) => {
  const bench = await Bench.start(tt);
  tt.is(await bench.look(), 1_000);
  tt.is(bench.asked(), 'GET config, PATCH config');
  tt.is(bench.endpoint.options.SourceIPVerification, 'Disabled');
  tt.is(bench.problem, undefined);
  tt.is(await bench.look(), 2_000);
  tt.is(bench.asked(), 'GET config');
  tt.is(await bench.counted(), `${POD}=1 source-check=1`);
  tt.true((await bench.succeededAt()) > 0);
  tt.deepEqual(bench.said, [OFF]);
});

test.serial('a pod without IPv4', async (tt) => {
  const bench = await Bench.start(tt);
  bench.frontend = { pod: POD, uid: 'u', site: '', addresses: { 6: 'fd00:10::5' }, hosts: [], ends: false };
  await bench.look();
  tt.is(bench.agent.count('PATCH', /^\/v1\/endpoint\/ipv6:fd00:10::5\/config$/), 1);
});

const forgotten = test.macro(async (tt: ExecutionContext, frontend: Frontend | undefined) => {
  const bench = await Bench.start(tt);
  await bench.look();
  bench.asked();
  bench.frontend = frontend;
  tt.is(await bench.look(), undefined);
  tt.is(bench.asked(), '');
  tt.is(bench.problem, "Cilium's source check has not been looked at yet");
  tt.is(await bench.counted(), ' source-check=1');
});
test.serial('no frontend any more: forgotten', forgotten, undefined);
test.serial('no address any more: forgotten', forgotten, {
  pod: POD,
  uid: 'u',
  site: '',
  addresses: {},
  hosts: [],
  ends: false,
});

test.serial('it ends, and Cilium forgets its endpoint before the Pod goes: no failure', async (tt) => {
  const bench = await Bench.start(tt);
  await bench.look();
  bench.frontend = { ...AS_ASKED, addresses: { 4: IP }, hosts: [], ends: true };
  bench.agent.endpoints.delete(17);
  tt.is(await bench.look(), 2_000); // Cilium's agent may only be restarting
  tt.is(await bench.counted(), `${POD}=1 source-check=1`);
  tt.deepEqual(bench.said, [OFF]);
});

// The agent says no

const UNKNOWN = /^Cilium's agent knows no endpoint with the address 10\.10\.0\.5 \(pod vpn-frontend-0\) yet$/;
const failing = test.macro(
  async (
    tt: ExecutionContext,
    fail: (bench: Bench) => unknown,
    message: RegExp,
    asked: string,
    kind?: CiliumError['kind'],
  ) => {
    const bench = await Bench.start(tt);
    await fail(bench);
    await bench.fails(tt, message, kind);
    tt.is(bench.asked(), asked);
    tt.regex(bench.problem ?? '', message);
    tt.is(await bench.counted(), `${POD}=0 `);
    tt.deepEqual(bench.said, []);
    await bench.killed;
    await bench.agent.start();
    bench.agent.add({ id: 18, ipv4: IP });
    tt.is(await bench.look(), 1_000);
    tt.is(bench.problem, undefined);
    tt.deepEqual(bench.said, [OFF]);
  },
);
test.serial('no endpoint yet', failing, ({ agent }) => agent.endpoints.clear(), UNKNOWN, 'GET config');
test.serial(
  'the endpoint goes before it is turned off',
  failing,
  ({ agent }) => agent.fail(404, { method: 'PATCH' }),
  UNKNOWN,
  'GET config, PATCH config',
);
test.serial('busy', failing, ({ agent }) => agent.fail(429), /^GET .*: status 429 /, 'GET config');
test.serial(
  'busy when it is to be turned off',
  failing,
  ({ agent }) => agent.fail(429, { method: 'PATCH' }),
  /^PATCH .*: status 429 /,
  'GET config, PATCH config',
);
test.serial('not up yet', failing, ({ agent }) => agent.fail(503), /^GET .*: status 503 /, 'GET config');
test.serial(
  'forbidden',
  failing,
  ({ agent }) => agent.fail(403, { method: 'PATCH' }),
  /^PATCH .*: status 403 /,
  'GET config, PATCH config',
  'refused',
);
test.serial('no socket', failing, ({ agent }) => agent.stop(), /: there is no such socket$/, '');
test.serial('killed', failing, ({ agent }) => agent.stop({ leaveSocket: true }), /: nobody listens on the socket$/, '');
test.serial(
  'hangs until it is killed',
  failing,
  (bench) => {
    bench.agent.hang = true;
    bench.killed = killOnceAsked(bench.agent);
  },
  /: socket hang up$/,
  'GET config',
);
async function killOnceAsked(agent: CiliumAPI): Promise<void> {
  while (agent.requests.length === 0) await new Promise((resolve) => setImmediate(resolve));
  await agent.stop();
  agent.hang = false;
}

test.serial(
  'found off, and then the agent is away: off it stays, the datapath goes on without the agent',
  async (tt) => {
    const bench = await Bench.start(tt);
    await bench.look();
    await bench.agent.stop();
    await bench.fails(tt, /no such socket/);
    tt.is(bench.problem, undefined);
    tt.is(await bench.counted(), `${POD}=1 source-check=1`);
  },
);

// Somebody turns it on again

test.serial('on again: turned off at once, then after pauses that double up to ten minutes', async (tt) => {
  const bench = await Bench.start(tt);
  const looks = [await bench.look()];
  bench.asked();
  for (const seconds of [0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]) {
    bench.turnOn();
    if (seconds > 0) {
      tt.is(await bench.look(), seconds * 1_000);
      tt.is(bench.asked(), 'GET config, GET log');
      tt.is(bench.problem, ON);
      tt.regex(await bench.counted(), /^vpn-frontend-0=0 /);
      pass(seconds * 1_000 - 1);
      tt.is(await bench.look(), 1);
      tt.is(bench.asked(), 'GET config, GET log');
      pass(1);
    }
    looks.push(await bench.look());
    tt.is(bench.asked(), 'GET config, GET log, PATCH config');
    tt.is(bench.problem, undefined);
  }
  tt.deepEqual(looks.slice(0, 6), [1_000, 2_000, 4_000, 8_000, 15_000, undefined]);
  tt.is(await bench.counted(), `${POD}=1 source-check=13`);
  const again =
    "warn somebody turns Cilium's source check on again and again, it is turned off after longer and longer pauses";
  tt.deepEqual(bench.said.slice(0, 5), [OFF, OFF, OFF, again, OFF]);
  tt.is(bench.said.filter((line) => line === again).length, 1);
});

test.serial('on again after a quiet hour: as if for the first time', async (tt) => {
  const bench = await Bench.start(tt);
  for (let n = 0; n < 3; n++) {
    bench.turnOn();
    pass(600_000);
    await bench.look();
  }
  for (const [ms, asked] of [
    [3_600_000, 'GET config, GET log, PATCH config'],
    [3_600_001, 'GET config, PATCH config'],
  ] as const) {
    bench.turnOn();
    pass(ms);
    bench.asked();
    await bench.look();
    tt.is(bench.asked(), asked);
  }
});

test.serial('another pod of that name starts anew', async (tt) => {
  const bench = await Bench.start(tt);
  const another = { ...AS_ASKED, uid: 'u2' };
  await bench.look();
  tt.is(bench.check.problemOf(another), "Cilium's source check has not been looked at yet");
  bench.frontend = { ...another, addresses: { 4: IP } };
  bench.turnOn();
  bench.asked();
  tt.is(await bench.look(), 1_000);
  tt.is(bench.asked(), 'GET config, PATCH config');
  tt.is(bench.check.problemOf(another), undefined);
});

test.serial('the end of Cilium’s agent ends the pauses, and the looks begin anew', async (tt) => {
  const bench = await Bench.start(tt);
  for (let n = 0; n < 3; n++) {
    bench.turnOn();
    pass(600_000);
    await bench.look();
  }
  await bench.agent.restart({ downMs: 0, restoreMs: 0 });
  bench.check.restarted();
  tt.is(bench.problem, undefined);
  bench.asked();
  tt.is(await bench.look(), 1_000);
  tt.is(bench.asked(), 'GET config, PATCH config');
  tt.is(bench.endpoint.options.SourceIPVerification, 'Disabled');
  tt.is(await bench.look(), 2_000);
});

test.serial('Cilium’s agent starts: away, without its endpoints, then turned off', async (tt) => {
  const bench = await Bench.start(tt);
  const { agent, endpoint } = bench;
  await bench.look();
  await agent.stop();
  bench.check.restarted();
  await bench.fails(tt, /there is no such socket$/);
  agent.endpoints.clear();
  await agent.start();
  bench.check.restarted();
  await bench.fails(tt, UNKNOWN);
  tt.is(bench.problem, undefined);
  bench.turnOn();
  agent.endpoints.set(endpoint.id, endpoint);
  tt.is(await bench.look(), 1_000);
  tt.is(endpoint.options.SourceIPVerification, 'Disabled');
  tt.is(await bench.counted(), `${POD}=1 source-check=2`);
});

// Set by annotation

const ADVICE =
  'Cilium sets the source check by annotation: annotate the namespace with config.cilium.io/delegate-source-ip-verification="true" (kubectl annotate namespace), an administrator has to decide that; the pod has its annotation already';
const STAYS_ON = `error Cilium's source check stays on, all VPN traffic of this pod is lost: ${ADVICE}`;

async function resetByAnnotation(tt: ExecutionContext): Promise<Bench> {
  const bench = await Bench.start(tt);
  bench.agent.resetByAnnotation = true;
  tt.is(await bench.look(), 1_000);
  tt.is(bench.asked(), 'GET config, PATCH config');
  tt.is(await bench.look(), 2_000);
  tt.is(bench.asked(), 'GET config, GET log');
  tt.is(bench.problem, ADVICE);
  return bench;
}

test.serial('turned on by annotation: not fought, said once, and a metric', async (tt) => {
  const bench = await resetByAnnotation(tt);
  for (const afterMs of [4_000, 8_000, 15_000, undefined]) {
    pass(600_000);
    tt.is(await bench.look(), afterMs);
    tt.is(bench.asked(), 'GET config, GET log');
  }
  tt.is(await bench.counted(), `${POD}=0 source-check=1`);
  tt.deepEqual(bench.said, [OFF, STAYS_ON]);
});

test.serial('turned on by annotation, and the administrator changes that', async (tt) => {
  const bench = await resetByAnnotation(tt);
  bench.endpoint.options.SourceIPVerification = 'Disabled';
  await bench.look();
  tt.is(bench.problem, undefined);
  tt.is(bench.said.at(-1), "info Cilium's source check is off");
  tt.is(await bench.counted(), `${POD}=1 source-check=1`);
  bench.turnOn();
  await bench.look();
  tt.is(bench.said.at(-1), STAYS_ON);
});

test.serial(
  'turned on by annotation: tried once more after a start of Cilium’s agent, and not said again',
  async (tt) => {
    const bench = await resetByAnnotation(tt);
    await bench.agent.restart({ downMs: 0, restoreMs: 0 });
    bench.check.restarted();
    await bench.look();
    tt.is(bench.asked(), 'GET config, PATCH config');
    await bench.look();
    tt.is(bench.problem, ADVICE);
    tt.is(bench.said.filter((line) => line === STAYS_ON).length, 1);
  },
);

test.serial('turned on by annotation, forgotten and there again: said again', async (tt) => {
  const bench = await resetByAnnotation(tt);
  const { frontend } = bench;
  bench.frontend = undefined;
  await bench.look();
  bench.frontend = frontend;
  await bench.look();
  await bench.look();
  tt.deepEqual(bench.said, [OFF, STAYS_ON, OFF, STAYS_ON]);
});

test.serial('turned on by annotation, and then the agent is away: that is the problem', async (tt) => {
  const bench = await resetByAnnotation(tt);
  await bench.agent.stop();
  await bench.fails(tt, /no such socket/);
  tt.regex(bench.problem ?? '', /no such socket/);
});

// `said` keeps what was said of the annotation where the agent was away in between.
test.serial('turned on by annotation, off after a start of the agent, and on again: said again', async (tt) => {
  const bench = await resetByAnnotation(tt);
  await bench.agent.stop();
  await bench.fails(tt, /no such socket/);
  await bench.agent.start();
  bench.endpoint.options.SourceIPVerification = 'Disabled'; // the namespace is annotated now
  await bench.look();
  tt.is(bench.problem, undefined);
  bench.turnOn(); // and no longer
  await bench.look();
  tt.is(bench.problem, ADVICE);
  tt.is(bench.said.filter((line) => line === STAYS_ON).length, 2);
});

test.serial('the log can’t be read: nothing is done', async (tt) => {
  const bench = await Bench.start(tt);
  await bench.look();
  bench.turnOn();
  bench.asked();
  bench.agent.fail(429, { path: /log$/ });
  await bench.fails(tt, /\/log at .*: status 429/);
  tt.is(bench.asked(), 'GET config, GET log');
});
