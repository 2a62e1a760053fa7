import test from 'ava';
import type { Cidr } from '../../../functions/model/cidr.ts';
import { readAnswer } from './ip.ts';
import {
  hopText,
  metricOf,
  readPrefix,
  readRoutes,
  routeText,
  sameRoute,
  seenAs,
  type Hop,
  type SeenRoute,
  PROTO,
  WORST_METRIC,
} from './route.ts';

const cidr = (text: string): Cidr => text as Cidr;

/** An object of `ip -j -N route show table main` of iproute2 6.1, as it prints it. */
const reads = test.macro((tt, json: string, ...expected: SeenRoute[]) => {
  tt.deepEqual(readRoutes(readAnswer(`[${json}]`)), expected);
});
const NOTHING = { device: undefined, via: undefined, src: undefined, mtu: undefined };
const FOREIGN = { ...NOTHING, type: 'unicast', proto: 4, metric: 0 } as const;
test(
  'ours to a pod',
  reads,
  '{"dst":"10.8.0.0/16","gateway":"10.10.0.5","dev":"lxc1","protocol":"233","prefsrc":"10.10.9.9","flags":[],"metrics":[{"mtu":1300}]}',
  {
    dst: cidr('10.8.0.0/16'),
    type: 'unicast',
    proto: 233,
    metric: 0,
    device: 'lxc1',
    via: '10.10.0.5',
    src: '10.10.9.9',
    mtu: 1300,
  },
);
test(
  'ours to a pod, IPv6',
  reads,
  '{"dst":"fd12::/48","gateway":"fd00:10::5","dev":"lxc1","protocol":"233","prefsrc":"fd00:10::9","metric":1024,"flags":[],"metrics":[{"mtu":1300}],"pref":"medium"}',
  {
    dst: cidr('fd12::/48'),
    type: 'unicast',
    proto: 233,
    metric: 1024,
    device: 'lxc1',
    via: 'fd00:10::5',
    src: 'fd00:10::9',
    mtu: 1300,
  },
);
test(
  'ours into the tunnel',
  reads,
  '{"dst":"10.9.0.0/16","dev":"cilium_host","protocol":"233","scope":"253","prefsrc":"10.10.9.9","flags":[]}',
  { ...FOREIGN, dst: cidr('10.9.0.0/16'), proto: 233, device: 'cilium_host', src: '10.10.9.9' },
);
test('unreachable', reads, '{"type":"7","dst":"10.8.0.0/16","protocol":"233","metric":4294967295,"flags":[]}', {
  ...NOTHING,
  dst: cidr('10.8.0.0/16'),
  type: 'unreachable',
  proto: 233,
  metric: 4_294_967_295,
});
test(
  'unreachable, IPv6: the kernel gives it a device',
  reads,
  '{"type":"7","dst":"fd12::/48","dev":"lo","protocol":"233","metric":4294967295,"flags":[],"pref":"medium"}',
  { ...NOTHING, dst: cidr('fd12::/48'), type: 'unreachable', proto: 233, metric: 4_294_967_295, device: 'lo' },
);
test('one address', reads, '{"dst":"192.168.7.7","dev":"cilium_host","protocol":"233","scope":"253","flags":[]}', {
  ...FOREIGN,
  dst: cidr('192.168.7.7/32'),
  proto: 233,
  device: 'cilium_host',
});
test(
  'one IPv6 address',
  reads,
  '{"dst":"fd12:1::7","dev":"cilium_host","protocol":"233","metric":1024,"flags":[],"pref":"medium"}',
  { ...FOREIGN, dst: cidr('fd12:1::7/128'), proto: 233, metric: 1024, device: 'cilium_host' },
);
test(
  'the kernel’s own',
  reads,
  '{"dst":"10.10.0.0/24","dev":"lxc1","protocol":"2","scope":"253","prefsrc":"10.10.0.1","flags":["linkdown"]}',
  { ...FOREIGN, dst: cidr('10.10.0.0/24'), proto: 2, device: 'lxc1', src: '10.10.0.1' },
);
test(
  'several ways: none of them is read',
  reads,
  '{"dst":"10.20.0.0/16","protocol":"4","flags":[],"nexthops":[{"gateway":"10.10.0.7","dev":"lxc1","weight":2,"flags":[]},{"dev":"cilium_host","weight":1,"flags":[]}]}',
  { ...FOREIGN, dst: cidr('10.20.0.0/16'), proto: 4 },
);
test(
  'a gateway of the other family',
  reads,
  '{"dst":"10.45.0.0/16","via":{"family":"inet6","host":"fe80::1"},"dev":"lxc1","protocol":"4","flags":[]}',
  { ...FOREIGN, dst: cidr('10.45.0.0/16'), device: 'lxc1' },
);
test(
  'a nexthop object',
  reads,
  '{"dst":"10.47.0.0/16","nhid":5,"gateway":"10.10.0.5","dev":"lxc1","protocol":"4","flags":[],"nh_info":{"id":5,"gateway":"10.10.0.5","dev":"lxc1","scope":"253","protocol":"0","flags":[]}}',
  { ...FOREIGN, dst: cidr('10.47.0.0/16'), via: '10.10.0.5', device: 'lxc1' },
);
const other = test.macro((tt, type: string) => {
  const json = `{"type":"${type}","dst":"10.40.0.0/16","protocol":"4","flags":[]}`;
  tt.deepEqual(readRoutes([JSON.parse(json)]), [{ ...FOREIGN, dst: cidr('10.40.0.0/16'), type: 'other' }]);
});
test('blackhole', other, '6');
test('prohibit', other, '8');
test('throw', other, '9');
test('a type that nobody knows', other, '99');
test('default', reads, '{"dst":"default","gateway":"10.10.0.9","dev":"lxc1","protocol":"4","flags":[]}');
test(
  'half of all addresses',
  reads,
  '{"dst":"0.0.0.0/1","dev":"cilium_host","protocol":"4","scope":"253","flags":[]}',
  {
    ...FOREIGN,
    dst: cidr('0.0.0.0/1'),
    device: 'cilium_host',
  },
);
test(
  'made by hand: `ip` leaves the protocol out',
  reads,
  '{"dst":"10.40.0.0/16","dev":"lxc1","scope":"253","flags":[]}',
  {
    ...FOREIGN,
    dst: cidr('10.40.0.0/16'),
    proto: 3,
    device: 'lxc1',
  },
);
// JSON.parse takes the last of two keys, and this is the encapsulation's: a foreign route to another prefix than it is.
test(
  'an encapsulation, which has a destination of its own',
  reads,
  '{"dst":"10.44.0.0/16","encap":"ip","id":72,"src":"0.0.0.0","dst":"10.10.0.5","ttl":0,"tos":0,"dev":"cilium_host","protocol":"4","scope":"253","flags":[]}',
  { ...FOREIGN, dst: cidr('10.44.0.0/16'), device: 'cilium_host' },
);

