import { chmod, cp, mkdir, mkdtemp, readdir, readFile, realpath, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { loadAll } from 'js-yaml';
import { findTool } from '../scripts/tools.ts';
import { homeOf, userFolder, writeAll } from './import.ts';

const ROOT = join(import.meta.dirname, '..');
const PSK = `K7mGzQ0p'Yt2v"Xr5$nBw8s`;
const VALUES = `podCIDR: "10.10.0.0/16"
serviceCIDR: "10.96.0.0/12"
peerCIDRs:
- 172.16.0.0/16
- 10.8.0.0/24
mtu: ""
ipsec:
  psk: 'K7mGzQ0p''Yt2v"Xr5$nBw8s'
  peer: vpn.example.com
image: "registry.example/vpn@sha256:0123"
`;
const FILES = ['vpn-psk.secret.yaml', 'vpn.yaml'];

/** A new folder `~` with these files in it; real, since the command shows no symbolic links either. */
async function makeFolder(tt: ExecutionContext, files: Record<string, string | Uint8Array>): Promise<string> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'import-')));
  tt.teardown(() => rm(folder, { recursive: true }));
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), content);
  }
  return folder;
}

const run = (cwd: string, args: readonly string[], root = ROOT) =>
  execa(process.execPath, [join(root, 'cli/import.ts'), ...args], {
    cwd,
    env: { npm_lifecycle_event: '', NO_COLOR: '1' },
    reject: false,
  });

const isWithoutKey = (tt: ExecutionContext, text: string) => {
  for (const form of [PSK, Buffer.from(PSK).toString('base64'), PSK.slice(0, 8)]) tt.false(text.includes(form));
};

test('writes both files', async (tt) => {
  const folder = await makeFolder(tt, { 'values.yaml': VALUES });
  const { exitCode, stdout, stderr } = await run(folder, ['values.yaml']);
  tt.is(exitCode, 0);
  tt.regex(stdout, /^Wrote vpn.yaml, .*\nWrote vpn-psk.secret.yaml, .*\n\nNext:\n/);
  tt.is(
    stderr,
    '[warning] (values.yaml) image: is dropped: it holds none of these programs; the new images are set by images: in a kustomization',
  );
  tt.deepEqual((await readdir(folder)).sort(), ['values.yaml', ...FILES]);
  const configuration = await readFile(join(folder, 'vpn.yaml'), 'utf8');
  isWithoutKey(tt, stdout + stderr + configuration);
  tt.is(
    configuration,
    `# yaml-language-server: $schema=../schema/constellation-vpn.schema.json
# Imported from the values of the Helm chart. The pre-shared key is in the Secret vpn-psk.
apiVersion: constellation-vpn.io/v1alpha1
kind: ConstellationVPN
metadata:
  name: vpn
  annotations:
    config.kubernetes.io/local-config: 'true'
    config.kubernetes.io/function: |
      exec:
        path: functions/dist/constellation-vpn
spec:
  podCIDR: 10.10.0.0/16
  serviceCIDR: 10.96.0.0/12
  mtu: ''
  peerCIDRs:
    - 172.16.0.0/16
    - 10.8.0.0/24
  ipsec:
    peer: vpn.example.com
    pskSecretRef:
      name: vpn-psk
      key: psk
`,
  );
  tt.deepEqual(loadAll(await readFile(join(folder, 'vpn-psk.secret.yaml'), 'utf8')), [
    {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'vpn-psk', namespace: 'constellation-vpn' },
      type: 'Opaque',
      data: { psk: Buffer.from(PSK).toString('base64') },
    },
  ]);
  tt.is((await stat(join(folder, 'vpn-psk.secret.yaml'))).mode & 0o777, 0o600);
});

