import test from 'ava';
import type { Item } from '../model/krm.ts';
import {
  base,
  configOf,
  freeze,
  frontend,
  goodSite,
  goodSpec,
  marker,
  named,
  prefixed,
  said,
  title,
  type Loose,
} from '../../test/functions/items.ts';
import { injectIpsecSecret } from './inject-ipsec-secret.ts';
import { injectPeerCidrs } from './inject-peer-cidrs.ts';

const KEY = 'Zq9 a key that is long enough';
const literal = (psk = KEY): object => goodSpec({}, { pskSecretRef: null, psk });

const run = (items: readonly Item[], spec: object) => injectIpsecSecret(freeze(items), configOf(spec));
function injected(items: readonly Item[], spec: object): Item[] {
  const outcome = run(items, spec);
  const errors = outcome.results.filter(({ severity }) => severity === 'error');
  if (errors.length > 0) throw new Error(errors.map(said).join('\n'));
  return [...outcome.items];
}
const sources = (items: readonly Item[], name = 'vpn-frontend'): Loose =>
  named(items, 'StatefulSet', name).spec.template.spec.volumes.find((volume: Loose) => volume.name === 'ipsec')
    .projected.sources;
const keyOf = (secret: Loose): string => Buffer.from(secret.data.psk, 'base64').toString('utf8');
const secret = (name: string, data: object, more: object = {}): Item => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name, namespace: 'constellation-vpn' },
  data,
  ...more,
});

test('a literal key: the Secret, beside the frontend', (tt) => {
  const items = injected(base(), literal());
  const made = items.at(-1) as Loose;
  tt.deepEqual<unknown, unknown>(made, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: {
      name: 'vpn-ipsec',
      namespace: 'constellation-vpn',
      labels: {
        'app.kubernetes.io/name': 'constellation-vpn',
        'app.kubernetes.io/component': 'ipsec',
        'constellation-vpn.io/component': 'ipsec',
        'constellation-vpn.io/site': '',
      },
    },
    type: 'Opaque',
    data: { psk: Buffer.from(KEY).toString('base64') },
  });
  tt.deepEqual(sources(items), [{ secret: { name: 'vpn-ipsec', items: [{ key: 'psk', path: 'psk' }] } }]);
});

test('a literal key is only in the Secret', (tt) => {
  const { items, results } = run(base(), literal());
  const others = JSON.stringify([items.filter(({ kind }) => kind !== 'Secret'), results]);
  tt.false(others.includes('Zq9'));
  tt.false(others.includes(Buffer.from(KEY).toString('base64')));
});

const carried = test.macro((tt, psk: string) => tt.is(keyOf(injected(base(), literal(psk)).at(-1)), psk));
test('carried exactly: quotes', carried, `it's a "quoted" key of some length`);
test('carried exactly: what templates and shells replace', carried, '100% of $HOME, ${HOME}, $(id), {{ .x }} #1 \\n');
test('carried exactly: beyond ASCII', carried, 'Schlüssel – 鍵 – 😀 – e\u0301');
test('carried exactly: very long', carried, 'k'.repeat(100_000));

const warned = test.macro((tt, spec: object, ...expected: string[]) =>
  tt.deepEqual(run(base(), spec).results.map(said), expected),
);
const CLEAR = 'is a secret in a file that is usually kept in git: put it into a Secret and name that in pskSecretRef';
const SHORT =
  'has fewer than 20 characters and can be guessed from one recorded handshake; `openssl rand -base64 32` makes a good one';
test('warned: literal', warned, literal(), `warning spec.ipsec.psk: ${CLEAR}`);
test('warned: 20 characters are enough', warned, literal('k'.repeat(20)), `warning spec.ipsec.psk: ${CLEAR}`);
test(
  'warned: 19 are not',
  warned,
  literal('k'.repeat(19)),
  `warning spec.ipsec.psk: ${CLEAR}`,
  `warning spec.ipsec.psk: ${SHORT}`,
);
test('warned: a reference is fine', warned, goodSpec());

test('a reference is only wired', (tt) => {
  const before = base();
  const items = injected(before, goodSpec({}, { pskSecretRef: { name: 'mine', key: 'k.1' } }));
  tt.deepEqual(items.map(title), before.map(title));
  tt.deepEqual(sources(items), [{ secret: { name: 'mine', items: [{ key: 'k.1', path: 'psk' }] } }]);
});