test('all of them, in their order', (tt) => {
  const objects = ['10.9.0.0/16', 'default', '10.8.0.0/16'].map((dst) => ({ dst, protocol: '2' }));
  tt.deepEqual(
    readRoutes(objects).map(({ dst }) => dst),
    ['10.9.0.0/16', '10.8.0.0/16'].map(cidr),
  );
  tt.deepEqual(readRoutes([]), []);
});

const prefix = test.macro((tt, text: string, expected: string | undefined) => {
  tt.is(readPrefix(text), expected as Cidr | undefined);
});
test('prefix: as it is', prefix, '10.8.0.0/16', '10.8.0.0/16');
test('prefix: an address', prefix, '10.8.0.1', '10.8.0.1/32');
test('prefix: an IPv6 address', prefix, 'fd12::1', 'fd12::1/128');
test('prefix: default', prefix, 'default', undefined);
test('prefix: a word', prefix, 'dev', undefined);
test('prefix: a word with a length', prefix, 'dev/16', undefined);

test('what routes of earlier versions are known by', (tt) => {
  tt.deepEqual([PROTO, WORST_METRIC], [233, 4_294_967_295]);
});

const DST = cidr('10.8.0.0/16');
const written = test.macro((tt, hop: Hop, text: string) => {
  tt.is(routeText(DST, hop), text);
  tt.true(text.endsWith(`10.8.0.0/16${hopText(hop)}`));
});
test(
  'text: all there is',
  written,
  { metric: 7, mtu: 1300, src: '10.10.0.1', via: '10.10.0.5', device: 'lxc1', type: 'unicast' },
  '10.8.0.0/16 via 10.10.0.5 dev lxc1 src 10.10.0.1 mtu 1300 metric 7',
);
test('text: a device alone', written, { type: 'unicast', device: 'cilium_host' }, '10.8.0.0/16 dev cilium_host');
test(
  'text: unreachable',
  written,
  { type: 'unreachable', metric: 4_294_967_295 },
  'unreachable 10.8.0.0/16 metric 4294967295',
);
test('text: metric 0 is said', written, { type: 'unicast', metric: 0 }, '10.8.0.0/16 metric 0');

