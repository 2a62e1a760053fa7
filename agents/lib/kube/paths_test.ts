/** What is asked for is what base/ makes and permits. */
import { readFile } from 'node:fs/promises';
import test from 'ava';
import type { Loose } from '../../../test/functions/items.ts';
import { documents } from '../../../test/render/documents.ts';
import {
  called,
  CILIUM_CONFIG,
  configMapsPath,
  endpointsPath,
  eventsPath,
  IP_MASQ_AGENT,
  ofComponent,
  podsPath,
  SITE_LABEL,
} from './paths.ts';

const path = test.macro((tt, found: string, expected: string) => tt.is(found, expected));
test('pods', path, podsPath('vpn'), '/api/v1/namespaces/vpn/pods');
test('events', path, eventsPath('vpn'), '/api/v1/namespaces/vpn/events');
test('ConfigMaps', path, configMapsPath('kube-system'), '/api/v1/namespaces/kube-system/configmaps');
test('CiliumEndpoints', path, endpointsPath('vpn'), '/apis/cilium.io/v2/namespaces/vpn/ciliumendpoints');

async function base(...files: string[]): Promise<Loose[]> {
  const texts = await Promise.all(
    files.map((file) => readFile(new URL(`../../../base/${file}`, import.meta.url), 'utf8')),
  );
  return texts.flatMap(documents);
}
const WORKLOADS = ['frontend.yaml', 'routing.yaml', 'endpoint-sync.yaml'];
const podLabels = (item: Loose): Record<string, string> | undefined => item.spec?.template?.metadata?.labels;
const selects = (selector: string, labels: Record<string, string>): boolean =>
  selector.split(',').every((term) => {
    const [key = '', value] = term.split('=');
    return labels[key] === value;
  });

const component = test.macro(async (tt, name: string, workload: string) => {
  const { labelSelector } = ofComponent(name);
  const selected = (await base(...WORKLOADS)).filter((item) => selects(labelSelector, podLabels(item) ?? {}));
  tt.deepEqual(
    selected.map(({ kind, metadata }) => `${kind} ${metadata.name}`),
    [workload],
  );
});
test('the pods of the frontends', component, 'frontend', 'StatefulSet vpn-frontend');
test('the pods of routing', component, 'routing', 'DaemonSet vpn-routing');
test('our own pods', component, 'endpoint-sync', 'Deployment vpn-endpoint-sync');

test('a frontend’s pod says which site it is of', async (tt) => {
  const [frontend] = (await base('frontend.yaml')).filter(({ kind }) => kind === 'StatefulSet');
  tt.is(podLabels(frontend)?.[SITE_LABEL], '');
});

const permitted = test.macro(async (tt, name: string) => {
  tt.deepEqual(called(name), { fieldSelector: `metadata.name=${name}` });
  const roles = (await base('rbac-kube-system.yaml')).filter(({ kind }) => kind === 'Role');
  const rules = roles.flatMap(({ rules }: Loose) => rules as Loose[]);
  const verbs = rules
    .filter(({ resources, resourceNames }) => resources.includes('configmaps') && resourceNames.includes(name))
    .flatMap(({ verbs }) => verbs as string[]);
  tt.true(['list', 'watch'].every((verb) => verbs.includes(verb)));
});
test('cilium-config, by its name', permitted, CILIUM_CONFIG);
test('ip-masq-agent, by its name', permitted, IP_MASQ_AGENT);