test('the annotations are those of the default configuration', async (tt) => {
  const folder = await makeFolder(tt, { 'values.yaml': VALUES });
  await run(folder, ['values.yaml']);
  const [ours, theirs] = await Promise.all(
    [join(folder, 'vpn.yaml'), join(ROOT, 'functions/config/vpn.yaml')].map((path) => readFile(path, 'utf8')),
  );
  const head = (text = '') => {
    const [{ apiVersion, kind, metadata }] = loadAll(text) as [Record<string, unknown>];
    return { modeline: text.split('\n')[0], apiVersion, kind, metadata };
  };
  tt.deepEqual(head(ours), head(theirs));
});

test('a second run refuses, --force replaces', async (tt) => {
  const folder = await makeFolder(tt, { 'values.yaml': VALUES, 'vpn.yaml': 'mine', 'vpn-psk.secret.yaml': 'my key' });
  await chmod(join(folder, 'vpn-psk.secret.yaml'), 0o644);
  const content = () => Promise.all(FILES.map((name) => readFile(join(folder, name), 'utf8')));
  const refused = await run(folder, ['values.yaml']);
  tt.is(refused.exitCode, 1);
  tt.is(refused.stdout, '');
  tt.is(
    refused.stderr,
    'import: vpn-psk.secret.yaml and vpn.yaml are there already, so nothing was written; --force replaces, --out DIR writes elsewhere.',
  );
  tt.deepEqual(await content(), ['my key', 'mine']);
  await rm(join(folder, 'vpn.yaml'));
  const half = await run(folder, ['values.yaml']);
  tt.regex(half.stderr, /^import: vpn-psk.secret.yaml is there already/);
  tt.deepEqual((await readdir(folder)).sort(), ['values.yaml', 'vpn-psk.secret.yaml']);
  tt.is((await run(folder, ['values.yaml', '--force'])).exitCode, 0);
  const [secret = '', configuration = ''] = await content();
  tt.true(secret.includes('kind: Secret') && configuration.includes('kind: ConstellationVPN'));
  tt.is((await stat(join(folder, 'vpn-psk.secret.yaml'))).mode & 0o777, 0o600);
  tt.deepEqual((await readdir(folder)).sort(), ['values.yaml', ...FILES]);
});

test('--out makes the folder', async (tt) => {
  const folder = await makeFolder(tt, { 'in/values.yaml': VALUES });
  const { stdout } = await run(join(folder, 'in'), ['values.yaml', '--out', '../out/new']);
  tt.regex(stdout, /^Wrote \.\.\/out\/new\/vpn.yaml, /);
  tt.deepEqual((await readdir(join(folder, 'out/new'))).sort(), FILES);
  tt.deepEqual(await readdir(join(folder, 'in')), ['values.yaml']);
});

