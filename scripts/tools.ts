/**
 * Finds the command-line tools that rendering and the tests call, and builds one that isn't there.
 *
 * Looked at, in this order: the tool's own variable ($KUSTOMIZE, $KUBE_APISERVER, …), $KUBEBUILDER_ASSETS (only for what
 * setup-envtest puts there: kube-apiserver, etcd, kubectl), PATH, the cache folder, and at last Go, which builds the
 * version pinned in test/tools/<folder>/go.mod into the cache folder.
 */
import { randomUUID } from 'node:crypto';
import { access, constants, mkdir, readFile, realpath, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, dirname, isAbsolute, join, resolve } from 'node:path';
import { execa } from 'execa';
import { needsOf } from './needs.ts';

/** Versions of Cilium that the cluster of the tests can have: `test/tools/cilium-<version>` pins the patch release. */
export type CiliumVersion = '1.15' | '1.18' | '1.20';
type CiliumProgram = 'agent' | 'operator' | 'cni' | 'dbg';

export type ToolName =
  | `cilium-${CiliumProgram}-${CiliumVersion}`
  | 'helm'
  | 'kustomize'
  | 'kpt'
  | 'kubectl-validate'
  | 'kube-apiserver'
  | 'etcd'
  | 'kubectl'
  | 'kube-controller-manager'
  | 'kube-scheduler'
  | 'kubelet'
  | 'kube-proxy'
  | 'containerd'
  | 'containerd-shim-runc-v2'
  | 'ctr'
  | 'runc';

export interface Tool {
  /** Absolute path of the executable. */
  path: string;
  /** Without a leading v, or 'unknown' where the tool can't tell (kubectl-validate). */
  version: string;
  /** Where it came from: the variable ('$KUSTOMIZE', '$KUBEBUILDER_ASSETS'), 'PATH', 'cache' or 'go build'. */
  origin: string;
}

export interface Deps {
  env: NodeJS.ProcessEnv;
  /** Takes one line of progress. */
  log: (line: string) => void;
  /** Folder with <folder>/go.mod for every tool. */
  modules: string;
  /** Milliseconds between two lines of progress during a build. */
  tickMs: number;
}

/** No usable tool. The message says where it was looked for and how to get it, and needs no stack trace. */
export class ToolMissing extends Error {
  override name = 'ToolMissing';
}

interface Wanted {
  variable: string;
  /** setup-envtest downloads it, so it may be in the folder that $KUBEBUILDER_ASSETS names. */
  envtest?: boolean;
  /** Where its go.mod is, below test/tools. The tool's name where left out; tools of one module share a folder. */
  folder?: string;
  /** Go module that holds the tool; its version in go.mod is the pinned one. */
  module: string;
  /** Go package to build. Where left out, the one that the tool directive of go.mod names. */
  package?: string;
  /** Flags for Go's linker, from the pinned version: for a tool that otherwise wouldn't know its version. */
  ldflags?: (pinned: string) => readonly string[];
  /** Whether C is among its sources: needs.tsv has what that takes besides Go. */
  cgo?: true;
  /** Build tags. */
  tags?: string;
  /** How long the build takes, where that is worth a warning. */
  takes?: string;
  /** Arguments that make a working tool exit with 0, and print its version where a minimum is asked for. */
  probe: readonly string[];
  minimum?: string;
  install: string;
}

