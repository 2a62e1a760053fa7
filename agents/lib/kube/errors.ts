/** What the API server, or the way to it, said no with. */

/** The part of a `Status` that we read (k8s.io/apimachinery pkg/apis/meta/v1). */
interface Status {
  readonly message?: string;
  readonly reason?: string;
}

/**
 * - unreachable: no answer, or none that is HTTP
 * - unauthorized: 401, the token is not accepted
 * - forbidden: 403, RBAC refused; the message names verb, resource and object
 * - notFound: 404
 * - conflict: 409, the object is not the one we saw; or 422 because a `test` of a JSON patch failed
 * - alreadyExists: 409 of a create
 * - throttled: 429
 * - invalid: 400, 413, 415, 422: the API server or an admission policy does not want it
 * - server: everything else, 5xx above all
 */
export type KubeErrorKind =
  | 'unreachable'
  | 'unauthorized'
  | 'forbidden'
  | 'notFound'
  | 'conflict'
  | 'alreadyExists'
  | 'throttled'
  | 'invalid'
  | 'server';

/** `message` says what was asked, of whom, and what came back; it never holds a token. */
export class KubeError extends Error {
  override name = 'KubeError';
  readonly kind: KubeErrorKind;
  /** What Retry-After asked for, in milliseconds. */
  readonly retryAfterMs: number | undefined;

  constructor(
    kind: KubeErrorKind,
    message: string,
    options: { cause?: unknown; retryAfterMs?: number | undefined } = {},
  ) {
    super(message, { cause: options.cause });
    this.kind = kind;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** What the next try may mend. */
const PASSING: readonly KubeErrorKind[] = ['unreachable', 'throttled', 'server'];

/** Node's codes for a certificate that it does not accept: those of OpenSSL's X509_V_ERR_*, and its own. */
const CERTIFICATE_CODE =
  /^(UNABLE_TO_(GET|VERIFY|DECODE|DECRYPT)_|(DEPTH_ZERO_)?SELF_SIGNED_CERT|CERT_|INVALID_(CA|PURPOSE)$|HOSTNAME_MISMATCH$|ERR_TLS_CERT_)/;

/** True where trying again mends nothing: somebody has to change something. */
export function isRefusal(error: unknown): boolean {
  if (!(error instanceof KubeError) || !PASSING.includes(error.kind)) return true;
  const { code } = (error.cause ?? {}) as { readonly code?: unknown };
  return typeof code === 'string' && CERTIFICATE_CODE.test(code);
}

const BY_STATUS: Readonly<Record<number, KubeErrorKind>> = {
  400: 'invalid',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'notFound',
  413: 'invalid',
  415: 'invalid',
  422: 'invalid',
  429: 'throttled',
};

/** All that the API server says of a JSON patch it could not apply (k8s.io/apimachinery pkg/api/errors, NewGenericServerResponse). */
const FAILED_TEST = 'the server rejected our request due to an error in our request';

/** Longer than this nobody is made to wait, in seconds. */
const MAX_RETRY_AFTER = 60;

function kindOf(status: number, { reason, message }: Status): KubeErrorKind {
  if (status === 409) return reason === 'AlreadyExists' ? 'alreadyExists' : 'conflict';
  if (status === 422 && message === FAILED_TEST) return 'conflict';
  return BY_STATUS[status] ?? 'server';
}

/** The error for an answer. `asked`: method and path. `retryAfter`: the header, in seconds (RFC 9110, 10.2.3). */
export function errorOf(asked: string, status: number, body: string, retryAfter: string | undefined): KubeError {
  const parsed = parseStatus(body);
  const seconds = Number(retryAfter);
  return new KubeError(kindOf(status, parsed), `${asked}: ${status} ${parsed.message ?? body.slice(0, 200).trim()}`, {
    retryAfterMs: Number.isFinite(seconds) && seconds > 0 ? Math.min(seconds, MAX_RETRY_AFTER) * 1000 : undefined,
  });
}

function parseStatus(body: string): Status {
  try {
    const json: unknown = JSON.parse(body);
    return typeof json === 'object' && json !== null ? json : {};
  } catch {
    return {};
  }
}
