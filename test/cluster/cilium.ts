/**
 * Real Cilium for the test cluster, as its users have it: installed by Helm from Cilium's own chart, with an image of its own
 * programs (Containerfile.cilium). What the chart gets is what Constellation sets (VXLAN, endpoint routes, replacement of
 * kube-proxy, BPF masquerade, ip-masq-agent, CiliumEndpointSlices), less WireGuard, which few kernels of test machines have.
 */
import { createHash } from 'node:crypto';
import { glob, link, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { buildContainerfile } from '../../scripts/build-images.ts';
import type { ContainerEnv } from '../../scripts/container-setup.ts';
import { type CiliumVersion, findSource, findTool } from '../../scripts/tools.ts';

export interface CiliumOptions {
  /** Default: $VPN_TEST_CILIUM, else 1.18. */
  readonly version?: CiliumVersion;
  /** Debian's clang, that compiles the BPF programs. Default: one that the version works with. */
  readonly clang?: 14 | 16 | 19;
  /** CiliumEndpointSlices. Default: yes, where the version has its operator here. */
  readonly slices?: boolean;
  /** Default: yes. Otherwise kube-proxy runs on the nodes. */
  readonly replacesKubeProxy?: boolean;
  /** Default: tunnel (VXLAN). */
  readonly routing?: 'tunnel' | 'native';
}

const CONTAINERFILE = join(import.meta.dirname, 'Containerfile.cilium');

/** All of them, with their defaults. */
export interface Cilium extends Required<CiliumOptions> {
  /** Whether an operator runs: that of 1.20 can't be built here. */
  readonly operator: boolean;
}

/** Facts of the cluster that Cilium must know. */
export interface CiliumCluster {
  /** The API server's address, seen from the nodes. */
  readonly host: string;
  readonly port: number;
  readonly podCIDRs: readonly string[];
  readonly dualStack: boolean;
}

const KNOWN: Record<CiliumVersion, Pick<Cilium, 'clang' | 'operator'>> = {
  '1.15': { clang: 14, operator: true },
  '1.18': { clang: 19, operator: true },
  // With programs of clang 19 and enable-sctp, the kernel refuses them.
  '1.20': { clang: 16, operator: false },
};

export const VERSIONS = Object.keys(KNOWN) as CiliumVersion[];

/** Throws for an unknown $VPN_TEST_CILIUM. */
export function completed(options: CiliumOptions | false, env: NodeJS.ProcessEnv = process.env): Cilium | undefined {
  if (options === false) return undefined;
  const version = options.version ?? ((env.VPN_TEST_CILIUM || '1.18') as CiliumVersion);
  const known = KNOWN[version];
  if (known === undefined)
    throw new Error(`VPN_TEST_CILIUM is ${version}: the versions here are ${VERSIONS.join(', ')}`);
  return {
    version,
    slices: known.operator,
    replacesKubeProxy: true,
    routing: 'tunnel',
    ...known,
    ...options,
  };
}

const imageOf = ({ version, clang }: Cilium): string =>
  `localhost/constellation-vpn/cilium-${version}-clang${clang}:test`;
/** Of the image: a hash of what it was made of. To compare half a gigabyte takes buildah 20 s. */
const INPUTS = 'inputs';

/**
 * Builds the image where its Containerfile or Cilium's version has changed; at the first time Go builds the programs. Answers
 * its name.
 */
export async function buildCilium(cilium: Cilium, env: ContainerEnv, log: (line: string) => void): Promise<string> {
  const { version, operator, clang } = cilium;
  const source = await findSource(`cilium-agent-${version}`, { log });
  const inputs = createHash('sha256')
    .update(await readFile(CONTAINERFILE))
    .update(source)
    .digest('hex');
  const has = ['image', 'inspect', `--format={{index .Labels "${INPUTS}"}}`, imageOf(cilium)];
  if ((await execa('podman', has, { env, reject: false })).stdout === inputs) return imageOf(cilium);
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-cilium-'));
  try {
    for (const [tool, name] of [
      ['agent', 'cilium-agent'],
      ['cni', 'cilium-cni'],
      ['dbg', 'cilium-dbg'],
      ...(operator ? ([['operator', 'cilium-operator-generic']] as const) : []),
    ] as const) {
      const { path } = await findTool(`cilium-${tool}-${version}`, { log });
      await link(path, join(folder, name)).catch(() => execa('cp', [path, join(folder, name)]));
    }
    return await buildContainerfile('test/cluster/Containerfile.cilium', imageOf(cilium), env, log, [
      `--build-context=cilium=${source}`,
      `--build-context=programs=${folder}`,
      `--build-arg=CLANG=${clang}`,
      `--label=${INPUTS}=${inputs}`,
    ]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** For Helm. Pure. */
export function ciliumValues(cilium: Cilium, { host, port, podCIDRs, dualStack }: CiliumCluster): unknown {
  const image = { override: imageOf(cilium), pullPolicy: 'IfNotPresent', useDigest: false };
  const native = cilium.routing === 'native';
  return {
    image,
    operator: { enabled: cilium.operator, image, replicas: 1 },
    k8sServiceHost: host,
    k8sServicePort: port,
    ipam: { mode: 'kubernetes' },
    k8s: { requireIPv4PodCIDR: true, requireIPv6PodCIDR: dualStack },
    ipv6: { enabled: dualStack },
    routingMode: cilium.routing,
    ...(native
      ? {
          autoDirectNodeRoutes: true,
          ipv4NativeRoutingCIDR: podCIDRs[0],
          ...(dualStack ? { ipv6NativeRoutingCIDR: podCIDRs[1] } : {}),
        }
      : { tunnelProtocol: 'vxlan' }),
    endpointRoutes: { enabled: true },
    kubeProxyReplacement: cilium.replacesKubeProxy ? 'true' : 'false',
    // BPF can masquerade only where it replaces kube-proxy, and ip-masq-agent needs that.
    ...(cilium.replacesKubeProxy
      ? {
          bpf: { masquerade: true },
          ipMasqAgent: { enabled: true, config: { nonMasqueradeCIDRs: ['10.0.0.0/8'], masqLinkLocal: true } },
        }
      : { egressMasqueradeInterfaces: 'eth0' }),
    ciliumEndpointSlice: { enabled: cilium.slices },
    devices: 'eth0',
    // As systemd does it, the node has mounted these.
    cgroup: { autoMount: { enabled: false }, hostRoot: '/run/cilium/cgroupv2' },
    // The machine's settings of rp_filter are left alone.
    sysctlfix: { enabled: false },
    // A test machine may lack a capability that the chart names, CAP_SYS_RESOURCE.
    securityContext: { privileged: true },
    l7Proxy: false,
    envoy: { enabled: false },
    hubble: { enabled: false },
    healthChecking: false,
    endpointHealthChecking: { enabled: false },
  };
}

/** The CustomResourceDefinitions, where no operator makes them: YAML documents, or nothing. */
export async function ciliumKinds(cilium: Cilium | undefined, log: (line: string) => void): Promise<string> {
  if (cilium === undefined || cilium.operator) return '';
  const folder = join(
    await findSource(`cilium-agent-${cilium.version}`, { log }),
    'pkg/k8s/apis/cilium.io/client/crds',
  );
  const texts: string[] = [];
  for await (const file of glob('*/*.yaml', { cwd: folder })) texts.push(await readFile(join(folder, file), 'utf8'));
  return texts.join('\n---\n');
}

/** Resolves when the objects are there. Cilium's pods wait for nodes then. Without Cilium it does nothing. */
export async function installCilium(
  cilium: Cilium | undefined,
  cluster: CiliumCluster,
  { folder, kubeconfig, log }: { folder: string; kubeconfig: string; log: (line: string) => void },
): Promise<void> {
  if (cilium === undefined) return;
  log(`Cilium ${cilium.version}: installing its chart`);
  const chart = join(await findSource(`cilium-agent-${cilium.version}`, { log }), 'install/kubernetes/cilium');
  const values = join(folder, 'cilium-values.json');
  await writeFile(values, JSON.stringify(ciliumValues(cilium, cluster), undefined, 2));
  const home = join(folder, 'helm');
  await mkdir(home, { recursive: true });
  const helm = (await findTool('helm', { log })).path;
  const args = ['install', 'cilium', chart, '--namespace=kube-system', `--values=${values}`];
  const env = { KUBECONFIG: kubeconfig, HELM_CACHE_HOME: home, HELM_CONFIG_HOME: home, HELM_DATA_HOME: home };
  await execa(helm, args, { env, timeout: 120_000 });
}

/** A node is ready as soon as the agent has written its CNI configuration; the agent itself is a little later. */
export async function ciliumRolledOut(
  cilium: Cilium | undefined,
  kubectl: (args: readonly string[]) => Promise<string>,
): Promise<void> {
  if (cilium === undefined) return;
  for (const object of ['daemonset/cilium', ...(cilium.operator ? ['deployment/cilium-operator'] : [])])
    await kubectl(['-n', 'kube-system', 'rollout', 'status', object, '--timeout=120s']);
}
