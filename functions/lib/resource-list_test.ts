import test from 'ava';
import { load } from 'js-yaml';
import { isRecord, type Item, type Result } from '../model/krm.ts';
import { BadInput, parseResourceList } from './resource-list.ts';

const HEAD = 'apiVersion: config.kubernetes.io/v1\nkind: ResourceList\n';

// Bytes: a function that changes nothing writes what it read.

const same = test.macro((tt, source: string) => {
  const { items, render } = parseResourceList(source);
  tt.true(items.length > 0);
  tt.is(render(items, []), source);
});
/** Not the same bytes, because the items are no whole lines of their own; but the same objects in the same order. */
const sameMeaning = test.macro((tt, source: string) => {
  const { items, render } = parseResourceList(source);
  const written = render(items, []);
  tt.deepEqual(load(written), load(source));
  tt.is(parseResourceList(written).render(parseResourceList(written).items, []), written);
});

test('items', same, `${HEAD}items:\n- kind: A\n- kind: B\n`);
test('items of lists with a deeper dash', same, `${HEAD}items:\n  - kind: A\n    list:\n      - 1\n  - kind: B\n`);
test('items with a wide gap after the dash', same, `${HEAD}items:\n-   kind: A\n    x: 1\n-   kind: B\n`);
test(
  'comments everywhere',
  same,
  `# top\n${HEAD}# of items\nitems: # beside\n# of A\n- kind: A # beside\n  # inside\n  x: 1\n  # under x\n# of B\n- kind: B\n# at the end\n`,
);
test(
  'a comment beside the dash, as kpt writes it',
  same,
  `${HEAD}items:\n- # of A\n  kind: A\n- # of B\n  # in two lines\n  kind: B\n`,
);
test('a dash alone in its line', same, `${HEAD}items:\n-\n  kind: A\n- \n\n  kind: B\n`);
test('blank lines', same, `${HEAD}\nitems:\n\n- kind: A\n\n\n- kind: B\n\n`);
test('a blank line first', same, `\n${HEAD}items:\n- kind: A\n`);
test('document start', same, `---\n${HEAD}items:\n- kind: A\n`);
test('directive and document start', same, `%YAML 1.1\n---\n${HEAD}items:\n- kind: A\n`);
test('Windows line ends', same, `${HEAD}items:\n- kind: A\n  x: |\n    y\n- kind: B\n`.replaceAll('\n', '\r\n'));
test(
  'fields after items',
  same,
  `${HEAD}items:\n- kind: A\n- kind: B\nfunctionConfig:\n  kind: C # with a comment\nresults:\n- message: earlier\n`,
);
test('fields before items', same, `${HEAD}functionConfig: {kind: C}\nresults: []\nitems:\n- kind: A\n`);
test('fields of later versions', same, `${HEAD}items:\n- kind: A\nmetadata: {name: x}\nfuture:\n- 0644\n`);
test('flow style in items', same, `${HEAD}items:\n- {kind: A, x: [1, 2]}\n- {kind: B}\n`);
test(
  'YAML 1.1 scalars',
  same,
  `${HEAD}items:\n- kind: A\n  x: [0644, on, 1_000, 22:30, 12345678901234567890, 1.0, ~, 08, =]\n  y: n\n`,
);
test(
  'anchors and aliases inside an item',
  same,
  `${HEAD}items:\n- kind: A\n  x: &x {y: 1}\n  z: *x\n- kind: B\n  x: &x {y: 2}\n  z: *x\n`,
);
test('merge keys inside an item', same, `${HEAD}items:\n- kind: A\n  x: &x {y: 1}\n  z:\n    <<: *x\n`);
test('tags', same, `${HEAD}items:\n- kind: A\n  x: !!binary aGk=\n  y: !Own z\n`);
test('keys given twice', same, `${HEAD}items:\n- kind: A\n  x: 1\n  x: 2\n`);
test(
  'block scalars that look like the list',
  same,
  `${HEAD}items:\n- kind: A\n  x: |\n    items:\n    - kind: Z\n    # no comment\n    ---\n- kind: B\n`,
);
test('quoted text over lines', same, `${HEAD}items:\n- kind: A\n  x: "a\n    # no comment"\n- kind: B\n`);
test('two of the same', same, `${HEAD}items:\n- kind: A\n- kind: A\n`);
test(
  'no kind, no name, no metadata',
  same,
  `${HEAD}items:\n- resources: [a.yaml]\n- {}\n- apiVersion: v1\n  kind: A\n  metadata: null\n`,
);
test('emoji and umlauts', same, `${HEAD}items:\n- kind: A\n  x: "😀 ü \\U0001F600"\n`);
test('v1beta1', same, `apiVersion: config.kubernetes.io/v1beta1\nkind: ResourceList\nitems:\n- kind: A\n`);
test('v1alpha1', same, `apiVersion: config.kubernetes.io/v1alpha1\nkind: ResourceList\nitems:\n- kind: A\n`);

