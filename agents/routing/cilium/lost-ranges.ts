/**
 * Looks whether Cilium's agent on this node still knows the on-prem ranges, and tells endpoint-sync of those that it lost:
 * agents/lib/lost-ranges.ts has the protocol. Endpoint-sync judges whether the CiliumEndpoint lists them.
 */
import { type Cidr, hostCidr } from '../../../functions/model/cidr.ts';
import type { Vpn } from '../../../functions/model/vpn.ts';
import { postJson, urlOf } from '../../lib/http-client.ts';
import type { KubeClient } from '../../lib/kube/client.ts';
import type { Pod } from '../../lib/kube/objects.ts';
import { ofComponent, podsPath } from '../../lib/kube/paths.ts';
import type { Log } from '../../lib/log.ts';
import { ENDPOINT_SYNC_PORT, LOST_RANGES_PATH, type LostRange } from '../../lib/lost-ranges.ts';
import type { Again } from '../../lib/queue.ts';
import { SayOnce } from '../../lib/say-once.ts';
import { type Frontend, frontendsOf } from '../frontends.ts';
import type { Metrics } from '../metrics.ts';
import { RangeIndex } from '../range-index.ts';
import { CiliumError, type CiliumApi, type IpEntry } from './api.ts';
import { findLoss, type Loss } from './find-lost.ts';

/** Up to so many ranges are asked for one by one, more all at once: that is the agent's whole list, of every pod in the cluster. */
const ONE_BY_ONE = 32;
/** Nodes learn of a new range within a second; what is missing for as long as this, in milliseconds, is lost. */
const CONFIRM_MS = 10_000;
const TIMEOUT_MS = 5_000;

interface Deps {
  readonly kube: KubeClient;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Of the VPN. */
  readonly namespace: string;
  readonly node: string;
  readonly cilium: CiliumApi;
  readonly vpn: () => Vpn | undefined;
  /** That run on this node. */
  readonly frontends: () => readonly Frontend[];
}

type LossOfPod = Loss & { readonly pod: string };

export class LostRangesCheck {
  readonly #deps: Deps;
  readonly #said = new SayOnce();
  /** What was said last. */
  #causes: ReadonlyMap<string, readonly LossOfPod[]> = new Map();
  /** What was missing at the last look, and since when, in milliseconds of `performance.now()`. */
  #suspects: ReadonlyMap<string, number> = new Map();
  #lost: readonly LostRange[] = [];
  /** Endpoint-sync was told of this list. */
  #told = '[]';

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  /** For endpoint-sync: ranges that it can bring back. */
  get lost(): readonly LostRange[] {
    return this.#lost;
  }

