import test from 'ava';
import type { Item } from '../model/krm.ts';
import {
  account,
  base,
  ciliumReaderBinding,
  configOf,
  freeze,
  frontend,
  goodSite,
  goodSpec,
  marker,
  named,
  prefixed,
  said,
  title,
  type Loose,
} from '../../test/functions/items.ts';
import { injectPeerCidrs } from './inject-peer-cidrs.ts';

function injected(items: readonly Item[], spec: object): Item[] {
  const outcome = injectPeerCidrs(freeze(items), configOf(spec));
  const errors = outcome.results.filter(({ severity }) => severity !== 'info');
  if (errors.length > 0) throw new Error(errors.map(said).join('\n'));
  return [...outcome.items];
}
const twoSites = { sites: [goodSite('munich', '10.2.0.0/16'), goodSite('berlin', '10.1.0.0/16', { mtu: 1400 })] };
const config = (items: readonly Item[], name = 'vpn-config'): Loose =>
  JSON.parse(named(items, 'ConfigMap', name).data['config.json']);
const SITE = 'constellation-vpn.io/site';
const MTU = 'constellation-vpn.io/mtu';

test('unnamed site: names, places and foreign objects stay', (tt) => {
  const before = base();
  const after = injected(before, goodSpec());
  tt.deepEqual(after.map(title), before.map(title));
  tt.is(after[0], before[0]!);
  tt.is(after.at(-1), before.at(-1)!);
});

test("unnamed site: its label is empty, so that it selects no other site's pods", (tt) => {
  const items = injected(base(), goodSpec());
  const { metadata, spec } = named(items, 'StatefulSet', 'vpn-frontend');
  tt.is(metadata.labels[SITE], '');
  tt.is(spec.selector.matchLabels[SITE], '');
  tt.is(spec.template.metadata.labels[SITE], '');
  tt.is(named(items, 'Service', 'vpn-frontend').spec.selector[SITE], '');
  tt.is(named(items, 'PodDisruptionBudget', 'vpn-frontend').spec.selector.matchLabels[SITE], '');
  tt.is(spec.serviceName, 'vpn-frontend');
});

test('unnamed site: the Service and the budget are as they were', (tt) => {
  const before = base();
  const after = injected(before, goodSpec());
  for (const kind of ['Service', 'PodDisruptionBudget', 'Role'])
    for (const item of before.filter((one) => one.kind === kind)) tt.true(after.includes(item), title(item));
});

test('the configuration: canonical, with our identity, ended by a line break', (tt) => {
  const items = injected(base(), goodSpec({ image: 'old', mtu: '' }));
  const text: string = named(items, 'ConfigMap', 'vpn-config').data['config.json'];
  tt.true(text.startsWith('{\n  "apiVersion": "constellation-vpn.io/v1alpha1",\n  "kind": "ConstellationVPN",\n'));
  tt.true(text.endsWith('\n}\n'));
  tt.deepEqual(JSON.parse(text).spec, {
    podCIDR: ['10.10.0.0/16'],
    serviceCIDR: ['10.96.0.0/12'],
    cilium: { sctp: true, socketLBHostNamespaceOnly: false, restartAgents: true },
    sites: [
      {
        mtu: null,
        peerCIDRs: ['192.168.100.0/24'],
        ipsec: {
          peer: '194.25.0.10',
          pskSecretRef: { name: 'vpn-psk', key: 'psk' },
          proposals: {
            ike: ['aes256gcm16-prfsha384-ecp384', 'aes256gcm16-prfsha256-curve25519', 'aes256-sha256-modp3072'],
            esp: ['aes256gcm16-ecp384', 'aes256gcm16-curve25519', 'aes256-sha256-modp3072'],
          },
          dpdDelay: 1,
          rekeyTime: 3600,
          startAction: 'trap|start',
          localTrafficSelectors: [],
          childSAs: 'perRange',
          remoteID: '194.25.0.10',
          localID: 'vpn-frontend.constellation-vpn',
        },
      },
    ],
  });
});

