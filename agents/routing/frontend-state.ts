/** What an init container asks its node's agent: `GET /frontend?ip=<the pod's address>`. */
import { flag, list, object, required, text } from '../../functions/model/codec.ts';
import type * as t from 'io-ts';

export const FRONTEND_PATH = '/frontend';

const sentence = text('sentence', {}, (s) => s);

export const FrontendState = object('answer', {
  ready: required(flag, 'The routes to the pod stand and its packets are let through.'),
  waitingFor: required(list(sentence), 'What is not so yet, a sentence each.'),
  withoutRoute: required(list(sentence), 'Ranges that get no route, and why; they keep nobody waiting.'),
});
export type FrontendState = t.TypeOf<typeof FrontendState>;
