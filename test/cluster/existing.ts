/**
 * A cluster that was there before, which $KUBECONFIG leads to, with a site on this machine that dials its load balancer:
 *
 *   cluster … load balancer ←── this machine ── tap0 wire ── nat ── gateway ── onprem
 *
 * What lies between this machine and the load balancer is slirp4netns, a NAT in user space, so that nothing of the machine's
 * own network is changed. The images must be where the cluster can pull them.
 */
import { join, resolve } from 'node:path';
import { findTool } from '../../scripts/tools.ts';
import { type Daemon, startDaemon } from '../control-plane/daemon.ts';
import { createGroup, type Netns } from '../dataplane/netns.ts';
import { type AnyCluster, kubectlOf } from './cluster.ts';
import { NAMESPACES } from './pods.ts';
import { startSite } from './site.ts';

export class CannotJoin extends Error {
  override name = 'CannotJoin';
}

const VARIABLES = {
  VPN_TEST_AGENTS: 'the agents’ image, as the cluster pulls it',
  VPN_TEST_STRONGSWAN: 'strongSwan’s image',
  VPN_TEST_WORKLOAD: 'the tests’ image, of test/cluster/Containerfile.workload',
  VPN_TEST_POD_CIDR: 'the pods’ range, or two with a comma between',
  VPN_TEST_SERVICE_CIDR: 'the Services’, likewise',
} as const;

/** Our identity where there is no public address: docs/frontend.md. */
const IDENTITY = 'vpn-frontend.constellation-vpn';

/** Throws CannotJoin, with all that is missing, and where the VPN is there already: it would be removed by the tests. */
export async function joinCluster(env: NodeJS.ProcessEnv): Promise<AnyCluster> {
  const missing = Object.entries(VARIABLES).filter(([name]) => !env[name]);
  if (missing.length > 0)
    throw new CannotJoin(
      `KUBECONFIG is set: to test in that cluster, set as well (or unset it for one of the tests' own)\n${missing.map(([name, what]) => `  ${name}: ${what}`).join('\n')}`,
    );
  const value = (name: keyof typeof VARIABLES): string => env[name] ?? '';
  const kubeconfig = resolve(env.INIT_CWD ?? process.cwd(), env.KUBECONFIG ?? '');
  const kubectlPath = (await findTool('kubectl')).path;
  const kubectl = kubectlOf(kubectlPath, kubeconfig);
  for (const namespace of ['constellation-vpn', ...NAMESPACES])
    if ((await kubectl(['get', 'namespace', namespace, '--ignore-not-found', '-o', 'name'])) !== '')
      throw new CannotJoin(`the cluster has a namespace ${namespace}: the tests would remove it`);

  const group = await createGroup(['wire', 'nat', 'gateway', 'onprem']);
  const { wire, onprem } = group.spaces;
  const connection = await connectToMachine(wire);
  const site = await startSite(group.spaces);
  return {
    kubeconfig,
    kubectlPath,
    kubectl,
    podCIDRs: value('VPN_TEST_POD_CIDR').split(','),
    serviceCIDRs: value('VPN_TEST_SERVICE_CIDR').split(','),
    images: {
      agents: value('VPN_TEST_AGENTS'),
      strongswan: value('VPN_TEST_STRONGSWAN'),
      workload: value('VPN_TEST_WORKLOAD'),
    },
    peer: { id: IDENTITY, dial: () => loadBalancer(kubectl) },
    site,
    onprem,
    async stop() {
      await site.stop();
      await connection.stop('SIGTERM');
      await group.remove();
    },
  };
}

/** Its address, or its name; empty before the Service has one. */
async function loadBalancer(kubectl: AnyCluster['kubectl']): Promise<string> {
  const fields = ['ip', 'hostname'].map((field) => `{.status.loadBalancer.ingress[0].${field}}`).join('');
  const args = [
    '-n',
    'constellation-vpn',
    'get',
    'service',
    'vpn-frontend',
    '--ignore-not-found',
    '-o',
    `jsonpath=${fields}`,
  ];
  return kubectl(args);
}

/** As a host behind this machine's NAT. */
async function connectToMachine(wire: Netns): Promise<Daemon> {
  await wire.exec('ip', 'link', 'set', 'lo', 'up');
  const options = ['--configure', '--disable-host-loopback', '--mtu=1500', '--netns-type=path'];
  const daemon = await startDaemon({
    name: 'slirp4netns',
    path: 'slirp4netns',
    args: [...options, wire.path, 'tap0'],
    cwd: wire.folder,
    log: join(wire.folder, 'slirp4netns.log'),
    ready: async () => (await wire.exec('ip', 'route', 'show', 'default')).includes('tap0'),
  });
  await wire.exec('nft', NAT);
  return daemon;
}

const NAT = `table ip to-machine {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "tap0" masquerade
  }
}`;
