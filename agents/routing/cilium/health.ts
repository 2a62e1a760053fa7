/**
 * Looks whether Cilium's agent on this node answers, and whether it can regenerate the node's endpoints: a change to Cilium
 * that goes wrong takes the pods' network away. Says so in the log, in metrics and in Events, which need no pod's network.
 */
import type { KubeClient } from '../../lib/kube/client.ts';
import { eventOf, Events } from '../../lib/kube/events.ts';
import type { Pod } from '../../lib/kube/objects.ts';
import { ofComponent, podsPath } from '../../lib/kube/paths.ts';
import type { Log } from '../../lib/log.ts';
import type { Again } from '../../lib/queue.ts';
import type { Metrics } from '../metrics.ts';
import { CiliumError, type CiliumApi } from './api.ts';
import { failureOf, regenerationOf, type Regeneration } from './failing-endpoints.ts';
import { Lasting } from './lasting.ts';

/** In milliseconds: after a start of the agent, and while something is undecided. */
const SOON_MS = 10_000;
/** For three minutes: so long a busy node may take to compile its programs. */
const LOOKS_AFTER_START = 18;
const LATER_MS = 60_000;
/** The agent tries a failed regeneration again within seconds. What fails for longer is said. */
const CONFIRM_MS = 20_000;
/** An agent that is restarted is back sooner. */
const AWAY_MS = 120_000;

/** As in docs/routing.md, "When a change to Cilium goes wrong". */
const WAY_BACK =
  'kubectl apply --server-side --field-manager=constellation-vpn -f examples/uninstall/cilium.yaml; kubectl -n kube-system delete pods -l k8s-app=cilium';
const CURE = `if it began with the VPN's change to Cilium, take that back (docs/routing.md): ${WAY_BACK}`;
const LOOK = "look into the log of Cilium's agent on this node";

type Reason = 'CiliumAgentAway' | 'CiliumEndpointsFailing';

interface Deps {
  readonly kube: KubeClient;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Of the VPN. */
  readonly namespace: string;
  readonly node: string;
  readonly cilium: CiliumApi;
}

export class CiliumHealth {
  readonly #deps: Deps;
  readonly #events: Events;
  /** Messages of Events to be kept, by their reasons. */
  readonly #messages = new Map<Reason, string>();
  /** The agent does not answer. */
  readonly #away = new Lasting({ beginsAfterMs: AWAY_MS, endsAfterMs: CONFIRM_MS });
  /** Endpoints fail, one of them for CONFIRM_MS. */
  readonly #broken = new Lasting({ beginsAfterMs: 0, endsAfterMs: CONFIRM_MS });
  /** Since when each endpoint fails, in milliseconds of `performance.now()`. */
  #failingSince: ReadonlyMap<number, number> = new Map();
  /** The endpoint whose failure was said. */
  #example = 0;
  /** How often it was looked since the agent started. */
  #looks = 0;
  /** Ours, once it was needed. */
  #pod: Pod | undefined;

  constructor(deps: Deps) {
    this.#deps = deps;
    this.#events = new Events(deps.kube, deps.namespace);
  }

  /** Cilium's agent starts or ends: it is looked at more often for a while. */
  restarted(): void {
    this.#looks = 0;
  }

