/** Keeps the frontends' CiliumEndpoints as they must be. */
import type { Cidr } from '../../../functions/model/cidr.ts';
import type { Vpn } from '../../../functions/model/vpn.ts';
import { KubeError } from '../../lib/kube/errors.ts';
import type { Reflector } from '../../lib/kube/reflector.ts';
import type { Again } from '../../lib/queue.ts';
import type { CommonDeps } from '../deps.ts';
import { endpointsPath, SITE_LABEL } from '../../lib/kube/paths.ts';
import type { Pod } from '../../lib/kube/objects.ts';
import type { CiliumEndpoint } from '../objects.ts';
import { planEndpoint, prefixesOf, type EndpointPlan } from './plan.ts';
import { OUT_MS, type Resteering } from '../lost-ranges/resteer.ts';
import { WriteBudget, type Writing } from '../write-budget.ts';

const OBJECT = { object: 'CiliumEndpoint' };

interface Deps extends CommonDeps {
  readonly pods: Reflector<Pod>;
  readonly endpoints: Reflector<CiliumEndpoint>;
  readonly resteering: Resteering;
}

/** What we wrote last for a pod. */
interface Written {
  readonly uid: string;
  readonly prefixes: string;
  readonly at: number;
}

export class Endpoints {
  readonly #deps: Deps;
  readonly #budget = new WriteBudget();
  readonly #written = new Map<string, Written>();
  /** When an event showed a change that is not dealt with yet; `performance.now()`. */
  readonly #changedAt = new Map<string, number>();
  /** What a pod's CiliumEndpoint waits for, as it was said. */
  readonly #waiting = new Map<string, string>();
  readonly #startedAt = performance.now();

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  /** An event about the CiliumEndpoint of that name came. */
  changed(name: string): void {
    if (!this.#changedAt.has(name)) this.#changedAt.set(name, performance.now());
  }

  /** When the entries of a pod's CiliumEndpoint were last written by us, as far as known; undefined: it lists no such entry. */
  listedSince(name: string, cidr: string): number | undefined {
    const endpoint = this.#deps.endpoints.get(name);
    if (endpoint === undefined || !prefixesOf(endpoint).includes(cidr)) return undefined;
    return this.#written.get(name)?.at ?? this.#startedAt;
  }

  async reconcile(name: string): Promise<Again | void> {
    const { vpn, pods, endpoints, metrics, resteering } = this.#deps;
    const config = vpn();
    const pod = pods.get(name);
    const endpoint = endpoints.get(name);
    if (config === undefined || pod === undefined || endpoint === undefined) return this.#forget(name);
    metrics.reconciles.inc(OBJECT);
    const out = resteering.out(name, performance.now());
    const plan = planEndpoint(
      endpoint,
      pod,
      rangesOf(config, pod).filter((cidr) => !out.has(cidr)),
    );
    if (plan.kind === 'patch') return this.#patch(pod, endpoint, plan, out);
    this.#changedAt.delete(name);
    if (plan.kind === 'converged') return this.#settled(name, out);
    this.#sayWaiting(name, plan.reason);
  }

  #forget(name: string): void {
    this.#changedAt.delete(name);
    this.#written.delete(name);
    this.#budget.forget(name);
    this.#waiting.delete(name);
  }

  /** Why nothing is done about a pod; once. */
  #sayWaiting(name: string, reason: string): void {
    if (this.#waiting.get(name) === reason) return;
    this.#waiting.set(name, reason);
    this.#deps.log.info({ pod: name, reason }, 'CiliumEndpoint is not ready to be patched');
  }

  async #patch(
    pod: Pod,
    endpoint: CiliumEndpoint,
    plan: Extract<EndpointPlan, { kind: 'patch' }>,
    out: ReadonlySet<Cidr>,
  ): Promise<Again | void> {
    const { name } = pod.metadata;
    const { kube, log, metrics, namespace } = this.#deps;
    const writing = this.#against(name, endpoint);
    const waitMs = this.#budget.wait(name, writing, performance.now());
    if (waitMs > 0) return this.#holdBack(name, writing, waitMs);
    let patched: CiliumEndpoint;
    try {
      patched = await kube.patch<CiliumEndpoint>(`${endpointsPath(namespace)}/${name}`, plan.ops);
    } catch (error) {
      if (error instanceof KubeError && error.kind === 'notFound') return; // deleted meanwhile; its event is on the way
      throw error;
    }
    const now = performance.now();
    const changedAt = this.#changedAt.get(name);
    this.#changedAt.delete(name);
    this.#budget.spend(name, writing, now);
    metrics.patches.inc(OBJECT);
    if (changedAt !== undefined) metrics.restored.observe((now - changedAt) / 1000);
    this.#written.set(name, { uid: endpoint.metadata.uid, prefixes: prefixesOf(patched).join(' '), at: now });
    const { added, removed } = plan;
    log.info({ pod: name, site: siteOf(pod), added: added.length, removed: removed.length }, 'CiliumEndpoint patched');
    return this.#settled(name, out);
  }

  /** Other prefixes than those that we wrote, and than none, are a rival's. Cilium's agent leaves none. */
  #against(name: string, endpoint: CiliumEndpoint): Writing {
    const prefixes = prefixesOf(endpoint).join(' ');
    const written = this.#written.get(name);
    const ours = written?.uid === endpoint.metadata.uid && written.prefixes === prefixes;
    return prefixes === '' || ours ? 'ordinary' : 'rival';
  }

  #holdBack(name: string, writing: Writing, waitMs: number): Again {
    if (this.#budget.sayOnce(name))
      this.#deps.log.warn(
        { pod: name, waitMs },
        writing === 'rival'
          ? 'somebody else writes other ranges to this CiliumEndpoint, holding back; are two endpoint-syncs running?'
          : 'somebody takes the ranges out of this CiliumEndpoint all the time, holding back',
      );
    return { afterMs: waitMs };
  }

  /** `out`: what the CiliumEndpoint does not list for a moment. */
  #settled(name: string, out: ReadonlySet<Cidr>): Again | void {
    const { metrics, resteering } = this.#deps;
    this.#waiting.delete(name);
    metrics.lastSuccess.setToCurrentTime(OBJECT);
    resteering.seenOut(name, out, performance.now());
    if (out.size > 0) return { afterMs: OUT_MS };
  }
}

/** The on-prem ranges of a pod's site; none where the configuration has no such site, or has it no more. */
const rangesOf = ({ sites }: Vpn, pod: Pod): readonly Cidr[] =>
  sites.find(({ name }) => name === siteOf(pod))?.peerCIDRs ?? [];

/** The name of the site that a frontend's pod belongs to; empty for the unnamed one. */
export const siteOf = (pod: Pod): string => pod.metadata.labels?.[SITE_LABEL] ?? '';
