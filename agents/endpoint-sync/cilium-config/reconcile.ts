/** Reports what is wrong with the cluster's cilium-config: log, metric, Events of the frontends' pods. */
import { eventOf, Events } from '../../lib/kube/events.ts';
import type { Reflector } from '../../lib/kube/reflector.ts';
import type { CommonDeps } from '../deps.ts';
import type { ConfigMap } from '../../lib/kube/objects.ts';
import { checkCilium, noticeOf, type Finding } from './check.ts';
import { CILIUM_CONFIG } from '../../lib/kube/paths.ts';
import type { Pod } from '../../lib/kube/objects.ts';

const OBJECT = { object: CILIUM_CONFIG };

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
  readonly #events: Events;

  constructor(deps: Deps) {
    this.#deps = deps;
    this.#events = new Events(deps.kube, deps.namespace);
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
    const notices = broken.map(noticeOf);
    const events = pods.all().flatMap((pod) => notices.map((notice) => eventOf(pod, notice, reporter, new Date())));
    await this.#events.keep(events);
  }
}
