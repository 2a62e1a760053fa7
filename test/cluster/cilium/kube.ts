/** Requests to the API server. (agents/lib's client cannot delete, and @kubernetes/client-node below it takes 60 MB a process.) */
import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { request, type RequestOptions } from 'node:https';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { load } from 'js-yaml';
import type { KubeList, KubeObject, WatchEvent } from '../../../agents/lib/kube/client.ts';
import { errorOf, KubeError } from '../../../agents/lib/kube/errors.ts';

/** What objects' managedFields show, too. */
const USER_AGENT = 'cilium-agent/stand-in';
const TIMEOUT_MS = 10_000;
/** The API server sends a bookmark about every minute. */
const SILENT_WATCH_MS = 150_000;

/** Of a kubeconfig: a certificate authority and a token or a client certificate, in files or in place. */
interface Kubeconfig {
  readonly 'current-context': string;
  readonly contexts: readonly { name: string; context: { cluster: string; user: string } }[];
  readonly clusters: readonly { name: string; cluster: Readonly<Record<string, string>> }[];
  readonly users: readonly { name: string; user: Readonly<Record<string, string>> }[];
}

type Query = Readonly<Record<string, string>>;

interface Sent {
  readonly method: string;
  readonly path: string;
  readonly query?: Query;
  readonly body?: object;
  readonly contentType?: string;
  readonly silenceMs?: number;
}

export class Kube {
  readonly server: string;
  readonly #options: RequestOptions;

  constructor(file: string) {
    const config = load(readFileSync(file, 'utf8')) as Kubeconfig;
    const context = named(config.contexts, config['current-context']).context;
    const { cluster } = named(config.clusters, context.cluster);
    const { user } = named(config.users, context.user);
    this.server = cluster.server ?? '';
    this.#options = {
      ...definedOnly({
        ca: material(cluster, 'certificate-authority'),
        cert: material(user, 'client-certificate'),
        key: material(user, 'client-key'),
      }),
      // A connection for each request: a kept one may end just as it is used again.
      agent: false,
      headers: {
        'user-agent': USER_AGENT,
        ...(user.token === undefined ? {} : { authorization: `Bearer ${user.token}` }),
      },
    };
  }

  list<T extends KubeObject>(path: string, query: Query): Promise<KubeList<T>> {
    return this.#json({ method: 'GET', path, query });
  }

  async get<T extends KubeObject>(path: string): Promise<T | undefined> {
    return unlessKind(this.#json<T>({ method: 'GET', path }), ['notFound']);
  }

  create(path: string, body: object): Promise<unknown> {
    return this.#json({ method: 'POST', path, body });
  }

  /** JSON patch, RFC 6902. */
  patch(path: string, body: readonly object[]): Promise<unknown> {
    return this.#json({ method: 'PATCH', path, body, contentType: 'application/json-patch+json' });
  }

  /** Does nothing where the object is gone, or another one than that with the uid. */
  remove(path: string, uid: string): Promise<unknown> {
    const body = { kind: 'DeleteOptions', apiVersion: 'v1', preconditions: { uid } };
    return unlessKind(this.#json({ method: 'DELETE', path, body }), ['notFound', 'conflict']);
  }

  /** The events end with the watch, and throw where it breaks off. */
  async watch<T extends KubeObject>(path: string, query: Query): Promise<AsyncIterable<WatchEvent<T>>> {
    const sent = { method: 'GET', path, query: { ...query, watch: 'true' }, silenceMs: SILENT_WATCH_MS };
    return eventsOf<T>(await this.#send(sent));
  }

  async #json<T>(sent: Sent): Promise<T> {
    return JSON.parse(await text(await this.#send(sent))) as T;
  }

  async #send(sent: Sent): Promise<IncomingMessage> {
    const response = await this.#open(sent);
    const status = response.statusCode ?? 0;
    if (status < 300) return response;
    throw errorOf(`${sent.method} ${sent.path}`, status, await text(response), undefined);
  }

  #open({ method, path, query = {}, body, contentType = 'application/json', silenceMs = TIMEOUT_MS }: Sent) {
    const url = new URL(path, this.server);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    const headers = { ...(this.#options.headers as object), 'content-type': contentType };
    return new Promise<IncomingMessage>((resolve, reject) => {
      const sent = request(url, { ...this.#options, method, headers, timeout: TIMEOUT_MS }, (response) => {
        sent.setTimeout(silenceMs);
        resolve(response);
      });
      sent.on('timeout', () => sent.destroy(new Error(`${this.server}: no answer in time`)));
      sent.on('error', reject).end(body === undefined ? undefined : JSON.stringify(body));
    });
  }
}

async function* eventsOf<T extends KubeObject>(response: IncomingMessage): AsyncGenerator<WatchEvent<T>> {
  let failure: Error | undefined;
  response.on('error', (error) => (failure = error));
  for await (const line of createInterface(response)) yield JSON.parse(line) as WatchEvent<T>;
  if (failure !== undefined) throw failure;
}

async function unlessKind<T>(answer: Promise<T>, kinds: readonly string[]): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof KubeError && kinds.includes(error.kind)) return undefined;
    throw error;
  }
}

function named<T extends { readonly name: string }>(all: readonly T[], name: string): T {
  const found = all.find((one) => one.name === name);
  if (found === undefined) throw new Error(`the kubeconfig names no ${name}`);
  return found;
}

function material(entry: Readonly<Record<string, string>>, name: string): Buffer | undefined {
  const [inPlace, file] = [entry[`${name}-data`], entry[name]];
  if (inPlace !== undefined) return Buffer.from(inPlace, 'base64');
  return file === undefined ? undefined : readFileSync(file);
}

const definedOnly = (object: object): object =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
