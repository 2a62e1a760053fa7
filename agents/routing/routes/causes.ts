/** Why ranges have no route: one cause for all that have it, and when it is to be said. Pure. */
import type { Cidr } from '../../../functions/model/cidr.ts';
import { isRefusal, type Refusal, type RefusalReason, type Way } from './desired.ts';

export interface Cause {
  /** The first range that has it. */
  readonly cidr: Cidr;
  readonly reason: RefusalReason;
  /** How many have it. */
  readonly ranges: number;
}

/** By the message. */
export function causesOf(ranges: ReadonlyMap<Cidr, Way | Refusal>): Map<string, Cause> {
  const causes = new Map<string, Cause>();
  for (const [cidr, state] of ranges) {
    if (!isRefusal(state)) continue;
    const { message, reason } = state;
    const before = causes.get(message);
    causes.set(message, before === undefined ? { cidr, reason, ranges: 1 } : { ...before, ranges: before.ranges + 1 });
  }
  return causes;
}

/**
 * Often there for a moment, in milliseconds: a Pod's address can be known before the host has the route, and still be when
 * a pod's network was made anew; Cilium's agent makes its device when a node starts, and gives it addresses a little later.
 */
const HOLDS_MS: Partial<Record<RefusalReason, number>> = { 'no-endpoint-route': 5_000, 'no-cilium-host': 10_000 };

/** Holds back what may be over in a moment. */
export class DueCauses {
  /** When each cause was seen first. */
  readonly #since = new Map<string, number>();

  /** Those to be said, of all that there are `now`, and in how many milliseconds to look again for the others. */
  of(
    causes: ReadonlyMap<string, Cause>,
    now: number,
  ): { due: ReadonlyMap<string, Cause>; againMs: number | undefined } {
    for (const message of this.#since.keys()) if (!causes.has(message)) this.#since.delete(message);
    const due = new Map<string, Cause>();
    let againMs: number | undefined;
    for (const [message, cause] of causes) {
      const since = this.#since.get(message) ?? now;
      this.#since.set(message, since);
      const leftMs = since + (HOLDS_MS[cause.reason] ?? 0) - now;
      if (leftMs <= 0) due.set(message, cause);
      else againMs = Math.min(againMs ?? leftMs, leftMs);
    }
    return { due, againMs };
  }
}
