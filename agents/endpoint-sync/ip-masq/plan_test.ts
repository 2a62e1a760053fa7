import { gunzipSync, gzipSync } from 'node:zlib';
import test from 'ava';
import fc from 'fast-check';
import { cpuMs } from '../../../test/cpu-ms.ts';
import type { JsonPatchOp } from '../../lib/json-patch.ts';
import type { ConfigMap } from '../../lib/kube/objects.ts';
import { editConfig, readConfig } from './config.ts';
import { ANNOTATION, planIpMasq, type IpMasqPlan } from './plan.ts';

const A = '192.168.100.0/24';
const B = 'fd00:1::/48';
const TEXT = 'nonMasqueradeCIDRs:\n- 10.0.0.0/8\n';
const WITH_A = `${TEXT}- ${A}\n`;
const KEY = '/metadata/annotations/constellation-vpn.io~1non-masquerade-cidrs';
const SAME: JsonPatchOp[] = [
  { op: 'test', path: '/metadata/uid', value: 'u' },
  { op: 'replace', path: '/metadata/resourceVersion', value: '7' },
];

/** `memory`: the annotation's value, JSON or text. */
function configMap(config: string | undefined, memory?: unknown, others: Record<string, string> = {}): ConfigMap {
  const value = typeof memory === 'string' ? memory : JSON.stringify(memory);
  const annotations = { ...others, ...(memory === undefined ? {} : { [ANNOTATION]: value }) };
  const metadata = {
    name: 'ip-masq-agent',
    uid: 'u',
    resourceVersion: '7',
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
  };
  return { metadata, ...(config === undefined ? {} : { data: { config, other: 'x' } }) };
}

/** The object as the API server has it after a plan; a resourceVersion that is written must be the current one. */
function applied(before: ConfigMap, plan: IpMasqPlan): ConfigMap {
  if (plan.kind !== 'patch') return before;
  const after = structuredClone(before);
  for (const op of plan.ops) apply(after as unknown as Record<string, unknown>, op);
  if (after.metadata.resourceVersion !== before.metadata.resourceVersion) throw new Error('409 Conflict');
  const { annotations, ...metadata } = after.metadata;
  const isBare = Object.keys(annotations ?? {}).length === 0; // the API server leaves out an empty map
  return { ...after, metadata: { ...metadata, ...(isBare ? {} : { annotations }) } };
}

/** As RFC 6902 has it, as far as plans need that. Changes `object`. */
function apply(object: Record<string, unknown>, { op, path, value }: JsonPatchOp): void {
  const steps = path.slice(1).split('/');
  const [key = '', ...above] = steps.map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~')).reverse();
  const parent = above.reduceRight((at, step) => at[step] as Record<string, unknown>, object);
  if (op !== 'add' && !Object.hasOwn(parent, key)) throw new Error(`${op}: no ${path}`);
  if (op === 'test' && parent[key] !== value) throw new Error(`${path} is not ${String(value)}`);
  if (op === 'remove') delete parent[key];
  if (op === 'add' || op === 'replace') parent[key] = value;
}

interface Outcome {
  readonly config: string | undefined;
  /** The annotation's value. */
  readonly memory: string | undefined;
  readonly added?: string[];
  readonly removed?: string[];
}

const plans = test.macro((tt, before: ConfigMap, desired: string[], { config, memory, ...rest }: Outcome) => {
  const plan = planIpMasq(before, 'vpn', desired);
  const after = applied(before, plan);
  tt.is(after.data?.config, config);
  tt.is(after.metadata.annotations?.[ANNOTATION], memory);
  tt.is(after.data?.other, before.data?.other);
  if (plan.kind === 'patch') {
    const { added = [], removed = [] } = rest;
    tt.deepEqual(plan.ops.slice(0, 2), SAME);
    tt.true(plan.ops.length > 2);
    tt.deepEqual({ added: plan.added, removed: plan.removed }, { added, removed });
  } else tt.deepEqual(after, before);
  const again = planIpMasq(after, 'vpn', desired);
  tt.true(again.kind === 'nothing' || again.kind === 'absent');
});
const OWN_A = '{"vpn":{"cidrs":["192.168.100.0/24"]}}';

