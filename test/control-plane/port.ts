import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import { StartFailed } from './daemon.ts';

const ATTEMPTS = 5;

/** Starts a server, and again on another port where another program took the port in between. */
export async function onFreePort<T>(start: (port: number) => Promise<T>): Promise<{ port: number; started: T }> {
  for (let attempt = 1; ; attempt += 1) {
    const port = await freePort();
    try {
      return { port, started: await start(port) };
    } catch (error) {
      const taken = error instanceof StartFailed && error.output.includes('address already in use');
      if (!taken || attempt === ATTEMPTS) throw error;
    }
  }
}

/**
 * A TCP port that was free on 127.0.0.1 a moment ago. From below Linux's range for outgoing connections (32768 to 60999):
 * out of that range, where port 0 would take it from, another program's connection could get the port while the server is
 * down for a restart.
 */
async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const port = randomInt(20_000, 32_768);
    if (await isFree(port)) return port;
  }
  throw new Error('no free TCP port on 127.0.0.1 between 20000 and 32767 in 100 attempts');
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}
