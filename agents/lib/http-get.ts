import { get } from 'node:http';

const MAX_BYTES = 4 * 1024 * 1024;

/** The body of `GET url` as JSON. Rejects with a sentence that names the URL: no answer in time, another status than 200, no JSON. */
export async function getJson(url: string, timeoutMs: number): Promise<unknown> {
  const failed = (reason: string): Error => new Error(`GET ${url}: ${reason}`);
  const text = await new Promise<string>((resolve, reject) => {
    const request = get(url, { signal: AbortSignal.timeout(timeoutMs) }, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > MAX_BYTES) request.destroy(new Error(`more than ${MAX_BYTES} bytes`));
        else chunks.push(chunk);
      });
      response.on('error', (error) => reject(failed(error.message)));
      response.on('end', () => {
        if (response.statusCode === 200) resolve(Buffer.concat(chunks).toString('utf8'));
        else reject(failed(`status ${response.statusCode}`));
      });
    });
    request.on('error', (error) =>
      reject(failed(error.name === 'AbortError' ? `no answer within ${timeoutMs} ms` : error.message)),
    );
  });
  try {
    return JSON.parse(text);
  } catch {
    throw failed('the answer is not JSON');
  }
}