const wanted: Record<ToolName, Wanted> = {
  kustomize: {
    variable: 'KUSTOMIZE',
    module: 'sigs.k8s.io/kustomize/kustomize/v5',
    probe: ['version'],
    minimum: '5.0.0',
    install: 'https://kubectl.docs.kubernetes.io/installation/kustomize/',
  },
  kpt: {
    variable: 'KPT',
    module: 'github.com/kptdev/kpt',
    probe: ['version'],
    minimum: '1.0.0-beta.50',
    install: 'https://kpt.dev/installation/kpt-cli/',
  },
  // Has no version command: --version takes the Kubernetes version to validate against.
  'kubectl-validate': {
    variable: 'KUBECTL_VALIDATE',
    module: 'sigs.k8s.io/kubectl-validate',
    probe: ['--help'],
    install: 'https://github.com/kubernetes-sigs/kubectl-validate',
  },
  'kube-apiserver': {
    variable: 'KUBE_APISERVER',
    envtest: true,
    ...kubernetes('kube-apiserver'),
    takes: 'about 5 minutes on two cores',
    probe: ['--version'],
    minimum: '1.30.0',
    install: 'https://kubernetes.io/releases/download/#binaries',
  },
  etcd: {
    variable: 'ETCD',
    envtest: true,
    module: 'go.etcd.io/etcd/server/v3',
    probe: ['--version'],
    minimum: '3.4.0',
    install: 'https://etcd.io/docs/latest/install/',
  },
  kubectl: {
    variable: 'KUBECTL',
    envtest: true,
    ...kubernetes('kubectl'),
    // --client: without it kubectl asks a cluster for its version, too.
    probe: ['version', '--client'],
    minimum: '1.30.0',
    install: 'https://kubernetes.io/docs/tasks/tools/#kubectl',
  },
  'kube-controller-manager': { variable: 'KUBE_CONTROLLER_MANAGER', ...daemon('kube-controller-manager') },
  'kube-scheduler': { variable: 'KUBE_SCHEDULER', ...daemon('kube-scheduler') },
  kubelet: { variable: 'KUBELET', ...daemon('kubelet') },
  'kube-proxy': { variable: 'KUBE_PROXY', ...daemon('kube-proxy') },
  containerd: { variable: 'CONTAINERD', ...containerd('containerd'), takes: 'about 3 minutes on two cores' },
  'containerd-shim-runc-v2': {
    variable: 'CONTAINERD_SHIM_RUNC_V2',
    ...containerd('containerd-shim-runc-v2'),
    probe: ['-v'],
  },
  ctr: { variable: 'CTR', ...containerd('ctr') },
  helm: {
    variable: 'HELM',
    module: 'helm.sh/helm/v3',
    ldflags: (pinned) => [`-X helm.sh/helm/v3/internal/version.version=${pinned}`],
    probe: ['version', '--short'],
    minimum: '3.12.0',
    install: 'https://helm.sh/docs/intro/install/',
  },
  ...cilium('1.15'),
  ...cilium('1.18'),
  ...cilium('1.20'),
  // For pods with user namespaces it takes 1.2.
  runc: {
    variable: 'RUNC',
    module: 'github.com/opencontainers/runc',
    ldflags: (pinned) => [`-X main.version=${pinned.slice(1)}`],
    cgo: true,
    tags: 'seccomp',
    probe: ['--version'],
    minimum: '1.2.0',
    install: 'https://github.com/opencontainers/runc',
  },
};

/** For pods with user namespaces it takes 2.0. */
function containerd(program: string): Omit<Wanted, 'variable'> {
  const module = 'github.com/containerd/containerd/v2';
  return {
    folder: 'containerd',
    module,
    package: `${module}/cmd/${program}`,
    ldflags: (pinned) => [`-X ${module}/version.Version=${pinned}`],
    probe: ['--version'],
    minimum: '2.0.0',
    install: 'https://containerd.io/downloads/',
  };
}

/**
 * Programs of Cilium's image. They are for Linux nodes of the test cluster alone, so nobody has them on PATH: the version is in
 * their name.
 */
function cilium<V extends CiliumVersion>(version: V): Record<`cilium-${CiliumProgram}-${V}`, Wanted> {
  const module = 'github.com/cilium/cilium';
  const program = (name: CiliumProgram, folder: string, more: Partial<Wanted> = {}): Wanted => ({
    variable: `CILIUM_${name}_${version.replace('.', '_')}`.toUpperCase(),
    folder: `cilium-${version}`,
    module,
    package: `${module}/${folder}`,
    ldflags: (pinned) => [`-X '${module}/pkg/version.ciliumVersion=${pinned.slice(1)} unknown 1970-01-01T00:00:00Z'`],
    takes: 'about 4 minutes on two cores',
    probe: ['--version'],
    install: 'https://docs.cilium.io/en/stable/contributing/development/',
    ...more,
  });
  return {
    [`cilium-agent-${version}`]: program('agent', 'daemon'),
    // With the IPAM mode `kubernetes`, which needs no cloud.
    [`cilium-operator-${version}`]: program('operator', 'operator', { tags: 'ipam_provider_operator' }),
    // Answers nothing but what CNI asks; without a command it says what it is.
    [`cilium-cni-${version}`]: program('cni', 'plugins/cilium-cni', { probe: [] }),
    [`cilium-dbg-${version}`]: program('dbg', 'cilium-dbg', { probe: ['--help'] }),
  } as Record<`cilium-${CiliumProgram}-${V}`, Wanted>;
}

/** What a cluster has and an API server alone has not; setup-envtest brings none of these. */
function daemon(program: string): Omit<Wanted, 'variable'> {
  return {
    ...kubernetes(program),
    takes: 'about 2 minutes on two cores',
    probe: ['--version'],
    minimum: '1.30.0',
    install: 'https://kubernetes.io/releases/download/#binaries',
  };
}

