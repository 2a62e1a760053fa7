import test from 'ava';
import { CILIUM_RULES } from '../../../functions/model/cilium-rules.ts';
import type { Vpn } from '../../../functions/model/vpn.ts';
import { ciliumConfig, configOf, goodSpec, type Loose } from '../../../test/functions/items.ts';
import type { ConfigMap } from '../../lib/kube/objects.ts';
import { checkCilium, noticeOf, type Finding } from './check.ts';

const VPN = configOf(goodSpec()).vpn;
const DUAL = configOf(goodSpec({ peerCIDRs: ['192.168.100.0/24', 'fd12::/48'] })).vpn;
const SIX = configOf(goodSpec({ peerCIDRs: ['fd12::/48'] })).vpn;

const metadata = { name: 'cilium-config', namespace: 'kube-system', uid: 'u', resourceVersion: '1' };
/** As of a cluster where nothing is wrong, but for these keys; undefined takes one away. */
function configWith(changes: Record<string, string | undefined> = {}): ConfigMap {
  const data = { ...(ciliumConfig() as Loose).data, ...changes } as Record<string, string | undefined>;
  const kept = Object.entries(data).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return { metadata, data: Object.fromEntries(kept) };
}
const broken = (findings: readonly Finding[]): Finding[] => findings.filter(({ ok }) => !ok);

test('nothing wrong: every rule is kept, and says so', (tt) => {
  const findings = checkCilium(configWith(), VPN);
  tt.deepEqual(
    findings.map(({ rule }) => rule),
    ['present', ...CILIUM_RULES.map(({ id }) => id)],
  );
  tt.deepEqual(broken(findings), []);
});

test('not there: one finding, no rule is judged', (tt) => {
  const findings = checkCilium(undefined, VPN);
  tt.is(findings.length, 1);
  const { message, ...finding } = findings[0] as Finding;
  tt.deepEqual(finding, { rule: 'present', ok: false, severity: 'error' });
  tt.regex(message, /^is not there: .*--cilium-namespace/);
});

test('there, but without data', (tt) => {
  const rules = broken(checkCilium({ metadata }, VPN)).map(({ rule }) => rule);
  tt.true(rules.includes('endpoint-routes'));
  tt.false(rules.includes('present'));
});

const breaks = test.macro(
  (
    tt,
    changes: Record<string, string | undefined>,
    rule: string,
    severity: Finding['severity'],
    begin: string,
    vpn: Vpn = VPN,
  ) => {
    const [found, ...more] = broken(checkCilium(configWith(changes), vpn));
    tt.deepEqual(
      more.map(({ rule }) => rule),
      [],
    );
    tt.is(found?.rule, rule);
    tt.is(found?.severity, severity);
    tt.true(found?.message.startsWith(begin), found?.message);
  },
);
const ROUTES = 'enable-endpoint-routes';
test(
  'a wrong value is named',
  breaks,
  { [ROUTES]: 'false' },
  'endpoint-routes',
  'error',
  `${ROUTES} ("false"): must be`,
);
test('so is none', breaks, { [ROUTES]: undefined }, 'endpoint-routes', 'error', `${ROUTES} (not set): must be`);
test('an empty one is none', breaks, { [ROUTES]: '' }, 'endpoint-routes', 'error', `${ROUTES} (not set): must be`);
test('Services', breaks, { 'enable-sctp': 'false' }, 'service-translation', 'error', 'enable-sctp ("false"): Services');
test('a warning', breaks, { 'datapath-mode': 'netkit' }, 'netkit', 'warning', 'datapath-mode ("netkit"): ');
test('IPv4 is off', breaks, { 'enable-ipv4': 'false' }, 'ipv4', 'error', 'enable-ipv4 ("false"): is off');
test(
  'IPv6 is off',
  breaks,
  { 'enable-ipv6': undefined },
  'ipv6',
  'error',
  'enable-ipv6 (not set): is not "true"',
  DUAL,
);

const keeps = test.macro((tt, changes: Record<string, string | undefined>, vpn: Vpn = VPN) => {
  tt.deepEqual(broken(checkCilium(configWith(changes), vpn)), []);
});
test('IPv6 is off, and no range needs it', keeps, { 'enable-ipv6': 'false' });
test('IPv4 is off, and no range needs it', keeps, { 'enable-ipv4': 'false', 'enable-ipv6': 'true' }, SIX);
test('both are on', keeps, { 'enable-ipv6': 'true' }, DUAL);
test('the other way to have Services translated', keeps, {
  'enable-sctp': undefined,
  'bpf-lb-sock-hostns-only': 'true',
});

test('several at once, each on its own', (tt) => {
  const findings = broken(checkCilium(configWith({ [ROUTES]: 'false', kvstore: 'etcd', 'cluster-id': '3' }), VPN));
  tt.deepEqual(
    findings.map(({ rule, severity }) => `${severity} ${rule}`),
    ['error endpoint-routes', 'error kvstore', 'warning cluster-mesh'],
  );
});

const FINDING: Finding = {
  rule: 'kvstore',
  ok: false,
  severity: 'error',
  message: 'kvstore ("etcd"): with a key-value store …',
};

test('a notice of a finding', (tt) => {
  tt.deepEqual(noticeOf(FINDING), {
    id: 'kvstore kvstore ("etcd"): with a key-value store …',
    reason: 'CiliumConfigError',
    message: 'cilium-config kvstore ("etcd"): with a key-value store …',
  });
});

test('a notice of a warning', (tt) => {
  tt.is(noticeOf({ ...FINDING, severity: 'warning' }).reason, 'CiliumConfigWarning');
});

test('another finding or value is another notice', (tt) => {
  const ids = [
    FINDING,
    { ...FINDING, message: 'kvstore ("consul"): with a key-value store …' },
    { ...FINDING, rule: 'other' },
  ].map((finding) => noticeOf(finding).id);
  tt.is(new Set(ids).size, ids.length);
});
