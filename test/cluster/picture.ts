/** What there is in a cluster and on its nodes, to be compared with what there is later. */
import type { AnyCluster } from './cluster.ts';
import type { ClusterNode } from './node.ts';

/** Texts by what they are of: `ConfigMap kube-system/cilium-config`, `n1 ip -4 rule`. */
export type Picture = ReadonlyMap<string, string>;

/** Change all the time; Cilium's operator removes identities minutes after their last pod, and slices have names at random. */
const LEFT_OUT = [
  'events',
  'events.events.k8s.io',
  'leases.coordination.k8s.io',
  'ciliumidentities.cilium.io',
  'ciliumendpointslices.cilium.io',
];

/** `nodes`: those that can be looked at. */
export async function pictureOf(cluster: AnyCluster, nodes: readonly ClusterNode[]): Promise<Picture> {
  const ofNodes = await Promise.all(nodes.map(pictureOfNode));
  return new Map([...(await pictureOfObjects(cluster)), ...ofNodes.flat()]);
}

/** A line for each thing that is only in one of them, or not the same in both. */
export function differences(before: Picture, after: Picture): string[] {
  const names = [...new Set([...before.keys(), ...after.keys()])];
  return names
    .filter((name) => before.get(name) !== after.get(name))
    .map((name) => `${name}: ${before.get(name) ?? 'not there'}\n  → ${after.get(name) ?? 'not there'}`);
}

interface Item {
  kind: string;
  metadata: { name: string; namespace?: string; annotations?: Record<string, string>; [field: string]: unknown };
  [field: string]: unknown;
}

async function pictureOfObjects({ kubectl }: AnyCluster): Promise<[string, string][]> {
  const kinds = (await kubectl(['api-resources', '--verbs=list', '-o', 'name'])).split('\n');
  const wanted = kinds.filter((kind) => kind !== '' && !LEFT_OUT.includes(kind));
  const { items } = JSON.parse(await kubectl(['get', wanted.join(','), '-A', '-o', 'json'])) as { items: Item[] };
  // What a controller makes of another object is left out: pods of a DaemonSet have other names each time.
  return items
    .filter(
      ({ metadata }) =>
        !(metadata.ownerReferences as { controller?: boolean }[] | undefined)?.some((it) => it.controller),
    )
    .map(({ kind, metadata, status, ...rest }) => {
      const { resourceVersion: _version, generation: _generation, managedFields: _fields, ...kept } = metadata;
      const { 'deprecated.daemonset.template.generation': _count, ...annotations } = kept.annotations ?? {};
      const name = [kind, [metadata.namespace, metadata.name].filter((part) => part !== undefined).join('/')].join(' ');
      // What nodes and controllers report is left out, but where the on-prem ranges are.
      const networking = kind === 'CiliumEndpoint' ? (status as { networking?: unknown }).networking : undefined;
      return [name, JSON.stringify({ metadata: { ...kept, annotations }, networking, ...rest })];
    });
}

/** Routes, rules, packet filters (kube-proxy's own table apart), settings of the network, and the folders that the VPN mounts. */
async function pictureOfNode({ name, exec }: ClusterNode): Promise<[string, string][]> {
  const commands = [
    'ip -4 route show table all',
    'ip -6 route show table all',
    'ip -4 rule',
    'ip -6 rule',
    'ip -brief link',
    'nft list tables',
    'sysctl -a --pattern ^net\\.ipv[46]\\.(conf|ip_forward|ping_group)',
    'find /run/cilium /var/lib/cni /run/netns -maxdepth 1 -type d',
  ];
  return Promise.all(
    commands.map(async (line) => {
      const [command = '', ...args] = line.split(' ');
      return [`${name} ${line}`, sorted(await exec(command, ...args))] as [string, string];
    }),
  );
}

const sorted = (text: string): string => text.split('\n').toSorted().join('\n');
