/**
 * A cluster for a developer: `npm run cluster -- up`, `down`, `kubectl …`. It runs until `down`, in a process of its own, which
 * is the cluster: if that is killed, everything of the cluster dies with it.
 */
import { spawn } from 'node:child_process';
import { mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError } from 'commander';
import { execa } from 'execa';
import { cacheFolder, ToolMissing } from '../../scripts/tools.ts';
import { StartFailed } from '../control-plane/daemon.ts';
import { startCluster } from './cluster.ts';
import { connectSite } from './fixture.ts';
import { install, makeCheckout, RANGES } from './product.ts';

/** Of a running one; the file is there when the cluster is ready. */
interface State {
  readonly pid: number;
  readonly folder: string;
  readonly kubeconfig: string;
  readonly kubectl: string;
}

interface UpOptions {
  readonly name: string;
  readonly nodes: number;
  readonly vpn: boolean;
  readonly cilium: boolean;
}

const FILE = fileURLToPath(import.meta.url);
/** A user's mistake: its message is enough. */
class UserError extends Error {}

const folder = join(cacheFolder(process.env), 'clusters');
const stateFile = (name: string): string => join(folder, `${name}.json`);
const logFile = (name: string): string => join(folder, `${name}.log`);

const program = new Command('cluster')
  .description('a real Kubernetes cluster on this machine, with an on-prem site in front of it (root is needed)')
  .showHelpAfterError()
  .enablePositionalOptions();
const name = ['--name <name>', 'where several run at once', 'cluster'] as const;
program
  .command('up')
  .description('starts one and returns when it is ready; the images are built before, and Kubernetes at the first time')
  .option(...name)
  .option('--nodes <number>', '1 to 3', toNodes, 2)
  .option('--vpn', 'installs the VPN by the steps of the README, and connects the site', false)
  .option('--no-cilium', 'without the stand-in for Cilium')
  .action(up);
program
  .command('down')
  .description('stops it; nothing of it is left')
  .option(...name)
  .action(async (options: { name: string }) => down(options.name));
program
  .command('kubectl')
  .description('kubectl for it: npm run cluster -- kubectl get pods -A')
  .option(...name)
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

function toNodes(text: string): number {
  if (!/^[123]$/.test(text)) throw new InvalidArgumentError('It must be 1, 2 or 3.');
  return Number(text);
}

async function up(options: UpOptions): Promise<void> {
  if (process.getuid?.() !== 0) throw new UserError('cluster: network namespaces and mounts need root');
  const running = await readState(options.name);
  if (running !== undefined)
    throw new UserError(`cluster: ${options.name} runs already; KUBECONFIG=${running.kubeconfig}`);
  await mkdir(folder, { recursive: true });
  const log = await open(logFile(options.name), 'w');
  const keeper = spawn(process.execPath, [FILE, 'keep', JSON.stringify(options)], {
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
  });
  let shown = 0;
  let state: State | undefined;
  while (keeper.exitCode === null && keeper.signalCode === null && state === undefined) {
    await sleep(200);
    shown = await showLog(options.name, shown);
    state = await readState(options.name);
  }
  await log.close();
  if (state === undefined) throw new UserError(`cluster: it did not start: ${logFile(options.name)}`);
  keeper.unref();
  console.log(`export KUBECONFIG=${state.kubeconfig}`);
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
  process.kill(state.pid, 'SIGTERM');
  while ((await readState(cluster)) !== undefined) await sleep(100);
}

async function kubectl(words: string[], options: { name: string }): Promise<void> {
  const state = await readState(options.name);
  if (state === undefined) throw new UserError(`cluster: ${options.name} does not run: npm run cluster -- up`);
  const env = { KUBECONFIG: state.kubeconfig };
  const { exitCode = 1 } = await execa(state.kubectl, words, { env, stdio: 'inherit', reject: false });
  process.exitCode = exitCode;
}

/** Undefined where it does not run, or is not ready. */
async function readState(cluster: string): Promise<State | undefined> {
  const text = await readFile(stateFile(cluster), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const state = JSON.parse(text) as State;
  // Killed, it could not take its file away. A pid may have come again, as another program's.
  const command = await readFile(`/proc/${state.pid}/cmdline`, 'utf8').catch(() => '');
  return command.includes(FILE) ? state : undefined;
}

/** The process that is the cluster. */
async function keep(text: string): Promise<void> {
  const options = JSON.parse(text) as UpOptions;
  const log = (line: string) => console.error(line);
  const stopped = new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, resolve);
  });
  const cluster = await startCluster({ ...options, log });
  if (options.vpn) {
    const checkout = await makeCheckout();
    await checkout.configure(cluster, { peerCIDRs: RANGES });
    log('VPN: applied');
    const { psk } = await install(cluster, checkout);
    await connectSite(cluster, psk);
    await checkout.remove();
  }
  const { kubeconfig, folder: scratch, kubectlPath } = cluster;
  const state: State = { pid: process.pid, folder: scratch, kubeconfig, kubectl: kubectlPath };
  await writeFile(`${stateFile(options.name)}.partial`, JSON.stringify(state));
  await rename(`${stateFile(options.name)}.partial`, stateFile(options.name));
  await stopped;
  await cluster.stop();
  await rm(stateFile(options.name));
}