/** A program of Kubernetes' own repository: they are all built from one module. */
function kubernetes(program: string): Pick<Wanted, 'folder' | 'module' | 'package' | 'ldflags'> {
  return {
    folder: 'kubernetes',
    module: 'k8s.io/kubernetes',
    package: `k8s.io/kubernetes/cmd/${program}`,
    ldflags: kubernetesVersionFlags,
  };
}

/**
 * v1.34.4 as what --version, the API's /version and the User-Agent say. Without these flags they say v0.0.0-master+….
 * The variables: https://github.com/kubernetes/kubernetes/blob/v1.34.4/hack/lib/version.sh
 */
export function kubernetesVersionFlags(pinned: string): string[] {
  const [major = '', minor = ''] = pinned.slice(1).split('.');
  return ['k8s.io/component-base/version', 'k8s.io/client-go/pkg/version'].flatMap((variables) => [
    `-X ${variables}.gitVersion=${pinned}`,
    `-X ${variables}.gitMajor=${major}`,
    `-X ${variables}.gitMinor=${minor}`,
  ]);
}

const probeTimeoutMs = 30_000;
/** Lines of Go's output that are shown when a build fails. */
const goLines = 15;

const defaults: Deps = {
  env: process.env,
  log: (line) => void process.stderr.write(`${line}\n`),
  modules: join(import.meta.dirname, '../test/tools'),
  tickMs: 10_000,
};

/** Throws ToolMissing when there is none and none can be built, or when a variable names an unusable one. */
export async function findTool(name: ToolName, overrides: Partial<Deps> = {}): Promise<Tool> {
  const deps = { ...defaults, ...overrides };
  const { variable, envtest } = wanted[name];
  const chosen = deps.env[variable];
  if (chosen) return findChosen(name, chosen, deps);
  const assets = deps.env.KUBEBUILDER_ASSETS;
  if (envtest && assets) return findAsset(name, assets, deps);

  const passedOver: string[] = [];
  for (const path of await findOnPath(name, deps.env.PATH)) {
    const found = await probe(name, path, deps.env);
    if (!('fault' in found)) return { path, version: found.version, origin: 'PATH' };
    passedOver.push(`${path} ${found.fault}`);
    deps.log(`${name}: passed over, ${path} ${found.fault}`);
  }
  return findPinned(name, passedOver, deps);
}

async function findChosen(name: ToolName, chosen: string, { env }: Deps): Promise<Tool> {
  const { variable } = wanted[name];
  // A bare name means PATH, as in a shell. `npm run` changes the directory and leaves the caller's in INIT_CWD.
  const path = chosen.includes('/')
    ? resolve(env.INIT_CWD ?? process.cwd(), chosen)
    : (await findOnPath(chosen, env.PATH))[0];
  if (path === undefined) throw new ToolMissing(`$${variable} is ${chosen}, which is not on PATH.`);
  return useNamed(name, path, { variable, chosen }, env);
}

async function findAsset(name: ToolName, assets: string, { env }: Deps): Promise<Tool> {
  const path = join(resolve(env.INIT_CWD ?? process.cwd(), assets), name);
  return useNamed(name, path, { variable: 'KUBEBUILDER_ASSETS', chosen: assets }, env);
}

async function useNamed(
  name: ToolName,
  path: string,
  by: { variable: string; chosen: string },
  env: NodeJS.ProcessEnv,
): Promise<Tool> {
  const found = await probe(name, path, env);
  if ('fault' in found) {
    throw new ToolMissing(`$${by.variable} is ${by.chosen}, which can't be used: ${path} ${found.fault}.`);
  }
  return { path, version: found.version, origin: `$${by.variable}` };
}

async function findPinned(name: ToolName, passedOver: readonly string[], deps: Deps): Promise<Tool> {
  const { folder = name, module } = wanted[name];
  const source = join(deps.modules, folder);
  const pinned = pinnedVersion(await readFile(join(source, 'go.mod'), 'utf8'), module);
  const path = join(cacheFolder(deps.env), 'tools', `${name}-${pinned}`);
  const tool = { path, version: pinned.slice(1) };
  const missing = (cached: string, go: GoFailure) =>
    new ToolMissing(missingMessage({ name, pinned, passedOver, path, cached, ...go }));

  let cached = 'is not there';
  if (await isExecutable(path)) {
    const found = await probe(name, path, deps.env);
    if (!('fault' in found)) return { ...tool, origin: 'cache' };
    cached = found.fault;
    deps.log(`${name}: ${path} ${cached}, so it is built again`);
  }
  const failure = await build(name, pinned, source, path, deps);
  if (failure) throw missing(cached, failure);
  const built = await probe(name, path, deps.env);
  if ('fault' in built) throw missing(cached, { reason: `the one just built ${built.fault}` });
  return { ...tool, origin: 'go build' };
}

