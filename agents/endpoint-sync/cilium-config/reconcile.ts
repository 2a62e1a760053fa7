/** Reports what is wrong with the cluster's cilium-config: log, metric, Events of the frontends' pods. */
import { KubeError } from '../../lib/kube/errors.ts';
import type { Reflector } from '../../lib/kube/reflector.ts';
import type { CommonDeps } from '../deps.ts';
import type { ConfigMap } from '../../lib/kube/objects.ts';
import { checkCilium, eventOf, type Finding } from './check.ts';
import { CILIUM_CONFIG, eventsPath } from '../../lib/kube/paths.ts';
import type { Pod } from '../../lib/kube/objects.ts';

const OBJECT = { object: CILIUM_CONFIG };
/** Kubernetes keeps Events for an hour: what is still wrong is said again before that, in milliseconds. */
const REPEAT_MS = 50 * 60_000;

interface Deps extends CommonDeps {
  /** Our own pod's name. */
  readonly instance: string;
  readonly pods: Reflector<Pod>;
  readonly configMaps: Reflector<ConfigMap>;
}

export class CiliumCheck {
  readonly #deps: Deps;
  /** Messages of broken rules that are in the log. */
  #logged: ReadonlySet<string> = new Set();
  /** When an Event was last written, by its name. */
  readonly #sent = new Map<string, number>();

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  async reconcile(): Promise<void> {
    const { vpn, configMaps, metrics } = this.#deps;
    const config = vpn();
    if (config === undefined || !configMaps.synced) return;
    metrics.reconciles.inc(OBJECT);
    const findings = checkCilium(configMaps.get(CILIUM_CONFIG), config);
    metrics.ciliumConfigOk.reset();
    for (const { rule, ok } of findings) metrics.ciliumConfigOk.set({ rule }, Number(ok));
    const broken = findings.filter(({ ok }) => !ok);
    this.#say(broken);
    await this.#sendEvents(broken);
    metrics.lastSuccess.setToCurrentTime(OBJECT);
  }

  #say(broken: readonly Finding[]): void {
    const { log } = this.#deps;
    for (const { rule, severity, message } of broken) {
      if (this.#logged.has(message)) continue;
      const keys = { rule, problem: `${CILIUM_CONFIG} ${message}` };
      if (severity === 'error') log.error(keys, 'cilium-config does not fit the VPN');
      else log.warn(keys, 'cilium-config may not fit the VPN');
    }
    if (this.#logged.size > 0 && broken.length === 0) log.info({}, 'cilium-config fits the VPN');
    this.#logged = new Set(broken.map(({ message }) => message));
  }

  async #sendEvents(broken: readonly Finding[]): Promise<void> {
    const { pods, instance } = this.#deps;
    const reporter = { component: 'constellation-vpn-endpoint-sync', instance };
    const events = pods.all().flatMap((pod) => broken.map((finding) => eventOf(pod, finding, reporter, new Date())));
    const names = new Set(events.map(({ metadata }) => metadata.name));
    for (const name of this.#sent.keys()) if (!names.has(name)) this.#sent.delete(name);
    for (const event of events) {
      const sent = this.#sent.get(event.metadata.name);
      if (sent !== undefined && performance.now() - sent < REPEAT_MS) continue;
      await this.#send(event);
      this.#sent.set(event.metadata.name, performance.now());
    }
  }

  async #send(event: ReturnType<typeof eventOf>): Promise<void> {
    const { kube, namespace } = this.#deps;
    try {
      await kube.create(eventsPath(namespace), event);
    } catch (error) {
      if (!(error instanceof KubeError) || error.kind !== 'alreadyExists') throw error;
      const { lastTimestamp, reportingInstance } = event;
      await kube.merge(`${eventsPath(namespace)}/${event.metadata.name}`, { lastTimestamp, reportingInstance });
    }
  }
}
