/**
 * Keeps Cilium's source check off for this node's frontends: they forward packets of on-prem hosts. The agent turns it on
 * again at each of its starts.
 */
import type { Log } from '../../lib/log.ts';
import type { Again } from '../../lib/queue.ts';
import { SayOnce } from '../../lib/say-once.ts';
import type { Frontend } from '../frontends.ts';
import type { Metrics } from '../metrics.ts';
import { CiliumError, type CiliumApi } from './api.ts';

/** After an agent's start its endpoint may come late, or be restored over what was set: looked at again after these, in milliseconds. */
const AFTER_START_MS = [1_000, 2_000, 4_000, 8_000, 15_000] as const;
/** Somebody who turns it on again and again is answered after pauses that double up to this, in milliseconds. */
const MAX_PAUSE_MS = 600_000;
/** After this long without it, in milliseconds, it is no again any more. */
const QUIET_MS = 3_600_000;

const ADVICE =
  'Cilium sets the source check by annotation: annotate the namespace with config.cilium.io/delegate-source-ip-verification="true" (kubectl annotate namespace), an administrator has to decide that; the pod has its annotation already';

interface PodState {
  /** Of the pod: another one of that name starts anew. */
  readonly uid: string;
  /** Why it is not off; undefined where it is. */
  problem: string | undefined;
  /** How often it was turned off in this run of Cilium's agent. */
  turnedOff: number;
  /** When it was turned off last, in milliseconds of `performance.now()`. */
  turnedOffAt: number;
  /** Not to be turned off again before this. */
  notBefore: number;
  /** How many of the looks after a start were taken. */
  looks: number;
}

const UNKNOWN = "Cilium's source check has not been looked at yet";
const ON = "Cilium's source check is on and being turned off";

interface Deps {
  readonly log: Log;
  readonly metrics: Metrics;
  readonly cilium: CiliumApi;
  readonly frontend: (pod: string) => Frontend | undefined;
}

export class SourceCheck {
  readonly #deps: Deps;
  readonly #pods = new Map<string, PodState>();
  readonly #said = new SayOnce();
  readonly #saidAgain = new SayOnce();

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  /** Cilium's agent starts or ends: what it had been told is gone. */
  restarted(): void {
    for (const pod of this.#pods.values()) Object.assign(pod, { turnedOff: 0, notBefore: 0, looks: 0 });
  }

  /** Why a pod's check is not off; undefined where it is. */
  problemOf({ pod, uid }: Frontend): string | undefined {
    const known = this.#pods.get(pod);
    return known === undefined || known.uid !== uid ? UNKNOWN : known.problem;
  }

  /** Throws where Cilium's agent can't be asked or said no. */
  async reconcile(pod: string): Promise<Again | void> {
    const { frontend, metrics } = this.#deps;
    const one = frontend(pod);
    const address = one?.addresses[4] ?? one?.addresses[6];
    if (one === undefined || address === undefined) return this.#forget(pod);
    const known = this.#known(one);
    try {
      await this.#keepOff(one, address, known);
    } catch (error) {
      // What was found off stays so while the agent is away: the datapath goes on without it.
      if (known.problem !== undefined) known.problem = error instanceof Error ? error.message : String(error);
      throw error;
    } finally {
      metrics.sourceCheckOff.set({ pod }, Number(known.problem === undefined));
    }
    return this.#next(known);
  }

  #known({ pod, uid }: Frontend): PodState {
    const before = this.#pods.get(pod);
    if (before?.uid === uid) return before;
    this.#said.over(pod);
    const known = { uid, problem: UNKNOWN, turnedOff: 0, turnedOffAt: 0, notBefore: 0, looks: 0 };
    this.#pods.set(pod, known);
    return known;
  }

  #forget(pod: string): void {
    this.#pods.delete(pod);
    this.#said.over(pod);
    this.#deps.metrics.sourceCheckOff.remove({ pod });
  }

  #next(known: PodState): Again | undefined {
    const pause = known.notBefore - performance.now();
    if (known.problem === ON && pause > 0) return { afterMs: pause };
    const afterMs = AFTER_START_MS[known.looks];
    known.looks += 1;
    return afterMs === undefined ? undefined : { afterMs };
  }

  async #keepOff({ pod, ends }: Frontend, address: string, known: PodState): Promise<void> {
    const { cilium } = this.#deps;
    const checked = await cilium.sourceCheck(address);
    if (checked === undefined && ends) return; // gone before the Pod
    if (checked === undefined) throw unknownEndpoint(pod, address);
    if (!checked) return this.#isOff(pod, known);
    if (performance.now() - known.turnedOffAt > QUIET_MS) this.#longAgo(pod, known);
    if (known.turnedOff > 0 && (await cilium.setByAnnotation(address))) return this.#byAnnotation(pod, known);
    known.problem = ON;
    if (performance.now() >= known.notBefore) await this.#turnOff(pod, address, known);
  }

  #longAgo(pod: string, known: PodState): void {
    known.turnedOff = 0;
    this.#saidAgain.over(pod);
  }

  async #turnOff(pod: string, address: string, known: PodState): Promise<void> {
    const { cilium, metrics, log } = this.#deps;
    const startedAt = performance.now();
    if (!(await cilium.turnSourceCheckOff(address))) throw unknownEndpoint(pod, address);
    const now = performance.now();
    known.turnedOffAt = now;
    known.notBefore = now + pauseAfter(known.turnedOff);
    known.turnedOff += 1;
    metrics.repairs.inc({ kind: 'source-check' });
    log.info({ pod, ms: Math.round(now - startedAt) }, "Cilium's source check turned off");
    if (known.turnedOff > OFTEN)
      this.#saidAgain.say(pod, 'again', () =>
        log.warn(
          { pod },
          "somebody turns Cilium's source check on again and again, it is turned off after longer and longer pauses",
        ),
      );
    this.#settle(known);
  }

  /** Found off. (What was only just turned off may be turned on again by annotation.) */
  #isOff(pod: string, known: PodState): void {
    if (this.#said.over(pod)) this.#deps.log.info({ pod }, "Cilium's source check is off");
    this.#settle(known);
  }

  #settle(known: PodState): void {
    known.problem = undefined;
    this.#deps.metrics.lastSuccess.setToCurrentTime({ task: 'source-check' });
  }

  /** Not fought: only an administrator can change that. */
  #byAnnotation(pod: string, known: PodState): void {
    known.problem = ADVICE;
    this.#said.say(pod, ADVICE, () =>
      this.#deps.log.error(
        { pod, problem: ADVICE },
        "Cilium's source check stays on, all VPN traffic of this pod is lost",
      ),
    );
  }
}

/** In one run of Cilium's agent. */
const OFTEN = 2;

const pauseAfter = (times: number): number => (times === 0 ? 0 : Math.min(MAX_PAUSE_MS, 1_000 * 2 ** times));

const unknownEndpoint = (pod: string, address: string): CiliumError =>
  new CiliumError('away', `Cilium's agent knows no endpoint with the address ${address} (pod ${pod}) yet`);
