import test from 'ava';
import { decodeConfig } from '../model/config.ts';
import type { Result } from '../model/krm.ts';
import { formatResult, summary } from './report.ts';

const line = test.macro((tt, result: Result, expected: string) => tt.is(formatResult(result, false), expected));
const resourceRef = { apiVersion: 'v1', kind: 'Secret', name: 'psk', namespace: 'vpn' };
test('a sentence', line, { severity: 'info', message: 'All is well.' }, '[info] All is well.');
test(
  'about an object',
  line,
  { severity: 'warning', message: 'is short', resourceRef },
  '[warning] v1/Secret/vpn/psk: is short',
);
test(
  'about a field',
  line,
  { severity: 'error', message: 'is empty', resourceRef, field: { path: 'data.psk' } },
  '[error] v1/Secret/vpn/psk data.psk: is empty',
);
test(
  'in a file',
  line,
  { severity: 'error', message: 'is empty', resourceRef, file: { path: 'a/b.yaml' }, field: { path: 'data.psk' } },
  '[error] v1/Secret/vpn/psk (a/b.yaml) data.psk: is empty',
);
test(
  'without namespace',
  line,
  { severity: 'error', message: 'x', resourceRef: { apiVersion: 'v1', kind: 'Node', name: 'n' } },
  '[error] v1/Node/n: x',
);
test(
  'with a proposal',
  line,
  { severity: 'error', message: 'has host bits set', field: { path: 'spec.podCIDR', proposedValue: '10.0.0.0/8' } },
  '[error] spec.podCIDR: has host bits set (proposed: "10.0.0.0/8")',
);
test(
  'with a proposed number',
  line,
  { severity: 'error', message: 'x', field: { path: 'spec.mtu', proposedValue: 1300 } },
  '[error] spec.mtu: x (proposed: 1300)',
);
test('always one line', line, { severity: 'error', message: 'a\r\nb\nc' }, '[error] a b c');

const coloured = test.macro((tt, severity: Result['severity'], label: string) => {
  tt.is(formatResult({ severity, message: 'x' }, true), `${label} x`);
});
test('red', coloured, 'error', '\u001b[31m[error]\u001b[0m');
test('yellow', coloured, 'warning', '\u001b[33m[warning]\u001b[0m');
test('cyan', coloured, 'info', '\u001b[36m[info]\u001b[0m');

const summed = test.macro((tt, spec: object, ...lines: string[]) => {
  const config = decodeConfig({ apiVersion: 'constellation-vpn.io/v1alpha1', kind: 'ConstellationVPN', spec }, 'fn');
  if ('results' in config) throw new Error(JSON.stringify(config.results));
  tt.is(summary('fn', config.vpn), lines.map((text) => `fn: ${text}\n`).join(''));
});
const ipsec = { peer: 'gw', pskSecretRef: { name: 'psk' } };
const peerCIDRs = ['10.0.0.0/8'];
const SCTP = 'Cilium: enable-sctp=true, agents restart once';
test('one of each', summed, { peerCIDRs, ipsec }, '1 site, 1 peer CIDR; authentication: 1 pre-shared key', SCTP);
test(
  'no restart',
  summed,
  { peerCIDRs, ipsec, cilium: { restartAgents: false } },
  '1 site, 1 peer CIDR; authentication: 1 pre-shared key',
  'Cilium: enable-sctp=true, agents are not restarted',
);
test(
  'Cilium left alone',
  summed,
  { peerCIDRs, ipsec, cilium: { sctp: false } },
  '1 site, 1 peer CIDR; authentication: 1 pre-shared key',
  'Cilium: unchanged',
);
test(
  'several',
  summed,
  {
    cilium: { socketLBHostNamespaceOnly: true },
    sites: [
      { name: 'a', peerCIDRs: ['10.0.0.0/8', 'fd00::/48'], ipsec },
      { name: 'b', peerCIDRs: ['11.0.0.0/8'], ipsec: { ...ipsec, ppkSecretRef: { name: 'ppk', id: 'b' } } },
      { name: 'c', peerCIDRs: ['12.0.0.0/8'], ipsec: { peer: 'gw', certificate: { secretRef: { name: 'tls' } } } },
    ],
  },
  '3 sites, 4 peer CIDRs (3 IPv4, 1 IPv6); authentication: 2 pre-shared keys, 1 certificate, 1 PPK',
  'Cilium: bpf-lb-sock-hostns-only=true, agents restart once',
);

test('what a user wrote does not steer the terminal', (tt) => {
  const line = formatResult({ severity: 'error', message: 'is \u001b[2J\u001b]0;x\u0007 bad\u009b' }, false);
  tt.is(line, '[error] is  [2J ]0;x  bad ');
});
