/** The agent of a frontend as a whole: what is watched, and what each event leads to. */
import { isDeepStrictEqual } from 'node:util';
import type { Site } from '../../functions/model/vpn.ts';
import { ConfigFile } from '../lib/config.ts';
import type { Log } from '../lib/log.ts';
import { WorkQueue } from '../lib/queue.ts';
import { SayOnce } from '../lib/say-once.ts';
import { SecretFolder } from '../lib/secret-folder.ts';
import { wait } from '../lib/wait.ts';
import { decodeCredentials, wantedFiles, type Credentials } from './credentials/decode.ts';
import { subjectIdentity } from './credentials/subject.ts';
import { createMetrics } from './metrics.ts';
import { Probe } from './probe/probe.ts';
import { followEvents } from './tunnel/events.ts';
import { Tunnel, type Desired } from './tunnel/reconcile.ts';
import { listSas, type IkeSa } from './tunnel/sas.ts';
import { ViciConnection } from './vici/connection.ts';
import { followVici } from './vici/follow.ts';

/** Everything is looked at again this often even if nothing said that it changed. */
const RECHECK_MS = 60_000;
const BACKOFF = { firstMs: 100, maxMs: 10_000 };
/** After an SA came up or ended: others may follow. */
const SETTLE_MS = 100;
const KEY = 'tunnel';

export interface Settings {
  /** Empty where the only site has no name. */
  readonly site: string;
  readonly configFile: string;
  readonly secretFolder: string;
  /** charon's. */
  readonly socket: string;
}