test('a reference to an item: untouched, by its name of now', (tt) => {
  const own = {
    ...secret('acme-psk-7h4k', { psk: 'a2V5' }),
    metadata: { name: 'acme-psk-7h4k', annotations: { 'internal.config.kubernetes.io/previousNames': 'psk,acme-psk' } },
  };
  const items = injected([...base(), own], goodSpec({}, { pskSecretRef: { name: 'psk' } }));
  tt.is(items.at(-1), own);
  tt.deepEqual(sources(items), [{ secret: { name: 'acme-psk-7h4k', items: [{ key: 'psk', path: 'psk' }] } }]);
});

test('a reference to a Secret encrypted by SOPS: untouched', (tt) => {
  const own = secret('vpn-psk', { psk: 'ENC[AES256_GCM,data:abc]' }, { sops: { mac: 'x' } });
  const { items, results } = run([...base(), own], goodSpec());
  tt.is(items.at(-1), own);
  tt.deepEqual(results, []);
});

test('certificate and PPK: one source for each Secret', (tt) => {
  const spec = goodSpec(
    {},
    { pskSecretRef: null, certificate: { secretRef: { name: 'tls' } }, ppkSecretRef: { name: 'ppk', id: 'me' } },
  );
  tt.deepEqual(sources(injected(base(), spec)), [
    { secret: { name: 'tls', items: ['tls.crt', 'tls.key', 'ca.crt'].map((key) => ({ key, path: key })) } },
    { secret: { name: 'ppk', items: [{ key: 'ppk', path: 'ppk' }] } },
  ]);
});

test('key and PPK in one Secret: one source', (tt) => {
  const spec = goodSpec(
    {},
    { pskSecretRef: { name: 'both', key: 'a' }, ppkSecretRef: { name: 'both', key: 'b', id: 'me' } },
  );
  tt.deepEqual(sources(injected(base(), spec)), [
    {
      secret: {
        name: 'both',
        items: [
          { key: 'a', path: 'psk' },
          { key: 'b', path: 'ppk' },
        ],
      },
    },
  ]);
});

test('other volumes, and what else the volume says, stay', (tt) => {
  const { volumes } = named(injected(base(), goodSpec()), 'StatefulSet', 'vpn-frontend').spec.template.spec;
  tt.deepEqual(volumes[0], { name: 'config', configMap: { name: 'vpn-config' } });
  tt.is(volumes[1].projected.defaultMode, 288);
});

const twoSites = {
  sites: [
    goodSite('berlin', '10.1.0.0/16', {}, { pskSecretRef: null, psk: `${KEY} b` }),
    goodSite('munich', '10.2.0.0/16'),
  ],
};
const expanded = (spec: object): readonly Item[] => injectPeerCidrs(base(), configOf(spec)).items;

test('several sites: each its own', (tt) => {
  const items = injected(expanded(twoSites), twoSites);
  tt.deepEqual(sources(items, 'vpn-frontend-berlin')[0].secret.name, 'vpn-ipsec-berlin');
  tt.deepEqual(sources(items, 'vpn-frontend-munich')[0].secret.name, 'munich-psk');
  const made = named(items, 'Secret', 'vpn-ipsec-berlin');
  tt.is(made.metadata.labels['constellation-vpn.io/site'], 'berlin');
  tt.is(keyOf(made), `${KEY} b`);
});

test('prefix and namespace of the frontend', (tt) => {
  const items = injected(
    base().map((item) => prefixed(item, 'acme-', 'sites')),
    literal(),
  );
  const made = named(items, 'Secret', 'acme-vpn-ipsec');
  tt.is(made.metadata.namespace, 'sites');
  tt.is(sources(items, 'acme-vpn-frontend')[0].secret.name, 'acme-vpn-ipsec');
});

test('run again: the very same objects', (tt) => {
  for (const spec of [literal(), goodSpec(), twoSites]) {
    const once = freeze(injected(expanded(spec), spec));
    const twice = injected(once, spec);
    tt.is(twice.length, once.length);
    twice.forEach((item, i) => tt.is(item, once[i]!));
  }
});

test('another key: the same Secret, in its place, with what users added to it', (tt) => {
  const once = injected(base(), literal()).map((item: Loose) =>
    item.kind === 'Secret' ? { ...item, immutable: true } : item,
  );
  const items = injected([once.at(-1)!, ...once.slice(0, -1)], literal(`${KEY} 2`));
  const made = items[0] as Loose;
  tt.is(keyOf(made), `${KEY} 2`);
  tt.true(made.immutable);
  tt.is(items.filter(({ kind }) => kind === 'Secret').length, 1);
});