const identity = test.macro((tt, spec: object, localID: string | undefined) => {
  tt.is(config(injected(base(), spec)).spec.sites[0].ipsec.localID, localID);
});
const certificate = { pskSecretRef: null, certificate: { secretRef: { name: 'tls' } } };
test('identity: the pod’s name', identity, goodSpec(), 'vpn-frontend.constellation-vpn');
test(
  'identity: with the site',
  identity,
  { sites: [goodSite('berlin', '10.1.0.0/16', {}, { localID: null })] },
  'vpn-frontend-berlin.constellation-vpn',
);
test('identity: the load balancer’s address', identity, goodSpec({ publicAddress: '194.25.0.20' }), '194.25.0.20');
test('identity: the one given', identity, goodSpec({ publicAddress: '194.25.0.20' }, { localID: '@me' }), '@me');
test('identity: a certificate’s subject', identity, goodSpec({ publicAddress: '194.25.0.20' }, certificate), undefined);
test('identity: given beside a certificate', identity, goodSpec({}, { ...certificate, localID: '@me' }), '@me');

test('a literal key appears nowhere; a reference to its Secret stands in its place', (tt) => {
  const psk = 'Zq9-a-long-enough-pre-shared-key';
  const items = injected(base(), goodSpec({}, { pskSecretRef: null, psk }));
  tt.false(JSON.stringify(items).includes('Zq9'));
  tt.false(JSON.stringify(items).includes(Buffer.from(psk).toString('base64')));
  tt.deepEqual(config(items).spec.sites[0].ipsec.pskSecretRef, { name: 'vpn-ipsec', key: 'psk' });
  tt.false('psk' in config(items).spec.sites[0].ipsec);
});

test('other keys of the ConfigMap stay', (tt) => {
  const items = base().map((item: Loose) =>
    title(item) === 'ConfigMap/vpn-config' ? { ...item, data: { ...item.data, other: 'x' } } : item,
  );
  tt.is(named(injected(items, goodSpec()), 'ConfigMap', 'vpn-config').data.other, 'x');
});

test('several sites: one of each kind for each, in order, in the place of the first', (tt) => {
  tt.deepEqual(injected(base(), twoSites).map(title), [
    'Namespace/constellation-vpn',
    'UnrenderedManifests/run-the-functions',
    'ConfigMap/vpn-config',
    'ServiceAccount/vpn-routing',
    'StatefulSet/vpn-frontend-berlin',
    'StatefulSet/vpn-frontend-munich',
    'Service/vpn-frontend-berlin',
    'Service/vpn-frontend-munich',
    'PodDisruptionBudget/vpn-frontend-berlin',
    'PodDisruptionBudget/vpn-frontend-munich',
    'Role/vpn-endpoint-sync',
    'Role/vpn-cilium-config-reader',
    'RoleBinding/vpn-cilium-config-reader',
    'ConfigMap/foreign',
  ]);
});

test('several sites: each selects its own pods', (tt) => {
  const items = injected(base(), twoSites);
  for (const site of ['berlin', 'munich']) {
    const name = `vpn-frontend-${site}`;
    const set = named(items, 'StatefulSet', name);
    const labels = set.spec.template.metadata.labels;
    tt.is(set.metadata.labels[SITE], site);
    tt.is(labels[SITE], site);
    tt.is(set.spec.serviceName, name);
    tt.deepEqual(set.spec.selector.matchLabels, labels);
    tt.deepEqual(named(items, 'Service', name).spec.selector, labels);
    tt.is(named(items, 'Service', name).metadata.labels[SITE], site);
    tt.deepEqual(named(items, 'PodDisruptionBudget', name).spec.selector.matchLabels, labels);
    tt.is(set.metadata.namespace, 'constellation-vpn');
  }
});

test('mtu: an annotation on the pods, so that a change makes new ones', (tt) => {
  const annotations = (spec: object, name = 'vpn-frontend') =>
    named(injected(base(), spec), 'StatefulSet', name).spec.template.metadata.annotations;
  tt.deepEqual(annotations(goodSpec()), { 'kubectl.kubernetes.io/default-container': 'frontend', [MTU]: '1300' });
  tt.is(annotations(goodSpec({ mtu: '' }))[MTU], 'path');
  tt.is(annotations(twoSites, 'vpn-frontend-berlin')[MTU], '1400');
  tt.is(annotations(twoSites, 'vpn-frontend-munich')[MTU], '1300');
});

test('a change of ranges changes the ConfigMap alone', (tt) => {
  const before = freeze(injected(base(), goodSpec()));
  const after = injected(before, goodSpec({ peerCIDRs: ['10.200.0.0/16'] }));
  tt.deepEqual(after.filter((item) => !before.includes(item)).map(title), ['ConfigMap/vpn-config']);
});

