/**
 * The REST API of Cilium's agent on this node, as far as it is needed (cilium/cilium api/v1/openapi.yaml). Its socket is
 * made anew at each start of the agent, and until it has restored its endpoints it knows none of them.
 */
import type { Cidr } from '../../../functions/model/cidr.ts';
import { UnixHttpError, unixRequest, type UnixAnswer } from '../../lib/unix-http.ts';

export const SOCKET = 'cilium.sock';

/** Waiting in the agent's own rate limiter included: at most 10 s for a GET, 15 s for a PATCH (daemon/restapi/api_limits.go). */
const TIMEOUT_MS = 20_000;

/** `kind`: `away` (the agent does not run, starts, is busy or hangs: normal life), `refused` (it said no). */
export class CiliumError extends Error {
  override name = 'CiliumError';
  readonly kind: 'away' | 'refused';
  constructor(kind: CiliumError['kind'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

/** One of the agent's entries of who owns which range. */
export interface IpEntry {
  readonly cidr: string;
  /** Address of the node that its packets are sent to. */
  readonly hostIP?: string;
  readonly metadata?: { readonly source?: string };
}

/** One of the agent's loops. The numbers that are 0 are left out. */
export interface Controller {
  readonly name?: string;
  readonly status?: { readonly 'consecutive-failure-count'?: number };
}

/** `code`: OK, Warning or Failure. */
export interface LogEntry {
  readonly code?: string;
  readonly message?: string;
}

const BUSY: readonly number[] = [429, 503];

export class CiliumApi {
  readonly #socketPath: string;

  /** `folder`: where the agent makes its socket, /var/run/cilium. */
  constructor(folder: string) {
    this.#socketPath = `${folder}/${SOCKET}`;
  }

  /**
   * Whether the endpoint's source addresses are checked; undefined where the agent knows no endpoint with this address
   * (yet). An agent without the option checks nothing.
   */
  async sourceCheck(address: string): Promise<boolean | undefined> {
    const { status, text } = await this.#send('GET', `${endpoint(address)}/config`);
    if (status === 404) return undefined;
    const { realized } = parse(text) as { realized?: { options?: Record<string, string> } };
    return realized?.options?.SourceIPVerification === 'Enabled';
  }

  /** False where the agent knows no endpoint with this address. Takes a second and more: the endpoint is regenerated. */
  async turnSourceCheckOff(address: string): Promise<boolean> {
    const body = { options: { SourceIPVerification: 'Disabled' } };
    return (await this.#send('PATCH', `${endpoint(address)}/config`, body)).status !== 404;
  }

  /**
   * Whether the endpoint's log has it that its source check was set by annotation, which 1.20 and later do
   * (pkg/endpoint/endpoint.go, ApplySourceIPVerificationFromAnnotation).
   */
  async setByAnnotation(address: string): Promise<boolean> {
    const { status, text } = await this.#send('GET', `${endpoint(address)}/log`);
    return status !== 404 && /source IP verification annotation/i.test(text);
  }

  /** The entries for a range and for all that is inside it; without a range all there are. */
  async entries(range?: Cidr): Promise<IpEntry[]> {
    const { status, text } = await this.#send(
      'GET',
      range === undefined ? '/v1/ip' : `/v1/ip?cidr=${encodeURIComponent(range)}`,
    );
    return status === 404 ? [] : (parse(text) as IpEntry[]);
  }

  /**
   * All the agent's controllers, those of the endpoints among them, as they were up to 5 s ago. The agent has this list at
   * hand, and no limit on how often it is asked for. For an endpoint it is some 2 KB, whatever policies and identities
   * there are, unlike GET /v1/endpoint.
   */
  async controllers(): Promise<Controller[]> {
    const { text } = await this.#send('GET', '/v1/healthz');
    return (parse(text) as { controllers?: Controller[] }).controllers ?? [];
  }

  /** `OK`, `Warning`, `Pending` … (EndpointHealthStatus); undefined where the agent knows no such endpoint. */
  async endpointHealth(id: number): Promise<string | undefined> {
    const { status, text } = await this.#send('GET', `/v1/endpoint/${id}/healthz`);
    return status === 404 ? undefined : (parse(text) as { overallHealth?: string }).overallHealth;
  }

  /** The newest entry first; none where the agent knows no such endpoint. */
  async endpointLog(id: number): Promise<LogEntry[]> {
    const { status, text } = await this.#send('GET', `/v1/endpoint/${id}/log`);
    return status === 404 ? [] : (parse(text) as LogEntry[]);
  }

  /** Answers with status 2xx or 404; throws CiliumError otherwise. */
  async #send(method: 'GET' | 'PATCH', path: string, body?: object): Promise<UnixAnswer> {
    const what = `${method} ${path} at ${this.#socketPath}`;
    let answer: UnixAnswer;
    try {
      const sent = { socketPath: this.#socketPath, method, path, timeoutMs: TIMEOUT_MS };
      answer = await unixRequest(body === undefined ? sent : { ...sent, body });
    } catch (error) {
      if (!(error instanceof UnixHttpError)) throw error;
      throw new CiliumError('away', `${what}: ${error.message}`, { cause: error });
    }
    const { status, text } = answer;
    if ((status >= 200 && status < 300) || status === 404) return answer;
    throw new CiliumError(
      BUSY.includes(status) ? 'away' : 'refused',
      `${what}: status ${status} ${text.trim().slice(0, 200)}`,
    );
  }
}

const endpoint = (address: string): string => `/v1/endpoint/${address.includes(':') ? 'ipv6' : 'ipv4'}:${address}`;

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new CiliumError('refused', "the answer of Cilium's agent is not JSON", { cause: error });
  }
}
