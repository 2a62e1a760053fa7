import test from 'ava';
import type { Item } from '../model/krm.ts';
import {
  base,
  ciliumConfig,
  configOf,
  freeze,
  frontend,
  goodSite,
  goodSpec,
  said,
  title,
} from '../../test/functions/items.ts';
import { constellationVpn } from './constellation-vpn.ts';
import { injectIpsecSecret } from './inject-ipsec-secret.ts';
import { injectPeerCidrs } from './inject-peer-cidrs.ts';
import { patchCiliumSctp } from './patch-cilium-sctp.ts';
import { validateVpn } from './validate-vpn.ts';

const psk = 'a key that is long enough';

test('all four in one: the same items as one after the other', (tt) => {
  const config = configOf({
    sites: [goodSite('berlin', '10.1.0.0/16'), goodSite('munich', '10.2.0.0/16', {}, { pskSecretRef: null, psk })],
  });
  const items = freeze([...base(), ciliumConfig({ 'enable-sctp': 'false' })]);
  const one = constellationVpn(items, config);
  const steps = [injectPeerCidrs, injectIpsecSecret, patchCiliumSctp, validateVpn];
  tt.deepEqual(
    one.items,
    steps.reduce<readonly Item[]>((current, step) => step(current, config).items, freeze(items)),
  );
  tt.deepEqual(
    one.results.filter(({ severity }) => severity === 'error'),
    [],
  );
});

test('the marker is gone', (tt) => {
  tt.false(
    constellationVpn(base(), configOf(goodSpec()))
      .items.map(title)
      .some((name) => name.startsWith('UnrenderedManifests/')),
  );
});

test('the same finding of two functions is one', (tt) => {
  const { results } = constellationVpn(base(), configOf(goodSpec({}, { pskSecretRef: null, psk })));
  tt.deepEqual(results.map(said), [
    'warning spec.ipsec.psk: is a secret in a file that is usually kept in git: put it into a Secret and name that in pskSecretRef',
  ]);
});

test('cilium-config is judged as it will be', (tt) => {
  const items = [...base(), ciliumConfig({ 'enable-sctp': 'false' })];
  tt.deepEqual(
    constellationVpn(items, configOf(goodSpec()))
      .results.map(said)
      .filter((line) => line.startsWith('error')),
    [],
  );
});

test('the findings of all functions in one run', (tt) => {
  const { results } = constellationVpn([frontend()], configOf(goodSpec({ mtu: 1500 })));
  const lines = results.map(said);
  tt.true(lines.some((line) => line.includes('no Service with the label')));
  tt.true(lines.some((line) => line.startsWith('warning spec.mtu')));
});