export function createAgent(log: Log, settings: Settings) {
  let credentials: Credentials | undefined;
  let credentialProblems: readonly string[] = ['the Secret has not been read yet'];
  const said = new SayOnce();

  const site = (): Site | undefined => config.vpn?.sites.find(({ name }) => name === settings.site);
  const siteProblem = (): string | undefined =>
    config.vpn === undefined || site() !== undefined
      ? undefined
      : `the configuration has no site ${settings.site === '' ? 'without a name' : `"${settings.site}"`}, only ${config.vpn.sites.map(({ name }) => `"${name}"`).join(', ')}: render and apply again`;
  const desired = (): Desired | undefined => {
    const [vpn, one] = [config.vpn, site()];
    if (vpn === undefined || one === undefined || credentials === undefined) return undefined;
    const localId = localIdOf(one, credentials);
    return localId === undefined ? undefined : { vpn, site: one, credentials, localId };
  };

  const metrics = createMetrics(
    () => config.problems.length === 0 && siteProblem() === undefined,
    () => readSasOnce(settings.socket),
  );
  const tunnel: Tunnel = new Tunnel({ log, metrics, desired });
  const probe = new Probe({
    log,
    onResult: ({ address, loss, latencySeconds }) => {
      metrics.probeLoss.set({ address }, loss);
      if (latencySeconds !== undefined) metrics.probeLatency.set({ address }, latencySeconds);
      else metrics.probeLatency.remove({ address });
    },
    onUnknown: (address) => {
      metrics.probeLoss.remove({ address });
      metrics.probeLatency.remove({ address });
    },
  });

  const queue = new WorkQueue(
    async () => {
      const again = await tunnel.reconcile();
      said.over('reconcile');
      return again;
    },
    {
      backoff: BACKOFF,
      concurrency: 1,
      onError: (_, error) => {
        const problem = error instanceof Error ? error.message : String(error);
        said.say('reconcile', problem, () => log.error({ problem }, 'charon was not brought to what it should be'));
        return undefined;
      },
    },
  );

  const readCredentials = (): void => {
    const ipsec = site()?.ipsec;
    if (ipsec === undefined) return;
    const read = decodeCredentials(ipsec, secrets.files, new Date());
    credentialProblems = 'problems' in read ? read.problems : [];
    metrics.credentialsValid.set(Number(!('problems' in read)));
    sayCredentials('problems' in read ? read.problems : read.warnings, 'problems' in read);
    if ('problems' in read) return;
    // The same object stays the same: what is another one is loaded.
    if (!isDeepStrictEqual(credentials, read.credentials)) credentials = read.credentials;
    metrics.certificateExpiry.reset();
    if (read.credentials.kind !== 'certificate') return;
    const { expires, authoritiesExpire } = read.credentials;
    metrics.certificateExpiry.set({ role: 'leaf' }, expires.getTime() / 1000);
    const ca = Math.min(...authoritiesExpire.map((date) => date.getTime()));
    metrics.certificateExpiry.set({ role: 'ca' }, ca / 1000);
  };
  const saidOfSecret = new SayOnce();
  const sayCredentials = (sentences: readonly string[], refused: boolean): void => {
    const kept = credentials === undefined ? 'waiting for a valid one' : 'the last good one stays in force';
    for (const problem of sentences)
      saidOfSecret.say(problem, kept, () =>
        refused
          ? log.error({ problem }, `Secret refused, ${kept}`)
          : log.warn({ problem }, 'the Secret works, but look at it'),
      );
    saidOfSecret.retain(new Set(sentences));
  };
  const changed = (): void => {
    readCredentials();
    if (config.vpn !== undefined) probe.set(site()?.probe);
    queue.add(KEY);
  };

  const config = new ConfigFile({
    file: settings.configFile,
    log,
    onChange: () => {
      const problem = siteProblem();
      if (problem !== undefined) log.error({ problem }, 'nothing to do for this frontend');
      // Another way to authenticate wants other files.
      void secrets.read().then(changed);
    },
  });
  const wanted = (): ReadonlyMap<string, string> => {
    const ipsec = site()?.ipsec;
    return ipsec === undefined ? new Map() : wantedFiles(ipsec);
  };
  const secrets = new SecretFolder({
    folder: settings.secretFolder,
    names: () => [...wanted().keys()],
    source: (name) => wanted().get(name) ?? name,
    onChange: changed,
  });

  const backstop = async (signal: AbortSignal): Promise<void> => {
    for (;;) {
      await wait(RECHECK_MS, signal);
      if (signal.aborted) return;
      changed();
    }
  };
  const vici = (signal: AbortSignal): Promise<void> =>
    followVici({
      socket: settings.socket,
      signal,
      log,
      onConnected: async (connection) => {
        void connection.closed.then(() => tunnel.disconnected());
        await followEvents(connection, {
          log,
          metrics,
          proposals: () => site()?.ipsec.proposals,
          onChange: () => void wait(SETTLE_MS, signal).then(() => queue.add(KEY)),
        });
        tunnel.connected(connection);
        queue.add(KEY);
      },
    });

  return {
    registry: metrics.registry,
    /** Why it is not ready. */
    unready: (): string[] => [
      ...(config.vpn === undefined ? config.problems : []),
      ...[siteProblem()].filter((problem) => problem !== undefined),
      ...(credentials === undefined ? credentialProblems : []),
      ...[tunnel.problem].filter((problem) => problem !== undefined),
    ],
    /** Until `signal` is aborted. charon and its tunnels stay as they are: it ends by itself when the pod does. */
    run: async (signal: AbortSignal): Promise<void> => {
      await config.read();
      await Promise.all([
        config.follow(signal),
        secrets.follow(signal),
        vici(signal),
        probe.run(signal),
        backstop(signal),
      ]);
      await queue.stop();
    },
  };
}

/** What the functions have written into the configuration; with a certificate its subject, where nothing else is said. */
function localIdOf({ ipsec }: Site, credentials: Credentials): string | undefined {
  const [leaf] = credentials.kind === 'certificate' ? credentials.chain : [];
  return ipsec.localID ?? (leaf === undefined ? undefined : subjectIdentity(leaf));
}

/** Over a connection of its own: on the agent's a command may be under way that takes long. */
async function readSasOnce(socket: string): Promise<IkeSa[]> {
  const vici = await ViciConnection.open(socket);
  try {
    return await listSas(vici);
  } finally {
    vici.close();
  }
}
