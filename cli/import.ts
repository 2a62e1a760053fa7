/** `npm run import`: the values of the old Helm chart as a configuration file and a Secret. */
import { randomUUID } from 'node:crypto';
import { lstat, mkdir, readFile, realpath, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { parseArgs } from 'node:util';
import { formatResult } from '../functions/lib/report.ts';
import type { Severity } from '../functions/model/krm.ts';
import type { Problem } from '../functions/model/codec.ts';
import { configurationText, importValues, parseValues, secretText, type Places } from './values.ts';

const usage = `Usage: npm run import -- VALUES [--out DIR] [--force]

Turns the values of the old Helm chart (helm get values RELEASE --all -o yaml) into two files:

  vpn.yaml             the configuration, without the pre-shared key
  vpn-psk.secret.yaml  a Secret with the pre-shared key, which vpn.yaml refers to

  --out DIR  where to write them (default: the current folder). In overlays/<name>/functions, vpn.yaml fits that
             overlay; anywhere else it fits functions/config.
  --force    replace files that are there

It writes both files or none. docs/import.md tells how to move from the chart.
`;

const CONFIGURATION = 'vpn.yaml';
const SECRET = 'vpn-psk.secret.yaml';

/** The user's mistake: the message is all there is to say. */
class Mistake extends Error {}

/** Returns the exit code. `folder`: where the user is. `root`: the project's folder. */
async function importChart(args: readonly string[], folder: string, root: string): Promise<number> {
  const { help, force, values, out } = parse(args);
  if (help) {
    process.stdout.write(usage);
    return 0;
  }
  const imported = importValues(await readValues(resolve(folder, values), values));
  if ('problems' in imported) {
    report('error', imported.problems, values);
    return 1;
  }
  const dir = resolve(folder, out);
  const shown = (name: string) => join(out, name);
  const home = homeOf(await realPath(dir), root);
  const files = [
    { path: join(dir, SECRET), text: secretText(imported.psk), mode: 0o600 },
    { path: join(dir, CONFIGURATION), text: configurationText(imported.spec, home.places), mode: 0o644 },
  ];
  await refuseOverwriting(resolve(folder, values), files, force, shown);
  try {
    await mkdir(dir, { recursive: true });
    await writeAll(files);
  } catch (error) {
    throw new Mistake(`${out} can't be written to (${errorCode(error)}); nothing was written.`);
  }
  report('warning', imported.warnings, values);
  process.stdout.write(
    nextSteps({
      configuration: shown(CONFIGURATION),
      secret: shown(SECRET),
      values,
      peer: String((imported.spec.ipsec as { peer: unknown }).peer),
      target: home.isThere ? undefined : relative(folder, join(root, 'functions/config', CONFIGURATION)),
      render: home.render,
    }),
  );
  return 0;
}

function parse(args: readonly string[]): { help: boolean; force: boolean; values: string; out: string } {
  const { values, positionals } = parseStrictly(args);
  const [file] = positionals;
  if (!values.help && (file === undefined || positionals.length > 1))
    throw new Mistake(`expected one file of values, not ${positionals.length}; --help tells more.`);
  return { ...values, values: file ?? '' };
}

function parseStrictly(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h', default: false },
        force: { type: 'boolean', default: false },
        out: { type: 'string', default: '.' },
      },
    });
  } catch (error) {
    const [sentence = ''] = (error as Error).message.split('. ');
    throw new Mistake(`${sentence}; --help tells more.`);
  }
}

async function readValues(path: string, shown: string): Promise<Record<string, unknown>> {
  const parsed = parseValues(utf8(await read(path, shown), shown));
  if ('fault' in parsed) throw new Mistake(`${shown} ${parsed.fault}.`);
  return parsed.values;
}

async function read(path: string, shown: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT') throw new Mistake(`${shown} does not exist.`);
    if (code === 'EISDIR') throw new Mistake(`${shown} is a folder; name the file with the chart's values.`);
    throw new Mistake(`${shown} can't be read (${code}).`);
  }
}

/** Strict: a replacement character would change the key. */
function utf8(bytes: Uint8Array, shown: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new Mistake(`${shown} is not UTF-8 text (PowerShell's > may have written UTF-16); convert it.`);
  }
}

function report(severity: Severity, problems: readonly Problem[], shown: string): void {
  const colour = process.stderr.isTTY && process.env.NO_COLOR === undefined;
  for (const { path, message, proposed } of problems) {
    const field = { path, ...(proposed === undefined ? {} : { proposedValue: proposed }) };
    process.stderr.write(`${formatResult({ severity, message, field, file: { path: shown } }, colour)}\n`);
  }
}

interface Home {
  readonly places: Places;
  /** True where a configuration in the folder takes effect without being moved. */
  readonly isThere: boolean;
  /** The argument of `npm run render`. */
  readonly render: string;
}

