import type { Log } from './log.ts';

/**
 * Aborted at the first SIGTERM or SIGINT. The process ends by itself when its work has; after `graceMs` milliseconds it is
 * ended.
 */
export function shutdownSignal(log: Log, graceMs: number): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const)
    process.once(name, () => {
      log.info({ signal: name }, 'stopping');
      controller.abort();
      setTimeout(() => process.exit(1), graceMs).unref();
    });
  return controller.signal;
}
