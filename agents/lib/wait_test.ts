import { getEventListeners } from 'node:events';
import test from 'ava';
import { wait } from './wait.ts';

const HOUR = 3_600_000;

test('the time passes', async (tt) => {
  const { signal } = new AbortController();
  await wait(1, signal);
  tt.false(signal.aborted);
  tt.is(getEventListeners(signal, 'abort').length, 0);
});

test('aborted while it waits: at once, without an error, and nothing keeps the process alive', async (tt) => {
  const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
  const before = timers();
  const controller = new AbortController();
  const waiting = wait(HOUR, controller.signal);
  controller.abort(new Error('enough'));
  await waiting;
  tt.is(timers(), before);
});

test('aborted before', async (tt) => {
  await wait(HOUR, AbortSignal.abort());
  tt.pass();
});

test('one signal ends all that wait', async (tt) => {
  const controller = new AbortController();
  const waiting = Promise.all(Array.from({ length: 5 }, () => wait(HOUR, controller.signal)));
  controller.abort();
  tt.is((await waiting).length, 5);
});
