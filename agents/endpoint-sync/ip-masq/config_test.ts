import test from 'ava';
import fc from 'fast-check';
import { loadAll } from 'js-yaml';
import { LOSSLESS } from '../../../functions/lib/yaml.ts';
import { cpuMs } from '../../../test/cpu-ms.ts';
import { editConfig, readConfig, type Created, type Edit, type Edited, type Problem } from './config.ts';

const A = '192.168.100.0/24';
const B = 'fd00:1::/48';

function editText(text: string, edit: Edit): Edited | Problem {
  const config = readConfig(text);
  return 'problem' in config ? config : editConfig(config, edit);
}

/** The text after an edit; fails where there is a problem. */
function edit(
  text: string,
  { add = [], remove = [], created }: Partial<Edit>,
): { text: string; created?: Created | undefined } {
  const edited = editText(text, { add, remove, created });
  if ('problem' in edited) throw new Error(`${JSON.stringify(text)} ${edited.problem}`);
  return edited;
}

const cidrsOf = (text: string): readonly string[] | string => {
  const config = readConfig(text);
  return 'problem' in config ? config.problem : config.cidrs;
};

// Adding, byte for byte; taking the same out again gives the very bytes of before, however they end their lines.

const adds = test.macro((tt, before: string, after: string, created?: Created, add: string[] = [A]) => {
  for (const lineBreak of before.includes('\n') ? ['\n', '\r\n'] : ['\n']) {
    const from = before.replaceAll('\n', lineBreak);
    const to = after.replaceAll('\n', lineBreak);
    const added = edit(from, { add });
    tt.deepEqual(added, added.created === undefined ? { ...added, text: to } : { text: to, created });
    tt.is(added.created, created);
    tt.deepEqual(edit(to, { remove: add, created }), { text: from, created: undefined });
  }
});

const N = 'nonMasqueradeCIDRs';
test('block list', adds, `${N}:\n- 10.0.0.0/8\n`, `${N}:\n- 10.0.0.0/8\n- ${A}\n`);
test('block list, dash deeper', adds, `${N}:\n  - 10.0.0.0/8\n`, `${N}:\n  - 10.0.0.0/8\n  - ${A}\n`);
test('block list, dash much deeper', adds, `${N}:\n    -  10.0.0.0/8\n`, `${N}:\n    -  10.0.0.0/8\n    -  ${A}\n`);
test('no line end at the end', adds, `${N}:\n- 10.0.0.0/8`, `${N}:\n- 10.0.0.0/8\n- ${A}`);
test('everything indented', adds, `  ${N}:\n  - 10.0.0.0/8\n  a: 1\n`, `  ${N}:\n  - 10.0.0.0/8\n  - ${A}\n  a: 1\n`);
test(
  'first field',
  adds,
  `${N}:\n- 10.0.0.0/8\nmasqLinkLocal: true\n`,
  `${N}:\n- 10.0.0.0/8\n- ${A}\nmasqLinkLocal: true\n`,
);
test(
  'last field',
  adds,
  `masqLinkLocal: true\n${N}:\n- 10.0.0.0/8\n`,
  `masqLinkLocal: true\n${N}:\n- 10.0.0.0/8\n- ${A}\n`,
);
test(
  'field in between',
  adds,
  `a: 0644\n\n${N}:\n- 10.0.0.0/8\n\nb: on\n`,
  `a: 0644\n\n${N}:\n- 10.0.0.0/8\n- ${A}\n\nb: on\n`,
);
test('quoted key', adds, `"${N}":\n- 10.0.0.0/8\n`, `"${N}":\n- 10.0.0.0/8\n- ${A}\n`);
test('key in single quotes', adds, `'${N}' :\n- 10.0.0.0/8\n`, `'${N}' :\n- 10.0.0.0/8\n- ${A}\n`);
test('double quotes', adds, `${N}:\n- "10.0.0.0/8"\n`, `${N}:\n- "10.0.0.0/8"\n- "${A}"\n`);
test('single quotes', adds, `${N}:\n- '10.0.0.0/8'\n`, `${N}:\n- '10.0.0.0/8'\n- '${A}'\n- '${B}'\n`, undefined, [
  A,
  B,
]);
test('IPv6', adds, `${N}:\n- 10.0.0.0/8\n`, `${N}:\n- 10.0.0.0/8\n- ${A}\n- "${B}"\n`, undefined, [A, B]);
test(
  'quotes by family',
  adds,
  `${N}:\n- 10.0.0.0/8\n- "fd00:2::/48"\n`,
  `${N}:\n- 10.0.0.0/8\n- "fd00:2::/48"\n- ${A}\n`,
);
test('quotes of the neighbours', adds, `${N}:\n- 'fd00:2::/48'\n`, `${N}:\n- 'fd00:2::/48'\n- '${A}'\n`);
test(
  'comments everywhere',
  adds,
  `# top\n${N}: # beside\n# above\n- 10.0.0.0/8 # ten\n# between\n- 172.16.0.0/12 # private\n# of the next\nmasqLinkLocal: false # no\n# end\n`,
  `# top\n${N}: # beside\n# above\n- 10.0.0.0/8 # ten\n# between\n- 172.16.0.0/12 # private\n- ${A}\n# of the next\nmasqLinkLocal: false # no\n# end\n`,
);
test(
  'comments below an entry stay with it',
  adds,
  `${N}:\n  - 10.0.0.0/8\n    # ten\n  # and no other\n# of the next\nb: 1\n`,
  `${N}:\n  - 10.0.0.0/8\n    # ten\n  # and no other\n  - ${A}\n# of the next\nb: 1\n`,
);
test('comment at the end, no line end', adds, `${N}:\n- 10.0.0.0/8 # ten`, `${N}:\n- 10.0.0.0/8 # ten\n- ${A}`);
test(
  'blank lines between',
  adds,
  `${N}:\n\n- 10.0.0.0/8\n\n- 1.0.0.0/8\n\n\nb: 1\n`,
  `${N}:\n\n- 10.0.0.0/8\n\n- 1.0.0.0/8\n- ${A}\n\n\nb: 1\n`,
);
test('an entry below its dash', adds, `${N}:\n-\n  10.0.0.0/8\n`, `${N}:\n-\n  10.0.0.0/8\n- ${A}\n`);
test('an entry in two lines', adds, `${N}:\n- "10.0.\\\n  0.0/8"\n`, `${N}:\n- "10.0.\\\n  0.0/8"\n- "${A}"\n`);
test('trailing spaces', adds, `${N}:  \n- 10.0.0.0/8 \t\n`, `${N}:  \n- 10.0.0.0/8 \t\n- ${A}\n`);
test(
  'document marks',
  adds,
  `---\n${N}:\n- 10.0.0.0/8\n...\n# more\n`,
  `---\n${N}:\n- 10.0.0.0/8\n- ${A}\n...\n# more\n`,
);
test('directive', adds, `%YAML 1.1\n---\n${N}:\n- 10.0.0.0/8\n`, `%YAML 1.1\n---\n${N}:\n- 10.0.0.0/8\n- ${A}\n`);
test('byte order mark', adds, `\ufeff${N}:\n- 10.0.0.0/8\n`, `\ufeff${N}:\n- 10.0.0.0/8\n- ${A}\n`);
test('byte order mark, no list', adds, '\ufeffa: 1\n', `\ufeffa: 1\n${N}:\n- ${A}\n`, 'field');
test(
  'anchors of others',
  adds,
  `a: &x [1]\n${N}:\n- 10.0.0.0/8\nb: *x\nc: {<<: {d: 1}}\n`,
  `a: &x [1]\n${N}:\n- 10.0.0.0/8\n- ${A}\nb: *x\nc: {<<: {d: 1}}\n`,
);
test(
  'a merge key of others',
  adds,
  `x: &x {a: 1}\n<<: *x\n${N}:\n- 10.0.0.0/8\n`,
  `x: &x {a: 1}\n<<: *x\n${N}:\n- 10.0.0.0/8\n- ${A}\n`,
);
test('other keys given twice', adds, `a: 1\na: 2\n${N}:\n- 10.0.0.0/8\n`, `a: 1\na: 2\n${N}:\n- 10.0.0.0/8\n- ${A}\n`);

