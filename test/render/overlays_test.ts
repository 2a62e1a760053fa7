/** Every overlay under the real kustomize: golden output, valid objects, and what must hold for all of them. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { get, getText, isRecord } from '../../functions/model/krm.ts';
import { OVERLAYS, render, rendered, withoutSecrets } from '../../scripts/golden.ts';
import { findTool } from '../../scripts/tools.ts';
import { byKey, documents, key, type Document } from './documents.ts';

const ROOT = new URL('../..', import.meta.url).pathname;

test('rendered/ is what kustomize renders now', async (t) => {
  const files = await rendered();
  t.is(files.size, 4 * OVERLAYS.length);
  for (const [name, text] of files)
    t.is(await readFile(join(ROOT, 'rendered', name), 'utf8'), text, `${name}: run \`npm run golden\``);
});

test('the overlays that the project promises are there', async (t) => {
  const promised = ['aws', 'azure', 'gcp', 'multi-site', 'openstack', 'qemu'];
  t.deepEqual(
    promised.filter((name) => !OVERLAYS.includes(name)),
    [],
  );
});

/** The newest schemas that kubectl-validate carries; without a cluster to ask. */
const VALIDATE = ['--version', '1.30'];
const OFFLINE = { KUBECONFIG: '/dev/null' };

const targets = [
  '.',
  'examples/uninstall',
  ...OVERLAYS.flatMap((name) => [`overlays/${name}`, `overlays/${name}/cilium`]),
];

for (const target of targets) {
  test(`${target}: every object is valid for Kubernetes`, async (t) => {
    const manifests = documents(await render(target));
    // Objects of other projects have their schemas in a cluster only; a part of a DaemonSet is valid server-side only.
    const own = manifests.filter(
      (document) => !String(document.apiVersion).includes('cert-manager.io') && !isPartialDaemonSet(document),
    );
    t.true(own.length > 0);
    const { exitCode, all } = await validate(own);
    t.is(exitCode, 0, all);
  });

  test(`${target}: no object twice, no marker, no secret in a ConfigMap`, async (t) => {
    const text = await render(target);
    t.notThrows(() => byKey(documents(text)));
    t.false(text.includes('UnrenderedManifests'));
    t.false(text.includes('an-example-of-these-docs'));
  });
}

function isPartialDaemonSet(document: Document): boolean {
  return (
    document.kind === 'DaemonSet' &&
    getText(document, 'metadata', 'annotations', 'constellation-vpn.io/partial') === 'true'
  );
}

async function validate(objects: readonly Document[]): Promise<{ exitCode?: number; all: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-validate-'));
  for (const [i, object] of objects.entries()) await writeFile(join(folder, `${i}.json`), JSON.stringify(object));
  const { path } = await findTool('kubectl-validate');
  const result = await execa(path, VALIDATE.concat(folder), { all: true, reject: false, env: OFFLINE });
  await rm(folder, { recursive: true });
  return result;
}

test('kubectl-validate does refuse a wrong object', async (t) => {
  const wrong = { apiVersion: 'v1', kind: 'Service', metadata: { name: 'x' }, spec: { port: [] } };
  t.not((await validate([wrong])).exitCode, 0);
});

test('the default rendering holds no Secret and no key', async (t) => {
  const objects = documents(await render('.'));
  t.deepEqual(
    objects.filter(({ kind }) => kind === 'Secret'),
    [],
  );
});

test('least privilege: only the named capabilities, host paths and host network', async (t) => {
  const objects = documents(await render('overlays/multi-site'));
  const found = objects.flatMap((object) => {
    const spec = get(object, 'spec', 'template', 'spec');
    if (!isRecord(spec)) return [];
    return [...list(spec.initContainers), ...list(spec.containers)].map((container) => {
      const security = get(container, 'securityContext');
      return [
        object.kind,
        getText(object, 'metadata', 'name'),
        getText(container, 'name'),
        list(get(security, 'capabilities', 'drop')).join(),
        list(get(security, 'capabilities', 'add')).join(),
        `escalate ${String(get(security, 'allowPrivilegeEscalation'))}`,
        `read-only root ${String(get(security, 'readOnlyRootFilesystem'))}`,
        `privileged ${get(security, 'privileged') === true}`,
      ].join(' ');
    });
  });
  const frontend = (site: string) => [
    `StatefulSet acme-vpn-frontend-${site} routing-init ALL NET_ADMIN escalate false read-only root true privileged false`,
    `StatefulSet acme-vpn-frontend-${site} strongswan ALL NET_ADMIN,NET_BIND_SERVICE escalate false read-only root true privileged false`,
    `StatefulSet acme-vpn-frontend-${site} frontend ALL  escalate false read-only root true privileged false`,
  ];
  t.deepEqual(
    found.sort(),
    [
      'DaemonSet acme-vpn-routing routing ALL NET_ADMIN escalate false read-only root true privileged false',
      'Deployment acme-vpn-endpoint-sync endpoint-sync ALL  escalate false read-only root true privileged false',
      ...['berlin', 'munich', 'vienna'].flatMap(frontend),
    ].sort(),
  );
  const pods = objects.map((object) => get(object, 'spec', 'template', 'spec')).filter(isRecord);
  t.deepEqual(
    pods.filter(({ hostPID, hostIPC }) => hostPID === true || hostIPC === true),
    [],
  );
  t.is(pods.filter(({ hostNetwork }) => hostNetwork === true).length, 1);
  const hostPaths = pods
    .flatMap((pod) => list(pod.volumes).map((volume) => getText(volume, 'hostPath', 'path')))
    .filter((path) => path !== undefined);
  t.deepEqual([...new Set(hostPaths)].sort(), ['/proc/sys/net', '/var/run/cilium']);
  for (const pod of pods) t.is(getText(pod, 'securityContext', 'seccompProfile', 'type'), 'RuntimeDefault');
});

