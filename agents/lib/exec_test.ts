import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { exec, ExecError, follow, type ExecOptions } from './exec.ts';

type Command = readonly [string, readonly string[]];
const sh = (script: string): Command => ['sh', ['-c', script]];

const prints = test.macro(async (tt, [command, args]: Command, expected: string, options?: ExecOptions) => {
  tt.is(await exec(command, args, options), expected);
});
test('what it printed, without the end of its last line', prints, sh('echo a; echo; echo b'), 'a\n\nb');
test('nothing', prints, sh(':'), '');
test('stderr is no part of it', prints, sh('echo a; echo b >&2'), 'a');
test('arguments as they are', prints, ['printf', ['[%s]', 'a b', '$HOME', '*', '', '"']], '[a b][$HOME][*][]["]');
test('input', prints, ['cat', []], 'Köln\n\nü', { input: 'Köln\n\nü\n' });
test('input in parts', prints, ['cat', []], 'Köln\n\nü', { input: ['Köln\n', '', '\nü\n'] });
test('no input: stdin is at its end', prints, ['cat', []], '');
test('input that nobody reads', prints, sh('exec true'), '', { input: 'x'.repeat(1 << 20) });
test('parts that nobody reads', prints, sh('exec true'), '', { input: ['x'.repeat(1 << 20), 'x'.repeat(1 << 20)] });
test('large input and output', prints, ['cat', []], 'x'.repeat(1 << 22), { input: 'x'.repeat(1 << 22) });
test('the locale is always the same', prints, sh('echo "$LC_ALL"'), 'C');
test('the rest of the environment is ours', prints, sh('echo "$PATH"'), process.env.PATH ?? '');

type Failure = Pick<ExecError, 'reason' | 'message' | 'stdout' | 'stderr'>;
const failureOf = ({ reason, message, stdout, stderr }: ExecError): Failure => ({ reason, message, stdout, stderr });

const fails = test.macro(async (tt, [command, args]: Command, expected: Failure, options?: ExecOptions) => {
  const error = await tt.throwsAsync(exec(command, args, options), { instanceOf: ExecError });
  tt.deepEqual(failureOf(error), expected);
  tt.true(error.cause instanceof Error);
});
test(
  'the first line of stderr is the message, all it printed is kept',
  fails,
  sh('echo a; printf "b\nc\n" >&2; exit 3'),
  {
    reason: 'failed',
    message: 'sh: ended with exit code 3: b',
    stdout: 'a',
    stderr: 'b\nc',
  },
);
test('a failure without a word', fails, ['false', []], {
  reason: 'failed',
  message: 'false: ended with exit code 1',
  stdout: '',
  stderr: '',
});
test('killed by somebody else', fails, sh('kill -TERM $$'), {
  reason: 'failed',
  message: 'sh: ended with SIGTERM',
  stdout: '',
  stderr: '',
});
test('no such program', fails, ['no-such-program', []], {
  reason: 'missing',
  message: 'no-such-program: is not on PATH',
  stdout: '',
  stderr: '',
});
test('a file that is no program', fails, ['/dev/null', []], {
  reason: 'failed',
  message: '/dev/null: ended with exit code EACCES',
  stdout: '',
  stderr: '',
});
test(
  'one that hangs is killed, whatever it does about signals',
  fails,
  sh('trap "" TERM INT HUP; while :; do sleep 0.05; done'),
  { reason: 'timeout', message: 'sh: did not end within 100 ms and was killed', stdout: '', stderr: '' },
  { timeoutMs: 100 },
);

/** The lines and the end of one that is followed. */
async function followed(
  [command, args]: Command,
  signal: AbortSignal = new AbortController().signal,
): Promise<{ lines: string[]; error: unknown }> {
  const lines: string[] = [];
  const run = follow(command, args, (line, stream) => lines.push(`${stream} ${line}`), signal);
  const error: unknown = await run.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return { lines, error };
}

const ends = test.macro(async (tt, command: Command, lines: string[], expected: Failure) => {
  const { lines: found, error } = await followed(command);
  tt.deepEqual(found.sort(), lines); // the two streams have no common order
  tt.true(error instanceof ExecError);
  tt.deepEqual(failureOf(error as ExecError), expected);
});
/** With the last line of stderr. */
const ended = (end: string, stderr: string = ''): Failure => ({
  reason: 'failed',
  message: `${end}${stderr === '' ? '' : `: ${stderr}`}`,
  stdout: '',
  stderr,
});
test(
  'followed: every line of both streams, and the end is an error though all was well',
  ends,
  sh('echo a; echo; echo c; echo d >&2'),
  ['stderr d', 'stdout ', 'stdout a', 'stdout c'],
  ended('sh: ended with exit code 0', 'd'),
);
test(
  'followed: a failure, the last word is the reason',
  ends,
  sh('echo a >&2; echo b >&2; exit 7'),
  ['stderr a', 'stderr b'],
  ended('sh: ended with exit code 7', 'b'),
);
test(
  'followed: cut inside of a line and of a character',
  ends,
  sh("printf 'K\\303'; sleep 0.1; printf '\\266ln\\nb'; sleep 0.1; printf 'c\\n'"),
  ['stdout Köln', 'stdout bc'],
  ended('sh: ended with exit code 0'),
);
test('followed: killed by somebody else', ends, sh('kill -KILL $$'), [], ended('sh: ended with SIGKILL'));
test(
  'followed: a file that is no program',
  ends,
  ['/dev/null', []],
  [],
  ended('/dev/null: ended with exit code EACCES'),
);
test('followed: no such program', ends, ['no-such-program', []], [], {
  ...ended('no-such-program: is not on PATH'),
  reason: 'missing',
});

test('followed: each line comes as it is printed, and the end that we want kills it and is none', async (tt) => {
  const controller = new AbortController();
  const lines: string[] = [];
  const script = 'trap "" TERM; echo $$; while :; do sleep 0.05; done';
  const run = follow('sh', ['-c', script], (line) => lines.push(line), controller.signal);
  while (lines.length === 0) await sleep(5);
  controller.abort();
  await run;
  while (isAlive(Number(lines[0]))) await sleep(5);
  tt.pass();
});

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

test('followed: the end came before the start', async (tt) => {
  tt.deepEqual(await followed(['sleep', ['60']], AbortSignal.abort()), { lines: [], error: undefined });
});
