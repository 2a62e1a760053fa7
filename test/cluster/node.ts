/** A node of the cluster: containerd, kubelet and, without Cilium's replacement, kube-proxy, in namespaces of their own. */
import { mkdir, readFile, readdir, readlink, rm, rmdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { type Daemon, StartFailed, startDaemon } from '../control-plane/daemon.ts';
import { isLeftover, type Netns } from '../dataplane/netns.ts';

export interface NodeOptions {
  readonly name: string;
  readonly netns: Netns;
  /** Its addresses at the nodes' network, one a family: 10.77.0.11. */
  readonly addresses: readonly string[];
  /** One a family: 10.244.1.0/24 */
  readonly podCIDRs: readonly string[];
  /** Made when missing. Short: sockets are below it. */
  readonly folder: string;
  readonly programs: NodePrograms;
  /** Files. */
  readonly kubeconfigs: { readonly kubelet: string; readonly kubeProxy: string };
  /** PEM, of who may call the kubelet. */
  readonly clientCAFile: string;
  /** Of the container that holds a pod's namespaces, imported first. */
  readonly pauseImage: string;
  /** Docker archives. */
  readonly images: readonly string[];
  /** Who gives pods their network: Cilium, which installs its CNI plugin itself, or `ptp` and kube-proxy. */
  readonly network: 'cilium' | 'cilium and kube-proxy' | 'ptp';
}

/** Paths. */
export interface NodePrograms {
  readonly kubelet: string;
  readonly kubeProxy: string;
  readonly containerd: string;
  readonly shim: string;
  readonly ctr: string;
  readonly runc: string;
}

export interface ClusterNode {
  readonly name: string;
  readonly address: string;
  readonly netns: Netns;
  /** With containerd.log, kubelet.log and kube-proxy.log. */
  readonly folder: string;
  /** Runs a command on the node, in all of its namespaces: `crictl`-like work, or a look at /run. Resolves with stdout. */
  readonly exec: (command: string, ...args: string[]) => Promise<string>;
  /** Process ids, as this machine has them, of the node's programs and of containers there, by their command line. */
  pids(pattern: RegExp): Promise<number[]>;
  /** As a crash of the machine: every process killed, and what the kernel knew of the network forgotten. Then `start`. */
  crash(): Promise<void>;
  start(): Promise<void>;
  /** Nothing of it runs any more, and its control groups are gone. Again: does nothing. */
  stop(): Promise<void>;
}

/** Without what npm puts before it: among that is another nft. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * Leaves a node's network as it is when a machine has started: with its addresses and the way out, which cluster.ts made. A
 * device that goes down or away takes its routes along.
 */
const FORGET = `nft flush ruleset
  ip -o link | sed 's/^[0-9]*: //; s/[:@].*//' | grep -vxE 'lo|eth0|admin' |
    while read -r each; do ip link delete "$each" 2>/dev/null || true; done
  tc qdisc delete dev eth0 clsact 2>/dev/null || true
  for family in -4 -6; do
    ip $family rule flush
    ip $family rule add pref 0 lookup local 2>/dev/null || true
    ip $family rule add pref 32766 lookup main
    ip $family route show table all | sed -n 's/.* table \\([0-9][0-9]*\\) .*/\\1/p' | sort -u |
      while read -r table; do ip $family route flush table "$table"; done
    ip $family route flush table all type unreachable
  done
  ip link set eth0 down
  ip link set eth0 up
  ip route add default via 10.77.0.1
  ip -6 route replace default via fd00:10:77::1 2>/dev/null || true`;

/** Namespaces of its own besides the network's. It dies with the process that started it, and with it all that is inside. */
const SPACES = [
  'unshare',
  '--mount',
  '--propagation=private',
  '--pid',
  '--fork',
  '--kill-child=SIGKILL',
  '--mount-proc',
  '--uts',
  '--ipc',
  'env',
  '-i',
  `PATH=${PATH}`,
  'HOME=/root',
];

/** Nothing is left of it where it rejects. */
export async function startNode(options: NodeOptions): Promise<ClusterNode> {
  const { name, netns, folder, images, programs } = options;
  const address = options.addresses[0]!;
  const file = (path: string): string => join(folder, path);
  const cgroup = netns.name;
  let daemon: Daemon | undefined;
  await writeFiles(options, cgroup);

  const init = async (): Promise<number> => {
    const parent = daemon?.pid;
    const children = await readFile(`/proc/${parent}/task/${parent}/children`, 'utf8').catch(() => '');
    const pid = Number.parseInt(children, 10);
    if (!(pid > 0)) throw new Error(`node ${name} does not run`);
    return pid;
  };
  // Left behind it would wait for containerd for ever.
  const ctr = (...args: string[]) =>
    execa(
      'setpriv',
      ['--pdeathsig', 'KILL', programs.ctr, '--address', file('containerd.sock'), '--namespace', 'k8s.io', ...args],
      { timeout: 300_000 },
    );
  const stopProcesses = async (): Promise<void> => {
    await daemon?.stop('SIGKILL');
    daemon = undefined;
    await removeMembers(cgroup);
  };
  const start = async (): Promise<void> => {
    for (const stale of ['containerd.sock', 'containerd.sock.ttrpc', 'state'])
      await rm(file(stale), { recursive: true, force: true });
    await makeCgroup(cgroup);
    daemon = await startDaemon({
      name: `node ${name}`,
      path: 'nsenter',
      args: [`--net=${netns.path}`, ...SPACES, 'sh', join(import.meta.dirname, 'node.sh'), folder, name],
      cwd: folder,
      log: file('node.log'),
      // containerd answers.
      ready: async () => (await ctr('version')).exitCode === 0,
    });
  };

  const stop = async (): Promise<void> => {
    await stopProcesses();
    await removeCgroup(cgroup);
  };

  try {
    await start();
    for (const each of images) await ctr('images', 'import', '--digests=false', each);
    await writeFile(file('images-imported'), '');
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    name,
    address,
    netns,
    folder,
    start,
    async crash() {
      await stopProcesses();
      await netns.exec('sh', '-euc', FORGET);
    },
    async exec(command, ...args) {
      const enter = ['-t', String(await init()), '-m', '-n', '-p', '-u', '-i', command, ...args];
      return (await execa('nsenter', enter, { env: { PATH }, timeout: 60_000 })).stdout;
    },
    async pids(pattern) {
      const space = await pidSpace(await init());
      const all = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
      const own = await Promise.all(
        all.map(async (pid) => pattern.test(await readProc(pid, 'cmdline')) && (await isInside(pid, space, cgroup))),
      );
      return all.filter((_, index) => own[index]);
    },
    stop,
  };
}

/** As one word for each argument, with spaces; empty where it has ended. */
const readProc = async (pid: number, file: string): Promise<string> =>
  (await readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '')).replaceAll('\0', ' ');

