/** A control plane with Cilium's CRDs and the VPN's rendered accounts, and agents on it. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext, TestFn } from 'ava';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { ConfigVolume, startAgent, type Agent } from './agent.ts';
import { getEndpoint, NAMESPACE, prefixes, removeAll, type CiliumEndpoint, type Frontend } from './cilium.ts';
import { renderVpn, type Rendered, type SiteInput } from './rendered.ts';

export const BERLIN = {
  name: 'vpn-frontend-berlin-0',
  site: 'berlin',
  ips: ['10.10.0.5', 'fd00:10::5'],
  cidrs: ['172.16.0.0/16', '192.168.100.0/24', 'fd12:3456::/48'],
} satisfies Frontend & { cidrs: string[] };
export const MUNICH = {
  name: 'vpn-frontend-munich-0',
  site: 'munich',
  ips: ['10.10.1.7'],
  cidrs: ['10.200.0.0/16'],
} satisfies Frontend & { cidrs: string[] };
export const SITES: SiteInput[] = [BERLIN, MUNICH].map(({ site, cidrs }) => ({ name: site, peerCIDRs: cidrs }));
export const ALL_CIDRS = ['10.200.0.0/16', '172.16.0.0/16', '192.168.100.0/24', 'fd12:3456::/48'];

export interface Fixture {
  cluster: ControlPlane;
  rendered: Rendered;
  /** Of endpoint-sync's ServiceAccount, and the file that holds its token. */
  kubeconfig: string;
  tokenFile: string;
}

const crd = (name: string) => readFile(join(import.meta.dirname, `../control-plane/crds/${name}.yaml`), 'utf8');

export async function installCrds(cluster: ControlPlane): Promise<void> {
  await cluster.apply(await crd('ciliumendpoints'));
  await cluster.apply(await crd('ciliumendpointslices'));
}

/** Writes a fresh token of endpoint-sync's ServiceAccount. */
export async function writeToken({ cluster, tokenFile }: Pick<Fixture, 'cluster' | 'tokenFile'>): Promise<void> {
  await writeFile(tokenFile, await cluster.token(NAMESPACE, 'vpn-endpoint-sync'));
}

/** One control plane for the tests of a file, which must be serial. */
export function setUp(test: TestFn): Fixture {
  const fixture = {} as Fixture;
  test.before(async (t) => {
    t.timeout(20 * 60_000, 'kube-apiserver and etcd may have to be built');
    const cluster = await startControlPlane();
    const tokenFile = join(cluster.folder, 'endpoint-sync.token');
    Object.assign(fixture, { cluster, tokenFile, rendered: await renderVpn(SITES) });
    await installCrds(cluster);
    await cluster.apply(fixture.rendered.accounts);
    await writeToken(fixture);
    fixture.kubeconfig = await cluster.kubeconfig('endpoint-sync', tokenFile);
  });
  test.after.always(async () => fixture.cluster?.stop());
  return fixture;
}

/** An agent with the rendered configuration, or another text. It and all objects are gone after the test. */
export async function start(
  t: ExecutionContext,
  { cluster, kubeconfig, rendered }: Fixture,
  config: string | null = rendered.config,
): Promise<{ agent: Agent; volume: ConfigVolume }> {
  const volume = await ConfigVolume.create(config ?? undefined);
  const agent = await startAgent(kubeconfig, volume);
  t.teardown(async () => {
    await agent.stop('SIGKILL');
    await volume.remove();
    await removeAll(cluster);
  });
  return { agent, volume };
}

/** For until(): the frontend's CiliumEndpoint once it lists exactly these ranges, each in the field of its family. */
export const listing =
  (cluster: ControlPlane, name: string, cidrs: readonly string[]) => async (): Promise<CiliumEndpoint | undefined> => {
    const endpoint = await getEndpoint(cluster, name);
    const wanted = cidrs.map((cidr) => `${cidr.includes(':') ? 'ipv6' : 'ipv4'} ${cidr}`);
    return JSON.stringify(prefixes(endpoint)) === JSON.stringify(wanted) ? endpoint : undefined;
  };

/** Changes the JSON of a rendered configuration. */
export function edited(config: string, change: (sites: { name: string; peerCIDRs: string[] }[]) => void): string {
  const parsed = JSON.parse(config) as { spec: { sites: { name: string; peerCIDRs: string[] }[] } };
  change(parsed.spec.sites);
  return JSON.stringify(parsed);
}
