/** `npm run render`: prints what kustomize renders a folder to, functions included. */
import { glob, readdir } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { findTool, ToolMissing } from './tools.ts';

const usage = `Usage: npm run --silent render [-- DIR]

Prints the manifests that kustomize renders DIR to (default: the current folder). DIR is a folder with a
kustomization.yaml, such as overlays/gcp. The same without npm:

  kustomize build --enable-alpha-plugins --enable-exec DIR

kustomize is $KUSTOMIZE, else the one on PATH, else one that is built with Go, once.
Without --silent, npm prints two lines of its own in front of the manifests.
`;

/** File names that kustomize takes (api/konfig/general.go). */
const kustomizationFiles = ['kustomization.yaml', 'kustomization.yml', 'Kustomization'];

/** The user's mistake: the message is all there is to say. */
class Mistake extends Error {}

/** Returns the exit code. `folder`: where the user is. */
async function render(args: readonly string[], folder: string): Promise<number> {
  const { help, dir } = parse(args);
  if (help) {
    process.stdout.write(usage);
    return 0;
  }
  const fault = await findFault(resolve(folder, dir));
  if (fault !== undefined) {
    const overlays = await listOverlays(join(import.meta.dirname, '..'));
    const paths = overlays.map((overlay) => relative(folder, overlay));
    throw new Mistake(faultMessage(dir, fault, paths));
  }
  const kustomize = await findTool('kustomize');
  const { exitCode } = await execa(
    kustomize.path,
    ['build', '--enable-alpha-plugins', '--enable-exec', resolve(folder, dir)],
    { stdio: 'inherit', reject: false },
  );
  return exitCode ?? 1; // undefined: ended by a signal
}

function parse(args: readonly string[]): { help: boolean; dir: string } {
  const { values, positionals } = parseStrictly(args);
  if (positionals.length > 1) {
    throw new Mistake(`expected one DIR, not ${positionals.length}: ${positionals.join(' ')}.`);
  }
  return { help: values.help, dir: positionals[0] ?? '.' };
}

function parseStrictly(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { help: { type: 'boolean', short: 'h', default: false } },
    });
  } catch (error) {
    const [sentence = ''] = (error as Error).message.split('. ');
    throw new Mistake(`${sentence}; --help tells more.`);
  }
}

/** Why kustomize can't build a folder, as a predicate for it. */
export async function findFault(dir: string): Promise<string | undefined> {
  try {
    const names = await readdir(dir);
    return kustomizationFiles.some((name) => names.includes(name)) ? undefined : 'holds no kustomization.yaml';
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return 'does not exist';
    if (code === 'ENOTDIR') return 'is not a folder';
    return `can't be read (${code})`;
  }
}

/** Absolute paths. An overlay's other subfolders hold function configurations and are no overlays. */
export async function listOverlays(root: string): Promise<string[]> {
  const overlays: string[] = [];
  for await (const file of glob('overlays/{*,*/cilium}/kustomization.yaml', { cwd: root })) {
    overlays.push(join(root, dirname(file)));
  }
  return overlays.sort();
}

export function faultMessage(dir: string, fault: string, overlays: readonly string[]): string {
  return `${dir} ${fault}; ${overlays.length > 0 ? `the overlays are ${overlays.join(', ')}` : 'there are no overlays'}.`;
}

/**
 * The folder that the user is in: `npm run` starts its script in the package's and leaves the user's in INIT_CWD. The
 * other scripts of npm leave theirs there too, which says nothing to a render that they start.
 */
export function userFolder(env: NodeJS.ProcessEnv, cwd: string): string {
  return env.npm_lifecycle_event === 'render' ? (env.INIT_CWD ?? cwd) : cwd;
}

if (import.meta.main) {
  try {
    process.exitCode = await render(process.argv.slice(2), userFolder(process.env, process.cwd()));
  } catch (error) {
    if (!(error instanceof Mistake || error instanceof ToolMissing)) throw error;
    process.stderr.write(`render: ${error.message}\n`);
    process.exitCode = 1;
  }
}
