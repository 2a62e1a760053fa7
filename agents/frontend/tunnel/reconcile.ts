/** Keeps charon at what the configuration and the Secret say: credentials, the connection, its SAs. */
import { isDeepStrictEqual } from 'node:util';
import type { Site, Vpn } from '../../../functions/model/vpn.ts';
import { backoffMs } from '../../lib/backoff.ts';
import type { Log } from '../../lib/log.ts';
import type { Again } from '../../lib/queue.ts';
import { SayOnce } from '../../lib/say-once.ts';
import { wait } from '../../lib/wait.ts';
import { childrenOf, type Child } from '../connection/children.ts';
import { CONNECTION, connectionOf, loadConn, type Connection } from '../connection/load-conn.ts';
import { missingPlugins } from '../connection/plugins.ts';
import type { Credentials } from '../credentials/decode.ts';
import { loadCredentials } from '../credentials/load.ts';
import type { Metrics } from '../metrics.ts';
import { ViciCommandError, ViciUnavailable, type ViciConnection } from '../vici/connection.ts';
import { list, sections, text, type Section } from '../vici/message.ts';
import { planTunnel } from './plan.ts';
import { readSas, type IkeSa } from './sas.ts';

/** Between two tries to dial; charon itself goes on trying for as long as nobody refuses. */
const DIAL_BACKOFF = { firstMs: 1_000, maxMs: 30_000 };
/** Between two looks at an IKE_SA that is being made: where it fails no event tells. */
const WAITING_MS = 2_000;
/** How long a new SA is waited for before the one that it replaces is left as it is. */
const REPLACE_MS = 10_000;
const LOOK_MS = 50;
/** Answered at once, without the log of what follows. */
const INITIATE = { ike: CONNECTION, timeout: '-1', 'init-limits': 'no', loglevel: '-1' };

const NO_ANSWER = 'charon does not answer: see the logs of the containers strongswan and frontend';

/** All that the connection comes from. */
export interface Desired {
  readonly vpn: Vpn;
  readonly site: Site;
  readonly credentials: Credentials;
  /** Our identity, in swanctl's notation. */
  readonly localId: string;
}

interface Deps {
  readonly log: Log;
  readonly metrics: Metrics;
  /** Undefined while there is none that could be loaded. */
  readonly desired: () => Desired | undefined;
}

export class Tunnel {
  readonly #deps: Deps;
  readonly #said = new SayOnce();
  #vici: ViciConnection | undefined;
  /** What charon was given over this connection; undefined after a new start of either of us. */
  #credentials: { readonly credentials: Credentials; readonly ppkId: string } | undefined;
  #connection: Connection | undefined;
  /** Tries to dial in a row after which not all was up. */
  #dialled = 0;
  #problem: string | undefined = 'nothing has been loaded into charon yet';

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  /** Why charon does not have the site's connection; undefined where it has. */
  get problem(): string | undefined {
    return this.#vici === undefined ? NO_ANSWER : this.#problem;
  }

  connected(vici: ViciConnection): void {
    this.#vici = vici;
  }

  disconnected(): void {
    this.#vici = undefined;
    this.#credentials = undefined;
    this.#connection = undefined;
    this.#problem = 'nothing has been loaded into charon yet';
  }

