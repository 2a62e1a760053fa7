import { cp, mkdir, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { dump, load, loadAll } from 'js-yaml';
import { ensureBaseImage } from '../../scripts/base-image.ts';
import { FUNCTIONS } from '../../scripts/build.ts';
import { setUpContainers, type ContainerEnv } from '../../scripts/container-setup.ts';
import { findTool } from '../../scripts/tools.ts';

// The image of functions/Containerfile, built for real and run by podman, kpt and kustomize. Whatever the executables in
// functions/dist do, the image has to do too: each test compares the two.

const root = join(import.meta.dirname, '../..');
const image = (name: string): string => `localhost/constellation-vpn/${name}:test`;
const executable = (name: string): string => join(root, 'functions/dist', name);

/** As kpt and kustomize do, and stricter: the root file system is read-only. */
const sandbox = [
  '--rm',
  '--interactive',
  '--network=none',
  '--user=nobody',
  '--security-opt=no-new-privileges',
  '--read-only',
  '--pull=never',
];
const maxBytes = 130_000_000;

let env: ContainerEnv;
let scratch: string;

test.before('build', async (tt) => {
  tt.timeout(20 * 60_000);
  scratch = await realpath(await mkdtemp(join(tmpdir(), 'constellation-vpn-')));
  env = await setUpContainers();
  const containerfile = join(root, 'functions/Containerfile');
  const base = /^FROM (\S+) AS debian$/m.exec(await readFile(containerfile, 'utf8'))?.[1];
  await ensureBaseImage(base!, env, (line) => tt.log(line));
  for (const name of FUNCTIONS) {
    const args = [
      '--isolation=chroot',
      '--layers',
      `--file=${containerfile}`,
      `--target=${name}`,
      `--tag=${image(name)}`,
    ];
    await execa('buildah', ['build', ...args, join(root, 'functions')], { env, timeout: 15 * 60_000 });
  }
  // Layers serve as the next build's cache, but not for ever.
  await execa('podman', ['image', 'prune', '--force', '--filter=until=168h'], { env });
});

test.after.always('clean up', async () => {
  await rm(scratch, { recursive: true, force: true });
});

for (const name of FUNCTIONS) {
  test.serial(`${name}: a ResourceList comes out as from the executable`, async (tt) => {
    const input = await resourceList();
    const expected = await execa(executable(name), { input, stripFinalNewline: false });
    const actual = await execa('podman', ['run', ...sandbox, image(name)], { input, env, stripFinalNewline: false });
    tt.is(actual.stdout, expected.stdout);
    tt.is(actual.stderr, expected.stderr);
    tt.regex(actual.stdout, /^kind: ResourceList$/m);
  });

  test.serial(`${name}: a mistake fails as in the executable`, async (tt) => {
    const input = 'kind: Pod\n';
    const expected = await execa(executable(name), { input, reject: false });
    const actual = await execa('podman', ['run', ...sandbox, image(name)], { input, env, reject: false });
    tt.is(actual.exitCode, 1);
    tt.is(actual.stdout, expected.stdout);
    tt.is(actual.stderr, expected.stderr);
  });

  test.serial(`${name}: --help and kpt fn doc print its usage`, async (tt) => {
    const { stdout: expected } = await execa(executable(name), ['--help']);
    const help = await execa('podman', ['run', ...sandbox, image(name), '--help'], { env });
    tt.is(help.stdout, expected);
    tt.not(expected, '');
    const doc = await execa(await kpt(), ['fn', 'doc', '--image', image(name)], { env });
    tt.is(doc.stdout.trim(), expected.trim());
  });
}

test.serial('kpt fn render gives the same with images as with executables', async (tt) => {
  const [execs, images] = [await kptPackage('execs'), await kptPackage('images')];
  const kptfile = await readFile(join(images, 'Kptfile'), 'utf8');
  const changed = kptfile.replaceAll(
    /exec: ["']?functions\/dist\/([a-z-]+)["']?/g,
    (_, name) => `image: ${image(name)}`,
  );
  tt.true(changed.includes(image('validate-vpn')));
  await writeFile(join(images, 'Kptfile'), changed);

  const render = async (folder: string, ...flags: string[]): Promise<string> =>
    (await execa(await kpt(), ['fn', 'render', folder, '--output=unwrap', ...flags], { env, cwd: root })).stdout;
  const withoutKptfile = (yaml: string): string => yaml.replace(/^apiVersion: kpt.dev[^]*?^---$/m, '');
  const expected = withoutKptfile(await render(execs, '--allow-exec'));
  tt.is(withoutKptfile(await render(images)), expected);
  tt.regex(expected, /^kind: StatefulSet$/m);
  tt.notRegex(expected, /^kind: UnrenderedManifests$/m);
});

test.serial('kpt fn eval runs an image', async (tt) => {
  const folder = await kptPackage('eval');
  const args = ['fn', 'eval', folder, '--output=unwrap', '--fn-config', join(folder, 'functions/config/vpn.yaml')];
  const name = 'constellation-vpn';
  const expected = await execa(await kpt(), [...args, '--exec', executable(name)], { env });
  const actual = await execa(await kpt(), [...args, '--image', image(name)], { env });
  tt.is(actual.stdout, expected.stdout);
  tt.notRegex(actual.stdout, /^kind: UnrenderedManifests$/m);
});

test.serial('kustomize build gives the same with the image as with the executable', async (tt) => {
  // What a user would write to have the container form: the function's annotation patched in a copy of the root.
  const path = (to: string): string => relative(join(scratch, 'kustomize'), join(root, to));
  await mkdir(join(scratch, 'kustomize/functions'), { recursive: true });
  await writeFile(
    join(scratch, 'kustomize/kustomization.yaml'),
    dump({ resources: [path('base')], transformers: ['functions'] }),
  );
  const container = { container: { image: image('constellation-vpn') } };
  const annotations = { 'config.kubernetes.io/function': dump(container) };
  await writeFile(
    join(scratch, 'kustomize/functions/kustomization.yaml'),
    dump({
      resources: [join('..', path('functions/config'))],
      patches: [
        {
          target: { kind: 'ConstellationVPN' },
          patch: dump({ kind: 'any', metadata: { name: 'any', annotations } }),
        },
      ],
    }),
  );
  const build = async (folder: string, ...flags: string[]): Promise<string> =>
    (await execa(await kustomize(), ['build', '--enable-alpha-plugins', ...flags, folder], { env })).stdout;
  const expected = await build(root, '--enable-exec');
  tt.is(await build(join(scratch, 'kustomize')), expected);
  tt.notRegex(expected, /^kind: UnrenderedManifests$/m);
});

test.serial('the image holds Node, the five functions, and nothing else', async (tt) => {
  const { stdout: id } = await execa('podman', ['create', image('constellation-vpn')], { env });
  tt.teardown(async () => void (await execa('podman', ['rm', id], { env })));
  const tarball = join(scratch, 'image.tar'); // podman opens /dev/stdout, which fails where that is a socket
  await execa('podman', ['export', `--output=${tarball}`, id], { env });
  const { stdout } = await execa('tar', ['--list', '--verbose', `--file=${tarball}`]);
  const files = stdout.split('\n').flatMap((line) => /^[^d].*:\d\d (.+?)( -> .*)?$/.exec(line)?.[1] ?? []);
  const expected = [
    /^lib(64)?\/([a-z0-9_-]+\/)?(ld-linux|lib)[a-z0-9_+-]+\.so\.[0-9.]+$/,
    /^etc\/(passwd|group)$/,
    /^usr\/bin\/node$/,
    /^usr\/share\/nodejs\/.+\.js$/,
    /^usr\/share\/doc\/[^/]+\/copyright$/,
    ...FUNCTIONS.map((name) => new RegExp(`^usr/local/bin/${name}$`)),
  ];
  tt.deepEqual(
    files.filter((file) => !expected.some((pattern) => pattern.test(file))),
    [],
  );
  tt.deepEqual(
    expected.filter((pattern) => !files.some((file) => pattern.test(file))),
    [],
  );
});

test.serial('the five images are small, share their layers, and say what they are', async (tt) => {
  const { stdout } = await execa('podman', ['image', 'inspect', ...FUNCTIONS.map(image)], { env });
  const inspected: {
    Size: number;
    RootFS: { Layers: string[] };
    Config: { User: string; Env: string[]; Labels: Record<string, string> };
  }[] = JSON.parse(stdout);
  tt.log(`${Math.ceil(inspected[0]!.Size / 1e6)} MB`);
  for (const [i, { Size, RootFS, Config }] of inspected.entries()) {
    tt.true(Size < maxBytes, `${Size} bytes`);
    tt.deepEqual(RootFS.Layers, inspected[0]!.RootFS.Layers);
    tt.is(Config.User, '65534:65534');
    tt.true(Config.Env.every((it) => it.startsWith('PATH=')));
    tt.is(Config.Labels['org.opencontainers.image.title'], FUNCTIONS[i]);
    tt.is(Config.Labels['org.opencontainers.image.licenses'], 'Apache-2.0');
  }
});

const kpt = async (): Promise<string> => (await findTool('kpt')).path;
const kustomize = async (): Promise<string> => (await findTool('kustomize')).path;

/** The base and the default configuration, as a tool hands them to a function. */
async function resourceList(): Promise<string> {
  const { stdout } = await execa(await kustomize(), ['build', join(root, 'base')]);
  return dump({
    apiVersion: 'config.kubernetes.io/v1',
    kind: 'ResourceList',
    items: loadAll(stdout),
    functionConfig: load(await readFile(join(root, 'functions/config/vpn.yaml'), 'utf8')),
  });
}

/** A copy of the repository's kpt package. */
async function kptPackage(name: string): Promise<string> {
  const folder = join(scratch, name);
  for (const it of ['Kptfile', '.krmignore', 'base', 'functions/config']) {
    await cp(join(root, it), join(folder, it), { recursive: true });
  }
  return folder;
}
