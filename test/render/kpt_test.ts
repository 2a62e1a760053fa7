/** The repository as a kpt package, under the real kpt. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { getText } from '../../functions/model/krm.ts';
import { OVERLAYS, render } from '../../scripts/golden.ts';
import { findTool } from '../../scripts/tools.ts';
import { byKey, documents, key } from './documents.ts';
import { makePackage } from './kpt.ts';

const ROOT = new URL('../..', import.meta.url).pathname;

/**
 * The overlay's configuration, merged with the default one as kustomize does it. kustomize prints no object that is
 * local configuration, so a patch takes that annotation away.
 */
async function configOf(overlay: string): Promise<string> {
  const { path } = await findTool('kustomize');
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-config-'));
  for (const part of ['functions/config', `overlays/${overlay}/functions`])
    await cp(join(ROOT, part), join(folder, part), { recursive: true });
  await writeFile(
    join(folder, 'kustomization.yaml'),
    `resources: [overlays/${overlay}/functions]
patches:
- patch: |
    apiVersion: constellation-vpn.io/v1alpha1
    kind: ConstellationVPN
    metadata: {name: vpn, annotations: {config.kubernetes.io/local-config: null}}
`,
  );
  const { stdout } = await execa(path, ['build', folder]);
  await rm(folder, { recursive: true });
  return stdout;
}

test('in place: the first rendering changes what the functions own, the second nothing', async (t) => {
  const pkg = await makePackage();
  const before = await pkg.files();
  const first = await pkg.render();
  t.is(first.exitCode, 0, first.stderr);
  const after = await pkg.files();
  const changed = [...new Set([...before.keys(), ...after.keys()])].filter(
    (name) => before.get(name) !== after.get(name),
  );
  t.deepEqual(changed, [
    'base/cilium/cilium-agent.yaml',
    'base/cilium/cilium-config.yaml',
    'base/cilium/unrendered-manifests.yaml',
    'base/config.yaml',
    'base/frontend.yaml',
    'base/unrendered-manifests.yaml',
  ]);
  t.false(after.has('base/unrendered-manifests.yaml'));
  const second = await pkg.render();
  t.is(second.exitCode, 0, second.stderr);
  t.deepEqual(await pkg.files(), after);
  await pkg.remove();
});

test('in place: a comment in a changed file and every other file keep their bytes', async (t) => {
  const pkg = await makePackage();
  const odd = `# mine\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: odd\n  annotations: {a: "b"}\ndata: # odd scalars\n  mode: "0644"\n  on: "off"\n  text: |-\n    a  # not a comment\n\n    b\nextra:\n  mode: 0644\n  switch: on\n  big: 12345678901234567890\n  time: 22:30\n  thousand: 1_000\n`;
  await writeFile(join(pkg.folder, 'base/odd.yaml'), odd);
  // kpt itself re-indents a file at its first rendering; an empty pipeline shows what is kpt's own doing
  const kptfile = await readFile(join(pkg.folder, 'Kptfile'), 'utf8');
  await writeFile(join(pkg.folder, 'Kptfile'), kptfile.slice(0, kptfile.indexOf('pipeline:')));
  t.is((await pkg.render()).exitCode, 0);
  const kptsOwn = await readFile(join(pkg.folder, 'base/odd.yaml'), 'utf8');
  await writeFile(join(pkg.folder, 'Kptfile'), kptfile);
  t.is((await pkg.render()).exitCode, 0);
  t.is(await readFile(join(pkg.folder, 'base/odd.yaml'), 'utf8'), kptsOwn);
  t.true(
    (await readFile(join(pkg.folder, 'base/frontend.yaml'), 'utf8')).includes(
      '# Time for charon to tell the other gateway',
    ),
  );
  await pkg.remove();
});

