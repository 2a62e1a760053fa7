/**
 * A range that Cilium lost comes back only when its entry is taken out of the CiliumEndpoint and put in again. That
 * interrupts the range's traffic for a moment on every node, so it is done once for as long as nodes report it, and never
 * in a loop: a report that comes and goes is not answered again for a while.
 */
import type { Cidr } from '../../../functions/model/cidr.ts';
import type { LostRange } from '../../lib/lost-ranges.ts';

/**
 * How long a range stays out, in milliseconds: nodes must see it gone. Agents look at the newest state only, and
 * CiliumEndpointSlices gather changes for half a second.
 */
export const OUT_MS = 2_000;
/** An entry must have been listed this long, in milliseconds, before a node that lacks it has lost it. */
export const SETTLE_MS = 10_000;

/** A range that was done this short a time ago, in milliseconds, is not done again, whatever nodes report. */
export const PAUSE_MS = 10 * 60_000;

/** What became of one report. */
export type Verdict =
  /** Take it out and put it in again. */
  | 'resteer'
  /** Listed too short a time, or not at all: look again after SETTLE_MS. */
  | 'early'
  /** That was done, and a node reports it all the same or again: only an administrator can help. */
  | 'in vain'
  /** It is being done. */
  | 'under way';

interface Out {
  /** When it was seen to be out, in milliseconds; undefined while it is still in. */
  since: number | undefined;
}

const keyOf = ({ pod, cidr }: LostRange): string => `${pod} ${cidr}`;

/** Times are milliseconds of one monotonic clock. */
export class Resteering {
  readonly #reported = new Map<string, ReadonlySet<string>>();
  /** When a range was last done. */
  readonly #tried = new Map<string, number>();
  readonly #out = new Map<string, Map<Cidr, Out>>();

  /**
   * A node's whole list of lost ranges replaces its last one. `listedSince`: when the range's entry was written, as far
   * as known, or undefined where it is not listed.
   */
  report(
    node: string,
    lost: readonly LostRange[],
    listedSince: (range: LostRange) => number | undefined,
    now: number,
  ): { readonly range: LostRange; readonly verdict: Verdict }[] {
    const before = this.#all();
    for (const [key, at] of this.#tried) if (!before.has(key) && now - at >= PAUSE_MS) this.#tried.delete(key);
    if (lost.length === 0) this.#reported.delete(node);
    else this.#reported.set(node, new Set(lost.map(keyOf)));
    return lost.map((range) => ({ range, verdict: this.#judge(range, listedSince(range), now) }));
  }

  #judge(range: LostRange, since: number | undefined, now: number): Verdict {
    if (this.#out.get(range.pod)?.has(range.cidr) === true) return 'under way';
    if (since === undefined || now - since < SETTLE_MS) return 'early';
    const key = keyOf(range);
    if (this.#tried.has(key)) return 'in vain';
    this.#tried.set(key, now);
    const out = this.#out.get(range.pod) ?? new Map<Cidr, Out>();
    this.#out.set(range.pod, out.set(range.cidr, { since: undefined }));
    return 'resteer';
  }

  #all(): ReadonlySet<string> {
    return new Set([...this.#reported.values()].flatMap((keys) => [...keys]));
  }

  /** How many ranges nodes report as lost. */
  get reported(): number {
    return this.#all().size;
  }

  /** The ranges that a pod's CiliumEndpoint must not list now. Those that were out long enough are let in again. */
  out(pod: string, now: number): ReadonlySet<Cidr> {
    const out = this.#out.get(pod);
    if (out === undefined) return new Set();
    for (const [cidr, { since }] of out) if (since !== undefined && now - since >= OUT_MS) out.delete(cidr);
    if (out.size === 0) this.#out.delete(pod);
    return new Set(out.keys());
  }

  /** The pod's CiliumEndpoint does not list these any more. */
  seenOut(pod: string, cidrs: ReadonlySet<Cidr>, now: number): void {
    for (const [cidr, state] of this.#out.get(pod) ?? []) if (cidrs.has(cidr)) state.since ??= now;
  }
}