test('added', plans, configMap(TEXT), [A], { config: WITH_A, memory: OWN_A, added: [A] });
test('already there', plans, configMap(WITH_A, OWN_A), [A], { config: WITH_A, memory: OWN_A });
test('entries sorted in memory, in the list as they come', plans, configMap(TEXT), [B, A, B], {
  config: `${TEXT}- "${B}"\n- ${A}\n`,
  memory: `{"vpn":{"cidrs":["${A}","${B}"]}}`,
  added: [B, A],
});
test('another range, in place of ours', plans, configMap(WITH_A, OWN_A), [B], {
  config: `${TEXT}- "${B}"\n`,
  memory: `{"vpn":{"cidrs":["${B}"]}}`,
  added: [B],
  removed: [A],
});
test('left', plans, configMap(WITH_A, OWN_A), [], { config: TEXT, memory: undefined, removed: [A] });
test('left long ago', plans, configMap(TEXT), [], { config: TEXT, memory: undefined });
test('somebody took ours out', plans, configMap(TEXT, OWN_A), [A], { config: WITH_A, memory: OWN_A, added: [A] });
test('somebody took ours out, and we left', plans, configMap(TEXT, OWN_A), [], { config: TEXT, memory: undefined });
test('somebody took ours out, and it changed', plans, configMap(TEXT, OWN_A), [B], {
  config: `${TEXT}- "${B}"\n`,
  memory: `{"vpn":{"cidrs":["${B}"]}}`,
  added: [B],
});
test('a user’s entry is not ours', plans, configMap(WITH_A), [A], { config: WITH_A, memory: undefined });
test('a user’s entry stays', plans, configMap(WITH_A), [], { config: WITH_A, memory: undefined });
test('a user’s entry beside ours', plans, configMap(WITH_A), [A, B], {
  config: `${WITH_A}- "${B}"\n`,
  memory: `{"vpn":{"cidrs":["${B}"]}}`,
  added: [B],
});
test('a user’s duplicate of ours stays', plans, configMap(`${WITH_A}- ${A}\n`, OWN_A), [], {
  config: WITH_A,
  memory: undefined,
  removed: [A],
});

const THEIR_A = '{"other":{"cidrs":["192.168.100.0/24"]}}';
const BOTH_A = '{"other":{"cidrs":["192.168.100.0/24"]},"vpn":{"cidrs":["192.168.100.0/24"]}}';
test('another owner’s entry is ours, too', plans, configMap(WITH_A, THEIR_A), [A], { config: WITH_A, memory: BOTH_A });
test('another owner’s entry stays', plans, configMap(WITH_A, BOTH_A), [], { config: WITH_A, memory: THEIR_A });
test('another owner’s entry is none of ours', plans, configMap(WITH_A, THEIR_A), [], {
  config: WITH_A,
  memory: THEIR_A,
});
test('another owner’s entry that is gone', plans, configMap(TEXT, THEIR_A), [A], {
  config: WITH_A,
  memory: BOTH_A,
  added: [A],
});
test('keys sorted', plans, configMap(WITH_A, '{ "z": {"future": 1, "cidrs": ["b","a"]}, "a": {"cidrs": []} }'), [B], {
  config: `${WITH_A}- "${B}"\n`,
  memory: `{"a":{"cidrs":[]},"vpn":{"cidrs":["${B}"]},"z":{"cidrs":["a","b"],"future":1}}`,
  added: [B],
});
test('an owner called __proto__', plans, configMap(WITH_A, '{"__proto__":{"cidrs":[]}}'), [B], {
  config: `${WITH_A}- "${B}"\n`,
  memory: `{"__proto__":{"cidrs":[]},"vpn":{"cidrs":["${B}"]}}`,
  added: [B],
});
test('memory of nobody', plans, configMap(TEXT, '{}'), [], { config: TEXT, memory: undefined });

// What was created for the list.

