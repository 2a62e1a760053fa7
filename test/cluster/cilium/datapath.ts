/** The node's devices, rules, routes and packet filter, kept as the cluster's objects and CNI's routes want them. */
import type { Log } from '../../../agents/lib/log.ts';
import type { CiliumAPI } from '../../fakes/cilium-api.ts';
import { change, nft, readLinks, readRoutes, readSet, run } from './kernel.ts';
import {
  endpointId,
  HOST_DEVICE,
  hostRoutes,
  internalAddresses,
  localEndpoints,
  type LocalEndpoint,
  type Node,
  overlayDevice,
  overlayRoutes,
  planEndpointRoutes,
  planRoutes,
  podRoutes,
  routerOf,
  routesIn,
  seenHostRoutes,
} from './plan.ts';
import { POD_MARK, rulesetText, setsText } from './ruleset.ts';

/** Of the node, for packets from pods; also its rule's priority. */
const POD_TABLE = '2005';
/** To an interface without ARP everybody has its own address, so both ends have the same one. */
const MAC = '02:00:00:00:00:01';
/** Below any other route of its table. */
const LAST = 4_294_967_295;

const SETTINGS = `cd /proc/sys/net/ipv4
  echo 1 > ip_forward
  for file in conf/*/rp_filter; do echo 0 > $file; done`;

export interface Settings {
  readonly node: string;
  readonly nodeAddress: string;
  readonly podCidr: string;
  /** Path of the network namespace that all nodes share. */
  readonly overlay: string;
  /** The Services' range, where Cilium would not translate it for foreign sources: facts of cilium-config, read at the start. */
  readonly closedServices: string | undefined;
}

interface Deps {
  readonly log: Log;
  /** Its endpoints are kept here, its ipcache is read. */
  readonly api: CiliumAPI;
  /** Undefined while they are not known yet. */
  readonly nodes: () => readonly Node[] | undefined;
  /** Whether the ipcache holds all CiliumEndpoints. */
  readonly complete: () => boolean;
  /** Undefined while they are not known yet: those of an earlier instance hold until then. */
  readonly policies: () => string | undefined;
}

export class Datapath {
  readonly #settings: Settings;
  readonly #deps: Deps;
  readonly #overlayTable: string;
  /** What the sets were filled with. */
  #sets = '';
  /** The table that was written last. */
  #policies: string | undefined;
  /** All nodes' addresses, from an earlier instance until the API server has answered. */
  #nodes: readonly string[] = [];
  #local: readonly LocalEndpoint[] = [];

  constructor(settings: Settings, deps: Deps) {
    this.#settings = settings;
    this.#deps = deps;
    this.#overlayTable = String(100 + Number(settings.podCidr.split('.')[2]));
  }

  /** The pods of this node, as of the last look. */
  get local(): readonly LocalEndpoint[] {
    return this.#local;
  }

