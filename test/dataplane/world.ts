/**
 * Two nodes of a cluster with Cilium, the frontend's pod and two more, and a site with its VPN gateway, each in a network
 * namespace, for tests of what programs routes. From nothing in 0.2 s. Needs root, iproute2, nftables and util-linux.
 *
 * There is no Cilium: routes and interfaces look as it leaves them, and nothing else of it is there. So packets between pods
 * and nodes go by the kernel's routes alone, which is also what those of the VPN do where Cilium runs with endpoint routes.
 *
 *   client            neighbour   frontend - - - - - - - ipsec0/tun0 - - - - - - - +
 *   10.10.1.7         10.10.0.6   10.10.0.5                                        |
 *      | lxcclient        |           | lxcfrontend                                |
 *    nodeB ------------- nodeA -------+                                            |
 *   cilium_host   tunnel   cilium_host = cilium_net                                |
 *   10.10.1.1              10.10.0.1                                               |
 *      | uplink 192.0.2.11    | uplink 192.0.2.10                                  |
 *      +-------- wire --------+                                                    |
 *      br0 192.0.2.1 | gateway 198.51.100.1                                        |
 *                    +----------- eth0 198.51.100.7   gateway   lan 192.168.50.1 --+-- onprem eth0 192.168.50.9
 *
 * In IPv6: fd00:10::/64 is nodeA's (1, 5, 6), fd00:10:0:1::/64 nodeB's (1, 7), 2001:db8:2::/64 the uplinks' (1, 10, 11),
 * fd12:3456::/64 the site's (1, 9); between wire and gateway there is none.
 */
import { randomBytes } from 'node:crypto';
import { createGroup, type Group, ip, type Netns } from './netns.ts';

const ROLES = ['nodeA', 'nodeB', 'frontend', 'client', 'neighbour', 'wire', 'gateway', 'onprem'] as const;
type Role = (typeof ROLES)[number];
type Spaces = Group<Role>['spaces'];

export interface World extends Spaces {
  /** Scratch, removed with the world. */
  readonly folder: string;
  /** Ends every process in the namespaces, whoever started it. Does nothing the second time. */
  remove(): Promise<void>;
}

/** Also removes what killed test processes have left behind. Where it throws, nothing is left. */
export async function createWorld(): Promise<World> {
  const group = await createGroup(ROLES);
  try {
    await build(group.spaces);
  } catch (error) {
    await group.remove();
    throw error;
  }
  return { ...group.spaces, folder: group.folder, remove: () => group.remove() };
}

