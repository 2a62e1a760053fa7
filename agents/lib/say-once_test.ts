import test from 'ava';
import { SayOnce } from './say-once.ts';

/** What is said to each `key text`, and what `over` answers to each `key`. */
const says = test.macro((tt, events: string[], expected: unknown[]) => {
  const once = new SayOnce();
  const found: unknown[] = [];
  for (const event of events) {
    const [key = '', text] = event.split(' ');
    if (text === undefined) found.push(once.over(key));
    else once.say(key, text, () => found.push(event));
  }
  tt.deepEqual(found, expected);
});
test('the same again and again', says, ['a x', 'a x', 'a x'], ['a x']);
test('something else', says, ['a x', 'a y', 'a y', 'a x'], ['a x', 'a y', 'a x']);
test('the same of another key', says, ['a x', 'b x', 'a x', 'b x'], ['a x', 'b x']);
test('over: true once, and said again if it comes back', says, ['a x', 'a', 'a', 'a x'], ['a x', true, false, 'a x']);
test('over without a word before', says, ['a'], [false]);
test('over of another key', says, ['a x', 'b', 'a x', 'a'], ['a x', false, true]);

test('all but some are over', (tt) => {
  const once = new SayOnce();
  for (const key of ['a', 'b', 'c']) once.say(key, 'x', () => undefined);
  once.retain(new Set(['b', 'd']));
  tt.deepEqual(
    ['a', 'b', 'c', 'd'].map((key) => once.over(key)),
    [false, true, false, false],
  );
});
