/** Reads the node: devices, addresses, the routes to the frontends' pods, the main table. */
import type { Cidr, Family } from '../../../functions/model/cidr.ts';
import type { Frontend } from '../frontends.ts';
import type { NodeState, PodRoute } from '../routes/desired.ts';
import type { Seen } from '../routes/plan.ts';
import { ask } from './ip.ts';
import { readRoutes, type SeenRoute } from './route.ts';

const FAMILIES: readonly Family[] = [4, 6];
/** Cilium's name for it: defaults.HostDevice in pkg/defaults/node.go. */
export const CILIUM_HOST = 'cilium_host';
const SCOPE_GLOBAL = '0';

/** One object of `ip -j -N addr show`. */
interface LinkJson {
  readonly ifname: string;
  readonly mtu: number;
  readonly addr_info?: readonly { readonly family: string; readonly local?: string; readonly scope: string }[];
}
/** One object of `ip -j -N route get`. */
interface RouteGetJson {
  readonly dev?: string;
  readonly gateway?: string;
}

/** The node without what its configuration says. */
export type Links = Omit<NodeState, 'tunnels'>;

/** Of both families: asked for the main table alone, `ip` answers for IPv4. */
const ALL_ROUTES = 'route show table all';

/** Everything. `frontends`: those on this node. */
export async function readNode(frontends: readonly Frontend[]): Promise<{ links: Links; seen: Seen }> {
  const targets = frontends.flatMap(({ pod, addresses }) =>
    FAMILIES.flatMap((family) => {
      const address = addresses[family];
      return address === undefined ? [] : [{ pod, family, address }];
    }),
  );
  const gets = targets.map(({ address }) => `route get ${address}`);
  const [routes, addresses, ...answers] = await ask([ALL_ROUTES, 'addr show', ...gets]);
  const links = (addresses ?? []) as readonly LinkJson[];
  const mtus = new Map(links.map(({ ifname, mtu }) => [ifname, mtu]));
  const routesTo = (name: string) =>
    Object.fromEntries(
      targets.flatMap(({ pod, family }, i) => {
        const [get = {}] = (answers[i] ?? []) as readonly RouteGetJson[];
        return pod === name ? [[family, podRoute(pod, get, mtus)]] : [];
      }),
    );
  return {
    links: {
      ciliumHost: ciliumHostOf(links),
      frontends: frontends.map((one) => ({ ...one, routes: routesTo(one.pod) })),
    },
    seen: { routes: readRoutes(routes ?? []), addresses: links.flatMap(globalAddresses).map(({ local }) => local) },
  };
}

/** The main table of both families. (Asked for one protocol alone, `ip` would leave the protocol out.) */
export async function readMainTable(): Promise<SeenRoute[]> {
  const [routes] = await ask([ALL_ROUTES]);
  return readRoutes(routes ?? []);
}

/** The main table's routes to these ranges and inside them. For each of them `ip` reads the whole table. */
export async function readRanges(cidrs: readonly Cidr[]): Promise<SeenRoute[]> {
  if (cidrs.length === 0) return [];
  const answers = await ask(cidrs.map((cidr) => `${ALL_ROUTES} root ${cidr}`));
  // A range inside another one is in both answers.
  const unique = new Map<string, SeenRoute>();
  for (const answer of answers) for (const route of readRoutes(answer ?? [])) unique.set(JSON.stringify(route), route);
  return [...unique.values()];
}

function podRoute(pod: string, { dev, gateway }: RouteGetJson, mtus: ReadonlyMap<string, number>): PodRoute {
  const mtu = dev === undefined ? undefined : mtus.get(dev);
  if (dev !== undefined && mtu !== undefined && gateway === undefined && dev !== CILIUM_HOST)
    return { direct: { name: dev, mtu } };
  const way = dev === undefined ? 'not at all' : `${gateway === undefined ? '' : `by ${gateway} `}through ${dev}`;
  return {
    indirect: `this node reaches the pod ${pod} ${way}, not through an interface of the pod's own: Cilium has no endpoint route for it; set enable-endpoint-routes to "true" in cilium-config (Helm: endpointRoutes.enabled) and restart Cilium's agents`,
  };
}

interface GlobalAddress {
  readonly family: Family;
  readonly local: string;
}

const globalAddresses = ({ addr_info: all = [] }: LinkJson): GlobalAddress[] =>
  all.flatMap(({ family, local, scope }) =>
    local === undefined || scope !== SCOPE_GLOBAL ? [] : [{ family: family === 'inet6' ? 6 : 4, local }],
  );

function ciliumHostOf(links: readonly LinkJson[]): NodeState['ciliumHost'] {
  const link = links.find(({ ifname }) => ifname === CILIUM_HOST);
  if (link === undefined) return undefined;
  const addresses: Partial<Record<Family, string>> = {};
  for (const { family, local } of globalAddresses(link)) addresses[family] ??= local;
  return { name: CILIUM_HOST, mtu: link.mtu, addresses };
}
