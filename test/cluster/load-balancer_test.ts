/** The rules of the stand-in of a cloud's load balancer, and that nft takes them. */
import test from 'ava';
import { createGroup } from '../dataplane/netns.ts';
import { assignAddresses, type EndpointSlice, planRules, type Service, tableText } from './load-balancer.ts';

const NODES = { n1: '10.77.0.11', n2: '10.77.0.12' };
const ADDRESS = '203.0.113.20';

const PORTS = [
  { port: 500, nodePort: 30500, protocol: 'UDP' },
  { port: 4500, nodePort: 30450, protocol: 'UDP' },
];

function service(name: string, ip?: string, spec: Partial<Service['spec']> = {}): Service {
  return {
    metadata: { namespace: 'vpn', name },
    spec: { externalTrafficPolicy: 'Local', ports: PORTS, ...spec },
    status: { loadBalancer: ip === undefined ? {} : { ingress: [{ ip }] } },
  };
}

const slice = (of: string, endpoints: EndpointSlice['endpoints'], namespace = 'vpn'): EndpointSlice => ({
  metadata: { namespace, labels: { 'kubernetes.io/service-name': of } },
  endpoints,
});

const addresses = (services: readonly Service[]) =>
  services.map(({ status }) => status?.loadBalancer?.ingress?.map(({ ip }) => ip).join(' '));

const to = (node: string) => [
  `ip daddr ${ADDRESS} udp dport 500 dnat to ${node}:30500`,
  `ip daddr ${ADDRESS} udp dport 4500 dnat to ${node}:30450`,
];

const target = test.macro((t, slices: readonly EndpointSlice[], rules: readonly string[]) => {
  t.deepEqual(planRules([service('fe', ADDRESS)], slices, NODES), new Map([[ADDRESS, rules]]));
});
test(
  'Local: the node with a ready endpoint',
  target,
  [slice('fe', [{ nodeName: 'n2', conditions: { ready: true } }])],
  to('10.77.0.12'),
);
test('Local: no word of ready means ready', target, [slice('fe', [{ nodeName: 'n2' }])], to('10.77.0.12'));
test('Local: not one that is not ready', target, [slice('fe', [{ nodeName: 'n1', conditions: { ready: false } }])], []);
test(
  'Local: not one that ends, though it be published as ready',
  target,
  [slice('fe', [{ nodeName: 'n1', conditions: { ready: true, terminating: true } }, { nodeName: 'n2' }])],
  to('10.77.0.12'),
);
test(
  'Local: of two nodes the first',
  target,
  [slice('fe', [{ nodeName: 'n2' }]), slice('fe', [{ nodeName: 'n1' }])],
  to('10.77.0.11'),
);
test('Local: no endpoint', target, [slice('fe', null)], []);
test(
  'Local: an endpoint without a node, or of one that is not behind the router',
  target,
  [slice('fe', [{}, { nodeName: 'n3' }])],
  [],
);
test(
  "Local: not another Service's, nor another namespace's",
  target,
  [
    slice('web', [{ nodeName: 'n1' }]),
    slice('fe', [{ nodeName: 'n1' }], 'other'),
    { metadata: { namespace: 'vpn' }, endpoints: [{ nodeName: 'n1' }] },
  ],
  [],
);

test('Cluster: the first node, whoever has endpoints', (t) => {
  const services = [service('fe', ADDRESS, { externalTrafficPolicy: 'Cluster' })];
  const expected = new Map([[ADDRESS, to('10.77.0.11')]]);
  t.deepEqual(planRules(services, [], NODES), expected);
  t.deepEqual(planRules(services, [slice('fe', [{ nodeName: 'n2' }])], NODES), expected);
  t.deepEqual(planRules(services, [], {}), new Map([[ADDRESS, []]]));
});

test('protocols; a port without a port of the nodes; a Service without an address', (t) => {
  const ports = [
    { port: 80, nodePort: 30080, protocol: 'TCP' },
    { port: 81, protocol: 'TCP' },
    { port: 82, nodePort: 30082, protocol: 'SCTP' },
  ];
  const services = [service('a'), service('b', ADDRESS, { externalTrafficPolicy: 'Cluster', ports })];
  t.deepEqual(
    [...planRules(services, [], NODES).values()],
    [
      [
        `ip daddr ${ADDRESS} tcp dport 80 dnat to 10.77.0.11:30080`,
        `ip daddr ${ADDRESS} sctp dport 82 dnat to 10.77.0.11:30082`,
      ],
    ],
  );
});

test('addresses: one each, from the first on', (t) => {
  const services = assignAddresses([service('a'), service('b')], ADDRESS);
  t.deepEqual(addresses(services), ['203.0.113.20', '203.0.113.21']);
  t.deepEqual(addresses(assignAddresses([], ADDRESS)), []);
});

test('addresses: who has one keeps it, and is the same object', (t) => {
  const before = [service('a'), service('b', '203.0.113.20'), service('c', '203.0.113.22')];
  const after = assignAddresses(before, ADDRESS);
  t.deepEqual(addresses(after), ['203.0.113.21', '203.0.113.20', '203.0.113.22']);
  t.deepEqual([after[1] === before[1], after[2] === before[2]], [true, true]);
  t.true(assignAddresses(after, ADDRESS).every((one, index) => one === after[index]));
});

test("addresses: neither one of another network nor another Service's is kept", (t) => {
  const services = [service('a', '203.0.113.20'), service('b', '203.0.113.20'), service('c', '198.51.100.3')];
  t.deepEqual(addresses(assignAddresses(services, ADDRESS)), ['203.0.113.20', '203.0.113.21', '203.0.113.22']);
});

test('addresses: there is an end', (t) => {
  const services = [service('a'), service('b')];
  t.throws(() => assignAddresses(services, '203.0.113.255'), { message: /no address from 203\.0\.113\.255 on/ });
  t.throws(() => assignAddresses(services, 'lb.example'), { message: /lb\.example is no address/ });
});

test('nft takes the table, and the next one in its place', async (t) => {
  const group = await createGroup(['wire']);
  t.teardown(() => group.remove());
  const { wire } = group.spaces;
  const services = [service('fe', ADDRESS), service('web', '203.0.113.21')];
  await wire.exec('nft', tableText(planRules(services, [slice('fe', [{ nodeName: 'n1' }])], NODES)));
  const first = await wire.exec('nft', 'list', 'table', 'ip', 'load-balancer');
  for (const rule of [...to('10.77.0.11'), `ip daddr ${ADDRESS} drop`, 'ip daddr 203.0.113.21 drop'])
    t.true(first.includes(rule), first);
  await wire.exec('nft', tableText(new Map()));
  t.notRegex(await wire.exec('nft', 'list', 'table', 'ip', 'load-balancer'), /203/);
});
