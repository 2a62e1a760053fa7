/** Acts on what nodes report as lost: agents/lib/lost-ranges.ts has the protocol, resteer.ts the decision. */
import * as E from 'fp-ts/lib/Either.js';
import { problems } from '../../../functions/model/codec.ts';
import { getJson } from '../../lib/http-get.ts';
import { LOST_RANGES_PATH, LostRanges, ROUTING_PORT, type LostRange } from '../../lib/lost-ranges.ts';
import type { Again } from '../../lib/queue.ts';
import type { CommonDeps } from '../deps.ts';
import type { Endpoints } from '../endpoint/reconcile.ts';
import { ofComponent, podsPath } from '../paths.ts';
import type { Pod } from '../endpoint/plan.ts';
import { OUT_MS, SETTLE_MS, type Resteering, type Verdict } from './resteer.ts';

const OBJECT = { object: 'lost-ranges' };
const TIMEOUT_MS = 5_000;

interface Deps extends CommonDeps {
  readonly endpoints: Endpoints;
  readonly resteering: Resteering;
  /** Has a pod's CiliumEndpoint looked at. */
  readonly enqueue: (pod: string) => void;
}

export class LostRangesCheck {
  readonly #deps: Deps;
  readonly #inVain = new Set<string>();

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  async reconcile(node: string): Promise<Again | void> {
    const { log, metrics, endpoints, resteering, enqueue } = this.#deps;
    metrics.reconciles.inc(OBJECT);
    const lost = await this.#ask(node);
    const judged = resteering.report(
      node,
      lost,
      ({ pod, cidr }) => endpoints.listedSince(pod, cidr),
      performance.now(),
    );
    metrics.lostRanges.set(resteering.reported);
    for (const { range, verdict } of judged) {
      if (verdict === 'resteer') {
        this.#inVain.delete(`${range.pod} ${range.cidr}`);
        log.warn(
          { node, ...range },
          'a node lost this range, taking it out of the CiliumEndpoint and putting it in again',
        );
        enqueue(range.pod);
      }
      if (verdict === 'in vain') this.#giveUp(node, range);
    }
    metrics.lastSuccess.setToCurrentTime(OBJECT);
    const unsettled = judged.some(({ verdict }) => !FINAL.has(verdict));
    return unsettled ? { afterMs: SETTLE_MS + OUT_MS } : undefined;
  }

  #giveUp(node: string, range: LostRange): void {
    const key = `${range.pod} ${range.cidr}`;
    if (this.#inVain.has(key)) return;
    this.#inVain.add(key);
    this.#deps.log.error(
      { node, ...range },
      'a node still lacks this range though it was put in again: look for a network policy with that CIDR, or one inside it',
    );
  }

  /** What the routing agent of that node says; nothing where there is no such agent any more. */
  async #ask(node: string): Promise<readonly LostRange[]> {
    const { kube, namespace } = this.#deps;
    const query = { ...ofComponent('routing'), fieldSelector: `spec.nodeName=${node}` };
    const { items } = await kube.list<Pod>(podsPath(namespace), query);
    const host = items.find(({ status }) => status?.hostIP !== undefined)?.status?.hostIP;
    if (host === undefined) return [];
    const url = `http://${host.includes(':') ? `[${host}]` : host}:${ROUTING_PORT}${LOST_RANGES_PATH}`;
    const decoded = LostRanges.decode(await getJson(url, TIMEOUT_MS));
    if (E.isRight(decoded)) return decoded.right.lost;
    const [first] = problems(decoded.left);
    throw new Error(`GET ${url}: ${first?.path} ${first?.message}`);
  }
}

/** Nothing is left to be done about these until the node reports again. */
const FINAL: ReadonlySet<Verdict> = new Set(['in vain']);
