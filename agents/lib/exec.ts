/** Runs programs: no shell, fixed locale, a time limit. nano-spawn does the work: small, no dependencies, kept up by execa's authors. */
import spawn, { SubprocessError } from 'nano-spawn';

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
  /** For stdin, which is empty otherwise. */
  readonly input?: string;
  readonly timeoutMs?: number;
}

/** What the program printed to stdout. Throws ExecError, also where it ended with another code than 0. */
export async function exec(command: string, args: readonly string[], options: ExecOptions = {}): Promise<string> {
  const { input = '', timeoutMs = TIMEOUT_MS } = options;
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    const { stdout } = await spawn(command, args, {
      stdin: { string: input },
      env: ENV,
      signal,
      killSignal: 'SIGKILL',
    });
    return stdout;
  } catch (error) {
    throw execError(command, error, signal.aborted ? timeoutMs : undefined);
  }
}

/**
 * Calls `onLine` for each line that the program prints, to stdout or stderr, until it ends or `signal` is aborted. Throws
 * ExecError where it ended by itself, whatever its code.
 */
export async function follow(
  command: string,
  args: readonly string[],
  onLine: (line: string, stream: 'stdout' | 'stderr') => void,
  signal: AbortSignal,
): Promise<void> {
  const child = spawn(command, args, { stdin: 'ignore', env: ENV, signal, killSignal: 'SIGKILL' });
  const read = async (stream: 'stdout' | 'stderr'): Promise<void> => {
    for await (const line of child[stream]) onLine(line, stream);
  };
  try {
    await Promise.all([read('stdout'), read('stderr')]);
  } catch (error) {
    if (signal.aborted) return;
    throw execError(command, error, undefined);
  }
  if (!signal.aborted) throw new ExecError(command, 'failed', 'ended with exit code 0', { stdout: '', stderr: '' });
}

function execError(command: string, error: unknown, timeoutMs: number | undefined): ExecError {
  if (!(error instanceof SubprocessError)) throw error;
  const { stdout, stderr, exitCode, signalName, cause } = error;
  const options = { cause: error };
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  if (code === 'ENOENT') return new ExecError(command, 'missing', 'is not on PATH', error, options);
  if (timeoutMs !== undefined)
    return new ExecError(command, 'timeout', `did not end within ${timeoutMs} ms and was killed`, error, options);
  const end = signalName === undefined ? `exit code ${exitCode ?? code ?? 'unknown'}` : signalName;
  return new ExecError(command, 'failed', `ended with ${end}${firstLine(stderr)}`, { stdout, stderr }, options);
}

function firstLine(stderr: string): string {
  const [line = ''] = stderr.trim().split('\n');
  return line === '' ? '' : `: ${line}`;
}
