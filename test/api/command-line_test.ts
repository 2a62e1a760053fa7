/** Mistakes on the command line: one sentence on stderr, exit code 1, nothing on stdout. No API server is asked. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { agentBundle } from './agent.ts';

let folder = '';
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-command-line-'));
  const cluster = { server: 'https://127.0.0.1:1' };
  const config = {
    clusters: [{ name: 'c', cluster }],
    users: [{ name: 'u', user: { token: 'hunter2' } }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  };
  await writeFile(join(folder, 'good'), JSON.stringify(config));
  await writeFile(join(folder, 'broken'), '{');
});
test.after.always(() => rm(folder, { recursive: true }));

const ran = async (...args: string[]) => {
  const env = { PATH: process.env.PATH ?? '' };
  return execa(process.execPath, [await agentBundle('endpoint-sync'), ...args], {
    env,
    extendEnv: false,
    cwd: folder,
    reject: false,
  });
};

const mistake = test.macro(async (t, args: readonly string[], message: RegExp) => {
  const { exitCode, stdout, stderr } = await ran(...args);
  t.is(exitCode, 1);
  t.is(stdout, '');
  t.regex(stderr, message);
  t.false(stderr.includes('    at '), 'no stack trace');
});
test('no namespace', mistake, [], /^error: --namespace is missing.*POD_NAMESPACE/);
test('no namespace for cleanup', mistake, ['cleanup'], /^error: --namespace is missing/);
test(
  'no name of a namespace',
  mistake,
  ['--namespace', 'Bad/../x'],
  /^error: option '--namespace <name>' argument 'Bad\/\.\.\/x' is invalid\. It is no name of a namespace\.$/,
);
test('an empty one', mistake, ['--namespace', ''], /argument '' is invalid\. It is no name of a namespace\.$/);
test('neither a Pod nor a kubeconfig', mistake, ['--namespace', 'x'], /^error: this is not a Pod.*--kubeconfig$/);
test('a misspelt command', mistake, ['claenup'], /^error: unknown command claenup: the only one is cleanup$/);
test(
  'a misspelt option',
  mistake,
  ['--namespaec', 'x'],
  /^error: unknown option '--namespaec'\n\(Did you mean --namespace\?\)$/,
);
test(
  'no port',
  mistake,
  ['--namespace', 'x', '--port', 'abc'],
  /^error: option '--port <number>' argument 'abc' is invalid\. It must be a number/,
);
test(
  'no kubeconfig',
  mistake,
  ['--namespace', 'x', '--kubeconfig', 'none'],
  /^error: the kubeconfig none can't be read: ENOENT/,
);
test(
  'a broken kubeconfig',
  mistake,
  ['--namespace', 'x', '--kubeconfig', 'broken'],
  /^error: the kubeconfig broken can't be read: /,
);

test('a port that is taken', async (t) => {
  const other = createServer();
  await new Promise<void>((resolve) => {
    other.listen(0, resolve);
  });
  t.teardown(() => other.close());
  const { port } = other.address() as AddressInfo;
  const { exitCode, stderr } = await ran('--namespace', 'x', '--kubeconfig', 'good', '--port', String(port));
  t.is(exitCode, 1);
  t.regex(stderr, new RegExp(`^error: can't listen on port ${port}: .*EADDRINUSE`));
});

test('--help', async (t) => {
  const { exitCode, stdout } = await ran('--help');
  t.is(exitCode, 0);
  for (const word of ['--namespace', '--kubeconfig', '--config', '--port', 'cleanup'])
    t.true(stdout.includes(word), word);
});

test('cleanup, and nobody answers: said, with the address, and exit code 1', async (t) => {
  const { exitCode, stdout } = await ran('cleanup', '--namespace', 'x', '--kubeconfig', 'good');
  t.is(exitCode, 1);
  t.regex(stdout, /"problem":"no answer from the API server at https:\/\/127\.0\.0\.1:1: .*"msg":"not cleaned up"/);
  t.false(stdout.includes('hunter2'));
});
