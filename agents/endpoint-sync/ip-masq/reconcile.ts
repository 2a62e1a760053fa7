/** Keeps the on-prem ranges in ip-masq-agent's configuration, which is somebody else's object. */
import { sortCidrs } from '../../../functions/model/cidr.ts';
import type { Reflector } from '../../lib/kube/reflector.ts';
import type { Again } from '../../lib/queue.ts';
import type { CommonDeps } from '../deps.ts';
import type { ConfigMap } from '../../lib/kube/objects.ts';
import { configMapsPath, IP_MASQ_AGENT } from '../../lib/kube/paths.ts';
import { planIpMasq, type IpMasqPlan } from './plan.ts';
import { WriteBudget } from '../write-budget.ts';

const OBJECT = { object: IP_MASQ_AGENT };

interface Deps extends CommonDeps {
  readonly ciliumNamespace: string;
  readonly configMaps: Reflector<ConfigMap>;
}

export class IpMasq {
  readonly #deps: Deps;
  readonly #budget = new WriteBudget();
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
    this.#say(plan);
    if (plan.kind === 'patch' && configMap !== undefined) return this.#patch(plan, desired.join(' '));
    if (plan.kind === 'nothing') this.#isMerged();
    else this.#setState(plan.kind);
  }

  async #patch(plan: Extract<IpMasqPlan, { kind: 'patch' }>, desired: string): Promise<Again | void> {
    const { kube, log, metrics, ciliumNamespace } = this.#deps;
    const writing = this.#written === desired && plan.added.length > 0 ? 'rival' : 'ordinary';
    const waitMs = this.#budget.wait(IP_MASQ_AGENT, writing, performance.now());
    if (waitMs > 0) {
      if (this.#budget.sayOnce(IP_MASQ_AGENT))
        log.warn(
          { waitMs },
          "somebody else takes our ranges out of ip-masq-agent's configuration again and again, holding back; let its owner add them, or ignore the difference",
        );
      return { afterMs: waitMs };
    }
    this.#setState('patch');
    await kube.patch(`${configMapsPath(ciliumNamespace)}/${IP_MASQ_AGENT}`, plan.ops);
    this.#budget.spend(IP_MASQ_AGENT, writing, performance.now());
    this.#written = desired;
    metrics.patches.inc(OBJECT);
    this.#isMerged();
    log.info({ added: plan.added.length, removed: plan.removed.length }, 'ip-masq-agent configuration patched');
  }

  #isMerged(): void {
    this.#deps.metrics.lastSuccess.setToCurrentTime(OBJECT);
    this.#setState('merged');
  }

  #setState(state: 'merged' | 'absent' | 'broken' | 'patch'): void {
    const { ipMasqAgent } = this.#deps.metrics;
    for (const each of ['merged', 'absent', 'broken']) ipMasqAgent.set({ state: each }, Number(each === state));
  }

  /** What an administrator has to do; once. */
  #say(plan: IpMasqPlan): void {
    const { log } = this.#deps;
    const message = 'message' in plan ? plan.message : undefined;
    if (message === this.#said) return;
    this.#said = message;
    if (plan.kind === 'broken') log.error({ problem: message }, 'ip-masq-agent configuration not touched');
    if (plan.kind === 'absent') log.warn({ problem: message }, 'ip-masq-agent has no configuration, and none is made');
  }
}
