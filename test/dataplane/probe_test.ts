/** The frontend's probe with a real ping, with and without the rights that a container has. */
import { chmod, copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { Probe, type ProbeResult } from '../../agents/frontend/probe/probe.ts';
import type { Log } from '../../agents/lib/log.ts';
import { createGroup } from './netns.ts';

interface Seen {
  readonly results: ProbeResult[];
  readonly unknown: string[];
  readonly log: Record<string, unknown>[];
}

/** Runs until the test ends. */
function started(t: ExecutionContext, address: string | undefined, intervalMs: number): Seen & { probe: Probe } {
  const seen: Seen = { results: [], unknown: [], log: [] };
  const say = (level: string) => (keys: object, msg: string) => seen.log.push({ level, ...keys, msg });
  const probe = new Probe({
    log: { info: say('info'), warn: say('warn'), error: say('error') } as unknown as Log,
    onResult: (result) => seen.results.push(result),
    onUnknown: (former) => seen.unknown.push(former),
    intervalMs,
  });
  probe.set(address);
  const controller = new AbortController();
  const run = probe.run(controller.signal);
  t.teardown(() => {
    controller.abort();
    return run;
  });
  return { ...seen, probe };
}
const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await sleep(10);
};

test('answered: latency, no loss, not a word', async (t) => {
  const { results, log, unknown } = started(t, '127.0.0.1', 10);
  await until(() => results.length === 2);
  for (const { address, loss, latencySeconds = 0 } of results) {
    t.deepEqual([address, loss], ['127.0.0.1', 0]);
    t.true(latencySeconds > 0 && latencySeconds < 0.5);
  }
  t.deepEqual([log, unknown], [[], []]);
});

test('another address counts at once, what is under way for the former does not', async (t) => {
  const { probe, results, unknown } = started(t, '127.0.0.1', 600_000);
  await sleep(100); // ping takes 0.8 s
  probe.set('::1');
  await until(() => results.length === 1);
  t.is(results[0]?.address, '::1');
  t.is(results[0]?.loss, 0);
  t.deepEqual(unknown, ['127.0.0.1']);
  // While it waits for the next round.
  probe.set('127.0.0.1');
  await until(() => results.length === 2);
  t.is(results[1]?.address, '127.0.0.1');
});

test('nothing to do, until there is; the same again changes nothing', async (t) => {
  const { probe, results, unknown } = started(t, undefined, 600_000);
  await sleep(50);
  probe.set('127.0.0.1');
  await until(() => results.length === 1);
  probe.set('127.0.0.1');
  await sleep(1200);
  t.is(results.length, 1);
  t.deepEqual(unknown, []);
  probe.set(undefined);
  t.deepEqual(unknown, ['127.0.0.1']);
});

test('ends when it is told to: before it begins, while it waits', async (t) => {
  const log = {} as unknown as Log;
  await new Probe({ log, onResult: () => t.fail() }).run(AbortSignal.abort());
  const controller = new AbortController();
  const run = new Probe({ log, onResult: () => t.fail() }).run(controller.signal);
  await sleep(20);
  controller.abort();
  await run;
  t.pass();
});

test('what no ping can be told is said once', async (t) => {
  const { log, unknown, results } = started(t, 'no such address', 10);
  await until(() => unknown.length === 2);
  t.is(log.length, 1);
  t.deepEqual([log[0]?.level, log[0]?.msg, results], ['error', 'the path can not be probed', []]);
  t.regex(String(log[0]?.problem), /^ping: ended with exit code \d: .*no such address/);
});

/** For a process of another user or namespace: two rounds; with `then`, this command after the second, and two more. */
const script = (address: string, then: readonly string[] = []): string => `
import { Probe } from ${JSON.stringify(import.meta.resolve('../../agents/frontend/probe/probe.ts'))};
import { exec } from ${JSON.stringify(import.meta.resolve('../../agents/lib/exec.ts'))};
const end = new AbortController();
const print = (value) => console.log(JSON.stringify(value));
const say = (level) => (keys, msg) => print({ level, msg, ...keys });
const then = ${JSON.stringify(then)};
let rounds = 0;
const round = async () => {
  rounds += 1;
  if (rounds === 2 && then.length > 0) await exec(then[0], then.slice(1));
  if (rounds === (then.length > 0 ? 4 : 2)) end.abort();
};
const probe = new Probe({
  log: { info: say('info'), warn: say('warn'), error: say('error') },
  onResult: ({ address, loss }) => { print({ address, loss }); void round(); },
  onUnknown: () => void round(),
  intervalMs: 300,
});
probe.set(${JSON.stringify(address)});
await probe.run(end.signal);`;
const nodeArgs = (code: string): [string, ...string[]] => [process.execPath, '--input-type=module', '-e', code];
const records = (stdout: string): Record<string, unknown>[] =>
  stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