test('a change of childSAs or of the probe changes the ConfigMap alone', (tt) => {
  const before = freeze(injected(base(), goodSpec()));
  for (const spec of [goodSpec({}, { childSAs: 'one' }), goodSpec({ probe: '192.168.100.7' })]) {
    const after = injected(before, spec);
    tt.deepEqual(after.filter((item) => !before.includes(item)).map(title), ['ConfigMap/vpn-config']);
  }
});

test('the probe: only where one is given', (tt) => {
  const sites = [
    goodSite('a', '10.1.0.0/16'),
    goodSite('b', '10.2.0.0/16', { probe: '10.2.0.7' }, { childSAs: 'one' }),
  ];
  const [a, b] = config(injected(base(), { sites })).spec.sites;
  tt.false('probe' in a);
  tt.is(b.probe, '10.2.0.7');
  tt.is(b.ipsec.childSAs, 'one');
});

test('only the frontends’ pods may have their CiliumEndpoint patched', (tt) => {
  const rules = (spec: object): Loose => named(injected(base(), spec), 'Role', 'vpn-endpoint-sync').rules;
  tt.deepEqual(
    rules(twoSites).map(({ resourceNames }: Loose) => resourceNames),
    [undefined, ['vpn-frontend-berlin-0', 'vpn-frontend-munich-0'], ['other']],
  );
  tt.deepEqual(rules(goodSpec())[1].resourceNames, ['vpn-frontend-0']);
});

test('run again: the very same objects', (tt) => {
  for (const spec of [goodSpec(), twoSites]) {
    const once = freeze(injected(base(), spec));
    const twice = injected(once, spec);
    tt.is(twice.length, once.length);
    twice.forEach((item, i) => tt.is(item, once[i]!));
  }
});

test('a site removed: its objects go, the others stay as they are', (tt) => {
  const before = freeze(injected(base(), twoSites));
  const after = injected(before, { sites: [goodSite('munich', '10.2.0.0/16')] });
  tt.deepEqual(
    after.map(title).filter((name) => name.includes('frontend')),
    ['StatefulSet/vpn-frontend-munich', 'Service/vpn-frontend-munich', 'PodDisruptionBudget/vpn-frontend-munich'],
  );
  tt.is(named(after, 'StatefulSet', 'vpn-frontend-munich'), named(before, 'StatefulSet', 'vpn-frontend-munich'));
  tt.deepEqual(named(after, 'Role', 'vpn-endpoint-sync').rules[1].resourceNames, ['vpn-frontend-munich-0']);
});

test('a site added: as if it had always been there', (tt) => {
  const one = injected(base(), { sites: [goodSite('berlin', '10.1.0.0/16', { mtu: 1400 })] });
  tt.deepEqual(injected(one, twoSites), injected(base(), twoSites));
});

test('a name given to the only site, and taken again', (tt) => {
  const unnamed = injected(base(), goodSpec());
  const berlin = { sites: [goodSite('berlin', '10.1.0.0/16')] };
  tt.deepEqual(injected(unnamed, berlin), injected(base(), berlin));
  tt.deepEqual(injected(injected(unnamed, berlin), goodSpec()), unnamed);
});

test("what users changed in a site's objects stays", (tt) => {
  const changed = injected(base(), twoSites).map((item: Loose) =>
    title(item) === 'Service/vpn-frontend-berlin'
      ? { ...item, spec: { ...item.spec, loadBalancerIP: '194.25.0.20' } }
      : item,
  );
  const after = injected(changed, twoSites);
  tt.is(named(after, 'Service', 'vpn-frontend-berlin').spec.loadBalancerIP, '194.25.0.20');
  tt.false('loadBalancerIP' in named(after, 'Service', 'vpn-frontend-munich').spec);
});

test('kustomize’s prefix and namespace', (tt) => {
  const items = injected(
    base().map((item) => prefixed(item, 'acme-', 'sites')),
    twoSites,
  );
  const set = named(items, 'StatefulSet', 'acme-vpn-frontend-berlin');
  tt.is(set.metadata.namespace, 'sites');
  tt.is(set.spec.serviceName, 'acme-vpn-frontend-berlin');
  tt.deepEqual(named(items, 'Role', 'acme-vpn-endpoint-sync').rules[1].resourceNames, [
    'acme-vpn-frontend-berlin-0',
    'acme-vpn-frontend-munich-0',
  ]);
  tt.is(config(items, 'acme-vpn-config').spec.sites[0].ipsec.localID, 'berlin');
  const literal = injected(
    base().map((item) => prefixed(item, 'acme-', 'sites')),
    goodSpec({}, { pskSecretRef: null, psk: 'k'.repeat(24), localID: null }),
  );
  tt.is(config(literal, 'acme-vpn-config').spec.sites[0].ipsec.localID, 'acme-vpn-frontend.sites');
  tt.is(config(literal, 'acme-vpn-config').spec.sites[0].ipsec.pskSecretRef.name, 'acme-vpn-ipsec');
});