/** One that hands packets on, as nodes and routers do. */
export const FORWARDING = { 'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1 };

/** A pod's interface as Cilium makes it. */
interface Pod {
  readonly pod: Netns;
  readonly node: Netns;
  /** At the node. */
  readonly device: string;
  readonly addresses: readonly [ipv4: string, ipv6: string];
  /** cilium_host's of the node. */
  readonly router: string;
}

const frontendPod = ({ frontend, nodeA }: Spaces, device: string): Pod => ({
  pod: frontend,
  node: nodeA,
  device,
  addresses: ['10.10.0.5', 'fd00:10::5'],
  router: '10.10.0.1',
});

async function build(spaces: Spaces): Promise<void> {
  const { nodeA, nodeB, frontend, client, neighbour, wire, gateway, onprem } = spaces;
  const pods = {
    frontend: podLines(frontendPod(spaces, 'lxcfrontend')),
    neighbour: podLines({
      pod: neighbour,
      node: nodeA,
      device: 'lxcneighbour',
      addresses: ['10.10.0.6', 'fd00:10::6'],
      router: '10.10.0.1',
    }),
    client: podLines({
      pod: client,
      node: nodeB,
      device: 'lxcclient',
      addresses: ['10.10.1.7', 'fd00:10:0:1::7'],
      router: '10.10.1.1',
    }),
  };
  await ip(
    pods.frontend.link,
    pods.neighbour.link,
    pods.client.link,
    `link add cilium_host netns ${nodeA.name} type veth peer name cilium_net netns ${nodeA.name}`,
    pointToPoint([nodeB, 'cilium_host'], [nodeA, 'tunnel']),
    `link add uplink netns ${nodeA.name} type veth peer name nodea netns ${wire.name}`,
    `link add uplink netns ${nodeB.name} type veth peer name nodeb netns ${wire.name}`,
    `link add eth0 netns ${gateway.name} type veth peer name gateway netns ${wire.name}`,
    `link add eth0 netns ${onprem.name} type veth peer name lan netns ${gateway.name}`,
  );
  await Promise.all([
    setUp(nodeA, 1, [
      // Cilium turns ARP off here, too.
      'link set cilium_net arp off up',
      'link set cilium_host arp off up',
      'address add 10.10.0.1/32 dev cilium_host',
      'address add fd00:10::1/128 dev cilium_host nodad',
      'route add 10.10.0.1 dev cilium_host proto kernel scope link',
      'link set tunnel arp off up',
      'route add 10.10.1.0/24 dev tunnel src 10.10.0.1',
      'route add fd00:10:0:1::/64 dev tunnel src fd00:10::1',
      ...uplink(10),
      ...pods.frontend.atNode,
      ...pods.neighbour.atNode,
    ]),
    setUp(nodeB, 1, [
      'link set cilium_host arp off up',
      'address add 10.10.1.1/32 dev cilium_host',
      'address add fd00:10:0:1::1/128 dev cilium_host nodad',
      'route add 10.10.1.1 dev cilium_host proto kernel scope link',
      'route add 10.10.0.0/24 dev cilium_host src 10.10.1.1',
      'route add fd00:10::/64 dev cilium_host src fd00:10:0:1::1',
      ...uplink(11),
      ...pods.client.atNode,
    ]),
    setUp(frontend, 0, pods.frontend.atPod),
    setUp(neighbour, 0, pods.neighbour.atPod),
    setUp(client, 0, pods.client.atPod),
    setUp(wire, 1, [
      'link add br0 type bridge mcast_snooping 0',
      'link set nodea master br0 up',
      'link set nodeb master br0 up',
      'link set br0 up',
      'address add 192.0.2.1/24 dev br0',
      'address add 2001:db8:2::1/64 dev br0 nodad',
      'link set gateway up',
      'address add 198.51.100.1/24 dev gateway',
    ]),
    setUp(gateway, 1, [
      'link set eth0 up',
      'address add 198.51.100.7/24 dev eth0',
      'link set lan up',
      'address add 192.168.50.1/24 dev lan',
      'address add fd12:3456::1/64 dev lan nodad',
      'route add default via 198.51.100.1',
    ]),
    setUp(onprem, 0, [
      'link set eth0 up',
      'address add 192.168.50.9/24 dev eth0',
      'address add fd12:3456::9/64 dev eth0 nodad',
      'route add default via 192.168.50.1',
      'route add default via fd12:3456::1',
    ]),
    masquerade(nodeA),
  ]);
}

/** Settings and `ip` commands in one process each. */
export async function setUp(ns: Netns, forwarding: 0 | 1, lines: readonly string[]): Promise<void> {
  // A new namespace has the machine's own settings of IPv4, forwarding among them, and the kernel's defaults of IPv6. Without
  // accept_dad an address of IPv6 can be used at once instead of after 1 to 2 s.
  const settings = `cd /proc/sys/net
    echo ${forwarding} > ipv4/ip_forward
    echo ${forwarding} > ipv6/conf/all/forwarding
    for file in ipv4/conf/*/rp_filter ipv6/conf/*/accept_dad; do echo 0 > $file; done`;
  await ns.exec('sh', '-euc', settings);
  await ns.ip('link set lo up', ...lines);
}

/**
 * A pair of interfaces that hands everything over, whatever its address, as a tunnel does: neither end asks for the other's
 * MAC address, since to an interface without ARP (`arp off`, to be set before it is up) everybody has its own one.
 */
function pointToPoint([a, deviceA]: [Netns, string], [b, deviceB]: [Netns, string], mtu = 1500): string {
  const mac = '02:00:00:00:00:01';
  return (
    `link add ${deviceA} netns ${a.name} address ${mac} mtu ${mtu} ` +
    `type veth peer name ${deviceB} netns ${b.name} address ${mac} mtu ${mtu}`
  );
}

const uplink = (host: number) => [
  'link set uplink up',
  `address add 192.0.2.${host}/24 dev uplink`,
  `address add 2001:db8:2::${host}/64 dev uplink nodad`,
  'route add default via 192.0.2.1',
  'route add default via 2001:db8:2::1',
];

/** `ip` commands; `link` is for the machine's own namespace. */
function podLines({ pod, node, device, addresses: [ipv4, ipv6], router }: Pod) {
  // Another one each time, as with Cilium.
  const mac = ['02', ...[...randomBytes(5)].map((byte) => byte.toString(16).padStart(2, '0'))];
  const [, b, c, d, e, f] = mac;
  const linkLocal = `fe80::${b}:${c}ff:fe${d}:${e}${f}`;
  return {
    link: `link add ${device} netns ${node.name} address ${mac.join(':')} type veth peer name eth0 netns ${pod.name}`,
    atNode: [
      `link set ${device} up`,
      `route add ${ipv4} dev ${device} proto kernel scope link`,
      `route add ${ipv6} dev ${device} proto kernel metric 1024`,
    ],
    atPod: [
      'link set eth0 up',
      `address add ${ipv4}/32 dev eth0`,
      `address add ${ipv6}/128 dev eth0 nodad`,
      `route add ${router} dev eth0 scope link`,
      `route add default via ${router} dev eth0`,
      `route add default via ${linkLocal} dev eth0`,
    ],
  };
}

/** What the frontend sends to the gateway comes from the node's address, 192.0.2.10, as with Cilium's masquerading. */
async function masquerade(nodeA: Netns): Promise<void> {
  await nft(
    nodeA,
    `table ip pods {
      chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr 10.10.0.5 oifname "uplink" masquerade
      }
    }`,
  );
}

async function nft(ns: Netns, rules: string): Promise<void> {
  await ns.exec('nft', rules);
}

/**
 * nodeA as Cilium leaves it without endpoint routes: one route for all of its pods. Here, without Cilium's programs at
 * cilium_host, they can't be reached any more.
 */
export async function removeEndpointRoutes({ nodeA }: World): Promise<void> {
  const hosts = ['10.10.0.5', '10.10.0.6', 'fd00:10::5', 'fd00:10::6'];
  await nodeA.ip(
    ...hosts.map((host) => `route delete ${host}`),
    'route add 10.10.0.0/24 via 10.10.0.1 dev cilium_host proto kernel src 10.10.0.1',
    'route add fd00:10::/64 dev cilium_host proto kernel src fd00:10::1 metric 1024',
  );
}

/**
 * Deletes the frontend's interface, and with it all routes by it on both sides, and makes another with the same addresses
 * and endpoint routes: what is seen when a pod's sandbox is made anew. Settings (forwarding) and `ipsec0` stay.
 */
export async function recreateInterface(world: World, device = 'lxcfrontend2'): Promise<void> {
  const { link, atNode, atPod } = podLines(frontendPod(world, device));
  await world.frontend.ip('link delete eth0');
  await ip(link);
  await Promise.all([world.nodeA.ip(...atNode), world.frontend.ip(...atPod)]);
}

/**
 * In place of the VPN: an interface `ipsec0` at the frontend whose other end is `tun0` at the gateway, and the routes that
 * charon would make. `mtu` in bytes for both ends; below 1280 an interface has no IPv6.
 */
export async function connectPlainTunnel({ frontend, gateway }: World, { mtu = 1500 } = {}): Promise<void> {
  await ip(pointToPoint([frontend, 'ipsec0'], [gateway, 'tun0'], mtu));
  await Promise.all([
    frontend.ip(
      'link set ipsec0 arp off up',
      'route add 192.168.50.0/24 dev ipsec0 table 220',
      'route add fd12:3456::/48 dev ipsec0 table 220',
    ),
    // `ip -batch` makes rules of IPv4 only.
    ...['-4', '-6'].map((family) => frontend.exec('ip', family, 'rule', 'add', 'pref', '220', 'lookup', '220')),
    gateway.ip('link set tun0 arp off up', 'route add 10.10.0.0/16 dev tun0', 'route add fd00:10::/56 dev tun0'),
  ]);
}

/** From now on nobody learns that a packet was too big. What a sender has learnt before it keeps, for 10 minutes. */
export async function blockIcmp({ frontend, nodeA, gateway }: World): Promise<void> {
  const rules = `
    icmp type destination-unreachable icmp code frag-needed drop
    icmpv6 type packet-too-big drop`;
  const table = `table inet block-icmp {
    chain output { type filter hook output priority filter; ${rules}
    }
    chain forward { type filter hook forward priority filter; ${rules}
    }
  }`;
  await Promise.all([frontend, nodeA, gateway].map((ns) => nft(ns, table)));
}
