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

export class LostRangesCheck {
  readonly #deps: Deps;
  readonly #said = new SayOnce();
  #saidKeys: ReadonlySet<string> = new Set();
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
    if (losses === undefined) return; // Cilium's agent is away: nothing is known
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
  async #losses(config: Vpn): Promise<(Loss & { readonly pod: string })[] | undefined> {
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
    const losses: (Loss & { readonly pod: string })[] = [];
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
    const hosts = new Map(this.#deps.frontends().map(({ site, host }) => [site, host]));
    const find = (cidr: Cidr, entries: readonly IpEntry[]): Loss | undefined =>
      findLoss(cidr, entries, known, hosts.get(index.get(cidr)?.site ?? ''));
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

  #say(losses: readonly (Loss & { readonly pod: string })[]): void {
    const { log } = this.#deps;
    for (const loss of losses)
      this.#said.say(sayKey(loss), loss.kind, () =>
        log.error(
          { ...loss, problem: PROBLEMS[loss.kind] },
          loss.kind === 'behind' ? 'Cilium does not know yet where this range is' : 'Cilium has lost this range here',
        ),
      );
    const keys = new Set(losses.map(sayKey));
    for (const key of this.#saidKeys) if (!keys.has(key)) this.#said.over(key);
    if (this.#saidKeys.size > 0 && keys.size === 0) log.info({}, 'Cilium knows every range here');
    this.#saidKeys = keys;
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

const PROBLEMS: Record<Loss['kind'], string> = {
  missing: "Cilium's agent on this node has no entry for the range although a frontend runs: see endpoint-sync",
  policy: 'a network policy has this CIDR and took the range: select the frontends by their labels instead',
  behind:
    "Cilium's agent on this node does not know where the frontend runs now. With CiliumEndpointSlices cilium-operator tells the nodes: see whether it runs (kubectl -n kube-system get deployment cilium-operator)",
  inside:
    'a network policy has a CIDR inside the range (part), which is lost to the VPN: select the frontends by their labels instead',
};

const keyOf = ({ cidr, kind }: Loss): string => `${cidr} ${kind}`;
/** What is behind is so with all ranges of a frontend, and said once. */
const sayKey = (loss: Loss & { readonly pod: string }): string => (loss.kind === 'behind' ? loss.pod : keyOf(loss));

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
