import test from 'ava';
import fc from 'fast-check';
import { parseResourceList } from '../../functions/lib/resource-list.ts';
import { run, type KrmFunction } from '../../functions/lib/run.ts';
import { dump } from '../../functions/lib/yaml.ts';
import type { Config } from '../../functions/model/config.ts';
import type { Item } from '../../functions/model/krm.ts';
import { constellationVpn } from '../../functions/src/constellation-vpn.ts';
import { injectIpsecSecret } from '../../functions/src/inject-ipsec-secret.ts';
import { injectPeerCidrs } from '../../functions/src/inject-peer-cidrs.ts';
import { patchCiliumSctp } from '../../functions/src/patch-cilium-sctp.ts';
import { validateVpn } from '../../functions/src/validate-vpn.ts';
import { foreignItem } from './foreign.ts';
import {
  base,
  ciliumConfig,
  configObject,
  configOf,
  freeze,
  partialCiliumAgent,
  partialCiliumConfig,
  title,
} from './items.ts';

// What holds for every configuration and every list of items.

type Transform = KrmFunction['transform'];
const FUNCTIONS: Record<string, Transform> = {
  'inject-peer-cidrs': injectPeerCidrs,
  'inject-ipsec-secret': injectIpsecSecret,
  'patch-cilium-sctp': patchCiliumSctp,
  'validate-vpn': validateVpn,
  'constellation-vpn': constellationVpn,
};

const way = fc.oneof(
  fc.record({ psk: fc.stringMatching(/^[a-z]{20,30}$/) }),
  fc.constant({ pskSecretRef: { name: 'some-psk' } }),
  fc.constant({ certificate: { secretRef: { name: 'some-tls' } }, ppkSecretRef: { name: 'some-ppk', id: 'me' } }),
);
const mtu = fc.constantFrom(1300, 1400, null, '');
const more = fc.record(
  {
    mtu,
    publicAddress: fc.constant('194.25.0.20'),
    cilium: fc.constantFrom(
      { sctp: true },
      { sctp: false },
      { socketLBHostNamespaceOnly: true },
      { restartAgents: false },
    ),
  },
  { requiredKeys: [] },
);
const cidr = fc.integer({ min: 0, max: 255 }).map((n) => `172.20.${n}.0/24`);
const childSAs = fc.constantFrom('perRange', 'perPair', 'one', null);
const tunnel = fc.tuple(way, childSAs).map(([auth, childSAs]) => ({ peer: '194.25.0.10', childSAs, ...auth }));
const withProbe = fc.boolean();
const unnamed = fc
  .tuple(more, fc.record({ peerCIDRs: fc.uniqueArray(cidr, { minLength: 1, maxLength: 3 }), ipsec: tunnel }), withProbe)
  .map(([a, b, probed]) => ({ ...a, ...b, ...(probed ? { probe: b.peerCIDRs[0]?.replace('.0/24', '.7') } : {}) }));
/** Sites with a third byte each of their own, so that they are disjoint. */
const severalSites = fc
  .tuple(
    more,
    fc.uniqueArray(fc.tuple(fc.constantFrom('a', 'b', 'c-d', '7'), tunnel, mtu, withProbe), {
      selector: ([name]) => name,
      minLength: 1,
      maxLength: 4,
    }),
  )
  .map(([a, sites]) => ({
    ...a,
    sites: sites.map(([name, ipsec, mtu, probed], i) => ({
      name,
      peerCIDRs: [`172.21.${i}.0/24`],
      mtu,
      ipsec: { localID: name, ...ipsec },
      ...(probed ? { probe: `172.21.${i}.7` } : {}),
    })),
  }));
const spec: fc.Arbitrary<object> = fc.oneof(unnamed, severalSites);

const cilium = fc.constantFrom(
  () => [],
  () => [ciliumConfig({ 'enable-sctp': 'false', 'bpf-lb-sock': 'false', 'kube-proxy-replacement': 'false' })],
  () => [partialCiliumConfig(), partialCiliumAgent()],
  () => [partialCiliumConfig()],
);
/** base/ in any order. */
const items: fc.Arbitrary<Item[]> = cilium.chain((own: () => Item[]) => {
  const all = [...base(), ...own()];
  return fc.shuffledSubarray(all, { minLength: all.length });
});

/** After inject-peer-cidrs, so that every function finds a frontend for each site. */
const expanded = (list: readonly Item[], config: Config): readonly Item[] =>
  freeze(injectPeerCidrs(list, config).items);

