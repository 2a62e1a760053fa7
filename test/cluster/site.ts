/**
 * The on-prem site of the test cluster, outside of it: its VPN gateway behind a NAT router, and a host with an address in
 * each of three ranges. Needs root and, of Debian's packages, iproute2, nftables, tcpdump, charon-systemd,
 * strongswan-swanctl and libcharon-extra-plugins.
 *
 *   nodes 10.77.0.11, .12, …
 *     | br0 10.77.0.1
 *   wire            the cloud's router, and its NAT: 198.51.100.1
 *     | site 198.51.100.1
 *     | wan  198.51.100.7
 *   nat             the site's router; UDP 500 and 4500 lead to the gateway
 *     | lan  192.168.1.1
 *     | eth0 192.168.1.2
 *   gateway         strongSwan, ESP in user space
 *     | lan  172.31.50.1, 172.31.51.1, 172.31.52.1
 *     | eth0 172.31.50.9, 172.31.51.9, 172.31.52.9
 *   onprem
 *
 * In IPv6: fd00:10:77::1 at br0, 2001:db8:51::1 and ::7 between wire and nat, fd00:192:168:1::1 and ::2 behind it, and a range
 * fd00:172:31:50::/64 with the host ::9.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ip, type Netns } from '../dataplane/netns.ts';
import { startStrongswan } from '../dataplane/strongswan.ts';
import { capture, type Capture } from '../dataplane/traffic.ts';
import { setUp } from '../dataplane/world.ts';

export type SiteSpaces = Readonly<Record<'wire' | 'nat' | 'gateway' | 'onprem', Netns>>;

export interface GatewayOptions {
  readonly psk: string;
  /** The gateway's own identity. */
  readonly localID: string;
  readonly remoteID: string;
  /** Address that it dials, for as long as it takes. Where left out, it waits to be dialed. */
  readonly dial?: string;
  /** Of RANGES, the ones that the tunnel is for. */
  readonly ranges: readonly string[];
  /** Of the pods and Services. */
  readonly clusterRanges: readonly string[];
}