test("examples/uninstall: the Job is endpoint-sync's pod, but for what it does and what it needs no more", async (t) => {
  const podOf = (objects: readonly Document[], kind: string) => {
    const found = objects.find(
      (object) => object.kind === kind && getText(object, 'metadata', 'name')?.startsWith('vpn-endpoint-sync') === true,
    );
    const pod = get(found, 'spec', 'template', 'spec');
    const [container] = list(get(pod, 'containers'));
    return { pod: isRecord(pod) ? pod : {}, container: isRecord(container) ? container : {} };
  };
  const running = podOf(documents(await render('.')), 'Deployment');
  const cleaning = podOf(documents(await render('examples/uninstall')), 'Job');
  for (const field of ['serviceAccountName', 'automountServiceAccountToken', 'securityContext', 'nodeSelector'])
    t.deepEqual(cleaning.pod[field], running.pod[field], field);
  for (const field of ['image', 'env', 'securityContext', 'resources'])
    t.deepEqual(cleaning.container[field], running.container[field], field);
  t.deepEqual(cleaning.container.args, [...list(running.container.args), 'cleanup']);
  t.is(cleaning.pod.volumes, undefined);
});

test("examples/uninstall: the DaemonSet is routing's, but for what it does and what it needs no more", async (t) => {
  const specOf = (objects: readonly Document[]) => {
    const found = objects.find(({ kind }) => kind === 'DaemonSet');
    const pod = get(found, 'spec', 'template', 'spec');
    const [container] = list(get(pod, 'containers'));
    return { pod: isRecord(pod) ? pod : {}, container: isRecord(container) ? container : {} };
  };
  const running = specOf(documents(await render('.')));
  const cleaning = specOf(documents(await render('examples/uninstall')));
  for (const field of ['hostNetwork', 'securityContext', 'nodeSelector', 'tolerations', 'priorityClassName'])
    t.deepEqual(cleaning.pod[field], running.pod[field], field);
  for (const field of ['image', 'ports', 'securityContext', 'resources'])
    t.deepEqual(cleaning.container[field], running.container[field], field);
  t.deepEqual(cleaning.container.args, [...list(running.container.args), 'cleanup', '--stay']);
  t.is(cleaning.pod.volumes, undefined);
  t.is(cleaning.pod.automountServiceAccountToken, false);
});

test('examples/user-namespaces: whoever is not in the host’s network gets one, and mounts nothing of the host', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-component-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const kustomization = {
    resources: [relative(folder, join(ROOT, 'base'))],
    components: [relative(folder, join(ROOT, 'examples/user-namespaces'))],
    namePrefix: 'a-',
  };
  await writeFile(join(folder, 'kustomization.yaml'), JSON.stringify(kustomization));
  const { path } = await findTool('kustomize');
  const { stdout } = await execa(path, ['build', folder]);
  const pods = documents(stdout)
    .map((object) => get(object, 'spec', 'template', 'spec'))
    .filter(isRecord);
  t.is(pods.length, 3);
  for (const { hostNetwork, hostUsers, volumes } of pods) {
    t.is(hostUsers, hostNetwork === true ? undefined : false);
    t.is(
      list(volumes).some((volume) => get(volume, 'hostPath') !== undefined),
      hostNetwork === true,
    );
  }
});