test('kustomize’s namespace does not move what stands beside Cilium', (tt) => {
  const items = injected(
    base().map((item) => prefixed(item, 'acme-', 'sites')),
    goodSpec(),
  );
  tt.is(named(items, 'Role', 'acme-vpn-cilium-config-reader').metadata.namespace, 'kube-system');
  const binding = named(items, 'RoleBinding', 'acme-vpn-cilium-config-reader');
  tt.is(binding.metadata.namespace, 'kube-system');
  tt.deepEqual(binding.subjects, [{ kind: 'ServiceAccount', name: 'acme-vpn-routing', namespace: 'sites' }]);
  tt.is(named(items, 'Role', 'acme-vpn-endpoint-sync').metadata.namespace, 'sites');
});

test('a subject that is not among the items stays', (tt) => {
  const items = base().filter(({ kind }) => kind !== 'ServiceAccount');
  const binding = items.find(({ kind }) => kind === 'RoleBinding')!;
  tt.true(injected(items, goodSpec()).includes(binding));
});

test('a new object is nobody’s file: kpt writes one beside its sibling', (tt) => {
  const annotations = {
    'internal.config.kubernetes.io/path': 'base/frontend.yaml',
    'internal.config.kubernetes.io/index': '1',
    'config.kubernetes.io/index': '1',
    'config.k8s.io/id': '5',
    'internal.config.kubernetes.io/id': '5',
    'kustomize.config.k8s.io/id': '5',
    mine: 'kept',
  };
  const items = base().map((item: Loose) =>
    item.kind === 'StatefulSet' ? { ...item, metadata: { ...item.metadata, annotations } } : item,
  );
  const set = named(injected(items, twoSites), 'StatefulSet', 'vpn-frontend-munich');
  tt.deepEqual(set.metadata.annotations, {
    mine: 'kept',
    'internal.config.kubernetes.io/path': 'base/statefulset_vpn-frontend-munich.yaml',
  });
  tt.deepEqual(named(injected(items, goodSpec()), 'StatefulSet', 'vpn-frontend').metadata.annotations, annotations);
});

test('the marker waits for the others', (tt) => {
  tt.deepEqual(named(injected(base(), goodSpec()), 'UnrenderedManifests', 'run-the-functions').spec.waitingFor, [
    'inject-ipsec-secret',
  ]);
  const last = { ...marker(), spec: { waitingFor: ['inject-peer-cidrs'] } };
  tt.false(injected([...base().slice(2), last], goodSpec()).some(({ kind }) => kind === 'UnrenderedManifests'));
});

const lacking = test.macro((tt, kind: string, message: string) => {
  const items = base().filter((item: Loose) => item.kind !== kind || item.metadata.name === 'foreign');
  tt.deepEqual(injectPeerCidrs(freeze(items), configOf(twoSites)).results.map(said), [message]);
});
const missing = (kind: string, component: string): string =>
  `error : no ${kind} with the label constellation-vpn.io/component: ${component} among the items: include base/ of Constellation VPN, and keep that label`;
test('no StatefulSet', lacking, 'StatefulSet', missing('StatefulSet', 'frontend'));
test('no Service', lacking, 'Service', missing('Service', 'frontend'));
test('no PodDisruptionBudget', lacking, 'PodDisruptionBudget', missing('PodDisruptionBudget', 'frontend'));
test('no ConfigMap', lacking, 'ConfigMap', missing('ConfigMap', 'config'));
test('no Role', lacking, 'Role', missing('Role', 'endpoint-sync'));

test('nothing of base/: every missing object in one run', (tt) => {
  tt.deepEqual(injectPeerCidrs([], configOf(goodSpec())).results.map(said), [
    missing('StatefulSet', 'frontend'),
    missing('Service', 'frontend'),
    missing('PodDisruptionBudget', 'frontend'),
    missing('ConfigMap', 'config'),
    missing('Role', 'endpoint-sync'),
  ]);
});