  /** Throws where the agent refuses, or Events can't be written. */
  async reconcile(): Promise<Again> {
    const { cilium, metrics } = this.#deps;
    const found = await cilium.controllers().catch(ifAway);
    this.#judgeAgent(found instanceof CiliumError ? found : undefined);
    if (!(found instanceof CiliumError)) await this.#judgeEndpoints(regenerationOf(found));
    await this.#keepEvents();
    if (this.#messages.size === 0) metrics.lastSuccess.setToCurrentTime({ task: 'cilium-health' });
    this.#looks += 1;
    const undecided = this.#away.undecided || this.#broken.undecided || this.#suspicious();
    return { afterMs: undecided || this.#looks <= LOOKS_AFTER_START ? SOON_MS : LATER_MS };
  }

  /** Endpoints fail that are not said yet. */
  #suspicious(): boolean {
    return !this.#broken.counts && this.#failingSince.size > 0;
  }

  #judgeAgent(problem: CiliumError | undefined): void {
    const { log, metrics, node } = this.#deps;
    const change = this.#away.look(problem !== undefined, performance.now());
    metrics.ciliumAgentAway.set(Number(this.#away.counts));
    if (change === 'begins') {
      log.error(
        { problem: problem?.message, cure: `${LOOK}; ${CURE}` },
        "Cilium's agent on this node has not answered for two minutes",
      );
      this.#messages.set(
        'CiliumAgentAway',
        `Cilium's agent on the node ${node} has not answered for two minutes: ${LOOK}; ${CURE}`,
      );
    } else if (change === 'ends') {
      log.info({}, "Cilium's agent on this node answers again");
      this.#messages.delete('CiliumAgentAway');
    }
  }

  async #judgeEndpoints({ endpoints, failing }: Regeneration): Promise<void> {
    const { log, metrics } = this.#deps;
    const now = performance.now();
    const since = new Map(failing.map((id) => [id, this.#failingSince.get(id) ?? now]));
    this.#failingSince = since;
    const lasting = failing.find((id) => now - (since.get(id) ?? now) >= CONFIRM_MS);
    const stays = this.#broken.counts && (failing.length > 0 || !(await this.#isMended(endpoints)));
    const change = this.#broken.look(lasting !== undefined || stays, now);
    // An agent that starts again fails later: until it is over, the last number stays.
    if (!this.#broken.counts) metrics.ciliumEndpointsFailing.set(0);
    else if (failing.length > 0) metrics.ciliumEndpointsFailing.set(failing.length);
    if (change === 'begins' && lasting !== undefined) await this.#sayBroken(lasting, failing.length, endpoints);
    else if (change === 'ends') {
      log.info({ endpoints }, 'Cilium regenerates the endpoints of this node again');
      this.#messages.delete('CiliumEndpointsFailing');
    }
  }

  /** That none fails proves nothing of an agent that has just started: one that failed must be well, or gone. */
  async #isMended(endpoints: number): Promise<boolean> {
    const health = await this.#deps.cilium.endpointHealth(this.#example).catch(orUnknown('unknown'));
    return health === undefined ? endpoints > 0 : health === 'OK';
  }

  async #sayBroken(endpoint: number, failing: number, endpoints: number): Promise<void> {
    const { cilium, log, node } = this.#deps;
    this.#example = endpoint;
    const problem = failureOf(await cilium.endpointLog(endpoint).catch(orUnknown([]))) ?? LOOK;
    log.error(
      { failing, endpoints, endpoint, problem, cure: CURE },
      'Cilium fails to regenerate endpoints of this node: new pods get no network, others may lose it',
    );
    this.#messages.set(
      'CiliumEndpointsFailing',
      `Cilium fails to regenerate ${failing} of ${endpoints} endpoints of the node ${node}: new pods get no network, others may lose it. ${problem}. Cure: ${CURE}`,
    );
  }

  async #keepEvents(): Promise<void> {
    const messages = [...this.#messages];
    const pod = messages.length === 0 ? undefined : await this.#ownPod();
    if (pod === undefined) return this.#events.keep([]);
    const from = { component: 'constellation-vpn-routing', instance: pod.metadata.name };
    // One Event for each reason, whatever its message.
    const notices = messages.map(([reason, message]) => ({ id: reason, reason, message }));
    await this.#events.keep(notices.map((notice) => eventOf(pod, notice, from, new Date())));
  }

  /** The pod that this agent runs in; undefined where it runs in none. */
  async #ownPod(): Promise<Pod | undefined> {
    const { kube, namespace, node } = this.#deps;
    if (this.#pod !== undefined) return this.#pod;
    const ofNode = { ...ofComponent('routing'), fieldSelector: `spec.nodeName=${node}`, resourceVersion: '0' };
    const { items } = await kube.list<Pod>(podsPath(namespace), ofNode);
    this.#pod = items.find(({ metadata }) => metadata.deletionTimestamp === undefined);
    return this.#pod;
  }
}

function ifAway(error: unknown): CiliumError {
  if (error instanceof CiliumError && error.kind === 'away') return error;
  throw error;
}

/** Instead of an answer that the agent does not give. */
const orUnknown =
  <T>(unknown: T) =>
  (error: unknown): T => {
    if (error instanceof CiliumError) return unknown;
    throw error;
  };