test('examples/network-policy: valid, and selects the frontend by its namespace and labels', async (t) => {
  const policies = documents(await readFile(join(ROOT, 'examples/network-policy/allow-onprem.yaml'), 'utf8'));
  const { exitCode, all } = await validate(policies);
  t.is(exitCode, 0, all);
  const objects = documents(await render('.'));
  const namespace = objects.find(({ kind }) => kind === 'Namespace');
  const frontend = objects.find(({ kind }) => kind === 'StatefulSet');
  const labels = get(frontend, 'spec', 'template', 'metadata', 'labels');
  const peers = policies.flatMap(({ spec }) => [...list(get(spec, 'ingress')), ...list(get(spec, 'egress'))]);
  t.is(peers.length, 2);
  for (const rule of peers) {
    const [peer] = list(get(rule, 'from') ?? get(rule, 'to'));
    t.deepEqual(get(peer, 'namespaceSelector', 'matchLabels'), {
      'kubernetes.io/metadata.name': getText(namespace, 'metadata', 'name'),
    });
    const selected = get(peer, 'podSelector', 'matchLabels');
    t.like(labels, isRecord(selected) ? selected : { selected });
  }
});

test('least privilege: nothing cluster-wide, patches by name only', async (t) => {
  const objects = documents(await render('overlays/multi-site'));
  t.deepEqual(
    objects.filter(({ kind }) => String(kind).startsWith('ClusterRole')),
    [],
  );
  const rules = objects
    .filter(({ kind }) => kind === 'Role')
    .flatMap((role) =>
      list(role.rules).map((rule) =>
        `${getText(role, 'metadata', 'namespace')}: ${list(get(rule, 'verbs')).join()} ${list(get(rule, 'resources')).join()} ${list(get(rule, 'resourceNames')).join()}`.trim(),
      ),
    );
  t.deepEqual(
    rules.sort(),
    [
      'kube-system: get,list,watch configmaps cilium-config',
      'kube-system: get,list,watch,patch configmaps ip-masq-agent',
      'vpn-sites: create,patch events',
      'vpn-sites: create,patch events',
      'vpn-sites: get,list,watch ciliumendpoints',
      'vpn-sites: get,list,watch pods',
      'vpn-sites: get,list,watch pods',
      'vpn-sites: patch ciliumendpoints acme-vpn-frontend-berlin-0,acme-vpn-frontend-munich-0,acme-vpn-frontend-vienna-0',
    ].sort(),
  );
});

test('every name that an object refers to is that of an object', async (t) => {
  const objects = documents(await render('overlays/multi-site'));
  const keys = new Set(objects.map(key));
  const referred = objects.flatMap(references);
  t.true(referred.length > 15);
  t.deepEqual(
    referred.filter((reference) => !keys.has(reference)),
    [],
  );
  t.true(keys.has(`v1/Secret/vpn-sites/${secretOf(objects, 'acme-vpn-frontend-berlin')}`));
});

/** The keys of the ServiceAccounts, ConfigMaps and Roles that an object names. */
function references(object: Document): string[] {
  const namespace = getText(object, 'metadata', 'namespace') ?? '';
  if (object.kind === 'RoleBinding')
    return [
      `rbac.authorization.k8s.io/v1/Role/${namespace}/${getText(object, 'roleRef', 'name')}`,
      ...list(object.subjects).map(
        (subject) => `v1/ServiceAccount/${getText(subject, 'namespace')}/${getText(subject, 'name')}`,
      ),
    ];
  const pod = get(object, 'spec', 'template', 'spec');
  if (!isRecord(pod)) return [];
  const configs = list(pod.volumes)
    .map((volume) => getText(volume, 'configMap', 'name'))
    .filter((name) => name !== undefined);
  return [
    `v1/ServiceAccount/${namespace}/${String(pod.serviceAccountName)}`,
    ...configs.map((name) => `v1/ConfigMap/${namespace}/${name}`),
  ];
}

function secretOf(objects: readonly Document[], name: string): string | undefined {
  const frontend = objects.find(
    (object) => object.kind === 'StatefulSet' && getText(object, 'metadata', 'name') === name,
  );
  const volume = list(get(frontend, 'spec', 'template', 'spec', 'volumes')).find((v) => getText(v, 'name') === 'ipsec');
  return getText(list(get(volume, 'projected', 'sources'))[0], 'secret', 'name');
}

const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

test('without --enable-exec the marker stays, and without flags nothing is rendered', async (t) => {
  const { path } = await findTool('kustomize');
  const skipped = await execa(path, ['build', '--enable-alpha-plugins', 'overlays/gcp'], { cwd: ROOT });
  const marker = documents(skipped.stdout).find(({ kind }) => kind === 'UnrenderedManifests');
  t.is(getText(marker, 'metadata', 'name'), 'run-kustomize-build-with--enable-alpha-plugins--enable-exec');
  t.is(getText(marker, 'apiVersion'), 'constellation-vpn.io/v1alpha1');
  const plain = await execa(path, ['build', 'overlays/gcp'], { cwd: ROOT, reject: false });
  t.not(plain.exitCode, 0);
  t.is(plain.stdout, '');
});