/**
 * The folder with the pinned source of a tool, as Go keeps it (read-only). Go downloads it where it is not there. Throws
 * ToolMissing.
 */
export async function findSource(name: ToolName, overrides: Partial<Deps> = {}): Promise<string> {
  const { env, modules } = { ...defaults, ...overrides };
  const { folder = name, module } = wanted[name];
  const cwd = join(modules, folder);
  const result = await execa('go', ['mod', 'download', '-json', module], {
    cwd,
    env: { ...env, GOWORK: 'off', GOFLAGS: '-mod=mod' },
    extendEnv: false,
    reject: false,
    stdin: 'ignore',
  });
  if (result.failed)
    throw new ToolMissing(
      `The source of ${module} can't be had: ${lastLines(result.stderr || result.message || '', 1)}`,
    );
  return (JSON.parse(result.stdout) as { Dir: string }).Dir;
}

interface GoFailure {
  reason: string;
  /** What Go printed. */
  output?: string;
}

/**
 * Puts the tool at `path`, in one step: a build that is cut short leaves nothing there, and of two at the same time the
 * later one replaces the earlier one by the same file.
 */
async function build(
  name: ToolName,
  pinned: string,
  source: string,
  path: string,
  { env, log, tickMs }: Deps,
): Promise<GoFailure | undefined> {
  const go = (await findOnPath('go', env.PATH))[0];
  if (go === undefined) return { reason: 'go is not on PATH' };
  try {
    await mkdir(dirname(path), { recursive: true });
  } catch (error) {
    return { reason: `the cache folder can't be made: ${(error as Error).message}` };
  }

  const unfinished = `${path}.${randomUUID()}`;
  const started = performance.now();
  const seconds = () => Math.round((performance.now() - started) / 1000);
  const { takes = 'may take minutes' } = wanted[name];
  log(`${name}: not found, building ${pinned} with Go into ${dirname(path)} (${takes}, once)`);
  const ticker = setInterval(() => log(`${name}: building for ${seconds()} s`), tickMs);
  try {
    const failure = await runGo(go, name, pinned, { source, unfinished, env });
    if (failure) return failure;
    await rename(unfinished, path);
  } finally {
    clearInterval(ticker);
    await rm(unfinished, { force: true });
  }
  log(`${name}: built in ${seconds()} s`);
  return undefined;
}

interface GoBuild {
  readonly source: string;
  /** Where the executable goes. */
  readonly unfinished: string;
  readonly env: NodeJS.ProcessEnv;
}

async function runGo(
  go: string,
  name: ToolName,
  pinned: string,
  { source, unfinished, env }: GoBuild,
): Promise<GoFailure | undefined> {
  // The package 'tool' is the one that the tool directive of go.mod names.
  const { package: target = 'tool', ldflags, cgo, tags = '' } = wanted[name];
  const linker = ['-s -w', ...(ldflags?.(pinned) ?? [])].join(' ');
  const result = await execa(
    go,
    ['build', '-mod=readonly', '-trimpath', '-tags', tags, '-ldflags', linker, '-o', unfinished, target],
    {
      cwd: source,
      // A go.work further up and another target than this machine would break the build.
      env: {
        ...env,
        LC_ALL: 'C',
        CGO_ENABLED: cgo === undefined ? '0' : '1',
        GOWORK: 'off',
        GOOS: '',
        GOARCH: '',
      },
      extendEnv: false,
      all: true,
      stdin: 'ignore',
      reject: false,
    },
  );
  if (!result.failed) return undefined;
  const packages = needsOf('go').map((need) => need.package);
  const also = cgo === undefined ? '' : ` (Debian packages that it takes: ${packages.join(' ')})`;
  return { reason: `\`go build\` failed in ${source}${also}`, output: result.all || result.message || '' };
}

/** Runs the tool. A fault is a predicate for its path: "is version 4.5.7, …". */
async function probe(
  name: ToolName,
  path: string,
  env: NodeJS.ProcessEnv,
): Promise<{ version: string } | { fault: string }> {
  const { probe: args, minimum } = wanted[name];
  const result = await execa(path, args, {
    env: { ...env, LC_ALL: 'C' },
    extendEnv: false,
    timeout: probeTimeoutMs,
    stdin: 'ignore',
    reject: false,
  });
  if (result.failed) {
    const why = lastLines(result.stderr, 1) || result.originalMessage || `exit code ${result.exitCode}`;
    return { fault: `doesn't run (${why})` };
  }
  return minimum === undefined ? { version: 'unknown' } : checkVersion(result.stdout, minimum);
}

