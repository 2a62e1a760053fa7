/**
 * `npm run bench:endpoint-sync`: endpoint-sync beside the polling loop that it replaces, on one real API server, at the
 * same time. Each has a frontend and an ip-masq-agent of its own; the loop does not know the fields that it drops.
 *
 * With the defaults it takes about 25 minutes.
 */
import { readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:https';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { load } from 'js-yaml';
import { findTool, ToolMissing } from '../scripts/tools.ts';
import { startControlPlane, type ControlPlane } from '../test/control-plane/control-plane.ts';
import { ConfigVolume, startAgent, until } from '../test/api/agent.ts';
import {
  agentStatus,
  ask,
  createConfigMap,
  createEndpoint,
  createPod,
  NAMESPACE,
  overwrite,
  prefixes,
  type CiliumEndpoint,
} from '../test/api/cilium.ts';
import { installCrds } from '../test/api/fixture.ts';
import { renderVpn } from '../test/api/rendered.ts';
import { cpuSeconds, memoryMiB, ms, progress, quantile, row } from './statistics.ts';

const { values } = parseArgs({
  options: {
    help: { type: 'boolean', short: 'h' },
    rounds: { type: 'string', default: '500' },
    'old-rounds': { type: 'string', default: '40' },
    'idle-minutes': { type: 'string', default: '10' },
    events: { type: 'string', default: '20000' },
  },
});
if (values.help === true) {
  console.log(`Usage: npm run bench:endpoint-sync -- [--rounds 500] [--old-rounds 40] [--idle-minutes 10] [--events 20000]

  --rounds        times that a CiliumEndpoint is overwritten and endpoint-sync restores it
  --old-rounds    the same for the old loop, at moments that are not in step with it: 10 s each
  --idle-minutes  how long nothing changes, while requests and CPU time are counted
  --events        overwrites without a pause, while memory is looked at (an hour of a busy cluster has a few hundred)`);
  process.exit(0);
}
const [rounds, oldRounds, idleMinutes, events] = (['rounds', 'old-rounds', 'idle-minutes', 'events'] as const).map(
  (name) => Number(values[name]),
) as [number, number, number, number];

const OLD_NAMESPACE = 'old-loop';
const PEERS = ['172.16.0.0/16', '192.168.100.0/24'];

/** Time of arrival of each event of one CiliumEndpoint, as an agent of another node sees it. */
class Watcher {
  readonly #waiting: { test: (endpoint: CiliumEndpoint) => boolean; resolve: (at: number) => void }[] = [];

  static async open(cluster: ControlPlane, token: string, namespace: string): Promise<Watcher> {
    const watcher = new Watcher();
    const agent = new Agent({ ca: readFileSync(cluster.caFile), keepAlive: true });
    const path = `/apis/cilium.io/v2/namespaces/${namespace}/ciliumendpoints?watch=true&timeoutSeconds=86400`;
    await new Promise<void>((resolve, reject) => {
      const opened = request(new URL(path, cluster.server), { agent, headers: { authorization: `Bearer ${token}` } });
      opened.on('response', (response) => {
        let rest = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          const at = performance.now();
          const lines = (rest + chunk).split('\n');
          rest = lines.pop() ?? '';
          for (const line of lines) watcher.#seen((JSON.parse(line) as { object: CiliumEndpoint }).object, at);
        });
        resolve();
      });
      opened.on('error', reject).end();
    });
    return watcher;
  }

  #seen(endpoint: CiliumEndpoint, at: number): void {
    for (const waiting of this.#waiting.slice()) {
      if (!waiting.test(endpoint)) continue;
      this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
      waiting.resolve(at);
    }
  }

  when(test: (endpoint: CiliumEndpoint) => boolean): Promise<number> {
    return new Promise((resolve) => {
      this.#waiting.push({ test, resolve });
    });
  }
}

/** Milliseconds from the event that shows the overwritten status to the one that shows the ranges again. */
async function restoration(
  cluster: ControlPlane,
  watcher: Watcher,
  endpoint: CiliumEndpoint,
  id: number,
): Promise<number> {
  const marked = (seen: CiliumEndpoint) => (seen.status as { id?: number } | undefined)?.id === id;
  const overwritten = watcher.when((seen) => marked(seen) && prefixes(seen).length === 0);
  const restored = watcher.when((seen) => marked(seen) && prefixes(seen).length === PEERS.length);
  await overwrite(cluster, endpoint, agentStatus(['10.10.0.5'], id));
  return (await restored) - (await overwritten);
}

