/** The command line: `frontend`. */
import { Command, Option } from 'commander';
import { parsePort } from '../lib/command-line.ts';
import { portOf, serve } from '../lib/http.ts';
import { createLog } from '../lib/log.ts';
import { shutdownSignal } from '../lib/shutdown.ts';
import { keepSmall } from '../lib/small-process.ts';
import { createAgent, type Settings } from './agent.ts';

/** A round of pings may be under way. */
const GRACE_MS = 5_000;

interface Options {
  readonly site: string;
  readonly config: string;
  readonly secrets: string;
  readonly socket: string;
  readonly port: number;
}

keepSmall();
const log = createLog('frontend');

const program = new Command('frontend')
  .description(
    "Drives the strongSwan beside it: loads the site's connection and keys over VICI, follows changes of both, and tells how the tunnel is.",
  )
  .addOption(
    new Option('--site <name>', 'the site of this frontend; empty: the one without a name').env('SITE').default(''),
  )
  .addOption(
    new Option('--config <file>', 'the configuration, as inject-peer-cidrs renders it').default(
      '/etc/constellation-vpn/config/config.json',
    ),
  )
  .addOption(
    new Option('--secrets <folder>', "the site's Secret: psk, or tls.crt, tls.key and ca.crt; ppk").default(
      '/etc/constellation-vpn/ipsec',
    ),
  )
  .addOption(new Option('--socket <file>', "charon's VICI socket").default('/var/run/charon/charon.vici'))
  .addOption(
    new Option('--port <number>', 'where /livez, /readyz and /metrics are served').default(9812).argParser(parsePort),
  )
  .action(run);

async function run({ site, config, secrets, socket, port }: Options): Promise<void> {
  const settings: Settings = { site, configFile: config, secretFolder: secrets, socket };
  const agent = createAgent(log, settings);
  const signal = shutdownSignal(log, GRACE_MS);
  const server = await serve({ ...agent, port }).catch((error: Error) =>
    program.error(`error: can't listen on port ${port}: ${error.message}`),
  );
  log.info({ port: portOf(server), site }, 'started');
  await agent.run(signal);
  server.close();
  server.closeAllConnections();
  log.info({}, 'stopped');
}

await program.parseAsync();
