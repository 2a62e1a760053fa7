/** The agent of a node as a whole: what is watched, and what each event leads to. */
import { canonicalAddress } from '../../functions/model/cidr.ts';
import { tunnels } from '../../functions/model/cilium-rules.ts';
import { ConfigFile } from '../lib/config.ts';
import type { Route as HttpRoute } from '../lib/http.ts';
import type { KubeClient } from '../lib/kube/client.ts';
import type { ConfigMap, Pod } from '../lib/kube/objects.ts';
import { called, CILIUM_CONFIG, configMapsPath, ofComponent, podsPath } from '../lib/kube/paths.ts';
import { Reflector } from '../lib/kube/reflector.ts';
import type { Log } from '../lib/log.ts';
import { LOST_RANGES_PATH } from '../lib/lost-ranges.ts';
import { wait } from '../lib/wait.ts';
import { CiliumApi } from './cilium/api.ts';
import { CiliumHealth } from './cilium/health.ts';
import { LostRangesCheck } from './cilium/lost-ranges.ts';
import { SourceCheck } from './cilium/source-check.ts';
import { watchCilium } from './cilium/watch.ts';
import { FRONTEND_PATH, frontendState, waiting, type FrontendState } from './frontend-state.ts';
import { frontendsOf, podAddresses, type Frontend } from './frontends.ts';
import { KernelWatch } from './kernel/watch.ts';
import { createMetrics } from './metrics.ts';
import { Routes } from './routes/reconcile.ts';
import { Tasks } from './tasks.ts';

/** Everything is looked at again this often even if nothing said that it changed. */
const RECHECK_MS = 60_000;
const BACKOFF = { firstMs: 50, maxMs: 30_000 };
/** Cilium's agent lets four questions a second through; one that has just started must not be waited for long. */
const CILIUM_BACKOFF = { firstMs: 250, maxMs: 2_000 };
const CILIUM_CONCURRENCY = 4;
/** In milliseconds: nodes learn of a new range within a second. To look sooner finds nothing, and takes the processor from the routes. */
const LOST_RANGES_MS = 2_000;

export interface Settings {
  /** Of the VPN. */
  readonly namespace: string;
  /** Where Cilium's ConfigMaps are. */
  readonly ciliumNamespace: string;
  /** This node's name. */
  readonly node: string;
  readonly configFile: string;
  /** Where Cilium's agent makes its socket. */
  readonly ciliumFolder: string;
}

