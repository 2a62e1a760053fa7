/** Follows `ip monitor`, and starts it again whenever it ends. */
import { backoffMs } from '../../lib/backoff.ts';
import { ExecError, follow } from '../../lib/exec.ts';
import type { Log } from '../../lib/log.ts';
import { wait } from '../../lib/wait.ts';
import { isOurs, MONITOR_ARGS, readEvent, type KernelEvent } from './monitor.ts';

const BACKOFF = { firstMs: 50, maxMs: 30_000 };
/** It says nothing when it is ready, and is after the first of these, in milliseconds; on a very busy node after the second. */
const READY_MS = [200, 3_000] as const;
/** One that ran for so long did not fail at once. */
const LONG_MS = 5_000;

interface Options {
  readonly log: Log;
  readonly onEvent: (event: KernelEvent) => void;
  /** Events may have been missed. */
  readonly onGap: () => void;
  /** A route of ours was added or changed. True where that was done here, so that it tells nothing. */
  readonly isEcho: () => boolean;
}

export class KernelWatch {
  readonly #options: Options;
  #problem: string | undefined;
  /** Ends what watches now. */
  #round = new AbortController();
  #pause: Promise<void> | undefined;

  constructor(options: Options) {
    this.#options = options;
  }

  /** Why the kernel is not watched; undefined where it is. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Until `signal` is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    for (let failures = 0; !signal.aborted;) {
      await this.#pause;
      const startedAt = performance.now();
      if (await this.#follow(signal)) continue;
      failures = performance.now() - startedAt > LONG_MS ? 1 : failures + 1;
      await wait(backoffMs(failures, BACKOFF), signal);
    }
  }

  /**
   * Nobody watches while `run` changes thousands of routes, since each of them would be told: that takes half as long
   * again. What else happened meanwhile is found by the look afterwards.
   */
  async quietly<T>(run: () => Promise<T>): Promise<T> {
    let resume = (): void => undefined;
    this.#pause = new Promise((resolve) => {
      resume = resolve;
    });
    this.#round.abort();
    try {
      return await run();
    } finally {
      resume();
    }
  }

  /** True where it ended because it should. */
  async #follow(signal: AbortSignal): Promise<boolean> {
    const round = new AbortController();
    this.#round = round;
    const end = (): void => round.abort();
    signal.addEventListener('abort', end, { once: true });
    const timers = READY_MS.map((ms) => setTimeout(() => this.#ready(), ms));
    try {
      await follow('ip', MONITOR_ARGS, (line, stream) => this.#line(line, stream), round.signal);
      return true;
    } catch (error) {
      if (!(error instanceof ExecError)) throw error;
      this.#failed(error.message);
      return false;
    } finally {
      for (const timer of timers) clearTimeout(timer);
      signal.removeEventListener('abort', end);
    }
  }

  #ready(): void {
    if (this.#problem !== undefined) this.#options.log.info({}, 'the kernel is watched again');
    this.#problem = undefined;
    this.#options.onGap();
  }

  #line(line: string, stream: 'stdout' | 'stderr'): void {
    if (stream === 'stderr') return this.#options.onGap(); // its buffer ran over
    if (isOurs(line) && this.#options.isEcho()) return;
    const event = readEvent(line);
    if (event !== undefined) this.#options.onEvent(event);
  }

  #failed(message: string): void {
    const problem = `the kernel's routes are not watched, only looked at once a minute: ${message}`;
    if (problem !== this.#problem) this.#options.log.error({ problem }, "can't watch the kernel, trying again");
    this.#problem = problem;
  }
}
