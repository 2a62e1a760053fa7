/** A copy of all objects of a kind in the cluster: a list, a watch from there on, and again, every half second where it fails. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeObject, WatchEvent } from '../../../agents/lib/kube/client.ts';
import type { Log } from '../../../agents/lib/log.ts';
import { SayOnce } from '../../../agents/lib/say-once.ts';
import type { Kube } from './kube.ts';

const RETRY_MS = 500;

interface Options<T> {
  readonly kube: Kube;
  readonly log: Log;
  /** Of the collection: `/api/v1/pods`. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** Undefined: it is new, or gone. */
  readonly onChange: (key: string, before: T | undefined, after: T | undefined) => void;
  /** A list has come, and what it changed has been told. */
  readonly onList?: () => void;
}

/** `namespace/name` */
export const keyOf = ({ metadata: { namespace = '', name } }: KubeObject): string => `${namespace}/${name}`;

export class Collection<T extends KubeObject> {
  readonly #options: Options<T>;
  readonly #objects = new Map<string, T>();
  readonly #problems = new SayOnce();
  #synced = false;

  constructor(options: Options<T>) {
    this.#options = options;
  }

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }

  keys(): string[] {
    return [...this.#objects.keys()];
  }

  all(): T[] {
    return [...this.#objects.values()];
  }

  /** True once the first list came. */
  get synced(): boolean {
    return this.#synced;
  }

  async run(): Promise<never> {
    const { log, path } = this.#options;
    for (;;) {
      try {
        await this.#round();
      } catch (error) {
        const problem = (error as Error).message;
        this.#problems.say(path, problem, () => log.warn({ path, problem }, "can't watch, trying again"));
      }
      await sleep(RETRY_MS);
    }
  }

  async #round(): Promise<void> {
    const { kube, path, query = {}, log, onList } = this.#options;
    const { items, metadata } = await kube.list<T>(path, query);
    const keys = new Set(items.map(keyOf));
    for (const key of this.keys()) if (!keys.has(key)) this.#change(key, undefined);
    for (const item of items) this.#change(keyOf(item), item);
    this.#synced = true;
    onList?.();
    const { resourceVersion } = metadata;
    const events = await kube.watch<T>(path, { ...query, resourceVersion, allowWatchBookmarks: 'true' });
    if (this.#problems.over(path)) log.info({ path }, 'watching');
    // After an error, 410 above all, the server ends the watch.
    for await (const event of events) this.#event(event);
  }

  #event({ type, object }: WatchEvent<T>): void {
    if (type === 'ADDED' || type === 'MODIFIED') this.#change(keyOf(object), object);
    else if (type === 'DELETED') this.#change(keyOf(object), undefined);
  }

  #change(key: string, after: T | undefined): void {
    const before = this.#objects.get(key);
    if (before?.metadata.resourceVersion === after?.metadata.resourceVersion) return;
    if (after === undefined) this.#objects.delete(key);
    else this.#objects.set(key, after);
    this.#options.onChange(key, before, after);
  }
}
