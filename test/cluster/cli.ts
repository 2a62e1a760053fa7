/**
 * A cluster for a developer: `npm run cluster -- up`, `down`, `kubectl …`. It runs until `down`, in a process of its own, which
 * is the cluster: if that is killed, everything of the cluster dies with it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { constants, link, mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError, Option } from 'commander';
import { execa } from 'execa';
import { cacheFolder, type CiliumVersion, ToolMissing } from '../../scripts/tools.ts';
import { StartFailed } from '../control-plane/daemon.ts';
import { removeLeftovers } from '../dataplane/netns.ts';
import { type CiliumOptions, VERSIONS } from './cilium.ts';
import { type Cluster, type ClusterOptions, startCluster } from './cluster.ts';
import { connectSite } from './fixture.ts';
import { removeLeftoverCgroups } from './node.ts';
import { type Checkout, install, makeCheckout, RANGES } from './product.ts';

/** Of one that starts or runs. A process that was killed leaves it behind. */
interface State {
  /** Of the process that is the cluster. */
  readonly pid: number;
  /** Once it is ready. */
  readonly ready?: { readonly folder: string; readonly kubeconfig: string; readonly kubectl: string };
}

interface UpOptions {
  readonly name: string;
  readonly nodes: number;
  readonly vpn: boolean;
  /** Its version; false: none. */
  readonly cilium?: CiliumVersion | false;
  readonly slices: boolean;
  readonly kubeProxy: boolean;
  readonly native: boolean;
  readonly dualStack: boolean;
}

const FILE = fileURLToPath(import.meta.url);
/** A user's mistake: its message is enough. */
class UserError extends Error {}

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
/** Exit code of a process that found another one of its name. */
const TAKEN = 3;
const folder = join(cacheFolder(process.env), 'clusters');
const stateFile = (name: string): string => join(folder, `${name}.json`);
const logFile = (name: string): string => join(folder, `${name}.log`);

const program = new Command('cluster')
  .description('a real Kubernetes cluster on this machine, with an on-prem site in front of it (root is needed)')
  .showHelpAfterError()
  .enablePositionalOptions();
const nameOption = ['--name <name>', 'where several run at once', toName, 'cluster'] as const;
program
  .command('up')
  .description('starts one and returns when it is ready; the images are built before, and Kubernetes at the first time')
  .option(...nameOption)
  .option('--nodes <number>', '1 to 3', toNodes, 2)
  .option('--vpn', 'installs the VPN by the steps of the README, and connects the site', false)
  .addOption(new Option('--cilium <version>', 'of Cilium (default: 1.18)').choices(VERSIONS))
  .option('--no-cilium', 'with another network in its place')
  .option('--no-slices', 'without CiliumEndpointSlices')
  .option('--kube-proxy', "kube-proxy in place of Cilium's replacement", false)
  .option('--native', 'native routing with auto-direct-node-routes in place of VXLAN', false)
  .option('--dual-stack', 'IPv4 and IPv6', false)
  .action(up);
program
  .command('down')
  .description('stops it, also one that is starting; nothing of it is left')
  .option(...nameOption)
  .action(async (options: { name: string }) => down(options.name));
program
  .command('kubectl')
  .description('kubectl for it: npm run cluster -- kubectl get pods -A')
  .option(...nameOption)
  .argument('[words...]')
  .passThroughOptions()
  .allowUnknownOption()
  .helpOption(false)
  .action(kubectl);
program.command('keep', { hidden: true }).argument('<options>').action(keep);

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof ToolMissing || error instanceof StartFailed || error instanceof UserError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}

function toName(text: string): string {
  if (!/^[a-z0-9-]{1,32}$/.test(text))
    throw new InvalidArgumentError('It must be 1 to 32 small letters, digits and hyphens.');
  return text;
}

function toNodes(text: string): number {
  if (!/^[123]$/.test(text)) throw new InvalidArgumentError('It must be 1, 2 or 3.');
  return Number(text);
}

async function up(options: UpOptions): Promise<void> {
  if (process.getuid?.() !== 0) throw new UserError('cluster: network namespaces and mounts need root');
  const before = await readState(options.name);
  if (before?.lives) throw new UserError(takenText(options.name, before));
  await mkdir(folder, { recursive: true });
  const { O_WRONLY, O_CREAT, O_TRUNC, O_APPEND } = constants;
  const log = await open(logFile(options.name), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND);
  const keeper = spawn(process.execPath, [FILE, 'keep', JSON.stringify(options)], {
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
  });
  let interrupted = false;
  for (const signal of SIGNALS)
    process.on(signal, () => {
      interrupted = true;
      keeper.kill();
    });
  const ready = await untilReady(options.name, keeper);
  await log.close();
  if (ready === undefined || interrupted) {
    await ended(keeper.pid!);
    await removeRest(options.name, keeper.pid!);
    if (interrupted) throw new UserError('cluster: stopped before it was ready');
    if (keeper.exitCode === TAKEN) throw new UserError(takenText(options.name, await readState(options.name)));
    throw new UserError(`cluster: it did not start: ${logFile(options.name)}`);
  }
  keeper.unref();
  console.log(`export KUBECONFIG=${ready.kubeconfig}`);
}

