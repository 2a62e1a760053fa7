import { cp, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { findTool } from '../../scripts/tools.ts';
import { fixture } from './default.ts';
import { OWN } from './fixture.ts';
import { until } from './pods.ts';
import { named, NAMESPACE, RANGES } from './product.ts';

// Ways into a cluster besides the README's: manifests that were rendered before (Flux, Argo CD), and kpt.

const ROOT = join(import.meta.dirname, '../..');
const ownTest = OWN ? test.serial : test.serial.skip;

/** What needs no Secret. The frontend waits for it, and an event says so. */
async function untilRolledOut(): Promise<void> {
  const { cluster } = fixture;
  for (const object of ['daemonset/vpn-routing', 'deployment/vpn-endpoint-sync'])
    await cluster.kubectl(['-n', NAMESPACE, 'rollout', 'status', object, '--timeout=60s']);
}

const untilGone = () =>
  until(
    'the namespace is gone',
    90_000,
    async () => (await fixture.cluster.kubectl(['get', 'namespace', NAMESPACE, '--ignore-not-found'])) === '',
  );

ownTest('rendered manifests, with images of one’s own by kustomize', async (t) => {
  t.timeout(3 * 60_000);
  const { cluster, checkout } = fixture;
  const folder = join(checkout.folder, 'from-git');
  await mkdir(folder);
  await cp(join(ROOT, 'rendered/azure'), join(folder, 'azure'), { recursive: true });
  const kustomization = { resources: ['azure/vpn'], images: named(cluster.images) };
  await writeFile(join(folder, 'kustomization.yaml'), JSON.stringify(kustomization));
  // As Flux does: no functions, no flags.
  await cluster.kubectl(['apply', '--server-side', '-k', folder]);
  await untilRolledOut();
  await cluster.kubectl(['delete', '-k', folder, '--ignore-not-found']);
  t.true((await untilGone()) >= 0);
});

ownTest('kpt: rendered, applied with an inventory, applied again, and destroyed', async (t) => {
  t.timeout(5 * 60_000);
  const { cluster, checkout } = fixture;
  await checkout.configure(cluster, { peerCIDRs: RANGES });
  const env = { KUBECONFIG: cluster.kubeconfig };
  const kpt = execa({ env, cwd: checkout.folder, timeout: 180_000 });
  const { path } = await findTool('kpt');
  const folder = join(checkout.folder, 'package');
  await mkdir(folder);
  await writeFile(join(folder, 'manifests.yaml'), await checkout.build('overlays/mine'));
  await writeFile(join(folder, 'Kptfile'), 'apiVersion: kpt.dev/v1\nkind: Kptfile\nmetadata:\n  name: vpn\n');
  // The README's step 4, so the namespace is there before kpt comes, and belongs to no inventory.
  await cluster.kubectl(['apply', '-f', join(checkout.folder, 'base/namespace.yaml')]);
  const secret = ['create', 'secret', 'generic', 'vpn-psk', '--from-literal=psk=a-key-that-is-long-enough'];
  await cluster.kubectl(['-n', NAMESPACE, ...secret]);
  await kpt(path, ['live', 'install-resource-group']);
  await kpt(path, ['live', 'init', 'package', '--namespace=default', '--name=vpn']);
  const apply = ['live', 'apply', 'package', '--server-side', '--inventory-policy=adopt', '--reconcile-timeout=90s'];
  const first = await kpt(path, apply);
  t.regex(first.stdout, /statefulset.apps\/vpn-frontend reconcile successful/);
  await kpt(path, apply);
  await kpt(path, ['live', 'destroy', 'package']);
  t.true((await untilGone()) >= 0);
});
