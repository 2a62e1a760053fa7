import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import {
  cacheFolder,
  checkVersion,
  compareVersions,
  findTool,
  kubernetesVersionFlags,
  missingMessage,
  parseVersion,
  pinnedVersion,
  ToolMissing,
  type ToolName,
} from './tools.ts';

const parsed = test.macro((tt, text: string, version: string | undefined) => tt.is(parseVersion(text), version));
test('kustomize 5', parsed, 'v5.8.2\n', '5.8.2');
test('kustomize 4', parsed, '{Version:kustomize/v4.5.7 GitCommit:56d82a8 BuildDate:2022-08-02T16:35:54Z}', '4.5.7');
test('kpt', parsed, '1.0.0-beta.56\n', '1.0.0-beta.56');
test('kube-apiserver', parsed, 'Kubernetes v1.34.4\n', '1.34.4');
test('kubectl', parsed, 'Client Version: v1.34.4\nKustomize Version: v5.7.1\n', '1.34.4');
test(
  'etcd',
  parsed,
  'etcd Version: 3.6.8\nGit SHA: Not provided\nGo Version: go1.26.8\nGo OS/Arch: linux/amd64\n',
  '3.6.8',
);
test('kustomize from a checkout', parsed, '(devel)\n', undefined);
test('kpt from `go install`', parsed, 'unknown\n', undefined);

const ordered = test.macro((tt, ...versions: string[]) => {
  tt.deepEqual(versions.toReversed().sort(compareVersions), versions);
});
test('numbers, not text', ordered, '4.5.7', '5.0.0', '5.0.10', '5.9.0', '5.10.0', '10.0.0');
test('prereleases', ordered, '1.0.0-alpha', '1.0.0-beta.9', '1.0.0-beta.50', '1.0.0-beta.50.1', '1.0.0-rc.1', '1.0.0');
test('the same', (tt) => tt.is(compareVersions('1.0.0-beta.50', '1.0.0-beta.50'), 0));

const checked = test.macro((tt, output: string, expected: ReturnType<typeof checkVersion>) => {
  tt.deepEqual(checkVersion(output, '5.0.0'), expected);
});
test('exactly the oldest', checked, 'v5.0.0', { version: '5.0.0' });
test('too old', checked, 'v4.5.7', { fault: 'is version 4.5.7, older than 5.0.0' });
test('a prerelease of the oldest', checked, 'v5.0.0-rc.1', { fault: 'is version 5.0.0-rc.1, older than 5.0.0' });
test('no version', checked, '(devel)\n', { fault: 'doesn\'t tell its version (it prints "(devel)")' });

const pinned = test.macro((tt, goMod: string, version: string) => tt.is(pinnedVersion(goMod, 'a.b/c'), version));
test('require on its own', pinned, 'module m\n\nrequire a.b/c v1.2.3\n', 'v1.2.3');
test('require block', pinned, 'tool a.b/c\n\nrequire (\n\ta.b/c/d v0.1.0\n\ta.b/c v1.2.3 // indirect\n)\n', 'v1.2.3');
test('no require', (tt) => {
  tt.throws(() => pinnedVersion('tool a.b/c\n', 'a.b/c'), { message: 'go.mod requires no a.b/c' });
});

const cached = test.macro((tt, env: NodeJS.ProcessEnv, folder: string) => tt.is(cacheFolder(env), folder));
const xdg = { HOME: '/home/a', XDG_CACHE_HOME: '/x' };
test('cache of its own', cached, { ...xdg, CONSTELLATION_VPN_CACHE: '/own' }, '/own');
test('cache of its own, relative', cached, { CONSTELLATION_VPN_CACHE: 'own', INIT_CWD: '/here' }, '/here/own');
test('XDG_CACHE_HOME', cached, xdg, '/x/constellation-vpn');
test('XDG_CACHE_HOME, relative', cached, { ...xdg, XDG_CACHE_HOME: 'x' }, '/home/a/.cache/constellation-vpn');
test('home', cached, { HOME: '/home/a', XDG_CACHE_HOME: '' }, '/home/a/.cache/constellation-vpn');

