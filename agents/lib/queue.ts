/**
 * Runs one reconcile a key at a time. Adding is a hint that something may have changed, never data: adds while a key waits
 * or runs collapse into one more run, which reads the state of then. (The contract is that of client-go's workqueue.)
 */
import { backoffMs, type BackoffLimits } from './backoff.ts';

/** A run may ask for another one later; without, the key rests until it is added again. */
export interface Again {
  readonly afterMs: number;
  /** Adds wait until then as well: somebody asked us to hold back. Without it an add runs at once. */
  readonly hold?: boolean;
}

/** Throwing asks for another run after a backoff that grows with each failure in a row; adds run at once. */
export type Reconcile = (key: string) => Promise<Again | void>;

interface Options {
  readonly backoff: BackoffLimits;
  /** How many keys may run at the same time. */
  readonly concurrency: number;
  /** Called for everything that reconcile throws. May answer that adds have to wait as well, and how long. */
  readonly onError: (key: string, error: unknown) => Again | undefined;
}

interface Entry {
  running: boolean;
  /** Added since its run began. */
  dirty: boolean;
  failures: number;
  timer: NodeJS.Timeout | undefined;
  /** `performance.now()` before which it does not run. */
  heldUntil: number;
}

export class WorkQueue {
  readonly #reconcile: Reconcile;
  readonly #options: Options;
  readonly #entries = new Map<string, Entry>();
  /** Keys to run, in order; a Set, so each once. */
  readonly #ready = new Set<string>();
  readonly #active = new Set<Promise<void>>();
  #stopped = false;

  constructor(reconcile: Reconcile, options: Options) {
    this.#reconcile = reconcile;
    this.#options = options;
  }

  add(key: string): void {
    if (this.#stopped) return;
    const entry = this.#entry(key);
    if (entry.running) {
      entry.dirty = true;
      return;
    }
    const wait = entry.heldUntil - performance.now();
    if (wait > 0) {
      this.#wake(key, entry, wait);
      return;
    }
    clearTimeout(entry.timer);
    entry.timer = undefined;
    this.#ready.add(key);
    this.#pump();
  }

  /** Nothing new starts; resolves when what runs has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#ready.clear();
    for (const { timer } of this.#entries.values()) clearTimeout(timer);
    await Promise.allSettled(this.#active);
  }

  #entry(key: string): Entry {
    const known = this.#entries.get(key);
    if (known !== undefined) return known;
    const entry: Entry = { running: false, dirty: false, failures: 0, timer: undefined, heldUntil: 0 };
    this.#entries.set(key, entry);
    return entry;
  }

  #wake(key: string, entry: Entry, ms: number): void {
    clearTimeout(entry.timer);
    entry.timer = setTimeout(() => {
      entry.heldUntil = 0;
      this.add(key);
    }, ms);
  }

  #pump(): void {
    for (const key of this.#ready) {
      if (this.#active.size >= this.#options.concurrency) return;
      this.#ready.delete(key);
      const run: Promise<void> = this.#run(key, this.#entry(key)).finally(() => {
        this.#active.delete(run);
        this.#pump();
      });
      this.#active.add(run);
    }
  }

  async #run(key: string, entry: Entry): Promise<void> {
    entry.running = true;
    entry.dirty = false;
    const again = await this.#attempt(key, entry);
    entry.running = false;
    if (this.#stopped) return;
    if (again?.hold === true) entry.heldUntil = performance.now() + again.afterMs;
    if (entry.dirty) this.add(key);
    else if (again !== undefined) this.#wake(key, entry, again.afterMs);
    else this.#entries.delete(key);
  }

  async #attempt(key: string, entry: Entry): Promise<Again | undefined> {
    try {
      const again = await this.#reconcile(key);
      entry.failures = 0;
      return again ?? undefined;
    } catch (error) {
      entry.failures += 1;
      const afterMs = backoffMs(entry.failures, this.#options.backoff);
      return this.#options.onError(key, error) ?? { afterMs };
    }
  }
}
