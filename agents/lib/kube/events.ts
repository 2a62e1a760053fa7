/** Events (core/v1) about pods: what `kubectl describe pod` shows. */
import { createHash } from 'node:crypto';
import type { KubeClient, KubeObject } from './client.ts';
import { KubeError } from './errors.ts';
import { eventsPath } from './paths.ts';

/** Kubernetes keeps Events for an hour: what is still wrong is said again before that, in milliseconds. */
const REPEAT_MS = 50 * 60_000;

/** What is wrong. */
export interface Notice {
  /** Of one pod all notices with the same id are the same Event. */
  readonly id: string;
  /** In CamelCase, a word for programs. */
  readonly reason: string;
  /** 1024 bytes at most. */
  readonly message: string;
}

export interface Reporter {
  readonly component: string;
  /** The reporting pod's name. */
  readonly instance: string;
}

/** The same notice about the same pod has the same name, so that a restarted agent finds its Event again. */
export function eventOf(pod: KubeObject, { id, reason, message }: Notice, from: Reporter, now: Date) {
  const { name, namespace, uid } = pod.metadata;
  const hash = createHash('sha256').update(`${uid} ${id}`).digest('hex').slice(0, 16);
  const time = now.toISOString().replace(/\.\d+Z$/, 'Z'); // metav1.Time has no fractions
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name: `${name}.${hash}`, namespace },
    involvedObject: { apiVersion: 'v1', kind: 'Pod', namespace, name, uid },
    type: 'Warning',
    reason,
    message,
    source: { component: from.component },
    reportingComponent: from.component,
    reportingInstance: from.instance,
    firstTimestamp: time,
    lastTimestamp: time,
    count: 1,
  };
}

export type Event = ReturnType<typeof eventOf>;

export class Events {
  readonly #kube: KubeClient;
  readonly #namespace: string;
  /** When an Event was last written, by its name. */
  readonly #sent = new Map<string, number>();

  /** `namespace`: of the pods. */
  constructor(kube: KubeClient, namespace: string) {
    this.#kube = kube;
    this.#namespace = namespace;
  }

  /** Writes each of them that is new, or was written long ago. `events`: all that is wrong now; others are forgotten. */
  async keep(events: readonly Event[]): Promise<void> {
    const names = new Set(events.map(({ metadata }) => metadata.name));
    for (const name of this.#sent.keys()) if (!names.has(name)) this.#sent.delete(name);
    for (const event of events) {
      const sent = this.#sent.get(event.metadata.name);
      if (sent !== undefined && performance.now() - sent < REPEAT_MS) continue;
      await this.#send(event);
      this.#sent.set(event.metadata.name, performance.now());
    }
  }

  async #send(event: Event): Promise<void> {
    const path = eventsPath(this.#namespace);
    try {
      await this.#kube.create(path, event);
    } catch (error) {
      if (!(error instanceof KubeError) || error.kind !== 'alreadyExists') throw error;
      const { message, lastTimestamp, reportingInstance } = event;
      await this.#kube.merge(`${path}/${event.metadata.name}`, { message, lastTimestamp, reportingInstance });
    }
  }
}