  /** Takes over what is there; what is there stays in use meanwhile. */
  async setUp(): Promise<void> {
    await this.#makeDevices();
    const { node, podCidr, overlay } = this.#settings;
    const [device, router] = [overlayDevice(node), routerOf(podCidr)];
    await change(
      [
        `link set ${device} arp off up`,
        `rule add pref ${this.#overlayTable} iif ${device} lookup ${this.#overlayTable}`,
        `route replace unreachable default metric ${LAST} table ${this.#overlayTable}`,
      ],
      overlay,
    );
    await change([
      `link set ${HOST_DEVICE} arp off up`,
      `address replace ${router}/32 dev ${HOST_DEVICE}`,
      `route replace ${router} dev ${HOST_DEVICE} proto kernel scope link`,
      `rule add pref ${POD_TABLE} fwmark ${POD_MARK}/${POD_MARK} lookup ${POD_TABLE}`,
    ]);
    for (const place of [undefined, overlay]) await run(['sh', '-euc', SETTINGS], place);
    this.#nodes = await readSet('nodes');
    this.#follow(await this.#readLocal());
    await nft(rulesetText(this.#currentSets(), { podCIDR: podCidr, closedServices: this.#settings.closedServices }));
    this.#sets = setsText(this.#currentSets());
  }

  async #makeDevices(): Promise<void> {
    const { node, overlay } = this.#settings;
    const peer = overlayDevice(node);
    const [here, there] = [(await readLinks()).includes(HOST_DEVICE), (await readLinks(overlay)).includes(peer)];
    if (here && there) return;
    if (here) await change([`link delete ${HOST_DEVICE}`]);
    if (there) await change([`link delete ${peer}`], overlay);
    const end = `address ${MAC} mtu 1500`;
    await change([`link add ${HOST_DEVICE} ${end} type veth peer name ${peer} netns ${overlay} ${end}`]);
    this.#deps.log.info({ device: HOST_DEVICE, peer }, 'devices made');
  }

  /** From CNI's routes to the API's endpoints and the sets. */
  async syncEndpoints(): Promise<void> {
    this.#follow(await this.#readLocal());
    const sets = setsText(this.#currentSets());
    if (sets === this.#sets) return;
    await nft(sets);
    this.#sets = sets;
  }

  /** From NetworkPolicies to their table. */
  async syncPolicies(): Promise<void> {
    const policies = this.#deps.policies();
    if (policies === undefined || policies === this.#policies) return;
    await nft(policies);
    this.#policies = policies;
    this.#deps.log.info('policies changed');
  }

  /** From the ipcache and the Nodes to the three tables. */
  async syncRoutes(): Promise<void> {
    const nodes = this.#deps.nodes();
    if (nodes === undefined) return;
    this.#nodes = nodes.flatMap(internalAddresses);
    const { node, podCidr, overlay } = this.#settings;
    const { ipcache } = this.#deps.api;
    const [seen, seenThere] = await Promise.all([readRoutes('all'), readRoutes('all', overlay)]);
    const lines = planRoutes(seenHostRoutes(seen), hostRoutes(nodes, node, routerOf(podCidr)), 'main');
    const linesThere: string[] = [];
    if (this.#deps.complete()) {
      lines.push(...planRoutes(routesIn(POD_TABLE, seen), podRoutes(ipcache), POD_TABLE));
      const table = this.#overlayTable;
      linesThere.push(...planRoutes(routesIn(table, seenThere), overlayRoutes(ipcache, nodes, node), table));
    }
    if (lines.length + linesThere.length > 0)
      this.#deps.log.info({ node: lines.length, overlay: linesThere.length }, 'routes changed');
    await Promise.all([change(lines), change(linesThere, overlay)]);
  }

  /** An endpoint is its interface: it stays where somebody takes the route away. */
  async #readLocal(): Promise<LocalEndpoint[]> {
    const routed = localEndpoints(await readRoutes('main'), this.#settings.podCidr);
    await change(planEndpointRoutes(routed));
    const unrouted = this.#local.filter((known) => !routed.some((it) => it.interfaceName === known.interfaceName));
    if (unrouted.length === 0) return routed;
    const links = await readLinks();
    return [...routed, ...unrouted.filter(({ interfaceName }) => links.includes(interfaceName))];
  }

  /** An address that comes again at another interface is another pod's, with options of its own. */
  #follow(local: readonly LocalEndpoint[]): void {
    const { api, log } = this.#deps;
    this.#local = local;
    const known = new Map([...api.endpoints.values()].map((endpoint) => [endpoint.id, endpoint]));
    const wanted = new Map(local.map((endpoint) => [endpointId(endpoint.address), endpoint]));
    for (const [id, { ipv4, interfaceName }] of known) {
      if (wanted.get(id)?.interfaceName === interfaceName) continue;
      api.endpoints.delete(id);
      log.info({ id, address: ipv4, interfaceName }, 'endpoint gone');
    }
    for (const [id, { address, interfaceName }] of wanted) {
      if (api.endpoints.has(id)) continue;
      api.add({ id, interfaceName, ipv4: address });
      log.info({ id, address, interfaceName }, 'endpoint found');
    }
  }

  #currentSets() {
    const unchecked = [...this.#deps.api.endpoints.values()]
      .filter(({ options }) => options.SourceIPVerification === 'Disabled')
      .map(({ interfaceName }) => interfaceName);
    return { endpoints: this.#local, unchecked, nodes: this.#nodes };
  }
}
