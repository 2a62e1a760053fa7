/**
 * What NetworkPolicies leave of the traffic of this node's pods. As Cilium has it, a peer is whoever has an identity, so what a
 * rule allows are the ipcache's prefixes of the endpoints that it selects. Nothing here acts.
 */
import type { KubeObject } from '../../../agents/lib/kube/client.ts';
import type { IPCacheEntry } from '../../fakes/cilium-api.ts';
import { type CiliumEndpoint, isOnNode, prefixesOf } from './plan.ts';

interface Selector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly unknown[];
}

interface Peer {
  readonly podSelector?: Selector;
  readonly namespaceSelector?: Selector;
  readonly ipBlock?: unknown;
}

interface Rule {
  readonly from?: readonly Peer[];
  readonly to?: readonly Peer[];
  readonly ports?: readonly unknown[];
}

export interface NetworkPolicy extends KubeObject {
  readonly spec?: {
    readonly podSelector?: Selector;
    readonly policyTypes?: readonly string[];
    readonly ingress?: readonly Rule[];
    readonly egress?: readonly Rule[];
  };
}

export interface World {
  readonly policies: readonly NetworkPolicy[];
  readonly namespaces: readonly KubeObject[];
  /** Of all nodes. */
  readonly endpoints: readonly CiliumEndpoint[];
  readonly ipcache: ReadonlyMap<string, IPCacheEntry>;
  /** Of this node. */
  readonly nodeAddress: string;
}

/** `in` is what comes to a pod, `out` what it sends. */
type Direction = 'in' | 'out';

export interface Verdicts {
  /** Prefixes of pods that policies isolate. */
  readonly isolated: readonly string[];
  /** What of it is allowed all the same: `<the pod's prefix> . <the peer's>`. */
  readonly allowed: readonly string[];
}

const EVERYBODY = '0.0.0.0/0';

export function verdicts(world: World, direction: Direction): Verdicts {
  const isolated = new Set<string>();
  const allowed = new Map<string, Set<string>>();
  const own = world.endpoints.filter((endpoint) => isOnNode(endpoint, world.nodeAddress));
  for (const policy of world.policies.filter((each) => typesOf(each).includes(direction))) {
    const peers = peersOf(policy, direction, world);
    const selected = own.filter((endpoint) => inNamespaceOf(policy, endpoint) && isSelected(policy, endpoint));
    for (const prefix of selected.flatMap(prefixesOf)) {
      isolated.add(prefix);
      allowed.set(prefix, new Set([...(allowed.get(prefix) ?? []), ...peers]));
    }
  }
  // The kernel takes no two that overlap.
  const pairs = [...allowed].flatMap(([prefix, peers]) =>
    (peers.has(EVERYBODY) ? [EVERYBODY] : [...peers]).map((peer) => `${prefix} . ${peer}`),
  );
  return { isolated: [...isolated].sort(), allowed: pairs.sort() };
}

/** Parts of policies that are not understood here; they allow nothing. */
export const unsupported = (policies: readonly NetworkPolicy[]): string[] =>
  policies
    .filter((policy) => /"(ipBlock|ports|matchExpressions)":/.test(JSON.stringify(policy.spec ?? {})))
    .map(({ metadata }) => `${metadata.namespace}/${metadata.name}`);

/** As Kubernetes' API has it: where they are not said, whoever has rules for `egress` is about that, too. */
function typesOf({ spec = {} }: NetworkPolicy): Direction[] {
  const types = spec.policyTypes ?? (spec.egress === undefined ? ['Ingress'] : ['Ingress', 'Egress']);
  return types.map((type) => (type === 'Ingress' ? 'in' : 'out'));
}

const inNamespaceOf = ({ metadata }: KubeObject, endpoint: CiliumEndpoint): boolean =>
  endpoint.metadata.namespace === metadata.namespace;

/** A selector that is not understood selects all, so that they are isolated. */
function isSelected({ spec }: NetworkPolicy, endpoint: CiliumEndpoint): boolean {
  const selector = spec?.podSelector ?? {};
  return selector.matchExpressions !== undefined || hasLabels(endpoint, selector);
}

function hasLabels({ status }: CiliumEndpoint, { matchLabels = {} }: Selector): boolean {
  const labels = status?.identity?.labels ?? [];
  return Object.entries(matchLabels).every(([name, value]) => labels.includes(`k8s:${name}=${value}`));
}

/** Prefixes. */
function peersOf(policy: NetworkPolicy, direction: Direction, world: World): string[] {
  const rules = (direction === 'in' ? policy.spec?.ingress : policy.spec?.egress) ?? [];
  return rules
    .filter(({ ports }) => ports === undefined)
    .flatMap((rule) => {
      const peers = (direction === 'in' ? rule.from : rule.to) ?? [];
      return peers.length === 0 ? [EVERYBODY] : peers.flatMap((peer) => prefixesOfPeer(peer, policy, world));
    });
}

function prefixesOfPeer(peer: Peer, policy: NetworkPolicy, { namespaces, endpoints, ipcache }: World): string[] {
  const { podSelector = {}, namespaceSelector, ipBlock } = peer;
  const expressions = podSelector.matchExpressions ?? namespaceSelector?.matchExpressions;
  if (ipBlock !== undefined || expressions !== undefined) return [];
  const isIn = ({ metadata }: CiliumEndpoint): boolean =>
    namespaceSelector === undefined
      ? metadata.namespace === policy.metadata.namespace
      : namespaces.some(
          (each) => each.metadata.name === metadata.namespace && isNamespaceSelected(each, namespaceSelector),
        );
  const selected = endpoints.filter((endpoint) => isIn(endpoint) && hasLabels(endpoint, podSelector));
  return [...ipcache].flatMap(([prefix, { metadata }]) =>
    selected.some((it) => it.metadata.name === metadata?.name && it.metadata.namespace === metadata.namespace)
      ? [prefix]
      : [],
  );
}

const isNamespaceSelected = ({ metadata }: KubeObject, { matchLabels = {} }: Selector): boolean =>
  Object.entries(matchLabels).every(([name, value]) => metadata.labels?.[name] === value);

const TABLE = 'ip cilium-stand-in-policies';

/** For `nft -f -`: the whole table in place of what there was of it. What goes to or comes from the node itself is not asked. */
export function policiesText(world: World): string {
  const [into, out] = [verdicts(world, 'in'), verdicts(world, 'out')];
  const set = (name: string, type: string, elements: readonly string[]): string =>
    `  set ${name} {
    type ${type}; flags interval;
    ${elements.length === 0 ? '' : `elements = { ${elements.join(', ')} }`}
  }`;
  return `
table ${TABLE}
delete table ${TABLE}
table ${TABLE} {
${set('isolated-in', 'ipv4_addr', into.isolated)}
${set('allowed-in', 'ipv4_addr . ipv4_addr', into.allowed)}
${set('isolated-out', 'ipv4_addr', out.isolated)}
${set('allowed-out', 'ipv4_addr . ipv4_addr', out.allowed)}
  chain policies {
    type filter hook forward priority filter;
    ct state established,related accept
    oifname "veth*" ip daddr @isolated-in ip daddr . ip saddr != @allowed-in drop
    iifname "veth*" ip saddr @isolated-out ip saddr . ip daddr != @allowed-out drop
  }
}
`;
}
