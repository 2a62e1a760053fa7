/** Waits until this node's routing agent answers that the host's side stands. */
import * as E from 'fp-ts/lib/Either.js';
import { problems } from '../../../functions/model/codec.ts';
import { getJson, urlOf } from '../../lib/http-client.ts';
import type { Log } from '../../lib/log.ts';
import { ROUTING_PORT } from '../../lib/lost-ranges.ts';
import { wait } from '../../lib/wait.ts';
import { FRONTEND_PATH, FrontendState } from '../frontend-state.ts';

const REQUEST_MS = 2_000;
const PAUSE_MS = 500;
/** The same reason is said again after this. */
const REPEAT_MS = 30_000;

interface Options {
  /** The node's address. */
  readonly hostIP: string;
  readonly podIP: string;
  readonly log: Log;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** Undefined once the host's side stands, or why it did not in time. */
export async function awaitHost({ hostIP, podIP, log, timeoutMs, signal }: Options): Promise<string | undefined> {
  const url = urlOf(hostIP, ROUTING_PORT, `${FRONTEND_PATH}?ip=${encodeURIComponent(podIP)}`);
  const startedAt = performance.now();
  let said = { reason: '', at: 0 };
  for (;;) {
    const { ready, waitingFor, withoutRoute } = await askHost(url);
    if (ready) {
      for (const problem of withoutRoute) log.error({ problem }, 'no route to this range');
      log.info({ ms: Math.round(performance.now() - startedAt) }, "the host's side stands");
      return undefined;
    }
    const reason = waitingFor.join('; ');
    const now = performance.now();
    if (signal.aborted || now - startedAt >= timeoutMs) return reason;
    if (reason !== said.reason || now - said.at >= REPEAT_MS) {
      log.info({ seconds: Math.round((now - startedAt) / 1000), reason }, "waiting for the host's side");
      said = { reason, at: now };
    }
    await wait(PAUSE_MS, signal);
  }
}

async function askHost(url: string): Promise<FrontendState> {
  const not = (reason: string): FrontendState => ({ ready: false, waitingFor: [reason], withoutRoute: [] });
  let answer: unknown;
  try {
    answer = await getJson(url, REQUEST_MS);
  } catch (error) {
    return not(
      `the routing agent of this node does not answer (${(error as Error).message}): see the DaemonSet vpn-routing, and whether something keeps pods from port ${ROUTING_PORT} of their node`,
    );
  }
  const decoded = FrontendState.decode(answer);
  if (E.isRight(decoded)) return decoded.right;
  const [first] = problems(decoded.left);
  return not(`the routing agent of this node gives an answer of another version (${first?.path} ${first?.message})`);
}