test('flow list', adds, `${N}: [10.0.0.0/8]\n`, `${N}: [10.0.0.0/8, "${A}", "${B}"]\n`, undefined, [A, B]);
test('flow list, comment beside', adds, `${N}: [10.0.0.0/8] # ten\nb: 1`, `${N}: [10.0.0.0/8, "${A}"] # ten\nb: 1`);
test('flow list, trailing comma', adds, `${N}: [10.0.0.0/8,]\n`, `${N}: [10.0.0.0/8, "${A}",]\n`);
test(
  'flow list, spaced',
  adds,
  `${N}: [ '10.0.0.0/8' , '1.0.0.0/8' , ]\n`,
  `${N}: [ '10.0.0.0/8' , '1.0.0.0/8' , "${A}", ]\n`,
);
test('flow list, dense', adds, `${N}: ["10.0.0.0/8","1.0.0.0/8"]\n`, `${N}: ["10.0.0.0/8","1.0.0.0/8","${A}"]\n`);
test(
  'flow list in lines',
  adds,
  `${N}: [\n    "10.0.0.0/8"\n  ]\n`,
  `${N}: [\n    "10.0.0.0/8",\n    "${A}",\n    "${B}"\n  ]\n`,
  undefined,
  [A, B],
);
test(
  'flow list in lines, comments',
  adds,
  `${N}: [\n  "10.0.0.0/8", # ten\n  "1.0.0.0/8" # one\n  # end\n  ]\n`,
  `${N}: [\n  "10.0.0.0/8", # ten\n  "1.0.0.0/8", # one\n  "${A}"\n  # end\n  ]\n`,
);
test(
  'flow list in lines, trailing comma',
  adds,
  `${N}: [\n  10.0.0.0/8, # ten\n  ]\n`,
  `${N}: [\n  10.0.0.0/8, # ten\n  "${A}",\n  ]\n`,
);
test(
  'flow list in lines, comma below',
  adds,
  `${N}: [\n  "10.0.0.0/8"\n  ,\n  ]\n`,
  `${N}: [\n  "10.0.0.0/8"\n  ,\n  "${A}",\n  ]\n`,
);
test(
  'flow list in lines, comma first',
  adds,
  `${N}: [ "10.0.0.0/8"\n  , "1.0.0.0/8"\n  ]\n`,
  `${N}: [ "10.0.0.0/8"\n  , "1.0.0.0/8", "${A}"\n  ]\n`,
);
test(
  'flow list in lines, bracket beside',
  adds,
  `${N}: [\n  "10.0.0.0/8",\n  "1.0.0.0/8" ]\n`,
  `${N}: [\n  "10.0.0.0/8",\n  "1.0.0.0/8",\n  "${A}" ]\n`,
);
test(
  'flow list, comma and bracket beside',
  adds,
  `${N}: [\n  "1.0.0.0/8" , ]\n`,
  `${N}: [\n  "1.0.0.0/8" ,\n  "${A}", ]\n`,
);
test(
  'flow list, comment behind the first',
  adds,
  `${N}: ["1.0.0.0/8" # one\n  ]\n`,
  `${N}: ["1.0.0.0/8", # one\n  "${A}"\n  ]\n`,
);
test(
  'flow list, bracket at the line’s beginning',
  adds,
  `${N}: [\n  "1.0.0.0/8"\n]\nb: {\n  a: [ # x\n]}\n`,
  `${N}: [\n  "1.0.0.0/8",\n  "${A}"\n]\nb: {\n  a: [ # x\n]}\n`,
);
test(
  'the same below a comment',
  adds,
  `${N}: [\n  "1.0.0.0/8" # one\n]\n`,
  `${N}: [\n  "1.0.0.0/8", # one\n  "${A}"\n]\n`,
);
test('empty flow list', adds, `${N}: []\nb: 1\n`, `${N}: ["${A}", "${B}"]\nb: 1\n`, undefined, [A, B]);
test('empty flow list, spaced', adds, `${N}: [ ] # none\n`, `${N}: ["${A}" ] # none\n`);
test('empty flow list, commented', adds, `${N}: [ # none\n  ]\n`, `${N}: ["${A}" # none\n  ]\n`);

