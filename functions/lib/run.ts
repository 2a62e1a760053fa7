/**
 * The thin runner behind every function: stdin to stdout as the functions spec has it. kpt-functions' own `run()` breaks
 * that spec in many ways (docs/adr/0002); its `runFnWithConfigs`, which keeps the annotations of older orchestrators in
 * step, is used for what a function changed.
 */
import { readSync } from 'node:fs';
import { isatty } from 'node:tty';
import { parseArgs } from 'node:util';
import type { KubernetesObject } from 'kpt-functions/dist/src/types.js';
import { Configs } from 'kpt-functions/dist/src/types.js';
import { runFnWithConfigs } from 'kpt-functions/dist/src/run.js';
import { decodeConfig, type Config } from '../model/config.ts';
import type { Item, Outcome, Result } from '../model/krm.ts';
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
  return usage ? `${message}. Usage: --help` : `internal error, please report it: ${message}`;
}

/** The function as kpt-functions knows it, run on what it touches. */
async function transform(fn: KrmFunction, items: readonly Item[], config: Config): Promise<Outcome> {
  const outcome = fn.transform(items, config);
  const untouched = new Set(items);
  const insertTouched = async (configs: Configs) => {
    configs.insert(...outcome.items.filter((item) => !untouched.has(item)).map(asKubernetesObject));
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
  const { stdout, stderr, argv, env } = process;
  process.exitCode = await run(fn, {
    args: argv.slice(2),
    colour: isatty(2) && env.NO_COLOR === undefined,
    read: () => {
      if (isatty(0)) stderr.write(`${fn.name}: reading a ResourceList from the terminal; --help shows the usage\n`);
      return readStdin();
    },
    out: (text) => stdout.write(text),
    err: (text) => stderr.write(text),
  });
}

/**
 * All of stdin. Read in place, which is what a function's start can afford; a pipe whose other end made it non-blocking
 * answers EAGAIN while it is empty, and the rest is then awaited as a stream.
 */
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
    if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error;
  }
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

const CHUNK_BYTES = 1 << 16;
