/** Takes everything out again that endpoint-sync ever wrote. */
import type { KubeClient } from '../lib/kube/client.ts';
import { KubeError } from '../lib/kube/errors.ts';
import type { Log } from '../lib/log.ts';
import { wait } from '../lib/wait.ts';
import { called, configMapsPath, endpointsPath, IP_MASQ_AGENT, ofComponent, podsPath } from '../lib/kube/paths.ts';
import { planEndpoint, prefixesOf } from './endpoint/plan.ts';
import type { ConfigMap, Pod } from '../lib/kube/objects.ts';
import type { CiliumEndpoint } from './objects.ts';
import { planIpMasq } from './ip-masq/plan.ts';

const TRIES = 8;

export interface Place {
  readonly namespace: string;
  readonly ciliumNamespace: string;
}

/** Answers what could not be cleaned up and why, one sentence each; empty: nothing of ours is left. */
export async function cleanUp(kube: KubeClient, log: Log, { namespace, ciliumNamespace }: Place): Promise<string[]> {
  const running = await kube.list<Pod>(podsPath(namespace), ofComponent('endpoint-sync'));
  if (running.items.length > 0)
    return [
      `endpoint-sync is running (Pod ${running.items[0]?.metadata.name}) and would put everything back: delete its Deployment first (kubectl -n ${namespace} delete deployment -l constellation-vpn.io/component=endpoint-sync)`,
    ];
  const pods = await kube.list<Pod>(podsPath(namespace), ofComponent('frontend'));
  if (pods.items.length === 0)
    log.warn(
      { namespace },
      'there is no frontend Pod in this namespace, so no CiliumEndpoint to clean up: is it the right one?',
    );
  const tasks: [what: string, task: () => Promise<void>][] = [
    ...pods.items.map((pod): [string, () => Promise<void>] => [
      `CiliumEndpoint ${pod.metadata.name}`,
      () => cleanEndpoint(kube, log, namespace, pod),
    ]),
    [`ConfigMap ${ciliumNamespace}/${IP_MASQ_AGENT}`, () => cleanIpMasq(kube, log, namespace, ciliumNamespace)],
  ];
  const left: string[] = [];
  for (const [what, task] of tasks) {
    const problem = await persist(task);
    if (problem !== undefined) left.push(`${what}: ${problem}`);
  }
  return left;
}

async function cleanEndpoint(kube: KubeClient, log: Log, namespace: string, pod: Pod): Promise<void> {
  const { name } = pod.metadata;
  const path = `${endpointsPath(namespace)}/${name}`;
  const endpoint = await kube.get<CiliumEndpoint>(path);
  if (endpoint === undefined) return;
  const plan = planEndpoint(endpoint, pod, []);
  if (plan.kind === 'waiting' && prefixesOf(endpoint).length > 0) throw new Error(`still lists ranges: ${plan.reason}`);
  if (plan.kind !== 'patch') return;
  await kube.patch(path, plan.ops);
  log.info({ pod: name, removed: plan.removed.length }, 'CiliumEndpoint cleaned up');
}

async function cleanIpMasq(kube: KubeClient, log: Log, namespace: string, ciliumNamespace: string): Promise<void> {
  const { items } = await kube.list<ConfigMap>(configMapsPath(ciliumNamespace), called(IP_MASQ_AGENT));
  const plan = planIpMasq(items[0], namespace, []);
  if (plan.kind === 'broken') throw new Error(plan.message);
  if (plan.kind !== 'patch') return;
  await kube.patch(`${configMapsPath(ciliumNamespace)}/${IP_MASQ_AGENT}`, plan.ops);
  log.info({ removed: plan.removed.length }, 'ip-masq-agent configuration cleaned up');
}

/** Tries again where that can help. Answers why it did not work in the end. */
async function persist(task: () => Promise<void>): Promise<string | undefined> {
  for (let tries = 1; ; tries++) {
    try {
      await task();
      return undefined;
    } catch (error) {
      const kind = error instanceof KubeError ? error.kind : 'other';
      if (kind === 'notFound') return undefined; // gone meanwhile
      const hopeless = ['forbidden', 'invalid', 'other'].includes(kind);
      if (hopeless || tries === TRIES) return error instanceof Error ? error.message : String(error);
      const retryAfterMs = error instanceof KubeError ? error.retryAfterMs : undefined;
      await wait(retryAfterMs ?? 100 * 2 ** tries);
    }
  }
}