export function createAgent(kube: KubeClient, log: Log, settings: Settings) {
  const { namespace, ciliumNamespace, node, ciliumFolder } = settings;
  const config = new ConfigFile({
    file: settings.configFile,
    log,
    onChange: () => {
      routes.configChanged();
      routesQueue.add('');
      addSourceChecks();
      lookForLostRangesSoon();
    },
  });
  const metrics = createMetrics(() => config.problems.length === 0);
  const vpn = () => config.vpn;

  const pods = new Reflector<Pod>({
    kube,
    log,
    what: `frontend Pods of the node ${node} in the namespace ${namespace}`,
    path: podsPath(namespace),
    query: { ...ofComponent('frontend'), fieldSelector: `spec.nodeName=${node}` },
    onChange: () => {
      recheckRoutes();
      addSourceChecks();
      lookForLostRangesSoon();
    },
  });
  const ciliumConfig = new Reflector<ConfigMap>({
    kube,
    log,
    what: `ConfigMap ${ciliumNamespace}/${CILIUM_CONFIG}`,
    path: configMapsPath(ciliumNamespace),
    query: called(CILIUM_CONFIG),
    onChange: () => recheckRoutes(),
  });
  const reflectors = [pods, ciliumConfig];

  const frontends = (): readonly Frontend[] =>
    config.vpn === undefined ? [] : frontendsOf(pods.all(), config.vpn).frontends;
  const cilium = new CiliumApi(ciliumFolder);
  const routes: Routes = new Routes({
    log,
    metrics,
    vpn,
    pods: () => (pods.synced ? pods.all() : undefined),
    tunnels: () => {
      const data = ciliumConfig.get(CILIUM_CONFIG)?.data;
      return ciliumConfig.synced ? tunnels({ value: (key) => data?.[key] ?? '' }) : undefined;
    },
    quietly: (change) => kernel.quietly(change),
  });
  const sourceCheck = new SourceCheck({
    log,
    metrics,
    cilium,
    frontend: (name) => frontends().find(({ pod }) => pod === name),
  });
  const lostRanges = new LostRangesCheck({ kube, log, metrics, namespace, node, cilium, vpn, frontends });
  const health = new CiliumHealth({ kube, log, metrics, namespace, node, cilium });

  const tasks = new Tasks(log, metrics);
  const routesQueue = tasks.queue('routes', { backoff: BACKOFF, concurrency: 1, run: () => routes.reconcile() });
  const sourceQueue = tasks.queue('source-check', {
    backoff: CILIUM_BACKOFF,
    concurrency: CILIUM_CONCURRENCY,
    run: (pod) => sourceCheck.reconcile(pod),
  });
  const lostQueue = tasks.queue('lost-ranges', {
    backoff: BACKOFF,
    concurrency: 1,
    run: () => lostRanges.reconcile(),
  });
  const healthQueue = tasks.queue('cilium-health', {
    backoff: BACKOFF,
    concurrency: 1,
    run: () => health.reconcile(),
  });

  const recheckRoutes = (): void => {
    routes.recheck();
    routesQueue.add('');
  };
  /** Until the lost ranges are looked at after a change of the configuration or of a frontend. */
  let lostTimer: NodeJS.Timeout | undefined;
  const lookForLostRangesSoon = (): void => {
    clearTimeout(lostTimer);
    lostTimer = setTimeout(() => lostQueue.add(''), LOST_RANGES_MS).unref();
  };
  /** Pods whose source check is looked after. */
  let checked: ReadonlySet<string> = new Set();
  const addSourceChecks = (): void => {
    const now = new Set(frontends().map(({ pod }) => pod));
    for (const pod of new Set([...checked, ...now])) sourceQueue.add(pod);
    checked = now;
  };

  const kernel: KernelWatch = new KernelWatch({
    log,
    onEvent: (event) => {
      if (routes.event(event)) routesQueue.add('');
    },
    onGap: recheckRoutes,
    isEcho: () => routes.isEcho(),
  });
  const ciliumRestarted = (there: boolean): void => {
    sourceCheck.restarted();
    if (there) addSourceChecks();
    health.restarted();
    healthQueue.add('');
  };
  const backstop = async (signal: AbortSignal): Promise<void> => {
    for (;;) {
      await wait(RECHECK_MS, signal);
      if (signal.aborted) return;
      recheckRoutes();
      addSourceChecks();
      lostQueue.add('');
    }
  };

  const stateOf = (ip: string): FrontendState => {
    if (config.vpn === undefined) return waiting(...config.problems);
    const { frontends: known, problems } = frontendsOf(pods.all(), config.vpn);
    const one = known.find(({ addresses }) => Object.values(addresses).includes(ip));
    const odd = problems.find(({ pod }) => podAddresses(pods.get(pod)?.status).includes(ip));
    if (odd !== undefined) return waiting(`the pod ${odd.pod} ${odd.problem}`);
    if (one === undefined)
      return waiting(
        pods.problem ?? `the routing agent of the node ${node} knows no frontend with the address ${ip} yet`,
      );
    const refused = routes.refusedOf(one);
    if (refused === undefined) return waiting(ciliumConfig.problem ?? routes.problem ?? 'the routes are being made');
    return frontendState(refused, sourceCheck.problemOf(one));
  };

  return {
    registry: metrics.registry,
    routes: {
      [`GET ${LOST_RANGES_PATH}`]: () => json({ lost: lostRanges.lost }),
      [`GET ${FRONTEND_PATH}`]: (_: string, query: URLSearchParams) => {
        const ip = canonicalAddress(query.get('ip') ?? '');
        return ip === undefined ? { status: 400, text: 'expected ?ip=<address of the pod>\n' } : json(stateOf(ip));
      },
    },
    /** Why it is not ready. */
    unready: (): string[] => [
      ...(config.vpn === undefined ? config.problems : []),
      ...[...reflectors, kernel, routes].map(({ problem }) => problem).filter((problem) => problem !== undefined),
    ],
    /** Until `signal` is aborted and what was under way has ended. Routes stay. */
    run: async (signal: AbortSignal): Promise<void> => {
      await config.read();
      healthQueue.add('');
      await Promise.all([
        config.follow(signal),
        ...reflectors.map((reflector) => reflector.run(signal)),
        kernel.run(signal),
        watchCilium(ciliumFolder, ciliumRestarted, signal),
        backstop(signal),
      ]);
      await Promise.all([routesQueue, sourceQueue, lostQueue, healthQueue].map((queue) => queue.stop()));
    },
  };
}

const json = (value: unknown): ReturnType<HttpRoute> => ({ status: 200, text: `${JSON.stringify(value)}\n` });
