import test from 'ava';
import { NEEDS, parseNeeds } from './needs.ts';

test('a row', (t) => {
  t.deepEqual(parseNeeds('# who\nip\tiproute2\tdataplane guest\tmakes links\n'), [
    { file: 'ip', package: 'iproute2', who: ['dataplane', 'guest'], why: 'makes links' },
  ]);
});

const refused = test.macro((t, line: string, message: string) => {
  t.throws(() => parseNeeds(`${line}\n`), { message });
});
test(
  'spaces for a tab',
  refused,
  'ip\tiproute2\tapi  makes links',
  'needs.tsv: not four columns with tabs between: ip\tiproute2\tapi  makes links',
);
test(
  'a fifth column',
  refused,
  'ip\tiproute2\tapi\tlinks\troutes',
  'needs.tsv: not four columns with tabs between: ip\tiproute2\tapi\tlinks\troutes',
);
test(
  'a tier that is none',
  refused,
  'ip\tiproute2\tapi clusters\tlinks',
  'needs.tsv: api clusters: a word is none of unit, render, api, dataplane, esp, guest, images, base-image, cluster, existing, go',
);

test('a file has one row', (t) => {
  const files = NEEDS.map(({ file }) => file);
  t.deepEqual(
    files.filter((file, index) => files.indexOf(file) !== index),
    [],
  );
});