test(
  'compact JSON',
  adds,
  `{"${N}":["10.0.0.0/8"],"masqLinkLocal":false}`,
  `{"${N}":["10.0.0.0/8","${A}"],"masqLinkLocal":false}`,
);
test(
  'JSON with spaces',
  adds,
  `{"${N}": ["10.0.0.0/8"], "b": {"c": [1, {}]}}\n`,
  `{"${N}": ["10.0.0.0/8", "${A}"], "b": {"c": [1, {}]}}\n`,
);
test(
  'pretty JSON',
  adds,
  `{\n  "${N}": [\n    "10.0.0.0/8"\n  ],\n  "b": 1\n}\n`,
  `{\n  "${N}": [\n    "10.0.0.0/8",\n    "${A}"\n  ],\n  "b": 1\n}\n`,
);
test(
  'pretty JSON, tabs',
  adds,
  `{\n\t"${N}": [\n\t\t"10.0.0.0/8"\n\t]\n}`,
  `{\n\t"${N}": [\n\t\t"10.0.0.0/8",\n\t\t"${A}"\n\t]\n}`,
);
test(
  'JSON, escapes in other fields',
  adds,
  `{"a":"\\u00e4\\/\\"# ]","${N}":["10.0.0.0/8"]}`,
  `{"a":"\\u00e4\\/\\"# ]","${N}":["10.0.0.0/8","${A}"]}`,
);
test('compact JSON, empty list', adds, `{"${N}":[]}`, `{"${N}":["${A}","${B}"]}`, undefined, [A, B]);
test(
  'pretty JSON, empty list',
  adds,
  `{\n  "${N}": [],\n  "b": 1\n}`,
  `{\n  "${N}": [\n    "${A}",\n    "${B}"\n  ],\n  "b": 1\n}`,
  undefined,
  [A, B],
);
test(
  'pretty JSON with tabs, empty list',
  adds,
  `{\n\t"b": {\n\t\t"c": 1\n\t},\n\t"${N}": []\n}`,
  `{\n\t"b": {\n\t\t"c": 1\n\t},\n\t"${N}": [\n\t\t"${A}"\n\t]\n}`,
);

// Where there is no list.

