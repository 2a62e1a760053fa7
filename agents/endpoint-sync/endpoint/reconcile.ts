/** Keeps the frontends' CiliumEndpoints as they must be. */
import type { Cidr } from '../../../functions/model/cidr.ts';
import type { Vpn } from '../../../functions/model/vpn.ts';
import { KubeError } from '../../lib/kube/errors.ts';
import type { Reflector } from '../../lib/kube/reflector.ts';
import type { Again } from '../../lib/queue.ts';
import type { CommonDeps } from '../deps.ts';
import { endpointsPath, SITE_LABEL } from '../paths.ts';
import { planEndpoint, prefixesOf, type CiliumEndpoint, type EndpointPlan, type Pod } from './plan.ts';
import { OUT_MS, type Resteering } from '../lost-ranges/resteer.ts';
import { Rivalry } from '../rivalry.ts';

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
  readonly #rivalry = new Rivalry();
  readonly #written = new Map<string, Written>();
  /** When an event showed a change that is not dealt with yet; `performance.now()`. */
  readonly #changedAt = new Map<string, number>();
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
  }

  #forget(name: string): void {
    this.#changedAt.delete(name);
    this.#written.delete(name);
  }

  async #patch(
    pod: Pod,
    endpoint: CiliumEndpoint,
    plan: Extract<EndpointPlan, { kind: 'patch' }>,
    out: ReadonlySet<Cidr>,
  ): Promise<Again | void> {
    const { name } = pod.metadata;
    const { kube, log, metrics, namespace } = this.#deps;
    const hold = this.#contested(name, endpoint);
    if (hold !== undefined) return hold;
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
    metrics.patches.inc(OBJECT);
    if (changedAt !== undefined) metrics.restored.observe((now - changedAt) / 1000);
    this.#written.set(name, { uid: endpoint.metadata.uid, prefixes: prefixesOf(patched).join(' '), at: now });
    const { added, removed } = plan;
    log.info({ pod: name, site: siteOf(pod), added: added.length, removed: removed.length }, 'CiliumEndpoint patched');
    return this.#settled(name, out);
  }

  /** Other prefixes than those that we wrote, and than none, are another writer's. Cilium's agent leaves none: that is mended at once. */
  #contested(name: string, endpoint: CiliumEndpoint): Again | undefined {
    const { uid, resourceVersion } = endpoint.metadata;
    const prefixes = prefixesOf(endpoint).join(' ');
    const written = this.#written.get(name);
    if (prefixes === '' || (written?.uid === uid && written.prefixes === prefixes)) return undefined;
    const { holdMs, times } = this.#rivalry.undone(name, resourceVersion, performance.now());
    if (holdMs === 0) return undefined;
    this.#deps.log.warn(
      { pod: name, times, holdMs: Math.round(holdMs) },
      'somebody else writes other ranges to this CiliumEndpoint, holding back; are two endpoint-syncs running?',
    );
    return { afterMs: holdMs };
  }

  /** `out`: what the CiliumEndpoint does not list for a moment. */
  #settled(name: string, out: ReadonlySet<Cidr>): Again | void {
    const { metrics, resteering } = this.#deps;
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