const CREATED = `a: 1\nnonMasqueradeCIDRs:\n- ${A}\n`;
test('the field created', plans, configMap('a: 1\n'), [A], {
  config: CREATED,
  memory: `{"vpn":{"cidrs":["${A}"],"created":"field"}}`,
  added: [A],
});
test('the field goes', plans, configMap(CREATED, `{"vpn":{"cidrs":["${A}"],"created":"field"}}`), [], {
  config: 'a: 1\n',
  memory: undefined,
  removed: [A],
});
test(
  'the field stays with a user’s entry',
  plans,
  configMap(`${CREATED}- 10.0.0.0/8\n`, `{"vpn":{"cidrs":["${A}"],"created":"field"}}`),
  [],
  {
    config: 'a: 1\nnonMasqueradeCIDRs:\n- 10.0.0.0/8\n',
    memory: undefined,
    removed: [A],
  },
);
test(
  'the field is handed on',
  plans,
  configMap(
    `${CREATED}- "${B}"\n`,
    `{"x":{"cidrs":["${B}"]},"vpn":{"cidrs":["${A}"],"created":"field"},"o":{"cidrs":["${B}"]}}`,
  ),
  [],
  {
    config: `a: 1\nnonMasqueradeCIDRs:\n- "${B}"\n`,
    memory: `{"o":{"cidrs":["${B}"],"created":"field"},"x":{"cidrs":["${B}"]}}`,
    removed: [A],
  },
);
test(
  'the field that another owner created goes with the last entry',
  plans,
  configMap(CREATED, `{"o":{"cidrs":["${B}"],"created":"field"},"vpn":{"cidrs":["${A}"]}}`),
  [],
  {
    config: 'a: 1\n',
    memory: `{"o":{"cidrs":["${B}"]}}`,
    removed: [A],
  },
);
test('the field is created again', plans, configMap('a: 1\n', `{"o":{"cidrs":["${B}"],"created":"value"}}`), [A], {
  config: CREATED,
  memory: `{"o":{"cidrs":["${B}"]},"vpn":{"cidrs":["${A}"],"created":"field"}}`,
  added: [A],
});
test(
  'a user emptied the list',
  plans,
  configMap('nonMasqueradeCIDRs: []\n', `{"vpn":{"cidrs":["${A}"],"created":"field"}}`),
  [A],
  {
    config: `nonMasqueradeCIDRs: ["${A}"]\n`,
    memory: OWN_A,
    added: [A],
  },
);
test('null', plans, configMap('{"nonMasqueradeCIDRs":null}'), [A], {
  config: `{"nonMasqueradeCIDRs":["${A}"]}`,
  memory: `{"vpn":{"cidrs":["${A}"],"created":"value:null"}}`,
  added: [A],
});

// Operations.

const ops = test.macro((tt, before: ConfigMap, desired: string[], expected: JsonPatchOp[]) => {
  const plan = planIpMasq(before, 'vpn', desired);
  tt.deepEqual(plan.kind === 'patch' ? plan.ops : plan, [...SAME, ...expected]);
});
const REPLACE: JsonPatchOp = { op: 'replace', path: '/data/config', value: WITH_A };
test(
  'the first annotation',
  ops,
  configMap(TEXT),
  [A],
  [REPLACE, { op: 'add', path: '/metadata/annotations', value: { [ANNOTATION]: OWN_A } }],
);
test(
  'no annotations in an empty map',
  ops,
  { ...configMap(TEXT), metadata: { name: 'ip-masq-agent', uid: 'u', resourceVersion: '7', annotations: {} } },
  [A],
  [REPLACE, { op: 'add', path: '/metadata/annotations', value: { [ANNOTATION]: OWN_A } }],
);
test(
  'beside other annotations',
  ops,
  configMap(TEXT, undefined, { a: 'b' }),
  [A],
  [REPLACE, { op: 'add', path: KEY, value: OWN_A }],
);
test('the text alone', ops, configMap(TEXT, OWN_A), [A], [REPLACE]);
test('the memory alone', ops, configMap(WITH_A, THEIR_A), [A], [{ op: 'add', path: KEY, value: BOTH_A }]);
test(
  'without a trace',
  ops,
  configMap(WITH_A, OWN_A, { a: 'b' }),
  [],
  [
    { op: 'replace', path: '/data/config', value: TEXT },
    { op: 'remove', path: KEY },
  ],
);
test('nothing to do', (tt) => tt.deepEqual(planIpMasq(configMap(WITH_A, OWN_A), 'vpn', [A]), { kind: 'nothing' }));

test('only to the very object that was seen', (tt) => {
  const seen = configMap(TEXT);
  const plan = planIpMasq(seen, 'vpn', [A]);
  const other = (metadata: Partial<ConfigMap['metadata']>): ConfigMap => ({
    ...seen,
    metadata: { ...seen.metadata, ...metadata },
  });
  tt.throws(() => applied(other({ resourceVersion: '8' }), plan), { message: '409 Conflict' });
  tt.throws(() => applied(other({ uid: 'w', resourceVersion: '8' }), plan), { message: '/metadata/uid is not u' });
});

// No configuration, or a broken one.

