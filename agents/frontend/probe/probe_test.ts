import test from 'ava';
import fc from 'fast-check';
import { readPing } from './probe.ts';

const reads = test.macro((tt, stdout: string, expected: ReturnType<typeof readPing>) => {
  tt.deepEqual(readPing(stdout), expected);
  // agents/lib/exec.ts takes the end of the last line away.
  tt.deepEqual(readPing(stdout.trimEnd()), expected);
});
const answered = (counts: string): string =>
  `PING 127.0.0.1 (127.0.0.1) 56(84) bytes of data.\n\n--- 127.0.0.1 ping statistics ---\n${counts}\nrtt min/avg/max/mdev = 0.035/1234.567/43.043/0.002 ms\n`;
test('all answered', reads, answered('5 packets transmitted, 5 received, 0% packet loss, time 817ms'), {
  sent: 5,
  received: 5,
  latencySeconds: 1.234567,
});
test('some answered', reads, answered('3 packets transmitted, 2 received, 33.3333% packet loss, time 2003ms'), {
  sent: 3,
  received: 2,
  latencySeconds: 1.234567,
});
test(
  'twice and broken',
  reads,
  answered('5 packets transmitted, 5 received, +5 duplicates, +1 corrupted, +2 errors, 0% packet loss, time 8ms'),
  {
    sent: 5,
    received: 5,
    latencySeconds: 1.234567,
  },
);
test(
  'several under way at a time',
  reads,
  answered('5 packets transmitted, 5 received, 0% packet loss, time 8ms').replace(' ms\n', ' ms, pipe 4\n'),
  {
    sent: 5,
    received: 5,
    latencySeconds: 1.234567,
  },
);
test(
  'IPv6',
  reads,
  'PING fd04::2(fd04::2) 56 data bytes\n\n--- fd04::2 ping statistics ---\n3 packets transmitted, 3 received, 0% packet loss, time 405ms\nrtt min/avg/max/mdev = 0.400/0.500/0.641/0.003 ms\n',
  { sent: 3, received: 3, latencySeconds: 0.0005 },
);
test(
  'nothing answered',
  reads,
  'PING 10.4.0.9 (10.4.0.9) 56(84) bytes of data.\n\n--- 10.4.0.9 ping statistics ---\n5 packets transmitted, 0 received, 100% packet loss, time 820ms\n\n',
  { sent: 5, received: 0 },
);
test(
  'a router says no',
  reads,
  '--- 10.12.0.9 ping statistics ---\n5 packets transmitted, 0 received, +2 errors, 100% packet loss, time 821ms\n\n',
  { sent: 5, received: 0 },
);
test('nothing sent', reads, '\n--- 10.4.0.9 ping statistics ---\n0 packets transmitted, 0 received\n\n', {
  sent: 0,
  received: 0,
});
test('no figures', reads, 'PING 10.4.0.9 (10.4.0.9) 56(84) bytes of data.\n', undefined);
test('nothing', reads, '', undefined);
test('anything', (tt) => {
  fc.assert(fc.property(fc.string({ unit: 'binary' }), (stdout) => readPing(stdout) === undefined));
  tt.pass();
});
