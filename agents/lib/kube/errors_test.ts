import test from 'ava';
import { errorOf, KubeError, type KubeErrorKind } from './errors.ts';

const ASKED = 'PATCH /api/v1/namespaces/vpn/configmaps/a';

const status = (code: number, reason: string, message: string): string =>
  JSON.stringify({ kind: 'Status', apiVersion: 'v1', status: 'Failure', message, reason, code });

const told = test.macro((tt, code: number, body: string, kind: KubeErrorKind, message: string) => {
  const error = errorOf(ASKED, code, body, undefined);
  tt.true(error instanceof KubeError);
  tt.is(error.kind, kind);
  tt.is(error.message, `${ASKED}: ${code} ${message}`);
  tt.is(error.retryAfterMs, undefined);
});
/** A Status, as the API server words it. */
const said = test.macro((tt, code: number, reason: string, kind: KubeErrorKind, message: string) => {
  const error = errorOf(ASKED, code, status(code, reason, message), undefined);
  tt.is(error.kind, kind);
  tt.is(error.message, `${ASKED}: ${code} ${message}`);
});

test('400', said, 400, 'BadRequest', 'invalid', 'the body of the request was in an unknown format');
test('401', said, 401, 'Unauthorized', 'unauthorized', 'Unauthorized');
test(
  '403: the message has verb and resource',
  said,
  403,
  'Forbidden',
  'forbidden',
  'configmaps "a" is forbidden: User "system:serviceaccount:vpn:vpn-endpoint-sync" cannot patch resource "configmaps"',
);
test('404', said, 404, 'NotFound', 'notFound', 'configmaps "a" not found');
test(
  '409 of an update',
  said,
  409,
  'Conflict',
  'conflict',
  'Operation cannot be fulfilled on configmaps "a": the object has been modified',
);
test('409 of a create', said, 409, 'AlreadyExists', 'alreadyExists', 'events "a" already exists');
test('410', said, 410, 'Expired', 'server', 'too old resource version: 1 (2)');
test('413', said, 413, 'RequestEntityTooLarge', 'invalid', 'Request entity too large: limit is 3145728');
test('415', said, 415, 'UnsupportedMediaType', 'invalid', 'the body of the request was in an unknown format');
test(
  '422: a test of the patch failed',
  said,
  422,
  'Invalid',
  'conflict',
  'the server rejected our request due to an error in our request',
);
test(
  '422: the object',
  said,
  422,
  'Invalid',
  'invalid',
  'ConfigMap "a" is invalid: data[b c]: Invalid value: "b c": a valid config key must consist of …',
);
test(
  '422: an object of a CRD',
  said,
  422,
  'Invalid',
  'invalid',
  'CiliumEndpoint.cilium.io "vpn-frontend-0" is invalid: status.networking.addressing: Required value',
);
test('429', said, 429, 'TooManyRequests', 'throttled', 'too many requests, please try again later.');
test('500', said, 500, 'InternalError', 'server', 'Internal error occurred: failed calling webhook');
test('503', said, 503, 'ServiceUnavailable', 'server', 'apiserver not ready');
test('504', said, 504, 'Timeout', 'server', 'Timeout: request did not complete within requested timeout');

test('a proxy’s page', told, 502, '<html>\n<h1>502 Bad Gateway</h1>\n', 'server', '<html>\n<h1>502 Bad Gateway</h1>');
test('a long page is cut', told, 502, 'x'.repeat(10_000), 'server', 'x'.repeat(200));
test('nothing', told, 503, '', 'server', '');
test('JSON that is no Status', told, 500, '"oops"', 'server', '"oops"');
test('JSON null', told, 500, 'null', 'server', 'null');
test(
  'a Status without message',
  told,
  409,
  '{"reason":"AlreadyExists"}',
  'alreadyExists',
  '{"reason":"AlreadyExists"}',
);
test('a redirect', told, 302, '', 'server', '');

const retryAfter = test.macro((tt, header: string | undefined, ms: number | undefined) => {
  tt.is(errorOf(ASKED, 429, '', header).retryAfterMs, ms);
});
test('Retry-After: a second', retryAfter, '1', 1_000);
test('Retry-After: none', retryAfter, undefined, undefined);
test('Retry-After: at once', retryAfter, '0', undefined);
test('Retry-After: negative', retryAfter, '-5', undefined);
test('Retry-After: a date, which the API server never sends', retryAfter, 'Wed, 21 Oct 2026 07:28:00 GMT', undefined);
test('Retry-After: empty', retryAfter, '', undefined);
test('Retry-After: of an error of another kind', (tt) => {
  tt.is(errorOf(ASKED, 503, '', '3').retryAfterMs, 3_000);
});
