/** What is to be said of a watch that fails: a break that the next try mends is normal life, a refusal is not. Pure. */
import { isRefusal, KubeError, type KubeErrorKind } from './errors.ts';

/** An API server that restarts, or moves, is there again sooner, in milliseconds. */
const LONG_MS = 30_000;
/** One that has just started refuses everybody until it has read the Roles, in milliseconds. */
const STARTING_MS = 5_000;

/** From the first failure until the watch stands. `now` is of any clock, in milliseconds. */
export class Outage {
  #awaySince: number | undefined;
  #longSaid = false;
  /** Since when every try has been refused. */
  #refusedSince: number | undefined;
  /** The refusal that was said last. */
  #refusal: string | undefined;

  /** The level to say it at, or undefined. */
  failed(error: unknown, now: number): 'warn' | 'error' | undefined {
    if (isRefusal(error)) return this.#refused(messageOf(error), now);
    this.#refusedSince = undefined;
    if (this.#awaySince === undefined) {
      this.#awaySince = now;
      return 'warn';
    }
    if (this.#longSaid || now - this.#awaySince < LONG_MS) return undefined;
    this.#longSaid = true;
    return 'error';
  }

  #refused(message: string, now: number): 'error' | undefined {
    this.#refusedSince ??= now;
    const mayBeStarting = this.#awaySince !== undefined && now - this.#refusedSince < STARTING_MS;
    if (mayBeStarting || message === this.#refusal) return undefined;
    this.#refusal = message;
    return 'error';
  }

  /** The watch stands: true where something had been said. */
  over(): boolean {
    const said = this.#awaySince !== undefined || this.#refusal !== undefined;
    this.#awaySince = undefined;
    this.#longSaid = false;
    this.#refusedSince = undefined;
    this.#refusal = undefined;
    return said;
  }
}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

const LONG = 'for more than 30 s now:';
/** What to do, for the line of level error. */
const CURES: Readonly<Partial<Record<KubeErrorKind, string>>> = {
  unreachable: `${LONG} does it run, and does a firewall or a network policy keep this node or pod from it?`,
  server: `${LONG} look into its log and etcd's`,
  throttled: `${LONG} it is overloaded, or its priority levels (API Priority and Fairness) leave nothing for the VPN`,
  unauthorized: 'see whether the ServiceAccount is there, then restart the pod',
  forbidden: 'render and apply the Roles and RoleBindings again',
  notFound: 'is this a Kubernetes API server?',
};
const CERTIFICATE =
  "its certificate and the CA in the pod's ServiceAccount (ConfigMap kube-root-ca.crt), or in the kubeconfig, do not fit";

export function cureOf(error: unknown): string | undefined {
  if (!(error instanceof KubeError)) return undefined;
  return error.kind === 'unreachable' && isRefusal(error) ? CERTIFICATE : CURES[error.kind];
}
