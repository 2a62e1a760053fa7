/** A fault that counts only once it has lasted, and is over only once it has stayed away. Pure: times come from outside. */

interface Limits {
  /** In milliseconds. */
  readonly beginsAfterMs: number;
  readonly endsAfterMs: number;
}

export class Lasting {
  readonly #limits: Limits;
  #counts = false;
  /** Since when looks have found the opposite of what counts. */
  #oppositeSince: number | undefined;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /** The fault counts. */
  get counts(): boolean {
    return this.#counts;
  }

  /** The last look found the opposite of what counts: the next ones decide. */
  get undecided(): boolean {
    return this.#oppositeSince !== undefined;
  }

  /** After each look; `found`: whether the fault was there, `now`: of any clock, in milliseconds. Says what that changes. */
  look(found: boolean, now: number): 'begins' | 'ends' | undefined {
    if (found === this.#counts) {
      this.#oppositeSince = undefined;
      return undefined;
    }
    this.#oppositeSince ??= now;
    const { beginsAfterMs, endsAfterMs } = this.#limits;
    if (now - this.#oppositeSince < (found ? beginsAfterMs : endsAfterMs)) return undefined;
    this.#counts = found;
    this.#oppositeSince = undefined;
    return found ? 'begins' : 'ends';
  }
}
