/** The command line: `endpoint-sync`, and `endpoint-sync cleanup`. */
import { hostname } from 'node:os';
import { Command, Option } from 'commander';
import { parseName, parsePort } from '../lib/command-line.ts';
import { serve, portOf } from '../lib/http.ts';
import { KubeClient } from '../lib/kube/client.ts';
import { createLog } from '../lib/log.ts';
import { shutdownSignal } from '../lib/shutdown.ts';
import { keepSmall } from '../lib/small-process.ts';
import { createAgent } from './agent.ts';
import { cleanUp, type Place } from './cleanup.ts';

const NAME = 'constellation-vpn-endpoint-sync';
const GRACE_MS = 5_000;

interface Options extends Place {
  readonly kubeconfig?: string;
}
interface RunOptions extends Options {
  readonly config: string;
  readonly port: number;
}

keepSmall();
const log = createLog('endpoint-sync');

const program = new Command('endpoint-sync')
  .description(
    "Tells Cilium where the on-prem ranges are: keeps them in the CiliumEndpoints of the frontends' pods and in ip-masq-agent's configuration, and checks cilium-config.",
  )
  .configureHelp({ showGlobalOptions: true })
  .usage('[options] [cleanup]')
  .allowExcessArguments()
  .addOption(new Option('--namespace <name>', 'the namespace of the VPN').env('POD_NAMESPACE').argParser(parseName))
  .addOption(
    new Option('--cilium-namespace <name>', "where Cilium's ConfigMaps are: cilium-config, ip-masq-agent")
      .default('kube-system')
      .argParser(parseName),
  )
  .addOption(
    new Option('--kubeconfig <file>', "how to reach the API server; without it the Pod's ServiceAccount is used"),
  )
  .addOption(
    new Option('--config <file>', 'the configuration, as inject-peer-cidrs renders it').default(
      '/etc/constellation-vpn/config/config.json',
    ),
  )
  .addOption(
    new Option('--port <number>', 'where /livez, /readyz and /metrics are served').default(9811).argParser(parsePort),
  )
  .action(run);
program
  .command('cleanup')
  .description('Takes out again everything that endpoint-sync ever wrote. Delete its Deployment first.')
  .action(cleanup);

/** The client, or the end: what keeps it from being made is a mistake in the environment. */
function connect({ kubeconfig, namespace }: Partial<Options>): KubeClient {
  if (namespace === undefined)
    return program.error(
      'error: --namespace is missing, the namespace of the VPN (or POD_NAMESPACE in the environment)',
    );
  try {
    return new KubeClient(kubeconfig, NAME);
  } catch (error) {
    return program.error(`error: ${(error as Error).message}`);
  }
}

async function run(options: RunOptions, { args }: Command): Promise<void> {
  if (args.length > 0) program.error(`error: unknown command ${args[0]}: the only one is cleanup`);
  const kube = connect(options);
  const { namespace, ciliumNamespace, config } = options;
  const agent = createAgent(kube, log, { namespace, ciliumNamespace, configFile: config, instance: hostname() });
  const signal = shutdownSignal(log, GRACE_MS);
  const server = await serve({ ...agent, port: options.port }).catch((error: Error) =>
    program.error(`error: can't listen on port ${options.port}: ${error.message}`),
  );
  log.info({ port: portOf(server), namespace, server: kube.server }, 'started');
  await agent.run(signal);
  server.close();
  server.closeAllConnections();
  kube.close();
  log.info({}, 'stopped');
}

async function cleanup(_: object, command: Command): Promise<void> {
  const options = command.optsWithGlobals<Options>();
  const kube = connect(options);
  const left = await cleanUp(kube, log, options).catch((error: Error) => [error.message]);
  kube.close();
  for (const problem of left) log.error({ problem }, 'not cleaned up');
  if (left.length > 0) process.exitCode = 1;
  else {
    const { namespace, ciliumNamespace } = options;
    log.info({ namespace, ciliumNamespace, server: kube.server }, 'nothing of endpoint-sync is left');
  }
}

await program.parseAsync();
