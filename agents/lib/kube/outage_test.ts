import test from 'ava';
import { errorOf, KubeError } from './errors.ts';
import { cureOf, Outage } from './outage.ts';

const status = (code: number, message = ''): KubeError =>
  errorOf('GET /pods', code, JSON.stringify({ message }), undefined);
const unreachable = (code: string): KubeError =>
  new KubeError('unreachable', `no answer: ${code}`, { cause: Object.assign(new Error(code), { code }) });
const BROKE = new KubeError('unreachable', 'watch broke off: aborted');
const GONE = unreachable('ECONNREFUSED');
const BUSY = status(429);
const NO_LEADER = status(500);
const FORBIDDEN = status(403, 'cannot list');

/** Seconds from the first failure, what failed, and the level that it is said at. */
type Told = [seconds: number, error: unknown, level?: 'warn' | 'error'];
const said = test.macro((tt, ...story: Told[]) => {
  const outage = new Outage();
  // The second time nothing is left of the first.
  for (const start of [0, 1_000_000]) {
    for (const [seconds, error, level] of story)
      tt.is(outage.failed(error, start + seconds * 1000), level, `after ${seconds} s`);
    tt.true(outage.over());
    tt.false(outage.over());
  }
});
test('a restart: once, whatever the tries say', said, [0, BROKE, 'warn'], [0.1, GONE], [9, NO_LEADER], [10, BUSY]);
test('as long as a restart takes', said, [0, BROKE, 'warn'], [29.9, GONE]);
test('longer: an error, once', said, [0, GONE, 'warn'], [30, GONE, 'error'], [40, NO_LEADER], [90, GONE]);
test('refused: an error at once, once', said, [0, FORBIDDEN, 'error'], [1, FORBIDDEN], [90, FORBIDDEN]);
test('refused, then for another reason', said, [0, FORBIDDEN, 'error'], [1, status(401), 'error'], [2, status(401)]);
test(
  'refused by a server that has just started: only where that holds',
  said,
  [0, BROKE, 'warn'],
  [9, FORBIDDEN],
  [13.9, FORBIDDEN],
  [14, FORBIDDEN, 'error'],
  [20, FORBIDDEN],
);
test(
  'refused by a server that has just started, after a long time',
  said,
  [0, BROKE, 'warn'],
  [31, GONE, 'error'],
  [600, FORBIDDEN],
  [604, GONE],
  [605, FORBIDDEN],
  [609, status(403, 'another reason')],
  [610, FORBIDDEN, 'error'],
);
test('away after it refused', said, [0, FORBIDDEN, 'error'], [600, GONE, 'warn'], [629, GONE], [630, GONE, 'error']);

test('nothing failed: nothing is over', (tt) => {
  tt.false(new Outage().over());
});

const first = test.macro((tt, error: unknown, level: 'warn' | 'error', cure: string | undefined) => {
  tt.is(new Outage().failed(error, 0), level);
  const found = cureOf(error);
  tt.is(found?.slice(0, cure?.length), cure);
});
test('no answer', first, GONE, 'warn', 'for more than 30 s now: does it run');
test('no answer, and no cause', first, BROKE, 'warn', 'for more than 30 s now: does it run');
test('429', first, BUSY, 'warn', 'for more than 30 s now: it is overloaded');
test('500', first, NO_LEADER, 'warn', "for more than 30 s now: look into its log and etcd's");
test('401', first, status(401), 'error', 'see whether the ServiceAccount is there');
test('403', first, FORBIDDEN, 'error', 'render and apply the Roles');
test('404', first, status(404), 'error', 'is this a Kubernetes API server?');
test('400', first, status(400), 'error', undefined);
test('our own mistake', first, new TypeError('x is not a function'), 'error', undefined);
test('no error at all', first, 'x', 'error', undefined);
for (const code of [
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'CERT_HAS_EXPIRED',
  'CERT_SIGNATURE_FAILURE',
  'INVALID_CA',
  'ERR_TLS_CERT_ALTNAME_INVALID',
])
  test(`a certificate: ${code}`, first, unreachable(code), 'error', 'its certificate and the CA');
for (const code of ['ECONNRESET', 'ENOTFOUND', 'EHOSTUNREACH', 'EPROTO', 'ERR_SSL_TLSV1_ALERT_INTERNAL_ERROR'])
  test(`no certificate's fault: ${code}`, first, unreachable(code), 'warn', 'for more than 30 s now');