async function prepare(cluster: ControlPlane) {
  await installCrds(cluster);
  const rendered = await renderVpn([{ peerCIDRs: PEERS }]);
  await cluster.apply(rendered.accounts);
  const tokenFile = join(cluster.folder, 'endpoint-sync.token');
  await writeFile(tokenFile, await cluster.token(NAMESPACE, 'vpn-endpoint-sync', 86_400));
  const kubeconfig = await cluster.kubeconfig('endpoint-sync', tokenFile);
  const config = '{"nonMasqueradeCIDRs":["10.0.0.0/8"],"masqLinkLocal":true}';
  await createConfigMap(cluster, 'ip-masq-agent', { config });

  await cluster.apply(`apiVersion: v1
kind: Namespace
metadata: {name: ${OLD_NAMESPACE}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: old-loop, namespace: ${OLD_NAMESPACE}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: old-loop}
rules:
- {apiGroups: [''], resources: [pods, configmaps], verbs: [get, patch]}
- {apiGroups: [cilium.io], resources: [ciliumendpoints], verbs: [get, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: old-loop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: old-loop}
subjects: [{kind: ServiceAccount, name: old-loop, namespace: ${OLD_NAMESPACE}}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: watcher, namespace: ${OLD_NAMESPACE}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: watcher}
rules: [{apiGroups: [cilium.io], resources: [ciliumendpoints], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: watcher}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: watcher}
subjects: [{kind: ServiceAccount, name: watcher, namespace: ${OLD_NAMESPACE}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ip-masq-agent, namespace: ${OLD_NAMESPACE}}
data: {config: '${config}'}
`);
  const oldTokenFile = join(cluster.folder, 'old-loop.token');
  await writeFile(oldTokenFile, await cluster.token(OLD_NAMESPACE, 'old-loop', 86_400));
  // kubectl has its own word for a token file.
  const oldKubeconfig = await cluster.kubeconfig('old-loop', oldTokenFile);
  const user = { name: 'old-loop', user: { tokenFile: oldTokenFile } };
  const written = load(await readFile(oldKubeconfig, 'utf8')) as object;
  await writeFile(oldKubeconfig, JSON.stringify({ ...written, users: [user] }));
  return { rendered, kubeconfig, oldKubeconfig };
}

async function main(): Promise<void> {
  const kubectl = await findTool('kubectl');
  const jq = await execa('jq', ['--version'], { reject: false });
  if (jq.exitCode !== 0) throw new ToolMissing('The old loop needs jq (Debian: apt-get install jq).');
  const cluster = await startControlPlane();
  const { rendered, kubeconfig, oldKubeconfig } = await prepare(cluster);
  const volume = await ConfigVolume.create(rendered.config);
  const agent = await startAgent(kubeconfig, volume);
  const old = execa(join(import.meta.dirname, 'old-loop.sh'), {
    env: {
      KUBECONFIG: oldKubeconfig,
      NAMESPACE: OLD_NAMESPACE,
      MASQ_NAMESPACE: OLD_NAMESPACE,
      POD: 'vpn-frontend-0',
      PEER_CIDRS: JSON.stringify(PEERS),
      // The cache holds it under its own name, with the version.
      PATH: `${await linkKubectl(cluster.folder, kubectl.path)}:${process.env.PATH}`,
    },
    reject: false,
    stderr: 'inherit',
  });
  try {
    await compare(cluster, agent.pid, old.pid ?? 0);
  } finally {
    old.kill('SIGKILL');
    await agent.stop('SIGKILL');
    await volume.remove();
    await cluster.stop();
  }
}

async function linkKubectl(folder: string, path: string): Promise<string> {
  const link = join(folder, 'bin/kubectl');
  await execa('mkdir', ['-p', dirname(link)]);
  await execa('ln', ['-s', path, link]);
  return dirname(link);
}

async function compare(cluster: ControlPlane, ours: number, old: number): Promise<void> {
  const frontend = { name: 'vpn-frontend-0', site: '', ips: ['10.10.0.5'] };
  const endpoint = await createEndpoint(cluster, await createPod(cluster, frontend));
  const oldCluster = {
    request: (method: string, path: string, body?: unknown, contentType?: string) =>
      cluster.request(method, path.replace(`/${NAMESPACE}/`, `/${OLD_NAMESPACE}/`), body, contentType),
  };
  const oldEndpoint = await createEndpoint(oldCluster, await createPod(oldCluster, frontend));
  const complete = async (from: typeof oldCluster) =>
    prefixes(
      await ask<CiliumEndpoint>(
        from,
        'GET',
        `/apis/cilium.io/v2/namespaces/${NAMESPACE}/ciliumendpoints/vpn-frontend-0`,
      ),
    ).length === PEERS.length;
  await until(() => complete(cluster), 'endpoint-sync');
  await until(() => complete(oldCluster), 'the old loop', 60_000);

  console.log(`${cpus()[0]?.model ?? ''}, ${cpus().length} cores; Node ${process.version}\n`);
  await idle(cluster, ours, old);
  await restorations(cluster, oldCluster, endpoint, oldEndpoint);
  await memory(cluster, ours, endpoint);
}

