import { isDeepStrictEqual } from 'node:util';
import test from 'ava';
import fc from 'fast-check';
import { canonicalAddress, familyOf, type Cidr } from '../../../functions/model/cidr.ts';
import { freeze, type Loose } from '../../../test/functions/items.ts';
import type { JsonPatchOp } from '../../lib/json-patch.ts';
import type { Pod } from '../../lib/kube/objects.ts';
import type { AddressPair, CiliumEndpoint } from '../objects.ts';
import { planEndpoint, prefixesOf, type EndpointPlan } from './plan.ts';

const UID = 'uid-of-the-pod';
const cidr = (text: string): Cidr => text as Cidr;

const podWith = (...ips: string[]): Pod => ({
  metadata: { name: 'vpn-frontend-0', uid: UID, resourceVersion: '5' },
  status: { podIPs: ips.map((ip) => ({ ip })), hostIP: '192.0.2.1' },
});

const metadata = {
  name: 'vpn-frontend-0',
  uid: 'uid-of-the-endpoint',
  resourceVersion: '17',
  ownerReferences: [{ kind: 'Pod', uid: UID }],
};
/** With everything that the agent writes beside the addresses, and more: all of it is none of our business. */
const endpointWith = (addressing: readonly AddressPair[] | null | undefined): CiliumEndpoint =>
  freeze({
    metadata,
    status: {
      id: 1234,
      identity: { id: 5678, labels: ['k8s:app.kubernetes.io/name=constellation-vpn'] },
      networking: { node: '192.0.2.1', ...(addressing === undefined ? {} : { addressing }) },
      state: 'ready',
    },
  });

const addressingOf = (endpoint: CiliumEndpoint): readonly AddressPair[] =>
  endpoint.status?.networking?.addressing ?? [];

/** RFC 6902 as far as we use it: throws where a test fails or a place is not there. */
function apply<T>(object: T, ops: readonly JsonPatchOp[]): T {
  const copy = structuredClone(object) as Loose;
  for (const { op, path, value } of ops) {
    const keys = path.split('/').slice(1);
    const last = keys.pop() ?? '';
    const parent = keys.reduce((at, key) => at[key], copy);
    if (!Object.hasOwn(parent, last)) throw new Error(`nothing at ${path}`);
    const guard = op === 'test' || path === '/metadata/resourceVersion'; // the API server answers a replaced one by 409
    if (guard && !isDeepStrictEqual(parent[last], value)) throw new Error(`another value at ${path}`);
    if (op === 'replace') parent[last] = structuredClone(value);
    else if (op !== 'test') throw new Error(`${op} is not one of ours`);
  }
  return copy;
}

function patchOf(plan: EndpointPlan): Extract<EndpointPlan, { kind: 'patch' }> {
  if (plan.kind !== 'patch') throw new Error(`no patch: ${plan.kind}`);
  return plan;
}

// Rows

const V4 = { ipv4: '10.10.1.7' };
const V6 = { ipv6: 'fd00:10::7' };
const DUAL = { ...V4, ...V6 };
const POD = podWith('10.10.1.7', 'fd00:10::7');
const A = { ipv4: '10.8.0.0/16' };
const B = { ipv4: '192.168.100.0/24' };
const SIX = { ipv6: 'fd12::/48' };
const ALL = ['10.8.0.0/16', '192.168.100.0/24', 'fd12::/48'].map(cidr);