  /** The SAs of the site's connection. Throws where charon does not answer. */
  async sas(): Promise<IkeSa[]> {
    if (this.#vici === undefined) throw new ViciUnavailable(NO_ANSWER);
    return readSas(await this.#vici.stream('list-sas', 'list-sa', { ike: CONNECTION }));
  }

  /** Throws where charon does not answer, or refuses something. */
  async reconcile(): Promise<Again | void> {
    const vici = this.#vici;
    const desired = this.#deps.desired();
    if (vici === undefined || desired === undefined) return;
    const { vpn, site, localId } = desired;
    const children = childrenOf(vpn, site);
    try {
      await this.#loadCredentials(vici, desired);
      const dialled = children.filter((child) => child.dialled).map(({ name }) => name);
      await this.#loadConnection(vici, site, connectionOf(site, localId, children), dialled);
      this.#problem = undefined;
    } catch (error) {
      this.#problem = error instanceof Error ? error.message : String(error);
      throw error;
    }
    return this.#keep(vici, site, children);
  }

  async #loadCredentials(vici: ViciConnection, { credentials, site }: Desired): Promise<void> {
    const wanted = { credentials, ppkId: site.ipsec.ppkSecretRef?.id ?? '' };
    // By what is in them: the Secret is read again every minute.
    if (isDeepStrictEqual(wanted, this.#credentials)) return;
    this.#credentials = undefined;
    await loadCredentials(vici, credentials, wanted.ppkId);
    this.#credentials = wanted;
    this.#deps.metrics.reloads.inc({ what: 'credentials' });
    this.#deps.log.info({ kind: credentials.kind, ppk: credentials.ppk !== undefined }, 'credentials loaded');
  }

  /** `dialled`: names of the children that we make. */
  async #loadConnection(
    vici: ViciConnection,
    site: Site,
    connection: Connection,
    dialled: readonly string[],
  ): Promise<void> {
    if (isDeepStrictEqual(connection, this.#connection)) return;
    const before = this.#connection;
    this.#connection = undefined;
    const loaded = await readConnections(vici);
    for (const name of loaded.keys()) if (name !== CONNECTION) await vici.request('unload-conn', { name });
    await this.#checkPlugins(vici, site);
    const sas = await this.sas();
    await vici.request('load-conn', loadConn(connection));
    this.#connection = connection;
    this.#dialled = 0;
    const children = Object.keys(connection.children).length;
    this.#deps.metrics.reloads.inc({ what: 'connection' });
    this.#deps.log.info({ peer: site.ipsec.peer, children }, 'connection loaded');

    if (before !== undefined && !isDeepStrictEqual(before.ike, connection.ike))
      return this.#replaceIke(vici, site, dialled, sas);
    for (const name of changedChildren(before?.children ?? loaded.get(CONNECTION) ?? {}, connection))
      await this.#replaceChild(vici, site, name, sas);
  }

  /** What charon lacks is said before a gateway refuses the rest of the proposal. */
  async #checkPlugins(vici: ViciConnection, site: Site): Promise<void> {
    const missing = missingPlugins(site.ipsec.proposals.ike, await vici.request('get-algorithms'));
    for (const { token, plugin } of missing)
      this.#said.say(token, plugin, () =>
        this.#deps.log.error(
          { proposalPart: token, plugin },
          'charon lacks the plugin for a part of ipsec.proposals.ike: load the plugin in strongswan.conf, or take that proposal out',
        ),
      );
  }

  /** Another gateway, identity or cipher suite: the next IKE_SA, with all its CHILD_SAs, takes the old one's place. */
  async #replaceIke(
    vici: ViciConnection,
    site: Site,
    dialled: readonly string[],
    sas: readonly IkeSa[],
  ): Promise<void> {
    if (sas.length === 0) return;
    const old = sas.flatMap(({ children }) => children);
    if (site.ipsec.startAction !== 'none' && !(await this.#initiate(vici, dialled, old))) return;
    for (const { uid } of sas) await this.#terminate(vici, { 'ike-id': uid });
  }

  /** The new one stands before the old one goes. */
  async #replaceChild(vici: ViciConnection, site: Site, name: string, sas: readonly IkeSa[]): Promise<void> {
    const old = sas.flatMap(({ children }) => children).filter((sa) => sa.name === name && sa.state === 'INSTALLED');
    if (old.length === 0 || site.ipsec.startAction === 'none' || !(await this.#initiate(vici, [name], old))) return;
    for (const { uid } of old) await this.#terminate(vici, { 'child-id': uid });
  }

  /** True when all stand beside the `old` ones. Asked for and looked at: a command that waits would hold up all others. */
  async #initiate(
    vici: ViciConnection,
    children: readonly string[],
    old: readonly { uid: string }[],
  ): Promise<boolean> {
    for (const child of children) await vici.request('initiate', { ...INITIATE, child }).catch(ignoreRefusal);
    const uids = new Set(old.map(({ uid }) => uid));
    const end = performance.now() + REPLACE_MS;
    let missing = children;
    while (performance.now() < end) {
      const live = (await this.sas()).flatMap((sa) => sa.children);
      const fresh = live.filter(({ uid, state }) => state === 'INSTALLED' && !uids.has(uid));
      missing = children.filter((child) => !fresh.some(({ name }) => name === child));
      if (missing.length === 0) return true;
      await wait(LOOK_MS);
    }
    this.#deps.log.error({ children: missing }, 'no SA by the new configuration, the old one stays');
    return false;
  }

  /** Asked for, not waited for. One that has gone already is no mistake. */
  async #terminate(vici: ViciConnection, which: Readonly<Record<string, string>>): Promise<void> {
    await vici.request('terminate', { ...which, timeout: '-1', loglevel: '-1' }).catch(ignoreRefusal);
  }

  async #keep(vici: ViciConnection, { ipsec }: Site, children: readonly Child[]): Promise<Again | void> {
    if (ipsec.startAction.includes('trap')) await this.#keepTraps(vici, children);
    const { dial, drop, waiting } = planTunnel(children, ipsec.startAction.includes('start'), await this.sas());
    for (const uid of drop) await this.#terminate(vici, { 'child-id': uid });
    for (const child of dial) await vici.request('initiate', { ...INITIATE, child }).catch(ignoreRefusal);
    if (waiting) return { afterMs: WAITING_MS };
    if (dial.length === 0) {
      this.#dialled = 0;
      return undefined;
    }
    this.#dialled += 1;
    return { afterMs: backoffMs(this.#dialled, DIAL_BACKOFF) };
  }

  /** A trap needs the gateway's address: where its name was not known at load-conn, charon has installed none. */
  async #keepTraps(vici: ViciConnection, children: readonly Child[]): Promise<void> {
    const policies = await vici.stream('list-policies', 'list-policy', { trap: 'yes', ike: CONNECTION });
    const trapped = new Set(policies.flatMap((policy) => sections(policy).map(([, one]) => text(one, 'child'))));
    for (const { name, dialled } of children) {
      if (!dialled || trapped.has(name)) continue;
      try {
        await vici.request('install', { ike: CONNECTION, child: name });
        this.#said.over(`trap ${name}`);
      } catch (error) {
        if (!(error instanceof ViciCommandError)) throw error;
        const problem = error.message;
        this.#said.say(`trap ${name}`, problem, () =>
          this.#deps.log.warn({ child: name, problem }, 'traffic to these ranges does not dial the gateway yet'),
        );
      }
    }
  }
}

