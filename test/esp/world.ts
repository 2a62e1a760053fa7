/**
 * A cluster's node, a client's pod, the frontend's pod and a peer outside, each in a network namespace, for what the kernel's
 * own IPsec does in the frontend's pod. Needs root, iproute2, nftables, util-linux and a kernel with ESP.
 *
 *   client 10.244.2.20 (service 10.96.0.50) --- ncli                            peer 203.0.113.2
 *                                                node 203.0.113.1 npeer ------- on-prem 192.168.50.2
 *   pod 10.244.1.10 --------------------------- npod
 *
 * In IPv6: client fd00:10:244:2::20, pod fd00:10:244:1::10, on-prem fd12:3456::2; between node and peer 2001:db8:113::/64.
 *
 * The node leads what comes for the on-prem ranges to the pod, and what comes from the pod for them on to the peer, whose
 * answers need no tunnel: a packet that the pod lets out in clear is answered. The node counts what passes it.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { NODE_FLAGS } from '../../scripts/build-agents.ts';
import { agentBundle } from '../api/agent.ts';
import { createGroup, ip, type Group, type Netns } from '../dataplane/netns.ts';
import { setUp } from '../dataplane/world.ts';

const ROLES = ['node', 'client', 'pod', 'peer'] as const;
type Spaces = Group<(typeof ROLES)[number]>['spaces'];

export const CLIENT = { 4: '10.244.2.20', 6: 'fd00:10:244:2::20' } as const;
/** An address of the client out of the cluster's service range, which no interface of the frontend's pod has one in. */
export const SERVICE = '10.96.0.50';
export const POD = { 4: '10.244.1.10', 6: 'fd00:10:244:1::10' } as const;
export const PEER = '203.0.113.2';
export const ONPREM = { 4: '192.168.50.2', 6: 'fd12:3456::2' } as const;
export const CLUSTER_CIDRS = ['10.244.0.0/16', '10.96.0.0/12', 'fd00:10:244::/48'];
export const ONPREM_CIDRS = ['192.168.50.0/24', 'fd12:3456::/48'];
/** Bytes. */
const MTU = 1300;
/** Segments that fit: less the headers of IP and TCP. */
export const MSS = { 4: MTU - 40, 6: MTU - 60 } as const;

/** Packets, as the node sees them. */
export interface Seen {
  /** To the on-prem ranges, out of the frontend's pod. */
  clearOut: number;
  /** From the on-prem ranges, in from outside. */
  clearIn: number;
  esp: number;
  /** In UDP. */
  espInUdp: number;
}

export interface World extends Spaces {
  readonly folder: string;
  /** Since the last call of reset(). */
  seen(): Promise<Seen>;
  /** Packets that the pod's rules have dropped since the last call of reset(). */
  dropped(): Promise<number>;
  /** The pod's counters of XFRM that are not 0, by name: { XfrmOutNoStates: 3 }. They only grow. */
  xfrm(): Promise<Record<string, number>>;
  /** Sets the counters to 0; the pod's too. */
  reset(): Promise<void>;
  remove(): Promise<void>;
}

export async function createWorld(): Promise<World> {
  const group = await createGroup(ROLES);
  const { spaces, folder } = group;
  try {
    await build(spaces);
    const bundle = await agentBundle('routing');
    await writeFile(join(folder, 'config.json'), JSON.stringify(CONFIG));
    let droppedBefore = 0;
    const world = {
      ...spaces,
      folder,
      seen: () => seen(spaces.node),
      dropped: async () => (await dropped(spaces.pod)) - droppedBefore,
      xfrm: () => xfrm(spaces.pod),
      async reset() {
        await spaces.node.exec('nft', 'reset', 'counters');
        // nft resets the counters of rules from 1.0.8 on.
        droppedBefore = await dropped(spaces.pod);
      },
      remove: () => group.remove(),
    };
    // As in the pod's init container: kill switch, clamp, forwarding.
    await init(spaces.pod, folder, bundle);
    return world;
  } catch (error) {
    await group.remove();
    throw error;
  }
}

/** As inject-peer-cidrs renders it. */
const CONFIG = {
  apiVersion: 'constellation-vpn.io/v1alpha1',
  kind: 'ConstellationVPN',
  spec: {
    podCIDR: ['10.244.0.0/16', 'fd00:10:244::/48'],
    serviceCIDR: ['10.96.0.0/12'],
    sites: [
      { name: 'berlin', mtu: MTU, peerCIDRs: ONPREM_CIDRS, ipsec: { peer: PEER, pskSecretRef: { name: 'psk' } } },
    ],
  },
};

/** There is no routing agent on the node, so that it gives up at once, with 1, after its own part is done. */
async function init(pod: Netns, folder: string, bundle: string): Promise<void> {
  const options = `--pod-ip ${POD[4]} --host-ip 10.244.1.1 --site berlin --sysctl-folder /proc/sys/net --timeout 0`;
  const args = ['init', '--config', join(folder, 'config.json'), ...options.split(' ')];
  const { stdout, stderr } = await pod.start(process.execPath, [...NODE_FLAGS, bundle, ...args], { timeout: 60_000 });
  if (!/"killSwitch":"nftables","msg":"pod set up"|"msg":"pod set up".*"killSwitch":"nftables"/.test(stdout))
    throw new Error(`routing init did not set the pod up: ${stdout}${stderr}`);
}

