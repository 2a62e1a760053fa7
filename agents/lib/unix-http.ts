/** HTTP over a unix socket. */
import { request } from 'node:http';

const MAX_BYTES = 32 * 1024 * 1024;

export interface UnixAnswer {
  readonly status: number;
  readonly text: string;
}

/** No answer. `reason`: `absent` (no socket, or nobody listens there), `timeout`, `broken` (the connection ended early). */
export class UnixHttpError extends Error {
  override name = 'UnixHttpError';
  readonly reason: 'absent' | 'timeout' | 'broken';
  constructor(reason: UnixHttpError['reason'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}

interface Sent {
  readonly socketPath: string;
  readonly method: 'GET' | 'PATCH';
  readonly path: string;
  /** Sent as JSON. */
  readonly body?: object;
  /** For the whole exchange, in milliseconds. */
  readonly timeoutMs: number;
}

/** Any status resolves; rejects with UnixHttpError where there is no answer. */
export function unixRequest({ socketPath, method, path, body, timeoutMs }: Sent): Promise<UnixAnswer> {
  const signal = AbortSignal.timeout(timeoutMs);
  const headers = body === undefined ? {} : { 'content-type': 'application/json' };
  return new Promise<UnixAnswer>((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void => reject(unixHttpError(error, signal.aborted, timeoutMs));
    const sent = request({ socketPath, method, path, headers, signal, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > MAX_BYTES) sent.destroy(new Error(`more than ${MAX_BYTES} bytes`));
        else chunks.push(chunk);
      });
      response.on('error', failed);
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }),
      );
    });
    sent.on('error', failed);
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

function unixHttpError(error: NodeJS.ErrnoException, timedOut: boolean, timeoutMs: number): UnixHttpError {
  const options = { cause: error };
  if (timedOut) return new UnixHttpError('timeout', `no answer within ${timeoutMs} ms`, options);
  if (error.code === 'ENOENT') return new UnixHttpError('absent', 'there is no such socket', options);
  if (error.code === 'ECONNREFUSED') return new UnixHttpError('absent', 'nobody listens on the socket', options);
  return new UnixHttpError('broken', error.message, options);
}
