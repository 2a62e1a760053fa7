import { chmod, chown, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { DEFAULT_ESP, DEFAULT_IKE } from '../../functions/model/proposal.ts';
import { buildImage } from '../../scripts/build-images.ts';
import { setUpContainers, type ContainerEnv } from '../../scripts/container-setup.ts';
import { strongswan6Root } from './root.ts';
import { sandboxes } from './sandbox.ts';

// The image of agents/strongswan/Containerfile, built for real and run with what base/frontend.yaml gives it.

const root = join(import.meta.dirname, '../..');
const maxBytes = 120 * 2 ** 20;
const stopLimitMs = 3000;
let env: ContainerEnv;
let image: string;
let sandbox: readonly string[];

test.before('build', async (t) => {
  t.timeout(20 * 60_000);
  env = await setUpContainers();
  image = await buildImage('strongswan', env, (line) => t.log(line));
  sandbox = (await sandboxes('constellation-vpn-strongswan'))[0]!.flags;
});

interface Container {
  /** Mounted at /var/run, with owner and mode of an emptyDir in a pod with `fsGroup`. */
  readonly run: string;
  exec(...command: string[]): Promise<string>;
  log(): Promise<string>;
  podman(command: string, ...args: string[]): Promise<string>;
}

const podman = async (...args: string[]): Promise<string> => (await execa('podman', args, { env })).stdout;

async function start(t: ExecutionContext, network?: string): Promise<Container> {
  const flags = sandbox.map((it) => (network !== undefined && it === '--network=none' ? `--network=${network}` : it));
  const run = await mkdtemp(join(tmpdir(), 'constellation-vpn-run-'));
  await chown(run, 0, 65532);
  await chmod(run, 0o2777);
  const id = await podman('run', '--detach', ...flags, `--volume=${run}:/var/run`, image);
  t.teardown(async () => {
    await podman('rm', '--force', '--time=0', id);
    await rm(run, { recursive: true });
  });
  const container: Container = {
    run,
    exec: (...command) => podman('exec', id, ...command),
    // Podman tells stdout from stderr, a kubelet does not.
    log: async () => (await execa('podman', ['logs', id], { env, all: true })).all,
    podman: async (command, ...args) => podman(command, ...args, id),
  };
  await untilItAnswers(() => container.exec('swanctl', '--stats'));
  return container;
}

async function untilItAnswers(ask: () => Promise<string>): Promise<string> {
  for (const end = Date.now() + 20_000; ; await sleep(50)) {
    try {
      return await ask();
    } catch (error) {
      if (Date.now() > end) throw error;
    }
  }
}

/** What the names in strongSwan's proposals are called by `swanctl --list-algs`. */
const ALGORITHMS: Record<string, string> = {
  aes256gcm16: 'AES_GCM_16',
  aes256: 'AES_CBC',
  sha256: 'HMAC_SHA2_256_128',
  prfsha256: 'PRF_HMAC_SHA2_256',
  prfsha384: 'PRF_HMAC_SHA2_384',
  ecp384: 'ECP_384',
  curve25519: 'CURVE_25519',
  modp3072: 'MODP_3072',
};

test.serial("charon runs with the manifest's user, group, capabilities and read-only root", async (t) => {
  const container = await start(t);
  const log = (await container.log()).split('\n');
  t.is(log[0], 'start-charon: 0 kernel states of an earlier charon flushed, policies stay');
  // Whether this machine's kernel has ESP.
  const charons = log
    .slice(1)
    .filter((line) => !line.startsWith('start-charon: this kernel does no ESP with AES-GCM ('));
  for (const line of charons) t.regex(line, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} \d\d\[[A-Z]{3}\] /);
  // Whether the kernel has XFRM interfaces, charon tries at every start.
  const complaints = charons.filter((it) => /fail|unable|error|denied|not permitted/i.test(it));
  t.deepEqual(
    complaints.filter((it) => !/XFRM interface|Unknown device type/.test(it)),
    [],
  );
  const pid = await container.podman('inspect', '--format={{.State.Pid}}');
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  t.regex(status, /^Name:\tcharon-systemd$/m);
  t.regex(status, /^Uid:\t0\t0\t0\t0$/m);
  t.regex(status, /^Gid:\t65532\t65532\t65532\t65532$/m);
  t.regex(status, /^CapPrm:\t0000000000001000$/m); // NET_ADMIN; the other it drops once the ports are its own
  t.regex(status, /^NoNewPrivs:\t1$/m);
  t.regex(status, /^Seccomp:\t2$/m);
});

