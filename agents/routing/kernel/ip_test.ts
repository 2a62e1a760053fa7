import test from 'ava';
import { MISSING_CAPABILITY, readRefused } from './ip.ts';

/** `line reason` of each, the line's number from 0. Texts are those of iproute2 6.1. */
const refused = test.macro((tt, stderr: string, ...expected: string[]) => {
  tt.deepEqual(
    [...readRefused(stderr)].map(([line, reason]) => `${line} ${reason}`),
    expected,
  );
});
const FILE_EXISTS = 'RTNETLINK answers: File exists\n';
test('nothing', refused, '');
test('the kernel’s answer', refused, `${FILE_EXISTS}Command failed -:2\n`, '1 File exists');
test(
  'the kernel’s own words',
  refused,
  'Error: Nexthop has invalid gateway.\nCommand failed -:3\n',
  '2 Nexthop has invalid gateway',
);
test(
  'what ip itself finds',
  refused,
  'Cannot find device "nosuch"\nCommand failed -:5\n',
  '4 Cannot find device "nosuch"',
);
test(
  'several, and more than one digit',
  refused,
  `${FILE_EXISTS}Command failed -:2
Error: Invalid prefsrc address.
Command failed -:6
RTNETLINK answers: No such process
Command failed -:10000
`,
  '1 File exists',
  '5 Invalid prefsrc address',
  '9999 No such process',
);
test(
  'more lines than one',
  refused,
  'Error: Device not found.\nRTNETLINK answers: No such device\n\nCommand failed -:1\n',
  '0 Device not found; No such device',
);
test('no reason', refused, 'Command failed -:1\nCommand failed -:2\n', '0 no reason given', '1 no reason given');
test(
  'not permitted: what the administrator can do',
  refused,
  'RTNETLINK answers: Operation not permitted\nCommand failed -:1\n',
  `0 ${MISSING_CAPABILITY}`,
);
test('no end of the last line', refused, `${FILE_EXISTS}Command failed -:1`, '0 File exists');
test('words without a line number', refused, 'Error: either "to" is duplicate, or "foo" is a garbage.\n');