type Loaded = Readonly<Record<string, { readonly local_ts: readonly string[]; readonly remote_ts: readonly string[] }>>;

/** What charon has, perhaps from an earlier run of this agent: the connections, and their children's selectors. */
async function readConnections(vici: ViciConnection): Promise<Map<string, Loaded>> {
  const events = await vici.stream('list-conns', 'list-conn');
  const connections = events.flatMap((event) => sections(event));
  return new Map(
    connections.map(([name, connection]) => [
      name,
      Object.fromEntries(
        sections(connection, 'children').map(([child, section]) => [
          child,
          { local_ts: list(section, 'local-ts'), remote_ts: list(section, 'remote-ts') },
        ]),
      ),
    ]),
  );
}

/** Only the selectors are known of what an earlier run has loaded. */
function changedChildren(before: Readonly<Record<string, object>>, { children }: Connection): string[] {
  const isChanged = (was: object, now: Section): boolean =>
    Object.entries(was).some(([key, value]) => !isDeepStrictEqual(value, now[key]));
  return Object.entries(children).flatMap(([name, now]) => {
    const was = before[name];
    return was !== undefined && isChanged(was, now) ? [name] : [];
  });
}

function ignoreRefusal(error: unknown): void {
  if (!(error instanceof ViciCommandError)) throw error;
}