test('message', (tt) => {
  const message = missingMessage({
    name: 'kpt',
    pinned: 'v1.0.0-beta.60',
    passedOver: ['/a/kpt is version 0.9.0, older than 1.0.0-beta.50', "/b/kpt doesn't run (EACCES)"],
    path: '/c/tools/kpt-v1.0.0-beta.60',
    cached: 'is not there',
    reason: '`go build` failed in /m/kpt',
    output: Array.from({ length: 20 }, (_, i) => `line ${i + 1}`).join('\n'),
  });
  tt.is(
    message,
    `kpt 1.0.0-beta.50 or newer was not found:
  $KPT is not set
  PATH has none that can be used: /a/kpt is version 0.9.0, older than 1.0.0-beta.50; /b/kpt doesn't run (EACCES)
  /c/tools/kpt-v1.0.0-beta.60 is not there
  building v1.0.0-beta.60 didn't work: \`go build\` failed in /m/kpt
Any one of these helps:
  set KPT=/path/to/kpt
  install kpt so that it is on PATH: https://kpt.dev/installation/kpt-cli/
  install Go, which then downloads and builds kpt v1.0.0-beta.60 at the next run: https://go.dev/doc/install
Go said:
${Array.from({ length: 15 }, (_, i) => `  line ${i + 6}`).join('\n')}`,
  );
});

test('message for what setup-envtest has', (tt) => {
  const message = missingMessage({
    name: 'etcd',
    pinned: 'v3.6.8',
    passedOver: [],
    path: '/c/tools/etcd-v3.6.8',
    cached: 'is not there',
    reason: 'go is not on PATH',
  });
  tt.is(
    message,
    `etcd 3.4.0 or newer was not found:
  $ETCD is not set
  $KUBEBUILDER_ASSETS is not set
  PATH has none
  /c/tools/etcd-v3.6.8 is not there
  building v3.6.8 didn't work: go is not on PATH
Any one of these helps:
  set ETCD=/path/to/etcd
  set KUBEBUILDER_ASSETS=/folder/with/etcd, as setup-envtest makes it
  install etcd so that it is on PATH: https://etcd.io/docs/latest/install/
  install Go, which then downloads and builds etcd v3.6.8 at the next run: https://go.dev/doc/install`,
  );
});

test('Kubernetes: the version for the linker', (tt) => {
  tt.deepEqual(kubernetesVersionFlags('v1.34.4'), [
    '-X k8s.io/component-base/version.gitVersion=v1.34.4',
    '-X k8s.io/component-base/version.gitMajor=1',
    '-X k8s.io/component-base/version.gitMinor=34',
    '-X k8s.io/client-go/pkg/version.gitVersion=v1.34.4',
    '-X k8s.io/client-go/pkg/version.gitMajor=1',
    '-X k8s.io/client-go/pkg/version.gitMinor=34',
  ]);
});

// Lookup, among shell scripts that stand in for the tools and for Go. `~` is a folder of the test's own; ~/bin and ~/more
// are on PATH, ~/go/<folder>/go.mod pins kustomize v5.8.2, Kubernetes v1.34.4 and etcd v3.6.8.

const prints = (output: string) => `echo '${output}'`;
const fails = (output: string) => `echo '${output}' >&2; exit 1`;
/** A `go` that builds such a script, and then runs `after`. */
const goThatBuilds = (body: string, after = '') =>
  `PATH=/usr/bin:/bin; while [ "$1" != -o ]; do shift; done
printf '%s\\n' '#!/bin/sh' "${body}" > "$2"; chmod +x "$2"; ${after}`;

interface Case {
  /** Executable shell scripts by path below `~`. */
  scripts: Record<string, string>;
  env?: NodeJS.ProcessEnv;
  name?: ToolName;
}

