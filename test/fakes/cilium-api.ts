/**
 * The part of Cilium's agent REST API that `routing` asks, on a unix socket. Answers as 1.18 to 1.20 give them:
 * test/contract/cilium-api.ts holds it against them.
 */
import { link, rename, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { BlockList, isIP } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';

type Setting = 'Enabled' | 'Disabled';

export interface Endpoint {
  readonly id: number;
  readonly ipv4?: string;
  readonly ipv6?: string;
  /** What the agent has realized; a test may change it. */
  options: { SourceIPVerification: Setting; [name: string]: Setting };
  /** Why its programs can't be loaded, in the agent's words: each try to regenerate it fails. Undefined: they can. */
  failure?: string | undefined;
  /** It is being regenerated after a start of the agent, and nothing has failed yet. */
  regenerating?: boolean;
}

/** What the agent knows about a prefix; fields as in its answer. */
export interface IPCacheEntry {
  /** Of its node. None for the world, and for addresses of the nodes themselves. */
  hostIP?: string;
  identity: number;
  encryptKey?: number;
  metadata?: { source: string; namespace?: string; name?: string };
}

export interface LoggedRequest {
  /** `performance.now()` at its arrival. */
  readonly at: number;
  readonly method: string;
  /** With the query, decoded: `/v1/ip?cidr=192.168.50.0/24`. */
  readonly path: string;
  /** Parsed; undefined where there is none. */
  readonly body: unknown;
  /** Undefined until it is answered. */
  status: number | undefined;
}

export interface Failure {
  /** Default: 1. */
  times?: number;
  /** Default: any. */
  method?: string;
  /** Matched against `LoggedRequest.path`. Default: any. */
  path?: RegExp;
  /** The header Retry-After; Cilium's own 429 has none. */
  retryAfterSeconds?: number;
}

export interface Restart {
  /** Time without a socket. */
  downMs: number;
  /** Time for which the new agent doesn't know the endpoints yet. */
  restoreMs: number;
  /** As `stop`'s. */
  leaveSocket?: boolean;
}

interface Answer {
  status: number;
  /** None: an empty body, as Cilium's 404 of a GET and 200 of a PATCH have. */
  body?: unknown;
  headers?: Record<string, string>;
  /** The answer comes so much later. */
  afterMs?: number;
  /** To be done once it is sent. */
  afterwards?: () => void;
}

type Handler = (key: string, body: unknown) => Answer;

const OPTIONS: Endpoint['options'] = {
  ConntrackAccounting: 'Disabled',
  Debug: 'Disabled',
  DropNotification: 'Enabled',
  PolicyAuditMode: 'Disabled',
  PolicyVerdictNotification: 'Enabled',
  SourceIPVerification: 'Enabled',
  TraceNotification: 'Enabled',
};
/** pkg/endpoint/id: endpoint ids are 16 bits. */
const MAX_ID = 65_535;

export class CiliumAPI {
  /** Absolute path. */
  readonly socket: string;
  readonly requests: LoggedRequest[] = [];
  /** By id; `add` fills it, `delete` makes an endpoint vanish. */
  readonly endpoints = new Map<number, Endpoint>();
  /** By prefix in canonical form. */
  readonly ipcache = new Map<string, IPCacheEntry>();
  /** How long a PATCH that changes something takes: the regeneration begins with its answer. */
  patchMs = 1000;
  /** How long a regeneration takes. */
  regenerationMs = 500;
  /** What every answer takes in addition. */
  delayMs = 0;
  /** Requests that arrive while it is true are never answered; their connections stay. */
  hang = false;
  /** As 1.20 without the namespace's annotation: what a PATCH disabled is enabled again `resetMs` after its answer. */
  resetByAnnotation = false;
  resetMs = 100;

  #server: Server | undefined;
  /** Aborted by `stop`. */
  #life = new AbortController();
  #restoring = false;
  /** By the endpoint's id, the newest message first. */
  #logs = new Map<number, string[]>();
  #failures: (Failure & { status: number; left: number })[] = [];

  private constructor(folder: string) {
    this.socket = join(folder, 'cilium.sock');
  }

  /** The socket is `<folder>/cilium.sock`. */
  static async start(folder: string): Promise<CiliumAPI> {
    const api = new CiliumAPI(folder);
    await api.start();
    return api;
  }

  /** A new endpoint with Cilium's default options. */
  add(endpoint: Omit<Endpoint, 'options' | 'failure' | 'regenerating'>): Endpoint {
    const added = { ...endpoint, options: { ...OPTIONS } };
    this.endpoints.set(endpoint.id, added);
    return added;
  }

  /** The next answers that match get this status instead; earlier failures come first. The result ends it. */
  fail(status: number, failure: Failure = {}): () => void {
    const rule = { ...failure, status, left: failure.times ?? 1 };
    this.#failures.push(rule);
    return () => {
      rule.left = 0;
    };
  }

  /** How many requests matched. */
  count(method: string, path: RegExp): number {
    return this.requests.filter((request) => request.method === method && path.test(request.path)).length;
  }

  /** Does nothing when it runs. */
  async start(): Promise<void> {
    this.#life = new AbortController();
    await this.#listen();
  }

  /**
   * Connections are cut, the socket is removed; endpoints and entries stay for the next `start`. With `leaveSocket` as
   * after kill -9: the file stays and refuses connections. Does nothing when it is stopped.
   */
  async stop({ leaveSocket = false }: { leaveSocket?: boolean } = {}): Promise<void> {
    this.#life.abort();
    await this.#close(leaveSocket);
    if (!leaveSocket) await rm(this.socket, { force: true });
  }

  /** Resolves when the agent is up and knows its endpoints again, each with the source check back; or at `stop`. */
  async restart({ downMs, restoreMs, leaveSocket = false }: Restart): Promise<void> {
    const { signal } = this.#life;
    await this.#close(leaveSocket);
    this.#logs = new Map();
    for (const { options } of this.endpoints.values()) options.SourceIPVerification = 'Enabled';
    this.#restoring = true;
    await pause(downMs, signal);
    if (!signal.aborted) await this.#listen();
    await pause(restoreMs, signal);
    this.#restoring = false;
  }

  async #listen(): Promise<void> {
    if (this.#server !== undefined) return;
    await rm(this.socket, { force: true });
    const server = createServer((request, response) => {
      void this.#serve(request, response);
    });
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(this.socket, resolve);
    });
  }

  async #close(leaveSocket: boolean): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    // Node removes the file that it made, so what is to stay is another name of it.
    const kept = `${this.socket}.kept`;
    if (leaveSocket) await link(this.socket, kept);
    const closed = new Promise((resolve) => {
      server.close(resolve);
    });
    server.closeAllConnections();
    await closed;
    if (leaveSocket) await rename(kept, this.socket);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const at = performance.now();
    const { method = '', url = '' } = request;
    // It fails when the client goes away.
    const sent = await text(request).catch(() => undefined);
    if (sent === undefined) return;
    const body = parsed(sent);
    const record: LoggedRequest = { at, method, path: decoded(url), body, status: undefined };
    this.requests.push(record);
    if (this.hang) return;
    const answer = this.#failureOf(record) ?? this.#answer(record);
    const { signal } = this.#life;
    await pause(this.delayMs + (answer.afterMs ?? 0), signal);
    if (response.destroyed || signal.aborted) return;
    record.status = answer.status;
    send(response, answer);
    answer.afterwards?.();
  }

  #failureOf({ method, path }: LoggedRequest): Answer | undefined {
    const rule = this.#failures.find(
      (failure) => failure.left > 0 && method === (failure.method ?? method) && (failure.path?.test(path) ?? true),
    );
    if (rule === undefined) return undefined;
    rule.left -= 1;
    const { status, retryAfterSeconds: seconds } = rule;
    const headers = seconds === undefined ? {} : { 'retry-after': String(seconds) };
    return { status, body: `failed with ${status} as the test wants it`, headers };
  }

  #answer({ method, path, body }: LoggedRequest): Answer {
    const routes: [RegExp, Record<string, Handler>][] = [
      [/^\/v1\/healthz$/, { GET: () => this.#getHealthz() }],
      [
        /^\/v1\/endpoint\/([^/]+)\/config$/,
        { GET: (id) => this.#getConfig(id), PATCH: (id, spec) => this.#patchConfig(id, spec) },
      ],
      [/^\/v1\/endpoint\/([^/]+)\/log$/, { GET: (id) => this.#getLog(id) }],
      [/^\/v1\/endpoint\/([^/]+)\/healthz$/, { GET: (id) => this.#getEndpointHealth(id) }],
      [/^\/v1\/ip(?:\?cidr=(.*))?$/, { GET: (cidr) => this.#getIP(cidr) }],
    ];
    for (const [pattern, methods] of routes) {
      const match = pattern.exec(path);
      if (match !== null) {
        const handler = methods[method];
        return handler === undefined ? notAllowed(method, Object.keys(methods)) : handler(match[1] ?? '', body);
      }
    }
    return { status: 404, body: { code: 404, message: `path ${path} was not found` } };
  }

  /** An answer where there is no such endpoint. The messages are those of pkg/endpoint/id and pkg/endpointmanager. */
  #lookUp(key: string): Endpoint | Answer {
    const [, prefix = 'cilium-local', id = ''] = /^(?:([^:]*):)?(.*)$/.exec(key) ?? [];
    if (prefix === 'ipv4' || prefix === 'ipv6') return this.#find((endpoint) => endpoint[prefix] === id);
    if (prefix !== 'cilium-local') return { status: 400, body: `unknown endpoint ID prefix "${prefix}"` };
    if (!/^\d+$/.test(id))
      return { status: 400, body: `invalid numeric cilium id: strconv.ParseInt: parsing "${id}": invalid syntax` };
    if (Number(id) > MAX_ID) return { status: 400, body: `endpoint id too large: ${id}` };
    return this.#find((endpoint) => endpoint.id === Number(id));
  }

  #find(matches: (endpoint: Endpoint) => boolean): Endpoint | Answer {
    const found = [...this.endpoints.values()].find(matches);
    return this.#restoring || found === undefined ? { status: 404 } : found;
  }

  #getConfig(key: string): Answer {
    const found = this.#lookUp(key);
    if ('status' in found) return found;
    return { status: 200, body: { realized: { 'label-configuration': {}, options: found.options } } };
  }

  #getLog(key: string): Answer {
    const found = this.#lookUp(key);
    if ('status' in found) return found;
    const failed = failureEntries(found);
    const entries = [...failed, ...(this.#logs.get(found.id) ?? []).map((message) => ({ code: 'OK', message }))];
    const timestamp = '2026-01-01T00:00:00Z';
    return { status: 200, body: entries.map((entry) => ({ timestamp, ...entry, state: 'ready' })) };
  }

  /** As pkg/endpoint/api.go, getHealthModel. */
  #getEndpointHealth(key: string): Answer {
    const found = this.#lookUp(key);
    if ('status' in found) return found;
    const health = { ready: 'OK', regenerating: 'Pending', 'not-ready': 'Warning' }[stateOf(found)];
    return { status: 200, body: { overallHealth: health, bpf: health, policy: health, connected: true } };
  }

  /** Of the status the part that has the controllers: of the agent and of each endpoint that it knows. */
  #getHealthz(): Answer {
    if (this.#restoring)
      return { status: 200, body: { cilium: { state: 'Warning', msg: 'Not all probes executed at least once' } } };
    const endpoints = [...this.endpoints.values()];
    const controllers = endpoints.flatMap((endpoint) => [
      controller(`sync-policymap-${endpoint.id}`, undefined),
      controller(
        `endpoint-${endpoint.id}-regeneration-recovery`,
        stateOf(endpoint) === 'not-ready' ? 'regeneration recovery failed' : undefined,
      ),
    ]);
    const cilium = { state: 'Ok', msg: '1.20.2 (v1.20.2-0123456789)' };
    return {
      status: 200,
      body: { cilium, controllers: [controller('neighbor-table-refresh', undefined), ...controllers] },
    };
  }

  /** As pkg/endpoint/policy.go says it; in the log that the agent has now, even if another agent starts meanwhile. */
  async #regenerate(endpoint: Endpoint, reason: string): Promise<void> {
    const [{ signal }, logs] = [this.#life, this.#logs];
    const log = (message: string): unknown => logs.set(endpoint.id, [message, ...(logs.get(endpoint.id) ?? [])]);
    endpoint.regenerating = true;
    log(`Triggering endpoint regeneration due to ${reason}`);
    log(`Regenerating endpoint: ${reason}`);
    await pause(this.regenerationMs, signal);
    endpoint.regenerating = false;
    log('Completed endpoint regeneration with no pending regeneration requests');
    log(`Successfully regenerated endpoint program (Reason: ${reason})`);
  }

  #patchConfig(key: string, body: unknown): Answer {
    if (body === undefined)
      return { status: 422, body: { code: 602, message: 'endpointConfiguration in body is required' } };
    if (typeof body !== 'object' || body === null)
      return { status: 400, body: { code: 400, message: 'parsing endpointConfiguration body from "" failed' } };
    const found = this.#lookUp(key);
    // Unlike the GETs, it says so.
    if ('status' in found) return found.status === 404 ? { status: 404, body: `endpoint ${key} not found` } : found;
    const wanted = optionsOf((body as { options?: Record<string, unknown> }).options ?? {});
    if (typeof wanted === 'string') return { status: 400, body: wanted };
    const changed = Object.entries(wanted).some(([name, value]) => found.options[name] !== value);
    if (!changed) return { status: 200 };
    // At once, as Cilium: what comes later is the regeneration.
    Object.assign(found.options, wanted);
    void this.#regenerateLater(found);
    return { status: 200, afterMs: this.patchMs, afterwards: () => void this.#resetLater(found) };
  }

  /** Also where nobody waits for the answer. */
  async #regenerateLater(endpoint: Endpoint): Promise<void> {
    const [{ signal }, logs] = [this.#life, this.#logs];
    await pause(this.patchMs, signal);
    const ended = signal.aborted || logs !== this.#logs;
    if (!ended) await this.#regenerate(endpoint, 'endpoint was updated via API');
  }

  async #resetLater(endpoint: Endpoint): Promise<void> {
    if (!this.resetByAnnotation) return;
    const { signal } = this.#life;
    await pause(this.resetMs, signal);
    if (signal.aborted) return;
    endpoint.options.SourceIPVerification = 'Enabled';
    // pkg/endpoint/endpoint.go, metadataResolver.
    await this.#regenerate(endpoint, 'source IP verification annotation applied');
  }

  #getIP(cidr: string): Answer {
    const inside = cidr === '' ? () => true : containment(cidr);
    if (inside === undefined) return { status: 400, body: `invalid CIDR address: ${cidr}` };
    const entries = [...this.ipcache].filter(([prefix]) => inside(prefix));
    if (entries.length === 0) return { status: 404 };
    return { status: 200, body: entries.map(([prefix, entry]) => ({ cidr: prefix, ...entry })) };
  }
}

/** pkg/endpoint/api.go, getModelCurrentStateRLocked. */
function stateOf({ regenerating = false, failure }: Endpoint): 'regenerating' | 'not-ready' | 'ready' {
  if (regenerating) return 'regenerating';
  return failure === undefined ? 'ready' : 'not-ready';
}

/** What a failed try leaves in the endpoint's log, the newest first (pkg/endpoint/policy.go, updateRegenerationStatistics). */
function failureEntries({ failure }: Endpoint): { code: string; message: string }[] {
  if (failure === undefined) return [];
  return [
    { code: 'Failure', message: `Error regenerating endpoint: ${failure}` },
    { code: 'Warning', message: `Endpoint regeneration failed: ${failure}` },
    { code: 'OK', message: 'Completed endpoint regeneration with no pending regeneration requests' },
  ];
}

/** pkg/controller: counts that are 0 are left out. */
function controller(name: string, failure: string | undefined): object {
  const never = '0001-01-01T00:00:00.000Z';
  const status =
    failure === undefined
      ? { 'success-count': 3, 'last-failure-timestamp': never, 'last-success-timestamp': '2026-01-01T00:00:00.000Z' }
      : {
          'consecutive-failure-count': 2,
          'failure-count': 2,
          'last-failure-msg': failure,
          'last-failure-timestamp': '2026-01-01T00:00:00.000Z',
          'last-success-timestamp': never,
        };
  return { name, uuid: '00000000-0000-4000-8000-000000000000', configuration: { 'error-retry': true }, status };
}

/** What is wrong where a name or value is unknown. */
function optionsOf(given: Record<string, unknown>): Record<string, Setting> | string {
  const options: Record<string, Setting> = {};
  for (const [name, value] of Object.entries(given)) {
    const setting = settingOf(String(value));
    if (!Object.hasOwn(OPTIONS, name)) return `unknown option "${name}"`;
    if (setting === undefined) return `invalid option value ${String(value)}`;
    options[name] = setting;
  }
  return options;
}

/** pkg/option: NormalizeBool. */
function settingOf(value: string): Setting | undefined {
  const lower = value.toLowerCase();
  if (['true', 'on', 'enable', 'enabled', '1'].includes(lower)) return 'Enabled';
  return ['false', 'off', 'disable', 'disabled', '0'].includes(lower) ? 'Disabled' : undefined;
}

/** Whether a prefix lies in `cidr`; undefined where that is none. */
function containment(cidr: string): ((prefix: string) => boolean) | undefined {
  const outer = split(cidr);
  if (outer === undefined) return undefined;
  const block = new BlockList();
  block.addSubnet(outer.address, outer.length, outer.family);
  return (prefix) => {
    const inner = split(prefix);
    if (inner?.family !== outer.family) return false;
    return inner.length >= outer.length && block.check(inner.address, inner.family);
  };
}

function split(cidr: string): { address: string; length: number; family: 'ipv4' | 'ipv6' } | undefined {
  const [, address = '', digits = ''] = /^([^/]+)\/(\d+)$/.exec(cidr) ?? [];
  const version = isIP(address);
  const length = Number(digits);
  if (version === 0 || length > (version === 4 ? 32 : 128)) return undefined;
  return { address, length, family: version === 4 ? 'ipv4' : 'ipv6' };
}

function notAllowed(method: string, allowed: string[]): Answer {
  const message = `method ${method} is not allowed, but [${allowed.join(',')}] are`;
  return { status: 405, body: { code: 405, message }, headers: { allow: allowed.join(',') } };
}

function send(response: ServerResponse, { status, body, headers = {} }: Answer): void {
  if (body === undefined) response.writeHead(status, { ...headers, 'content-length': 0 }).end();
  else response.writeHead(status, { ...headers, 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
}

function parsed(body: string): unknown {
  try {
    return body === '' ? undefined : JSON.parse(body);
  } catch {
    return body;
  }
}

/** As it is where it has a broken escape. */
function decoded(url: string): string {
  try {
    return decodeURIComponent(url);
  } catch {
    return url;
  }
}

/** Ends early, without an error, when `signal` is aborted. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms > 0) await sleep(ms, undefined, { signal }).catch(() => undefined);
}