test('items without metadata are foreign', (tt) => {
  const odd = [
    {},
    { resources: ['a.yaml'] },
    { kind: 'StatefulSet' },
    { kind: 'Service', metadata: null },
    { metadata: { labels: [] } },
  ];
  const after = injected([...odd, ...base()], twoSites);
  odd.forEach((item, i) => tt.is(after[i], item));
});

test('a frontend that is no StatefulSet is foreign', (tt) => {
  const deployment = { ...frontend(), kind: 'Deployment' };
  tt.is(injected([deployment, ...base()], twoSites)[0], deployment);
});

test('two ServiceAccounts: each subject gets its own', (tt) => {
  const binding = {
    ...ciliumReaderBinding(),
    subjects: ['vpn-endpoint-sync', 'vpn-routing'].map((name) => ({ kind: 'ServiceAccount', name, namespace: 'old' })),
  };
  const items = [...base().filter(({ kind }) => kind !== 'RoleBinding'), account('vpn-endpoint-sync'), binding].map(
    (item) => prefixed(item, 'a-', 'n'),
  );
  tt.deepEqual(named(injected(items, goodSpec()), 'RoleBinding', 'a-vpn-cilium-config-reader').subjects, [
    { kind: 'ServiceAccount', name: 'a-vpn-endpoint-sync', namespace: 'n' },
    { kind: 'ServiceAccount', name: 'a-vpn-routing', namespace: 'n' },
  ]);
});

const shop = (kind: string, apiVersion: string, component: string): Item => ({
  apiVersion,
  kind,
  metadata: {
    name: 'shop',
    namespace: 'shop',
    labels: { 'app.kubernetes.io/name': 'shop', 'app.kubernetes.io/component': component },
  },
  data: {},
});
for (const place of ['before', 'behind'])
  test(`other projects have frontends and configs, too: ${place} ours`, (tt) => {
    const foreign = [
      shop('StatefulSet', 'apps/v1', 'frontend'),
      shop('Service', 'v1', 'frontend'),
      shop('Service', 'serving.knative.dev/v1', 'frontend'),
      shop('PodDisruptionBudget', 'policy/v1', 'frontend'),
      shop('ConfigMap', 'v1', 'config'),
      shop('Role', 'rbac.authorization.k8s.io/v1', 'endpoint-sync'),
      shop('ServiceAccount', 'v1', 'routing'),
    ];
    const items = place === 'before' ? [...foreign, ...base()] : [...base(), ...foreign];
    const after = injected(items, twoSites);
    for (const item of foreign) tt.true(after.includes(item), `${title(item)} ${String(item.apiVersion)}`);
    tt.deepEqual(after.filter((item) => !foreign.includes(item)).map(title), injected(base(), twoSites).map(title));
  });

test("a site's own object is no template while the base's is there", (tt) => {
  const own = named(injected(base(), twoSites), 'Service', 'vpn-frontend-berlin');
  const pinned = { ...own, spec: { ...own.spec, loadBalancerIP: '194.25.0.20' } };
  const after = injected([pinned, ...base()], twoSites);
  tt.is(named(after, 'Service', 'vpn-frontend-berlin').spec.loadBalancerIP, '194.25.0.20');
  tt.is(named(after, 'Service', 'vpn-frontend-munich').spec.loadBalancerIP, undefined);
});

test("without the base's, the user is told what a new site was made from", (tt) => {
  const one = injected(base(), { sites: [goodSite('berlin', '10.1.0.0/16')] });
  const { results } = injectPeerCidrs(freeze(one), configOf(twoSites));
  tt.deepEqual(
    results.map(said),
    ['StatefulSet', 'Service', 'PodDisruptionBudget'].map(
      (kind) =>
        `info ${kind}/vpn-frontend-berlin : is what vpn-frontend-munich was made from: look there for what was changed for berlin alone`,
    ),
  );
});

test('two frontends of one site: an error, and nothing is dropped', (tt) => {
  const second = { ...(base().find(({ kind }) => kind === 'StatefulSet') as Loose) };
  second.metadata = { ...second.metadata, name: 'second' };
  const { results, items } = injectPeerCidrs(freeze([...base(), second]), configOf(goodSpec()));
  tt.deepEqual(results.map(said), [
    'error StatefulSet/vpn-frontend metadata.labels: is not the only StatefulSet without a site: keep one',
  ]);
  tt.true(items.includes(second));
});