/** Refusals: a sentence for each line, and nothing written. */
const refuses = test.macro(
  async (tt, files: Record<string, string | Uint8Array>, args: readonly string[], expected: string) => {
    const folder = await makeFolder(tt, files);
    const before = (await readdir(folder, { recursive: true })).sort();
    const { exitCode, stdout, stderr } = await run(folder, args);
    tt.is(stderr, expected);
    tt.is(stdout, '');
    tt.is(exitCode, 1);
    isWithoutKey(tt, stderr);
    tt.deepEqual((await readdir(folder, { recursive: true })).sort(), before);
  },
);
const one = 'import: expected one file of values, not';
test('no file named', refuses, {}, [], `${one} 0; --help tells more.`);
test('two files named', refuses, {}, ['a', 'b'], `${one} 2; --help tells more.`);
test('an unknown option', refuses, {}, ['a', '--fast'], "import: Unknown option '--fast'; --help tells more.");
test(
  '--out without a folder',
  refuses,
  {},
  ['a', '--out'],
  "import: Option '--out <value>' argument missing; --help tells more.",
);
test('no such file', refuses, {}, ['nope.yaml'], 'import: nope.yaml does not exist.');
test('a folder', refuses, { 'a/b': '' }, ['a'], "import: a is a folder; name the file with the chart's values.");
test('an empty file', refuses, { 'v.yaml': '' }, ['v.yaml'], 'import: v.yaml is empty.');
test(
  'UTF-16',
  refuses,
  { 'v.yaml': Buffer.from(`\ufeff${VALUES}`, 'utf16le') },
  ['v.yaml'],
  "import: v.yaml is not UTF-8 text (PowerShell's > may have written UTF-16); convert it.",
);
test(
  'another encoding',
  refuses,
  { 'v.yaml': Buffer.from(VALUES.replace('K7m', 'é'), 'latin1') },
  ['v.yaml'],
  "import: v.yaml is not UTF-8 text (PowerShell's > may have written UTF-16); convert it.",
);
test(
  'no YAML',
  refuses,
  { 'v.yaml': VALUES.replace('mtu: ""', ' mtu: ""') },
  ['v.yaml'],
  'import: v.yaml is not YAML: bad indentation of a sequence entry in line 6.',
);
test(
  'every problem',
  refuses,
  { 'v.yaml': VALUES.replace('172.16.0.0/16', '172.16.0.1/16').replace('mtu', 'mtus').replace('\n  peer', '\n  pear') },
  ['v.yaml'],
  `[error] (v.yaml) peerCIDRs[0]: has host bits set: the network is 172.16.0.0/16 (proposed: "172.16.0.0/16")
[error] (v.yaml) ipsec.peer: is empty, the chart's default: write the IP address or DNS name of the on-prem gateway
[error] (v.yaml) ipsec.pear: is not a known field; did you mean peer?
[error] (v.yaml) mtus: is not a known field; did you mean mtu?`,
);
test(
  'a key with a line break',
  refuses,
  { 'v.yaml': VALUES.replace(/psk: .*/, `psk: |\n    ${PSK}`) },
  ['v.yaml'],
  '[error] (v.yaml) ipsec.psk: holds a line break or another control character: the other gateway would read a different key; remove it (in YAML write the key in one line, in single quotes)',
);
test(
  '--out is a file',
  refuses,
  { 'v.yaml': VALUES, out: '' },
  ['v.yaml', '--out', 'out'],
  "import: out can't be written to (EEXIST); nothing was written.",
);
test(
  'a folder in the way',
  refuses,
  { 'v.yaml': VALUES, 'vpn.yaml/file': '' },
  ['v.yaml', '--force'],
  'import: vpn.yaml is a folder; name another one for the files with --out DIR.',
);
test(
  'the values in the way',
  refuses,
  { 'vpn.yaml': VALUES },
  ['vpn.yaml', '--force'],
  'import: vpn.yaml is the file with the values itself; name another folder with --out DIR.',
);

test('all files or none', async (tt) => {
  const folder = await makeFolder(tt, { old: 'before', 'b/file': '' });
  const files = ['old', 'new', 'b'].map((name) => ({ path: join(folder, name), text: 'after', mode: 0o600 }));
  await tt.throwsAsync(writeAll(files), { code: 'EISDIR' });
  tt.deepEqual((await readdir(folder)).sort(), ['b', 'old']);
  tt.is(await readFile(join(folder, 'old'), 'utf8'), 'before');
  await writeAll(files.slice(0, 2));
  tt.deepEqual((await readdir(folder)).sort(), ['b', 'new', 'old']);
  tt.is(await readFile(join(folder, 'old'), 'utf8'), 'after');
});

test('--help', async (tt) => {
  const { exitCode, stdout } = await run(ROOT, ['--help']);
  tt.regex(stdout, /^Usage: npm run import/);
  tt.is(exitCode, 0);
});

const from = test.macro((tt, env: NodeJS.ProcessEnv, folder: string) => tt.is(userFolder(env, '/package'), folder));
test('npm run import', from, { npm_lifecycle_event: 'import', INIT_CWD: '/user' }, '/user');
test('node cli/import.ts', from, {}, '/package');
test('started by another script of npm', from, { npm_lifecycle_event: 'test', INIT_CWD: '/user' }, '/package');

