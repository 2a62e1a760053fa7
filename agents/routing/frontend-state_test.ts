import test from 'ava';
import type { Cidr } from '../../functions/model/cidr.ts';
import { frontendState, FrontendState } from './frontend-state.ts';
import type { Refusal, RefusalReason } from './routes/desired.ts';

const refusals = (...all: [string, RefusalReason][]): ReadonlyMap<Cidr, Refusal> =>
  new Map(all.map(([cidr, reason]) => [cidr as Cidr, { reason, message: `because of ${reason}` }]));

const state = test.macro(
  (tt, refused: ReadonlyMap<Cidr, Refusal>, sourceCheck: string | undefined, expected: FrontendState) => {
    tt.deepEqual(frontendState(refused, sourceCheck), expected);
    tt.is(FrontendState.is(expected), true);
  },
);
test('all stands', state, refusals(), undefined, { ready: true, waitingFor: [], withoutRoute: [] });
test('the source check', state, refusals(), 'it is on', { ready: false, waitingFor: ['it is on'], withoutRoute: [] });
test(
  'what time may mend is waited for, each cause once',
  state,
  refusals(['10.8.0.0/16', 'no-endpoint-route'], ['10.9.0.0/16', 'no-endpoint-route'], ['10.10.0.0/16', 'kernel']),
  'it is on',
  {
    ready: false,
    waitingFor: ['because of no-endpoint-route', 'because of kernel', 'it is on'],
    withoutRoute: [],
  },
);
test(
  'what an administrator has to mend is not',
  state,
  refusals(['10.8.0.0/16', 'foreign-route'], ['10.9.0.0/16', 'node-address'], ['fd12::/48', 'no-pod-address']),
  undefined,
  {
    ready: true,
    waitingFor: [],
    withoutRoute: [
      '10.8.0.0/16: because of foreign-route',
      '10.9.0.0/16: because of node-address',
      'fd12::/48: because of no-pod-address',
    ],
  },
);