interface Changed {
  readonly added: string[];
  readonly removed: string[];
}
const patched = test.macro(
  (tt, before: AddressPair[], cidrs: Cidr[], after: AddressPair[], { added, removed }: Changed, pod: Pod = POD) => {
    const endpoint = endpointWith(before);
    const plan = patchOf(planEndpoint(endpoint, pod, cidrs));
    tt.deepEqual(plan.ops.slice(0, 2), [
      { op: 'test', path: '/metadata/uid', value: metadata.uid },
      { op: 'replace', path: '/metadata/resourceVersion', value: '17' },
    ]);
    tt.deepEqual(addressingOf(apply(endpoint, plan.ops)), after);
    tt.deepEqual({ added: plan.added, removed: plan.removed }, { added, removed });
    tt.deepEqual(planEndpoint(apply(endpoint, plan.ops), pod, cidrs), { kind: 'converged' });
  },
);
const every = { added: ALL, removed: [] };
const none = { added: [], removed: [] };
test(
  'new: IPv4 alone',
  patched,
  [V4],
  [cidr('10.8.0.0/16')],
  [V4, A],
  { added: ['10.8.0.0/16'], removed: [] },
  podWith('10.10.1.7'),
);
test('new: a dual-stack pair stays one', patched, [DUAL], ALL, [DUAL, A, B, SIX], every);
test('new: both families in pairs of their own', patched, [V4, V6], ALL, [V4, V6, A, B, SIX], every);
test('overwritten by the agent', patched, [DUAL], ALL, [DUAL, A, B, SIX], every);
test('one more', patched, [DUAL, A, SIX], ALL, [DUAL, A, B, SIX], { added: ['192.168.100.0/24'], removed: [] });
test('one less', patched, [DUAL, A, B, SIX], ALL.slice(1), [DUAL, B, SIX], { added: [], removed: ['10.8.0.0/16'] });
test('one in place of another', patched, [DUAL, A], [cidr('10.9.0.0/16')], [DUAL, { ipv4: '10.9.0.0/16' }], {
  added: ['10.9.0.0/16'],
  removed: ['10.8.0.0/16'],
});
test('none: all of ours are taken out', patched, [DUAL, A, B, SIX], [], [DUAL], { added: [], removed: ALL });
test('repeats', patched, [DUAL, A, B, SIX, A], ALL, [DUAL, A, B, SIX], none);
test('repeats in place of others', patched, [DUAL, A, A, A], ALL, [DUAL, A, B, SIX], {
  added: ['192.168.100.0/24', 'fd12::/48'],
  removed: [],
});
test(
  'in the field of the other family',
  patched,
  [DUAL, { ipv6: '10.8.0.0/16' }],
  [cidr('10.8.0.0/16')],
  [DUAL, A],
  none,
);
test('not canonical', patched, [DUAL, { ipv6: 'FD12:0::/48' }], [cidr('fd12::/48')], [DUAL, SIX], {
  added: ['fd12::/48'],
  removed: ['FD12:0::/48'],
});
test(
  'a prefix in the pair of an address',
  patched,
  [{ ...V4, ...SIX }],
  [],
  [V4],
  { added: [], removed: ['fd12::/48'] },
  podWith('10.10.1.7'),
);
test('two prefixes in one pair', patched, [DUAL, { ...A, ...SIX }], [], [DUAL], {
  added: [],
  removed: ['10.8.0.0/16', 'fd12::/48'],
});
test('the pod’s addresses were lost', patched, [A], ALL, [V4, V6, A, B, SIX], { added: ALL.slice(1), removed: [] });
test('one of the pod’s addresses was lost', patched, [V4, A, B, SIX], ALL, [V4, V6, A, B, SIX], none);
test(
  'an address that is not the pod’s stays',
  patched,
  [{ ipv4: '10.10.9.9' }, DUAL],
  [cidr('10.8.0.0/16')],
  [{ ipv4: '10.10.9.9' }, DUAL, A],
  {
    added: ['10.8.0.0/16'],
    removed: [],
  },
);
test(
  'what is wanted comes sorted, each once',
  patched,
  [DUAL],
  [...ALL.toReversed(), ...ALL],
  [DUAL, A, B, SIX],
  every,
);
test(
  'a pod that knows no addresses yet',
  patched,
  [V4],
  [cidr('10.8.0.0/16')],
  [V4, A],
  { added: ['10.8.0.0/16'], removed: [] },
  podWith(),
);

const converged = test.macro((tt, addressing: AddressPair[], cidrs: Cidr[], pod: Pod = POD) => {
  tt.deepEqual(planEndpoint(endpointWith(addressing), pod, cidrs), { kind: 'converged' });
});
test('all there', converged, [DUAL, A, B, SIX], ALL);
test('all there in another order', converged, [SIX, B, DUAL, A], ALL);
test('all there, wanted in another order and twice', converged, [DUAL, A, B, SIX], [...ALL.toReversed(), ...ALL]);
test('all there, one in the pair of an address', converged, [{ ...V4, ...SIX }, V6, A, B], ALL);
test('all there, two in one pair', converged, [DUAL, { ...A, ...SIX }, B], ALL);
test('none wanted, none there', converged, [DUAL], []);
test(
  'the pod’s address written differently',
  converged,
  [{ ipv4: '10.10.1.7', ipv6: 'FD00:10:0::7' }, A],
  [cidr('10.8.0.0/16')],
);
test('empty pairs', converged, [{}, DUAL, { ipv4: '' }, A], [cidr('10.8.0.0/16')]);
test('a pod without status', converged, [DUAL, A], [cidr('10.8.0.0/16')], { metadata: POD.metadata });

