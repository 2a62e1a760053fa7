import test from 'ava';
import { CILIUM_RULES } from './cilium-rules.ts';

test('rules have names of their own, fit for a label of a metric', (tt) => {
  const ids = CILIUM_RULES.map(({ id }) => id);
  tt.is(new Set(ids).size, ids.length);
  for (const id of ids) tt.regex(id, /^[a-z0-9-]+$/);
});

test('messages go on after the name of the key, and are one line', (tt) => {
  for (const { key, message } of CILIUM_RULES) {
    tt.regex(key, /^[a-z0-9-]+$/);
    tt.notRegex(message, /^\s|\s$|\n|\.$/);
  }
});
