import test from 'ava';
import fc from 'fast-check';
import { configOf, goodSite, goodSpec } from '../../test/functions/items.ts';
import { localIdentity } from './identity.ts';

const identity = test.macro((tt, spec: object, expected: string | undefined) => {
  const { vpn } = configOf(spec);
  tt.is(localIdentity(vpn, vpn.sites[0]!, 'sites'), expected);
});
const publicAddress = '194.25.0.20';
const certificate = { pskSecretRef: null, certificate: { secretRef: { name: 'tls' } } };
const berlin = (more: object = {}, ipsec: object = {}): object => ({
  sites: [goodSite('berlin', '10.1.0.0/16', {}, { localID: null, ...ipsec })],
  ...more,
});

test('the frontend’s name', identity, goodSpec(), 'vpn-frontend.sites');
test('the frontend’s name, with its site', identity, berlin(), 'vpn-frontend-berlin.sites');
test('the load balancer’s address', identity, goodSpec({ publicAddress }), publicAddress);
test('the load balancer’s address, of a site', identity, berlin({ publicAddress }), publicAddress);
test('the one given', identity, goodSpec({ publicAddress }, { localID: '@me' }), '@me');
test('a certificate’s subject', identity, goodSpec({}, certificate), undefined);
test('a certificate’s subject goes before the address', identity, goodSpec({ publicAddress }, certificate), undefined);
test('the one given goes before a certificate', identity, berlin({}, { ...certificate, localID: '@me' }), '@me');

test('a frontend of another name', (tt) => {
  const { vpn } = configOf(goodSpec());
  tt.is(localIdentity(vpn, vpn.sites[0]!, 'sites', 'acme-vpn-frontend'), 'acme-vpn-frontend.sites');
});

test('sites without an identity of their own differ, and none is an address of a pod', (tt) => {
  const names = fc.uniqueArray(fc.stringMatching(/^[a-z]([a-z0-9-]{0,8}[a-z0-9])?$/), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(names, (given) => {
      const { vpn } = configOf({
        sites: given.map((name, i) => goodSite(name, `10.${i}.0.0/16`, {}, { localID: null })),
      });
      const ids = vpn.sites.map((site) => localIdentity(vpn, site, 'sites'));
      tt.is(new Set(ids).size, ids.length);
      ids.forEach((id) => tt.regex(id ?? '', /^vpn-frontend-.*\.sites$/));
    }),
  );
});
