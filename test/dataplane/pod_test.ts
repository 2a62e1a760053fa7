/** `routing init` in the frontend's pod: forwarding, MSS clamp, kill switch, and its wait for the host's side. */
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { until } from '../api/agent.ts';
import type { Netns } from './netns.ts';
import { createSite, ourRoutes, runToEnd, securityOf, setUp, type Run, type Site } from './routing.ts';
import { answered, capture, ping, tcpTransfer } from './traffic.ts';
import { blockIcmp, connectPlainTunnel } from './world.ts';

const fixture = setUp(test);

const ONPREM = { 4: '192.168.50.9', 6: 'fd12:3456::9' } as const;
const CLIENT = { 4: '10.10.1.7', 6: 'fd00:10:0:1::7' } as const;
const FAMILIES = [4, 6] as const;

const sites = (config: string): { spec: { sites: { mtu: number | null; peerCIDRs: string[] }[] } } =>
  JSON.parse(config) as never;
/** The rendered configuration with another mtu. */
function withMtu(mtu: number | null): string {
  const config = sites(fixture.rendered.config);
  for (const site of config.spec.sites) site.mtu = mtu;
  return JSON.stringify(config);
}

const messages = ({ log }: Run): string[] => log.map(({ level, msg }) => `${level} ${msg}`);
const problems = ({ log }: Run): string => log.map(({ problem = '' }) => problem as string).join('\n');
const forwarding = async (pod: Netns): Promise<string> =>
  pod.exec('sysctl', '-n', 'net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding');
/** Without counters. */
const ruleset = async (pod: Netns): Promise<string> => pod.exec('nft', '--stateless', 'list', 'ruleset');

/** Both agents run, and the pod is set up. */
async function started(t: ExecutionContext, config?: string): Promise<Site> {
  const site = await createSite(t, fixture);
  if (config !== undefined) await site.volume.set(config);
  const agents = [await site.start('nodeA'), await site.start('nodeB')];
  t.teardown(() => Promise.all(agents.map((agent) => agent.stop('SIGKILL'))));
  const { exitCode } = await site.init('--timeout', '60');
  t.is(exitCode, 0);
  await until(async () => (await ourRoutes(site.world.nodeB)).length === 4, "nodeB's routes");
  return site;
}

