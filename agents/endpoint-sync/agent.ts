/** endpoint-sync as a whole: what is watched, and what each event leads to. */
import * as E from 'fp-ts/lib/Either.js';
import { ConfigFile } from '../lib/config.ts';
import type { Route } from '../lib/http.ts';
import type { KubeClient, KubeObject } from '../lib/kube/client.ts';
import { Reflector } from '../lib/kube/reflector.ts';
import type { Log } from '../lib/log.ts';
import { LOST_RANGES_PATH, LostRangesHint } from '../lib/lost-ranges.ts';
import { WorkQueue, type Again } from '../lib/queue.ts';
import { CiliumCheck } from './cilium-config/reconcile.ts';
import { Endpoints } from './endpoint/reconcile.ts';
import { Failures } from './failures.ts';
import { IpMasq } from './ip-masq/reconcile.ts';
import { LostRangesCheck } from './lost-ranges/reconcile.ts';
import { createMetrics } from './metrics.ts';
import {
  called,
  CILIUM_CONFIG,
  configMapsPath,
  endpointsPath,
  IP_MASQ_AGENT,
  ofComponent,
  podsPath,
} from '../lib/kube/paths.ts';
import type { ConfigMap, Pod } from '../lib/kube/objects.ts';
import type { CiliumEndpoint } from './objects.ts';
import { Resteering } from './lost-ranges/resteer.ts';

const BACKOFF = { firstMs: 50, maxMs: 30_000 };
/** Requests under way at the same time, at most. */
const CONCURRENCY = 8;
export interface Settings {
  /** Of the VPN. */
  readonly namespace: string;
  /** Where Cilium's ConfigMaps are. */
  readonly ciliumNamespace: string;
  readonly configFile: string;
  /** Our own pod's name. */
  readonly instance: string;
}

/** Keys of the queues: `CiliumEndpoint vpn-frontend-0`, `ip-masq-agent`, `cilium-config`, `lost-ranges`. */
type Kind = 'CiliumEndpoint' | typeof IP_MASQ_AGENT | typeof CILIUM_CONFIG | 'lost-ranges';

export function createAgent(kube: KubeClient, log: Log, settings: Settings) {
  const { namespace, ciliumNamespace, instance } = settings;
  const config = new ConfigFile({ file: settings.configFile, log, onChange: () => addAll() });
  const metrics = createMetrics(() => config.problems.length === 0);
  const resteering = new Resteering();
  const vpn = () => config.vpn;

  const reflect = <T extends KubeObject>(
    options: Omit<ConstructorParameters<typeof Reflector<T>>[0], 'kube' | 'log'>,
  ) => new Reflector<T>({ kube, log, ...options });
  const pods = reflect<Pod>({
    what: `frontend Pods in the namespace ${namespace}`,
    path: podsPath(namespace),
    query: ofComponent('frontend'),
    onChange: (name) => {
      if (name !== undefined) add('CiliumEndpoint', name);
      add(CILIUM_CONFIG);
    },
  });
  const endpoints = reflect<CiliumEndpoint>({
    what: `CiliumEndpoints in the namespace ${namespace}`,
    path: endpointsPath(namespace),
    absent: 'the API server knows no CiliumEndpoints (cilium.io/v2): Cilium is missing in this cluster; waiting for it',
    onChange: (name) => {
      if (name === undefined) return;
      endpointsReconciler.changed(name);
      add('CiliumEndpoint', name);
    },
  });
  const ipMasqAgent = reflect<ConfigMap>({
    what: `ConfigMap ${ciliumNamespace}/${IP_MASQ_AGENT}`,
    path: configMapsPath(ciliumNamespace),
    query: called(IP_MASQ_AGENT),
    onChange: () => add(IP_MASQ_AGENT),
  });
  const ciliumConfig = reflect<ConfigMap>({
    what: `ConfigMap ${ciliumNamespace}/${CILIUM_CONFIG}`,
    path: configMapsPath(ciliumNamespace),
    query: called(CILIUM_CONFIG),
    onChange: () => add(CILIUM_CONFIG),
  });
  const reflectors = [pods, endpoints, ipMasqAgent, ciliumConfig];

  const common = { kube, log, metrics, namespace, vpn };
  const endpointsReconciler = new Endpoints({ ...common, pods, endpoints, resteering });
  const ipMasq = new IpMasq({ ...common, ciliumNamespace, configMaps: ipMasqAgent });
  const ciliumCheck = new CiliumCheck({ ...common, instance, pods, configMaps: ciliumConfig });
  const lostRanges = new LostRangesCheck({
    ...common,
    endpoints: endpointsReconciler,
    resteering,
    enqueue: (pod) => add('CiliumEndpoint', pod),
  });

  const reconcilers: Record<Kind, (name: string) => Promise<Again | void>> = {
    CiliumEndpoint: (name) => endpointsReconciler.reconcile(name),
    [IP_MASQ_AGENT]: () => ipMasq.reconcile(),
    [CILIUM_CONFIG]: () => ciliumCheck.reconcile(),
    'lost-ranges': () => lostRanges.reconcile(),
  };
  const failures = new Failures(log, metrics);
  const createQueue = (concurrency: number) =>
    new WorkQueue(
      async (key) => {
        const [kind, name] = split(key);
        const again = await reconcilers[kind](name);
        failures.over(key);
        return again;
      },
      { backoff: BACKOFF, concurrency, onError: (key, error) => failures.happened(key, split(key)[0], error) },
    );
  const queue = createQueue(CONCURRENCY);
  // Nodes that don't answer must not hold up what is urgent.
  const slowQueue = createQueue(1);
  const add = (kind: Kind, name = ''): void => queue.add(name === '' ? kind : `${kind} ${name}`);
  const addAll = (): void => {
    for (const { metadata } of pods.all()) add('CiliumEndpoint', metadata.name);
    add(IP_MASQ_AGENT);
    add(CILIUM_CONFIG);
  };

  const hint: Route = (body) => {
    const decoded = LostRangesHint.decode(parse(body));
    if (E.isLeft(decoded)) return { status: 400, text: 'expected {"node": "<name>"}\n' };
    if (!lostRanges.hint(decoded.right.node)) return { status: 503, text: 'busy, try again later\n' };
    slowQueue.add('lost-ranges');
    return { status: 202, text: 'ok\n' };
  };

  return {
    registry: metrics.registry,
    routes: { [`POST ${LOST_RANGES_PATH}`]: hint },
    /** Why it is not ready. */
    unready: (): string[] => [
      ...(config.vpn === undefined ? config.problems : []),
      ...reflectors.map(({ problem }) => problem).filter((problem) => problem !== undefined),
    ],
    /** Until `signal` is aborted and what was under way has ended. */
    run: async (signal: AbortSignal): Promise<void> => {
      await config.read();
      await Promise.all([config.follow(signal), ...reflectors.map((reflector) => reflector.run(signal))]);
      await Promise.all([queue.stop(), slowQueue.stop()]);
    },
  };
}

function split(key: string): [kind: Kind, name: string] {
  const space = key.indexOf(' ');
  return (space < 0 ? [key, ''] : [key.slice(0, space), key.slice(space + 1)]) as [Kind, string];
}

function parse(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}
