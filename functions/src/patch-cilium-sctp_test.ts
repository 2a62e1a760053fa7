import test from 'ava';
import type { Item } from '../model/krm.ts';
import {
  base,
  ciliumConfig,
  configOf,
  freeze,
  goodSpec,
  named,
  partialCiliumAgent,
  partialCiliumConfig,
  said,
  title,
  type Loose,
} from '../../test/functions/items.ts';
import { patchCiliumSctp } from './patch-cilium-sctp.ts';

function patched(items: readonly Item[], cilium?: object): Item[] {
  const outcome = patchCiliumSctp(freeze(items), configOf(goodSpec({ cilium })));
  if (outcome.results.length > 0) throw new Error(outcome.results.map(said).join('\n'));
  return [...outcome.items];
}
const SOCKET = { socketLBHostNamespaceOnly: true };
const RESTART = 'constellation-vpn.io/cilium-config';
const agent = (): Item => ({
  apiVersion: 'apps/v1',
  kind: 'DaemonSet',
  metadata: { name: 'cilium', namespace: 'kube-system' },
  spec: { template: { metadata: { annotations: { own: 'kept' } }, spec: { containers: [] } } },
});

test('frontends may send packets of foreign sources; nothing else of base/ changes', (tt) => {
  const before = base();
  const after = patched(before);
  const { annotations } = named(after, 'StatefulSet', 'vpn-frontend').spec.template.metadata;
  tt.deepEqual(annotations, {
    'kubectl.kubernetes.io/default-container': 'frontend',
    'config.cilium.io/disable-source-ip-verification': 'true',
  });
  tt.deepEqual(after.filter((item) => !before.includes(item)).map(title), ['StatefulSet/vpn-frontend']);
});

// A whole cilium-config

const whole = test.macro((tt, cilium: object | undefined, data: object, restart: string | undefined) => {
  const before: Loose = { ...ciliumConfig(), data: { 'enable-sctp': 'false', other: 'x' } };
  const [config, daemons] = patched([before, agent()], cilium) as Loose[];
  tt.deepEqual(config.data, data);
  tt.deepEqual(config.metadata, before.metadata);
  tt.deepEqual(daemons.spec.template.metadata.annotations, {
    own: 'kept',
    ...(restart === undefined ? {} : { [RESTART]: restart }),
  });
});
test('whole: one key, and the restart', whole, undefined, { 'enable-sctp': 'true', other: 'x' }, 'enable-sctp=true');
test(
  'whole: the other key',
  whole,
  SOCKET,
  { 'enable-sctp': 'false', other: 'x', 'bpf-lb-sock-hostns-only': 'true' },
  'bpf-lb-sock-hostns-only=true',
);
test('whole: no restart', whole, { restartAgents: false }, { 'enable-sctp': 'true', other: 'x' }, undefined);
test('whole: neither', whole, { sctp: false }, { 'enable-sctp': 'false', other: 'x' }, undefined);

test('whole: already so', (tt) => {
  const items = [ciliumConfig()];
  tt.is(patched(items)[0], items[0]!);
});
test('whole: no agents among the items, none made', (tt) => {
  tt.deepEqual(patched([ciliumConfig()]).map(title), ['ConfigMap/cilium-config']);
});
test('whole: no data yet', (tt) => {
  const { data: _, ...bare } = ciliumConfig() as Loose;
  tt.deepEqual((patched([bare])[0] as Loose).data, { 'enable-sctp': 'true' });
});

// The partial one of base/cilium

const partial = test.macro((tt, before: () => Item[], cilium: object | undefined, ...expected: [string, unknown][]) => {
  const after = patched(before(), cilium) as Loose[];
  tt.deepEqual(
    after.map((item) => [title(item), item.data ?? item.spec.template.metadata.annotations]),
    expected,
  );
});
const both = (): Item[] => [partialCiliumConfig(), partialCiliumAgent()];
test(
  'partial: as it is',
  partial,
  both,
  undefined,
  ['ConfigMap/cilium-config', { 'enable-sctp': 'true' }],
  ['DaemonSet/cilium', { [RESTART]: 'enable-sctp=true' }],
);
test(
  'partial: the other key, alone',
  partial,
  both,
  SOCKET,
  ['ConfigMap/cilium-config', { 'bpf-lb-sock-hostns-only': 'true' }],
  ['DaemonSet/cilium', { [RESTART]: 'bpf-lb-sock-hostns-only=true' }],
);
test('partial: no restart', partial, both, { restartAgents: false }, [
  'ConfigMap/cilium-config',
  { 'enable-sctp': 'true' },
]);
test(
  'partial: restart again',
  partial,
  () => [partialCiliumConfig()],
  undefined,
  ['ConfigMap/cilium-config', { 'enable-sctp': 'true' }],
  ['DaemonSet/cilium', { [RESTART]: 'enable-sctp=true' }],
);

test('partial: neither takes the key back, and can be undone', (tt) => {
  const off = patched(both(), { sctp: false });
  tt.deepEqual(off.map(title), both().map(title));
  tt.is((off[0] as Loose).data, undefined);
  tt.is((off[1] as Loose).spec.template.metadata.annotations['constellation-vpn.io/cilium-config'], 'none');
  tt.deepEqual<unknown, unknown>(patched(off), both());
});
test('partial: the agents made anew are what they were', (tt) => {
  tt.deepEqual<unknown, unknown>(patched(patched(both(), { restartAgents: false })), both());
});
test('run again: the very same objects', (tt) => {
  for (const cilium of [undefined, SOCKET, { restartAgents: false }, { sctp: false }])
    for (const items of [base(), [...both(), ...base()], [ciliumConfig(), agent(), ...base()]]) {
      const once = freeze(patched(items, cilium));
      patched(once, cilium).forEach((item, i) => tt.is(item, once[i]!));
    }
});

test('others of the same name are foreign', (tt) => {
  const others: Item[] = [
    { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'cilium-config' } },
    { apiVersion: 'example.com/v1', kind: 'ConfigMap', metadata: { name: 'cilium-config' } },
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'cilium-config-2' } },
    { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'cilium' } },
    { apiVersion: 'apps/v1', kind: 'DaemonSet', metadata: { name: 'cilium-envoy' } },
    {},
  ];
  patched([...others, ...base()])
    .slice(0, others.length)
    .forEach((item, i) => tt.is(item, others[i]!));
});

test('the marker is not for this function', (tt) => {
  const before = base();
  tt.true(patched(before).includes(before[1]!));
});

test('nothing to patch', (tt) => {
  tt.deepEqual(patchCiliumSctp([], configOf(goodSpec())).results.map(said), [
    'error : neither a frontend StatefulSet nor the ConfigMap cilium-config among the items: include base/ or base/cilium/ of Constellation VPN',
  ]);
});