test('absent', adds, 'masqLinkLocal: true\n', `masqLinkLocal: true\n${N}:\n- ${A}\n- "${B}"\n`, 'field', [A, B]);
test('absent, no line end at the end', adds, 'masqLinkLocal: true', `masqLinkLocal: true\n${N}:\n- ${A}`, 'field');
test(
  'absent, everything indented',
  adds,
  '  a: 1\n  b:\n    c: 1\n',
  `  a: 1\n  b:\n    c: 1\n  ${N}:\n  - ${A}\n`,
  'field',
);
test('absent, comments', adds, 'a: 1 # one\n# end\n', `a: 1 # one\n${N}:\n- ${A}\n# end\n`, 'field');
test(
  'absent, comments below a list',
  adds,
  'a:\n  - 1\n  # - 2\n# end\n',
  `a:\n  - 1\n  # - 2\n${N}:\n- ${A}\n# end\n`,
  'field',
);
test('absent, last value null', adds, 'a:\n', `a:\n${N}:\n- ${A}\n`, 'field');
test('absent, last value a list of nulls', adds, 'a:\n-\n-  # none\n', `a:\n-\n-  # none\n${N}:\n- ${A}\n`, 'field');
test(
  'absent, last value in brackets',
  adds,
  'a: [b, {c: [d\n  ]}\n  ] # e\n',
  `a: [b, {c: [d\n  ]}\n  ] # e\n${N}:\n- ${A}\n`,
  'field',
);
test('absent, a pair in the last list', adds, 'a: [b: {c: d}]\n', `a: [b: {c: d}]\n${N}:\n- ${A}\n`, 'field');
test(
  'absent, last value with a tag',
  adds,
  'a: !!str\nb: !!map {}\n',
  `a: !!str\nb: !!map {}\n${N}:\n- ${A}\n`,
  'field',
);
test('absent, last value a text block', adds, 'a: |\n  b # c\n', `a: |\n  b # c\n${N}:\n- ${A}\n`, 'field');
test(
  'absent, last value a text block of blank lines',
  adds,
  'a: |+\n  b\n\n\n',
  `a: |+\n  b\n\n\n${N}:\n- ${A}\n`,
  'field',
);
test('absent, comment behind a text block', adds, 'a: >-\n  b\n# end\n', `a: >-\n  b\n${N}:\n- ${A}\n# end\n`, 'field');
test('absent, document marks', adds, '---\na: 1\n...\n', `---\na: 1\n${N}:\n- ${A}\n...\n`, 'field');
test('absent, keys with a question mark', adds, '? a\n: 1\n', `? a\n: 1\n${N}:\n- ${A}\n`, 'field');
test('absent, compact JSON', adds, '{"a":1}', `{"a":1,"${N}":["${A}","${B}"]}`, 'field', [A, B]);
test('absent, JSON with spaces', adds, '{"a": 1}\n', `{"a": 1, "${N}": ["${A}"]}\n`, 'field');
test(
  'absent, pretty JSON',
  adds,
  '{\n  "a": {\n    "b": []\n  }\n}\n',
  `{\n  "a": {\n    "b": []\n  },\n  "${N}": [\n    "${A}",\n    "${B}"\n  ]\n}\n`,
  'field',
  [A, B],
);
test(
  'absent, flow map in lines, comments',
  adds,
  '{\n  a: 1, # one\n  # end\n}\n',
  `{\n  a: 1, # one\n  "${N}": [\n    "${A}"\n  ],\n  # end\n}\n`,
  'field',
);
test('absent, empty map', adds, '{}', `{"${N}": ["${A}"]}`, 'field');
test('absent, empty map, spaced', adds, '--- { } # none\n', `--- {"${N}": ["${A}"] } # none\n`, 'field');
test('only comments', adds, '# nothing\n', `# nothing\n${N}:\n- ${A}\n- "${B}"\n`, 'field', [A, B]);
test('only a comment, no line end', adds, '# nothing', `# nothing\n${N}:\n- ${A}`, 'field');
test('only white space', adds, '  ', `  \n${N}:\n- ${A}`, 'field');
test('only a line end', adds, '\n', `\n${N}:\n- ${A}\n`, 'field');
test('only a document mark', adds, '---\n', `---\n${N}:\n- ${A}\n`, 'field');
test('only a document mark and a comment', adds, '--- # nothing', `--- # nothing\n${N}:\n- ${A}`, 'field');
test('only both document marks', adds, '---\n...\n', `---\n${N}:\n- ${A}\n...\n`, 'field');
test('only an end mark', adds, '...\n', `${N}:\n- ${A}\n...\n`, 'field');
test('null', adds, 'null\n', `{"${N}": ["${A}"]}\n`, 'root:null');
test('null, commented', adds, '# a\n--- ~ # b\n', `# a\n--- {"${N}": ["${A}"]} # b\n`, 'root:~');
test('field without value', adds, `a: 1\n${N}:\nb: 1\n`, `a: 1\n${N}:\n- ${A}\n- "${B}"\nb: 1\n`, 'value', [A, B]);
test(
  'field without value, commented',
  adds,
  `${N}: # none\n  # yet\n# of b\nb: 1`,
  `${N}: # none\n  # yet\n- ${A}\n# of b\nb: 1`,
  'value',
);
test('field without value, indented', adds, `  ${N}:\n  b: 1\n`, `  ${N}:\n  - ${A}\n  b: 1\n`, 'value');
test('field of null', adds, `${N}: null\n`, `${N}:\n- ${A}\n`, 'value: null');
test('field of null, commented', adds, `${N} :  ~ # none\nb: 1\n`, `${N} : # none\n- ${A}\nb: 1\n`, 'value:  ~');
test('field of null, compact JSON', adds, `{"${N}":null,"b":1}`, `{"${N}":["${A}","${B}"],"b":1}`, 'value:null', [
  A,
  B,
]);
test(
  'field of null, pretty JSON',
  adds,
  `{\n  "b": 1,\n  "${N}": null\n}`,
  `{\n  "b": 1,\n  "${N}": [\n    "${A}"\n  ]\n}`,
  'value: null',
);
test('field without value, flow map', adds, `{${N}: , b: 1}`, `{${N}: ["${A}"] , b: 1}`, 'value');

test(
  'each family in its own quotes',
  adds,
  `${N}:\n- 10.0.0.0/8\n- 'fd00:2::/48'\n`,
  `${N}:\n- 10.0.0.0/8\n- 'fd00:2::/48'\n- ${A}\n- '${B}'\n`,
  undefined,
  [A, B],
);
test(
  'quotes of the last neighbour',
  adds,
  `${N}:\n- 'fd00:2::/48'\n- "fd00:3::/48"\n`,
  `${N}:\n- 'fd00:2::/48'\n- "fd00:3::/48"\n- ${A}\n`,
);

// Taking out what has been there for longer.

const edits = test.macro((tt, before: string, change: Partial<Edit>, after: string, created?: Created) => {
  for (const lineBreak of ['\n', '\r\n']) {
    const from = before.replaceAll('\n', lineBreak);
    tt.deepEqual(edit(from, change), { text: after.replaceAll('\n', lineBreak), created });
  }
});