async function build({ node, client, pod, peer }: Spaces): Promise<void> {
  const pair = (device: string, other: Netns) =>
    `link add ${device} netns ${node.name} type veth peer name eth0 netns ${other.name}`;
  await ip(pair('npod', pod), pair('ncli', client), pair('npeer', peer));
  const eth0 = (ipv4: string, ipv6: string, router4: string, router6: string) => [
    'link set eth0 up',
    `address add ${ipv4}/24 dev eth0`,
    `address add ${ipv6}/64 dev eth0 nodad`,
    `route add default via ${router4}`,
    `route add default via ${router6}`,
  ];
  await Promise.all([
    setUp(node, 1, [
      ...['npod', 'ncli', 'npeer'].map((device) => `link set ${device} up`),
      'address add 10.244.1.1/24 dev npod',
      'address add fd00:10:244:1::1/64 dev npod nodad',
      'address add 10.244.2.1/24 dev ncli',
      'address add fd00:10:244:2::1/64 dev ncli nodad',
      'address add 203.0.113.1/24 dev npeer',
      'address add 2001:db8:113::1/64 dev npeer nodad',
      `route add 10.96.0.0/12 via ${CLIENT[4]}`,
      `route add 192.168.50.0/24 via ${POD[4]}`,
      `route add fd12:3456::/48 via ${POD[6]}`,
      `route add 192.168.50.0/24 via ${PEER} table ${LEAKS}`,
      `route add fd12:3456::/48 via 2001:db8:113::2 table ${LEAKS}`,
      `route add default via ${POD[4]} table ${SPOOFED}`,
    ]),
    setUp(client, 0, [
      ...eth0(CLIENT[4], CLIENT[6], '10.244.2.1', 'fd00:10:244:2::1'),
      `address add ${SERVICE}/32 dev lo`,
    ]),
    setUp(pod, 0, eth0(POD[4], POD[6], '10.244.1.1', 'fd00:10:244:1::1')),
    setUp(peer, 0, [
      ...eth0(PEER, '2001:db8:113::2', '203.0.113.1', '2001:db8:113::1'),
      `address add ${ONPREM[4]}/32 dev lo`,
      `address add ${ONPREM[6]}/128 dev lo nodad`,
    ]),
  ]);
  // For packets from an address of its own that come back to it: spoofed ones, that is.
  await node.sysctl({ 'net.ipv4.conf.npod.accept_local': 1 });
  for (const family of ['-4', '-6']) await node.exec('ip', family, 'rule', 'add', 'iif', 'npod', 'lookup', LEAKS);
  await node.exec('nft', COUNTERS);
}
const LEAKS = '100';
/** A routing table of the node's that leads to the pod whatever the destination is. */
export const SPOOFED = '101';

/** Messages of IKE in UDP's port 4500 begin with four bytes of 0: RFC 3948, 2.2. */
const COUNTERS = `table inet seen {
  counter clear_out { }
  counter clear_in { }
  counter esp_alone { }
  counter esp_in_udp { }
  chain prerouting {
    type filter hook prerouting priority raw;
    iifname "npod" ip daddr 192.168.50.0/24 counter name clear_out
    iifname "npod" ip6 daddr fd12:3456::/48 counter name clear_out
    iifname "npeer" ip saddr 192.168.50.0/24 counter name clear_in
    iifname "npeer" ip6 saddr fd12:3456::/48 counter name clear_in
    meta l4proto esp counter name esp_alone
    udp dport 4500 @th,64,32 != 0 counter name esp_in_udp
    udp sport 4500 udp dport != 4500 @th,64,32 != 0 counter name esp_in_udp
  }
}`;

/** nft's JSON, as far as we read it. */
interface Listing {
  nftables: {
    counter?: { name: string; packets: number };
    rule?: { expr: { counter?: { packets: number } }[] };
  }[];
}

async function seen(node: Netns): Promise<Seen> {
  const { nftables } = JSON.parse(await node.exec('nft', '-j', 'list', 'counters')) as Listing;
  const packets = (wanted: string) => nftables.find(({ counter }) => counter?.name === wanted)?.counter?.packets ?? NaN;
  return {
    clearOut: packets('clear_out'),
    clearIn: packets('clear_in'),
    esp: packets('esp_alone'),
    espInUdp: packets('esp_in_udp'),
  };
}

async function dropped(pod: Netns): Promise<number> {
  const table = await pod.exec('nft', '-j', 'list', 'table', 'inet', 'constellation_vpn');
  const { nftables } = JSON.parse(table) as Listing;
  const counts = nftables.flatMap(({ rule }) => rule?.expr ?? []).map(({ counter }) => counter?.packets ?? 0);
  return counts.reduce((sum, count) => sum + count, 0);
}

async function xfrm(pod: Netns): Promise<Record<string, number>> {
  const lines = (await pod.exec('cat', '/proc/net/xfrm_stat')).split('\n').map((line) => line.trim().split(/\s+/));
  return Object.fromEntries(
    lines.map(([name = '', count]) => [name, Number(count)]).filter(([, count]) => count !== 0),
  );
}