const absent = test.macro((tt, before: ConfigMap | undefined, desired: string[]) => {
  const plan = planIpMasq(before, 'vpn', desired);
  tt.is(plan.kind, 'absent');
  tt.regex(
    'message' in plan ? plan.message : '',
    /^ConfigMap ip-masq-agent has no data\.config, .* none is made\. Create /,
  );
});
test('no ConfigMap', absent, undefined, [A]);
test('no ConfigMap, and none wanted', absent, undefined, []);
test('no data', absent, configMap(undefined), [A]);
test('no config in the data', absent, { ...configMap(undefined), data: { other: 'x' } }, [A]);
test('an empty config', absent, configMap(''), [A]);
test('an empty config, another’s memory', absent, configMap('', THEIR_A), [A]);
test('our memory of a config that is gone', plans, configMap(undefined, BOTH_A), [A], {
  config: undefined,
  memory: THEIR_A,
});
test('our memory of a config that is empty', plans, configMap('', OWN_A), [], { config: '', memory: undefined });

const broken = test.macro((tt, before: ConfigMap, message: RegExp | string) => {
  for (const desired of [[A], []]) {
    const plan = planIpMasq(before, 'vpn', desired);
    tt.is(plan.kind, 'broken');
    const text = 'message' in plan ? plan.message : '';
    if (typeof message === 'string') tt.is(text, message);
    else tt.regex(text, message);
  }
});
test(
  'no YAML',
  broken,
  configMap('a: b: c', OWN_A),
  /^ConfigMap ip-masq-agent, data\.config is neither YAML nor JSON: .* in line 1$/,
);
test(
  'no list',
  broken,
  configMap('nonMasqueradeCIDRs: a'),
  /^ConfigMap ip-masq-agent, data\.config has nonMasqueradeCIDRs with a single value in line 1: it must be a list$/,
);
const REMEDY = 'mend it, or remove it: then entries of this VPN that are in the list stay there for good';
const ANNOTATED = 'ConfigMap ip-masq-agent, metadata.annotations["constellation-vpn.io/non-masquerade-cidrs"]';
for (const memory of ['', '{', '[]', 'null', '"a"'])
  test(
    `an annotation of ${JSON.stringify(memory)}`,
    broken,
    configMap(TEXT, memory),
    `${ANNOTATED} is not a JSON object: ${REMEDY}`,
  );
for (const share of [
  null,
  [],
  'a',
  {},
  { cidrs: 'a' },
  { cidrs: [1] },
  { cidrs: [], created: 'x' },
  { cidrs: [], created: 'value: # x' },
  { cidrs: [], created: null },
])
  test(
    `a share of ${JSON.stringify(share)}`,
    broken,
    configMap(TEXT, { a: { cidrs: [] }, o: share }),
    `${ANNOTATED} has something other than {"cidrs": [...]} at "o": ${REMEDY}`,
  );
const packed = (text: string, level?: number): string => `gzip:${gzipSync(text, { level }).toString('base64')}`;
const NO_GZIP = `${ANNOTATED} has no base64 of gzipped text behind "gzip:": ${REMEDY}`;
test('packed: nothing', broken, configMap(TEXT, 'gzip:'), NO_GZIP);
test('packed: no gzip', broken, configMap(TEXT, `gzip:${btoa(OWN_A)}`), NO_GZIP);
test('packed: no base64', broken, configMap(TEXT, `gzip:${OWN_A}`), NO_GZIP);
test('packed: cut off', broken, configMap(TEXT, packed(OWN_A).slice(0, -16)), NO_GZIP);
test('packed: 17 MiB', broken, configMap(TEXT, packed(OWN_A + ' '.repeat(17 << 20))), NO_GZIP);
test('packed: no JSON', broken, configMap(TEXT, packed('{')), `${ANNOTATED} is not a JSON object: ${REMEDY}`);
test('packed: no share', broken, configMap(TEXT, packed('{"o":1}')), /has something other than .* at "o": mend it/);
test('a broken annotation without a configuration', broken, configMap(undefined, '{'), /is not a JSON object/);
test('a text that cannot take a list', (tt) => {
  const plan = planIpMasq(configMap('{nonMasqueradeCIDRs}'), 'vpn', [A]);
  tt.regex(
    'message' in plan ? plan.message : '',
    /^ConfigMap ip-masq-agent, data\.config has nonMasqueradeCIDRs in a form/,
  );
  tt.is(plan.kind, 'broken');
});

// Several owners and a user, in any order.

