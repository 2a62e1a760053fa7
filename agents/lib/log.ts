/** One JSON line a record on stdout: `{"ts":"2026-01-31T12:00:00.000Z","level":"info","component":"endpoint-sync","msg":"…",…}`. */
import { pino, type DestinationStream, type Logger } from 'pino';

/**
 * `log.info({ pod, added: 2 }, 'CiliumEndpoint patched')`: the message is constant, what varies is in keys. Never pass a
 * secret.
 */
export type Log = Pick<Logger, 'info' | 'warn' | 'error'>;

/** `destination` gets the lines; default: stdout. */
export function createLog(component: string, destination?: DestinationStream): Log {
  const options = {
    base: { component },
    timestamp: () => `,"ts":"${new Date().toISOString()}"`,
    formatters: { level: (level: string) => ({ level }) },
  };
  return destination === undefined ? pino(options) : pino(options, destination);
}