async function prepare(tt: ExecutionContext, { scripts, env = {} }: Case) {
  const home = await mkdtemp(join(tmpdir(), 'tools-'));
  tt.teardown(() => rm(home, { recursive: true }));
  for (const [path, body] of Object.entries(scripts)) {
    await mkdir(dirname(join(home, path)), { recursive: true });
    await writeFile(join(home, path), `#!/bin/sh\n${body}\n`);
    await chmod(join(home, path), 0o755);
  }
  const modules = {
    kustomize: 'sigs.k8s.io/kustomize/kustomize/v5 v5.8.2',
    'kubectl-validate': 'sigs.k8s.io/kubectl-validate v0.0.4',
    kubernetes: 'k8s.io/kubernetes v1.34.4',
    etcd: 'go.etcd.io/etcd/server/v3 v3.6.8',
    runc: 'github.com/opencontainers/runc v1.4.4',
  };
  for (const [name, required] of Object.entries(modules)) {
    await mkdir(join(home, 'go', name), { recursive: true });
    await writeFile(join(home, 'go', name, 'go.mod'), `module m\n\nrequire ${required}\n`);
  }
  const lines: string[] = [];
  const long = (text: string) => text.replaceAll('~', home);
  return {
    home,
    lines,
    /** Shows `~` for the folder, and N for what differs from run to run. */
    short: (text: string) => text.replaceAll(home, '~').replace(/\b\d+ s$/, 'N s'),
    deps: {
      env: Object.fromEntries(
        Object.entries({ PATH: '~/bin:~/more', CONSTELLATION_VPN_CACHE: '~/cache', INIT_CWD: '~', ...env }).map(
          ([key, value]) => [key, long(value ?? '')],
        ),
      ),
      log: (line: string) => void lines.push(line),
      modules: join(home, 'go'),
      tickMs: 60_000,
    },
  };
}

/** Expected: 'origin version path', then the lines of progress. */
const finds = test.macro(async (tt, input: Case, expected: string, progress: string[] = []) => {
  const { deps, lines, short } = await prepare(tt, input);
  const { origin, version, path } = await findTool(input.name ?? 'kustomize', deps);
  tt.is(short(`${origin} ${version} ${path}`), expected);
  tt.deepEqual(lines.map(short), progress);
});

const refuses = test.macro(async (tt, input: Case, expected: string | RegExp) => {
  const { deps, home, short } = await prepare(tt, input);
  const error = await tt.throwsAsync(findTool(input.name ?? 'kustomize', deps), { instanceOf: ToolMissing });
  const message = error.message.split('\n').map(short).join('\n');
  if (typeof expected === 'string') tt.is(message, expected);
  else tt.regex(message, expected);
  tt.deepEqual(await readdir(join(home, 'cache/tools')).catch(() => []), [], 'nothing is left in the cache');
});

const building = 'kustomize: not found, building v5.8.2 with Go into ~/cache/tools (may take minutes, once)';
const everywhere = {
  'own/kustomize': prints('v5.1.1'),
  'bin/kustomize': prints('v5.2.2'),
  'more/kustomize': prints('v5.3.3'),
  'cache/tools/kustomize-v5.8.2': prints('v5.8.2'),
  'bin/go': fails('called for nothing'),
};
const among = (env: NodeJS.ProcessEnv): Case => ({ scripts: everywhere, env });

test('variable first', finds, among({ KUSTOMIZE: '~/own/kustomize' }), '$KUSTOMIZE 5.1.1 ~/own/kustomize');
test('variable, relative', finds, among({ KUSTOMIZE: 'own/kustomize' }), '$KUSTOMIZE 5.1.1 ~/own/kustomize');
test('variable, bare name', finds, among({ KUSTOMIZE: 'kustomize' }), '$KUSTOMIZE 5.2.2 ~/bin/kustomize');
test('variable, empty', finds, among({ KUSTOMIZE: '' }), 'PATH 5.2.2 ~/bin/kustomize');
test('PATH second', finds, among({}), 'PATH 5.2.2 ~/bin/kustomize');
test('cache third', finds, among({ PATH: '' }), 'cache 5.8.2 ~/cache/tools/kustomize-v5.8.2');
test(
  'Go last',
  finds,
  { scripts: { 'bin/go': goThatBuilds('echo v5.8.2') } },
  'go build 5.8.2 ~/cache/tools/kustomize-v5.8.2',
  [building, 'kustomize: built in N s'],
);

