/** What an init container asks its node's agent: `GET /frontend?ip=<the pod's address>`. */
import { flag, list, object, required, text } from '../../functions/model/codec.ts';
import type * as t from 'io-ts';
import type { Cidr } from '../../functions/model/cidr.ts';
import type { Refusal, RefusalReason } from './routes/desired.ts';

export const FRONTEND_PATH = '/frontend';

const sentence = text('sentence', {}, (s) => s);

export const FrontendState = object('answer', {
  ready: required(flag, 'The routes to the pod stand and its packets are let through.'),
  waitingFor: required(list(sentence), 'What is not so yet, a sentence each.'),
  withoutRoute: required(list(sentence), 'Ranges that get no route, and why; they keep nobody waiting.'),
});
export type FrontendState = t.TypeOf<typeof FrontendState>;

export const waiting = (...waitingFor: string[]): FrontendState => ({ ready: false, waitingFor, withoutRoute: [] });

/** What time may mend; the others want a change of the configuration or of the node, and keep nobody waiting. */
const PASSING: readonly RefusalReason[] = ['no-endpoint-route', 'no-cilium-host', 'kernel'];

/** Of a frontend that the agent knows: its ranges that have no route, and why its packets are not let through, if so. */
export function frontendState(refused: ReadonlyMap<Cidr, Refusal>, sourceCheck: string | undefined): FrontendState {
  const all = [...refused];
  const passing = all.filter(([, { reason }]) => PASSING.includes(reason)).map(([, { message }]) => message);
  const waitingFor = [...new Set([...passing, sourceCheck].filter((reason) => reason !== undefined))];
  const lasting = all.filter(([, { reason }]) => !PASSING.includes(reason));
  return {
    ready: waitingFor.length === 0,
    waitingFor,
    withoutRoute: lasting.map(([cidr, { message }]) => `${cidr}: ${message}`),
  };
}
