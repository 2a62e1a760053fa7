import test from 'ava';
import { type CiliumEndpoint, updateIPCache } from './plan.ts';
import { type NetworkPolicy, policiesText, unsupported, verdicts, type World } from './policy.ts';

const [OWN, OTHER] = ['10.77.0.11', '10.77.0.12'];
const META = { uid: '1', resourceVersion: '1' };

function endpoint(name: string, namespace: string, node: string, ...addresses: string[]): CiliumEndpoint {
  return {
    metadata: { ...META, name, namespace },
    status: {
      identity: { id: 256, labels: [`k8s:app=${name}`, `k8s:io.kubernetes.pod.namespace=${namespace}`] },
      networking: { addressing: addresses.map((ipv4) => ({ ipv4 })), node },
    },
  };
}
const ENDPOINTS = [
  endpoint('shop', 'app', OWN, '10.244.1.5'),
  endpoint('till', 'app', OWN, '10.244.1.6'),
  endpoint('shop', 'elsewhere', OWN, '10.244.1.7'),
  endpoint('till', 'elsewhere', OTHER, '10.244.2.5'),
  endpoint('frontend', 'vpn', OTHER, '10.244.2.9', '172.31.50.0/24'),
];

function world(...policies: NetworkPolicy[]): World {
  const ipcache = new Map();
  for (const each of ENDPOINTS) updateIPCache(ipcache, undefined, each, OWN);
  const namespaces = ['app', 'elsewhere', 'vpn'].map((name) => ({
    metadata: { ...META, name, labels: { team: name } },
  }));
  return { policies, namespaces, endpoints: ENDPOINTS, ipcache, nodeAddress: OWN };
}
const policy = (spec: NetworkPolicy['spec'], namespace = 'app'): NetworkPolicy => ({
  metadata: { ...META, name: 'policy', namespace },
  spec: { podSelector: {}, ...spec },
});
const BOTH = ['Ingress', 'Egress'];
const APP = ['10.244.1.5/32', '10.244.1.6/32'];
const NOTHING = { isolated: [], allowed: [] };

test('no policy isolates nobody', (t) => {
  t.deepEqual(verdicts(world(), 'in'), NOTHING);
});

test('one that denies all isolates the pods of its namespace on this node, both ways', (t) => {
  for (const direction of ['in', 'out'] as const)
    t.deepEqual(verdicts(world(policy({ policyTypes: BOTH })), direction), { isolated: APP, allowed: [] });
});

const types = test.macro((t, spec: NetworkPolicy['spec'], into: boolean, out: boolean) => {
  t.is(verdicts(world(policy(spec)), 'in').isolated.length > 0, into);
  t.is(verdicts(world(policy(spec)), 'out').isolated.length > 0, out);
});
test('types: where nothing is said, what comes', types, {}, true, false);
test('types: rules for egress are about both', types, { egress: [] }, true, true);
test('types: what is sent alone', types, { policyTypes: ['Egress'] }, false, true);

test('a selector of pods', (t) => {
  const selected = policy({ podSelector: { matchLabels: { app: 'shop' } } });
  t.deepEqual(verdicts(world(selected), 'in').isolated, ['10.244.1.5/32']);
});

const shop = { podSelector: { matchLabels: { app: 'shop' } } };
const allows = test.macro((t, peers: readonly object[] | undefined, expected: readonly string[]) => {
  const spec = {
    podSelector: { matchLabels: { app: 'till' } },
    ingress: [peers === undefined ? {} : { from: peers }],
    egress: [peers === undefined ? {} : { to: peers }],
  };
  const pairs = expected.map((prefix) => `10.244.1.6/32 . ${prefix}`);
  for (const direction of ['in', 'out'] as const)
    t.deepEqual(verdicts(world(policy(spec)), direction).allowed, pairs, direction);
});
test('peers: a rule without them allows everybody', allows, undefined, ['0.0.0.0/0']);
test('peers: pods of the same namespace', allows, [shop], ['10.244.1.5/32']);
test(
  'peers: pods of a namespace',
  allows,
  [{ ...shop, namespaceSelector: { matchLabels: { team: 'elsewhere' } } }],
  ['10.244.1.7/32'],
);
test(
  'peers: all of a namespace',
  allows,
  [{ namespaceSelector: { matchLabels: { team: 'elsewhere' } } }],
  ['10.244.1.7/32', '10.244.2.5/32'],
);
test('peers: of any namespace', allows, [{ ...shop, namespaceSelector: {} }], ['10.244.1.5/32', '10.244.1.7/32']);
test(
  'peers: the site has the frontend’s identity',
  allows,
  [{ namespaceSelector: { matchLabels: { team: 'vpn' } } }],
  ['10.244.2.9/32', '172.31.50.0/24'],
);
test('peers: an ipBlock is not understood', allows, [{ ipBlock: { cidr: '172.31.50.0/24' } }], []);
test(
  'peers: by an expression, of a namespace by another',
  allows,
  [
    {
      podSelector: { matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['till'] }] },
      namespaceSelector: { matchExpressions: [{ key: 'team', operator: 'In', values: ['app', 'elsewhere'] }] },
    },
  ],
  ['10.244.1.5/32', '10.244.1.7/32'],
);

test('a policy for pods that an expression selects allows nothing to the others', (t) => {
  const podSelector = { matchExpressions: [{ key: 'app', operator: 'In', values: ['shop'] } as const] };
  t.deepEqual(verdicts(world(policy({}), policy({ podSelector, ingress: [{}] })), 'in'), {
    isolated: APP,
    allowed: ['10.244.1.5/32 . 0.0.0.0/0'],
  });
});

test('of ranges inside one another the wide one is left: nft takes no overlaps', (t) => {
  const { ipcache, ...rest } = world(
    policy({ ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: 'vpn' } } }] }] }),
  );
  updateIPCache(ipcache as Map<string, never>, undefined, endpoint('frontend', 'vpn', OTHER, '172.31.50.128/25'), OWN);
  const { allowed } = verdicts({ ...rest, ipcache }, 'in');
  t.deepEqual(
    allowed,
    APP.flatMap((pod) => [`${pod} . 10.244.2.9/32`, `${pod} . 172.31.50.0/24`]),
  );
});

test('what several policies allow adds up; everybody is all there is then', (t) => {
  const [one, two, all] = [
    policy({ ingress: [{ from: [shop] }] }),
    policy({ ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: 'vpn' } } }] }] }),
    policy({ ingress: [{}] }),
  ];
  t.is(verdicts(world(one, two), 'in').allowed.length, 6);
  t.deepEqual(
    verdicts(world(one, two, all), 'in').allowed,
    APP.map((prefix) => `${prefix} . 0.0.0.0/0`),
  );
});

test('what is not understood allows nothing, and is told', (t) => {
  const ports = policy({ ingress: [{ ports: [{ port: 80 }] }] });
  t.deepEqual(verdicts(world(ports), 'in'), { isolated: APP, allowed: [] });
  t.deepEqual(unsupported([ports, policy({}, 'other')]), ['app/policy']);
});

test('the table', (t) => {
  const text = policiesText(world(policy({ policyTypes: BOTH, ingress: [{ from: [shop] }] })));
  t.true(text.startsWith('\ntable ip cilium-stand-in-policies\ndelete table ip cilium-stand-in-policies\n'));
  t.true(text.includes('elements = { 10.244.1.5/32 . 10.244.1.5/32, 10.244.1.6/32 . 10.244.1.5/32 }'));
});
