/**
 * Somebody else undoes what we write: another endpoint-sync with an older configuration while a Deployment rolls, a
 * GitOps tool that owns the same ConfigMap. Twice we answer at once, then later and later.
 */
const FREE = 2;
const FIRST_MS = 1_000;
const MAX_MS = 60_000;
/** After this long without, all is forgotten. */
const CALM_MS = 5 * 60_000;

interface Undone {
  readonly version: string;
  readonly times: number;
  readonly at: number;
  readonly holdMs: number;
}

export class Rivalry {
  readonly #undone = new Map<string, Undone>();

  /**
   * `key` is undone, in the object's version `version`, as seen at `now` (ms, monotonic): how long to hold back from now
   * on, in milliseconds, and how often in a row that was. Asking again about the same version does not count again.
   */
  undone(key: string, version: string, now: number): { readonly holdMs: number; readonly times: number } {
    const last = this.#undone.get(key);
    if (last?.version === version) return { holdMs: Math.max(0, last.at + last.holdMs - now), times: last.times };
    const times = last !== undefined && now - last.at < CALM_MS ? last.times + 1 : 1;
    const holdMs = times <= FREE ? 0 : Math.min(MAX_MS, FIRST_MS * 2 ** Math.min(times - FREE - 1, 20));
    this.#undone.set(key, { version, times, at: now, holdMs });
    return { holdMs, times };
  }
}