const LIST = ['10.0.0.0/8', 'fd00:9::/48'];
const TEXTS = [
  'nonMasqueradeCIDRs:\n- 10.0.0.0/8 # ten\n# nine\n- "fd00:9::/48"\nmasqLinkLocal: true\n',
  'nonMasqueradeCIDRs:\r\n  - 10.0.0.0/8\r\n  - fd00:9::/48',
  'masqLinkLocal: true\n# end\n',
  'masqLinkLocal: true',
  'nonMasqueradeCIDRs: # none\nmasqLinkLocal: true\n',
  'nonMasqueradeCIDRs:  ~\n',
  'nonMasqueradeCIDRs: []\n',
  'nonMasqueradeCIDRs: [10.0.0.0/8, fd00:9::/48,]',
  '{"nonMasqueradeCIDRs":["10.0.0.0/8","fd00:9::/48"],"masqLinkLocal":false}',
  JSON.stringify({ nonMasqueradeCIDRs: LIST, masqLinkLocal: true }, null, 2),
  JSON.stringify({ nonMasqueradeCIDRs: [] }, null, '\t'),
  '{"masqLinkLocal":true}',
  '{\n  "masqLinkLocal": true,\n  "nonMasqueradeCIDRs": null\n}\n',
  '{}',
  'null\n',
  '# nothing\n',
  ' ',
];
const POOL = [A, B, '10.0.0.0/8', 'fd00:9::/48', '172.16.0.0/12', '192.0.2.0/24'];
const wishes = fc.subarray(POOL);
const owner = fc.constantFrom('vpn', 'vpn-b', 'a');
const cidrsOf = (map: ConfigMap): readonly string[] => {
  const config = readConfig(map.data?.config ?? '');
  if ('problem' in config) throw new Error(config.problem);
  return config.cidrs;
};

test('owners come, change and leave in any order, and no trace is left', (tt) => {
  const turns = fc.array(fc.tuple(owner, wishes), { maxLength: 12 });
  fc.assert(
    fc.property(
      fc.constantFrom(...TEXTS),
      turns,
      fc.shuffledSubarray(['vpn', 'vpn-b', 'a'], { minLength: 3 }),
      (text, steps, leaving) => {
        let now = configMap(text, undefined, { a: 'b' });
        const before = now;
        const wanted = new Map<string, readonly string[]>();
        for (const [name, desired] of [...steps, ...leaving.map((name): [string, string[]] => [name, []])]) {
          const once = applied(now, planIpMasq(now, name, desired));
          tt.deepEqual(planIpMasq(once, name, desired), { kind: 'nothing' });
          wanted.set(name, desired);
          now = once;
          const all = new Set([...cidrsOf(before), ...[...wanted.values()].flat()]);
          tt.deepEqual([...cidrsOf(now)].sort(), [...all].sort()); // each once, and nothing of what is not wanted any more
          tt.deepEqual(cidrsOf(now).slice(0, cidrsOf(before).length), cidrsOf(before));
        }
        tt.deepEqual(now, before);
      },
    ),
    { numRuns: 500 },
  );
});

test('whatever a user does to the list meanwhile, their entries stay, and ours go', (tt) => {
  const USERS = ['203.0.113.0/24', '198.51.100.0/24', '2001:db8::/32'];
  const user = fc.record({ add: fc.subarray(USERS), remove: fc.subarray([...POOL, ...USERS]) });
  const turns = fc.array(fc.oneof(fc.tuple(owner, wishes), fc.tuple(fc.constant(undefined), user)), { maxLength: 12 });
  fc.assert(
    fc.property(fc.constantFrom(...TEXTS), turns, (text, steps) => {
      let now = configMap(text);
      const users = new Map<string, number>();
      for (const step of steps) {
        if (step[0] === undefined) now = byUser(now, step[1], users);
        else now = applied(now, planIpMasq(now, step[0], step[1]));
      }
      for (const name of ['vpn', 'vpn-b', 'a']) now = applied(now, planIpMasq(now, name, []));
      tt.is(now.metadata.annotations, undefined);
      const left = cidrsOf(now);
      for (const cidr of USERS) tt.is(left.filter((one) => one === cidr).length, users.get(cidr) ?? 0);
      for (const cidr of [A, B, '172.16.0.0/12', '192.0.2.0/24']) tt.false(left.includes(cidr));
    }),
    { numRuns: 500 },
  );
});

