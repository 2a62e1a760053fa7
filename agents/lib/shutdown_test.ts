/** In a process of its own: signals are the process's. */
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { execa } from 'execa';

const here = (file: string): string => JSON.stringify(fileURLToPath(new URL(file, import.meta.url)));

/** `afterwards` runs once aborted. */
const program = (graceMs: number, afterwards: string): string => `
  import { createLog } from ${here('log.ts')};
  import { shutdownSignal } from ${here('shutdown.ts')};
  const work = setInterval(() => {}, 1000);
  const signal = shutdownSignal(createLog('routing'), ${graceMs});
  signal.addEventListener('abort', () => { ${afterwards} });
  console.log('up');
`;

async function ended(source: string, ...signals: NodeJS.Signals[]) {
  const child = execa(process.execPath, ['--input-type=module-typescript', '--eval', source], { reject: false });
  let heard = 0;
  for await (const line of child) {
    const signal = signals[heard++];
    if (signal !== undefined && line !== '') child.kill(signal);
  }
  const { exitCode, signal, stdout } = await child;
  return { exitCode, signal, lines: stdout.split('\n') };
}
const HOUR = 3_600_000;

const stops = test.macro(async (tt, signal: NodeJS.Signals) => {
  const { exitCode, lines } = await ended(program(HOUR, 'clearInterval(work)'), signal);
  tt.is(exitCode, 0);
  tt.is(lines.length, 2);
  const { ts: _, ...record } = JSON.parse(lines[1] ?? '') as Record<string, unknown>;
  tt.deepEqual(record, { level: 'info', component: 'routing', signal, msg: 'stopping' });
});
test('SIGTERM: aborted, and it ends when its work has', stops, 'SIGTERM');
test('SIGINT', stops, 'SIGINT');

test('work that does not end is ended', async (tt) => {
  const { exitCode, signal } = await ended(program(1, ''), 'SIGTERM');
  tt.is(exitCode, 1);
  tt.is(signal, undefined);
});

test('a second signal ends it at once', async (tt) => {
  const { exitCode, signal } = await ended(program(HOUR, ''), 'SIGTERM', 'SIGTERM');
  tt.is(exitCode, undefined);
  tt.is(signal, 'SIGTERM');
});
