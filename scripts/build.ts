/**
 * Bundles each function into one self-contained executable in functions/dist, for Node 18 and later. The bundles are
 * committed: kustomize and kpt run them from a checkout or a remote base, without npm. `--check` writes nothing and
 * fails where the committed ones are not what the sources give.
 */
import { chmod, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import * as esbuild from 'esbuild';

const ROOT = new URL('..', import.meta.url).pathname;
const DIST = `${ROOT}functions/dist`;

export const FUNCTIONS = [
  'constellation-vpn',
  'inject-ipsec-secret',
  'inject-peer-cidrs',
  'patch-cilium-sctp',
  'validate-vpn',
] as const;

/**
 * kpt-functions' `run.js` also holds a command line of its own (argparse, its io.js with js-yaml 3, a console on Node's
 * streams), which is never called here and would double the time a function takes to start.
 */
const withoutUnusedCommandLine: esbuild.Plugin = {
  name: 'without-unused-command-line',
  setup(build) {
    build.onResolve({ filter: /^(argparse|\.\/io)$/ }, ({ importer, path }) =>
      importer.includes('kpt-functions') ? { path, namespace: 'unused' } : undefined,
    );
    build.onLoad({ filter: /.*/, namespace: 'unused' }, () => ({ contents: 'module.exports = {};' }));
  },
};

/** The bundle's text. The same sources give the same bytes. */
export async function bundle(name: string): Promise<string> {
  const { outputFiles } = await esbuild.build({
    absWorkingDir: ROOT,
    entryPoints: [`functions/src/${name}_run.ts`],
    bundle: true,
    write: false,
    platform: 'node',
    target: 'node18',
    format: 'cjs',
    mainFields: ['module', 'main'],
    minify: true,
    charset: 'utf8',
    legalComments: 'none',
    banner: { js: '#!/usr/bin/env node\n// Built by `npm run build` from functions/src; do not edit.' },
    alias: { 'fp-ts/lib': 'fp-ts/es6' },
    plugins: [withoutUnusedCommandLine],
  });
  return outputFiles[0]?.text ?? '';
}

async function isFresh(path: string, text: string): Promise<boolean> {
  try {
    return (await readFile(path, 'utf8')) === text && ((await stat(path)).mode & 0o777) === 0o755;
  } catch {
    return false;
  }
}

async function write(): Promise<void> {
  await mkdir(DIST, { recursive: true });
  for (const name of FUNCTIONS) {
    const text = await bundle(name);
    await writeFile(`${DIST}/${name}`, text);
    await chmod(`${DIST}/${name}`, 0o755);
    console.log(`functions/dist/${name} ${Math.ceil(text.length / 1024)} kB`);
  }
}

async function check(): Promise<void> {
  const stale: string[] = [];
  for (const name of FUNCTIONS)
    if (!(await isFresh(`${DIST}/${name}`, await bundle(name)))) stale.push(`functions/dist/${name}`);
  if (stale.length === 0) return;
  console.error(`${stale.join(', ')}: not what the sources give. Run \`npm run build\` and commit the result.`);
  process.exitCode = 1;
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { check: { type: 'boolean' } } });
  await (values.check === true ? check() : write());
}
