/** The command line: `routing`, `routing init` and `routing cleanup`. */
import { Command, InvalidArgumentError, Option } from 'commander';
import { canonicalAddress } from '../../functions/model/cidr.ts';
import { parseName, parsePort } from '../lib/command-line.ts';
import { ConfigFile } from '../lib/config.ts';
import { portOf, serve } from '../lib/http.ts';
import { KubeClient } from '../lib/kube/client.ts';
import { createLog } from '../lib/log.ts';
import { ROUTING_PORT } from '../lib/lost-ranges.ts';
import { shutdownSignal } from '../lib/shutdown.ts';
import { keepSmall } from '../lib/small-process.ts';
import { wait } from '../lib/wait.ts';
import { createAgent } from './agent.ts';
import { cleanUpRoutes } from './clean-up.ts';
import { createMetrics } from './metrics.ts';
import { awaitHost } from './pod/await-host.ts';
import { SetUpFailed, setUpPod } from './pod/set-up.ts';

const NAME = 'constellation-vpn-routing';
const GRACE_MS = 5_000;
/** Until `cleanup` tries again what it could not delete. */
const RETRY_MS = 5_000;

interface RunOptions {
  readonly namespace?: string;
  readonly node?: string;
  readonly ciliumNamespace: string;
  readonly ciliumFolder: string;
  readonly kubeconfig?: string;
  readonly config: string;
  readonly port: number;
}
interface InitOptions {
  readonly podIp?: string;
  readonly hostIp?: string;
  readonly site: string;
  readonly sysctlFolder: string;
  readonly timeout: number;
  readonly config: string;
}

keepSmall();

const program = new Command('routing')
  .description(
    "Keeps a node's routes to the on-prem ranges, and Cilium's source check off for the frontends that run on it. Needs the capability NET_ADMIN and the host's network.",
  )
  .configureHelp({ showGlobalOptions: true })
  .usage('[options] [init|cleanup]')
  .allowExcessArguments()
  .addOption(new Option('--namespace <name>', 'the namespace of the VPN').env('POD_NAMESPACE').argParser(parseName))
  .addOption(new Option('--node <name>', "this node's name").env('NODE_NAME'))
  .addOption(
    new Option('--cilium-namespace <name>', "where Cilium's ConfigMap cilium-config is")
      .default('kube-system')
      .argParser(parseName),
  )
  .addOption(new Option('--cilium-folder <folder>', "where Cilium's agent has its socket").default('/var/run/cilium'))
  .addOption(
    new Option('--kubeconfig <file>', "how to reach the API server; without it the Pod's ServiceAccount is used"),
  )
  .addOption(
    new Option('--config <file>', 'the configuration, as inject-peer-cidrs renders it').default(
      '/etc/constellation-vpn/config/config.json',
    ),
  )
  .addOption(
    new Option('--port <number>', 'where /livez, /readyz, /metrics and the init containers are served')
      .default(ROUTING_PORT)
      .argParser(parsePort),
  )
  .action(run);
program
  .command('init')
  .description(
    "Sets up a frontend's pod from inside: kill switch, MSS clamp, forwarding. Then waits until the host's side stands.",
  )
  .addOption(new Option('--pod-ip <address>', "the pod's address").env('POD_IP').argParser(parseIp))
  .addOption(new Option('--host-ip <address>', "the node's address").env('HOST_IP').argParser(parseIp))
  .addOption(new Option('--site <name>', "the site's name; empty for the unnamed one").env('SITE').default(''))
  .addOption(
    new Option('--sysctl-folder <folder>', "where the host's /proc/sys/net is mounted").default('/host/proc/sys/net'),
  )
  .addOption(
    new Option('--timeout <seconds>', "how long to wait for the host's side").default(300).argParser(parseSeconds),
  )
  .action(init);
program
  .command('cleanup')
  .description('Deletes every route of ours from this node. Nothing else of the VPN outlives it here.')
  .addOption(new Option('--stay', 'serve /readyz once all are deleted, and go on until stopped').default(false))
  .action(cleanup);

function parseIp(text: string): string {
  const address = canonicalAddress(text);
  if (address === undefined) throw new InvalidArgumentError('It is no IP address.');
  return address;
}

function parseSeconds(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError('It must be a number of seconds.');
  return Number(text);
}

