/**
 * Bundles each agent into one file in agents/dist, an ES module for Node 22 and later. They are not committed: the agents'
 * image is built from them.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import * as esbuild from 'esbuild';

const ROOT = new URL('..', import.meta.url).pathname;

export const AGENTS = ['endpoint-sync', 'routing', 'frontend'] as const;

/**
 * For Node itself, since they count from the start of the process on only: a small young generation, and a limit that lets
 * the collector run before the container's limit is near. Without them 10,000 ranges take 280 MiB instead of 100.
 */
export const NODE_FLAGS = ['--max-semi-space-size=1', '--max-old-space-size=64'] as const;

/**
 * client-node's KubeConfig brings an HTTP client, SOCKS and HTTP proxies and OpenID Connect along, which an agent with a
 * ServiceAccount never calls: 20 MiB of memory and most of the start.
 */
const UNUSED = /^(undici|openid-client|socks|socks-proxy-agent|hpagent|jsonpath-plus|isomorphic-ws|ws)$/;
/** Its generated API and models, of which KubeConfig only wants what makeApiClient calls. */
const UNUSED_API = /^\.\/gen\/index\.js$/;

const withoutUnusedClients: esbuild.Plugin = {
  name: 'without-unused-clients',
  setup(build) {
    build.onResolve({ filter: UNUSED }, ({ path }) => ({ path, namespace: 'unused' }));
    build.onResolve({ filter: UNUSED_API }, ({ importer, path }) =>
      importer.includes('@kubernetes/client-node') ? { path, namespace: 'unused' } : undefined,
    );
    build.onLoad({ filter: /.*/, namespace: 'unused' }, () => ({ contents: 'module.exports = {};' }));
  },
};

/** The bundle's text. The same sources give the same bytes. */
export async function bundleAgent(name: string): Promise<string> {
  const { outputFiles } = await esbuild.build({
    absWorkingDir: ROOT,
    entryPoints: [`agents/${name}/main.ts`],
    bundle: true,
    write: false,
    platform: 'node',
    target: 'node22',
    format: 'esm',
    minifySyntax: true,
    minifyWhitespace: true,
    keepNames: true,
    charset: 'utf8',
    legalComments: 'none',
    banner: {
      js: `#!/usr/bin/env -S node ${NODE_FLAGS.join(' ')}\nimport { createRequire } from 'node:module';const require = createRequire(import.meta.url);`,
    },
    alias: { 'fp-ts/lib': 'fp-ts/es6' },
    plugins: [withoutUnusedClients],
  });
  return outputFiles[0]?.text ?? '';
}

/** Writes the bundles to `folder` and answers their paths. */
export async function buildAgents(folder: string): Promise<string[]> {
  await mkdir(folder, { recursive: true });
  return Promise.all(
    AGENTS.map(async (name) => {
      const path = `${folder}/${name}.mjs`;
      await writeFile(path, await bundleAgent(name), { mode: 0o755 });
      return path;
    }),
  );
}

if (import.meta.main) {
  parseArgs({ options: {} });
  for (const path of await buildAgents(`${ROOT}agents/dist`)) console.log(path);
}