test('as a remote base: the committed executables run from the clone', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-remote-'));
  for (const part of ['base', 'functions/config', 'functions/dist', 'overlays'])
    await cp(join(ROOT, part), join(folder, part), { recursive: true });
  const git = (...args: string[]) =>
    execa('git', ['-c', 'user.name=t', '-c', 'user.email=t@example.com', '-c', 'commit.gpgsign=false', ...args], {
      cwd: folder,
    });
  await git('init', '--quiet', '--initial-branch=main');
  await git('add', '--all');
  await git('commit', '--quiet', '--message=base');
  t.is(await render(`file://${folder}//overlays/gcp?ref=main`), await render('overlays/gcp'));
  await rm(folder, { recursive: true });
});

test("without --enable-exec Cilium's target has the marker too, and changes nothing", async (t) => {
  const { path } = await findTool('kustomize');
  const { stdout } = await execa(path, ['build', '--enable-alpha-plugins', 'overlays/multi-site/cilium'], {
    cwd: ROOT,
  });
  const objects = documents(stdout);
  t.is(objects.filter(({ kind }) => kind === 'UnrenderedManifests').length, 1);
  t.deepEqual(objects.find(({ kind }) => kind === 'ConfigMap')?.data, {});
  t.deepEqual(
    get(
      objects.find(({ kind }) => kind === 'DaemonSet'),
      'spec',
      'template',
      'metadata',
      'annotations',
    ),
    {},
  );
});

test('Kubernetes refuses the marker', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-marker-'));
  await cp(join(ROOT, 'base/unrendered-manifests.yaml'), join(folder, 'marker.yaml'));
  const { path } = await findTool('kubectl-validate');
  const { exitCode, all } = await execa(path, VALIDATE.concat(folder), { all: true, reject: false, env: OFFLINE });
  t.not(exitCode, 0);
  t.regex(all, /constellation-vpn\.io\/v1alpha1/);
  await rm(folder, { recursive: true });
});

test('a Secret is left out of rendered/ by its name, whatever its keys are called', (t) => {
  const manifests =
    'apiVersion: v1\ndata:\n  name: c2VjcmV0LWtleQ==\nkind: Secret\nmetadata:\n  labels:\n    a: b\n  name: vpn-psk\n---\nkind: X\n';
  t.is(withoutSecrets(manifests), '# Left out: Secret vpn-psk. Create it before this is applied.\nkind: X\n');
});

test('an overlay from elsewhere: its own prefix, namespace and labels reach every object', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-overlay-'));
  for (const part of ['base', 'functions', 'overlays'])
    await cp(join(ROOT, part), join(folder, part), { recursive: true });
  await writeFile(
    join(folder, 'overlays/gcp/kustomization.yaml'),
    `namespace: tunnels
namePrefix: x-
nameSuffix: -y
labels: [{pairs: {team: network}, includeSelectors: true, includeTemplates: true}]
resources: [../../base]
transformers: [functions]
`,
  );
  await writeFile(
    join(folder, 'overlays/gcp/functions/vpn.yaml'),
    `apiVersion: constellation-vpn.io/v1alpha1
kind: ConstellationVPN
metadata:
  name: vpn
  annotations:
    config.kubernetes.io/function: |
      exec: {path: ../../functions/dist/constellation-vpn}
spec:
  ipsec: {psk: 'a literal key of good length', pskSecretRef: null}
`,
  );
  const objects = documents(await render(join(folder, 'overlays/gcp')));
  const stray = objects.filter((object) => {
    const namespaced = ['kube-system', 'tunnels'].includes(getText(object, 'metadata', 'namespace') ?? '');
    return object.kind === 'Namespace'
      ? getText(object, 'metadata', 'name') !== 'tunnels'
      : !namespaced || !/^x-.*-y$/.test(getText(object, 'metadata', 'name') ?? '');
  });
  t.deepEqual(stray.map(key), []);
  t.deepEqual(objects.filter((object) => getText(object, 'metadata', 'labels', 'team') !== 'network').map(key), []);
  t.true(objects.map(key).includes('v1/Secret/tunnels/x-vpn-ipsec-y'));
  t.is(secretOf(objects, 'x-vpn-frontend-y'), 'x-vpn-ipsec-y');
  await rm(folder, { recursive: true });
});