test(
  'an old one on PATH is passed over',
  finds,
  { scripts: { 'bin/kustomize': prints('{Version:kustomize/v4.5.7}'), 'more/kustomize': prints('v5.3.3') } },
  'PATH 5.3.3 ~/more/kustomize',
  ['kustomize: passed over, ~/bin/kustomize is version 4.5.7, older than 5.0.0'],
);
test(
  'a folder that is on PATH twice is looked at once',
  finds,
  {
    scripts: { 'bin/kustomize': prints('v4.5.7'), 'more/kustomize': prints('v5.3.3') },
    env: { PATH: '~/bin:~/bin:~/more' },
  },
  'PATH 5.3.3 ~/more/kustomize',
  ['kustomize: passed over, ~/bin/kustomize is version 4.5.7, older than 5.0.0'],
);
test(
  'one on PATH that fails is passed over',
  finds,
  { scripts: { 'bin/kustomize': fails('no component manager'), 'more/kustomize': prints('v5.3.3') } },
  'PATH 5.3.3 ~/more/kustomize',
  ["kustomize: passed over, ~/bin/kustomize doesn't run (no component manager)"],
);
test(
  'a folder of that name on PATH',
  finds,
  { scripts: { 'bin/kustomize/x': '', 'more/kustomize': prints('v5.3.3') } },
  'PATH 5.3.3 ~/more/kustomize',
);
test('a relative folder on PATH', async (tt) => {
  const { deps, home } = await prepare(tt, among({}));
  const PATH = [relative(process.cwd(), join(home, 'bin')), join(home, 'more')].join(':');
  const { path } = await findTool('kustomize', { ...deps, env: { ...deps.env, PATH } });
  tt.is(path, join(home, 'more/kustomize'));
});
test(
  'a broken one in the cache',
  finds,
  { scripts: { 'cache/tools/kustomize-v5.8.2': fails('truncated'), 'bin/go': goThatBuilds('echo v5.8.2') } },
  'go build 5.8.2 ~/cache/tools/kustomize-v5.8.2',
  [
    "kustomize: ~/cache/tools/kustomize-v5.8.2 doesn't run (truncated), so it is built again",
    building,
    'kustomize: built in N s',
  ],
);
test(
  'a tool that cannot tell its version',
  finds,
  { name: 'kubectl-validate', scripts: { 'bin/kubectl-validate': prints('Usage:') } },
  'PATH unknown ~/bin/kubectl-validate',
);
test(
  'the same one in the cache',
  finds,
  { name: 'kubectl-validate', scripts: { 'cache/tools/kubectl-validate-v0.0.4': prints('Usage:') } },
  'cache 0.0.4 ~/cache/tools/kubectl-validate-v0.0.4',
);

const envtest = (env: NodeJS.ProcessEnv): Case => ({
  name: 'etcd',
  scripts: {
    'own/etcd': prints('3.4.1'),
    'assets/etcd': prints('3.4.2'),
    'bin/etcd': prints('3.4.3'),
    'assets/kustomize': prints('v5.9.9'),
    'bin/kustomize': prints('v5.2.2'),
  },
  env,
});
const assets = { KUBEBUILDER_ASSETS: '~/assets' };
test(
  '$KUBEBUILDER_ASSETS after the own variable',
  finds,
  envtest({ ...assets, ETCD: '~/own/etcd' }),
  '$ETCD 3.4.1 ~/own/etcd',
);
test('$KUBEBUILDER_ASSETS before PATH', finds, envtest(assets), '$KUBEBUILDER_ASSETS 3.4.2 ~/assets/etcd');
test(
  '$KUBEBUILDER_ASSETS, relative',
  finds,
  envtest({ KUBEBUILDER_ASSETS: 'assets' }),
  '$KUBEBUILDER_ASSETS 3.4.2 ~/assets/etcd',
);
test('$KUBEBUILDER_ASSETS, empty', finds, envtest({ KUBEBUILDER_ASSETS: '' }), 'PATH 3.4.3 ~/bin/etcd');
test(
  '$KUBEBUILDER_ASSETS is not for kustomize',
  finds,
  { ...envtest(assets), name: 'kustomize' },
  'PATH 5.2.2 ~/bin/kustomize',
);
test(
  '$KUBEBUILDER_ASSETS, no such file',
  refuses,
  { ...envtest(assets), name: 'kubectl' },
  /^\$KUBEBUILDER_ASSETS is ~\/assets, which can't be used: ~\/assets\/kubectl doesn't run \(.*ENOENT.*\)\.$/,
);
test(
  '$KUBEBUILDER_ASSETS, too old',
  refuses,
  {
    name: 'kube-apiserver',
    scripts: {
      'assets/kube-apiserver': prints('Kubernetes v1.29.9'),
      'bin/kube-apiserver': prints('Kubernetes v1.34.4'),
    },
    env: assets,
  },
  "$KUBEBUILDER_ASSETS is ~/assets, which can't be used: ~/assets/kube-apiserver is version 1.29.9, older than 1.30.0.",
);
test(
  'an old etcd on PATH is passed over',
  finds,
  { name: 'etcd', scripts: { 'bin/etcd': prints('etcd Version: 3.3.27'), 'more/etcd': prints('etcd Version: 3.4.0') } },
  'PATH 3.4.0 ~/more/etcd',
  ['etcd: passed over, ~/bin/etcd is version 3.3.27, older than 3.4.0'],
);
test(
  'etcd in the cache',
  finds,
  { name: 'etcd', scripts: { 'cache/tools/etcd-v3.6.8': prints('etcd Version: 3.6.8') } },
  'cache 3.6.8 ~/cache/tools/etcd-v3.6.8',
);
test(
  'kubectl is not asked for the version of a cluster',
  finds,
  { name: 'kubectl', scripts: { 'bin/kubectl': `[ "$*" = 'version --client' ] && echo 'Client Version: v1.30.0'` } },
  'PATH 1.30.0 ~/bin/kubectl',
);
test(
  'one of several tools of a module',
  finds,
  { name: 'kube-apiserver', scripts: { 'bin/go': goThatBuilds('echo Kubernetes v1.34.4') } },
  'go build 1.34.4 ~/cache/tools/kube-apiserver-v1.34.4',
  [
    'kube-apiserver: not found, building v1.34.4 with Go into ~/cache/tools (about 5 minutes on two cores, once)',
    'kube-apiserver: built in N s',
  ],
);

