import { dirname } from 'node:path';
import { backoffMs } from '../../lib/backoff.ts';
import type { Log } from '../../lib/log.ts';
import { SayOnce } from '../../lib/say-once.ts';
import { wait } from '../../lib/wait.ts';
import { watchFolder } from '../../lib/watch-folder.ts';
import { type ConnectionOptions, ViciConnection, ViciError } from './connection.ts';

export interface FollowOptions extends Omit<ConnectionOptions, 'signal'> {
  /** Its path. */
  readonly socket: string;
  /** Ends it all. */
  readonly signal: AbortSignal;
  /**
   * Subscribes and loads, on each connection anew: what charon knew is lost with it. `signal` is aborted when the connection
   * is over. Rejects with a ViciError: it is closed and tried again. With anything else while it lives: that is followVici's.
   */
  readonly onConnected: (connection: ViciConnection, signal: AbortSignal) => Promise<void>;
  readonly log?: Log;
}

/** Between two tries. The first is also the time from bind to listen, which a hint may fall into. */
const BACKOFF = { firstMs: 20, maxMs: 1000 };
const SETTLE_MS = 10;
/** One that ends sooner was no success: a charon that falls over again and again. */
const LASTING_MS = 1000;

/**
 * Stays connected to charon until `signal` is aborted, then resolves. Tries again at once when something changes in the
 * socket's folder, otherwise after up to a second; the folder itself may come later.
 */
export async function followVici(options: FollowOptions): Promise<void> {
  const { socket, signal } = options;
  const said = new SayOnce();
  let failures = 0;
  while (!signal.aborted) {
    const changed = new AbortController();
    // Before the try: what changes after it would be missed.
    const watcher = watchFolder(dirname(socket), () => changed.abort());
    try {
      failures = (await session(options, said)) < LASTING_MS ? failures + 1 : 1;
      await wait(SETTLE_MS, signal);
      await wait(backoffMs(failures, BACKOFF), AbortSignal.any([signal, changed.signal]));
    } finally {
      watcher?.close();
    }
    if (changed.signal.aborted) failures = 0;
  }
}

/** One connection, as long as it lives, or one failure to connect. How long it was of use, in milliseconds. */
async function session(options: FollowOptions, said: SayOnce): Promise<number> {
  const { socket, signal, log } = options;
  let since = Infinity; // of no use at all
  try {
    const connection = await ViciConnection.open(socket, options);
    await setUp(connection, options);
    since = performance.now();
    said.over(socket);
    log?.info({ socket }, 'connected to charon');
    const reason = await connection.closed;
    if (!signal.aborted) log?.warn({ socket, reason: reason?.message }, 'lost the connection to charon');
  } catch (error) {
    if (!(error instanceof ViciError)) throw error;
    const reason = error.message;
    if (!signal.aborted) said.say(socket, reason, () => log?.warn({ socket, reason }, 'no connection to charon'));
  }
  return Math.max(0, performance.now() - since);
}

/** The connection is closed where it rejects. */
async function setUp(connection: ViciConnection, { onConnected }: FollowOptions): Promise<void> {
  const over = new AbortController();
  const closed = connection.closed.then((reason) => {
    over.abort();
    return reason;
  });
  try {
    await onConnected(connection, over.signal);
  } catch (error) {
    // What it throws then is for that reason.
    if (over.signal.aborted) throw (await closed) ?? new ViciError('the connection was closed');
    connection.close();
    throw error;
  }
}
