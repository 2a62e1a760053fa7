/** A program of inside.ts, run in a namespace, and the talk with it. */
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ProgramName } from './inside.ts';
import type { Place } from './netns.ts';

const INSIDE = fileURLToPath(new URL('inside.ts', import.meta.url));

export interface Program {
  /** What it said first, when it was at work. */
  readonly first: { readonly port?: number };
  /** Sends it a line. */
  say(line: string): void;
  /** Resolves with the next line that it says; throws with its stderr when it has ended instead. */
  next<T>(): Promise<T>;
  /** Asks for its last line, and waits for its end. */
  finish<T>(): Promise<T>;
  kill(): Promise<void>;
  /** Resolves when it has ended, for whatever reason. */
  readonly ended: Promise<void>;
}

/** Throws with its stderr when it ends before it is at work. */
export async function startProgram(ns: Place, name: ProgramName, ...args: (string | number)[]): Promise<Program> {
  const [node, file] = ns.inside ?? [process.execPath, INSIDE];
  const child = ns.start(node, [file, name, ...args.map(String)], {
    stdin: 'pipe',
    buffer: { stdout: false, stderr: true },
  });
  // Writing to one that has ended; who waits for an answer hears of it.
  child.stdin.on('error', () => undefined);
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const next = async <T>() => {
    const line = await lines.next();
    if (line.done !== true) return JSON.parse(line.value) as T;
    throw new Error(`${name} in ${ns.name} ended: ${(await child).stderr}`);
  };
  const ended = child.then(() => undefined);
  return {
    first: await next(),
    say: (line) => child.stdin.write(`${line}\n`),
    next,
    async finish() {
      child.stdin.end();
      const [last] = await Promise.all([next(), ended]);
      return last as never;
    },
    kill() {
      child.kill('SIGKILL');
      return ended;
    },
    ended,
  };
}
