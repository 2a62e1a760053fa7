import { readdirSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import test from 'ava';
import { load } from 'js-yaml';
import { decodeConfig } from '../../functions/model/config.ts';
import { generated } from '../../scripts/generate.ts';
import type { Loose } from './items.ts';

// functions/schema: what editors and `kpt fn doc` know of the configuration.

const root = join(import.meta.dirname, '../..');
const schema: unknown = JSON.parse(generated().get('constellation-vpn.schema.json') ?? '');
const validate = new Ajv2020({ strict: true, strictTypes: false, allErrors: true }).compile(schema as object);

test('functions/schema holds what the codec gives, and nothing else', async (tt) => {
  const folder = join(root, 'functions/schema');
  const files = generated();
  tt.deepEqual((await readdir(folder)).sort(), [...files.keys()].sort());
  for (const [name, text] of files) tt.is(await readFile(join(folder, name), 'utf8'), text, name);
});

test('every field has a description', (tt) => {
  const bare: string[] = [];
  const walk = (node: unknown, path: string): void => {
    if (typeof node !== 'object' || node === null) return;
    const { properties } = node as { properties?: Record<string, { description?: string }> };
    for (const [key, field] of Object.entries(properties ?? {}))
      if ((field.description ?? '') === '') bare.push(`${path}.${key}`);
    for (const [key, inner] of Object.entries(node)) walk(inner, `${path}.${key}`);
  };
  walk(schema, '');
  tt.deepEqual(bare, []);
});

const shipped = ['functions/config/vpn.yaml'].concat(
  readdirSync(join(root, 'overlays')).map((name) => `overlays/${name}/functions/vpn.yaml`),
);
for (const path of shipped)
  test(`${path} is valid for the schema and for the codec`, async (tt) => {
    const text = await readFile(join(root, path), 'utf8');
    const config = load(text);
    tt.true(validate(config), JSON.stringify(validate.errors));
    const result = decodeConfig(config, 'test');
    tt.false('results' in result, JSON.stringify(result));
    const modeline = /^# yaml-language-server: \$schema=(.*)$/m.exec(text)?.[1] ?? '';
    tt.is(join(root, path, '..', modeline), join(root, 'functions/schema/constellation-vpn.schema.json'));
  });

const object = (spec: unknown): unknown => ({
  apiVersion: 'constellation-vpn.io/v1alpha1',
  kind: 'ConstellationVPN',
  spec,
});
const short = (more: object = {}, ipsec: object = {}): unknown =>
  object({ peerCIDRs: ['192.168.100.0/24'], ipsec: { peer: '203.0.113.10', ...ipsec }, ...more });
const pskSecretRef = { name: 'vpn-psk' };

const valid = test.macro((tt, config: unknown) => {
  tt.true(validate(config), JSON.stringify(validate.errors));
  tt.false('results' in decodeConfig(config, 'test'));
});
test('short form', valid, short({}, { pskSecretRef }));
test('mtu left empty', valid, short({ mtu: '' }, { pskSecretRef }));
test('mtu of null', valid, short({ mtu: null }, { pskSecretRef }));
test('dual stack', valid, short({ podCIDR: ['10.0.0.0/16', 'fd00::/56'] }, { pskSecretRef }));
test('times as numbers and as text', valid, short({}, { pskSecretRef, dpdDelay: 2, rekeyTime: '1h' }));
test('a way to spread the traffic, and a probe', valid, short({ probe: 'fd12::7' }, { pskSecretRef, childSAs: 'one' }));
test(
  "the old chart's keys",
  valid,
  short({ image: 'a', nameOverride: '', fullnameOverride: '' }, { psk: 'k'.repeat(24) }),
);
test(
  'defaults taken away by a patch',
  valid,
  short({ podCIDR: null, cilium: null, sites: null }, { pskSecretRef, proposals: null }),
);

const invalid = test.macro((tt, config: unknown, path: string) => {
  tt.false(validate(config));
  tt.true(
    validate.errors?.some(({ instancePath }) => instancePath === path),
    JSON.stringify(validate.errors),
  );
  tt.true('results' in decodeConfig(config, 'test'));
});
test('another kind', invalid, { ...(short({}, { pskSecretRef }) as object), kind: 'ConfigMap' }, '/kind');
test('unknown field', invalid, short({ podCidr: '10.0.0.0/16' }, { pskSecretRef }), '/spec');
test(
  'unknown field of a Secret reference',
  invalid,
  short({}, { pskSecretRef: { name: 'a', kay: 'b' } }),
  '/spec/ipsec/pskSecretRef',
);
test('text in place of a list', invalid, short({ peerCIDRs: '10.0.0.0/8' }, { pskSecretRef }), '/spec/peerCIDRs');
test('a name in place of a range', invalid, short({ peerCIDRs: ['gw'] }, { pskSecretRef }), '/spec/peerCIDRs/0');
test('mtu too small', invalid, short({ mtu: 100 }, { pskSecretRef }), '/spec/mtu');
test('no gateway', invalid, object({ peerCIDRs: ['10.0.0.0/8'], ipsec: { pskSecretRef } }), '/spec/ipsec');
test('unknown startAction', invalid, short({}, { pskSecretRef, startAction: 'dial' }), '/spec/ipsec/startAction');
test(
  'unknown way to spread the traffic',
  invalid,
  short({}, { pskSecretRef, childSAs: 'all' }),
  '/spec/ipsec/childSAs',
);
test('probe of a list', invalid, short({ probe: ['10.0.0.1'] }, { pskSecretRef }), '/spec/probe');
test(
  'a site without ranges',
  invalid,
  object({ sites: [{ name: 'a', ipsec: { peer: 'gw', pskSecretRef } }] }),
  '/spec/sites/0',
);

test('KRMFunctionDefinitions name the functions and their versions', (tt) => {
  for (const [file, text] of generated()) {
    if (!file.endsWith('.yaml')) continue;
    const definition = load(text) as Loose;
    tt.is(definition.kind, 'KRMFunctionDefinition');
    tt.is(`${definition.metadata.name}.yaml`, file);
    tt.is(definition.spec.group, 'constellation-vpn.io');
    tt.is(definition.spec.names.kind, 'ConstellationVPN');
    tt.is(definition.spec.versions[0].name, 'v1alpha1');
    tt.is(definition.spec.versions[0].schema.openAPIV3Schema.properties.spec.type, 'object');
  }
});