type Cluster = Pick<ControlPlane, 'request'>;

async function idle(cluster: ControlPlane, ours: number, old: number): Promise<void> {
  await sleep(5_000);
  progress(`idle for ${idleMinutes} minutes`);
  const since = Date.now();
  const cpu = [cpuSeconds(ours), cpuSeconds(old)];
  for (let minute = 1; minute <= idleMinutes; minute++) {
    await sleep(60_000);
    progress(`${minute} of ${idleMinutes}`);
  }
  const seen = (await cluster.audit()).filter(({ at }) => at >= since);
  const by = (account: string) => seen.filter(({ user }) => user === `system:serviceaccount:${account}`);
  const mine = by(`${NAMESPACE}:vpn-endpoint-sync`);
  const verbs = [...new Set(mine.map(({ verb }) => verb))].sort();
  const used = [cpuSeconds(ours) - (cpu[0] ?? 0), cpuSeconds(old) - (cpu[1] ?? 0)] as const;
  row(`${idleMinutes} idle minutes`, 'endpoint-sync', 'old loop', 'ratio');
  row('---', '---', '---', '---');
  const theirs = by(`${OLD_NAMESPACE}:old-loop`).length;
  const each = verbs.map((verb) => `${mine.filter((one) => one.verb === verb).length} ${verb}`).join(', ');
  row('requests to the API server', `${mine.length} (${each})`, String(theirs), (theirs / mine.length).toFixed(0));
  row('CPU seconds', used[0].toFixed(2), used[1].toFixed(2), (used[1] / used[0]).toFixed(0));
  console.log('');
}

async function restorations(
  cluster: ControlPlane,
  oldCluster: Cluster,
  endpoint: CiliumEndpoint,
  oldEndpoint: CiliumEndpoint,
): Promise<void> {
  const token = await cluster.token(OLD_NAMESPACE, 'watcher', 86_400);
  const watcher = await Watcher.open(cluster, token, NAMESPACE);
  const oldWatcher = await Watcher.open(cluster, token, OLD_NAMESPACE);
  const took: number[] = [];
  const oldTook: number[] = [];
  const theirs = (async () => {
    for (let i = 0; i < oldRounds; i++) {
      await sleep(Math.random() * 10_300); // not in step with the loop, which takes that long
      oldTook.push(await restoration(oldCluster as ControlPlane, oldWatcher, oldEndpoint, 100_000 + i));
      progress(`old loop: ${i + 1} of ${oldRounds} restorations`);
    }
  })();
  for (let i = 0; i < rounds; i++) {
    took.push(await restoration(cluster, watcher, endpoint, 200_000 + i));
    await sleep(20);
    if ((i + 1) % 100 === 0) progress(`endpoint-sync: ${i + 1} of ${rounds} restorations`);
  }
  await theirs;
  row('overwritten to restored, ms', 'rounds', 'p50', 'p99', 'max');
  row('---', '---', '---', '---', '---');
  for (const [name, all] of [
    ['endpoint-sync (target: p99 under 100)', took],
    ['old loop', oldTook],
  ] as const)
    row(name, String(all.length), ms(quantile(all, 0.5)), ms(quantile(all, 0.99)), ms(Math.max(...all)));
  console.log('');
}

async function memory(cluster: ControlPlane, pid: number, endpoint: CiliumEndpoint): Promise<void> {
  progress(`${events} overwrites without a pause`);
  const marks = [0, 0.1, 0.25, 0.5, 0.75, 1].map((part) => Math.round(part * events));
  row('events replayed', ...marks.map(String));
  row('---', ...marks.map(() => '---'));
  const seen: string[] = [];
  for (let i = 0; i <= events; i++) {
    if (marks.includes(i)) {
      await sleep(2_000);
      seen.push(memoryMiB(pid).resident.toFixed(0));
      progress(`${i} of ${events}: ${seen.at(-1)} MiB`);
    }
    if (i < events) await overwrite(cluster, endpoint, agentStatus(['10.10.0.5'], i));
  }
  row('endpoint-sync, MiB resident (target: under 90)', ...seen);
}

await main();
