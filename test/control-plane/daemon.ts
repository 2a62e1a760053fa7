/** A program that runs until it is stopped, with its output in a file, and that dies with this process. */
import { open, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';

export interface Program {
  name: string;
  /** Absolute path of the executable. */
  path: string;
  args: readonly string[];
  /** Folder to run in. */
  cwd: string;
  /** File that stdout and stderr are appended to. */
  log: string;
  /** Whether it answers yet. Asked again and again until it says yes; a rejection counts as no. */
  ready: () => Promise<boolean>;
}

export interface Daemon {
  /** Undefined once it has ended. */
  readonly pid: number | undefined;
  /**
   * Resolves once the process has ended. One that is still there after `graceMs` milliseconds is killed.
   * Does nothing when it has ended already.
   */
  stop(signal: 'SIGTERM' | 'SIGKILL', graceMs?: number): Promise<void>;
}

/** It ended or wasn't ready in time. The message holds the last lines of its log and where the rest is. */
export class StartFailed extends Error {
  override name = 'StartFailed';
  /** Everything that it printed in this attempt. */
  readonly output: string;
  constructor(message: string, output: string) {
    super(message);
    this.output = output;
  }
}

const POLL_MS = 25;
/** An API server takes 3 to 4 s on two idle cores, many times that on busy ones. */
const READY_LIMIT_MS = 120_000;
const LOG_LINES = 15;

/** Throws StartFailed; nothing is left running then. */
export async function startDaemon(program: Program): Promise<Daemon> {
  const { name, path, args, cwd, log } = program;
  const file = await open(log, 'a');
  const { size: before } = await file.stat();
  // execa takes every descriptor of this process, its type only 0, 1 and 2.
  const out = file.fd as 1;
  // A parent killed with -9 can stop nobody, so the kernel has to: setpriv sets the signal that a process gets when its
  // parent (exactly: the thread that started it, such as a worker of ava) dies, and turns into the program itself. The
  // setting lasts, and the pid is the program's own.
  const child = execa('setpriv', ['--pdeathsig', 'KILL', path, ...args], {
    cwd,
    // The file itself, no pipe: nothing is lost or late when this process is busy or dies.
    stdio: ['ignore', out, out],
    buffer: false,
    reject: false,
  });
  let { pid } = child;
  const ended = child.then((result) => {
    pid = undefined;
    return endOf(result);
  });
  const stop: Daemon['stop'] = async (signal, graceMs = 0) => {
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
    await ended;
    clearTimeout(timer);
  };
  await file.close();

  const given = new AbortController();
  const why = await Promise.race([ended, whenReady(program, given.signal)]);
  given.abort();
  if (why === undefined) {
    return {
      get pid() {
        return pid;
      },
      stop,
    };
  }
  await stop('SIGKILL');
  const output = (await readFile(log)).subarray(before).toString();
  throw new StartFailed(`${name} ${why}. Its log, ${log}, ends with:\n${lastLines(output)}`, output);
}

/** Resolves with undefined when the program is ready, otherwise with what is wrong. */
async function whenReady({ ready }: Program, signal: AbortSignal): Promise<string | undefined> {
  const deadline = Date.now() + READY_LIMIT_MS;
  while (!signal.aborted && Date.now() < deadline) {
    if (await ready().catch(() => false)) return undefined;
    await sleep(POLL_MS);
  }
  return `was not ready after ${READY_LIMIT_MS / 1000} s`;
}

interface End {
  exitCode?: number | undefined;
  signal?: string | undefined;
  code?: string | undefined;
}

/** A predicate for the program's name. */
function endOf({ exitCode, signal, code }: End): string {
  if (code === 'ENOENT') return 'was not started: setpriv is not on PATH (Debian: apt-get install util-linux)';
  return signal === undefined ? `ended with exit code ${exitCode}` : `was ended by ${signal}`;
}

function lastLines(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .slice(-LOG_LINES)
    .map((line) => `  ${line}`)
    .join('\n');
}
