/**
 * Requests to the API server with plain JSON in and out. Address and credentials are read by @kubernetes/client-node; its
 * own requests, Watch and informers are not used: docs/adr/0004-kubernetes-client.md says why.
 */
import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import { Agent, request as httpsRequest, type RequestOptions } from 'node:https';
import { KubeConfig } from '@kubernetes/client-node/dist/config.js';
import type { JsonPatchOp } from '../json-patch.ts';
import { errorOf, KubeError } from './errors.ts';

export interface ObjectMeta {
  readonly name: string;
  readonly namespace?: string;
  readonly uid: string;
  readonly resourceVersion: string;
  /** RFC 3339, in UTC. */
  readonly creationTimestamp?: string;
  /** There once its deletion was asked for. */
  readonly deletionTimestamp?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly { readonly kind: string; readonly uid: string }[];
}

/** Any object, as the API server sent it. */
export interface KubeObject {
  readonly metadata: ObjectMeta;
}

export interface KubeList<T extends KubeObject> {
  readonly metadata: { readonly resourceVersion: string };
  readonly items: readonly T[];
}

export interface WatchEvent<T extends KubeObject> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  /** A `Status` where type is ERROR. */
  readonly object: T;
}

type Query = Readonly<Record<string, string>>;

const REQUEST_TIMEOUT_MS = 30_000;
/** The API server sends a bookmark about every minute; after this long without a byte the connection is dead. */
const SILENT_WATCH_MS = 150_000;

interface Sent {
  readonly method: string;
  readonly path: string;
  readonly query?: Query;
  readonly body?: string;
  readonly contentType?: string;
  readonly signal?: AbortSignal;
  readonly silenceMs: number;
}

export class KubeClient {
  readonly #load: () => KubeConfig;
  readonly #userAgent: string;
  #config: KubeConfig;
  #agent: { readonly agent: Agent; readonly ca: string } | undefined;

  /** `kubeconfig`: a file, for development and tests; without, the Pod's own ServiceAccount. Throws where there is neither. */
  constructor(kubeconfig: string | undefined, userAgent: string) {
    this.#load = () => loadConfig(kubeconfig);
    this.#userAgent = userAgent;
    this.#config = this.#load();
  }

  /** The API server's address. */
  get server(): string {
    return this.#config.getCurrentCluster()?.server ?? '';
  }

  list<T extends KubeObject>(path: string, query: Query, signal?: AbortSignal): Promise<KubeList<T>> {
    return this.#json({ method: 'GET', path, query, ...(signal === undefined ? {} : { signal }) });
  }

  /** The object, or undefined where there is none. */
  async get<T extends KubeObject>(path: string): Promise<T | undefined> {
    try {
      return await this.#json<T>({ method: 'GET', path });
    } catch (error) {
      if (error instanceof KubeError && error.kind === 'notFound') return undefined;
      throw error;
    }
  }

  /** JSON patch, RFC 6902. The API server applies all operations or none. */
  patch<T extends KubeObject>(path: string, ops: readonly JsonPatchOp[]): Promise<T> {
    return this.#change('PATCH', path, ops, 'application/json-patch+json');
  }

  /** JSON merge patch, RFC 7386. */
  merge<T extends KubeObject>(path: string, patch: object): Promise<T> {
    return this.#change('PATCH', path, patch, 'application/merge-patch+json');
  }

  create<T extends KubeObject>(path: string, object: object): Promise<T> {
    return this.#change('POST', path, object, 'application/json');
  }

  /**
   * Resolves once the server took the watch, rejects where it did not. The events end when the server ends the watch, and
   * throw where the connection breaks or nothing came for too long.
   */
  async watch<T extends KubeObject>(
    path: string,
    query: Query,
    signal: AbortSignal,
  ): Promise<AsyncIterable<WatchEvent<T>>> {
    const sent = { method: 'GET', path, query: { ...query, watch: 'true' }, signal, silenceMs: SILENT_WATCH_MS };
    return this.#events<T>(path, await this.#send(sent));
  }

