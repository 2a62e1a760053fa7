/** Queues whose failures are counted, and said once. */
import type { BackoffLimits } from '../lib/backoff.ts';
import type { Log } from '../lib/log.ts';
import { WorkQueue, type Again } from '../lib/queue.ts';
import { SayOnce } from '../lib/say-once.ts';
import { CiliumError } from './cilium/api.ts';
import type { Metrics } from './metrics.ts';

/** Label values of a metric. */
export type Task = 'routes' | 'source-check' | 'lost-ranges' | 'cilium-health';

/** This long Cilium's agent may be away without a word in the log, in milliseconds: it restarts now and then. */
const AWAY_MS = 10_000;

interface Options {
  readonly backoff: BackoffLimits;
  /** How many keys may run at the same time. */
  readonly concurrency: number;
  readonly run: (key: string) => Promise<Again | void>;
}

export class Tasks {
  readonly #log: Log;
  readonly #metrics: Metrics;
  readonly #said = new SayOnce();
  /** Since when each key fails, in milliseconds of `performance.now()`. */
  readonly #failingSince = new Map<string, number>();

  constructor(log: Log, metrics: Metrics) {
    this.#log = log;
    this.#metrics = metrics;
  }

  /** Keys name the object, such as a pod; '' where there is only one. */
  queue(task: Task, { run, ...options }: Options): WorkQueue {
    const nameOf = (key: string): string => (key === '' ? task : `${task} ${key}`);
    const attempt = async (key: string): Promise<Again | void> => {
      const again = await run(key);
      this.#over(nameOf(key));
      return again;
    };
    return new WorkQueue(attempt, { ...options, onError: (key, error) => this.#failed(task, nameOf(key), error) });
  }

  #over(name: string): void {
    this.#failingSince.delete(name);
    if (this.#said.over(name)) this.#log.info({ task: name }, 'does not fail any more');
  }

  #failed(task: Task, name: string, error: unknown): undefined {
    this.#metrics.errors.inc({ task });
    const now = performance.now();
    const since = this.#failingSince.get(name) ?? now;
    this.#failingSince.set(name, since);
    if (error instanceof CiliumError && error.kind === 'away' && now - since < AWAY_MS) return;
    const problem = error instanceof Error ? error.message : String(error);
    this.#said.say(name, problem, () => this.#log.error({ task: name, problem }, 'failed, trying again'));
  }
}