const belongs = test.macro((tt, dir: string, program: string, schema: string, isThere: boolean, render: string) => {
  const places = { program, schema: `${schema}/constellation-vpn.schema.json` };
  tt.deepEqual(homeOf(dir, '/p'), { places, isThere, render });
});
const plain = 'functions/dist/constellation-vpn';
test('in the default place', belongs, '/p/functions/config', plain, '../schema', true, '');
test('in the root', belongs, '/p', plain, '../schema', false, '');
test('elsewhere', belongs, '/q/overlays/a/functions', plain, '../schema', false, '');
test('in functions', belongs, '/p/functions', plain, '../schema', false, '');
test(
  'in an overlay',
  belongs,
  '/p/overlays/a/functions',
  `../../${plain}`,
  '../../../functions/schema',
  true,
  ' -- overlays/a',
);

/** A copy of what rendering and importing need of the project. */
async function checkout(tt: ExecutionContext): Promise<string> {
  const folder = await makeFolder(tt, { 'work/values.yaml': VALUES });
  for (const path of ['base', 'cli', 'functions', 'overlays/gcp', 'kustomization.yaml', 'package.json'])
    await cp(join(ROOT, path), join(folder, path), { recursive: true });
  await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  return folder;
}

interface Manifest {
  kind: string;
  metadata: { name: string };
  data: Record<string, string>;
  spec: { template: { spec: { volumes: { name: string; projected?: unknown }[] } } };
}

const renders = test.macro(async (tt, out: string, dir: string) => {
  const folder = await checkout(tt);
  const { exitCode, stderr } = await run(join(folder, 'work'), ['values.yaml', '--out', out, '--force'], folder);
  tt.is(exitCode, 0, stderr);
  // as a user with encrypted Secrets does it
  const kustomization = join(folder, dir, 'kustomization.yaml');
  const secret = join(folder, 'work', out, 'vpn-psk.secret.yaml');
  await cp(secret, join(folder, dir, 'vpn-psk.secret.yaml'));
  await writeFile(
    kustomization,
    (await readFile(kustomization, 'utf8')).replace('resources:', 'resources:\n  - vpn-psk.secret.yaml'),
  );
  const { path } = await findTool('kustomize');
  const args = ['build', '--enable-alpha-plugins', '--enable-exec', join(folder, dir)];
  const { stdout } = await execa(path, args);
  const objects = loadAll(stdout) as Manifest[];
  const named = (kind: string, name: string) =>
    objects.find((object) => object.kind === kind && object.metadata.name === name);
  tt.false(objects.some(({ kind }) => kind === 'UnrenderedManifests'));
  tt.is(named('Secret', 'vpn-psk')?.data.psk, Buffer.from(PSK).toString('base64'));
  const config = JSON.parse(named('ConfigMap', 'vpn-config')?.data['config.json'] ?? '') as Record<string, unknown>;
  tt.like(config.spec ?? config, {
    sites: [{ peerCIDRs: ['10.8.0.0/24', '172.16.0.0/16'], mtu: null, ipsec: { peer: 'vpn.example.com' } }],
  });
  const volumes = named('StatefulSet', 'vpn-frontend')?.spec.template.spec.volumes;
  tt.deepEqual(volumes?.find(({ name }) => name === 'ipsec')?.projected, {
    defaultMode: 288,
    sources: [{ secret: { name: 'vpn-psk', items: [{ key: 'psk', path: 'psk' }] } }],
  });
});
test('renders as the default configuration', renders, '../functions/config', '.');
test("renders as an overlay's", renders, '../overlays/gcp/functions', 'overlays/gcp');

test("npm run import writes into the caller's folder", async (tt) => {
  const folder = await checkout(tt);
  const cwd = join(folder, 'work');
  await execa('npm', ['run', '--silent', 'import', '--', 'values.yaml'], { cwd });
  tt.deepEqual((await readdir(cwd)).sort(), ['values.yaml', ...FILES]);
});
