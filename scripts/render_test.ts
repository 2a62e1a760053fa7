import { chmod, mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { faultMessage, findFault, listOverlays, userFolder } from './render.ts';

/** A new folder `~` with these files in it; real, since a working folder is reported without symbolic links. */
async function makeFolder(tt: ExecutionContext, files: Record<string, string>): Promise<string> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'render-')));
  tt.teardown(() => rm(folder, { recursive: true }));
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), content);
  }
  return folder;
}

const from = test.macro((tt, env: NodeJS.ProcessEnv, folder: string) => tt.is(userFolder(env, '/package'), folder));
test('npm run render', from, { npm_lifecycle_event: 'render', INIT_CWD: '/user' }, '/user');
test('node scripts/render.ts', from, {}, '/package');
test('started by another script of npm', from, { npm_lifecycle_event: 'test', INIT_CWD: '/user' }, '/package');

const fault = test.macro(async (tt, path: string, expected: string | undefined) => {
  const files = {
    'a/kustomization.yaml': '',
    'b/kustomization.yml': '',
    'c/Kustomization': '',
    'd/kustomize.yaml': '',
  };
  tt.is(await findFault(join(await makeFolder(tt, files), path)), expected);
});
test('kustomization.yaml', fault, 'a', undefined);
test('kustomization.yml', fault, 'b', undefined);
test('Kustomization', fault, 'c', undefined);
test('another file', fault, 'd', 'holds no kustomization.yaml');
test('no folder', fault, 'e', 'does not exist');
test('a file', fault, 'a/kustomization.yaml', 'is not a folder');

test('overlays and their cilium targets, without function configurations', async (tt) => {
  const overlays = ['gcp', 'gcp/cilium', 'gcp/functions', 'aws'].map((name) => `overlays/${name}`);
  const files = [...overlays, 'overlays/draft/notes', 'base', '.'].map((dir) => [`${dir}/kustomization.yaml`, '']);
  const folder = await makeFolder(tt, Object.fromEntries(files));
  const expected = ['overlays/aws', 'overlays/gcp', 'overlays/gcp/cilium'].map((overlay) => join(folder, overlay));
  tt.deepEqual(await listOverlays(folder), expected);
  tt.deepEqual(await listOverlays(join(folder, 'base')), []);
});

test('message', (tt) => {
  tt.is(faultMessage('x', 'does not exist', ['a', 'b']), 'x does not exist; the overlays are a, b.');
  tt.is(faultMessage('x', 'does not exist', []), 'x does not exist; there are no overlays.');
});

interface Run {
  args: string[];
  /** Below `~`. */
  cwd?: string;
  /** `~` stands for the folder here too. */
  env?: NodeJS.ProcessEnv;
}
interface Outcome {
  exitCode: number;
  stdout: string;
  stderr: string | RegExp;
}

/** The command itself, with a kustomize that shows its arguments. */
const renders = test.macro(async (tt, { args, cwd = '.', env = {} }: Run, expected: Outcome) => {
  const kustomize = `#!/bin/sh
if [ "$1" = version ]; then echo v5.8.2; exit; fi
echo "args: $*"
echo 'a line of a function' >&2
exit \${EXIT:-0}
`;
  const folder = await makeFolder(tt, { kustomize, 'site/kustomization.yaml': '', 'site/deep/cm.yaml': '' });
  await chmod(join(folder, 'kustomize'), 0o755);
  const result = await execa(process.execPath, [join(import.meta.dirname, 'render.ts'), ...args], {
    cwd: join(folder, cwd),
    env: Object.fromEntries(
      Object.entries({ KUSTOMIZE: '~/kustomize', npm_lifecycle_event: '', ...env }).map(([key, value]) => [
        key,
        value?.replace('~', folder),
      ]),
    ),
    reject: false,
  });
  tt.is(result.stdout.replaceAll(folder, '~'), expected.stdout);
  const stderr = result.stderr.replaceAll(folder, '~');
  if (typeof expected.stderr === 'string') tt.is(stderr, expected.stderr);
  else tt.regex(stderr, expected.stderr);
  tt.is(result.exitCode, expected.exitCode);
});

const args = (dir: string) => `args: build --enable-alpha-plugins --enable-exec ${dir}`;
const passed = 'a line of a function';
test('a folder', renders, { args: ['site'] }, { exitCode: 0, stdout: args('~/site'), stderr: passed });
test('this folder', renders, { args: [], cwd: 'site' }, { exitCode: 0, stdout: args('~/site'), stderr: passed });
test(
  'a folder above',
  renders,
  { args: ['..'], cwd: 'site/deep' },
  { exitCode: 0, stdout: args('~/site'), stderr: passed },
);
test(
  'a folder seen from where npm was called',
  renders,
  { args: ['site'], cwd: 'site/deep', env: { npm_lifecycle_event: 'render', INIT_CWD: '~' } },
  { exitCode: 0, stdout: args('~/site'), stderr: passed },
);
test(
  "kustomize's exit code",
  renders,
  { args: ['site'], env: { EXIT: '7' } },
  { exitCode: 7, stdout: args('~/site'), stderr: passed },
);
test(
  'no such folder',
  renders,
  { args: ['nope'] },
  { exitCode: 1, stdout: '', stderr: /^render: nope does not exist; (the overlays are|there are no overlays).*\.$/ },
);
test(
  'a folder without a kustomization',
  renders,
  { args: ['deep'], cwd: 'site' },
  { exitCode: 1, stdout: '', stderr: /^render: deep holds no kustomization.yaml; .*\.$/ },
);
test(
  'two folders',
  renders,
  { args: ['site', 'deep'] },
  { exitCode: 1, stdout: '', stderr: 'render: expected one DIR, not 2: site deep.' },
);
test(
  'an unknown option',
  renders,
  { args: ['--fast'] },
  { exitCode: 1, stdout: '', stderr: "render: Unknown option '--fast'; --help tells more." },
);
test(
  'no kustomize',
  renders,
  { args: ['site'], env: { KUSTOMIZE: 'no-such-kustomize' } },
  { exitCode: 1, stdout: '', stderr: 'render: $KUSTOMIZE is no-such-kustomize, which is not on PATH.' },
);

test('--help', async (tt) => {
  const { stdout } = await execa(process.execPath, [join(import.meta.dirname, 'render.ts'), '--help']);
  tt.regex(stdout, /^Usage: npm run --silent render/);
});
