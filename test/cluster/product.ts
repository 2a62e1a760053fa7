/** The VPN as its user gets it into a cluster: by the steps of the README, with an overlay of one's own. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { findTool } from '../../scripts/tools.ts';
import { samplesOf } from '../api/agent.ts';
import type { AnyCluster } from './cluster.ts';
import type { VpnImages } from './images.ts';
import { SITE_ADDRESS } from './site.ts';

export const NAMESPACE = 'constellation-vpn';
export const RANGES = ['172.31.50.0/24', '172.31.51.0/24'];

export interface Configuration {
  readonly peerCIDRs: readonly string[];
  /** The gateway's address. Default: SITE_ADDRESS. */
  readonly gateway?: string;
  /** Default: the cluster's. */
  readonly images?: VpnImages;
  /** Folders of kustomize components, seen from the overlay. */
  readonly components?: readonly string[];
}

/** A checkout with an overlay `mine`, in a folder of its own. */
export interface Checkout {
  readonly folder: string;
  configure(cluster: AnyCluster, configuration: Configuration): Promise<void>;
  /** What `kustomize build` prints for a folder of it. Without the functions where `flags` are left out. */
  build(folder: string, flags?: readonly string[]): Promise<string>;
  remove(): Promise<void>;
}

const ROOT = join(import.meta.dirname, '../..');
/** README.md: "Both flags matter". */
export const FLAGS = ['--enable-alpha-plugins', '--enable-exec'];
/** The overlay that is copied: one with tunnel routing and a load balancer. */
const COPIED = 'azure';

