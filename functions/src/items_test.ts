import test from 'ava';
import { Verbatim } from '../model/krm.ts';
import { cloneOf, copy, edit, listAt, mapAt } from './items.ts';

test('edit: no change gives the same object', (tt) => {
  const item = { a: { b: [1, { c: new Verbatim('0644') }] } };
  tt.is(
    edit(item, (draft) => (mapAt(draft, 'a')['b'] = [1, { c: new Verbatim('0644') }])),
    item,
  );
});
test('edit: a change gives another, and leaves the first', (tt) => {
  const item = { a: { b: [1] } };
  tt.deepEqual<unknown, unknown>(
    edit(item, (draft) => listAt(draft, 'a', 'b').push(2)),
    { a: { b: [1, 2] } },
  );
  tt.deepEqual(item, { a: { b: [1] } });
});
test('edit: another scalar of the same value is a change', (tt) => {
  const item = { mode: new Verbatim('0644') };
  tt.not(
    edit(item, (draft) => (draft['mode'] = new Verbatim('0o644'))),
    item,
  );
});
test('copy: scalars kept as written are shared, __proto__ is a key', (tt) => {
  const scalar = new Verbatim('1_000');
  const item = JSON.parse('{"__proto__": {"a": 1}}') as Record<string, unknown>;
  tt.is(copy({ scalar }).scalar, scalar);
  tt.deepEqual(Object.keys(copy(item)), ['__proto__']);
});
test('mapAt: maps are made where there are none', (tt) => {
  const draft = { a: 'text' };
  mapAt(draft, 'a', 'b')['c'] = 1;
  tt.deepEqual<unknown, unknown>(draft, { a: { b: { c: 1 } } });
});
test('cloneOf: without annotations, no map for them', (tt) => {
  tt.deepEqual<unknown, unknown>(cloneOf({ kind: 'A', metadata: { name: 'a', labels: { x: 'y' } } }, 'b'), {
    kind: 'A',
    metadata: { name: 'b', labels: { x: 'y' } },
  });
});
test('cloneOf: beside a file at the root', (tt) => {
  const annotations = { 'config.kubernetes.io/path': 'all.yaml' };
  tt.deepEqual<unknown, unknown>(cloneOf({ kind: 'Set', metadata: { name: 'a', annotations } }, 'b')['metadata'], {
    name: 'b',
    annotations: { 'internal.config.kubernetes.io/path': 'set_b.yaml' },
  });
});
