import test from 'ava';
import fc from 'fast-check';
import { colonEnd, locate, meaning, pairsOf, parseText, type YamlNode } from './yaml-spans.ts';

/** A node and all inside it, each as its kind and its text. */
const texts = (text: string, { kind, start, end, children }: YamlNode): string[] => [
  `${kind} ${text.slice(start, end)}`,
  ...children.flatMap((child) => texts(text, child)),
];

const spans = test.macro((tt, text: string, expected: string[]) => {
  tt.deepEqual(
    locate(parseText(text)).flatMap((root) => texts(text, root)),
    expected,
  );
});

test('nothing', spans, '# a\n', []);
test('an empty document', spans, '---\n', ['scalar ']);
test('documents', spans, 'a\n---\nb\n', ['scalar a', 'scalar b']);
test('quotes are inside', spans, `- 'a''b'\n- "c\\"d"\n`, [
  `list - 'a''b'\n- "c\\"d"`,
  `scalar 'a''b'`,
  `scalar "c\\"d"`,
]);
test('text blocks', spans, 'a: |+\n  b\n\nc: >-\n  d', [
  'map a: |+\n  b\n\nc: >-\n  d',
  'scalar a',
  'scalar   b\n\n',
  'scalar c',
  'scalar   d',
]);
test('brackets in comments', spans, '[ a, # ]\n  { b: c } # }\n , ] # ]\n', [
  'list [ a, # ]\n  { b: c } # }\n , ]',
  'scalar a',
  'map { b: c }',
  'scalar b',
  'scalar c',
]);
test('brackets in quotes', spans, `["]", '}']`, [`list ["]", '}']`, 'scalar "]"', `scalar '}'`]);
test('empty brackets', spans, '[ [], { } ]', ['list [ [], { } ]', 'list []', 'map { }']);
test('pairs in lists', spans, '[a: b, ? c]', [
  'list [a: b, ? c]',
  'map a: b',
  'scalar a',
  'scalar b',
  'map c',
  'scalar c',
  'scalar ',
]);
test('pairs with maps for keys', spans, '[{a: b}: c, [d]: e]', [
  'list [{a: b}: c, [d]: e]',
  'map {a: b}: c',
  'map {a: b}',
  'scalar a',
  'scalar b',
  'scalar c',
  'map [d]: e',
  'list [d]',
  'scalar d',
  'scalar e',
]);
test('nulls', spans, '{a: , b, ? c}', [
  'map {a: , b, ? c}',
  'scalar a',
  'scalar ',
  'scalar b',
  'scalar ',
  'scalar c',
  'scalar ',
]);
test('tags, anchors, aliases', spans, '&a !x [*b , &c d, !!str ]', [
  'list &a !x [*b , &c d, !!str ]',
  'alias *b',
  'scalar &c d',
  'scalar !!str',
]);
test('a bracket at the line’s beginning', spans, 'a: [\n  b\n]\nc: [ # d\r\n]\ne: {\n\n}\n', [
  'map a: [\n  b\n]\nc: [ # d\r\n]\ne: {\n\n}',
  'scalar a',
  'list [\n  b\n]',
  'scalar b',
  'scalar c',
  'list [ # d\r\n]',
  'scalar e',
  'map {\n\n}',
]);
test('a bracket at the line’s beginning, below a comment', spans, 'a: [ # b\n]\n', [
  'map a: [ # b\n]',
  'scalar a',
  'list [ # b\n]',
]);

test('in JSON every node is its own JSON', (tt) => {
  const check = (text: string, node: YamlNode, value: unknown): void => {
    const own = text.slice(node.start, node.end);
    tt.deepEqual<unknown, unknown>(JSON.parse(own), value);
    if (node.kind === 'list') node.children.forEach((child, i) => check(text, child, (value as unknown[])[i]));
    if (node.kind === 'map')
      for (const pair of pairsOf(node)) {
        check(text, pair.value, (value as Record<string, unknown>)[pair.key.value]);
        tt.is(text[(colonEnd(text, pair) ?? 0) - 1], ':');
      }
  };
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom('', ' ', '\t'), (any, indent) => {
      const text = JSON.stringify(any, null, indent);
      const root = locate(parseText(text))[0];
      if (root !== undefined) check(text, root, JSON.parse(text));
    }),
  );
});

test('meaning', (tt) => {
  const of = (text: string): string => meaning(locate(parseText(text))[0]!);
  for (const same of ['{a: [b, "c"]} # d', `a:\n- b\n- 'c'\n`, '\n{ a: [ b, "c", ], }'])
    tt.is(of(same), of('a: [b, "c"]'));
  for (const other of [
    'a: [b, c]',
    'a: [b, "c", ""]',
    'a: &x [b, "c"]',
    'a: [!!str b, "c"]',
    'a: {b: "c"}',
    'a: [[b, "c"]]',
  ])
    tt.not(of(other), of('a: [b, "c"]'));
});