const metric = test.macro((tt, dst: string, said: number | undefined, expected: number) => {
  tt.is(metricOf(cidr(dst), said === undefined ? {} : { metric: said }), expected);
});
test('metric: the kernel’s where none is said, IPv4', metric, '10.8.0.0/16', undefined, 0);
test('metric: the kernel’s where none is said, IPv6', metric, 'fd12::/48', undefined, 1024);
test('metric: what is said', metric, 'fd12::/48', 7, 7);

test('ours once it was set', (tt) => {
  const hop = { type: 'unicast', via: 'fd00::5', device: 'lxc1', src: 'fd00::1', mtu: 1300 } as const;
  const dst = cidr('fd12::/48');
  tt.deepEqual(seenAs(dst, hop), { ...hop, dst, proto: 233, metric: 1024 });
  const nowhere = { type: 'unreachable', metric: WORST_METRIC } as const;
  const absent = { device: undefined, via: undefined, src: undefined, mtu: undefined };
  tt.deepEqual(seenAs(DST, nowhere), { ...nowhere, ...absent, dst: DST, proto: 233 });
});

const TO_POD = { type: 'unicast', via: '10.10.0.5', device: 'lxc1', mtu: 1300 } as const;
const WANTED: Hop = { ...TO_POD, src: '10.10.0.1' };
const SEEN: SeenRoute = { ...TO_POD, src: '10.10.0.1', dst: DST, proto: 233, metric: 0 };
const same = test.macro((tt, changes: Partial<SeenRoute>, expected: boolean, wanted: Hop = WANTED) => {
  tt.is(sameRoute({ ...SEEN, ...changes }, wanted), expected);
});
test('same', same, {}, true);
test('another type', same, { type: 'other' }, false);
test('another gateway', same, { via: '10.10.0.6' }, false);
test('no gateway', same, { via: undefined }, false);
test('another device', same, { device: 'lxc2' }, false);
test('another source', same, { src: '10.10.0.2' }, false);
test('a source where none is wanted', same, {}, false, TO_POD);
test('another mtu', same, { mtu: 1400 }, false);
test('no mtu', same, { mtu: undefined }, false);
const UNREACHABLE: Hop = { type: 'unreachable', metric: 4_294_967_295 };
test(
  'unreachable, with a device of the kernel’s',
  same,
  { ...NOTHING, type: 'unreachable', device: 'lo' },
  true,
  UNREACHABLE,
);
test('a unicast route in place of an unreachable one', same, NOTHING, false, UNREACHABLE);