const NOT_YET = "Cilium's agent has not written the endpoint's addresses yet";
const EARLIER = 'the CiliumEndpoint still belongs to an earlier pod of that name';
const waits = test.macro((tt, endpoint: CiliumEndpoint, pod: Pod, reason: string) => {
  tt.deepEqual(planEndpoint(endpoint, pod, ALL), { kind: 'waiting', reason });
});
test('no status', waits, { metadata }, POD, NOT_YET);
test('status of null', waits, { metadata, status: null }, POD, NOT_YET);
test('no networking', waits, { metadata, status: {} }, POD, NOT_YET);
test('networking of null', waits, { metadata, status: { networking: null } }, POD, NOT_YET);
test('no addressing', waits, endpointWith(undefined), POD, NOT_YET);
test('addressing of null', waits, endpointWith(null), POD, NOT_YET);
test('empty addressing', waits, endpointWith([]), POD, NOT_YET);
test('prefixes alone, and a pod without addresses', waits, endpointWith([A, SIX]), podWith(), NOT_YET);
test('of an earlier pod', waits, endpointWith([DUAL]), { metadata: { ...POD.metadata, uid: 'another' } }, EARLIER);
test(
  'of an earlier pod, though all is there',
  waits,
  endpointWith([DUAL, A, B, SIX]),
  { ...POD, metadata: { ...POD.metadata, uid: 'another' } },
  EARLIER,
);

test('an owner that is no Pod says nothing', (tt) => {
  const owned = { ...metadata, ownerReferences: [{ kind: 'CiliumNode', uid: 'x' }] };
  tt.is(planEndpoint({ ...endpointWith([DUAL]), metadata: owned }, POD, ALL).kind, 'patch');
});

test('the prefixes of an endpoint: sorted, repeats kept, addresses left out', (tt) => {
  tt.deepEqual(prefixesOf(endpointWith([SIX, { ...V4, ipv6: 'fd00::/8' }, A, A])), [
    '10.8.0.0/16',
    '10.8.0.0/16',
    'fd00::/8',
    'fd12::/48',
  ]);
  tt.deepEqual(prefixesOf(endpointWith(null)), []);
  tt.deepEqual(prefixesOf({ metadata }), []);
});

test('10,000 ranges', (tt) => {
  const many = Array.from({ length: 10_000 }, (_, i) => cidr(`10.${i >> 8}.${i & 255}.0/24`));
  const endpoint = endpointWith([DUAL]);
  const plan = patchOf(planEndpoint(endpoint, POD, many));
  const after = apply(endpoint, plan.ops);
  tt.is(plan.added.length, 10_000);
  tt.is(addressingOf(after).length, 10_001);
  tt.deepEqual(planEndpoint(after, POD, many), { kind: 'converged' });
});

// Properties

const ADDRESSES = ['10.10.1.7', '10.10.1.8', '0.0.0.0', 'fd00:10::7', 'FD00:10::0:8', '::1', '::ffff:10.10.1.7'];
const PREFIXES = [
  '0.0.0.0/0',
  '10.8.0.0/16',
  '10.8.0.0/24',
  '10.10.1.7/32',
  '192.168.100.0/24',
  '::/0',
  'fd12::/48',
  'fd12::1/128',
].map(cidr);

const value = fc.oneof(
  fc.constantFrom(...ADDRESSES),
  fc.constantFrom<string[]>(...PREFIXES, 'FD12::/48', '10.8.0.1/16'),
);
/** Anything that may be found there: mixed pairs, values in the field of the other family, empty ones. */
const pair: fc.Arbitrary<AddressPair> = fc.record({ ipv4: value, ipv6: value }, { requiredKeys: [] });
const situation = fc.record({
  addressing: fc.array(pair, { maxLength: 8 }),
  ips: fc.subarray(ADDRESSES, { maxLength: 3 }),
  cidrs: fc.array(fc.constantFrom(...PREFIXES), { maxLength: 10 }),
});

