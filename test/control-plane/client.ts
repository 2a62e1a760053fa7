/** The API server's HTTP, for one user. */
import { Agent, request as httpsRequest, type RequestOptions } from 'node:https';
import type { IncomingHttpHeaders } from 'node:http';

export interface Answer {
  status: number;
  /** Parsed where the answer is JSON, otherwise its text. */
  body: unknown;
  headers: IncomingHttpHeaders;
}

/**
 * `path` with its query. A `body` that is no string is sent as JSON. Resolves with every status, also 4xx and 5xx;
 * rejects with Node's error where there is no answer (ECONNREFUSED while the server is down), or none in `TIMEOUT_MS`.
 */
export type Request = (method: string, path: string, body?: unknown, contentType?: string) => Promise<Answer>;

export interface Client {
  request: Request;
  /** Closes what is open. The client can be used on: a server that was restarted knows nothing of old connections. */
  close(): void;
}

const TIMEOUT_MS = 60_000;
/** Tells the tests' own requests from those of what they test, in the audit log. */
const USER_AGENT = 'constellation-vpn-test';

export function makeClient(server: string, ca: string | undefined, token: string): Client {
  let agent = new Agent({ keepAlive: true });
  return {
    async request(method, path, body, contentType = 'application/json') {
      const payload = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
      const options: RequestOptions = {
        method,
        agent,
        ...(ca === undefined ? { rejectUnauthorized: false } : { ca }),
        timeout: TIMEOUT_MS,
        headers: {
          authorization: `Bearer ${token}`,
          accept: 'application/json',
          'user-agent': USER_AGENT,
          ...(payload === undefined
            ? {}
            : { 'content-type': contentType, 'content-length': Buffer.byteLength(payload) }),
        },
      };
      return send(new URL(path, server), options, payload);
    },
    close() {
      agent.destroy();
      agent = new Agent({ keepAlive: true });
    },
  };
}

function send(url: URL, options: RequestOptions, payload: string | undefined): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpsRequest(url, options, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const { statusCode = 0, headers } = response;
        resolve({ status: statusCode, headers, body: parse(Buffer.concat(chunks).toString(), headers) });
      });
    });
    request.on('timeout', () => request.destroy(new Error(`${url.href}: no answer in ${TIMEOUT_MS / 1000} s`)));
    request.on('error', reject);
    request.end(payload);
  });
}

function parse(text: string, headers: IncomingHttpHeaders): unknown {
  return headers['content-type']?.startsWith('application/json') ? JSON.parse(text) : text;
}
