/** Runs programs: no shell, fixed locale, a time limit. nano-spawn does the work: small, no dependencies, kept up by execa's authors. */
import { spawn as spawnChild, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import spawn, { type SubprocessError } from 'nano-spawn';

/** Default limit for a program to end, in milliseconds; one that hangs is killed. */
const TIMEOUT_MS = 20_000;
const ENV = { LC_ALL: 'C' };

/** `reason`: `missing` (no such program), `timeout`, `failed`. The message names program and cause. */
export class ExecError extends Error {
  override name = 'ExecError';
  readonly reason: 'missing' | 'timeout' | 'failed';
  readonly stdout: string;
  readonly stderr: string;
  constructor(
    command: string,
    reason: ExecError['reason'],
    detail: string,
    output: { stdout: string; stderr: string },
    options?: ErrorOptions,
  ) {
    super(`${command}: ${detail}`, options);
    this.reason = reason;
    this.stdout = output.stdout;
    this.stderr = output.stderr;
  }
}

export interface ExecOptions {
  /** For stdin, which is empty otherwise. In parts: the program has begun before the last of them are made. */
  readonly input?: string | Iterable<string>;
  readonly timeoutMs?: number;
}

/** What the program printed to stdout. Throws ExecError, also where it ended with another code than 0. */
export async function exec(command: string, args: readonly string[], options: ExecOptions = {}): Promise<string> {
  const { input = '', timeoutMs = TIMEOUT_MS } = options;
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    const child = spawn(command, args, { env: ENV, signal, killSignal: 'SIGKILL' });
    const [{ stdout }] = await Promise.all([child, write(child.nodeChildProcess, input)]);
    return stdout;
  } catch (error) {
    throw execError(command, error, signal.aborted ? timeoutMs : undefined);
  }
}

/** What goes wrong here ends the program, and that is told. */
async function write(starting: Promise<ChildProcess>, input: string | Iterable<string>): Promise<void> {
  const { stdin } = await starting;
  for (const part of typeof input === 'string' ? [input] : input) stdin?.write(part);
  stdin?.end();
}

/**
 * Calls `onLine` for each line that the program prints, to stdout or stderr, until it ends or `signal` is aborted. Throws
 * ExecError where it ended by itself, whatever its code. (Not nano-spawn: it keeps all output, or takes a promise a line.)
 */
export async function follow(
  command: string,
  args: readonly string[],
  onLine: (line: string, stream: 'stdout' | 'stderr') => void,
  signal: AbortSignal,
): Promise<void> {
  const env = { ...process.env, ...ENV };
  const child = spawnChild(command, args, { env, signal, killSignal: 'SIGKILL', stdio: ['ignore', 'pipe', 'pipe'] });
  let lastError = '';
  eachLine(child.stdout, (line) => onLine(line, 'stdout'));
  eachLine(child.stderr, (line) => {
    lastError = line;
    onLine(line, 'stderr');
  });
  const failed = once(child, 'error').then(([error]) => error as NodeJS.ErrnoException);
  const ended = once(child, 'close').then(([code, name]) => `ended with ${name ?? `exit code ${code}`}`);
  const end = await Promise.race([failed, ended]);
  if (signal.aborted) return;
  const output = { stdout: '', stderr: lastError };
  if (typeof end === 'string') throw new ExecError(command, 'failed', `${end}${firstLine(lastError)}`, output);
  throw execError(command, end);
}

/** Of thousands of lines at a time; node:readline takes a promise for each. */
function eachLine(stream: Readable, onLine: (line: string) => void): void {
  let rest = '';
  stream.setEncoding('utf8').on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) onLine(line);
  });
}

function execError(command: string, error: unknown, timeoutMs?: number): ExecError {
  const { stdout = '', stderr = '', exitCode, signalName, cause } = error as Partial<SubprocessError>;
  const output = { stdout, stderr };
  const options = { cause: error };
  const code = codeOf(error) ?? codeOf(cause);
  if (code === 'ENOENT') return new ExecError(command, 'missing', 'is not on PATH', output, options);
  if (timeoutMs !== undefined)
    return new ExecError(command, 'timeout', `did not end within ${timeoutMs} ms and was killed`, output, options);
  const end = signalName ?? `exit code ${exitCode ?? code ?? 'unknown'}`;
  return new ExecError(command, 'failed', `ended with ${end}${firstLine(stderr)}`, output, options);
}

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException | undefined)?.code;

function firstLine(stderr: string): string {
  const [line = ''] = stderr.trim().split('\n');
  return line === '' ? '' : `: ${line}`;
}
