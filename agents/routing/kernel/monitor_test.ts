import test from 'ava';
import type { Cidr } from '../../../functions/model/cidr.ts';
import { isOurs, MONITOR_ARGS, readEvent, type KernelEvent } from './monitor.ts';

test('what is followed', (tt) => {
  tt.is(MONITOR_ARGS.join(' '), '-o -N -d monitor link address route rule');
});

/** Lines as iproute2 6.1 printed them in a network namespace. */
const event = test.macro((tt, line: string, expected: KernelEvent | undefined) => {
  tt.deepEqual(readEvent(line), expected);
  tt.false(isOurs(line));
});
/** Of a route of ours that was added or changed. */
const ours = test.macro((tt, line: string, dst: string) => {
  tt.deepEqual(readEvent(line), route(dst));
  tt.true(isOurs(line));
});
const route = (dst: string): KernelEvent => ({ about: 'route', dst: dst as Cidr });

// ip route add 10.8.0.0/16 via 10.10.0.5 dev lxc1 src 10.10.9.9 mtu 1300 proto 233
test(
  'ours to a pod',
  ours,
  '1 10.8.0.0/16 via 10.10.0.5 dev lxc1 table 254 proto 233 scope 0 src 10.10.9.9 mtu 1300 ',
  '10.8.0.0/16',
);
test(
  'ours to a pod, IPv6',
  ours,
  '1 fd12::/48 via fd00:10::5 dev lxc1 table 254 proto 233 scope 0 src fd00:10::9 metric 1024 mtu 1300 pref medium',
  'fd12::/48',
);
test(
  'ours into the tunnel',
  ours,
  '1 10.9.0.0/16 dev cilium_host table 254 proto 233 scope 253 src 10.10.9.9 mtu 1300 ',
  '10.9.0.0/16',
);
test(
  'ours is deleted',
  event,
  'Deleted 1 10.9.0.0/16 dev cilium_host table 254 proto 233 scope 253 src 10.10.9.9 mtu 1300 ',
  route('10.9.0.0/16'),
);
test(
  'ours is deleted, IPv6',
  event,
  'Deleted 1 fd12::/48 via fd00:10::5 dev lxc1 table 254 proto 233 scope 0 src fd00:10::9 metric 1024 mtu 1300 pref medium',
  route('fd12::/48'),
);
test('unreachable', ours, '7 10.8.0.0/16 table 254 proto 233 scope 0 metric 4294967295 ', '10.8.0.0/16');
test(
  'unreachable, IPv6',
  ours,
  '7 fd12::/48 dev lo table 254 proto 233 scope 0 metric 4294967295 pref medium',
  'fd12::/48',
);
test('one address', ours, '1 192.168.7.7 dev cilium_host table 254 proto 233 scope 253 ', '192.168.7.7/32');
test(
  'one IPv6 address goes with its link',
  event,
  'Deleted 1 fd12:1::7 dev cilium_host table 254 proto 233 scope 0 metric 1024 pref medium',
  route('fd12:1::7/128'),
);
// ip route replace 10.9.0.0/16 dev cilium_host proto 4
test('replaced by somebody', event, '1 10.9.0.0/16 dev cilium_host table 254 proto 4 scope 253 ', route('10.9.0.0/16'));
test(
  'several ways',
  event,
  '1 10.20.0.0/16 table 254 proto 4 scope 0 \\\tnexthop via 10.10.0.7 dev lxc1 weight 2 \\\tnexthop dev cilium_host weight 1 ',
  route('10.20.0.0/16'),
);
test(
  'several ways go, IPv6',
  event,
  'Deleted 1 fd20::/48 table 254 proto 4 scope 0 metric 1024 pref medium\\\tnexthop via fd00:10::7 dev lxc1 weight 2 \\\tnexthop via fd00:10::8 dev lxc1 weight 1 ',
  route('fd20::/48'),
);
test('a blackhole', event, '6 10.40.0.0/16 table 254 proto 3 scope 0 ', route('10.40.0.0/16'));
test('of a routing daemon', event, '8 10.41.0.0/16 table 254 proto 12 scope 0 ', route('10.41.0.0/16'));
test(
  'an encapsulation, which has a source and a destination of its own',
  event,
  '1 10.44.0.0/16  encap ip id 72 src 0.0.0.0 dst 10.10.0.5 ttl 0 tos 0 dev cilium_host table 254 proto 3 scope 253 ',
  route('10.44.0.0/16'),
);
test(
  'a gateway of the other family',
  event,
  '1 10.45.0.0/16 via inet6 fe80::1 dev lxc1 table 254 proto 3 scope 0 ',
  route('10.45.0.0/16'),
);
test(
  'a type of service',
  event,
  '1 10.46.0.0/16 tos 0x10 dev cilium_host table 254 proto 3 scope 253 ',
  route('10.46.0.0/16'),
);
test(
  'a nexthop object',
  event,
  '1 10.47.0.0/16 nhid 5 via 10.10.0.5 dev lxc1 table 254 proto 3 scope 0 ',
  route('10.47.0.0/16'),
);
test('a nexthop object’s second line', event, '\tnh_info id 5 via 10.10.0.5 dev lxc1 scope 253 proto 0 ', {
  about: 'unknown',
});
test(
  'a subnet comes with an address',
  event,
  '1 10.10.0.0/24 dev lxc1 table 254 proto 2 scope 253 src 10.10.0.1 ',
  route('10.10.0.0/24'),
);
test('half of all addresses', event, '1 0.0.0.0/1 dev cilium_host table 254 proto 3 scope 253 ', route('0.0.0.0/1'));
test('no table is the main one', event, '1 10.8.0.0/16 dev lxc1 proto 3 scope 253 ', route('10.8.0.0/16'));
test('no protocol', event, '1 10.8.0.0/16 dev lxc1 table 254 scope 253 ', route('10.8.0.0/16'));
test(
  'the link-local subnet of a link that is down',
  event,
  'Deleted 1 fe80::/64 dev cilium_net table 254 proto 2 scope 0 metric 256 linkdown pref medium',
  route('fe80::/64'),
);

