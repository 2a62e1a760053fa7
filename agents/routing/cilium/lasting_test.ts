import test from 'ava';
import { Lasting } from './lasting.ts';

/** Looks as `!` (the fault is there) and `.` (it is not), a second apart; the answer has what each changed. */
const looks = test.macro((tt, found: string, changes: string) => {
  const fault = new Lasting({ beginsAfterMs: 3_000, endsAfterMs: 2_000 });
  const words = { begins: 'B', ends: 'E' };
  const seen = found.split('').map((each, second) => fault.look(each === '!', second * 1_000));
  tt.is(seen.map((change) => (change === undefined ? '-' : words[change])).join(''), changes);
  tt.is(fault.counts, changes.lastIndexOf('B') > changes.lastIndexOf('E'));
});
test('never', looks, '.....', '-----');
test('begins once it has lasted', looks, '!!!!!!', '---B--');
test('too short', looks, '!!!.!!!.', '--------');
test('ends once it has stayed away', looks, '!!!!....', '---B--E-');
test('comes back before it is over', looks, '!!!!..!..!..', '---B--------');
test('comes back after it was over', looks, '!!!!...!!!!', '---B--E---B');

test('undecided while looks find the opposite of what counts', (tt) => {
  const fault = new Lasting({ beginsAfterMs: 3_000, endsAfterMs: 2_000 });
  const seen = '.!!!!..!...'.split('').map((each, second) => {
    fault.look(each === '!', second * 1_000);
    return fault.undecided ? '?' : ' ';
  });
  tt.is(seen.join(''), ' ??? ?? ?? ');
});

test('without limits: at the first look', (tt) => {
  const fault = new Lasting({ beginsAfterMs: 0, endsAfterMs: 0 });
  tt.is(fault.look(true, 5), 'begins');
  tt.is(fault.look(false, 5), 'ends');
});
