import test from 'ava';
import { createLog } from './log.ts';

function logged(write: (log: ReturnType<typeof createLog>) => void): string[] {
  const lines: string[] = [];
  write(createLog('routing', { write: (line) => void lines.push(line) }));
  return lines;
}

test('a record is one line of JSON: time, level in words, component, keys, message', (tt) => {
  const [line = '', ...more] = logged((log) => log.info({ pod: 'vpn-frontend-0', added: 2 }, 'CiliumEndpoint patched'));
  tt.deepEqual(more, []);
  tt.is(line.indexOf('\n'), line.length - 1);
  const { ts, ...record } = JSON.parse(line) as Record<string, unknown>;
  tt.deepEqual(record, {
    level: 'info',
    component: 'routing',
    pod: 'vpn-frontend-0',
    added: 2,
    msg: 'CiliumEndpoint patched',
  });
  tt.regex(String(ts), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
});

const level = test.macro((tt, name: 'info' | 'warn' | 'error') => {
  const [line = ''] = logged((log) => log[name]({}, 'x'));
  tt.is((JSON.parse(line) as { level: string }).level, name);
});
test('info', level, 'info');
test('warn', level, 'warn');
test('error', level, 'error');

test('line breaks and quotes in values stay inside of the line', (tt) => {
  const problem = 'a "b"\nc\u2028d\u0000';
  const lines = logged((log) => log.error({ problem }, 'x'));
  tt.is(lines.length, 1);
  tt.is(lines[0]?.trimEnd().includes('\n'), false);
  tt.is((JSON.parse(lines[0] ?? '') as { problem: string }).problem, problem);
});