test('a reference in place of a literal key: the made Secret goes, others stay', (tt) => {
  const mine = secret('mine', { a: 'YQ==' });
  const items = injected([...injected(base(), literal()), mine], goodSpec());
  tt.deepEqual(
    items.filter(({ kind }) => kind === 'Secret'),
    [mine],
  );
});

test('a site removed: its Secret goes', (tt) => {
  const munich = { sites: [goodSite('munich', '10.2.0.0/16')] };
  const once = injected(expanded(twoSites), twoSites);
  const items = injected(injectPeerCidrs(once, configOf(munich)).items, munich);
  tt.false(items.some(({ kind }) => kind === 'Secret'));
});

test('the marker waits for the others', (tt) => {
  tt.deepEqual(named(injected(base(), goodSpec()), 'UnrenderedManifests', 'run-the-functions').spec.waitingFor, [
    'inject-peer-cidrs',
  ]);
  const last = { ...marker(), spec: { waitingFor: ['inject-ipsec-secret'] } };
  tt.false(injected([frontend(), last], goodSpec()).some(({ kind }) => kind === 'UnrenderedManifests'));
});

const refused = test.macro((tt, items: Item[], spec: object, ...expected: string[]) => {
  const errors = run(items, spec).results.filter(({ severity }) => severity === 'error');
  tt.deepEqual(errors.map(said), expected);
});
test(
  'no frontend',
  refused,
  [],
  goodSpec(),
  'error : no frontend StatefulSet among the items: include base/ of Constellation VPN',
);
test(
  'no frontend for the sites',
  refused,
  base(),
  twoSites,
  'error : no frontend StatefulSet for the site berlin among the items: run inject-peer-cidrs before',
  'error : no frontend StatefulSet for the site munich among the items: run inject-peer-cidrs before',
);
const bare = (volumes: unknown[]): Item => ({ ...frontend(), spec: { template: { spec: { volumes } } } });
const NO_VOLUME =
  'error StatefulSet/vpn-frontend spec.template.spec.volumes: has no projected volume named ipsec: take the StatefulSet from base/';
test('no volume', refused, [bare([])], goodSpec(), NO_VOLUME);
test('a volume of another type', refused, [bare([{ name: 'ipsec', emptyDir: {} }])], goodSpec(), NO_VOLUME);

test('a made Secret that is now referred to stays: no other place has the key', (tt) => {
  const before = injected(base(), literal());
  const after = injected(before, goodSpec({}, { pskSecretRef: { name: 'vpn-ipsec' } }));
  tt.is(keyOf(named(after, 'Secret', 'vpn-ipsec')), KEY);
});

test("a Secret of the user's with the name of the one to be made: an error", (tt) => {
  const { results } = run([...base(), secret('vpn-ipsec', { psk: 'x' })], literal());
  tt.deepEqual(results.filter(({ severity }) => severity === 'error').map(said), [
    'error Secret/vpn-ipsec metadata.name: is the name of the Secret to be made of ipsec.psk: refer to this one by pskSecretRef, or rename it',
  ]);
});

test("a Secret of the same name elsewhere is not the frontend's", (tt) => {
  const other = { ...secret('vpn-psk', {}), metadata: { name: 'vpn-psk', namespace: 'elsewhere' } };
  const prefixedOne = {
    ...secret('x-vpn-psk', { psk: 'x' }),
    metadata: {
      name: 'x-vpn-psk',
      namespace: 'constellation-vpn',
      annotations: { 'internal.config.kubernetes.io/previousNames': 'vpn-psk' },
    },
  };
  tt.is(sources(injected([other, prefixedOne, ...base()], goodSpec()))[0].secret.name, 'x-vpn-psk');
});

test("sources of other kinds in the volume are the user's", (tt) => {
  const extra = { configMap: { name: 'extra-ca' } };
  const items = base().map((item: Loose) =>
    item.kind === 'StatefulSet'
      ? { ...item, spec: { ...item.spec, template: withSource(item.spec.template, extra) } }
      : item,
  );
  const once = injected(items, goodSpec());
  tt.deepEqual(sources(once).slice(1), [extra]);
  tt.deepEqual(sources(injected(once, goodSpec())), sources(once));
});
function withSource(template: Loose, source: object): object {
  const volumes = template.spec.volumes.map((volume: Loose) =>
    volume.name === 'ipsec' ? { ...volume, projected: { ...volume.projected, sources: [source] } } : volume,
  );
  return { ...template, spec: { ...template.spec, volumes } };
}
