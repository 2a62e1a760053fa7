/**
 * The thin runner behind every function: stdin to stdout as the functions spec has it. kpt-functions' own `run()` breaks
 * that spec in many ways (docs/adr/0002); its `runFnWithConfigs`, which keeps the annotations of older orchestrators in
 * step, is used for what a function changed.
 */
import { fstatSync, readSync, writeSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { KubernetesObject } from 'kpt-functions/dist/src/types.js';
import { Configs } from 'kpt-functions/dist/src/types.js';
import { runFnWithConfigs } from 'kpt-functions/dist/src/run.js';
import { decodeConfig, type Config } from '../model/config.ts';
import { isRecord, type Item, type Outcome, type Result } from '../model/krm.ts';
import { BadInput, parseResourceList } from './resource-list.ts';
import { formatResult, summary } from './report.ts';
import { plain } from './yaml.ts';

export interface KrmFunction {
  readonly name: string;
  /** What it does, for `--help`. */
  readonly usage: string;
  /** Pure: the same input gives the same output; untouched items are returned as the same objects. */
  readonly transform: (items: readonly Item[], config: Config) => Outcome;
}

/** The outside world of one run. */
export interface Process {
  readonly args: readonly string[];
  readonly colour: boolean;
  /** Reads all of stdin. */
  readonly read: () => Promise<string>;
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

/** Answers the exit code: 0, or 1 with the reasons on stderr and nothing on stdout. */
export async function run(fn: KrmFunction, process: Process): Promise<0 | 1> {
  const report = (results: readonly Result[]) => {
    for (const result of results) process.err(`${formatResult(result, process.colour)}\n`);
  };
  try {
    const { values } = parseArgs({ args: [...process.args], options: { help: { type: 'boolean', short: 'h' } } });
    if (values.help === true) {
      process.out(help(fn));
      return 0;
    }
    const list = parseResourceList(await process.read());
    const config = decodeConfig(plain(list.functionConfig), fn.name);
    if ('results' in config) {
      report(config.results);
      return 1;
    }
    const { items, results } = await transform(fn, list.items, config);
    report(results);
    if (results.some(({ severity }) => severity === 'error')) return 1;
    process.out(list.render(items, results));
    process.err(summary(fn.name, config.vpn));
    return 0;
  } catch (error) {
    report([{ severity: 'error', message: `${fn.name}: ${sentence(error)}` }]);
    return 1;
  }
}

/** The whole text of `--help`; `kpt fn doc` prints it, too. */
function help({ name, usage }: KrmFunction): string {
  return `Usage: ${name} [--help] < resource-list.yaml > resource-list.yaml

${usage.trim()}

A KRM function: reads a ResourceList on stdin, writes it to stdout, and says what it found on stderr, a line each. Its
functionConfig is a ConstellationVPN object. After any error the exit code is 1 and nothing is written. It is meant to
be run by kustomize and kpt:

  kustomize build --enable-alpha-plugins --enable-exec overlays/gcp
  kpt fn render --allow-exec
`;
}

function sentence(error: unknown): string {
  if (error instanceof BadInput) return `${error.message}. Usage: --help`;
  const message = error instanceof Error ? error.message : String(error);
  const usage = error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
  if (error instanceof Error && 'syscall' in error) return `reading stdin: ${message}`;
  return usage ? `${message}. Usage: --help` : `internal error, please report it: ${message}`;
}

/** The function as kpt-functions knows it, run on what it touches. */
async function transform(fn: KrmFunction, items: readonly Item[], config: Config): Promise<Outcome> {
  const outcome = fn.transform(items, config);
  const untouched = new Set(items);
  const insertTouched = async (configs: Configs) => {
    configs.insert(
      ...outcome.items.filter((item) => !untouched.has(item) && isRecord(item.metadata)).map(asKubernetesObject),
    );
  };
  await runFnWithConfigs(Object.assign(insertTouched, { usage: fn.usage }), new Touched());
  return outcome;
}

const asKubernetesObject = (item: Item): KubernetesObject => item as unknown as KubernetesObject;

/**
 * The objects that a function added or changed, in their order. Foreign ones never pass through kpt-functions: its
 * annotations would alter them, and its `Configs` sorts, merges duplicates and needs names.
 */
class Touched extends Configs {
  readonly #items: KubernetesObject[] = [];
  override insert(...items: KubernetesObject[]): void {
    // the base class's constructor calls this with nothing, before there is a list
    if (items.length > 0) this.#items.push(...items);
  }
  override getAll(): KubernetesObject[] {
    return this.#items;
  }
}

/** Runs `fn` on the real process. */
export async function main(fn: KrmFunction): Promise<void> {
  const output: [fd: 1 | 2, text: string][] = [];
  process.exitCode = await run(fn, {
    args: process.argv.slice(2),
    colour: (process.env.NO_COLOR ?? '') === '' && (await isTerminal(2)),
    read: async () => {
      if (await isTerminal(0))
        writeSync(2, `${fn.name}: reading a ResourceList from the terminal; --help shows the usage\n`);
      return readStdin();
    },
    out: (text) => output.push([1, text]),
    err: (text) => output.push([2, text]),
  });
  for (const [fd, text] of output) write(fd, text);
}

/*
 * Node's own streams load its network modules, which every start of a function would pay for. So the descriptors are
 * used in place, and a stream only takes over where another process made a pipe non-blocking and it answers EAGAIN.
 */

const isTerminal = async (fd: number): Promise<boolean> =>
  fstatSync(fd).isCharacterDevice() && (await import('node:tty')).isatty(fd);

const isAgain = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'EAGAIN';
const CHUNK_BYTES = 1 << 16;

async function readStdin(): Promise<string> {
  const chunks: Buffer[] = [];
  try {
    for (;;) {
      const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
      const length = readSync(0, chunk);
      if (length === 0) return Buffer.concat(chunks).toString('utf8');
      chunks.push(chunk.subarray(0, length));
    }
  } catch (error) {
    if (!isAgain(error)) throw error;
  }
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

function write(fd: 1 | 2, text: string): void {
  const bytes = Buffer.from(text, 'utf8');
  let written = 0;
  try {
    while (written < bytes.length) written += writeSync(fd, bytes, written);
  } catch (error) {
    if (!isAgain(error)) return notWritten(fd, error);
    (fd === 1 ? process.stdout : process.stderr).write(bytes.subarray(written));
  }
}

/** A reader that went away or a full disk: the exit code says so, and stderr where that is not the one lost. */
function notWritten(fd: 1 | 2, error: unknown): void {
  process.exitCode = 1;
  const message = `stdout: ${error instanceof Error ? error.message : String(error)}`;
  if (fd === 1) write(2, `${formatResult({ severity: 'error', message }, false)}\n`);
}
