/** The documentation says what is so: links lead somewhere, commands exist, samples are accepted, outputs are real. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { isRight } from 'fp-ts/lib/Either.js';
import { loadAll } from 'js-yaml';
import type { Registry } from 'prom-client';
import { createMetrics as endpointSync } from '../agents/endpoint-sync/metrics.ts';
import { createMetrics as frontend } from '../agents/frontend/metrics.ts';
import { createMetrics as routing } from '../agents/routing/metrics.ts';
import type { JsonSchema } from '../functions/model/codec.ts';
import { getText, isRecord } from '../functions/model/krm.ts';
import { ConstellationVpn, KIND, VpnSpec } from '../functions/model/vpn.ts';
import { OVERLAYS, render } from '../scripts/golden.ts';
import { findTool } from '../scripts/tools.ts';

const ROOT = new URL('..', import.meta.url).pathname;
const PAGES = [
  'README.md',
  'CHANGELOG.md',
  ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
];
const pages = PAGES.map((name) => ({ name, text: readFileSync(join(ROOT, name), 'utf8') }));
const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { scripts: Record<string, string> };

for (const { name, text } of pages) {
  test(`${name}: links lead to files`, (t) => {
    const links = [...text.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)]
      .map(([, target = '']) => target)
      .filter((target) => !target.startsWith('http'));
    t.deepEqual(
      links.filter((target) => !existsSync(join(ROOT, dirname(name), target))),
      [],
    );
  });

  test(`${name}: npm scripts and overlays exist`, (t) => {
    const called = [...text.matchAll(/npm run (?:--silent )?([a-z][a-z:-]*)/g)].map(([, script = '']) => script);
    t.deepEqual(
      called.filter((script) => !Object.hasOwn(scripts, script)),
      [],
    );
    const named = [...text.matchAll(/overlays\/([a-z][a-z-]*)\b/g)].map(([, overlay = '']) => overlay);
    t.deepEqual(
      named.filter((overlay) => ![...OVERLAYS, 'mine'].includes(overlay)),
      [],
    );
  });

  const samples = [...text.matchAll(/^```yaml\n([\s\S]*?)^```/gm)]
    .flatMap(([, yaml = '']) => loadAll(yaml))
    .filter(isRecord)
    .filter(({ kind }) => kind === KIND);
  if (samples.length > 0)
    test(`${name}: sample configurations are accepted`, (t) => {
      for (const sample of samples)
        t.true(isRight(ConstellationVpn.decode(sample)), JSON.stringify(ConstellationVpn.decode(sample)));
    });
}

test('configuration.md names every field of spec, a site and ipsec', (t) => {
  const text = pages.find(({ name }) => name === 'docs/configuration.md')?.text ?? '';
  const fields = fieldNames(VpnSpec.schema);
  t.true(fields.length > 25);
  t.deepEqual(
    fields.filter((field) => !text.includes(field)),
    [],
  );
});

/** The names of all fields, at any depth. */
function fieldNames({ properties = {}, items, oneOf = [] }: JsonSchema): string[] {
  const inner = [...Object.values(properties), ...(items === undefined ? [] : [items]), ...oneOf];
  return [...new Set([...Object.keys(properties), ...inner.flatMap(fieldNames)])];
}

