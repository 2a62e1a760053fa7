import test from 'ava';
import type { Item, Outcome, Result } from '../model/krm.ts';
import { configObject, goodSpec } from '../../test/functions/items.ts';
import { run, type KrmFunction } from './run.ts';
import { dump } from './yaml.ts';

const fn = (transform: KrmFunction['transform']): KrmFunction => ({ name: 'fn', usage: 'Does a thing.\n', transform });
const nothing = fn((items) => ({ items, results: [] }));
const finds = (...results: Result[]): KrmFunction => fn((items) => ({ items, results }));

interface Ran {
  code: number;
  out: string;
  err: string;
}
async function ran(one: KrmFunction, input: string, args: string[] = [], colour = false): Promise<Ran> {
  const result: Ran = { code: -1, out: '', err: '' };
  result.code = await run(one, {
    args,
    colour,
    read: () => Promise.resolve(input),
    out: (text) => (result.out += text),
    err: (text) => (result.err += text),
  });
  return result;
}

const ITEMS = 'items:\n- kind: A # kept\n  mode: 0644\n';
const list = (spec: object = goodSpec(), items = ITEMS): string =>
  `apiVersion: config.kubernetes.io/v1\nkind: ResourceList\n${items}${dump({ functionConfig: configObject(spec) })}`;
const SUMMARY =
  'fn: 1 site, 1 peer CIDR; authentication: 1 pre-shared key\nfn: Cilium: enable-sctp=true, agents restart once\n';

test('nothing to do: the same bytes, a summary, exit code 0', async (tt) => {
  tt.deepEqual(await ran(nothing, list()), { code: 0, out: list(), err: SUMMARY });
});

test('a warning: on stderr and in results, exit code 0', async (tt) => {
  const { code, out, err } = await ran(finds({ severity: 'warning', message: 'mind the gap' }), list());
  tt.is(code, 0);
  tt.is(out, `${list()}results:\n- severity: warning\n  message: mind the gap\n`);
  tt.is(err, `[warning] mind the gap\n${SUMMARY}`);
});

test('an error: a line for each finding, nothing on stdout, no summary, exit code 1', async (tt) => {
  const one = finds(
    { severity: 'info', message: 'a' },
    { severity: 'error', message: 'b' },
    { severity: 'warning', message: 'c' },
  );
  tt.deepEqual(await ran(one, list()), { code: 1, out: '', err: '[info] a\n[error] b\n[warning] c\n' });
});

test('colour where it is wanted', async (tt) => {
  const { err } = await ran(finds({ severity: 'error', message: 'b' }), list(), [], true);
  tt.is(err, '\u001b[31m[error]\u001b[0m b\n');
});

test('a changed item carries no annotation of ours', async (tt) => {
  const one = fn((items) => ({ items: items.map((item) => ({ ...item, metadata: { name: 'x' } })), results: [] }));
  tt.true((await ran(one, list())).out.includes('- kind: A\n  mode: 0644\n  metadata:\n    name: x\n'));
});

test('a new item has its path under the older annotation, too', async (tt) => {
  const annotations = { 'internal.config.kubernetes.io/path': 'a/b.yaml' };
  const one = fn((items) => ({ items: [...items, { kind: 'N', metadata: { name: 'n', annotations } }], results: [] }));
  const { out } = await ran(one, list());
  tt.regex(out, /^ {6}config\.kubernetes\.io\/path: a\/b\.yaml$/m);
});

test('objects come out in the order of the function, duplicates and nameless ones too', async (tt) => {
  const added = { kind: 'Z', metadata: {} };
  const items = (input: readonly Item[]): Outcome => ({
    items: [added, ...input, added],
    results: [],
  });
  const { out } = await ran(fn(items), list());
  tt.true(
    out.includes('items:\n- kind: Z\n  metadata: {}\n- kind: A # kept\n  mode: 0644\n- kind: Z\n  metadata: {}\n'),
  );
});

for (const flag of ['--help', '-h'])
  test(`${flag}: usage on stdout, stdin is not read`, async (tt) => {
    const { code, out, err } = await ran(nothing, 'not YAML: [', [flag]);
    tt.is(code, 0);
    tt.regex(out, /^Usage: fn /);
    tt.true(out.includes('Does a thing.'));
    tt.is(err, '');
  });

/** Whatever is wrong: exit code 1, sentences, nothing on stdout, no stack trace. */
const refused = test.macro(async (tt, input: string, ...lines: string[]) => {
  tt.deepEqual(await ran(nothing, input), { code: 1, out: '', err: lines.map((line) => `[error] ${line}\n`).join('') });
});
const NO_CONFIG =
  'fn: no functionConfig: it needs a ConstellationVPN object; in a Kptfile set configPath, in a kustomization name the file under transformers';