const chosen = (body: string, KUSTOMIZE: string): Case => ({
  scripts: { 'own/kustomize': body, 'bin/kustomize': prints('v5.2.2') },
  env: { KUSTOMIZE },
});
test(
  'variable, too old',
  refuses,
  chosen(prints('v4.5.7'), 'own/kustomize'),
  "$KUSTOMIZE is own/kustomize, which can't be used: ~/own/kustomize is version 4.5.7, older than 5.0.0.",
);
test(
  'variable, fails',
  refuses,
  chosen(fails('no such thing'), '~/own/kustomize'),
  "$KUSTOMIZE is ~/own/kustomize, which can't be used: ~/own/kustomize doesn't run (no such thing).",
);
test(
  'variable, fails silently',
  refuses,
  chosen('exit 3', '~/own/kustomize'),
  "$KUSTOMIZE is ~/own/kustomize, which can't be used: ~/own/kustomize doesn't run (exit code 3).",
);
test(
  'variable, no such file',
  refuses,
  chosen('', './none'),
  /^\$KUSTOMIZE is \.\/none, which can't be used: ~\/none doesn't run \(.*ENOENT.*\)\.$/,
);
test('variable, bare name that is not there', refuses, chosen('', 'none'), '$KUSTOMIZE is none, which is not on PATH.');

test(
  'no Go',
  refuses,
  { scripts: { 'bin/kustomize': prints('v4.5.7') } },
  `kustomize 5.0.0 or newer was not found:
  $KUSTOMIZE is not set
  PATH has none that can be used: ~/bin/kustomize is version 4.5.7, older than 5.0.0
  ~/cache/tools/kustomize-v5.8.2 is not there
  building v5.8.2 didn't work: go is not on PATH
Any one of these helps:
  set KUSTOMIZE=/path/to/kustomize
  install kustomize so that it is on PATH: https://kubectl.docs.kubernetes.io/installation/kustomize/
  install Go, which then downloads and builds kustomize v5.8.2 at the next run: https://go.dev/doc/install`,
);
test(
  'Go fails',
  refuses,
  { scripts: { 'bin/go': 'echo one; echo two >&2; exit 1' } },
  /: `go build` failed in ~\/go\/kustomize\n(.*\n)+Go said:\n {2}one\n {2}two$/,
);
test(
  'Go fails halfway through writing',
  refuses,
  { scripts: { 'bin/go': goThatBuilds('echo v5.8.2', 'exit 2') } },
  /`go build` failed/,
);
test(
  'a folder for the cache that cannot be made',
  refuses,
  { scripts: { cache: '', 'bin/go': goThatBuilds('echo v5.8.2') } },
  /: the cache folder can't be made: E(EXIST|NOTDIR)/,
);

