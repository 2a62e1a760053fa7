/** The one door to `ip`: questions and changes, any number of them in one process. */
import { exec, ExecError } from '../../lib/exec.ts';

/** A batch of 10,000 routes takes about 0.2 s. */
const TIMEOUT_MS = 20_000;

/** So many lines fill the pipe to `ip`. */
const PART = 500;

/** The line number of a batch and what the kernel, or `ip`, said of it. */
export type Refused = ReadonlyMap<number, string>;

/**
 * One list of objects for each question, such as `route show table all`; undefined where it was refused, as `route get` is
 * for what is unreachable. Numbers instead of names: they don't depend on the files of /etc/iproute2.
 */
export async function ask(questions: readonly string[]): Promise<(unknown[] | undefined)[]> {
  const { stdout, refused } = await batch(['-j', '-N'], questions);
  const answers = stdout.split('\n').filter((line) => line !== '');
  return questions.map((_, i) => (refused.has(i) ? undefined : readAnswer(answers.shift() ?? '[]')));
}

/** An encapsulation's own destination has the name of the route's, which would be lost. */
export const readAnswer = (line: string): unknown[] =>
  JSON.parse(
    line.includes('"encap"') ? line.replaceAll(/("encap":[^{}]*?)"dst":/g, '$1"encapDst":') : line,
  ) as unknown[];

/** Applies every line, also after one that is refused: `route add 10.8.0.0/16 dev …`. */
export async function change(lines: readonly string[]): Promise<Refused> {
  return lines.length === 0 ? new Map() : (await batch([], lines)).refused;
}

async function batch(
  options: readonly string[],
  lines: readonly string[],
): Promise<{ stdout: string; refused: Refused }> {
  try {
    const input = inParts(lines);
    const stdout = await exec('ip', [...options, '-force', '-batch', '-'], { input, timeoutMs: TIMEOUT_MS });
    return { stdout, refused: new Map() };
  } catch (error) {
    if (!(error instanceof ExecError) || error.reason !== 'failed') throw error;
    const refused = readRefused(error.stderr);
    // After a line that it can't even read it does not go on.
    if (!/Command failed -:\d+\s*$/.test(error.stderr)) throw error;
    return { stdout: error.stdout, refused };
  }
}

function* inParts(lines: readonly string[]): Generator<string> {
  for (let i = 0; i < lines.length; i += PART) yield `${lines.slice(i, i + PART).join('\n')}\n`;
}

export const MISSING_CAPABILITY =
  'the kernel does not permit it: the container lacks the capability NET_ADMIN (securityContext.capabilities.add)';

/** `RTNETLINK answers: File exists` and then `Command failed -:3`, the line's number from 1. */
export function readRefused(stderr: string): Refused {
  const refused = new Map<number, string>();
  let said: string[] = [];
  for (const line of stderr.split('\n')) {
    const number = /^Command failed -:(\d+)/.exec(line)?.[1];
    if (number === undefined) {
      said.push(line.replace(/^(RTNETLINK answers|Error): /, '').replace(/\.$/, ''));
      continue;
    }
    const reason = said.filter((text) => text !== '').join('; ') || 'no reason given';
    refused.set(Number(number) - 1, reason === 'Operation not permitted' ? MISSING_CAPABILITY : reason);
    said = [];
  }
  return refused;
}
