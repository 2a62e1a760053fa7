/** YAML of objects that are nobody's business: odd scalars, comments, anchors, block scalars, as real manifests have them. */
import fc from 'fast-check';

const SCALARS = [
  '0644',
  '0o644',
  '0x1F',
  '08',
  '1_000',
  '1e3',
  '1.0',
  '22:30',
  '-0',
  '+7',
  '.5',
  '.inf',
  '.NaN',
  '~',
  'null',
  'Null',
  '',
  'on',
  'Off',
  'y',
  'N',
  'yes',
  'TRUE',
  'false',
  '=',
  '2001-12-14',
  '2001-12-14 21:59:43',
  '123456789012345678901234567890',
  '18446744073709551615',
  '"0644"',
  "'on'",
  '"a: b # c"',
  "'it''s'",
  '"\\u00fc\\n\\t"',
  'a#b',
  'a:b',
  'http://x/y?z#w',
  '10.0.0.0/8',
  'fd00::/8',
  'plain text',
  'ü 😀',
  '{a: 1, b: [on, 0644]}',
  '[]',
  '{}',
  '[1, "2", ~]',
  '!!binary aGk=',
  '!Own x',
  '"{{ .Values.x }}"',
  '$(VAR)',
  '${VAR}',
  '&anchor 0755',
];
const KEYS = [
  'a',
  'b',
  'y',
  'on',
  '0644',
  '"quoted key"',
  "'08'",
  'x.y/z',
  '1_000',
  '~',
  'items',
  'results',
  'functionConfig',
];
const COMMENTS = ['# a comment', '#no space', '# - kind: NotAnItem', '# items:'];
const LINES = ['text', '# no comment', '- no item', 'items:', '  deeper', '', 'key: value', '---x', '{{- if .x }}'];

const key = fc.constantFrom(...KEYS);
const comment = fc.constantFrom(...COMMENTS);
const beside = fc.option(comment, { nil: '' }).map((text) => (text === '' ? '' : ` ${text}`));

/** The lines of a map's fields, not indented. */
const { fields } = fc.letrec<{ fields: string[]; value: string[] }>((tie) => ({
  fields: fc
    .uniqueArray(fc.tuple(key, tie('value'), fc.option(comment)), {
      selector: ([name]) => name,
      minLength: 1,
      maxLength: 4,
    })
    .map((entries) =>
      entries.flatMap(([name, [first = '', ...rest], above]) => [
        ...(above === null ? [] : [above]),
        `${name}:${first}`,
        ...rest,
      ]),
    ),
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.tuple(fc.constantFrom(...SCALARS), beside).map(([scalar, tail]) => [` ${scalar}${tail}`]),
    fc
      .tuple(
        fc.constantFrom('|', '|-', '|+', '>', '>-', '|2'),
        fc.array(fc.constantFrom(...LINES), { minLength: 1, maxLength: 5 }),
      )
      // the first line gives a block scalar its indentation
      .map(([style, lines]) => [` ${style}`, ...['first', ...lines].map((line) => `  ${line}`.trimEnd())]),
    tie('fields').map((lines) => ['', ...lines.map((line) => (line === '' ? '' : `  ${line}`))]),
    fc
      .array(tie('fields'), { minLength: 1, maxLength: 3 })
      .map((maps) => [
        '',
        ...maps.flatMap((lines) => lines.map((line, i) => (line === '' ? '' : `${i === 0 ? '- ' : '  '}${line}`))),
      ]),
  ),
}));

/** The text of one entry of `items`, ended by a line break. No two of a list are the same: each has its number. */
export const foreignItem: fc.Arbitrary<(n: number) => string> = fc
  .tuple(fields, fc.constantFrom('- ', '- # as kpt writes it\n  '), fc.option(comment), fc.boolean())
  .map(([lines, dash, above, withAnchor]) => (n: number) => {
    const head = `kind: Foreign\n  metadata:\n    name: n${n} # the name\n`;
    const anchor = withAnchor ? '  anchored: &same {x: 0644}\n  alias: *same\n' : '';
    const body = lines.map((line) => (line === '' ? '\n' : `  ${line}\n`)).join('');
    return `${above === null ? '' : `${above}\n`}${dash}${head}${anchor}  spec:\n${body.replaceAll(/^(?=.)/gm, '  ')}`;
  });