test('what Go builds does not run', async (tt) => {
  const { deps } = await prepare(tt, { scripts: { 'bin/go': goThatBuilds('exit 1') } });
  await tt.throwsAsync(findTool('kustomize', deps), {
    instanceOf: ToolMissing,
    message: /didn't work: the one just built doesn't run \(exit code 1\)/,
  });
});

test('two at the same time', async (tt) => {
  const { deps, home } = await prepare(tt, { scripts: { 'bin/go': goThatBuilds('echo v5.8.2', 'sleep 0.3') } });
  const tools = await Promise.all([findTool('kustomize', deps), findTool('kustomize', deps)]);
  tt.deepEqual(tools[0], tools[1]);
  tt.deepEqual(await readdir(join(home, 'cache/tools')), ['kustomize-v5.8.2']);
});

test('a long build shows that it goes on', async (tt) => {
  const { deps, lines } = await prepare(tt, { scripts: { 'bin/go': goThatBuilds('echo v5.8.2', 'sleep 0.5') } });
  await findTool('kustomize', { ...deps, tickMs: 50 });
  tt.regex(lines[1] ?? '', /^kustomize: building for \d+ s$/);
  tt.regex(lines.at(-1) ?? '', /^kustomize: built in \d+ s$/);
});

test('Go is told nothing by the caller that would change the build', async (tt) => {
  const script = `echo "$(pwd) $* GOOS=$GOOS GOWORK=$GOWORK CGO_ENABLED=$CGO_ENABLED" >&2; exit 1`;
  const { deps, short } = await prepare(tt, { scripts: { 'bin/go': script }, env: { GOOS: 'plan9' } });
  const { message } = await tt.throwsAsync(findTool('kustomize', deps), { instanceOf: ToolMissing });
  tt.regex(
    short(message),
    /\n {2}~\/go\/kustomize build -mod=readonly -trimpath -tags  -ldflags -s -w -o \S+ tool GOOS= GOWORK=off CGO_ENABLED=0$/,
  );
});

test('Go is told the folder, the package and the version of one of several tools', async (tt) => {
  const { deps, short } = await prepare(tt, { scripts: { 'bin/go': 'echo "$(pwd) $*" >&2; exit 1' } });
  const { message } = await tt.throwsAsync(findTool('kubectl', deps), { instanceOf: ToolMissing });
  tt.regex(
    short(message),
    /\n {2}~\/go\/kubernetes build .* -ldflags -s -w -X \S+\.gitVersion=v1\.34\.4 .* -o \S+ k8s\.io\/kubernetes\/cmd\/kubectl$/,
  );
});

test('what has C among its sources gets it, and the error names the packages', async (tt) => {
  const { deps, short } = await prepare(tt, {
    scripts: { 'bin/go': 'echo "$*" CGO_ENABLED=$CGO_ENABLED >&2; exit 1' },
  });
  const { message } = await tt.throwsAsync(findTool('runc', deps), { instanceOf: ToolMissing });
  tt.regex(short(message), /failed in \S+\/runc \(Debian packages that it takes: .*libseccomp-dev\)/);
  tt.regex(short(message), /-tags seccomp .* CGO_ENABLED=1$/);
});

const goModOf = (folder: string) => readFile(new URL(`../test/tools/${folder}/go.mod`, import.meta.url), 'utf8');
const pins = test.macro(async (tt, name: ToolName, module: string) => {
  const goMod = await goModOf(name);
  tt.truthy(parseVersion(pinnedVersion(goMod, module)));
  tt.regex(goMod, /^tool /m, '`go build tool` needs a tool directive');
});
test('kustomize is pinned', pins, 'kustomize', 'sigs.k8s.io/kustomize/kustomize/v5');
test('kpt is pinned', pins, 'kpt', 'github.com/kptdev/kpt');
test('kubectl-validate is pinned', pins, 'kubectl-validate', 'sigs.k8s.io/kubectl-validate');
test('etcd is pinned', pins, 'etcd', 'go.etcd.io/etcd/server/v3');
test('runc is pinned', pins, 'runc', 'github.com/opencontainers/runc');
test('containerd is pinned', pins, 'containerd', 'github.com/containerd/containerd/v2');
test('Kubernetes is pinned', async (tt) => {
  tt.truthy(parseVersion(pinnedVersion(await goModOf('kubernetes'), 'k8s.io/kubernetes')));
});