  /** Throws where the API server or endpoint-sync can't be reached. */
  async reconcile(): Promise<Again | void> {
    const { vpn, metrics } = this.#deps;
    const config = vpn();
    if (config === undefined) return;
    const losses = await this.#losses(config);
    if (losses === undefined) {
      this.#suspects = new Map(); // Cilium's agent is away: nothing is known
      return;
    }
    const now = performance.now();
    const suspects = new Map(losses.map((loss) => [keyOf(loss), this.#suspects.get(keyOf(loss)) ?? now]));
    this.#suspects = suspects;
    const confirmed = losses.filter((loss) => now - (suspects.get(keyOf(loss)) ?? now) >= CONFIRM_MS);
    metrics.lostRanges.set(confirmed.length);
    this.#say(confirmed);
    this.#lost = confirmed.flatMap(({ kind, pod, cidr }) => (BROUGHT_BACK.has(kind) ? [{ pod, cidr }] : []));
    await this.#tell();
    metrics.lastSuccess.setToCurrentTime({ task: 'lost-ranges' });
    if (confirmed.length < losses.length) return { afterMs: CONFIRM_MS };
  }

  /** With the pod whose CiliumEndpoint should list the range; ranges of sites that have no running frontend are not lost. */
  async #losses(config: Vpn): Promise<LossOfPod[] | undefined> {
    const index = new RangeIndex(
      config.sites.flatMap(({ name, peerCIDRs }) => peerCIDRs.map((cidr) => ({ cidr, site: name }))),
    );
    const found = await this.#findLosses(index).catch((error: unknown) => {
      if (error instanceof CiliumError && error.kind === 'away') return undefined;
      throw error;
    });
    if (found === undefined || found.length === 0) return found === undefined ? undefined : [];
    const { kube, namespace } = this.#deps;
    const { items } = await kube.list<Pod>(podsPath(namespace), { ...ofComponent('frontend'), resourceVersion: '0' });
    const frontends = new Map(frontendsOf(items, config).frontends.map((frontend) => [frontend.site, frontend]));
    const losses: LossOfPod[] = [];
    for (const loss of found) {
      const frontend = frontends.get(index.get(loss.cidr)?.site ?? '');
      if (frontend === undefined) continue;
      const behind = loss.kind === 'missing' && !(await this.#knows(frontend));
      losses.push({ ...(behind ? { cidr: loss.cidr, kind: 'behind' } : loss), pod: frontend.pod });
    }
    return losses;
  }

  /** Whether the agent has an entry for the frontend's own address, from the same CiliumEndpoint as its ranges. */
  async #knows({ addresses }: Frontend): Promise<boolean> {
    for (const cidr of Object.values(addresses).map(hostCidr))
      if ((await this.#deps.cilium.entries(cidr)).length > 0) return true;
    return false;
  }

  async #findLosses(index: RangeIndex<{ cidr: Cidr; site: string }>): Promise<Loss[]> {
    const { cilium } = this.#deps;
    const here = new Map(this.#deps.frontends().map(({ site, hosts }) => [site, hosts]));
    const find = (cidr: Cidr, entries: readonly IpEntry[]): Loss | undefined =>
      findLoss(cidr, entries, known, here.get(index.get(cidr)?.site ?? ''));
    const ranges = index.all().map(({ cidr }) => cidr);
    const known: ReadonlySet<string> = new Set(ranges);
    const losses: (Loss | undefined)[] = [];
    if (ranges.length <= ONE_BY_ONE) for (const cidr of ranges) losses.push(find(cidr, await cilium.entries(cidr)));
    else {
      const entries = groupByRange(index, await cilium.entries());
      for (const cidr of ranges) losses.push(find(cidr, entries.get(cidr) ?? []));
    }
    return losses.filter((loss) => loss !== undefined);
  }

  #say(losses: readonly LossOfPod[]): void {
    const { log } = this.#deps;
    const causes = byCause(losses);
    for (const [cause, [loss, ...others]] of causes)
      if (loss !== undefined)
        this.#said.say(cause, loss.kind, () =>
          log.error({ ...loss, ranges: 1 + others.length, problem: PROBLEMS[loss.kind] }, MESSAGES[loss.kind]),
        );
    const ended = [...this.#causes].filter(([cause]) => !causes.has(cause));
    for (const [cause] of ended) this.#said.over(cause);
    if (causes.size === 0 && ended.some(([, all]) => all.some((loss) => this.#isMended(loss))))
      log.info({}, 'Cilium knows every range here');
    this.#causes = causes;
  }

  /** What only the frontend's node can see is not mended by a frontend that leaves it. */
  #isMended({ kind, pod }: LossOfPod): boolean {
    return kind !== 'elsewhere' || this.#deps.frontends().some((frontend) => frontend.pod === pod);
  }

  /** A hint to every endpoint-sync there is: whenever the list changed, and, since one that starts anew has forgotten it, at each look while there is one. */
  async #tell(): Promise<void> {
    const list = JSON.stringify(this.#lost);
    if (list === this.#told && list === '[]') return;
    const { kube, namespace, node } = this.#deps;
    const { items } = await kube.list<Pod>(podsPath(namespace), {
      ...ofComponent('endpoint-sync'),
      resourceVersion: '0',
    });
    const hosts = items.flatMap(({ status }) =>
      status?.phase === 'Running' ? (status.podIPs?.slice(0, 1) ?? []) : [],
    );
    if (hosts.length === 0) throw new Error('no endpoint-sync runs that could be told of lost ranges');
    const told = await Promise.allSettled(
      hosts.map(({ ip }) => postJson(urlOf(ip, ENDPOINT_SYNC_PORT, LOST_RANGES_PATH), { node }, TIMEOUT_MS)),
    );
    // One is enough: the pod of a node that died is listed for minutes.
    const [first] = told;
    if (first?.status === 'rejected' && told.every(({ status }) => status === 'rejected')) throw first.reason as Error;
    this.#told = list;
  }
}

/** By taking a range out of the CiliumEndpoint and putting it in again. */
const BROUGHT_BACK: ReadonlySet<Loss['kind']> = new Set(['missing', 'policy']);

const LATE =
  "Cilium's agent on this node does not know where the frontend runs now. With CiliumEndpointSlices cilium-operator tells the nodes: see whether it runs (kubectl -n kube-system get deployment cilium-operator)";
const PROBLEMS: Record<Loss['kind'], string> = {
  missing: "Cilium's agent on this node has no entry for the range although a frontend runs: see endpoint-sync",
  policy: 'a network policy has this CIDR and took the range: select the frontends by their labels instead',
  behind: LATE,
  elsewhere: LATE,
  inside:
    'a network policy has a CIDR inside the range (part), which is lost to the VPN: select the frontends by their labels instead',
};

const LOST = 'Cilium has lost this range here';
const UNKNOWN = 'Cilium does not know yet where this range is';
const MESSAGES: Record<Loss['kind'], string> = {
  missing: LOST,
  policy: LOST,
  inside: LOST,
  behind: UNKNOWN,
  elsewhere: UNKNOWN,
};

const keyOf = ({ cidr, kind }: Loss): string => `${cidr} ${kind}`;
/** A CiliumEndpoint that has not come is so for all its ranges, and said once. */
const causeOf = (loss: LossOfPod): string =>
  loss.kind === 'behind' || loss.kind === 'elsewhere' ? `${loss.pod} ${loss.kind}` : keyOf(loss);

function byCause(losses: readonly LossOfPod[]): Map<string, LossOfPod[]> {
  const causes = new Map<string, LossOfPod[]>();
  for (const loss of losses) {
    const cause = causeOf(loss);
    const same = causes.get(cause) ?? [];
    same.push(loss);
    causes.set(cause, same);
  }
  return causes;
}

function groupByRange(index: RangeIndex<{ cidr: Cidr }>, entries: readonly IpEntry[]): Map<Cidr, IpEntry[]> {
  const groups = new Map<Cidr, IpEntry[]>();
  for (const entry of entries)
    for (const { cidr } of index.around(entry.cidr as Cidr)) {
      const group = groups.get(cidr) ?? [];
      group.push(entry);
      groups.set(cidr, group);
    }
  return groups;
}