test(
  'JSON',
  sameMeaning,
  JSON.stringify({
    apiVersion: 'config.kubernetes.io/v1',
    kind: 'ResourceList',
    items: [{ kind: 'A', x: ['0644', 'on', '', null] }, { kind: 'B' }],
  }),
);
test('flow style list', sameMeaning, `${HEAD}items: [{kind: A}, {kind: B}]\n`);
test('aliases of another item', sameMeaning, `${HEAD}items:\n- kind: A\n  x: &x {y: 1}\n- kind: B\n  x: *x\n`);
test('an item that is an alias', sameMeaning, `${HEAD}items:\n- &a\n  kind: A\n- *a\n`);
test('anchors of the configuration', sameMeaning, `${HEAD}functionConfig: &c {kind: C}\nitems:\n- kind: A\n  x: *c\n`);
test('keys in quotes', sameMeaning, `${HEAD}"items":\n- kind: A\n`);
test('everything indented', sameMeaning, `${HEAD}items:\n- kind: A\n`.replaceAll(/^/gm, '  ').trimEnd());
test('document end', sameMeaning, `${HEAD}items:\n- kind: A\n...\n`);
test('byte order mark', sameMeaning, `\ufeff${HEAD}items:\n- kind: A\n`);
test('old Mac line ends', sameMeaning, `${HEAD}items:\n- kind: A\n`.replaceAll('\n', '\r'));

test('no line break at the end: one is added', (tt) => {
  const source = `${HEAD}items:\n- kind: A\n- kind: B`;
  const { items, render } = parseResourceList(source);
  tt.is(render(items, []), `${source}\n`);
});

test('items given twice: none is lost', (tt) => {
  const { items, render } = parseResourceList(`${HEAD}items: []\nitems:\n- kind: A\n`);
  tt.is(render(items, []), `${HEAD}items:\n- kind: A\n`);
});

const empty = test.macro((tt, source: string, written: string) => {
  const { items, render } = parseResourceList(source);
  tt.deepEqual(items, []);
  tt.is(render(items, []), written);
});
test('no items', empty, `${HEAD}items: []\n`, `${HEAD}items: []\n`);
test('items of null', empty, `${HEAD}items:\n`, `${HEAD}items: []\n`);
test('items absent', empty, HEAD, HEAD);
test('no items after a blank line', empty, `\n${HEAD}items: []\n`, `\n${HEAD}items: []\n`);

// Edits: only the item that changed is written anew.

const THREE = `${HEAD}items:\n# of A\n- kind: A # beside\n  x: 0644\n- # of B\n  kind: B\n  y: on\n- kind: C\n  z: "1"\nfunctionConfig: {kind: F} # kept\n`;
const edited = test.macro((tt, source: string, edit: (items: readonly Item[]) => Item[], written: string) => {
  const { items, render } = parseResourceList(source);
  tt.is(render(edit(items), []), written);
});
test(
  'one changed',
  edited,
  THREE,
  ([a, b, c]) => [a!, { ...b, y: 'off' }, c!],
  `${HEAD}items:\n# of A\n- kind: A # beside\n  x: 0644\n- kind: B\n  'y': 'off'\n- kind: C\n  z: "1"\nfunctionConfig: {kind: F} # kept\n`,
);
test(
  'a changed one keeps the scalars that did not',
  edited,
  THREE,
  ([a, b, c]) => [{ ...a, w: 1 }, b!, c!],
  `${HEAD}items:\n- kind: A\n  x: 0644\n  w: 1\n- # of B\n  kind: B\n  y: on\n- kind: C\n  z: "1"\nfunctionConfig: {kind: F} # kept\n`,
);
test(
  'one removed, with its comments',
  edited,
  THREE,
  ([, b, c]) => [b!, c!],
  `${HEAD}items:\n- # of B\n  kind: B\n  y: on\n- kind: C\n  z: "1"\nfunctionConfig: {kind: F} # kept\n`,
);
test(
  'one added',
  edited,
  THREE,
  ([a, b, c]) => [a!, { kind: 'New', list: [1] }, b!, c!],
  `${HEAD}items:\n# of A\n- kind: A # beside\n  x: 0644\n- kind: New\n  list:\n  - 1\n- # of B\n  kind: B\n  y: on\n- kind: C\n  z: "1"\nfunctionConfig: {kind: F} # kept\n`,
);
test('all removed', edited, THREE, () => [], `${HEAD}items: []\nfunctionConfig: {kind: F} # kept\n`);
test('one added to none', edited, `${HEAD}items: []\n`, () => [{ kind: 'New' }], `${HEAD}items:\n- kind: New\n`);
test(
  'added with the dashes of the others',
  edited,
  `${HEAD}items:\n  - kind: A\n`,
  ([a]) => [a!, { kind: 'New', x: 'a\n\nb\n' }],
  `${HEAD}items:\n  - kind: A\n  - kind: New\n    x: |\n      a\n\n      b\n`,
);
test(
  'changed in JSON',
  edited,
  `{"apiVersion":"config.kubernetes.io/v1","kind":"ResourceList","items":[{"kind":"A","x":"on"}]}`,
  ([a]) => [{ ...a, y: 1 }],
  `${HEAD}items:\n- kind: A\n  x: 'on'\n  'y': 1\n`,
);