test.serial('sets the pod up, and waits until the host has done its part', async (t) => {
  const site = await createSite(t, fixture);
  const pod = site.world.frontend;
  await pod.exec('nft', 'add table inet theirs { chain c { type filter hook forward priority 5; }; }');
  const theirs = await pod.exec('nft', 'list', 'table', 'inet', 'theirs');
  t.is(await forwarding(pod), '0\n0');

  const running = site.init('--timeout', '60');
  // What it does before it asks for the first time.
  await until(async () => (await forwarding(pod)) === '1\n1', 'forwarding');
  await sleep(500);
  const agent = await site.start('nodeA');
  t.teardown(() => agent.stop('SIGKILL'));
  const run = await running;
  t.is(run.exitCode, 0);
  t.is(run.stderr, '');
  t.is(await forwarding(pod), '1\n1');
  const reasons = run.log.flatMap(({ reason }) => (typeof reason === 'string' ? [reason] : []));
  t.regex(reasons[0] ?? '', /^the routing agent of this node does not answer \(.*192\.0\.2\.10:9810.*DaemonSet/);
  t.is(messages(run).at(-1), "info the host's side stands");
  t.is(site.nodeA.cilium.endpoints.get(17)?.options.SourceIPVerification, 'Disabled');
  t.is((await ourRoutes(site.world.nodeA)).length, 4);

  const once = await ruleset(pod);
  t.is((await site.init()).exitCode, 0);
  t.is(await ruleset(pod), once, 'twice is once');
  t.is(await pod.exec('nft', 'list', 'table', 'inet', 'theirs'), theirs);
});

test.serial('gives up after its time, and says what it waited for', async (t) => {
  const site = await createSite(t, fixture);
  const absent = await site.init('--timeout', '1');
  t.is(absent.exitCode, 1);
  t.is(messages(absent).at(-1), "error the host's side does not stand, giving up");
  t.regex(problems(absent), /does not answer/);
  t.regex(await ruleset(site.world.frontend), /drop/, 'the kill switch is there all the same');

  await site.nodeA.cilium.stop();
  const agent = await site.start('nodeA');
  t.teardown(() => agent.stop('SIGKILL'));
  const withoutCilium = await site.init('--timeout', '2');
  t.is(withoutCilium.exitCode, 1);
  t.regex(problems(withoutCilium), /cilium\.sock: there is no such socket/);
});

const clamped = test.macro(async (t, family: 4 | 6) => {
  t.timeout(120_000);
  const site = await started(t, withMtu(null));
  const { client, onprem } = site.world;
  await connectPlainTunnel(site.world, { mtu: 1300 });
  await blockIcmp(site.world);
  const bytes = 10_000_000;
  const transfer = async (outwards: boolean, timeoutMs: number) =>
    outwards
      ? tcpTransfer(client, onprem, ONPREM[family], bytes, { timeoutMs })
      : tcpTransfer(onprem, client, CLIENT[family], bytes, { timeoutMs });
  for (const outwards of [true, false]) {
    const hanging = await transfer(outwards, 1_500);
    t.true(hanging.bytes < bytes, `without a clamp ${outwards ? 'outwards' : 'inwards'}`);
  }
  await site.volume.set(withMtu(1300));
  t.is((await site.init()).exitCode, 0);
  for (const outwards of [true, false]) {
    const passing = await transfer(outwards, 60_000);
    t.true(passing.digestsEqual, `with the clamp ${outwards ? 'outwards' : 'inwards'}: ${JSON.stringify(passing)}`);
  }
});
test.serial('10 MB through a small MTU with ICMP blocked, IPv4', clamped, 4);
test.serial('10 MB through a small MTU with ICMP blocked, IPv6', clamped, 6);

test.serial('a smaller segment size is left as it is', async (t) => {
  const site = await started(t);
  await connectPlainTunnel(site.world, { mtu: 1500 });
  const { client, onprem } = site.world;
  await client
    .ip('route change 192.168.50.0/24 via 10.10.1.1 dev eth0 advmss 700')
    .catch(() => client.ip('route add 192.168.50.0/24 via 10.10.1.1 dev eth0 advmss 700'));
  const seen = await capture(onprem, 'eth0', 'tcp[tcpflags] & tcp-syn != 0', { direction: 'in' });
  await tcpTransfer(client, onprem, ONPREM[4], 1_000, { timeoutMs: 5_000 });
  const lines = await seen.stop();
  t.regex(lines[0] ?? '', /mss 700/);
});

/** Pings from both sides of the frontend, and from the pod itself, while packets that leave it are captured. */
async function leaks({ world }: Site): Promise<string[]> {
  const { frontend, client, onprem } = world;
  const seen = await capture(frontend, 'eth0', 'net 192.168.50.0/24 or net fd12:3456::/48', { direction: 'out' });
  await Promise.all(
    FAMILIES.flatMap((family) => [
      ping(client, ONPREM[family]),
      ping(frontend, ONPREM[family]),
      ping(onprem, CLIENT[family]),
    ]),
  );
  return (await seen.stop()).filter((line) => !/ (NS|NA|ARP|neighbor)/.test(line));
}

test.serial('nothing leaves in clear while there is no tunnel', async (t) => {
  const site = await started(t);
  const { frontend } = site.world;
  t.deepEqual(await leaks(site), []);
  // The test sees what it looks for: without the table all of it leaves.
  await frontend.exec('nft', 'flush', 'ruleset');
  t.true((await leaks(site)).length > 0);
});

test.serial('the kill switch stands before anything is forwarded', async (t) => {
  const site = await createSite(t, fixture);
  const empty = join(site.world.folder, 'no-sysctls');
  await mkdir(empty);
  const { frontend } = site.world;
  const run = await initWith(site, {}, '--sysctl-folder', empty);
  t.is(run.exitCode, 1);
  t.regex(problems(run), /no-sysctls\/ipv4\/ip_forward is not there: mount the host's \/proc\/sys\/net at/);
  t.regex(await ruleset(frontend), /drop/);
  t.is(await forwarding(frontend), '0\n0');
});

/** An `nft` that does what a kernel with less would: it refuses `what`, and hands all else to the real one. */
async function lesserNft(site: Site, what: string): Promise<Record<string, string>> {
  const folder = join(site.world.folder, 'lesser');
  await mkdir(folder);
  const script = `#!/bin/sh
input=$(cat)
case "$input" in *'${what}'*) echo 'Error: Could not process rule: Operation not supported' >&2; exit 1;; esac
printf '%s\\n' "$input" | PATH="$REAL_PATH" nft "$@"
`;
  await writeFile(join(folder, 'nft'), script);
  await chmod(join(folder, 'nft'), 0o755);
  return { PATH: `${folder}:/usr/sbin:/usr/bin:/sbin:/bin`, REAL_PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };
}

const initWith = (site: Site, env: Record<string, string>, ...args: string[]): Promise<Run> =>
  runToEnd(
    site.world.frontend,
    securityOf(fixture.rendered, 'StatefulSet', 'routing-init'),
    [
      ...`init --config ${site.volume.file} --pod-ip 10.10.0.5 --host-ip 192.0.2.10 --site berlin`.split(' '),
      ...`--sysctl-folder /proc/sys/net --timeout 60`.split(' '),
      ...args,
    ],
    env,
  );

test.serial(
  'a kernel without "rt ipsec": unreachable routes are the kill switch, and a tunnel wins over them',
  async (t) => {
    const site = await started(t);
    const { frontend, client } = site.world;
    const env = await lesserNft(site, 'rt ipsec');
    const run = await initWith(site, env);
    t.is(run.exitCode, 0);
    t.true(messages(run).some((line) => line.startsWith("warn the kernel can't tell IPsec packets")));
    t.regex(await ruleset(frontend), /maxseg size set 1260/);
    t.notRegex(await ruleset(frontend), /drop/);
    t.deepEqual(await ourRoutes(frontend), [
      'unreachable 192.168.50.0/24 metric 4294967295',
      'unreachable fd12:3456::/48 dev lo metric 4294967295 pref medium',
    ]);
    t.deepEqual(await leaks(site), []);
    await connectPlainTunnel(site.world);
    for (const family of FAMILIES) t.true(await answered(client, ONPREM[family]), `IPv${family}`);
    t.is((await initWith(site, env)).exitCode, 0);
    t.is((await ourRoutes(frontend)).length, 2, 'twice is once');

    t.is((await site.init()).exitCode, 0);
    t.deepEqual(await ourRoutes(frontend), [], 'a kernel that can: no more of them');
    t.regex(await ruleset(frontend), /drop/);
  },
);

test.serial('a kernel without nftables: said, and all but the clamp works', async (t) => {
  const site = await started(t);
  await site.world.frontend.exec('nft', 'flush', 'ruleset');
  const run = await initWith(site, await lesserNft(site, 'table'));
  t.is(run.exitCode, 0);
  t.true(
    messages(run).some((line) => line.startsWith('warn no nftables in this kernel')),
    messages(run).join('\n'),
  );
  t.deepEqual(await leaks(site), []);
  await connectPlainTunnel(site.world);
  t.true(await answered(site.world.client, ONPREM[4]));
});

test.serial('an nft that is killed is no lesser kernel: nothing is forwarded', async (t) => {
  const site = await createSite(t, fixture);
  const folder = join(site.world.folder, 'killed');
  await mkdir(folder);
  await writeFile(join(folder, 'nft'), '#!/bin/sh\nkill -9 $$\n');
  await chmod(join(folder, 'nft'), 0o755);
  const run = await initWith(site, { PATH: `${folder}:/usr/sbin:/usr/bin:/sbin:/bin` });
  t.is(run.exitCode, 1);
  t.regex(problems(run), /the kill switch can't be made, so the pod must not forward: nft: ended with SIGKILL/);
  t.is(await forwarding(site.world.frontend), '0\n0');
});

const refused = test.macro(
  async (t, prepare: (site: Site) => Promise<void>, args: readonly string[], problem: RegExp) => {
    const site = await createSite(t, fixture);
    await prepare(site);
    const run = await site.init('--timeout', '1', ...args);
    t.is(run.exitCode, 1);
    const said = problems(run) + run.stderr;
    t.regex(said, problem);
    t.false(/^\s+at /m.test(said), said);
    t.is(await forwarding(site.world.frontend), '0\n0');
  },
);
const nothing = async (): Promise<void> => undefined;
test.serial(
  'no configuration',
  refused,
  ({ volume }) => volume.remove(),
  [],
  /config\.json: is missing: the ConfigMap/,
);
test.serial('an empty one', refused, ({ volume }) => volume.set(''), [], /applied without the functions having run/);
test.serial('a broken one', refused, ({ volume }) => volume.set('{'), [], /is not JSON: render and apply again/);
test.serial('a wrong one', refused, ({ volume }) => volume.set(withMtu(70_000)), [], /spec\.sites\[0\]\.mtu/);
test.serial('an unknown site', refused, nothing, ['--site', 'munich'], /has no site "munich".*it has berlin/);
test.serial('no address', refused, nothing, ['--pod-ip', 'x'], /--pod-ip <address>' argument 'x' is invalid/);
test.serial('no time', refused, nothing, ['--timeout', 'soon'], /--timeout <seconds>' argument 'soon' is invalid/);
test.serial("mtu larger than the interface's: that is used, and said", async (t) => {
  const site = await createSite(t, fixture);
  await site.volume.set(withMtu(9000));
  const run = await site.init('--timeout', '1');
  t.true(run.log.some(({ msg, limit }) => msg.startsWith('mtu is larger') && limit === 1500));
  t.regex(await ruleset(site.world.frontend), /ipv4 tcp .* size set 1460\n.*ipv6 tcp .* size set 1440/);
});

test.serial('no capability: which one, and nothing is forwarded', async (t) => {
  const site = await createSite(t, fixture);
  const security = securityOf(fixture.rendered, 'StatefulSet', 'routing-init').map((option) =>
    option.startsWith('--bounding-set') ? '--bounding-set=-all' : option,
  );
  const run = await runToEnd(site.world.frontend, security, [
    ...`init --config ${site.volume.file} --pod-ip 10.10.0.5 --host-ip 192.0.2.10 --site berlin`.split(' '),
    ...`--sysctl-folder /proc/sys/net`.split(' '),
  ]);
  t.is(run.exitCode, 1);
  t.regex(problems(run), /lacks the capability NET_ADMIN \(securityContext\.capabilities\.add\)/);
  t.is(await forwarding(site.world.frontend), '0\n0');
});

test.serial('no nft in the image', async (t) => {
  const site = await createSite(t, fixture);
  const folder = join(site.world.folder, 'image');
  await mkdir(folder);
  for (const program of ['/usr/bin/setpriv', '/usr/bin/nsenter', '/usr/sbin/ip'])
    await symlink(program, join(folder, basename(program)));
  const run = await initWith(site, { PATH: folder });
  t.is(run.exitCode, 1);
  t.regex(problems(run), /is not on PATH/);
});