const OBJECT = 'constellation-vpn.io/v1alpha1/ConstellationVPN/vpn';
test('nothing', refused, '', 'fn: nothing on stdin: a KRM function reads a ResourceList there. Usage: --help');
test(
  'no YAML',
  refused,
  'a: [',
  'fn: stdin is not YAML: unexpected end of the stream within a flow collection in line 1. Usage: --help',
);
test(
  'no ResourceList',
  refused,
  'kind: Pod\n',
  'fn: stdin holds no apiVersion Pod; a KRM function reads a ResourceList of config.kubernetes.io/v1 there. Usage: --help',
);
test('no functionConfig', refused, `apiVersion: config.kubernetes.io/v1\nkind: ResourceList\n${ITEMS}`, NO_CONFIG);
test(
  'functionConfig of null',
  refused,
  `apiVersion: config.kubernetes.io/v1\nkind: ResourceList\nfunctionConfig:\n${ITEMS}`,
  NO_CONFIG,
);
test(
  'functionConfig of YAML 1.1’s null',
  refused,
  `apiVersion: config.kubernetes.io/v1\nkind: ResourceList\nfunctionConfig: ~\n${ITEMS}`,
  NO_CONFIG,
);
test(
  'functionConfig of text',
  refused,
  `apiVersion: config.kubernetes.io/v1\nkind: ResourceList\nfunctionConfig: abc\n`,
  'fn: functionConfig is no object of kind ConstellationVPN',
);
test(
  'functionConfig of a list',
  refused,
  `apiVersion: config.kubernetes.io/v1\nkind: ResourceList\nfunctionConfig: [a]\n`,
  'fn: functionConfig is no object of kind ConstellationVPN',
);
test(
  'functionConfig of another kind',
  refused,
  `apiVersion: config.kubernetes.io/v1\nkind: ResourceList\nfunctionConfig: {kind: ConfigMap}\n`,
  'fn: functionConfig is of kind ConfigMap; it must be a ConstellationVPN of constellation-vpn.io/v1alpha1',
);
test(
  'unknown apiVersion',
  refused,
  list().replace('constellation-vpn.io/v1alpha1', 'constellation-vpn.io/v2'),
  'constellation-vpn.io/v2/ConstellationVPN/vpn apiVersion: expected one of constellation-vpn.io/v1alpha1 (proposed: "constellation-vpn.io/v1alpha1")',
);
test(
  'several problems at once',
  refused,
  list({ ...goodSpec({ mtu: 1, podCIDR: '10.0.0.1/8', pearCIDRs: [] }) }),
  `${OBJECT} spec.podCIDR: has host bits set: the network is 10.0.0.0/8 (proposed: "10.0.0.0/8")`,
  `${OBJECT} spec.mtu: expected a whole number of bytes from 576 to 9000`,
  `${OBJECT} spec.pearCIDRs: is not a known field; did you mean peerCIDRs?`,
);
test(
  'a list where text belongs',
  refused,
  list(goodSpec({}, { peer: ['a'] })),
  `${OBJECT} spec.ipsec.peer: expected text, found a list`,
);

test('unknown flag', async (tt) => {
  const { code, out, err } = await ran(nothing, list(), ['--verbose']);
  tt.is(code, 1);
  tt.is(out, '');
  tt.regex(err, /^\[error\] fn: Unknown option '--verbose'.*Usage: --help\n$/);
});
test('unknown argument', async (tt) => {
  const { code, out, err } = await ran(nothing, list(), ['file.yaml']);
  tt.is(code, 1);
  tt.is(out, '');
  tt.regex(err, /^\[error\] fn: Unexpected argument 'file.yaml'.*Usage: --help\n$/);
});
test('our own mistake: one line, no stack trace', async (tt) => {
  const broken = fn(() => {
    throw new Error('boom');
  });
  tt.deepEqual(await ran(broken, list()), {
    code: 1,
    out: '',
    err: '[error] fn: internal error, please report it: boom\n',
  });
});

// YAML 1.1 in a configuration that kpt hands over raw

const raw = (spec: string): string =>
  `apiVersion: config.kubernetes.io/v1\nkind: ResourceList\n${ITEMS}functionConfig:\n  apiVersion: constellation-vpn.io/v1alpha1\n  kind: ConstellationVPN\n  metadata: {name: vpn}\n  spec:\n    peerCIDRs: [192.168.100.0/24]\n    ipsec: {peer: 194.25.0.10, pskSecretRef: {name: vpn-psk}}\n    ${spec}\n`;
const understood = test.macro(async (tt, spec: string, cilium: string) => {
  const { code, err } = await ran(nothing, raw(spec));
  tt.is(code, 0);
  tt.is(err.split('\n')[1], `fn: Cilium: ${cilium}`);
});
test('off is false', understood, 'cilium: {restartAgents: off}', 'enable-sctp=true, agents are not restarted');
test(
  'yes is true',
  understood,
  'cilium: {socketLBHostNamespaceOnly: yes}',
  'bpf-lb-sock-hostns-only=true, agents restart once',
);
test('1_300 is a number', understood, 'mtu: 1_300', 'enable-sctp=true, agents restart once');
test('~ is absent', understood, 'cilium: ~', 'enable-sctp=true, agents restart once');
test(
  'digits in place of text',
  refused,
  raw('image: 0644'),
  `${OBJECT} spec.image: expected text, found a number; put it in quotes`,
);
test(
  'base 60 in place of text',
  refused,
  raw('image: 22:30'),
  `${OBJECT} spec.image: expected text, found a number; put it in quotes`,
);
