/**
 * What NetworkPolicies leave of the traffic of this node's pods. As Cilium has it, a peer is whoever has an identity, so what a
 * rule allows are the ipcache's prefixes of the endpoints that it selects. Nothing here acts.
 */
import type { KubeObject } from '../../../agents/lib/kube/client.ts';
import { type Cidr, containsCidr, sortCidrs } from '../../../functions/model/cidr.ts';
import type { IPCacheEntry } from '../../fakes/cilium-api.ts';
import { type CiliumEndpoint, isOnNode, prefixesOf } from './plan.ts';

type Labels = Readonly<Record<string, string>>;

interface Selector {
  readonly matchLabels?: Labels;
  readonly matchExpressions?: readonly Expression[];
}

interface Expression {
  readonly key: string;
  readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist';
  readonly values?: readonly string[];
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

const EVERYBODY = '0.0.0.0/0' as Cidr;

export function verdicts(world: World, direction: Direction): Verdicts {
  const allowed = new Map<Cidr, Cidr[]>();
  const own = world.endpoints.filter((endpoint) => isOnNode(endpoint, world.nodeAddress));
  for (const policy of world.policies.filter((each) => typesOf(each).includes(direction))) {
    const peers = peersOf(policy, direction, world);
    const selected = own.filter((endpoint) => inNamespaceOf(policy, endpoint) && isSelected(policy, endpoint));
    for (const prefix of selected.flatMap((endpoint) => widest(prefixesOf(endpoint))))
      allowed.set(prefix, [...(allowed.get(prefix) ?? []), ...peers]);
  }
  const pairs = [...allowed].flatMap(([prefix, peers]) => widest(peers).map((peer) => `${prefix} . ${peer}`));
  return { isolated: [...allowed.keys()].sort(), allowed: pairs.sort() };
}

/** The kernel takes no two that overlap. */
function widest(prefixes: readonly Cidr[]): Cidr[] {
  const all = sortCidrs(prefixes);
  return all.filter((inner) => !all.some((outer) => outer !== inner && containsCidr(outer, inner)));
}

/** Parts of policies that are not understood here; they allow nothing. */
export const unsupported = (policies: readonly NetworkPolicy[]): string[] =>
  policies
    .filter((policy) => /"(ipBlock|ports)":/.test(JSON.stringify(policy.spec ?? {})))
    .map(({ metadata }) => `${metadata.namespace}/${metadata.name}`);

/** As Kubernetes' API has it: where they are not said, whoever has rules for `egress` is about that, too. */
function typesOf({ spec = {} }: NetworkPolicy): Direction[] {
  const types = spec.policyTypes ?? (spec.egress === undefined ? ['Ingress'] : ['Ingress', 'Egress']);
  return types.map((type) => (type === 'Ingress' ? 'in' : 'out'));
}

const inNamespaceOf = ({ metadata }: KubeObject, endpoint: CiliumEndpoint): boolean =>
  endpoint.metadata.namespace === metadata.namespace;

const isSelected = ({ spec }: NetworkPolicy, endpoint: CiliumEndpoint): boolean =>
  matches(labelsOf(endpoint), spec?.podSelector);

/** From its identity: `k8s:app=till`. */
const labelsOf = ({ status }: CiliumEndpoint): Labels =>
  Object.fromEntries((status?.identity?.labels ?? []).map((label) => label.replace(/^k8s:/, '').split('=')));

function matches(labels: Labels = {}, { matchLabels = {}, matchExpressions = [] }: Selector = {}): boolean {
  const equal = Object.entries(matchLabels).every(([name, value]) => labels[name] === value);
  return equal && matchExpressions.every((expression) => holds(labels[expression.key], expression));
}

function holds(value: string | undefined, { operator, values = [] }: Expression): boolean {
  if (operator === 'Exists') return value !== undefined;
  if (operator === 'DoesNotExist') return value === undefined;
  const isIn = value !== undefined && values.includes(value);
  return operator === 'In' ? isIn : !isIn;
}

/** Prefixes. */
function peersOf(policy: NetworkPolicy, direction: Direction, world: World): Cidr[] {
  const rules = (direction === 'in' ? policy.spec?.ingress : policy.spec?.egress) ?? [];
  return rules
    .filter(({ ports }) => ports === undefined)
    .flatMap((rule) => {
      const peers = (direction === 'in' ? rule.from : rule.to) ?? [];
      return peers.length === 0 ? [EVERYBODY] : peers.flatMap((peer) => prefixesOfPeer(peer, policy, world));
    });
}

function prefixesOfPeer(peer: Peer, policy: NetworkPolicy, { namespaces, endpoints, ipcache }: World): Cidr[] {
  const { podSelector, namespaceSelector, ipBlock } = peer;
  if (ipBlock !== undefined) return [];
  const isIn = ({ metadata }: CiliumEndpoint): boolean =>
    namespaceSelector === undefined
      ? metadata.namespace === policy.metadata.namespace
      : namespaces.some(
          (each) => each.metadata.name === metadata.namespace && matches(each.metadata.labels, namespaceSelector),
        );
  const selected = endpoints.filter((endpoint) => isIn(endpoint) && matches(labelsOf(endpoint), podSelector));
  return [...ipcache].flatMap(([prefix, { metadata }]) =>
    selected.some((it) => it.metadata.name === metadata?.name && it.metadata.namespace === metadata.namespace)
      ? [prefix as Cidr]
      : [],
  );
}

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