test(
  'the last of several goes',
  edits,
  `${N}:\n- ${A} # 1\n- ${A}\n- 10.0.0.0/8\n`,
  { remove: [A] },
  `${N}:\n- ${A} # 1\n- 10.0.0.0/8\n`,
);
test('as many go as are named', edits, `${N}: [a, b, a, a]\n`, { remove: ['a', 'a'] }, `${N}: [a, b]\n`);
test('what is not there does not go', edits, `${N}: [a, b]\n`, { remove: ['c', 'b', 'b'] }, `${N}: [a]\n`);
test('nothing to do', edits, `${N}: [a]`, {}, `${N}: [a]`);
test('nothing to do without a list', edits, '{"a": 1}', { remove: [A] }, '{"a": 1}');
test(
  'what was created stays in mind',
  edits,
  `${N}: [a, b]`,
  { remove: ['b'], created: 'field' },
  `${N}: [a]`,
  'field',
);
test('add and take out', edits, `${N}:\n- a\n- b\n`, { add: [A], remove: ['a', 'b'] }, `${N}:\n- ${A}\n`);
test('add and take out in one line', edits, `${N}: [a]\n`, { add: [A], remove: ['a'] }, `${N}: ["${A}"]\n`);
test('add what goes', edits, `${N}: ["${A}", b]\n`, { add: [A], remove: [A] }, `${N}: [b, "${A}"]\n`);
test('the first of a line', edits, `${N}: [a, b, c]\n`, { remove: ['a'] }, `${N}: [b, c]\n`);
test('the first two of a line', edits, `${N}: [a, b, c]\n`, { remove: ['a', 'b'] }, `${N}: [c]\n`);
test('the middle of a line', edits, `${N}: [ a, b, c ]\n`, { remove: ['b'] }, `${N}: [ a, c ]\n`);
test(
  'of a line with others',
  edits,
  `${N}: [\n  a, b,\n  c, d\n  ]\n`,
  { remove: ['a', 'd'] },
  `${N}: [\n  b,\n  c\n  ]\n`,
);
test('of a line with the bracket', edits, `${N}: [\n  a,\n  b ]\n`, { remove: ['b'] }, `${N}: [\n  a ]\n`);
test('all of a line', edits, `${N}: [a, b] # c\n`, { remove: ['a', 'b'] }, `${N}: [] # c\n`);
test(
  'all of some lines',
  edits,
  `{\n  "${N}": [\n    "a",\n    "b"\n  ]\n}`,
  { remove: ['a', 'b'] },
  `{\n  "${N}": []\n}`,
);
test('all of a block list', edits, `${N}: # c\n- a\n- b\nd: 1\n`, { remove: ['a', 'b'] }, `${N}: [] # c\nd: 1\n`);
test(
  'comments stay',
  edits,
  `${N}:\n  - a # of a\n  # of b\n  - b # beside b\n`,
  { remove: ['b'] },
  `${N}:\n  - a # of a\n  # of b\n  # beside b\n`,
);
test(
  'comments stay where all goes',
  edits,
  `${N}: # of all\n# of a\n- a\n- b # of b\nd: 1\n`,
  { remove: ['a', 'b'] },
  `${N}: [] # of all\n# of a\n# of b\nd: 1\n`,
);
test(
  'comments stay in brackets',
  edits,
  `${N}: [\n  a, # of a\n  b, # of b\n  c # of c\n  ]\n`,
  { remove: ['b', 'c'] },
  `${N}: [\n  a # of a\n  # of b\n  # of c\n  ]\n`,
);
test(
  'comments stay in emptied brackets',
  edits,
  `${N}: [\n  a # of a\n  ]\n`,
  { remove: ['a'] },
  `${N}: [\n  # of a\n  ]\n`,
);
test(
  'a comment before a comma stays',
  edits,
  `${N}: [\n  a # of a\n  , b\n  ]\n`,
  { remove: ['a'] },
  `${N}: [\n  # of a\n   b\n  ]\n`,
);
test('a comment behind a dash stays', edits, `${N}:\n- # of a\n  a\n- b\n`, { remove: ['a'] }, `${N}:\n # of a\n- b\n`);
test('an entry below its dash goes', edits, `${N}:\n-\n  a\n- b\n`, { remove: ['a'] }, `${N}:\n- b\n`);

test(
  'a created field stays with entries of others',
  edits,
  `a: 1\n${N}:\n- ${A}\n- b\n`,
  { remove: [A], created: 'field' },
  `a: 1\n${N}:\n- b\n`,
  'field',
);
test('a created field goes from the top', edits, `${N}:\n- ${A}\na: 1\n`, { remove: [A], created: 'field' }, 'a: 1\n');
test(
  'a created field goes in brackets',
  edits,
  `a: 1\n${N}: [\n  "${A}" ]\n`,
  { remove: [A], created: 'field' },
  'a: 1\n',
);
test(
  'a created field leaves comments',
  edits,
  `a: 1\n${N}: # x\n- ${A} # y\n# z\nb: 1\n`,
  { remove: [A], created: 'field' },
  'a: 1\n# x\n# y\n# z\nb: 1\n',
);
test(
  'a created field with comments in brackets is emptied',
  edits,
  `a: 1\n${N}: [\n  # x\n  "${A}"\n  ]\n`,
  { remove: [A], created: 'field' },
  `a: 1\n${N}: [\n  # x\n  ]\n`,
);
test(
  'the same in JSON’s style',
  edits,
  `{a: 1, ${N}: [ # x\n  "${A}"\n]}\n`,
  { remove: [A], created: 'field' },
  `{a: 1, ${N}: [ # x\n]}\n`,
);
test(
  'a created field goes from a flow map’s top',
  edits,
  `{\n  "${N}": ["${A}"],\n  "a": 1\n}`,
  { remove: [A], created: 'field' },
  '{\n  "a": 1\n}',
);
test('a text is never left empty', edits, `${N}:\n- ${A}\n`, { remove: [A], created: 'field' }, `${N}: []\n`);
test('an empty list is not what was created', edits, `${N}: []\n`, { add: [A], created: 'field' }, `${N}: ["${A}"]\n`);
test(
  'a created value goes in brackets',
  edits,
  `${N}: [ ${A} ]\na: 1\n`,
  { remove: [A], created: 'value:  ~' },
  `${N}:  ~\na: 1\n`,
);
test(
  'a created value of compact JSON in a block list',
  edits,
  `${N}:\n- ${A}\n`,
  { remove: [A], created: 'value:null' },
  `${N}: null\n`,
);
test(
  'a created value with comments in brackets is emptied',
  edits,
  `${N}: [ # x\n  ${A} ]\n`,
  { remove: [A], created: 'value' },
  `${N}: [ # x\n   ]\n`,
);
test(
  'a created map with others in it stays',
  edits,
  `{"a": 1, "${N}": ["${A}"]}`,
  { remove: [A], created: 'root:null' },
  '{"a": 1}',
);
test(
  'a created map with comments in it stays',
  edits,
  `{"${N}": ["${A}"] # x\n}`,
  { remove: [A], created: 'root:null' },
  '{ # x\n}',
);

// What cannot be read or edited.

