/** Keeps charon at what the configuration and the Secret say: credentials, the connection, its SAs. */
import { isDeepStrictEqual } from 'node:util';
import { Cidr, containsCidr, sortCidrs } from '../../../functions/model/cidr.ts';
import type { Site, Vpn } from '../../../functions/model/vpn.ts';
import { backoffMs } from '../../lib/backoff.ts';
import type { Log } from '../../lib/log.ts';
import type { Again } from '../../lib/queue.ts';
import { SayOnce } from '../../lib/say-once.ts';
import { childrenOf, type Child } from '../connection/children.ts';
import { CONNECTION, connectionOf, loadConn, type Connection } from '../connection/load-conn.ts';
import { missingPlugins } from '../connection/plugins.ts';
import type { Credentials } from '../credentials/decode.ts';
import { loadCredentials } from '../credentials/load.ts';
import type { Metrics } from '../metrics.ts';
import { ViciCommandError, type ViciConnection } from '../vici/connection.ts';
import { list, sections, type Section } from '../vici/message.ts';
import { planTunnel } from './plan.ts';
import { listSas, type IkeSa } from './sas.ts';

/** Between two tries to dial; charon itself goes on trying for as long as nobody refuses. */
const DIAL_BACKOFF = { firstMs: 1_000, maxMs: 30_000 };
/** Between two looks at an IKE_SA that is being made. */
const WAITING_MS = 2_000;
/** Tries in vain before it is said that an old SA stays in a new one's place. */
const SAID_AFTER = 3;
/** For what resolves the gateway's name: a DNS server that does not answer takes charon's resolver 10 s. */
const SLOW = { timeoutMs: 60_000 };
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
  /** Of children that are dialled and not up: how often in a row, and when next, in milliseconds of `performance.now()`. */
  readonly #tries = new Map<string, { tries: number; next: number }>();
  /** With what each was made by: where that comes back, charon makes no second one, but takes it for up. */
  readonly #outdated = { ikeSas: new Map<string, Section>(), childSas: new Map<string, object>() };
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
    this.#tries.clear();
    this.#outdated.ikeSas.clear();
    this.#outdated.childSas.clear();
    this.#problem = 'nothing has been loaded into charon yet';
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
      await this.#loadConnection(vici, site, connectionOf(site, localId, children));
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

  async #loadConnection(vici: ViciConnection, site: Site, connection: Connection): Promise<void> {
    if (isDeepStrictEqual(connection, this.#connection)) return;
    const loaded = await readConnections(vici);
    for (const name of loaded.keys()) if (name !== CONNECTION) await vici.request('unload-conn', { name });
    await this.#checkPlugins(vici, site);
    const sas = await listSas(vici);
    // Where it refuses, it keeps this one.
    const before = this.#connection;
    await vici.request('load-conn', loadConn(connection), SLOW);
    this.#connection = connection;
    this.#outdate(sas, before?.ike ?? connection.ike, before?.children ?? loaded.get(CONNECTION) ?? {});
    this.#tries.clear();
    const children = Object.keys(connection.children).length;
    this.#deps.metrics.reloads.inc({ what: 'connection' });
    this.#deps.log.info({ peer: site.ipsec.peer, children }, 'connection loaded');
  }

  /** `sas`: those there were when the connection was loaded in the place of another one. */
  #outdate(sas: readonly IkeSa[], ike: Section, children: Readonly<Record<string, object>>): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    const { ikeSas, childSas } = this.#outdated;
    for (const { uid } of sas) {
      const was = ikeSas.get(uid) ?? ike;
      if (isDeepStrictEqual(was, connection.ike)) ikeSas.delete(uid);
      else ikeSas.set(uid, was);
    }
    for (const { name, uid } of sas.flatMap((sa) => sa.children)) {
      const was = childSas.get(uid) ?? children[name];
      const now = connection.children[name];
      if (was === undefined || now === undefined || !isChanged(was, now)) childSas.delete(uid);
      else childSas.set(uid, was);
    }
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

  /** Asked for, not waited for. One that has gone already is no mistake. */
  async #terminate(vici: ViciConnection, which: Readonly<Record<string, string>>): Promise<void> {
    await vici.request('terminate', { ...which, timeout: '-1', loglevel: '-1' }).catch(ignoreRefusal);
  }

  async #keep(vici: ViciConnection, { ipsec }: Site, children: readonly Child[]): Promise<Again | void> {
    const sas = await listSas(vici);
    const { dial, drop, dropIkeSas, waiting } = planTunnel(children, ipsec.startAction, sas, this.#outdated);
    for (const uid of drop) await this.#terminate(vici, { 'child-id': uid });
    for (const uid of dropIkeSas) await this.#terminate(vici, { 'ike-id': uid });
    this.#sayOutdated(sas, dial);
    for (const name of this.#tries.keys()) if (!waiting && !dial.includes(name)) this.#tries.delete(name);
    const waits = waiting ? [WAITING_MS] : [];
    for (const child of dial) waits.push(await this.#dial(vici, child));
    return waits.length === 0 ? undefined : { afterMs: Math.min(...waits) };
  }

  /** Unless it was tried just before. Answers how long the next try has to wait, in milliseconds. */
  async #dial(vici: ViciConnection, child: string): Promise<number> {
    const now = performance.now();
    const { tries, next } = this.#tries.get(child) ?? { tries: 0, next: now };
    if (next > now) return next - now;
    const afterMs = backoffMs(tries + 1, DIAL_BACKOFF);
    this.#tries.set(child, { tries: tries + 1, next: now + afterMs });
    await vici.request('initiate', { ...INITIATE, child }, SLOW).catch(ignoreRefusal);
    return afterMs;
  }

  /** Forgets those that have gone, and says it where they stay for long. */
  #sayOutdated(sas: readonly IkeSa[], dial: readonly string[]): void {
    const there = new Set(sas.map(({ uid }) => uid));
    const childrenThere = new Set(sas.flatMap(({ children }) => children.map(({ uid }) => uid)));
    for (const uid of this.#outdated.ikeSas.keys()) if (!there.has(uid)) this.#outdated.ikeSas.delete(uid);
    for (const uid of this.#outdated.childSas.keys()) if (!childrenThere.has(uid)) this.#outdated.childSas.delete(uid);
    const stay = this.#outdated.ikeSas.size + this.#outdated.childSas.size > 0;
    const refused = dial.filter((name) => (this.#tries.get(name)?.tries ?? 0) >= SAID_AFTER);
    if (!stay) this.#said.over('outdated');
    else if (refused.length > 0)
      this.#said.say('outdated', '', () =>
        this.#deps.log.error({ children: refused }, 'no SA by the new configuration yet, the old one stays'),
      );
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

/** Only the selectors are known of what an earlier run has loaded, and of these not those inside others, which charon leaves out. */
function isChanged(was: object, now: Section): boolean {
  return Object.entries(was).some(([key, value]) => !isDeepStrictEqual(widest(value), widest(now[key])));
}

/** Of selectors those that are in no other one, sorted; anything else as it is. */
function widest(value: unknown): unknown {
  if (!Array.isArray(value) || !value.every((one) => Cidr.is(one))) return value;
  return sortCidrs(value.filter((cidr) => !value.some((other) => other !== cidr && containsCidr(other, cidr))));
}

function ignoreRefusal(error: unknown): void {
  if (!(error instanceof ViciCommandError)) throw error;
}