const agentPage = test.macro(
  async (t, agent: string, metrics: Pick<Registry, 'getMetricsAsArray'>, least: { options: number; lines: number }) => {
    const text = pages.find(({ name }) => name === `docs/${agent}.md`)?.text ?? '';
    const names = metrics
      .getMetricsAsArray()
      .map(({ name }) => name)
      .filter((name) => name !== 'process_start_time_seconds');
    t.true(names.length > 10);
    t.deepEqual(
      names.filter((name) => !text.includes(name)),
      [],
    );
    const sources = sourcesOf(join(ROOT, 'agents', agent)) + sourcesOf(join(ROOT, 'agents/lib'));
    const options = [...sources.matchAll(/Option\('(--[a-z-]+)/g)].map(([, option = '']) => option);
    t.true(options.length >= least.options);
    t.deepEqual(
      options.filter((option) => !text.includes(option)),
      [],
    );
    const table = text.slice(text.indexOf('| the log says'));
    const lines = [...table.matchAll(/^\| `([^`]+)`/gm)].map(([, line = '']) => line.replace(/…$/, '').trim());
    t.true(lines.length >= least.lines);
    t.deepEqual(
      lines.filter((line) => !sources.replaceAll("\\'", "'").includes(line)),
      [],
    );
  },
);
const sourcesOf = (folder: string): string =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('_test.ts'))
    .map((name) => readFileSync(join(folder, name), 'utf8'))
    .join('');
const valid = (): boolean => true;
const SAID = 'names every metric, every option, and lines that the log really has';
test(`endpoint-sync.md ${SAID}`, agentPage, 'endpoint-sync', endpointSync(valid).registry, { options: 5, lines: 6 });
test(`frontend.md ${SAID}`, agentPage, 'frontend', frontend(valid, async () => []).registry, { options: 5, lines: 8 });
test(`routing.md ${SAID}`, agentPage, 'routing', routing(valid).registry, { options: 12, lines: 12 });

test('routing.md: the way back from a change to Cilium is what the agent says', (t) => {
  const text = pages.find(({ name }) => name === 'docs/routing.md')?.text ?? '';
  const [, commands = ''] = /^\*\*The way back\*\*.*\n\n((?: {4}.*\n)+)/m.exec(text) ?? [];
  const lines = commands.trimEnd().split('\n');
  t.is(lines.length, 2);
  t.true(sourcesOf(join(ROOT, 'agents/routing')).includes(lines.map((line) => line.trim()).join('; ')));
});

test("README.md: the sample of stderr is the functions' own", async (t) => {
  const sample = /stderr what the functions have to say:\n\n((?: {4}.*\n)+)/
    .exec(pages[0]?.text ?? '')?.[1]
    ?.replaceAll(/^ {4}/gm, '');
  const { path } = await findTool('kustomize');
  const { stderr } = await execa(path, ['build', '--enable-alpha-plugins', '--enable-exec', 'overlays/gcp'], {
    cwd: ROOT,
    stripFinalNewline: false,
  });
  t.is(sample, stderr);
});

test('README.md: `npm run render` prints the default rendering, `-- overlays/gcp` the one in rendered/', async (t) => {
  const run = (...args: string[]) =>
    execa('npm', ['run', '--silent', 'render', ...args], { cwd: ROOT, stripFinalNewline: false });
  const { stdout } = await run();
  t.true(stdout.includes('name: vpn-frontend\n'));
  const golden = readFileSync(join(ROOT, 'rendered/gcp/vpn/manifests.yaml'), 'utf8');
  t.is((await run('--', 'overlays/gcp')).stdout, golden.slice(golden.indexOf('\n') + 1));
});

test('configuration.md and kustomize.md: the sample overlay renders, and one Service of it is patched', async (t) => {
  const blocks = (name: string) =>
    [...(pages.find((page) => page.name === name)?.text ?? '').matchAll(/^```yaml\n([\s\S]*?)^```/gm)].map(
      ([, yaml = '']) => yaml,
    );
  const [configuration = ''] = blocks('docs/configuration.md');
  const [transformers = '', patch = ''] = blocks('docs/kustomize.md');
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-docs-'));
  for (const part of ['base', 'functions/config', 'functions/dist', 'overlays'])
    await cp(join(ROOT, part), join(folder, part), { recursive: true });
  const mine = join(folder, 'overlays/mine');
  await cp(join(folder, 'overlays/gcp'), mine, { recursive: true });
  await writeFile(join(mine, 'functions/vpn.yaml'), configuration);
  await writeFile(join(mine, 'kustomization.yaml'), `resources: [../../base]\n${transformers}`);
  await writeFile(join(mine, 'berlin-service.yaml'), patch);
  const documents = (await render(mine)).split(/^---\n/m);
  const services = documents.filter((document) => /^kind: Service$/m.test(document));
  t.deepEqual(
    services.map((service) => [/^ {2}name: (.*)$/m.exec(service)?.[1], /loadBalancerIP: (.*)$/m.exec(service)?.[1]]),
    [
      ['vpn-frontend-berlin', '198.51.100.20'],
      ['vpn-frontend-munich', undefined],
    ],
  );
  const config = documents.flatMap((document) => loadAll(document)).find((object) => isConfig(object));
  const { spec } = JSON.parse(getText(config, 'data', 'config.json') ?? '') as { spec: unknown };
  t.like(spec, {
    sites: [
      { name: 'berlin', probe: '172.16.0.10', ipsec: { childSAs: 'perRange' } },
      { name: 'munich', ipsec: { childSAs: 'perPair' } },
    ],
  });
  await rm(folder, { recursive: true });
});
const isConfig = (object: unknown): boolean =>
  getText(object, 'kind') === 'ConfigMap' && getText(object, 'metadata', 'name') === 'vpn-config';
