/** The one HTTP server of an agent: health, metrics, and what else it answers. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Registry } from 'prom-client';

/** A request's body and query in, a status and a text out. */
export type Route = (body: string, query: URLSearchParams) => { readonly status: number; readonly text: string };

interface Options {
  /** 0: any free one. */
  readonly port: number;
  readonly registry: Registry;
  /** Why the agent is not ready, one sentence each; none: ready. */
  readonly unready: () => readonly string[];
  /** By method and path: `'POST /lost-ranges'`. */
  readonly routes?: Readonly<Record<string, Route>>;
}

const MAX_BODY_BYTES = 64 * 1024;

/**
 * Listens on all addresses of both families. `GET /livez` answers as long as the event loop turns, `GET /readyz` 200, or
 * 503 and the reasons, `GET /metrics` Prometheus' text format. Rejects where the port is taken.
 */
export async function serve({ port, registry, unready, routes = {} }: Options): Promise<Server> {
  type Answer = Promise<{ status: number; text: string; type?: string }>;
  const all: Record<string, (...request: Parameters<Route>) => Answer> = {
    'GET /livez': async () => ({ status: 200, text: 'ok\n' }),
    'GET /readyz': async () => {
      const reasons = unready();
      return reasons.length === 0 ? { status: 200, text: 'ok\n' } : { status: 503, text: `${reasons.join('\n')}\n` };
    },
    'GET /metrics': async () => ({ status: 200, text: await registry.metrics(), type: registry.contentType }),
  };
  for (const [name, route] of Object.entries(routes)) all[name] = async (...request) => route(...request);

  const server = createServer({ connectionsCheckingInterval: 1_000 }, (request, response) => {
    const { url = '' } = request; // anything at all: not for new URL, which throws
    const end = url.includes('?') ? url.indexOf('?') : url.length;
    const name = `${request.method} ${url.slice(0, end)}`;
    const answer = (status: number, text: string, type = 'text/plain; charset=utf-8'): void => {
      response.writeHead(status, { 'content-type': type }).end(text);
    };
    const route = Object.hasOwn(all, name) ? all[name] : undefined;
    if (route === undefined) {
      answer(404, `no such path; there are ${Object.keys(all).join(', ')}\n`);
      return;
    }
    const chunks: Buffer[] = [];
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MAX_BODY_BYTES) request.destroy();
      else chunks.push(chunk);
    });
    request.on('end', () => {
      route(Buffer.concat(chunks).toString('utf8'), new URLSearchParams(url.slice(end))).then(
        ({ status, text, type }) => answer(status, text, type),
        () => answer(500, 'internal error\n'),
      );
    });
  });
  // Slow and idle clients hold a connection for seconds, not for ever.
  server.requestTimeout = 5_000;
  server.headersTimeout = 5_000;
  server.keepAliveTimeout = 5_000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, () => {
      server.off('error', reject);
      resolve();
    });
  });
  return server;
}

export const portOf = (server: Server): number => (server.address() as AddressInfo).port;