test('default', event, '1 default via 10.10.0.9 dev lxc1 table 254 proto 3 scope 0 ', undefined);
test(
  'default is deleted, IPv6',
  event,
  'Deleted 1 default via fd00:10::99 dev lxc1 table 254 proto 3 scope 0 metric 1024 pref medium',
  undefined,
);
test('default, unreachable', event, '7 default table 254 proto 3 scope 0 metric 4278198272 ', undefined);
test('the local table', event, '2 10.10.0.1 dev lxc1 table 255 proto 2 scope 254 src 10.10.0.1 ', undefined);
test(
  'the local table, deleted',
  event,
  'Deleted 2 fd00:10::1 dev lxc1 table 255 proto 2 scope 0 metric 0 pref medium',
  undefined,
);
test(
  'the local table, multicast',
  event,
  '5 ff00::/8 dev peer1 table 255 proto 2 scope 0 metric 256 pref medium',
  undefined,
);
test('charon’s table', event, '1 10.30.0.0/16 dev cilium_host table 220 proto 3 scope 253 ', undefined);
test(
  'a table of Cilium’s',
  event,
  '1 fd30::/48 dev cilium_host table 2004 proto 3 scope 0 metric 1024 pref medium',
  undefined,
);

const VETH =
  'promiscuity 0  allmulti 0 minmtu 68 maxmtu 65535 \\    veth numtxqueues 2 numrxqueues 2 gso_max_size 65536 gso_max_segs 65535 tso_max_size 524280 tso_max_segs 65535 gro_max_size 65536 ';