// Text that looks like a comment belongs to the item that it stands in.
const BLOCKS = `${HEAD}items:\n- kind: A\n  x: |\n    a\n- kind: B\n  x: |\n    b\n    # b, too\n# of C\n- kind: C\n`;
test('a block scalar that ends like a comment: changed', edited, BLOCKS, ([a, b, c]) => [a!, { ...b }, c!], BLOCKS);
test(
  'a block scalar that ends like a comment: removed',
  edited,
  BLOCKS,
  ([a, , c]) => [a!, c!],
  `${HEAD}items:\n- kind: A\n  x: |\n    a\n# of C\n- kind: C\n`,
);
test(
  'quoted text that ends like a comment: removed',
  edited,
  `${HEAD}items:\n- kind: A\n  x: "a\n    # b"\n- kind: B\n`,
  ([, b]) => [b!],
  `${HEAD}items:\n- kind: B\n`,
);
test(
  'added before a document end',
  edited,
  `${HEAD}items:\n- kind: A\n...\n`,
  ([a]) => [a!, { kind: 'New' }],
  `${HEAD}items:\n- kind: A\n- kind: New\n`,
);

// Results

const reported = test.macro((tt, source: string, results: Result[], written: string) => {
  const { items, render } = parseResourceList(source);
  tt.is(render(items, results), written);
});
const found: Result = { severity: 'warning', message: 'mind: this', field: { path: 'spec.x', proposedValue: 1 } };
const FOUND = "- severity: warning\n  message: 'mind: this'\n  field:\n    path: spec.x\n    proposedValue: 1\n";
const LIST = `${HEAD}items:\n- kind: A\n`;
test('results are added at the end', reported, LIST, [found], `${LIST}results:\n${FOUND}`);
test(
  'results follow those of earlier functions',
  reported,
  `${LIST}results:\n- message: earlier\n  line: 010\n`,
  [found],
  `${LIST}results:\n- message: earlier\n  line: 010\n${FOUND}`,
);
test(
  'results stay where they were',
  reported,
  `${HEAD}results:\n- message: earlier\nitems:\n- kind: A\n`,
  [found],
  `${HEAD}results:\n- message: earlier\n${FOUND}items:\n- kind: A\n`,
);
test('results in place of none', reported, `${LIST}results: []\n`, [found], `${LIST}results:\n${FOUND}`);
test('results in place of null', reported, `${LIST}results:\n`, [found], `${LIST}results:\n${FOUND}`);
test(
  'no results: those of earlier functions stay as they are',
  reported,
  `${LIST}results:\n- {message: earlier} # kept\n`,
  [],
  `${LIST}results:\n- {message: earlier} # kept\n`,
);
test(
  'results of JSON',
  reported,
  `{"kind":"ResourceList","apiVersion":"config.kubernetes.io/v1","items":[],"results":[{"message":"earlier"}]}`,
  [found],
  `kind: ResourceList\napiVersion: config.kubernetes.io/v1\nitems: []\nresults:\n- message: earlier\n${FOUND}`,
);

