/**
 * Keeps a copy of some objects: a list, a watch from there on, and again. The list every few minutes is the backstop that
 * finds what no event told, also after the server lost its data and counts its versions from the beginning.
 */
import { backoffMs } from '../backoff.ts';
import type { Log } from '../log.ts';
import { wait } from '../wait.ts';
import type { KubeClient, KubeObject, WatchEvent } from './client.ts';
import { KubeError } from './errors.ts';
import { cureOf, messageOf, Outage } from './outage.ts';

const RELIST_SECONDS = 300;
const BACKOFF = { firstMs: 100, maxMs: 10_000 };
/** A watch that ends sooner counts as a failure: the next one waits. */
const SHORT_WATCH_MS = 5_000;

interface Options {
  readonly kube: KubeClient;
  readonly log: Log;
  /** For messages: `Pods with the label …`. */
  readonly what: string;
  /** Path of the collection: `/api/v1/namespaces/vpn/pods`. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** What the administrator should know where the collection is not there at all (404). */
  readonly absent?: string;
  /**
   * An object was added, changed or deleted; after each list once for every object, changed or not, and with no name once
   * for the list itself.
   */
  readonly onChange: (name: string | undefined) => void;
}

export class Reflector<T extends KubeObject> {
  readonly #options: Options;
  #objects = new Map<string, T>();
  #synced = false;
  #problem: string | undefined;
  #failures = 0;
  readonly #outage = new Outage();

  constructor(options: Options) {
    this.#options = options;
  }

  /** As of the last event. Objects are never changed in place. */
  get(name: string): T | undefined {
    return this.#objects.get(name);
  }

  all(): T[] {
    return [...this.#objects.values()];
  }

  /** True once the first list came. */
  get synced(): boolean {
    return this.#synced;
  }

  /** Why there is no copy that can be relied on, or undefined. */
  get problem(): string | undefined {
    const { what, kube } = this.#options;
    return this.#problem ?? (this.#synced ? undefined : `${what}: waiting for the API server at ${kube.server}`);
  }

  /** Until `signal` is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const startedAt = performance.now();
      try {
        await this.#round(signal);
        this.#failures = performance.now() - startedAt < SHORT_WATCH_MS ? this.#failures + 1 : 0;
      } catch (error) {
        if (signal.aborted) return;
        if (performance.now() - startedAt >= SHORT_WATCH_MS) this.#failures = 0; // it was well in between
        this.#failed(error);
      }
      if (this.#failures > 0) await wait(this.#delay(), signal);
    }
  }

  #retryAfterMs = 0;

  #delay(): number {
    const delay = Math.max(backoffMs(this.#failures, BACKOFF), this.#retryAfterMs);
    this.#retryAfterMs = 0;
    return delay;
  }

  async #round(signal: AbortSignal): Promise<void> {
    const { kube, path, query = {}, log, what } = this.#options;
    const list = await kube.list<T>(path, query, signal);
    this.#replace(list.items);
    const seconds = Math.round(RELIST_SECONDS * (0.9 + 0.2 * Math.random()));
    const { resourceVersion } = list.metadata;
    const events = await kube.watch<T>(
      path,
      { ...query, resourceVersion, allowWatchBookmarks: 'true', timeoutSeconds: String(seconds) },
      signal,
    );
    if (this.#outage.over()) log.info({ what }, 'the API server answers again');
    this.#problem = undefined;
    for await (const event of events) this.#event(event);
  }

  #replace(items: readonly T[]): void {
    const before = this.#objects;
    this.#objects = new Map(items.map((item) => [item.metadata.name, item]));
    this.#synced = true;
    const { onChange } = this.#options;
    onChange(undefined);
    for (const name of new Set([...before.keys(), ...this.#objects.keys()])) onChange(name);
  }

  #event({ type, object }: WatchEvent<T>): void {
    switch (type) {
      case 'ADDED':
      case 'MODIFIED':
        this.#objects.set(object.metadata.name, object);
        return this.#options.onChange(object.metadata.name);
      case 'DELETED':
        this.#objects.delete(object.metadata.name);
        return this.#options.onChange(object.metadata.name);
      // The watch ends after an error (410 Gone above all), and the next round lists again.
      case 'ERROR':
      case 'BOOKMARK':
    }
  }

  #failed(error: unknown): void {
    this.#failures += 1;
    const { log, what, absent } = this.#options;
    if (error instanceof KubeError) this.#retryAfterMs = error.retryAfterMs ?? 0;
    const missing = error instanceof KubeError && error.kind === 'notFound' && absent !== undefined;
    const problem = `${what}: ${missing ? absent : messageOf(error)}`;
    this.#problem = problem;
    const level = this.#outage.failed(error, performance.now());
    if (level === 'warn') log.warn({ what, problem }, "can't watch for the moment, trying again");
    if (level !== 'error') return;
    const cure = missing ? undefined : cureOf(error);
    log.error({ what, problem: cure === undefined ? problem : `${problem}: ${cure}` }, "can't watch, trying again");
  }
}