const broken = test.macro((tt, text: string, message: RegExp | string) => {
  const config = readConfig(text);
  const edited = editText(text, { add: [A], remove: [], created: undefined });
  tt.true('problem' in edited);
  if (!('problem' in edited)) return;
  if ('problem' in config) tt.is(config.problem, edited.problem);
  if (typeof message === 'string') tt.is(edited.problem, message);
  else tt.regex(edited.problem, message);
  tt.notRegex(edited.problem, /\n|\bat \w+ \(/);
});

const SAFELY = /^has nonMasqueradeCIDRs in a form that cannot be edited safely: write /;
test('no YAML', broken, 'a: b: c\n', /^is neither YAML nor JSON: bad indentation of a mapping entry in line 1$/);
test('half a JSON', broken, '{\n"a": [', /^is neither YAML nor JSON: unexpected end of the stream .* in line 2$/);
test('a null byte', broken, 'a: \0', /null byte/);
test('an unknown alias', broken, 'a: 1\nb: *c\n', /^is neither YAML nor JSON: unidentified alias "c" in line 2$/);
test('a tab', broken, `${N}:\n\t- a\n`, /tab characters .* in line 2$/);
test('a bracket at the line’s beginning in vain', broken, `${N}: [\n"a"\n]\n`, /deficient indentation in line 2$/);
test('a list', broken, '- a\n', 'holds a list, not a map');
test('a text', broken, 'masqLinkLocal\n', 'holds a single value, not a map');
test('a quoted null', broken, '"null"\n', 'holds a single value, not a map');
test('a null with a tag', broken, '!!null\n', 'holds a single value, not a map');
test('two documents', broken, 'a: 1\n---\nb: 1\n', 'holds 2 YAML documents; Cilium reads one: remove the others');
test('an empty second document', broken, 'a: 1\n---\n', /^holds 2 YAML documents/);
test(
  'the field twice',
  broken,
  `${N}: []\na: 1\n${N}: []\n`,
  'has nonMasqueradeCIDRs twice, again in line 3: put the entries into one list',
);
test(
  'the field twice in JSON',
  broken,
  `{"${N}":[],"\\u006eonMasqueradeCIDRs":[]}`,
  /^has nonMasqueradeCIDRs twice, again in line 1/,
);
test(
  'the field in another case',
  broken,
  'nonMasqueradeCidrs: []\n',
  'has a field nonMasqueradeCidrs, which Cilium reads as nonMasqueradeCIDRs, too: rename it to that',
);
test('a map', broken, `\r\n${N}: {a: b}\r\n`, 'has nonMasqueradeCIDRs with a map in line 2: it must be a list');
test('a map in block style', broken, `${N}:\n  a: b\n`, /with a map in line 1/);
test('one CIDR', broken, `${N}: 10.0.0.0/8\n`, /with a single value in line 1: it must be a list$/);
test('an empty text', broken, `${N}: ""\n`, /with a single value/);
test('a text block for a list', broken, `${N}: |\n  - 10.0.0.0/8\n`, /with a single value/);
test(
  'a number among the entries',
  broken,
  `${N}:\n- a\n- 10\n`,
  'has nonMasqueradeCIDRs[1] that is no text in line 3: write a CIDR such as "10.0.0.0/8"',
);
test('a null among the entries', broken, `${N}:\n- a\n-\n`, /^has nonMasqueradeCIDRs\[1\] that is no text/);
test('a tilde among the entries', broken, `${N}: [~]\n`, /^has nonMasqueradeCIDRs\[0\] that is no text in line 1/);
test('a list among the entries', broken, `${N}: [[a]]\n`, /that is no text/);
test('a map among the entries', broken, `${N}:\n- cidr: a\n`, /that is no text/);
test('a pair among the entries', broken, `${N}: [a: b]\n`, /that is no text/);
test(
  'a text block among the entries',
  broken,
  `${N}:\n- |\n  a\n`,
  'has nonMasqueradeCIDRs[0] as a text block (| or >) in line 3: write it in one line',
);
test(
  'an anchor on the list',
  broken,
  `${N}: &a [b]\nc: *a\n`,
  'has nonMasqueradeCIDRs with an anchor, alias or tag in line 1: write it without',
);
test('an alias for the list', broken, `c: &a [b]\n${N}: *a\n`, /with an anchor, alias or tag in line 2/);
test('a tag on the list', broken, `${N}: !!seq [b]\n`, /with an anchor, alias or tag/);
test('a tag on nothing', broken, `${N}: !!null\n`, /with an anchor, alias or tag/);
test('an anchor on the key', broken, `&a ${N}: [b]\n`, /with an anchor, alias or tag/);
test(
  'an anchor on an entry',
  broken,
  `${N}:\n- &a b\nc: *a\n`,
  'has nonMasqueradeCIDRs[0] with an anchor, alias or tag in line 2: write it without',
);
test(
  'an alias for an entry',
  broken,
  `c: &a b\n${N}:\n- x\n- *a\n`,
  /^has nonMasqueradeCIDRs\[1\] with an anchor, alias or tag in line 4/,
);
test('a tag on an entry', broken, `${N}: [!!str b]\n`, /^has nonMasqueradeCIDRs\[0\] with an anchor, alias or tag/);
test(
  'the field by a merge key',
  broken,
  `x: &x {${N}: [a]}\n<<: *x\n`,
  'has nonMasqueradeCIDRs by an alias or a merge key (<<): write the field out',
);
test('the key by an alias', broken, `x: &x ${N}\n*x : [a]\n`, /^has nonMasqueradeCIDRs by an alias/);
test('a key with a question mark', broken, `? ${N}\n: - a\n`, SAFELY);
test('a flow map without a colon', broken, `{${N}, a: 1}`, SAFELY);
test('a null below its key', broken, `${N}:\n  null\n`, SAFELY);
test(
  'a text block without a line end, above a new field',
  broken,
  'a: |+\n  b',
  'ends with a text block (| or >) that lacks its last line break: end the text with one',
);

test('a result that does not mean what it should is no result', (tt) => {
  // in single quotes, the neighbour's, that is read as `a b`
  tt.deepEqual(editText(`${N}:\n- 'x'\n`, { add: ['a\n  b'], remove: [] }), {
    problem: 'has nonMasqueradeCIDRs in a form that cannot be edited safely: write it with one entry per line',
  });
});

test('without anything to edit the text is not read again', (tt) => {
  const text = 'a: b: c'; // would be a problem
  const config = { cidrs: [A], hasField: true, place: { text, root: undefined, field: undefined } };
  for (const remove of [[], [B]])
    tt.deepEqual(editConfig(config, { add: [], remove, created: 'field' }), { text, created: 'field' });
  tt.deepEqual(editConfig({ ...config, cidrs: [] }, { add: [], remove: [], created: 'field' }), {
    text,
    created: undefined,
  });
});

test('hasField', (tt) => {
  const has = (text: string): boolean | string => {
    const config = readConfig(text);
    return 'problem' in config ? config.problem : config.hasField;
  };
  for (const text of ['# a', ' ', 'null', '{}', 'a: 1']) tt.false(has(text));
  for (const text of [`${N}:`, `${N}: null`, `${N}: []`, `${N}: [a]`]) tt.true(has(text));
});

test('entries as text, whatever their quotes', (tt) => {
  tt.deepEqual(cidrsOf(`${N}:\n- 10.0.0.0/8\n- '1.0.0.0/8'\n- "2.0.0.0\\/8"\n- fd00::/8\n- ::/0\n- "10"\n`), [
    '10.0.0.0/8',
    '1.0.0.0/8',
    '2.0.0.0/8',
    'fd00::/8',
    '::/0',
    '10',
  ]);
});

// Generated texts: rendered from parts, with white space and comments wherever YAML allows them.

interface Parts {
  readonly before: readonly string[];
  readonly after: readonly string[];
  readonly entries: readonly string[];
  /** One number for each choice of the rendering. */
  readonly dice: readonly number[];
}

const entry = fc.oneof(
  fc.tuple(fc.nat(255), fc.integer({ min: 8, max: 32 })).map(([n, bits]) => `10.${n}.0.0/${bits}`),
  fc.nat(0xffff).map((n) => `fd00:${n.toString(16)}::/48`),
);
/** JSON of other fields' values. */
const OTHERS = ['true', '"a # b, ]"', '[1,"x"]', '{"c":{"d":[]},"e":null}', '[]', '{}', '"\\u00e4\\n"', '-1.5'];
/** YAML of them, indented by nothing. */
const MORE = [
  '|\n  x\n  # y\n',
  '|+\n  x\n\n',
  '>-\n  x\n   y\n',
  "'a\n\n  b'\n",
  '# none\n',
  '\n  - 1\n  # c\n  - b: 2\n',
  '&a [x , !!str c]\n',
  'a b\n  c # d\n',
];
const parts = fc.record<Parts>({
  before: fc.array(fc.constantFrom(...OTHERS), { maxLength: 3 }),
  after: fc.array(fc.constantFrom(...OTHERS), { maxLength: 3 }),
  entries: fc.array(entry, { maxLength: 6 }),
  dice: fc.array(fc.nat(1000), { minLength: 60, maxLength: 60 }),
});

/** A choice by the next of the dice. */
function chooser(dice: readonly number[]): <T>(...of: readonly T[]) => T {
  let thrown = 0;
  return (...of) => of[(dice[thrown++ % dice.length] ?? 0) % of.length]!;
}

const named = (values: readonly string[], prefix: string): [string, string][] =>
  values.map((value, i) => [`${prefix}${i}`, value]);

function compactJson({ before, after, entries, dice }: Parts): string {
  const list: [string, string][] = chooser(dice)(true, true, false) ? [[N, JSON.stringify(entries)]] : [];
  const pairs = [...named(before, 'b'), ...list, ...named(after, 'a')];
  return `{${pairs.map(([key, value]) => `"${key}":${value}`).join(',')}}`;
}

const prettyJson = (given: Parts): string =>
  JSON.stringify(JSON.parse(compactJson(given)), null, chooser(given.dice)('  ', '\t', '    ', ' ')) +
  chooser(given.dice)('', '\n');

/** A list or map in brackets, over lines or not. */
function brackets(
  [open, close]: [string, string],
  items: readonly string[],
  choose: ReturnType<typeof chooser>,
): string {
  const gap = (): string => choose('', '', ' ', '\n    ', ' # c\n    ', '\n\n  # c , ]\n    ');
  const comma = items.length > 0 ? choose('', ',', ' ,', ',\n    ', ' # c\n    , ') : '';
  return `${open}${gap()}${items.join(choose(', ', ',\n    ', ' ,', ', # c\n    ', '\n    ,   '))}${comma}${gap()}${close}`;
}

function flowYaml({ before, after, entries, dice }: Parts): string {
  const choose = chooser(dice);
  const list = choose(
    brackets(
      ['[', ']'],
      entries.map((text) => choose(text, `"${text}"`, `'${text}'`)),
      choose,
    ),
    '',
    'null',
    '~',
  );
  const field = choose([`${choose(N, `"${N}"`)}: ${list}`], [`'${N}' : ${list}`], []);
  const pairs = (values: readonly string[], prefix: string): string[] =>
    named(values, prefix).map(([key, value]) => `${key}: ${value}`);
  return (
    choose('', '# top\n', '---\n', '--- ') +
    brackets(['{', '}'], [...pairs(before, 'b'), ...field, ...pairs(after, 'a')], choose) +
    choose('', '\n', ' # end\n', '\n...\n')
  );
}

function blockYaml({ before, after, entries, dice }: Parts): string {
  const choose = chooser(dice);
  const indent = choose('', '', '  ', '    ');
  const noise = (): string => choose('', '', '', '\n', `${indent}# c\n`, `${indent}  # deeper\n`, '# c\n\n');
  const item = (text: string): string =>
    `${noise()}${indent}${deeper}-${choose(' ', ' ', '   ')}${choose(text, text, `"${text}"`, `'${text}'`)}${choose('', '', ' ', ' # beside')}\n`;
  const deeper = choose('', '  ', '    ');
  const block = `${choose('', ' ', ' # beside')}\n${entries.map(item).join('')}`;
  const flow = ` ${brackets(
    ['[', ']'],
    entries.map((text) => `"${text}"`),
    choose,
  ).replaceAll('\n', `\n${indent}`)}${choose('', ' # beside')}\n`;
  const empty = choose(' []', ' [ ]', '', ' null', '  ~ # none') + '\n';
  const list = choose(
    [`${choose(N, `"${N}"`, `'${N}' `)}:${entries.length === 0 ? empty : choose(block, block, flow)}`],
    [],
  );
  const pairs = (values: readonly string[], prefix: string): string[] =>
    named(values, prefix).map(
      ([key, value]) =>
        `${key}: ${choose(
          `${value}${choose('', ' # beside')}\n`,
          choose(...MORE)
            .replaceAll('\n', `\n${indent}`)
            .replace(/ +$/, ''),
        )}`,
    );
  const fields = [...pairs(before, 'b'), ...list, ...pairs(after, 'a')].map((text) => noise() + indent + text).join('');
  const end = noise() + choose('', '...\n', '...\n# more\n');
  const text = choose('', '', '---\n', '# top\n', '%YAML 1.1\n---\n', '\ufeff') + fields + end;
  return choose(text, text, /[|>]/.test(text) ? text : text.replace(/\n$/, '')) || ' '; // a text block keeps its last line break
}

interface Generated {
  readonly text: string;
  readonly entries: readonly string[];
}

const generated: fc.Arbitrary<Generated> = fc
  .tuple(parts, fc.constantFrom(compactJson, prettyJson, flowYaml, blockYaml), fc.constantFrom('\n', '\r\n'))
  .map(([given, render, lineBreak]) => ({ text: render(given).replaceAll('\n', lineBreak), entries: given.entries }));

const RUNS = { numRuns: 500 };
/** The first document as another way of reading has it. */
const valueOf = (text: string): Record<string, unknown> =>
  (loadAll(text, { schema: LOSSLESS })[0] ?? {}) as Record<string, unknown>;
const comments = (text: string): number => text.split('#').length;

/** True where the characters of `part` are in `whole`, in order. */
function isWithin(part: string, whole: string): boolean {
  let at = 0;
  for (const char of whole) if (char === part[at]) at += char.length;
  return at === part.length;
}

test('whatever the text, its entries are read', (tt) => {
  fc.assert(
    fc.property(generated, ({ text, entries }) => {
      const listed = valueOf(text)[N] ?? [];
      tt.deepEqual<unknown, unknown>(cidrsOf(text), Array.isArray(listed) ? listed : []);
      if (Array.isArray(listed) && listed.length > 0) tt.deepEqual(listed, entries);
    }),
    RUNS,
  );
});

test('whatever the text, adding adds, and taking the same out gives the same bytes', (tt) => {
  fc.assert(
    fc.property(generated, fc.array(entry, { minLength: 1, maxLength: 3 }), ({ text }, add) => {
      const old = cidrsOf(text) as string[];
      const added = edit(text, { add });
      tt.deepEqual<unknown, unknown>(valueOf(added.text), { ...valueOf(text), [N]: [...old, ...add] });
      tt.true(isWithin(text.replace(/(MasqueradeCIDRs.* ?:)[ \t]+(?:null|~)/, '$1'), added.text));
      tt.deepEqual(edit(added.text, { remove: add, created: added.created }), { text, created: undefined });
    }),
    RUNS,
  );
});

test('whatever the text, adding one after the other, and taking out in any order, gives the same bytes', (tt) => {
  const many = fc.uniqueArray(entry, { minLength: 2, maxLength: 5 });
  fc.assert(
    fc.property(generated, many, fc.nat(), ({ text }, add, turn) => {
      let now: ReturnType<typeof edit> = { text };
      for (const one of add) now = edit(now.text, { add: [one], created: now.created });
      tt.deepEqual(cidrsOf(now.text), [...(cidrsOf(text) as string[]), ...add]);
      for (const i of add.keys())
        now = edit(now.text, { remove: [add[(i + turn) % add.length]!], created: now.created });
      tt.deepEqual(now, { text, created: undefined });
    }),
    RUNS,
  );
});

test('whatever goes, the others and all comments stay', (tt) => {
  fc.assert(
    fc.property(generated, fc.array(fc.nat(5)), fc.array(entry, { maxLength: 2 }), ({ text }, indices, add) => {
      const old = cidrsOf(text) as string[];
      const remove = indices.flatMap((i) => old[i] ?? []);
      const left = [...old];
      for (const gone of remove) if (left.includes(gone)) left.splice(left.lastIndexOf(gone), 1);
      const edited = edit(text, { add, remove });
      tt.deepEqual(cidrsOf(edited.text), [...left, ...add]);
      tt.is(comments(edited.text), comments(text));
      tt.deepEqual({ ...valueOf(edited.text), [N]: undefined }, { ...valueOf(text), [N]: undefined });
    }),
    RUNS,
  );
});

test('10,000 entries into 10,000', (tt) => {
  const cidrs = (first: number): string[] =>
    Array.from({ length: 10_000 }, (_, i) => `${first + (i >> 16)}.${(i >> 8) & 255}.${i & 255}.0/24`);
  const [old, add] = [cidrs(10), cidrs(20)];
  for (const text of [
    JSON.stringify({ [N]: old }),
    JSON.stringify({ [N]: old }, null, 2),
    `${N}:\n${old.map((cidr) => `- ${cidr} # x\n`).join('')}`,
  ]) {
    let swapped = text;
    const ms = cpuMs(() => {
      const added = edit(text, { add });
      swapped = edit(added.text, { add: old, remove: add }).text;
    });
    tt.true(ms < 3000, `${ms} ms`);
    tt.is(cidrsOf(swapped).length, 20_000);
    tt.true(edit(swapped, { remove: old }).text === text);
  }
});
