/**
 * How often one object may be written: somebody else may undo what we write, and we must not fight. Cilium's own agent
 * overwrites a status a few times a day, all at once after its restart; that is answered at once. Another writer of the
 * same entries (an endpoint-sync with an older configuration while a Deployment rolls, a GitOps tool that owns a
 * ConfigMap) is answered at once twice, and then once a minute.
 *
 * A token bucket for each object; a write against a rival costs half of it.
 */
const CAPACITY = 1_200;
const PER_SECOND = 10;
const COST = { ordinary: 1, rival: CAPACITY / 2 };

export type Writing = keyof typeof COST;

interface Bucket {
  readonly tokens: number;
  /** Milliseconds, of a monotonic clock. */
  readonly at: number;
}

export class WriteBudget {
  readonly #buckets = new Map<string, Bucket>();
  readonly #said = new Set<string>();

  /** How long to wait at `now` before the object is written, in milliseconds; 0: not at all. Asking changes nothing. */
  wait(object: string, writing: Writing, now: number): number {
    const missing = COST[writing] - this.#tokens(object, now);
    return missing <= 0 ? 0 : Math.ceil((missing / PER_SECOND) * 1_000);
  }

  /** The object was written at `now`. */
  spend(object: string, writing: Writing, now: number): void {
    const tokens = Math.max(0, this.#tokens(object, now) - COST[writing]);
    this.#buckets.set(object, { tokens, at: now });
    if (tokens >= CAPACITY / 2) this.#said.delete(object);
  }

  /** True when holding back has not been said of this object yet, since it was last written freely. */
  sayOnce(object: string): boolean {
    if (this.#said.has(object)) return false;
    this.#said.add(object);
    return true;
  }

  /** The object is gone. */
  forget(object: string): void {
    this.#buckets.delete(object);
    this.#said.delete(object);
  }

  #tokens(object: string, now: number): number {
    const bucket = this.#buckets.get(object);
    if (bucket === undefined) return CAPACITY;
    return Math.min(CAPACITY, bucket.tokens + ((now - bucket.at) / 1_000) * PER_SECOND);
  }
}
