/**
 * `npm run bench:render`: what the functions' processes cost. Medians of interleaved runs, so that a noisy machine hits
 * both sides of a ratio alike; the targets stand beside them.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import * as esbuild from 'esbuild';
import { execa } from 'execa';
import { FUNCTIONS } from '../scripts/build.ts';
import { findTool } from '../scripts/tools.ts';

const ROOT = new URL('..', import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), 'constellation-vpn-bench-'));

/** Preloaded: tells the highest resident memory of a process, in KiB, on descriptor 3. */
const MEMORY_HOOK = join(folder, 'memory.cjs');
writeFileSync(
  MEMORY_HOOK,
  "process.on('exit', () => require('fs').writeSync(3, String(process.resourceUsage().maxRSS)));\n",
);
const EMPTY = join(folder, 'empty.cjs');
writeFileSync(EMPTY, '');

interface Run {
  readonly ms: number;
  readonly maxRssKiB: number;
}

function run(node: string, script: string, input: string): Run {
  const started = process.hrtime.bigint();
  const { status, stderr, output } = spawnSync(node, ['--require', MEMORY_HOOK, script], {
    input,
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
    maxBuffer: 1 << 30,
    encoding: 'utf8',
  });
  const ms = Number(process.hrtime.bigint() - started) / 1e6;
  if (status !== 0) throw new Error(`${script} failed: ${stderr}`);
  return { ms, maxRssKiB: Number(output[3]) };
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

interface Case {
  readonly script: string;
  readonly input: string;
}

/** Medians of `rounds` runs of each case, interleaved. */
function measure<K extends string>(node: string, cases: Record<K, Case>, rounds: number): Record<K, Run> {
  const names = Object.keys(cases) as K[];
  const runs = new Map<K, Run[]>(names.map((name) => [name, []]));
  for (let i = 0; i < rounds; i++)
    for (const name of names) runs.get(name)?.push(run(node, cases[name].script, cases[name].input));
  const entries = names.map((name) => {
    const all = runs.get(name) ?? [];
    return [name, { ms: median(all.map(({ ms }) => ms)), maxRssKiB: median(all.map(({ maxRssKiB }) => maxRssKiB)) }];
  });
  return Object.fromEntries(entries) as Record<K, Run>;
}

const indented = (text: string): string => text.replaceAll(/^(?=.)/gm, '  ').replace(/^ {2}/, '- ');

/** A ResourceList of the base's objects and as many foreign ones as make `items`, with `cidrs` peer CIDRs in the configuration. */
function resourceList(base: readonly string[], items: number, cidrs: number): string {
  const foreign = Array.from({ length: Math.max(0, items - base.length) }, (_, i) => FOREIGN(i));
  const ranges = Array.from(
    { length: cidrs },
    (_, i) => `    - 172.${16 + (i >> 12)}.${(i >> 4) & 255}.${(i & 15) << 4}/28\n`,
  );
  return `apiVersion: config.kubernetes.io/v1
kind: ResourceList
items:
${[...base, ...foreign].map(indented).join('')}functionConfig:
  apiVersion: constellation-vpn.io/v1alpha1
  kind: ConstellationVPN
  metadata:
    name: vpn
  spec:
    ipsec:
      peer: 100.64.0.1
      pskSecretRef:
        name: vpn-psk
    peerCIDRs:
${ranges.join('')}`;
}

/** About 700 bytes, as the average object of a large rendering. */
const FOREIGN = (i: number): string => `apiVersion: v1
kind: ConfigMap
metadata:
  name: application-${i}
  namespace: tenant-${i % 97}
  labels:
    app.kubernetes.io/name: application
    app.kubernetes.io/instance: tenant-${i % 97}
    app.kubernetes.io/managed-by: kustomize
  annotations:
    config.kubernetes.io/index: '${i}'
    internal.config.kubernetes.io/index: '${i}'
data:
  mode: "0644"
  enabled: "on"
  limits: '{"cpu": 2, "memory": "1Gi"}'
  settings.ini: |
    [server]
    # listens everywhere
    address = 0.0.0.0
    port = ${8000 + (i % 1000)}
    timeout = 22:30
    [log]
    level = info
    format = json
`;

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '15' }, node: { type: 'string', default: process.execPath } },
});
const rounds = Number(values.rounds);
const { path: kustomize } = await findTool('kustomize');
const built = await execa(kustomize, ['build', 'base'], { cwd: ROOT, stripFinalNewline: false });
const base = built.stdout.split(/^---\n/m);
const version = spawnSync(values.node, ['--version'], { encoding: 'utf8' }).stdout.trim();
console.log(
  `Node ${version}, ${cpus()[0]?.model ?? 'unknown CPU'}, ${cpus().length} cores, medians of ${rounds} interleaved runs\n`,
);

const small = resourceList(base, 20, 1);

/** What any function pays that reads its input with js-yaml: bundled as ours are, it reads, parses and does nothing. */
const YAML_ONLY = join(folder, 'yaml-only.cjs');
await esbuild.build({
  stdin: {
    contents: "import { load } from 'js-yaml'; import { readFileSync } from 'node:fs'; load(readFileSync(0, 'utf8'));",
    resolveDir: ROOT,
  },
  bundle: true,
  minify: true,
  platform: 'node',
  target: 'node18',
  mainFields: ['module', 'main'],
  outfile: YAML_ONLY,
});
const dist = (name: string): string => join(ROOT, 'functions/dist', name);
const processes = measure(
  values.node,
  Object.fromEntries([
    ['empty Node process', { script: EMPTY, input: small }],
    ['js-yaml reading the same input', { script: YAML_ONLY, input: small }],
    ...FUNCTIONS.map((name) => [name, { script: dist(name), input: small }]),
  ]) as Record<string, Case>,
  rounds,
);
const empty = processes['empty Node process']?.ms ?? Number.NaN;
console.log('| one process, 20 items | ms | of an empty process (target 1.5) |\n|---|---|---|');
for (const [name, { ms }] of Object.entries(processes))
  console.log(`| ${name} | ${ms.toFixed(0)} | ${(ms / empty).toFixed(2)} |`);

const script = dist('constellation-vpn');
const sizes = measure(
  values.node,
  {
    '1,000 items': { script, input: resourceList(base, 1000, 1) },
    '10,000 items': { script, input: resourceList(base, 10_000, 1) },
    '1,000 CIDRs': { script, input: resourceList(base, 20, 1000) },
    '10,000 CIDRs': { script, input: resourceList(base, 20, 10_000) },
  },
  Math.max(3, Math.ceil(rounds / 3)),
);
console.log(
  '\n| constellation-vpn | ms | of a tenth of it (target 12) | MiB resident (target 400) |\n|---|---|---|---|',
);
for (const what of ['items', 'CIDRs'] as const) {
  const one = sizes[`1,000 ${what}`];
  const ten = sizes[`10,000 ${what}`];
  console.log(`| 1,000 ${what} | ${one.ms.toFixed(0)} | | ${(one.maxRssKiB / 1024).toFixed(0)} |`);
  console.log(
    `| 10,000 ${what} | ${ten.ms.toFixed(0)} | ${(ten.ms / one.ms).toFixed(1)} | ${(ten.maxRssKiB / 1024).toFixed(0)} |`,
  );
}
rmSync(folder, { recursive: true });
