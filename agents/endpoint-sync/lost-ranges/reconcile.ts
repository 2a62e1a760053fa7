/** Acts on what nodes report as lost: agents/lib/lost-ranges.ts has the protocol, resteer.ts the decision. */
import * as E from 'fp-ts/lib/Either.js';
import { problems } from '../../../functions/model/codec.ts';
import { getJson, urlOf } from '../../lib/http-client.ts';
import { LOST_RANGES_PATH, LostRanges, ROUTING_PORT, type LostRange } from '../../lib/lost-ranges.ts';
import type { Again } from '../../lib/queue.ts';
import type { CommonDeps } from '../deps.ts';
import type { Endpoints } from '../endpoint/reconcile.ts';
import type { Pod } from '../../lib/kube/objects.ts';
import { ofComponent, podsPath } from '../../lib/kube/paths.ts';
import { FIRST_PAUSE_MS, OUT_MS, SETTLE_MS, type Resteering } from './resteer.ts';

const OBJECT = { object: 'lost-ranges' };
const TIMEOUT_MS = 5_000;
/** A routing agent that did not answer is asked again after this, in milliseconds. */
const RETRY_MS = 30_000;
/** However many hints come: one list of the routing agents in this time, in milliseconds. */
const SPACING_MS = 1_000;
/** Anybody in the cluster can send hints. */
const MAX_NODES = 5_000;

interface Deps extends CommonDeps {
  readonly endpoints: Endpoints;
  readonly resteering: Resteering;
  /** Has a pod's CiliumEndpoint looked at. */
  readonly enqueue: (pod: string) => void;
}

export class LostRangesCheck {
  readonly #deps: Deps;
  /** When a node is to be asked, in milliseconds of `performance.now()`. */
  readonly #due = new Map<string, number>();
  /** What was said of a node or range that can't be helped. */
  readonly #said = new Map<string, string>();
  #lastRun = -SPACING_MS;

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  /** The node has something to tell. False: too many at the same time. */
  hint(node: string): boolean {
    if (!this.#due.has(node) && this.#due.size >= MAX_NODES) return false;
    this.#due.set(node, performance.now());
    return true;
  }

  /** Asks every node that is due. */
  async reconcile(): Promise<Again | void> {
    const { metrics, resteering } = this.#deps;
    const now = performance.now();
    if (now - this.#lastRun < SPACING_MS) return { afterMs: this.#lastRun + SPACING_MS - now };
    this.#lastRun = now;
    const due = [...this.#due].filter(([, at]) => at <= now);
    if (due.length > 0) {
      metrics.reconciles.inc(OBJECT);
      const hosts = await this.#hosts();
      await Promise.all(due.map(([node, at]) => this.#check(node, at, hosts.get(node))));
      metrics.lostRanges.set(resteering.reported);
      metrics.lastSuccess.setToCurrentTime(OBJECT);
    }
    if (this.#due.size > 0)
      return { afterMs: Math.max(SPACING_MS, Math.min(...this.#due.values()) - performance.now()) };
  }

  /** Addresses of the nodes that have a routing agent. */
  async #hosts(): Promise<ReadonlyMap<string, string>> {
    const { kube, namespace } = this.#deps;
    const query = { ...ofComponent('routing'), resourceVersion: '0' };
    const { items } = await kube.list<Pod>(podsPath(namespace), query);
    return new Map(
      items.flatMap(({ spec, status }): [string, string][] =>
        spec?.nodeName === undefined || status?.hostIP === undefined ? [] : [[spec.nodeName, status.hostIP]],
      ),
    );
  }

  async #check(node: string, at: number, host: string | undefined): Promise<void> {
    const inMs = await this.#ask(node, host);
    if (this.#due.get(node) !== at) return; // another hint came meanwhile
    if (inMs === undefined) this.#due.delete(node);
    else this.#due.set(node, performance.now() + inMs);
  }

  /** Answers in how many milliseconds the node is to be asked again; undefined: not before its next hint. */
  async #ask(node: string, host: string | undefined): Promise<number | undefined> {
    const { log, endpoints, resteering, enqueue } = this.#deps;
    let lost: readonly LostRange[] = []; // of a node without a routing agent: gone, with all that it reported
    try {
      if (host !== undefined) lost = await fetchLost(host);
      this.#said.delete(node);
    } catch (error) {
      this.#say(node, { node, problem: (error as Error).message }, 'a routing agent does not tell what it lost');
      return RETRY_MS;
    }
    const since = ({ pod, cidr }: LostRange) => endpoints.listedSince(pod, cidr);
    const judged = resteering.report(node, lost, since, performance.now());
    for (const { range, verdict } of judged) {
      const key = `${range.pod} ${range.cidr}`;
      if (verdict === 'in vain')
        this.#say(
          key,
          { node, ...range },
          'a node still lacks this range though it was put in again: look for a network policy with that CIDR, or one inside it',
        );
      if (verdict !== 'resteer') continue;
      this.#said.delete(key);
      log.warn(
        { node, ...range },
        'a node lost this range, taking it out of the CiliumEndpoint and putting it in again',
      );
      enqueue(range.pod);
    }
    if (judged.length === 0) return undefined;
    return judged.every(({ verdict }) => verdict === 'in vain') ? FIRST_PAUSE_MS : SETTLE_MS + OUT_MS;
  }

  #say(key: string, keys: object, message: string): void {
    const text = JSON.stringify([keys, message]);
    if (this.#said.get(key) === text) return;
    this.#said.set(key, text);
    this.#deps.log.error(keys, message);
  }
}

/** What the routing agent at this address has lost. */
async function fetchLost(host: string): Promise<readonly LostRange[]> {
  const url = urlOf(host, ROUTING_PORT, LOST_RANGES_PATH);
  const decoded = LostRanges.decode(await getJson(url, TIMEOUT_MS));
  if (E.isRight(decoded)) return decoded.right.lost;
  const [first] = problems(decoded.left);
  throw new Error(`GET ${url}: ${first?.path} ${first?.message}`);
}