/** The value, or the end: what is missing is a mistake in the manifest. */
function need(value: string | undefined, option: string, variable: string): string {
  return value ?? program.error(`error: ${option} is missing (or ${variable} in the environment)`);
}

async function run(options: RunOptions, { args }: Command): Promise<void> {
  if (args.length > 0) program.error(`error: unknown command ${args[0]}: there are init and cleanup`);
  const log = createLog('routing');
  const namespace = need(options.namespace, '--namespace', 'POD_NAMESPACE');
  const node = need(options.node, '--node', 'NODE_NAME');
  const { ciliumNamespace, ciliumFolder, config, kubeconfig } = options;
  const kube = connect(kubeconfig);
  const agent = createAgent(kube, log, { namespace, ciliumNamespace, node, configFile: config, ciliumFolder });
  const signal = shutdownSignal(log, GRACE_MS);
  const server = await listen(options.port, agent);
  log.info({ port: portOf(server), namespace, node, server: kube.server }, 'started');
  await agent.run(signal);
  server.close();
  server.closeAllConnections();
  kube.close();
  log.info({}, 'stopped, the routes stay');
}

function connect(kubeconfig: string | undefined): KubeClient {
  try {
    return new KubeClient(kubeconfig, NAME);
  } catch (error) {
    return program.error(`error: ${(error as Error).message}`);
  }
}

function listen(port: number, served: Omit<Parameters<typeof serve>[0], 'port'>): ReturnType<typeof serve> {
  return serve({ ...served, port }).catch((error: Error) =>
    program.error(`error: can't listen on port ${port}: ${error.message}`),
  );
}

async function init(_: object, command: Command): Promise<void> {
  const options = command.optsWithGlobals<InitOptions>();
  const log = createLog('routing-init');
  const podIP = need(options.podIp, '--pod-ip', 'POD_IP');
  const hostIP = need(options.hostIp, '--host-ip', 'HOST_IP');
  const config = new ConfigFile({ file: options.config, log, onChange: () => undefined });
  await config.read();
  if (config.vpn === undefined) return fail(log, "the pod can't be set up", config.problems);
  const site = config.vpn.sites.find(({ name }) => name === options.site);
  if (site === undefined) {
    const names = config.vpn.sites.map(({ name }) => (name === '' ? 'the unnamed one' : name)).join(', ');
    const problem = `the configuration has no site "${options.site}" (--site, or SITE in the environment); it has ${names}: render and apply again`;
    return fail(log, "the pod can't be set up", [problem]);
  }
  const signal = shutdownSignal(log, GRACE_MS);
  try {
    await setUpPod({ site, podIP, sysctlFolder: options.sysctlFolder }, log);
  } catch (error) {
    if (!(error instanceof SetUpFailed)) throw error;
    return fail(log, "the pod can't be set up", [error.message]);
  }
  const missing = await awaitHost({ hostIP, podIP, log, timeoutMs: options.timeout * 1000, signal });
  if (missing !== undefined) fail(log, "the host's side does not stand, giving up", [missing]);
}

async function cleanup(_: object, command: Command): Promise<void> {
  const { stay, port } = command.optsWithGlobals<{ stay: boolean; port: number }>();
  const log = createLog('routing-cleanup');
  let left: readonly string[] = ['not done yet'];
  const once = async (): Promise<void> => {
    const { deleted, problems } = await cleanUpRoutes().catch((error: Error) => ({
      deleted: 0,
      problems: [error.message],
    }));
    left = problems;
    if (left.length === 0) log.info({ deleted }, 'no route of the VPN is left on this node');
    else fail(log, 'not cleaned up', left);
  };
  if (!stay) return once();
  const signal = shutdownSignal(log, GRACE_MS);
  const { registry } = createMetrics(() => true);
  const server = await listen(port, { registry, unready: () => left });
  while (left.length > 0 && !signal.aborted) {
    await once();
    if (left.length > 0) await wait(RETRY_MS, signal);
  }
  process.exitCode = 0;
  await new Promise<void>((resolve) =>
    signal.aborted ? resolve() : signal.addEventListener('abort', () => resolve()),
  );
  server.close();
  server.closeAllConnections();
}

function fail(log: ReturnType<typeof createLog>, message: string, problems: readonly string[]): void {
  for (const problem of problems) log.error({ problem }, message);
  process.exitCode = 1;
}

await program.parseAsync();