const pidSpace = (pid: number): Promise<string> => readlink(`/proc/${pid}/ns/pid`).catch(() => '');

/** Whether a process is one of the node's own, or of a container there. */
async function isInside(pid: number, space: string, cgroup: string): Promise<boolean> {
  return (await pidSpace(pid)) === space || (await readProc(pid, 'cgroup')).includes(`/${cgroup}/`);
}

async function writeFiles(options: NodeOptions, cgroup: string): Promise<void> {
  const { folder, netns, network } = options;
  await mkdir(join(folder, 'cni'), { recursive: true });
  const files: Record<string, string> = {
    'containerd.toml': containerdConfig(options),
    'kubelet.json': `${JSON.stringify(kubeletConfig(options, cgroup), undefined, 2)}\n`,
    'container.json': await containerSpec(options),
    'programs.sh': await programLines(options, cgroup),
    'resolv.conf': '',
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  // node.sh puts this folder on PATH. A containerd that starts again looks there for the shims of containers that still run.
  await mkdir(join(folder, 'bin'), { recursive: true });
  await symlink(options.programs.shim, join(folder, 'bin/containerd-shim-runc-v2'));
  await symlink(options.programs.runc, join(folder, 'bin/runc'));
  await mkdir(join(folder, 'cni-bin'), { recursive: true });
  if (network === 'ptp') {
    for (const plugin of ['ptp', 'host-local', 'loopback'])
      await symlink(join('/usr/lib/cni', plugin), join(folder, 'cni-bin', plugin));
    await writeFile(join(folder, 'cni/10-pods.conflist'), `${JSON.stringify(cniConfig(options), undefined, 2)}\n`);
  }
  // Every namespace has this machine's values of IPv4, and the kernel's of IPv6.
  await netns.sysctl({
    'net.ipv4.ip_forward': 1,
    'net.ipv6.conf.all.forwarding': 1,
    // A crash takes the interface down.
    'net.ipv6.conf.all.keep_addr_on_down': 1,
  });
}

/** Lines for node.sh. kubelet waits for the images: a pod of an image that is not there yet backs off for ten seconds. */
async function programLines(options: NodeOptions, cgroup: string): Promise<string> {
  const { name, folder, addresses, programs: paths, kubeconfigs, network } = options;
  const kubelet = [
    paths.kubelet,
    `--config=${folder}/kubelet.json`,
    `--kubeconfig=${kubeconfigs.kubelet}`,
    `--hostname-override=${name}`,
    `--node-ip=${addresses.join(',')}`,
    `--root-dir=/var/lib/kubelet`,
    `--cert-dir=${folder}/certificates`,
    '--v=1',
  ];
  const kubeProxy = [
    paths.kubeProxy,
    `--kubeconfig=${kubeconfigs.kubeProxy}`,
    `--hostname-override=${name}`,
    '--proxy-mode=nftables',
    // What would take CAP_SYS_RESOURCE, or another value of the whole machine.
    '--oom-score-adj=0',
    '--conntrack-max-per-core=0',
    '--conntrack-tcp-timeout-established=0',
    '--conntrack-tcp-timeout-close-wait=0',
  ];
  const apart = ['unshare', '--mount', '--propagation=unchanged', 'sh', '-eu', `${folder}/apart.sh`];
  return [
    `keep containerd ${paths.containerd} --config ${folder}/containerd.toml &`,
    ...(network === 'ptp' ? [] : await forCilium(cgroup)),
    ...(network === 'cilium' ? [] : [`keep kube-proxy ${kubeProxy.join(' ')} &`]),
    `(while ! [ -e ${folder}/images-imported ]; do sleep 0.1; done; keep kubelet ${apart.join(' ')} ${kubelet.join(' ')}) &`,
    '',
  ].join('\n');
}

/**
 * What systemd mounts, and Cilium's own mounting of it would do outside of the node. Socket load balancing is for processes
 * below the group that Cilium is shown as the root: the node's.
 */
async function forCilium(cgroup: string): Promise<string[]> {
  const tree = (await cgroupTrees('cgroup2'))[0];
  if (tree === undefined) throw new StartFailed('no cgroup2 is mounted on this machine: Cilium needs it', '');
  return [
    'mount -t bpf bpf /sys/fs/bpf',
    'mkdir -p /run/cilium/cgroupv2',
    `mount --bind ${join(tree, cgroup)} /run/cilium/cgroupv2`,
  ];
}

function containerdConfig({ folder, pauseImage }: NodeOptions): string {
  return `version = 3
root = "${folder}/containerd"
state = "${folder}/state"
[grpc]
  address = "${folder}/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "${pauseImage}"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    base_runtime_spec = "${folder}/container.json"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
`;
}

interface Spec {
  linux: { devices?: unknown[]; resources: { devices: unknown[] } };
}

/**
 * containerd's usual container, with /dev/net/tun: on a kernel without ESP charon does it in user space and needs the device.
 * Where the kernel has ESP nothing uses it.
 */
async function containerSpec({ programs }: NodeOptions): Promise<string> {
  const spec = JSON.parse((await execa(programs.ctr, ['oci', 'spec'])).stdout) as Spec;
  const tun = { type: 'c', major: 10, minor: 200 };
  spec.linux.devices = [
    ...(spec.linux.devices ?? []),
    { ...tun, path: '/dev/net/tun', fileMode: 0o666, uid: 0, gid: 0 },
  ];
  spec.linux.resources.devices.push({ ...tun, allow: true, access: 'rwm' });
  return JSON.stringify(spec);
}

function kubeletConfig({ folder, addresses, clientCAFile }: NodeOptions, cgroup: string): unknown {
  return {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    address: addresses[0],
    authentication: { anonymous: { enabled: false }, webhook: { enabled: true }, x509: { clientCAFile } },
    authorization: { mode: 'Webhook' },
    containerRuntimeEndpoint: `unix://${folder}/containerd.sock`,
    cgroupDriver: 'cgroupfs',
    cgroupRoot: `/${cgroup}`,
    failCgroupV1: false,
    failSwapOn: false,
    oomScoreAdj: 0,
    resolvConf: `${folder}/resolv.conf`,
    podLogsDir: '/var/log/pods',
    // A full disk of the machine is no matter of the cluster's.
    evictionHard: {
      'memory.available': '0%',
      'nodefs.available': '0%',
      'nodefs.inodesFree': '0%',
      'imagefs.available': '0%',
      'imagefs.inodesFree': '0%',
    },
    imageGCHighThresholdPercent: 100,
    // How often a changed ConfigMap or Secret is looked for; a minute, where nobody waits.
    syncFrequency: '2s',
    nodeStatusUpdateFrequency: '4s',
  };
}

/** Of a cluster without Cilium. */
function cniConfig({ podCIDRs }: NodeOptions): unknown {
  const ipam = {
    type: 'host-local',
    ranges: podCIDRs.map((subnet) => [{ subnet }]),
    routes: podCIDRs.map((range) => ({ dst: range.includes(':') ? '::/0' : '0.0.0.0/0' })),
  };
  return { cniVersion: '0.4.0', name: 'pods', plugins: [{ type: 'ptp', mtu: 1500, ipam }] };
}

/** Where the trees of control groups are: of version 1 one for each controller, of version 2 one. */
async function cgroupTrees(...types: ('cgroup' | 'cgroup2')[]): Promise<string[]> {
  const wanted: readonly string[] = types.length > 0 ? types : ['cgroup', 'cgroup2'];
  const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n').map((line) => line.split(' '));
  return mounts.filter(([, , type = '']) => wanted.includes(type)).map(([, path = '']) => path);
}

async function makeCgroup(name: string): Promise<void> {
  const trees = await cgroupTrees();
  for (const path of trees) await mkdir(join(path, name), { recursive: true });
  const cpuset = trees.find((path) => path.endsWith('/cpuset'));
  if (cpuset === undefined) return;
  for (const setting of ['cpuset.cpus', 'cpuset.mems'])
    await writeFile(join(cpuset, name, setting), await readFile(join(cpuset, setting)));
}

/** Containers' processes are in a PID namespace of their node and die with it; what is left in a group is on its way out. */
async function removeMembers(name: string): Promise<void> {
  const deadline = Date.now() + 20_000;
  while ((await membersOf(name)) > 0) {
    if (Date.now() > deadline) throw new Error(`processes of ${name} do not end`);
    await sleep(50);
  }
}

async function groupsOf(name: string): Promise<string[]> {
  const tops = (await cgroupTrees()).map((path) => join(path, name));
  const { stdout } = await execa('find', [...tops, '-depth', '-type', 'd'], { reject: false });
  return stdout.split('\n').filter((line) => line !== '');
}

async function membersOf(name: string): Promise<number> {
  const groups = await groupsOf(name);
  const lists = await Promise.all(groups.map((each) => readFile(join(each, 'cgroup.procs'), 'utf8').catch(() => '')));
  return lists
    .join('')
    .split('\n')
    .filter((line) => line !== '').length;
}

/** Control groups of nodes whose test process was killed; what is in use yet remains for the next. */
export async function removeLeftoverCgroups(): Promise<void> {
  const names = await Promise.all((await cgroupTrees()).map((tree) => readdir(tree)));
  for (const name of new Set(names.flat().filter(isLeftover))) {
    await removeMembers(name).catch(() => undefined);
    await removeCgroup(name);
  }
}

/** Deepest first. */
async function removeCgroup(name: string): Promise<void> {
  for (const each of await groupsOf(name)) await rmdir(each).catch(() => undefined);
}
