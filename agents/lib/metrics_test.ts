import test from 'ava';
import { Counter } from 'prom-client';
import { createRegistry } from './metrics.ts';

/** The value of a sample without labels. */
const sample = (text: string, name: string): number => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1]);

test("the process's own figures, of now", async (tt) => {
  const registry = createRegistry();
  const first = await registry.metrics();
  tt.true(sample(first, 'process_resident_memory_bytes') > 1e6);
  tt.true(sample(first, 'process_cpu_seconds_total') > 0);
  const startedAt = sample(first, 'process_start_time_seconds');
  tt.true(startedAt > 1.6e9 && startedAt <= Date.now() / 1000);
  const used = (): number => (process.cpuUsage().user + process.cpuUsage().system) / 1e6;
  const before = used();
  const told = sample(await registry.metrics(), 'process_cpu_seconds_total');
  tt.true(told >= before && told <= used());
});

test('the start does not move', async (tt) => {
  const registry = createRegistry();
  const [one, two] = [await registry.metrics(), await registry.metrics()].map((text) =>
    sample(text, 'process_start_time_seconds'),
  );
  tt.is(one, two);
});

test('every metric has its help and type', async (tt) => {
  const text = await createRegistry().metrics();
  const named = (kind: string): string[] =>
    [...text.matchAll(new RegExp(`^# ${kind} (\\S+) \\S`, 'gm'))].map(([, name = '']) => name);
  tt.deepEqual(named('HELP'), named('TYPE'));
  tt.is(named('HELP').length, 3);
});

test('two registries share nothing', async (tt) => {
  const one = createRegistry();
  const counter = new Counter({ name: 'a_total', help: 'A.', registers: [one] });
  counter.inc();
  tt.is(sample(await one.metrics(), 'a_total'), 1);
  tt.false((await createRegistry().metrics()).includes('a_total'));
});
