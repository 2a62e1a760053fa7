/** Requests to other agents: plain HTTP, small bodies. */
import { request } from 'node:http';

const MAX_BYTES = 4 * 1024 * 1024;

/** The body of `GET url` as JSON. Rejects with a sentence that names the URL: no answer in time, another status than 200, no JSON. */
export async function getJson(url: string, timeoutMs: number): Promise<unknown> {
  const text = await send('GET', url, undefined, timeoutMs);
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`GET ${url}: the answer is not JSON`);
  }
}

/** Rejects with a sentence that names the URL: no answer in time, another status than 2xx. */
export async function postJson(url: string, body: object, timeoutMs: number): Promise<void> {
  await send('POST', url, JSON.stringify(body), timeoutMs);
}

function send(method: string, url: string, body: string | undefined, timeoutMs: number): Promise<string> {
  const failed = (reason: string): Error => new Error(`${method} ${url}: ${reason}`);
  return new Promise<string>((resolve, reject) => {
    const sent = request(url, { method, signal: AbortSignal.timeout(timeoutMs) }, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > MAX_BYTES) sent.destroy(new Error(`more than ${MAX_BYTES} bytes`));
        else chunks.push(chunk);
      });
      response.on('error', (error) => reject(failed(error.message)));
      response.on('end', () => {
        const { statusCode = 0 } = response;
        const wellDone = method === 'GET' ? statusCode === 200 : statusCode >= 200 && statusCode < 300;
        if (wellDone) resolve(Buffer.concat(chunks).toString('utf8'));
        else reject(failed(`status ${statusCode}`));
      });
    });
    sent.on('error', (error) =>
      reject(failed(error.name === 'AbortError' ? `no answer within ${timeoutMs} ms` : error.message)),
    );
    sent.end(body);
  });
}

/** `http://192.0.2.1:9810/path`; IPv6 addresses in brackets. */
export const urlOf = (host: string, port: number, path: string): string =>
  `http://${host.includes(':') ? `[${host}]` : host}:${port}${path}`;