for (const [name, transform] of Object.entries(FUNCTIONS)) {
  test(`${name}: twice is once, to the object`, (tt) => {
    fc.assert(
      fc.property(items, spec, (list, given) => {
        const config = configOf(given);
        const once = freeze(transform(expanded(list, config), config));
        const twice = transform(once.items, config);
        tt.is(twice.items.length, once.items.length);
        twice.items.forEach((item, i) => tt.is(item, once.items[i]!, title(item)));
      }),
    );
  });

  test(`${name}: the input is never written to, and the same input gives the same output`, (tt) => {
    fc.assert(
      fc.property(items, spec, (list, given) => {
        const config = configOf(given);
        const frozen = freeze(list);
        tt.deepEqual(transform(frozen, config), transform(frozen, config));
      }),
    );
  });

  test(`${name}: what it leaves stays in its order`, (tt) => {
    fc.assert(
      fc.property(items, spec, (list, given) => {
        const before = expanded(list, configOf(given)).map(title);
        const after = transform(expanded(list, configOf(given)), configOf(given)).items.map(title);
        tt.deepEqual(
          after.filter((one) => before.includes(one)),
          before.filter((one) => after.includes(one)),
        );
      }),
    );
  });

  test(`${name}: foreign items to the byte, between any others`, async (tt) => {
    const mine = items.map((list) => list.map((item) => dump([item])));
    await fc.assert(
      fc.asyncProperty(
        mine,
        spec,
        fc.array(fc.tuple(foreignItem, fc.nat()), { maxLength: 6 }),
        async (own, given, extra) => {
          const foreign = extra.map(([text], n) => text(n));
          const texts = [...own];
          for (const [n, [, at]] of extra.entries()) texts.splice(at % (texts.length + 1), 0, foreign[n]!);
          const { code, out, err } = await ran(name, transform, listOf(texts, given));
          tt.is(code, NEEDS_SITES.has(name) && 'sites' in given ? 1 : 0, err);
          let at = 0;
          for (const text of code === 0 ? texts.filter((one) => foreign.includes(one)) : []) {
            const found = out.indexOf(text, at);
            tt.true(found >= at, `lost:\n${text}\nin:\n${out}`);
            at = found + text.length;
          }
          if (code === 0) tt.deepEqual(foreignOf(out), foreignOf(listOf(texts, given)));
        },
      ),
    );
  });

  test(`${name}: twice is once, to the byte`, async (tt) => {
    await fc.assert(
      fc.asyncProperty(items, spec, fc.array(foreignItem, { maxLength: 3 }), async (list, given, extra) => {
        const texts = [
          ...expanded(list, configOf(given)).map((item) => dump([item])),
          ...extra.map((text, n) => text(n)),
        ];
        const once = await ran(name, transform, listOf(texts, given));
        tt.is(once.code, 0, once.err);
        const twice = await ran(name, transform, withoutResults(once.out));
        tt.is(withoutResults(twice.out), withoutResults(once.out));
      }),
    );
  });
}

/** These find no frontend for a named site where inject-peer-cidrs has not run. */
const NEEDS_SITES = new Set(['inject-ipsec-secret']);

const listOf = (texts: readonly string[], given: object): string =>
  `apiVersion: config.kubernetes.io/v1\nkind: ResourceList\nitems:\n${texts.join('')}${dump({ functionConfig: configObject(given) })}`;

const foreignOf = (text: string): readonly Item[] =>
  parseResourceList(text).items.filter(({ kind }) => kind === 'Foreign');

const withoutResults = (text: string): string => text.replace(/^results:\n[^]*/m, '');

async function ran(
  name: string,
  transform: Transform,
  input: string,
): Promise<{ code: number; out: string; err: string }> {
  let out = '';
  let err = '';
  const code = await run(
    { name, usage: '', transform },
    {
      args: [],
      colour: false,
      read: () => Promise.resolve(input),
      out: (text) => (out += text),
      err: (text) => (err += text),
    },
  );
  return { code, out, err };
}

// Order of the functions

const commute = test.macro((tt, a: Transform, b: Transform, specs: fc.Arbitrary<object>) => {
  fc.assert(
    fc.property(items, specs, (list, given) => {
      const config = configOf(given);
      const ab = b(a(freeze(list), config).items, config);
      const ba = a(b(freeze(list), config).items, config);
      tt.deepEqual(ab.items, ba.items);
    }),
  );
});
test('patch-cilium-sctp before or after inject-peer-cidrs', commute, patchCiliumSctp, injectPeerCidrs, spec);
test('patch-cilium-sctp before or after inject-ipsec-secret', commute, patchCiliumSctp, injectIpsecSecret, spec);
test('patch-cilium-sctp before or after all', commute, patchCiliumSctp, constellationVpn, spec);
test(
  'inject-ipsec-secret before or after inject-peer-cidrs, for the unnamed site',
  commute,
  injectIpsecSecret,
  injectPeerCidrs,
  unnamed,
);
test('validate-vpn anywhere', commute, validateVpn, constellationVpn, spec);

// What Cilium's own objects were before is not to be known; what base/ was is.
test('from any configuration to any other: as if it had always been that one', (tt) => {
  const list = freeze(base());
  fc.assert(
    fc.property(spec, spec, (first, second) => {
      const direct = constellationVpn(list, configOf(second)).items;
      const over = constellationVpn(constellationVpn(list, configOf(first)).items, configOf(second)).items;
      tt.deepEqual([...over].sort(byTitle), [...direct].sort(byTitle));
    }),
  );
});
const byTitle = (a: Item, b: Item): number => (title(a) < title(b) ? -1 : Number(title(a) > title(b)));