test('functionConfig is what stands there', (tt) => {
  tt.deepEqual<unknown, unknown>(parseResourceList(`${LIST}functionConfig:\n  kind: C\n  x: [a]\n`).functionConfig, {
    kind: 'C',
    x: ['a'],
  });
  tt.is(parseResourceList(LIST).functionConfig, undefined);
});

test('an item named __proto__ changes no prototype', (tt) => {
  const { items } = parseResourceList(`${HEAD}items:\n- __proto__: {polluted: true}\n`);
  tt.true(isRecord(items[0]));
  tt.false('polluted' in items[0]!);
});

// Bad input

const refused = test.macro((tt, source: string, message: string) => {
  tt.throws(() => parseResourceList(source), { instanceOf: BadInput, message });
});
const NOTHING = 'nothing on stdin: a KRM function reads a ResourceList there';
const holds = (what: string): string =>
  `stdin holds ${what}; a KRM function reads a ResourceList of config.kubernetes.io/v1 there`;
test('empty', refused, '', NOTHING);
test('white space', refused, ' \n\t\n', NOTHING);
test('comments only', refused, '# nothing\n', holds('no YAML map'));
test('text', refused, 'hello', holds('no YAML map'));
test('list', refused, '- a\n', holds('no YAML map'));
test('another object', refused, 'apiVersion: apps/v1\nkind: Deployment\n', holds('apps/v1 Deployment'));
test('another list', refused, 'apiVersion: v1\nkind: List\nitems: []\n', holds('v1 List'));
test('no kind', refused, 'a: 1\n', holds('a map without kind'));
test('no apiVersion', refused, 'kind: ResourceList\n', holds('no apiVersion ResourceList'));
test(
  'unknown apiVersion',
  refused,
  'apiVersion: config.kubernetes.io/v2\nkind: ResourceList\n',
  holds('config.kubernetes.io/v2 ResourceList'),
);
test(
  'two documents',
  refused,
  `${LIST}---\n${LIST}`,
  'stdin holds 2 YAML documents; a KRM function reads one ResourceList there',
);
test('items of text', refused, `${HEAD}items: abc\n`, 'items of the ResourceList is not a list');
test('items of a map', refused, `${HEAD}items: {a: 1}\n`, 'items of the ResourceList is not a list');
test('an item of text', refused, `${HEAD}items:\n- kind: A\n- abc\n`, 'items[1] of the ResourceList is not a map');
test('an item of null', refused, `${HEAD}items:\n-\n`, 'items[0] of the ResourceList is not a map');
test('an item of a list', refused, `${HEAD}items:\n- [a]\n`, 'items[0] of the ResourceList is not a map');
test(
  'an item of a number kept as written',
  refused,
  `${HEAD}items:\n- 0644\n`,
  'items[0] of the ResourceList is not a map',
);
test('results of text', refused, `${LIST}results: abc\n`, 'results of the ResourceList is not a list');
test(
  'tab as indentation',
  refused,
  `${HEAD}items:\n\t- a\n`,
  'stdin is not YAML: tab characters must not be used in indentation in line 4',
);
test('unclosed quote', refused, `${HEAD}x: "abc\n`, 'stdin is not YAML: deficient indentation in line 4');
test('NUL', refused, `${HEAD}x: a\0b\n`, 'stdin is not YAML: null byte is not allowed in input in line 3');
test(
  'binary',
  refused,
  '\u0001\u0002\u0003',
  'stdin is not YAML: the stream contains non-printable characters in line 1',
);
test(
  'too deep',
  refused,
  `${HEAD}x: ${'['.repeat(5000)}`,
  'stdin is not YAML: nesting exceeded maxDepth (100) in line 3',
);

// The parser quotes names of the source; a key that is no valid YAML must not get into a log that way.
for (const psk of [
  '*Zq9-key',
  '!Zq9!key x',
  '!Zq9^key x',
  '!<Zq9 x',
  '"\\Zq9"',
  "'Zq9",
  '%Zq9',
  '@Zq9',
  '`Zq9',
  '{Zq9',
  '[Zq9',
  '|Zq9',
  'Zq9: x',
  '- Zq9',
  '&Zq9 *Zq9',
])
  test(`the reason does not quote ${psk}`, (tt) => {
    let message = '';
    try {
      parseResourceList(`${HEAD}functionConfig:\n  psk: ${psk}\n`);
    } catch (error) {
      message = error instanceof BadInput ? error.message : String(error);
    }
    tt.regex(message, /^stdin is not YAML: /);
    tt.notRegex(message, /Zq9/);
  });
