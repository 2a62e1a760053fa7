import { KubeError } from '../lib/kube/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Again } from '../lib/queue.ts';
import type { Metrics } from './metrics.ts';

/** Conflicts and nothing else for so long, in milliseconds, are no longer chance. */
const LONG_CONFLICT_MS = 10_000;

/** What fails is said once, and counted each time. */
export class Failures {
  readonly #log: Log;
  readonly #metrics: Metrics;
  readonly #said = new Map<string, string>();
  /** When the first of several conflicts in a row was, by key. */
  readonly #conflictingSince = new Map<string, number>();

  constructor(log: Log, metrics: Metrics) {
    this.#log = log;
    this.#metrics = metrics;
  }

  /** The key went through. */
  over(key: string): void {
    this.#conflictingSince.delete(key);
    if (this.#said.delete(key)) this.#log.info({ object: key }, 'does not fail any more');
  }

  happened(key: string, object: string, error: unknown): Again | undefined {
    const kind = error instanceof KubeError ? error.kind : 'other';
    if (kind === 'conflict') return this.#conflict(key, object, error as KubeError);
    this.#metrics.errors.inc({ object, reason: kind });
    this.#say(key, error);
    const retryAfterMs = error instanceof KubeError ? error.retryAfterMs : undefined;
    return retryAfterMs === undefined ? undefined : { afterMs: retryAfterMs, hold: true };
  }

  /** Somebody else was faster: normal life, unless it goes on and on. */
  #conflict(key: string, object: string, error: KubeError): undefined {
    this.#metrics.conflicts.inc({ object });
    const now = performance.now();
    const since = this.#conflictingSince.get(key) ?? now;
    this.#conflictingSince.set(key, since);
    if (now - since >= LONG_CONFLICT_MS) this.#say(key, error);
  }

  #say(key: string, error: unknown): void {
    const problem = error instanceof Error ? error.message : String(error);
    if (this.#said.get(key) !== problem) this.#log.error({ object: key, problem }, 'failed, trying again');
    this.#said.set(key, problem);
  }
}