test.serial("the frontend's user reaches the socket, and nobody else", async (t) => {
  const container = await start(t);
  const { mode, uid, gid } = await stat(join(container.run, 'charon.vici'));
  t.deepEqual({ mode: mode & 0o777, uid, gid }, { mode: 0o770, uid: 0, gid: 65532 });
  const ask = async (user: string): Promise<{ exitCode?: number; stdout: string; stderr: string }> => {
    const flags = ['--network=none', '--cap-drop=all', `--user=${user}`, `--volume=${container.run}:/var/run/charon`];
    const command = ['--entrypoint=swanctl', image, '--stats', '--uri=unix:///var/run/charon/charon.vici'];
    return execa('podman', ['run', '--rm', ...flags, ...command], { env, reject: false });
  };
  const answer = await ask('65532:65532');
  t.is(answer.exitCode, 0, answer.stderr);
  t.regex(answer.stdout, /^loaded plugins: charon-systemd /m);
  for (const user of ['65532:1000', '1000:1000', '65533:65533']) {
    const refused = await ask(user);
    t.not(refused.exitCode, 0, user);
    t.regex(refused.stderr, /Permission denied/, user);
  }
});

test.serial('the plugins are those of strongswan.conf, and do the default proposals', async (t) => {
  const container = await start(t);
  const conf = await readFile(join(root, 'agents/strongswan/strongswan.conf'), 'utf8');
  const load = /^ {2}load = (.*)$/m.exec(conf)?.[1];
  t.regex(await container.exec('swanctl', '--stats'), new RegExp(`^loaded plugins: charon-systemd ${load}$`, 'm'));

  const algorithms = (await container.exec('swanctl', '--list-algs')).split(/\s+/).map((it) => it.replace(/\[.*/, ''));
  for (const name of new Set([...DEFAULT_IKE, ...DEFAULT_ESP].flatMap((it) => it.split('-')))) {
    t.true(algorithms.includes(ALGORITHMS[name] ?? name), name);
  }
  t.regex(await container.log(), /providers loaded by OpenSSL: default$/m);
  // Here to be noticed: with 6.0.2 and OpenSSL 3.5 it comes by itself.
  t.false(
    algorithms.some((it) => it.startsWith('ML_KEM')),
    'it has ML-KEM: say so in docs and in strongswan.conf',
  );
});

for (const [title, parameters] of [
  ['P-384', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384']],
  ['RSA', ['-newkey', 'rsa:3072']],
  ['Ed25519', ['-newkey', 'ed25519']],
] as const) {
  test.serial(`a connection with the default proposals and a certificate (${title}) is loaded`, async (t) => {
    const container = await start(t);
    const file = (path: string): string => join(container.run, path);
    for (const folder of ['x509', 'x509ca', 'private']) await mkdir(file(folder));
    const request = ['req', '-x509', ...parameters, '-noenc', '-days', '2', '-subj', '/CN=gw'];
    await execa('openssl', [...request, '-keyout', file('private/gw.pem'), '-out', file('x509/gw.pem')]);
    await writeFile(file('swanctl.conf'), swanctlConf([...DEFAULT_IKE], [...DEFAULT_ESP]));
    const loaded = await container.exec('swanctl', '--load-all', '--file', '/var/run/swanctl.conf');
    t.regex(loaded, /^loaded certificate from '\/var\/run\/x509\/gw\.pem'$/m);
    t.regex(loaded, /^loaded [A-Za-z0-9]+ key from '\/var\/run\/private\/gw\.pem'$/m);
    t.regex(loaded, /^successfully loaded 1 connections, 0 unloaded$/m);
    t.regex(await container.exec('swanctl', '--list-certs'), /has private key/);
    t.notRegex(await container.log(), /PRIVATE KEY/);
  });
}

function swanctlConf(ike: readonly string[], esp: readonly string[]): string {
  return `connections {
  site {
    remote_addrs = 192.0.2.1
    proposals = ${ike.join(',')}
    local {
      certs = gw.pem
    }
    remote {
      auth = pubkey
    }
    children {
      site {
        remote_ts = 192.168.0.0/24
        esp_proposals = ${esp.join(',')}
      }
    }
  }
}
`;
}

test.serial('SIGTERM ends it, and a start after SIGKILL finds its way past the old socket', async (t) => {
  const container = await start(t);
  const began = Date.now();
  await container.podman('stop', '--time=10');
  const tookMs = Date.now() - began;
  t.log(`stopped in ${tookMs} ms`);
  t.true(tookMs < stopLimitMs, `${tookMs} ms`);
  t.is(await container.podman('inspect', '--format={{.State.ExitCode}}'), '0');
  t.regex(await container.log(), /SIGTERM received, shutting down$/);

  await container.podman('start');
  await untilItAnswers(() => container.exec('swanctl', '--stats'));
  await container.podman('kill', '--signal=KILL');
  await container.podman('wait');
  t.true((await stat(join(container.run, 'charon.vici'))).isSocket());
  await container.podman('start');
  await untilItAnswers(() => container.exec('swanctl', '--stats'));
});

test.serial('states that a crash left in the kernel are flushed, policies stay', async (t) => {
  const netns = `cvpn-image-${process.pid}`;
  await execa('/sbin/ip', ['netns', 'add', netns]);
  t.teardown(() => execa('/sbin/ip', ['netns', 'delete', netns]));
  const ip = async (...args: string[]): Promise<string> =>
    (await execa('/sbin/ip', ['-netns', netns, 'xfrm', ...args])).stdout;
  const ends = ['src', '192.0.2.1', 'dst', '192.0.2.2', 'proto', 'esp'];
  // A state without keys: some kernels that run tests have none of ESP's algorithms.
  await ip('state', 'allocspi', ...ends, 'min', '0x100', 'max', '0x200');
  const policy = ['dir', 'out', 'src', '10.1.0.0/16', 'dst', '10.2.0.0/16', 'tmpl', ...ends, 'mode', 'tunnel'];
  await ip('policy', 'add', ...policy);

  const container = await start(t, `ns:/run/netns/${netns}`);
  t.regex(await container.log(), /^start-charon: 1 kernel states of an earlier charon flushed, policies stay$/m);
  t.is(await ip('state'), '');
  t.regex(await ip('policy'), /^src 10\.1\.0\.0\/16 dst 10\.2\.0\.0\/16/m);
});

test.serial('what keeps it from flushing is said in a line with the cure', async (t) => {
  const flags = sandbox.filter((it) => it !== '--cap-add=NET_ADMIN');
  const { stderr } = await execa('podman', ['run', '--rm', ...flags, image], { env, reject: false });
  t.regex(
    stderr,
    /^start-charon: the kernel's states can't be flushed \(.*not permitted.*\): give .*NET_ADMIN.*esp4\)\n/,
  );
});

test.serial("the root folder for other tests runs the image's charon, with ESP in user space", async (t) => {
  const folder = await strongswan6Root((line) => t.log(line));
  const run = await mkdtemp(join(folder, 'var/run/test-'));
  t.teardown(() => rm(run, { recursive: true }));
  const inside = run.slice(folder.length);
  const conf = await readFile(join(folder, 'etc/strongswan.conf'), 'utf8');
  await writeFile(
    join(run, 'strongswan.conf'),
    conf.replace(' kernel-netlink ', ' kernel-libipsec kernel-netlink ').replace('/var/run', inside),
  );
  const variables = { STRONGSWAN_CONF: join(inside, 'strongswan.conf') };
  const charon = execa('unshare', ['--net', 'chroot', folder, 'charon-systemd'], { env: variables, reject: false });
  t.teardown(() => charon.kill('SIGKILL'));
  const stdout = await untilItAnswers(async () => {
    const uri = `unix://${inside}/charon.vici`;
    return (await execa('/usr/sbin/chroot', [folder, 'swanctl', '--stats', `--uri=${uri}`], { env: variables })).stdout;
  });
  t.regex(stdout, /^loaded plugins: .* kernel-libipsec kernel-netlink vici$/m);
  charon.kill('SIGTERM');
  t.is((await charon).exitCode, 0);
});

test.serial('it is small, has no package manager, and tells a scanner its packages', async (t) => {
  const inspected = JSON.parse(await podman('image', 'inspect', image)) as { Size: number; Config: { User: string } }[];
  const { Size, Config } = inspected[0]!;
  t.log(`${(Size / 2 ** 20).toFixed(1)} MiB`);
  t.true(Size < maxBytes, `${Size} bytes`);
  t.is(Config.User, '0:65532');
  const script = `command -v apt-get dpkg perl; while read -r line; do echo "$line"; done </var/lib/dpkg/status`;
  const content = await podman('run', '--rm', ...sandbox, '--entrypoint=sh', image, '-c', script);
  t.notRegex(content, /bin\/(apt-get|dpkg|perl)$/m);
  for (const name of ['libc6', 'charon-systemd', 'libstrongswan', 'strongswan-libcharon', 'libssl3t64', 'iproute2']) {
    t.regex(content, new RegExp(`^Package: ${name}$`, 'm'));
  }
});
