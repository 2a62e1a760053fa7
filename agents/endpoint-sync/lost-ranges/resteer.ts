/**
 * A range that Cilium lost comes back only when its entry is taken out of the CiliumEndpoint and put in again. That
 * interrupts the range's traffic for a moment on every node, so it is never done in a loop: once when a node reports it,
 * and if it is reported still, or again, after pauses that grow from ten minutes to a day. (What took the range away, a
 * network policy, may be gone by then.)
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

/** How long a range that was done is not done again, in milliseconds; each time six times as long, up to a day. */
export const FIRST_PAUSE_MS = 10 * 60_000;
const MAX_PAUSE_MS = 24 * 3_600_000;

/** What became of one report. */
export type Verdict =
  /** Take it out and put it in again. */
  | 'resteer'
  /** Listed too short a time, or not at all: look again after SETTLE_MS. */
  | 'early'
  /** That was done not long ago, and a node reports it all the same or again: an administrator has to look. */
  | 'in vain'
  /** It is being done. */
  | 'under way';

interface Done {
  readonly at: number;
  /** In a row. */
  readonly times: number;
}

const pauseAfter = ({ times }: Done): number => Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 6 ** (times - 1));

interface Out {
  /** When it was seen to be out, in milliseconds; undefined while it is still in. */
  since: number | undefined;
}

const keyOf = ({ pod, cidr }: LostRange): string => `${pod} ${cidr}`;

/** Times are milliseconds of one monotonic clock. */
export class Resteering {
  readonly #reported = new Map<string, ReadonlySet<string>>();
  readonly #done = new Map<string, Done>();
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
    for (const [key, done] of this.#done)
      if (!before.has(key) && now - done.at >= pauseAfter(done)) this.#done.delete(key);
    if (lost.length === 0) this.#reported.delete(node);
    else this.#reported.set(node, new Set(lost.map(keyOf)));
    return lost.map((range) => ({ range, verdict: this.#judge(range, listedSince(range), now) }));
  }

  #judge(range: LostRange, since: number | undefined, now: number): Verdict {
    if (this.#out.get(range.pod)?.has(range.cidr) === true) return 'under way';
    if (since === undefined || now - since < SETTLE_MS) return 'early';
    const key = keyOf(range);
    const done = this.#done.get(key);
    if (done !== undefined && now - done.at < pauseAfter(done)) return 'in vain';
    this.#done.set(key, { at: now, times: (done?.times ?? 0) + 1 });
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