const LINK = '\\    link/[1] 12:fa:74:1d:32:9d brd ff:ff:ff:ff:ff:ff';
const LXC1: KernelEvent = { about: 'link', device: 'lxc1' };
test(
  'a link is made',
  event,
  `3: lxc1@peer1: <BROADCAST,MULTICAST,M-DOWN> mtu 1500 qdisc noop state DOWN group 0 ${LINK} ${VETH}`,
  LXC1,
);
test(
  'a link is up',
  event,
  `3: lxc1@peer1: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group 0 ${LINK} ${VETH}`,
  LXC1,
);
test(
  'a link’s other end is down',
  event,
  `3: lxc1@peer1: <NO-CARRIER,BROADCAST,MULTICAST,UP,M-DOWN> mtu 1400 qdisc noqueue state LOWERLAYERDOWN group 0 ${LINK} ${VETH}`,
  LXC1,
);
test(
  'a link is down',
  event,
  `3: lxc1@peer1: <BROADCAST,MULTICAST> mtu 1400 qdisc noqueue state DOWN group 0 ${LINK} ${VETH}`,
  LXC1,
);
test(
  'a link is deleted',
  event,
  `Deleted 3: lxc1@NONE: <BROADCAST,MULTICAST> mtu 1400 qdisc noop state DOWN group 0 ${LINK} ${VETH}`,
  LXC1,
);
test(
  'a link with an alias',
  event,
  `3: lxc1@NONE: <BROADCAST,MULTICAST> mtu 1400 qdisc noqueue state DOWN group 0 ${LINK} ${VETH}\\    alias foo bar`,
  LXC1,
);
test(
  'a link that has no other end',
  event,
  `1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group 0 \\    link/[772] 00:00:00:00:00:00 brd 00:00:00:00:00:00`,
  { about: 'link', device: 'lo' },
);
test(
  'a link whose other end is in another namespace',
  event,
  `17: lxc0a1b2c3d@if16: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group 0 ${LINK} link-netnsid 0 ${VETH}`,
  { about: 'link', device: 'lxc0a1b2c3d' },
);

const address = (text: string): KernelEvent => ({ about: 'address', address: text });
test(
  'an address',
  event,
  '3: lxc1    inet 10.10.0.1/24 scope 0 lxc1\\       valid_lft forever preferred_lft forever',
  address('10.10.0.1'),
);
test(
  'an address goes',
  event,
  'Deleted 5: cilium_host    inet 10.10.9.9/32 scope 0 cilium_host\\       valid_lft forever preferred_lft forever',
  address('10.10.9.9'),
);
test(
  'an IPv6 address',
  event,
  '5: cilium_host    inet6 fd00:10::9/128 scope 0 nodad \\       valid_lft forever preferred_lft forever',
  address('fd00:10::9'),
);
test(
  'an IPv6 address goes',
  event,
  'Deleted 3: lxc1    inet6 fd00:10::1/64 scope 0 nodad \\       valid_lft forever preferred_lft forever',
  address('fd00:10::1'),
);
test(
  'a link-local address',
  event,
  '3: lxc1    inet6 fe80::8cbc:47ff:fecd:bf97/64 scope 253 \\       valid_lft forever preferred_lft forever',
  undefined,
);
test(
  'a link-local address goes',
  event,
  'Deleted 3: lxc1    inet6 fe80::10fa:74ff:fe1d:329d/64 scope 253 tentative \\       valid_lft forever preferred_lft forever',
  undefined,
);

const RULE: KernelEvent = { about: 'rule' };
test('a rule', event, '220:\tfrom all lookup 220 proto 0', RULE);
test('a rule goes', event, 'Deleted 220:\tfrom all lookup 220 proto 0', RULE);
test(
  'a rule with conditions',
  event,
  '100:\tfrom all to 10.8.0.0/16 fwmark 0x200/0xf00 iif lxc1 lookup 254 proto 0',
  RULE,
);

const UNKNOWN: KernelEvent = { about: 'unknown' };
test('a rule that is turned round', event, '99:\tnot from 10.0.0.0/8 to 10.8.0.0/16 lookup 220 proto 0', UNKNOWN);
test('nothing', event, '', UNKNOWN);
test('a word', event, 'Error', UNKNOWN);
test('a destination that is none', event, '1 somewhere dev lxc1 table 254 proto 3 scope 253 ', UNKNOWN);
test('a prefix that is none', event, '1 somewhere/16 dev lxc1 table 254 proto 3 scope 253 ', UNKNOWN);
