/** Keeps the on-prem ranges in ip-masq-agent's configuration, which is somebody else's object. */
import { sortCidrs } from '../../../functions/model/cidr.ts';
import type { Reflector } from '../../lib/kube/reflector.ts';
import type { Again } from '../../lib/queue.ts';
import type { CommonDeps } from '../deps.ts';
import type { ConfigMap } from '../cilium-config/check.ts';
import { configMapsPath, IP_MASQ_AGENT } from '../paths.ts';
import { planIpMasq, type IpMasqPlan } from './plan.ts';
import { Rivalry } from '../rivalry.ts';

const OBJECT = { object: IP_MASQ_AGENT };

interface Deps extends CommonDeps {
  readonly ciliumNamespace: string;
  readonly configMaps: Reflector<ConfigMap>;
}

export class IpMasq {
  readonly #deps: Deps;
  readonly #rivalry = new Rivalry();
  /** What the last patch was for. */
  #written: string | undefined;
  #said: string | undefined;

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  async reconcile(): Promise<Again | void> {
    const { vpn, configMaps, metrics, namespace } = this.#deps;
    const config = vpn();
    if (config === undefined || !configMaps.synced) return;
    metrics.reconciles.inc(OBJECT);
    const configMap = configMaps.get(IP_MASQ_AGENT);
    const desired = sortCidrs(config.sites.flatMap(({ peerCIDRs }) => peerCIDRs));
    const plan = planIpMasq(configMap, namespace, desired);
    this.#show(plan);
    if (plan.kind === 'patch' && configMap !== undefined) return this.#patch(configMap, plan, desired.join(' '));
    if (plan.kind === 'nothing') metrics.lastSuccess.setToCurrentTime(OBJECT);
  }

  async #patch(
    configMap: ConfigMap,
    plan: Extract<IpMasqPlan, { kind: 'patch' }>,
    desired: string,
  ): Promise<Again | void> {
    const { kube, log, metrics, ciliumNamespace } = this.#deps;
    if (this.#written === desired && plan.added.length > 0) {
      const { resourceVersion } = configMap.metadata;
      const { holdMs, times } = this.#rivalry.undone(IP_MASQ_AGENT, resourceVersion, performance.now());
      if (holdMs > 0) {
        log.warn(
          { times, holdMs: Math.round(holdMs) },
          "somebody else takes our ranges out of ip-masq-agent's configuration again and again, holding back; let its owner add them, or ignore the difference",
        );
        return { afterMs: holdMs };
      }
    }
    const path = `${configMapsPath(ciliumNamespace)}/${IP_MASQ_AGENT}`;
    await kube.patch(path, plan.ops);
    this.#written = desired;
    metrics.patches.inc(OBJECT);
    metrics.lastSuccess.setToCurrentTime(OBJECT);
    log.info({ added: plan.added.length, removed: plan.removed.length }, 'ip-masq-agent configuration patched');
  }

  /** The state as a metric; what an administrator has to do, once. */
  #show(plan: IpMasqPlan): void {
    const { log, metrics } = this.#deps;
    const state = plan.kind === 'absent' || plan.kind === 'broken' ? plan.kind : 'merged';
    for (const each of ['merged', 'absent', 'broken']) metrics.ipMasqAgent.set({ state: each }, Number(each === state));
    const message = 'message' in plan ? plan.message : undefined;
    if (message === this.#said) return;
    this.#said = message;
    if (message === undefined) return;
    if (state === 'broken') log.error({ problem: message }, 'ip-masq-agent configuration not touched');
    else log.warn({ problem: message }, 'ip-masq-agent has no configuration, and none is made');
  }
}
