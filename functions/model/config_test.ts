import test from 'ava';
import { decodeConfig } from './config.ts';
import type { Cidr } from './cidr.ts';
import type { Result } from './krm.ts';

const metadata = { name: 'vpn' };
const object = (spec: unknown): Record<string, unknown> => ({
  apiVersion: 'constellation-vpn.io/v1alpha1',
  kind: 'ConstellationVPN',
  metadata,
  spec,
});
const ipsec = { peer: '203.0.113.10', pskSecretRef: { name: 'vpn-psk' } };
const ref = { apiVersion: 'constellation-vpn.io/v1alpha1', kind: 'ConstellationVPN', name: 'vpn' };

const refused = test.macro((tt, source: unknown, ...results: Result[]) => {
  tt.deepEqual<unknown, unknown>(decodeConfig(source, 'validate-vpn'), { results });
});
const error = (message: string): Result => ({ severity: 'error', message });
const NONE =
  'validate-vpn: no functionConfig: it needs a ConstellationVPN object; in a Kptfile set configPath, in a kustomization name the file under transformers';
const NO_OBJECT = 'validate-vpn: functionConfig is no object of kind ConstellationVPN';
test('absent', refused, undefined, error(NONE));
test('null', refused, null, error(NONE));
test('text', refused, 'vpn', error(NO_OBJECT));
test('list', refused, [object({})], error(NO_OBJECT));
const kind = (found: string): string =>
  `validate-vpn: functionConfig is of kind ${found}; it must be a ConstellationVPN of constellation-vpn.io/v1alpha1`;
test('another kind', refused, { apiVersion: 'v1', kind: 'ConfigMap', metadata }, error(kind('ConfigMap')));
test('no kind', refused, { metadata }, error(kind('(none)')));
test('a kind that is a number', refused, { kind: 7, metadata }, error(kind('(none)')));
test(
  'a problem, with its place and what would do',
  refused,
  {
    ...object({ peerCIDRs: ['10.0.0.1/8'], ipsec }),
    metadata: { ...metadata, annotations: { 'internal.config.kubernetes.io/path': 'vpn.yaml' } },
  },
  {
    severity: 'error',
    message: 'has host bits set: the network is 10.0.0.0/8',
    resourceRef: ref,
    field: { path: 'spec.peerCIDRs[0]', proposedValue: '10.0.0.0/8' },
    file: { path: 'vpn.yaml' },
  },
);
test(
  'unknown apiVersion',
  refused,
  { ...object({ peerCIDRs: ['10.0.0.0/8'], ipsec }), apiVersion: 'v2' },
  {
    severity: 'error',
    message: 'expected one of constellation-vpn.io/v1alpha1',
    resourceRef: { ...ref, apiVersion: 'v2' },
    field: { path: 'apiVersion' },
  },
);

function paths(spec: unknown) {
  const config = decodeConfig(object(spec), 'validate-vpn');
  if ('results' in config) throw new Error(JSON.stringify(config.results));
  return config.paths;
}
const cidr = (text: string): Cidr => text as Cidr;

test("paths of the short form, in the user's order", (tt) => {
  const { site, peerCIDR } = paths({ peerCIDRs: ['fd00:0::/48', '10.0.0.0/8', 'fd00::/48'], ipsec });
  tt.is(site(''), 'spec');
  tt.is(peerCIDR('', cidr('10.0.0.0/8')), 'spec.peerCIDRs[1]');
  tt.is(peerCIDR('', cidr('fd00::/48')), 'spec.peerCIDRs[0]');
  tt.is(peerCIDR('', cidr('1.0.0.0/8')), 'spec.peerCIDRs');
});
test("paths of sites, in the user's order", (tt) => {
  const { site, peerCIDR } = paths({
    sites: [
      { name: 'b', peerCIDRs: ['11.0.0.0/8', '10.0.0.0/8'], ipsec },
      { name: 'a', peerCIDRs: ['10.0.0.0/8'], ipsec },
    ],
  });
  tt.is(site('a'), 'spec.sites[1]');
  tt.is(site('b'), 'spec.sites[0]');
  tt.is(peerCIDR('a', cidr('10.0.0.0/8')), 'spec.sites[1].peerCIDRs[0]');
  tt.is(peerCIDR('b', cidr('10.0.0.0/8')), 'spec.sites[0].peerCIDRs[1]');
});
test('paths of the only site, without a name', (tt) => {
  tt.is(paths({ sites: [{ peerCIDRs: ['10.0.0.0/8'], ipsec }] }).site(''), 'spec.sites[0]');
});