/** Counts the user's own entries in `users`. */
function byUser(map: ConfigMap, change: { add: string[]; remove: string[] }, users: Map<string, number>): ConfigMap {
  const config = readConfig(map.data?.config ?? '');
  if ('problem' in config) throw new Error(config.problem);
  const listed = config.cidrs;
  const edited = editConfig(config, change);
  if ('problem' in edited) throw new Error(edited.problem);
  for (const cidr of change.remove) if (listed.includes(cidr)) users.set(cidr, (users.get(cidr) ?? 0) - 1);
  for (const cidr of change.add) users.set(cidr, (users.get(cidr) ?? 0) + 1);
  return { ...map, data: { ...map.data, config: edited.text } };
}

test('10,000 ranges into 10,000 entries', (tt) => {
  const cidrs = (first: number): string[] =>
    Array.from({ length: 10_000 }, (_, i) => `${first}.${i >> 8}.${i & 255}.0/24`);
  const text = JSON.stringify({ nonMasqueradeCIDRs: cidrs(10) });
  const before = configMap(text, { other: { cidrs: cidrs(10) } });
  let after = before;
  const ms = cpuMs(() => {
    after = applied(before, planIpMasq(before, 'vpn', cidrs(20)));
  });
  tt.true(ms < 2000, `${ms} ms`);
  tt.is(cidrsOf(after).length, 20_000);
  tt.true(applied(after, planIpMasq(after, 'vpn', [])).data?.config === text);
});

// A memory that is too long for an annotation as it is.

/** IPv6 prefixes of one /32, 32 bits of each as good as random. */
const prefixes = (seed: number): string[] =>
  Array.from({ length: 10_000 }, (_, i) => {
    const bits = Math.imul(i + seed, 0x9e3779b1) >>> 0;
    return `2001:db8:${(bits >>> 16).toString(16)}:${(bits & 0xffff).toString(16)}::/64`;
  });
const annotationOf = ({ metadata }: ConfigMap): string => metadata.annotations?.[ANNOTATION] ?? '';
const unpacked = (annotation: string): string =>
  gunzipSync(Buffer.from(annotation.replace(/^gzip:/, ''), 'base64')).toString();

test('10,000 IPv6 prefixes of each of two owners fit into an annotation', (tt) => {
  const before = configMap(TEXT, undefined, { a: 'b' });
  const [own, theirs] = [prefixes(0), prefixes(10_000)];
  const one = applied(before, planIpMasq(before, 'vpn', own));
  const both = applied(one, planIpMasq(one, 'other', theirs));
  for (const map of [one, both]) {
    tt.regex(annotationOf(map), /^gzip:[A-Za-z0-9+/]+=*$/);
    tt.true(annotationOf(map).length < 262_144);
    tt.deepEqual(planIpMasq(map, 'vpn', own), { kind: 'nothing' });
  }
  const shares = { other: { cidrs: theirs.toSorted() }, vpn: { cidrs: own.toSorted() } };
  tt.is(unpacked(annotationOf(both)), JSON.stringify(shares));
  tt.deepEqual(planIpMasq(both, 'other', theirs), { kind: 'nothing' });
  const left = applied(both, planIpMasq(both, 'vpn', []));
  tt.is(unpacked(annotationOf(left)), JSON.stringify({ other: shares.other }));
  tt.deepEqual(applied(left, planIpMasq(left, 'other', [])), before);
});

test('packed where it is longer than 64 KiB', (tt) => {
  const other = { cidrs: [], x: '' };
  const rest = JSON.stringify({ other, vpn: { cidrs: [A] } }).length;
  const after = (length: number): string => {
    const before = configMap(TEXT, { other: { ...other, x: 'x'.repeat(length - rest) } });
    return annotationOf(applied(before, planIpMasq(before, 'vpn', [A])));
  };
  tt.is(after(65_536).length, 65_536);
  tt.is(unpacked(after(65_537)).length, 65_537);
});

test('the JSON decides, not how it is packed', (tt) => {
  for (const level of [0, 1, 9]) {
    const before = configMap(WITH_A, packed(OWN_A, level));
    tt.deepEqual(planIpMasq(before, 'vpn', [A]), { kind: 'nothing' });
  }
  const long = configMap(WITH_A, { other: { cidrs: prefixes(0).toSorted() } });
  tt.deepEqual(planIpMasq(long, 'vpn', []), { kind: 'nothing' });
});

test('packed no more once it is short', plans, configMap(WITH_A, packed(BOTH_A)), [], {
  config: WITH_A,
  memory: THEIR_A,
});