export function checkVersion(output: string, minimum: string): { version: string } | { fault: string } {
  const version = parseVersion(output);
  if (version === undefined) return { fault: `doesn't tell its version (it prints "${lastLines(output, 1)}")` };
  if (compareVersions(version, minimum) < 0) return { fault: `is version ${version}, older than ${minimum}` };
  return { version };
}

/**
 * The first semantic version in a text, without v:
 * 'v5.8.2', '{Version:kustomize/v4.5.7 GitCommit:…}', '1.0.0-beta.56'; undefined for '(devel)', 'unknown'.
 */
export function parseVersion(text: string): string | undefined {
  return /\d+\.\d+\.\d+(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?/.exec(text)?.[0];
}

/** Negative when a is older than b: 5.9.0 < 5.10.0, 1.0.0-beta.9 < 1.0.0-beta.50 < 1.0.0. */
export function compareVersions(a: string, b: string): number {
  const [coreA, preA] = splitVersion(a);
  const [coreB, preB] = splitVersion(b);
  const { compare } = new Intl.Collator('en', { numeric: true });
  return compare(coreA, coreB) || Number(preA === '') - Number(preB === '') || compare(preA, preB);
}

function splitVersion(version: string): [core: string, prerelease: string] {
  const [core = '', ...rest] = version.split('-');
  return [core, rest.join('-')];
}

/** The version that a go.mod requires of a module, with v. Throws when there is none: our go.mod is broken then. */
export function pinnedVersion(goMod: string, module: string): string {
  for (const line of goMod.split('\n')) {
    const [path, version] = line
      .replace(/^require /, '')
      .trim()
      .split(/\s+/);
    if (path === module && version) return version;
  }
  throw new Error(`go.mod requires no ${module}`);
}

/** The project's cache folder. XDG_CACHE_HOME counts when it is absolute (XDG Base Directory Specification). */
export function cacheFolder(env: NodeJS.ProcessEnv): string {
  if (env.CONSTELLATION_VPN_CACHE) return resolve(env.INIT_CWD ?? process.cwd(), env.CONSTELLATION_VPN_CACHE);
  const xdg = env.XDG_CACHE_HOME;
  const base = xdg && isAbsolute(xdg) ? xdg : join(env.HOME || homedir(), '.cache');
  return join(base, 'constellation-vpn');
}

export interface Search {
  name: ToolName;
  /** Version with v that would be built. */
  pinned: string;
  /** Unusable ones on PATH, each with its fault. */
  passedOver: readonly string[];
  /** Path in the cache folder, and what is wrong with it. */
  path: string;
  cached: string;
  /** Why Go didn't help, and what it printed. */
  reason: string;
  output?: string;
}

export function missingMessage({ name, pinned, passedOver, path, cached, reason, output }: Search): string {
  const { variable, envtest, minimum, install } = wanted[name];
  return [
    `${name}${minimum ? ` ${minimum} or newer` : ''} was not found:`,
    `  $${variable} is not set`,
    ...(envtest ? ['  $KUBEBUILDER_ASSETS is not set'] : []),
    `  PATH has none${passedOver.length > 0 ? ` that can be used: ${passedOver.join('; ')}` : ''}`,
    `  ${path} ${cached}`,
    `  building ${pinned} didn't work: ${reason}`,
    'Any one of these helps:',
    `  set ${variable}=/path/to/${name}`,
    ...(envtest ? [`  set KUBEBUILDER_ASSETS=/folder/with/${name}, as setup-envtest makes it`] : []),
    `  install ${name} so that it is on PATH: ${install}`,
    `  install Go, which then downloads and builds ${name} ${pinned} at the next run: https://go.dev/doc/install`,
    ...(output ? ['Go said:', indent(lastLines(output, goLines))] : []),
  ].join('\n');
}

function lastLines(text: string, count: number): string {
  return text.trim().split('\n').slice(-count).join('\n');
}

function indent(text: string): string {
  return text.replace(/^/gm, '  ');
}

/**
 * All executables of that name on PATH, in its order, each once where two folders are the same one (/bin and /usr/bin). Empty
 * and relative entries are left out: they'd mean any folder.
 */
async function findOnPath(name: string, path = ''): Promise<string[]> {
  const found = new Map<string, string>();
  for (const folder of path.split(delimiter).filter(isAbsolute)) {
    const candidate = join(folder, name);
    if (!(await isExecutable(candidate))) continue;
    const real = join(await realpath(folder), name);
    if (!found.has(real)) found.set(real, candidate);
  }
  return [...found.values()];
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}