const isPrefix = (text: string): boolean => text.includes('/');
/** What is not ours, in its order. */
const others = (addressing: readonly AddressPair[]): object[] =>
  addressing.flatMap((pair) => {
    const kept = Object.entries(pair).filter(([, text]: [string, string]) => !isPrefix(text));
    return kept.length === 0 && Object.keys(pair).length > 0 ? [] : [Object.fromEntries(kept)];
  });
/** `field value` of each prefix. */
const ours = (addressing: readonly AddressPair[]): string[] =>
  addressing
    .flatMap((pair) => Object.entries(pair) as [string, string][])
    .filter(([, text]) => isPrefix(text))
    .map(([field, text]) => `${field} ${text}`)
    .sort();
const addresses = (addressing: readonly AddressPair[]): Set<string | undefined> =>
  new Set(addressing.flatMap((pair) => Object.values(pair) as string[]).map(canonicalAddress));

/** The state after the plan, and the plan; nothing for states in which it waits. */
function settle({ addressing, ips, cidrs }: { addressing: AddressPair[]; ips: string[]; cidrs: Cidr[] }) {
  const endpoint = endpointWith(addressing);
  const plan = planEndpoint(endpoint, podWith(...ips), freeze(cidrs));
  if (plan.kind === 'waiting') return undefined;
  return { endpoint, plan, after: plan.kind === 'patch' ? apply(endpoint, plan.ops) : endpoint };
}
const RUNS = { numRuns: 200 };

test('it waits only where there is no address to keep', (tt) => {
  fc.assert(
    fc.property(situation, (given) => {
      const nothing = others(given.addressing).length === 0 && given.ips.length === 0;
      tt.is(settle(given) === undefined, given.addressing.length === 0 || nothing);
    }),
    RUNS,
  );
});

test('twice is once', (tt) => {
  fc.assert(
    fc.property(situation, (given) => {
      const settled = settle(given);
      if (settled === undefined) return;
      const again = planEndpoint(settled.after, podWith(...given.ips), given.cidrs);
      tt.deepEqual(again, { kind: 'converged' });
    }),
    RUNS,
  );
});

test('exactly the wanted prefixes, each once, in the field of their family', (tt) => {
  fc.assert(
    fc.property(situation, (given) => {
      const settled = settle(given);
      if (settled === undefined) return;
      const wanted = [...new Set(given.cidrs)].map((one) => `ipv${familyOf(one)} ${one}`).sort();
      tt.deepEqual(ours(addressingOf(settled.after)), wanted);
    }),
    RUNS,
  );
});

test('what is not ours stays as it was, in its order; only addresses of the pod come to it', (tt) => {
  fc.assert(
    fc.property(situation, (given) => {
      const settled = settle(given);
      if (settled === undefined) return;
      const before = others(given.addressing);
      const after = others(addressingOf(settled.after));
      tt.deepEqual(after.slice(0, before.length), before);
      const had = addresses(given.addressing);
      const missing = given.ips.filter((ip) => !had.has(canonicalAddress(ip)));
      tt.deepEqual(
        after.slice(before.length),
        missing.map((ip) => (ip.includes(':') ? { ipv6: ip } : { ipv4: ip })),
      );
    }),
    RUNS,
  );
});

test('nothing but the addressing is touched, and only in the very object that was seen', (tt) => {
  fc.assert(
    fc.property(situation, (given) => {
      const settled = settle(given);
      if (settled === undefined || settled.plan.kind !== 'patch') return;
      const { endpoint, plan, after } = settled;
      const expected = structuredClone(endpoint) as Loose;
      expected.status.networking.addressing = addressingOf(after);
      tt.deepEqual(after, expected);
      tt.deepEqual(
        plan.ops.map(({ op, path }) => `${op} ${path}`),
        ['test /metadata/uid', 'replace /metadata/resourceVersion', 'replace /status/networking/addressing'],
      );
      for (const changed of [{ uid: 'other' }, { resourceVersion: '18' }])
        tt.throws(() => apply({ ...endpoint, metadata: { ...endpoint.metadata, ...changed } }, plan.ops));
    }),
    RUNS,
  );
});

test('the same wishes in any order make the same patch', (tt) => {
  fc.assert(
    fc.property(situation, fc.nat(), (given, by) => {
      const turned = given.cidrs.map((_, i) => given.cidrs[(i + by) % given.cidrs.length] as Cidr);
      tt.deepEqual(settle(given)?.plan, settle({ ...given, cidrs: turned })?.plan);
    }),
    RUNS,
  );
});