export async function makeCheckout(): Promise<Checkout> {
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-checkout-'));
  const kustomize = (await findTool('kustomize')).path;
  for (const each of ['base', 'functions/config', 'functions/dist', 'examples', `overlays/${COPIED}`])
    await cp(join(ROOT, each), join(folder, each), { recursive: true });
  await cp(join(folder, 'overlays', COPIED), join(folder, 'overlays/mine'), { recursive: true });
  return {
    folder,
    async configure(cluster, { peerCIDRs, gateway = SITE_ADDRESS, images = cluster.images, components = [] }) {
      await writeFile(
        join(folder, 'overlays/mine/functions/vpn.yaml'),
        await functionConfig(cluster, peerCIDRs, gateway),
      );
      const write = (name: string, object: unknown) =>
        writeFile(join(folder, name, 'kustomization.yaml'), JSON.stringify(object, undefined, 2));
      const kustomization = {
        apiVersion: 'kustomize.config.k8s.io/v1beta1',
        kind: 'Kustomization',
        images: named(images),
      };
      const resources = ['../../base'];
      await write('overlays/mine', { ...kustomization, resources, components, transformers: ['functions'] });
      await write('examples/uninstall', { ...kustomization, resources: ['job.yaml', 'routing.yaml'] });
    },
    build: async (target, flags = FLAGS) => (await execa(kustomize, ['build', ...flags, join(folder, target)])).stdout,
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}

async function functionConfig(
  { podCIDRs, serviceCIDRs, peer }: AnyCluster,
  peerCIDRs: readonly string[],
  gateway: string,
): Promise<string> {
  // A gateway that can't be dialed dials us, at an address that is known once the Service has it.
  const waits = (await peer.dial()) !== undefined;
  const config = {
    apiVersion: 'constellation-vpn.io/v1alpha1',
    kind: 'ConstellationVPN',
    metadata: {
      name: 'vpn',
      annotations: {
        'config.kubernetes.io/function': 'exec:\n  path: ../../functions/dist/constellation-vpn\n',
      },
    },
    spec: {
      podCIDR: podCIDRs,
      serviceCIDR: serviceCIDRs,
      mtu: 1300,
      peerCIDRs,
      ...(waits ? {} : { publicAddress: peer.id }),
      ipsec: {
        peer: gateway,
        pskSecretRef: { name: 'vpn-psk', key: 'psk' },
        ...(waits ? { startAction: 'none' } : {}),
      },
    },
  };
  return JSON.stringify(config, undefined, 2);
}

const nameAndTag = (image: string) => {
  const at = image.lastIndexOf(':');
  return { newName: image.slice(0, at), newTag: image.slice(at + 1) };
};

/** For `images:` of a kustomization. */
export const named = ({ agents, strongswan }: VpnImages) => [
  { name: 'constellation-vpn-agents', ...nameAndTag(agents) },
  { name: 'constellation-vpn-strongswan', ...nameAndTag(strongswan) },
];

/** Runs the README's steps 4 and 5. Answers what they printed, and the key that step 4 made. */
export async function install(cluster: Kubectl, checkout: Checkout): Promise<{ said: string; psk: string }> {
  const said = await runAll(cluster, checkout, await commandsOf('README.md', '4. Create the Secret', '6. Tell'));
  const encoded = await cluster.kubectl(['-n', NAMESPACE, 'get', 'secret', 'vpn-psk', '-o', 'jsonpath={.data.psk}']);
  return { said, psk: Buffer.from(encoded, 'base64').toString() };
}

/** Runs the README's step 5. */
export async function apply(cluster: Kubectl, checkout: Checkout): Promise<string> {
  return runAll(cluster, checkout, await commandsOf('README.md', '5. Render and apply', '6. Tell'));
}

/** Runs docs/uninstall.md from its first command to its last. */
export async function uninstall(cluster: Kubectl, checkout: Checkout): Promise<string> {
  return runAll(cluster, checkout, await commandsOf('docs/uninstall.md', '# Removing', undefined));
}

/** Runs the two commands of docs/routing.md that take the change to Cilium back. */
export async function wayBack(cluster: Kubectl, checkout: Checkout): Promise<string> {
  return runAll(cluster, checkout, await commandsOf('docs/routing.md', '**The way back**', '**One node at a time.**'));
}

/** The commands of docs/routing.md, "One node at a time": what comes before the change to Cilium, and what is for each node. */
export async function oneNodeAtATime(): Promise<{ before: string; forNode: (node: string) => string }> {
  const [before = '', restart = ''] = await commandsOf('docs/routing.md', '**One node at a time.**', '## What it must');
  return { before, forNode: (node) => restart.replace('NODE', node) };
}

export interface RoutingPod {
  readonly name: string;
  readonly node: string;
  /** Records of its log with this text. */
  readonly said: (text: string) => Promise<Record<string, unknown>[]>;
  /** A gauge of routing without labels; `name` without its prefix. */
  readonly metric: (name: string) => Promise<number | undefined>;
}

export async function routingPods({ kubectl }: Pick<AnyCluster, 'kubectl'>): Promise<RoutingPod[]> {
  const selector = ['-l', 'app.kubernetes.io/component=routing'];
  const listed = await kubectl(['-n', NAMESPACE, 'get', 'pods', ...selector, '-o', 'json']);
  const { items } = JSON.parse(listed) as { items: { metadata: { name: string }; spec: { nodeName: string } }[] };
  return items.map(({ metadata: { name }, spec: { nodeName: node } }) => ({
    name,
    node,
    said: async (text) => {
      const lines = (await kubectl(['-n', NAMESPACE, 'logs', name])).split('\n').filter((line) => line.includes(text));
      return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    },
    metric: async (metric) => {
      const path = `/api/v1/namespaces/${NAMESPACE}/pods/${name}:9810/proxy/metrics`;
      return samplesOf(await kubectl(['get', '--raw', path]), `constellation_vpn_routing_${metric}`)[''];
    },
  }));
}

type Kubectl = Pick<AnyCluster, 'kubectl' | 'kubectlPath' | 'kubeconfig'>;

/** The lines of a page that are indented as code, between two texts of it, as they stand there. */
async function commandsOf(page: string, from: string, to: string | undefined): Promise<string[]> {
  const text = await readFile(join(ROOT, page), 'utf8');
  const [start, end] = [text.indexOf(from), to === undefined ? text.length : text.indexOf(to)];
  if (start < 0 || end < start) throw new Error(`${page} has no part from "${from}" to "${to}"`);
  const lines = text.slice(start, end).split('\n');
  return lines.filter((line) => /^ {4,7}\S/.test(line)).map((line) => line.trim());
}

/**
 * In the checkout's folder, one after the other, by a shell that stops at what fails. `npm run render` prints what kustomize
 * does (README.md, "the same bytes"; the checkout has no npm packages).
 */
export async function runAll(
  { kubectlPath, kubeconfig }: Kubectl,
  { folder }: Checkout,
  commands: readonly string[],
): Promise<string> {
  const kustomize = (await findTool('kustomize')).path;
  const script = commands
    .map((line) => line.replace(/npm run --silent render -- /, `${kustomize} build ${FLAGS.join(' ')} `))
    .map((line) => line.replaceAll(/\bkubectl /g, `${kubectlPath} `));
  if (script.length === 0) throw new Error('no commands');
  const input = ['set -e', ...script].join('\n');
  // The words are the shell's own, from a file, so that none of the commands reads the others.
  const file = join(folder, 'commands.sh');
  await writeFile(file, input);
  const env = { KUBECONFIG: kubeconfig };
  const { all } = await execa('bash', ['-o', 'pipefail', file], {
    cwd: folder,
    env,
    stdin: 'ignore',
    all: true,
    timeout: 900_000,
  });
  return all;
}