/** What a configuration in `dir` belongs to: the overlay whose functions folder `dir` is, else functions/config. */
export function homeOf(dir: string, root: string): Home {
  const isOverlays = basename(dir) === 'functions' && dir.startsWith(join(root, 'overlays') + sep);
  const folder = isOverlays ? dir : join(root, 'functions/config');
  const kustomization = isOverlays ? dirname(dir) : root;
  return {
    places: {
      program: relative(kustomization, join(root, 'functions/dist/constellation-vpn')),
      schema: relative(folder, join(root, 'functions/schema/constellation-vpn.schema.json')),
    },
    isThere: dir === folder,
    render: isOverlays ? ` -- ${relative(root, kustomization)}` : '',
  };
}

/** Without symbolic links, where the folder is there. */
async function realPath(dir: string): Promise<string> {
  try {
    return await realpath(dir);
  } catch {
    return dir;
  }
}

interface File {
  readonly path: string;
  readonly text: string;
  readonly mode: number;
}

async function refuseOverwriting(
  values: string,
  files: readonly File[],
  force: boolean,
  shown: (name: string) => string,
): Promise<void> {
  const there: string[] = [];
  for (const { path } of files) {
    const name = shown(basename(path));
    const stats = await lstat(path).catch((error: unknown) => {
      if (['ENOENT', 'ENOTDIR'].includes(errorCode(error))) return undefined;
      throw new Mistake(`${name} can't be looked at (${errorCode(error)}).`);
    });
    if (stats === undefined) continue;
    if (stats.isDirectory()) throw new Mistake(`${name} is a folder; name another one for the files with --out DIR.`);
    if ((await realPath(path)) === (await realPath(values)))
      throw new Mistake(`${name} is the file with the values itself; name another folder with --out DIR.`);
    there.push(name);
  }
  if (there.length === 0 || force) return;
  const are = there.length === 1 ? 'is' : 'are';
  throw new Mistake(
    `${there.join(' and ')} ${are} there already, so nothing was written; --force replaces, --out DIR writes elsewhere.`,
  );
}

/** All files or none: each is written beside its place first, and what has been replaced is put back if one fails. */
export async function writeAll(files: readonly File[]): Promise<void> {
  const drafts = files.map((file) => ({ ...file, draft: `${file.path}.${randomUUID()}` }));
  const undo: (() => Promise<void>)[] = [];
  try {
    for (const { draft, text, mode } of drafts) await writeFile(draft, text, { mode, flag: 'wx' });
    for (const { draft, path, mode } of drafts) {
      const previous = await readFile(path).catch((error: unknown) => {
        if (errorCode(error) !== 'ENOENT') throw error;
      });
      await rename(draft, path);
      undo.push(() => (previous === undefined ? rm(path) : writeFile(path, previous, { mode })));
    }
  } catch (error) {
    for (const step of undo) await step();
    throw error;
  } finally {
    for (const { draft } of drafts) await rm(draft, { force: true });
  }
}

const errorCode = (error: unknown): string => {
  const { code } = error as NodeJS.ErrnoException;
  if (code === undefined) throw error; // ours, not the system's
  return code;
};

interface Written {
  readonly configuration: string;
  readonly secret: string;
  readonly values: string;
  readonly peer: string;
  /** Where the configuration is to be moved to. */
  readonly target: string | undefined;
  readonly render: string;
}

function nextSteps({ configuration, secret, values, peer, target, render }: Written): string {
  const move = target === undefined ? '' : `       mv ${configuration} ${target}\n`;
  return `Wrote ${configuration}, the configuration.
Wrote ${secret}, a Secret with the pre-shared key that only you can read.

Next:
  1. Keep the key out of git: ${secret}, and ${values}, which holds it too.
     Create the Secret in the cluster, where its namespace must exist:
       kubectl create -f ${secret}
     or encrypt it for Flux, before you commit it:
       sops encrypt --in-place --encrypted-regex '^data$' ${secret}
     Then delete what is left in clear.
  2. Look at the manifests:
${move}       npm run render${render}
  3. Tell the other gateway our new identity, and if it calls itself anything but ${peer}
     (behind NAT it usually does), write that into ipsec.remoteID. The chart accepted any.
  4. docs/import.md has the way from the old release to the new one.
`;
}

/** The folder that the user is in: `npm run` starts its script in the package's and leaves the user's in INIT_CWD. */
export function userFolder(env: NodeJS.ProcessEnv, cwd: string): string {
  return env.npm_lifecycle_event === 'import' ? (env.INIT_CWD ?? cwd) : cwd;
}

if (import.meta.main) {
  try {
    const root = join(import.meta.dirname, '..');
    process.exitCode = await importChart(process.argv.slice(2), userFolder(process.env, process.cwd()), root);
  } catch (error) {
    if (!(error instanceof Mistake)) throw error;
    process.stderr.write(`import: ${error.message}\n`);
    process.exitCode = 1;
  }
}