test('in place: a site comes, another goes', async (t) => {
  const site = (name: string, cidr: string) =>
    `  - {name: ${name}, peerCIDRs: [${cidr}], ipsec: {peer: 192.0.2.1, pskSecretRef: {name: ${name}}}}\n`;
  const head =
    'apiVersion: constellation-vpn.io/v1alpha1\nkind: ConstellationVPN\nmetadata:\n  name: vpn\n  annotations: {config.kubernetes.io/local-config: "true"}\nspec:\n  sites:\n';
  const pkg = await makePackage(head + site('berlin', '172.16.0.0/16') + site('munich', '172.17.0.0/16'));
  t.is((await pkg.render()).exitCode, 0);
  t.true((await pkg.files()).has('base/statefulset_vpn-frontend-munich.yaml'));
  await writeFile(
    join(pkg.folder, 'functions/config/vpn.yaml'),
    head + site('munich', '172.17.0.0/16') + site('vienna', '172.18.0.0/16'),
  );
  const second = await pkg.render();
  t.is(second.exitCode, 0, second.stderr);
  const text = [...(await pkg.files())].filter(([name]) => name.startsWith('base/')).map(([, content]) => content);
  const names = text
    .flatMap(documents)
    .filter(({ kind }) => kind === 'StatefulSet')
    .map((object) => getText(object, 'metadata', 'name'));
  t.deepEqual(new Set(names), new Set(['vpn-frontend-munich', 'vpn-frontend-vienna']));
  t.is(names.length, 2);
  await pkg.remove();
});

// What kustomize alone does to an overlay (its load balancer patch, its prefix) is no part of the kpt package.
const SHARED = [
  'apps/v1/StatefulSet',
  'apps/v1/DaemonSet',
  'apps/v1/Deployment',
  'v1/ConfigMap',
  'policy/v1/',
  'rbac.',
];

for (const overlay of OVERLAYS.filter((name) => name !== 'multi-site')) {
  test(`${overlay}: kpt and kustomize render the same objects`, async (t) => {
    const pkg = await makePackage(await configOf(overlay));
    const { exitCode, stdout, stderr } = await pkg.render('-o', 'unwrap');
    t.is(exitCode, 0, stderr);
    const byKustomize = byKey([
      ...documents(await render(`overlays/${overlay}`)),
      ...documents(await render(`overlays/${overlay}/cilium`)),
    ]);
    const byKpt = byKey(documents(stdout).filter(({ kind }) => kind !== 'Kustomization'));
    const shared = [...byKustomize.keys()].filter((name) => SHARED.some((prefix) => name.startsWith(prefix)));
    t.true(shared.length >= 12);
    for (const name of shared) {
      const { spec, data, rules, subjects } = byKustomize.get(name) ?? {};
      const kpt = byKpt.get(name) ?? {};
      t.deepEqual(
        { spec: kpt.spec, data: kpt.data, rules: kpt.rules, subjects: kpt.subjects },
        { spec, data, rules, subjects },
        name,
      );
    }
    await pkg.remove();
  });
}

test('multi-site renders under kpt, too', async (t) => {
  const pkg = await makePackage(await configOf('multi-site'));
  const { exitCode, stdout, stderr } = await pkg.render('-o', 'unwrap');
  t.is(exitCode, 0, stderr);
  const keys = documents(stdout).map(key);
  for (const site of ['berlin', 'munich', 'vienna']) {
    t.true(keys.includes(`apps/v1/StatefulSet/constellation-vpn/vpn-frontend-${site}`));
    t.true(keys.includes(`v1/Service/constellation-vpn/vpn-frontend-${site}`));
    t.true(keys.includes(`policy/v1/PodDisruptionBudget/constellation-vpn/vpn-frontend-${site}`));
  }
  await pkg.remove();
});

test('a mistake fails the rendering, with every problem and its field, and changes nothing', async (t) => {
  const pkg = await makePackage(`apiVersion: constellation-vpn.io/v1alpha1
kind: ConstellationVPN
metadata:
  name: vpn
spec:
  peerCIDRs: [10.10.1.0/24, 192.168.1.1/24]
  ipsec: {peer: 203.0.113.10, psk: changeme, rekey: 1h}
`);
  const before = await pkg.files();
  const { exitCode, stderr } = await pkg.render();
  t.is(exitCode, 1);
  for (const part of [
    'spec.peerCIDRs[1]: has host bits set: the network is 192.168.1.0/24',
    'spec.ipsec.psk: is a placeholder',
    'spec.ipsec.rekey: is not a known field; did you mean rekeyTime?',
  ])
    t.true(stderr.includes(part), `${part} in ${stderr}`);
  t.false(stderr.includes('changeme'));
  t.deepEqual(await pkg.files(), before);
  await pkg.remove();
});

test('results go to --results-dir', async (t) => {
  const pkg = await makePackage();
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-results-'));
  t.is((await pkg.render('--results-dir', folder)).exitCode, 0);
  const results = await readFile(join(folder, 'results.yaml'), 'utf8');
  t.regex(results, /severity: warning/);
  t.regex(results, /path: spec\.ipsec\.peer/);
  await rm(folder, { recursive: true });
  await pkg.remove();
});