test('no ping in the image', async (t) => {
  const [node, ...args] = nodeArgs(script('127.0.0.1'));
  const { stdout } = await execa(node, args, { env: { PATH: '/nowhere' } });
  t.deepEqual(records(stdout), [
    {
      level: 'error',
      msg: 'the path can not be probed',
      address: '127.0.0.1',
      problem: 'ping: is not on PATH: the image lacks iputils-ping',
    },
  ]);
});

/** As a container has it: nobody in particular, and no capability, now or ever. */
const UNPRIVILEGED = [
  '--reuid=65532',
  '--regid=65532',
  '--clear-groups',
  '--no-new-privs',
  '--bounding-set=-all',
  '--inh-caps=-all',
];

/** A folder for PATH with a ping of its own, whose file capability is not copied. */
async function ownPing(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'probe-'));
  t.teardown(() => rm(folder, { recursive: true }));
  await chmod(folder, 0o755);
  const { stdout } = await execa('which', ['ping']);
  await copyFile(stdout, join(folder, 'ping'));
  return folder;
}
async function createPod(t: ExecutionContext) {
  const group = await createGroup(['pod']);
  t.teardown(() => group.remove());
  await group.spaces.pod.ip('link set lo up');
  return group.spaces.pod;
}

for (const address of ['127.0.0.1', '::1'])
  test(`without a capability, where the sysctl lets it: ${address}`, async (t) => {
    const pod = await createPod(t);
    const folder = await ownPing(t);
    await pod.sysctl({ 'net.ipv4.ping_group_range': '65532 65532' });
    const command = ['setpriv', ...UNPRIVILEGED, ...nodeArgs(script(address))];
    const stdout = await pod.exec('env', `PATH=${folder}:/usr/bin`, ...command);
    t.deepEqual(records(stdout), [
      { address, loss: 0 },
      { address, loss: 0 },
    ]);
  });

for (const [range, error] of [
  ['1 0', 'Operation not permitted'],
  ['0 100', 'Operation not permitted'],
] as const)
  test(`without a capability, where the sysctl does not let it: ${range}`, async (t) => {
    const pod = await createPod(t);
    const folder = await ownPing(t);
    await pod.sysctl({ 'net.ipv4.ping_group_range': range });
    const command = ['setpriv', ...UNPRIVILEGED, ...nodeArgs(script('127.0.0.1'))];
    const [record, ...others] = records(await pod.exec('env', `PATH=${folder}:/usr/bin`, ...command));
    t.deepEqual(others, []);
    t.is(record?.level, 'error');
    const problem = String(record?.problem);
    t.true(problem.startsWith(`ping may open no socket (${error}): the pod needs the sysctl`), problem);
  });

test('a ping with a file capability, which the kernel refuses to run', async (t) => {
  const folder = await ownPing(t);
  await execa('setcap', ['cap_net_raw=ep', join(folder, 'ping')]);
  const command = [...UNPRIVILEGED, ...nodeArgs(script('127.0.0.1'))];
  const { stdout } = await execa('setpriv', command, { env: { PATH: `${folder}:/usr/bin` } });
  const [record, ...others] = records(stdout);
  t.deepEqual(others, []);
  t.regex(String(record?.problem), /^ping has a file capability .*\(setcap -r\)/);
});

/** Nothing is there, and then it is. */
const comesBack = (address: string, cidr: string) => async (t: ExecutionContext) => {
  const pod = await createPod(t);
  const code = script(address, ['ip', 'address', 'add', cidr, 'dev', 'lo']);
  const [lost, warning, again, ...rest] = records(await pod.exec(...nodeArgs(code)));
  t.deepEqual(
    [lost, again],
    [
      { address, loss: 1 },
      { address, loss: 1 },
    ],
  );
  t.deepEqual([warning?.level, warning?.address], ['warn', address]);
  t.regex(String(warning?.check), /firewall.*routes.*traffic selectors/);
  const last = { address, loss: 0 };
  const back = { level: 'info', msg: 'the path to the site carries traffic again', address, loss: 0 };
  t.deepEqual(rest, [last, back, last]);
};
test('lost for want of a route, said once, and back', comesBack('192.0.2.7', '192.0.2.7/32'));
test('lost for want of a route, IPv6', comesBack('2001:db8::7', '2001:db8::7/128'));

for (const [title, ...lines] of [
  [
    'no answer',
    'link add eth0 type veth peer name other',
    'link set eth0 up',
    'link set other up',
    'address add 192.0.2.1/24 dev eth0',
  ],
  ['a route that is unreachable', 'route add unreachable 192.0.2.0/24'],
  ['a route that prohibits', 'route add prohibit 192.0.2.0/24'],
  ['a route that swallows', 'route add blackhole 192.0.2.0/24'],
] as const)
  test(`lost: ${title}`, async (t) => {
    const pod = await createPod(t);
    await pod.ip(...lines);
    const found = records(await pod.exec(...nodeArgs(script('192.0.2.9'))));
    const lost = { address: '192.0.2.9', loss: 1 };
    t.deepEqual([found[0], found[2], found.length], [lost, lost, 3]);
    t.is(found[1]?.level, 'warn');
  });