  async *#events<T extends KubeObject>(path: string, response: IncomingMessage): AsyncGenerator<WatchEvent<T>> {
    try {
      for await (const line of linesOf(response)) yield JSON.parse(line) as WatchEvent<T>;
    } catch (error) {
      throw new KubeError('unreachable', `watch ${path} at ${this.server} broke off: ${reasonOf(error)}`, {
        cause: error,
      });
    }
  }

  close(): void {
    this.#agent?.agent.destroy();
  }

  #change<T>(method: string, path: string, body: unknown, contentType: string): Promise<T> {
    const query = { fieldManager: this.#userAgent };
    return this.#json<T>({ method, path, query, body: JSON.stringify(body), contentType });
  }

  async #json<T>(sent: Omit<Sent, 'silenceMs'>): Promise<T> {
    const response = await this.#send({ ...sent, silenceMs: REQUEST_TIMEOUT_MS });
    const text = await textOf(response).catch((error: unknown) => {
      throw this.#unreachable(error);
    });
    try {
      return JSON.parse(text) as T;
    } catch (error) {
      throw new KubeError('server', `${sent.method} ${sent.path} at ${this.server}: the answer is not JSON`, {
        cause: error,
      });
    }
  }

  /** The response of a request that succeeded; its body has not been read. */
  async #send(sent: Sent): Promise<IncomingMessage> {
    let response = await this.#answer(sent);
    if (response.statusCode === 401) {
      // client-node keeps a token for up to a minute, and this one may have been rotated.
      response.resume();
      this.#config = this.#load();
      response = await this.#answer(sent);
    }
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) return response;
    const body = await textOf(response).catch(() => '');
    throw errorOf(`${sent.method} ${sent.path}`, status, body, response.headers['retry-after']);
  }

  /** The response, whatever its status. */
  async #answer(sent: Sent): Promise<IncomingMessage> {
    const options = await this.#options();
    try {
      return await this.#open(sent, options).catch((error: unknown) => {
        // The server may close a kept connection just as we use it again: nothing was processed. Others may be dead as
        // well, so the second time it is a connection of its own.
        if (error instanceof ReusedConnectionLost) return this.#open(sent, { ...options, agent: false });
        throw error;
      });
    } catch (error) {
      throw this.#unreachable(error);
    }
  }

  #open(
    { method, path, query, body, contentType, signal, silenceMs }: Sent,
    options: RequestOptions,
  ): Promise<IncomingMessage> {
    const url = new URL(this.server + path);
    for (const [key, value] of Object.entries(query ?? {})) url.searchParams.set(key, value);
    const headers = {
      ...(options.headers as OutgoingHttpHeaders),
      accept: 'application/json',
      'user-agent': this.#userAgent,
      ...(body === undefined ? {} : { 'content-type': contentType, 'content-length': Buffer.byteLength(body) }),
    };
    return new Promise((resolve, reject) => {
      const request = httpsRequest(url, {
        ...options,
        method,
        headers,
        // Covers connecting as well; after it, silence is what counts.
        timeout: REQUEST_TIMEOUT_MS,
        ...(signal === undefined ? {} : { signal }),
      });
      request.on('timeout', () => request.destroy(new Error('no answer in time')));
      request.on('response', (response) => {
        request.setTimeout(silenceMs);
        resolve(response);
      });
      request.on('error', (error: NodeJS.ErrnoException) =>
        reject(request.reusedSocket && error.code === 'ECONNRESET' ? new ReusedConnectionLost() : error),
      );
      request.end(body);
    });
  }

  /** Headers with credentials, and one agent for as long as the server's certificate authority stays. */
  async #options(): Promise<RequestOptions> {
    const options: RequestOptions = {};
    try {
      await this.#config.applyToHTTPSOptions(options);
    } catch (error) {
      throw new KubeError('unauthorized', `the credentials for the API server can't be read: ${reasonOf(error)}`, {
        cause: error,
      });
    }
    const { ca, cert, key, rejectUnauthorized, servername } = options;
    const identity = String(ca);
    if (this.#agent?.ca !== identity) {
      // Open watches stay on the old one until they end.
      const tls = Object.fromEntries(
        Object.entries({ ca, cert, key, rejectUnauthorized, servername }).filter(([, value]) => value !== undefined),
      );
      this.#agent = { agent: new Agent({ ...tls, keepAlive: true, keepAliveMsecs: 30_000 }), ca: identity };
    }
    return { ...options, agent: this.#agent.agent };
  }

  #unreachable(error: unknown): KubeError {
    return new KubeError('unreachable', `no answer from the API server at ${this.server}: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}

class ReusedConnectionLost extends Error {
  override message = 'a kept connection was lost';
}

function loadConfig(kubeconfig: string | undefined): KubeConfig {
  const config = new KubeConfig();
  if (kubeconfig !== undefined) {
    try {
      config.loadFromFile(kubeconfig);
    } catch (error) {
      throw new Error(`the kubeconfig ${kubeconfig} can't be read: ${reasonOf(error).split('\n')[0]}`, {
        cause: error,
      });
    }
    const cluster = config.getCurrentCluster();
    if (!cluster?.server)
      throw new Error(`the kubeconfig ${kubeconfig} names no server: it has no current-context, or no such cluster`);
    if (!cluster.server.startsWith('https://') || cluster.proxyUrl !== undefined)
      throw new Error(`the kubeconfig ${kubeconfig} wants HTTP or a proxy, and this client knows HTTPS alone`);
  } else if (process.env.KUBERNETES_SERVICE_HOST) config.loadFromCluster();
  else
    throw new Error(
      'this is not a Pod of a cluster (KUBERNETES_SERVICE_HOST is not set): name a kubeconfig with --kubeconfig',
    );
  return config;
}

/** Only `\n` ends a line, unlike in node:readline. */
async function* linesOf(response: IncomingMessage): AsyncGenerator<string> {
  let rest = '';
  response.setEncoding('utf8');
  for await (const chunk of response as AsyncIterable<string>) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    yield* lines.filter((line) => line !== '');
  }
}

async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

/** The innermost reason in one line: `connect ECONNREFUSED 10.96.0.1:443`. */
function reasonOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors[0]);
  return error instanceof Error ? error.message || String((error as NodeJS.ErrnoException).code) : String(error);
}