export interface Site {
  /** Configures the gateway; nothing of an earlier configuration stays, but its SAs do. It dials at once, where it dials. */
  load(options: GatewayOptions): Promise<void>;
  /** Output of the gateway's swanctl. Throws with its words. */
  swanctl(...args: string[]): Promise<string>;
  /** Ends the gateway's charon. With SIGTERM it tells the cluster, with SIGKILL nobody hears of it. */
  stopCharon(signal: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  /** Another one, with the configuration that was loaded last. */
  startCharon(): Promise<void>;
  /** File with its output, of all of them. */
  readonly log: string;
  /** From now on nobody learns from wire, nat or gateway that a packet was too big, whoever says so. */
  blockIcmp(): Promise<void>;
  /** What passes at the site's public address and is not ESP in UDP or IKE. */
  captureOutside(): Promise<Capture>;
  /** Ends charon. The namespaces are the caller's. */
  stop(): Promise<void>;
}

/** The site's public address. */
export const SITE_ADDRESS = '198.51.100.7';
export const RANGES = ['172.31.50.0/24', '172.31.51.0/24', '172.31.52.0/24'] as const;
/** The host's, one in each range. */
export const HOSTS = ['172.31.50.9', '172.31.51.9', '172.31.52.9'] as const;
/** The same in IPv6. */
export const SITE_ADDRESS_6 = '2001:db8:51::7';
export const RANGE_6 = 'fd00:172:31:50::/64';
export const HOST_6 = 'fd00:172:31:50::9';

/** `wire` has `br0` already. Resolves when charon runs; it knows no connection before load(). */
export async function startSite(spaces: SiteSpaces): Promise<Site> {
  const { wire, nat, gateway } = spaces;
  await build(spaces);
  const start = () => startStrongswan({ netns: gateway, folder: join(gateway.folder, 'site') });
  let charon = await start();
  let conf: string | undefined;
  let dialed: readonly string[] = [];
  const end = new AbortController();
  // A trap would dial at each packet, but kernel-libipsec has none before 5.9.11; and a gateway that was refused once does
  // not dial again by itself.
  const dialMissing = async (): Promise<void> => {
    if (dialed.length === 0) return;
    const sas = await charon.swanctl('--list-sas').catch(() => '');
    for (const child of dialed.filter((name) => !sas.includes(`${name}: `)))
      await charon.swanctl('--initiate', '--child', child, '--timeout', '2').catch(() => undefined);
  };
  const dialing = (async () => {
    while (!end.signal.aborted) {
      await dialMissing();
      await sleep(1000, undefined, { signal: end.signal }).catch(() => undefined);
    }
  })();
  return {
    async load(options) {
      conf = swanctlConf(options);
      dialed = options.dial === undefined ? [] : options.ranges.map((_, index) => dialingChild(index));
      await charon.load(conf);
    },
    swanctl: (...args) => charon.swanctl(...args),
    stopCharon: (signal) => charon.stop(signal),
    async startCharon() {
      charon = await start();
      if (conf !== undefined) await charon.load(conf);
    },
    log: charon.log,
    async blockIcmp() {
      await Promise.all([wire, nat, gateway].map((ns) => ns.exec('nft', BLOCK_ICMP)));
    },
    captureOutside: () => capture(nat, 'wan', OUTSIDE),
    async stop() {
      end.abort();
      await dialing;
      await charon.stop();
    },
  };
}

async function build({ wire, nat, gateway, onprem }: SiteSpaces): Promise<void> {
  await ip(
    `link add site netns ${wire.name} type veth peer name wan netns ${nat.name}`,
    `link add lan netns ${nat.name} type veth peer name eth0 netns ${gateway.name}`,
    `link add lan netns ${gateway.name} type veth peer name eth0 netns ${onprem.name}`,
  );
  await Promise.all([
    setUp(wire, 1, [
      'link set site up',
      'address add 198.51.100.1/24 dev site',
      // No internet has this one. What the cluster sends there in clear is seen at `wan` so.
      `route add 172.31.0.0/16 via ${SITE_ADDRESS}`,
      'address add 2001:db8:51::1/64 dev site nodad',
      `route add ${RANGE_6} via ${SITE_ADDRESS_6}`,
    ]),
    setUp(nat, 1, [
      'link set wan up',
      `address add ${SITE_ADDRESS}/24 dev wan`,
      'link set lan up',
      'address add 192.168.1.1/24 dev lan',
      'route add default via 198.51.100.1',
      `address add ${SITE_ADDRESS_6}/64 dev wan nodad`,
      'address add fd00:192:168:1::1/64 dev lan nodad',
      'route add default via 2001:db8:51::1',
    ]),
    setUp(gateway, 1, [
      'link set eth0 up',
      'address add 192.168.1.2/24 dev eth0',
      'link set lan up',
      // kernel-libipsec needs an address of its own in each range.
      ...RANGES.map((range) => `address add ${range.replace('.0/', '.1/')} dev lan`),
      'route add default via 192.168.1.1',
      'address add fd00:192:168:1::2/64 dev eth0 nodad',
      `address add ${RANGE_6.replace('::/', '::1/')} dev lan nodad`,
      'route add default via fd00:192:168:1::1',
      // What comes from the site goes by charon's routes, table 220, or nowhere: never in clear, as with policies in the kernel.
      'rule add pref 221 iif lan blackhole',
    ]),
    setUp(onprem, 0, [
      'link set eth0 up',
      ...HOSTS.map((host) => `address add ${host}/24 dev eth0`),
      'route add default via 172.31.50.1',
      `address add ${HOST_6}/64 dev eth0 nodad`,
      `route add default via ${RANGE_6.replace('::/64', '::1')}`,
    ]),
  ]);
  // `ip rule` in a batch is one of IPv4.
  await gateway.exec('ip', '-6', 'rule', 'add', 'pref', '221', 'iif', 'lan', 'blackhole');
  await Promise.all([wire.exec('nft', CLOUD_NAT), nat.exec('nft', SITE_NAT)]);
}

/** A cloud's NAT knows the addresses of nodes alone. */
const CLOUD_NAT = `table inet cloud-nat {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "site" ip saddr 10.77.0.0/24 masquerade
    oifname "site" ip6 saddr fd00:10:77::/64 masquerade
  }
}`;

/** Without the filter whoever has a route to 192.168.1.0/24 could go around the NAT. */
const SITE_NAT = `table inet site-nat {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    iifname "wan" meta nfproto ipv4 udp dport { 500, 4500 } dnat ip to 192.168.1.2
    iifname "wan" meta nfproto ipv6 udp dport { 500, 4500 } dnat ip6 to fd00:192:168:1::2
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "wan" masquerade
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    iifname "lan" accept
    ct state established,related accept
    ct status dnat accept
  }
}`;

const BLOCK_ICMP = `table inet block-icmp {
  chain output {
    type filter hook output priority filter;
    icmp type destination-unreachable icmp code frag-needed drop
    icmpv6 type packet-too-big drop
  }
  chain forward {
    type filter hook forward priority filter;
    icmp type destination-unreachable icmp code frag-needed drop
    icmpv6 type packet-too-big drop
  }
}`;

/**
 * As pcap-filter(7). An ICMP error counts as what it answers, the packet that it quotes from byte 8 on: one that is too big,
 * or comes to a port that nobody has just now, is still ESP in UDP.
 */
const OUTSIDE = [
  'not arp',
  // Neighbours and routers looking for each other, and who listens to which group.
  'not (icmp6 and ip6[40] >= 130 and ip6[40] <= 143)',
  'not udp port 500',
  'not udp port 4500',
  'not (icmp[icmptype] == icmp-unreach and icmp[17] == 17 and (icmp[28:2] == 4500 or icmp[30:2] == 4500))',
  'not (icmp[icmptype] == icmp-unreach and icmp[17] == 17 and (icmp[28:2] == 500 or icmp[30:2] == 500))',
].join(' and ');

const dialingChild = (index: number): string => `cluster-${index}`;

/** As docs/frontend.md recommends it; without traps, which kernel-libipsec lacks before 5.9.11. */
function swanctlConf({ psk, localID, remoteID, dial, ranges, clusterRanges }: GatewayOptions): string {
  const child = (name: string, range: string, lines = ''): string => `      ${name} {
        local_ts = ${range}
        remote_ts = ${clusterRanges.join(',')}
        esp_proposals = aes256gcm16-ecp384
${lines}      }
`;
  // Who waits accepts the cluster's CHILD_SAs, one for each range, by narrowing. Who dials asks for them like this.
  const children =
    dial === undefined
      ? [child('cluster', ranges.join(','))]
      : ranges.map((range, index) => child(dialingChild(index), range, dialingLines(index + 1)));
  return `connections {
  cluster {
    version = 2
    remote_addrs = ${dial ?? '%any'}
    proposals = aes256gcm16-prfsha384-ecp384
    encap = yes
    mobike = no
    dpd_delay = 1s
    unique = replace
    keyingtries = 0
    local {
      auth = psk
      id = ${localID}
    }
    remote {
      auth = psk
      id = ${remoteID}
    }
    children {
${children.join('')}    }
  }
}
secrets {
  ike-cluster {
    secret = 0s${Buffer.from(psk).toString('base64')}
  }
}
`;
}

/**
 * And again, whoever ended it. Where charon 5.9.8 numbers the CHILD_SAs itself, two can have one number after it has dialed
 * again, and then one of them carries nothing.
 */
const dialingLines = (reqid: number): string => `        reqid = ${reqid}
        start_action = start
        dpd_action = start
        close_action = start
`;