/** Prints its log meanwhile. Undefined where it has ended. */
async function untilReady(cluster: string, keeper: ChildProcess): Promise<State['ready']> {
  let shown = 0;
  for (;;) {
    const runs = keeper.exitCode === null && keeper.signalCode === null;
    const state = await readState(cluster);
    shown = await showLog(cluster, shown);
    if (!runs) return undefined;
    if (state?.pid === keeper.pid && state?.ready !== undefined) return state.ready;
    await sleep(200);
  }
}

function takenText(cluster: string, state: State | undefined): string {
  const where = state?.ready === undefined ? '' : `; KUBECONFIG=${state.ready.kubeconfig}`;
  return `cluster: ${cluster} starts or runs already${where}`;
}

/** Prints what is new, and answers how much there is. */
async function showLog(cluster: string, shown: number): Promise<number> {
  const text = await readFile(logFile(cluster), 'utf8');
  process.stderr.write(text.slice(shown));
  return text.length;
}

async function down(cluster: string): Promise<void> {
  const state = await readState(cluster);
  if (state === undefined) throw new UserError(`cluster: ${cluster} does not run`);
  if (state.lives) process.kill(state.pid, 'SIGTERM');
  await ended(state.pid);
  await removeRest(cluster, state.pid);
}

async function ended(pid: number): Promise<void> {
  while (await isKeeper(pid)) await sleep(100);
}

/** What a process that has ended has left: nothing, where it could stop its cluster itself. */
async function removeRest(cluster: string, pid: number): Promise<void> {
  if ((await readState(cluster))?.pid === pid) await rm(stateFile(cluster), { force: true });
  await removeLeftovers();
  await removeLeftoverCgroups();
}

async function kubectl(words: string[], options: { name: string }): Promise<void> {
  const state = await readState(options.name);
  if (!state?.lives) throw new UserError(`cluster: ${options.name} does not run: npm run cluster -- up`);
  if (state.ready === undefined) throw new UserError(`cluster: ${options.name} is not ready yet`);
  const env = { KUBECONFIG: state.ready.kubeconfig };
  const { exitCode = 1 } = await execa(state.ready.kubectl, words, { env, stdio: 'inherit', reject: false });
  process.exitCode = exitCode;
}

/** Undefined where there is none of this name, and none was killed. */
async function readState(cluster: string): Promise<(State & { readonly lives: boolean }) | undefined> {
  const text = await readFile(stateFile(cluster), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const state = JSON.parse(text) as State;
  return { ...state, lives: await isKeeper(state.pid) };
}

/** A pid may have come again, as another program's. The checkout may be another one. */
async function isKeeper(pid: number): Promise<boolean> {
  const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return command.includes('test/cluster/cli.ts\0keep\0');
}

/** Writes this process's state. The first time it answers false where another process lives under the name. */
async function writeState(cluster: string, ready?: State['ready']): Promise<boolean> {
  const state: State = { pid: process.pid, ...(ready === undefined ? {} : { ready }) };
  const partial = `${stateFile(cluster)}.${process.pid}`;
  await writeFile(partial, JSON.stringify(state));
  try {
    if (ready !== undefined) await rename(partial, stateFile(cluster));
    else await link(partial, stateFile(cluster));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    return false;
  } finally {
    await rm(partial, { force: true });
  }
}

/** The process that is the cluster. */
async function keep(text: string): Promise<void> {
  const options = JSON.parse(text) as UpOptions;
  const log = (line: string) => console.error(line);
  let starting = true;
  const stopped = new Promise<'stopped'>((resolve) => {
    // Not `once`: after that execa's own listener is the only one, and ends this process. What starts dies with it.
    for (const signal of SIGNALS) process.on(signal, () => (starting ? process.exit(1) : resolve('stopped')));
  });
  if ((await readState(options.name))?.lives === false) await rm(stateFile(options.name), { force: true });
  if (!(await writeState(options.name))) {
    process.exitCode = TAKEN;
    return;
  }
  try {
    const cluster = await startCluster({ ...clusterOptions(options), log });
    starting = false;
    await run(cluster, options, stopped, log);
  } finally {
    await rm(stateFile(options.name), { force: true });
  }
  // An installation may be under way.
  process.exit();
}

function clusterOptions({ nodes, cilium: version, slices, kubeProxy, native, dualStack }: UpOptions): ClusterOptions {
  if (version === false) return { nodes, dualStack, cilium: false };
  const cilium: CiliumOptions = {
    ...(version === undefined ? {} : { version }),
    ...(slices ? {} : { slices }),
    replacesKubeProxy: !kubeProxy,
    routing: native ? 'native' : 'tunnel',
  };
  return { nodes, dualStack, cilium };
}

async function run(
  cluster: Cluster,
  { name, vpn }: UpOptions,
  stopped: Promise<'stopped'>,
  log: (line: string) => void,
): Promise<void> {
  let checkout: Checkout | undefined;
  try {
    if (vpn) {
      checkout = await makeCheckout();
      if ((await Promise.race([installVPN(cluster, checkout, log), stopped])) === 'stopped') return;
    }
    const { kubeconfig, folder: scratch, kubectlPath } = cluster;
    await writeState(name, { folder: scratch, kubeconfig, kubectl: kubectlPath });
    await stopped;
  } finally {
    await cluster.stop();
    await checkout?.remove();
  }
}

async function installVPN(cluster: Cluster, checkout: Checkout, log: (line: string) => void): Promise<void> {
  await checkout.configure(cluster, { peerCIDRs: RANGES });
  log('VPN: applied');
  const { psk } = await install(cluster, checkout);
  await connectSite(cluster, psk);
}
