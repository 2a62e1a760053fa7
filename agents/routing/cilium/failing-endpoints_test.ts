import test from 'ava';
import type { Controller, LogEntry } from './api.ts';
import { failureOf, regenerationOf, type Regeneration } from './failing-endpoints.ts';

const recovery = (id: number, failures?: number): Controller => ({
  name: `endpoint-${id}-regeneration-recovery`,
  status: failures === undefined ? {} : { 'consecutive-failure-count': failures },
});

const regeneration = test.macro((tt, controllers: readonly Controller[], expected: Regeneration) => {
  tt.deepEqual(regenerationOf(controllers), expected);
});
test('an agent that has just started', regeneration, [], { endpoints: 0, failing: [] });
test('all is well', regeneration, [recovery(17), recovery(4, 0)], { endpoints: 2, failing: [] });
test('some fail', regeneration, [recovery(900, 1), recovery(17), recovery(88, 30)], {
  endpoints: 3,
  failing: [88, 900],
});
test('a controller that has not run yet', regeneration, [{ name: 'endpoint-17-regeneration-recovery' }], {
  endpoints: 1,
  failing: [],
});
test(
  'what else fails is no endpoint',
  regeneration,
  [
    { name: 'sync-to-k8s-ciliumendpoint (17)', status: { 'consecutive-failure-count': 9 } },
    { name: 'endpoint-17-regeneration-recovery-of-another-kind', status: { 'consecutive-failure-count': 9 } },
    { status: { 'consecutive-failure-count': 9 } },
    {},
  ],
  { endpoints: 0, failing: [] },
);

const REASON = 'Error regenerating endpoint: program tail_ipv4_to_endpoint: load program: operation not supported';
const failure = test.macro((tt, log: readonly LogEntry[], expected: string | undefined) => {
  tt.is(failureOf(log), expected);
});
test('no log', failure, [], undefined);
test(
  'nothing failed',
  failure,
  [{ code: 'OK', message: 'Successfully regenerated' }, { code: 'Warning', message: 'a proxy is late' }, {}],
  undefined,
);
test(
  'the newest failure, also while the agent tries again',
  failure,
  [
    { code: 'OK', message: 'Regenerating endpoint: retrying regeneration' },
    { code: 'Failure', message: REASON },
    { code: 'Warning', message: 'Endpoint regeneration failed' },
    { code: 'Failure', message: 'an older one' },
  ],
  REASON,
);
test(
  'several lines',
  failure,
  [{ code: 'Failure', message: ' load program:\n\n\tinvalid\n' }],
  'load program: invalid',
);
test('long words are cut', failure, [{ code: 'Failure', message: 'x'.repeat(5_000) }], `${'x'.repeat(300)}…`);
