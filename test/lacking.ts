/** What this machine lacks for a tier of the tests, or for a cluster: commands of Debian's packages, and tools. */
import { existsSync } from 'node:fs';
import { findTool, type ToolName, ToolMissing } from '../scripts/tools.ts';

type Needs = readonly [tools: readonly ToolName[], commands: readonly string[]];

/** Of the tests in a cluster that is there already. */
export const CLUSTER: Needs = [
  ['kubectl', 'kustomize'],
  [
    'setpriv',
    'nsenter',
    'unshare',
    'ip',
    'nft',
    'tcpdump',
    'ping',
    'curl',
    'dig',
    'charon-systemd',
    'swanctl',
    'slirp4netns',
  ],
];
export const OWN_CLUSTER: Needs = [
  [
    'kube-apiserver',
    'etcd',
    'kube-controller-manager',
    'kube-scheduler',
    'kubelet',
    'kube-proxy',
    'containerd',
    'containerd-shim-runc-v2',
    'ctr',
    'runc',
    'kpt',
    ...CLUSTER[0],
  ],
  ['ptp', 'podman', 'buildah', 'conntrack', 'iptables', 'openssl', ...CLUSTER[1].filter((it) => it !== 'slirp4netns')],
];

/** Debian's package of a command, where it is called otherwise. */
const PACKAGES: Record<string, string> = {
  setcap: 'libcap2-bin',
  setpriv: 'util-linux',
  nsenter: 'util-linux',
  unshare: 'util-linux',
  ip: 'iproute2',
  nft: 'nftables',
  ping: 'iputils-ping',
  swanctl: 'strongswan-swanctl',
  ptp: 'containernetworking-plugins',
  dig: 'bind9-dnsutils',
  'qemu-system-x86_64': 'qemu-system-x86',
  modprobe: 'kmod',
  'dpkg-deb': 'dpkg',
};

/**
 * Debian keeps some of these in folders that are on root's PATH alone (npm puts another program called nft before it), and the
 * plugins of CNI in one that is on nobody's.
 */
const FOLDERS = ['/usr/sbin', '/usr/bin', '/sbin', '/bin', '/usr/local/bin', '/usr/lib/cni'];

/** A sentence about the first that is missing, or undefined. Tools that are not there are built; `log` takes the progress. */
export async function lacking(
  tools: readonly ToolName[],
  commands: readonly string[],
  log?: (line: string) => void,
): Promise<string | undefined> {
  for (const command of commands)
    if (!FOLDERS.some((folder) => existsSync(`${folder}/${command}`)))
      return `${command} is not installed (Debian: apt-get install ${PACKAGES[command] ?? command})`;
  try {
    for (const tool of tools) await findTool(tool, log === undefined ? {} : { log });
    return undefined;
  } catch (error) {
    if (error instanceof ToolMissing) return error.message;
    throw error;
  }
}
