import test from 'ava';
import { configObject, goodSpec, marker, title, type Loose } from '../../test/functions/items.ts';
import type { Item } from '../model/krm.ts';
import { markRendered } from './marker.ts';

const other: Item = { apiVersion: 'example.com/v1', kind: 'UnrenderedManifests', metadata: { name: 'x' } };

test('waits for those that have not run', (tt) => {
  const [rest] = markRendered([marker()], 'inject-peer-cidrs') as Loose[];
  tt.deepEqual(rest.spec.waitingFor, ['inject-ipsec-secret']);
});
test('a function that it does not wait for changes nothing', (tt) => {
  const item = marker();
  tt.is(markRendered([item], 'validate-vpn')[0], item);
});
const gone = test.macro((tt, item: object) =>
  tt.deepEqual(markRendered([item as Item, other], 'inject-peer-cidrs'), [other]),
);
test('gone after the last', gone, { ...marker(), spec: { waitingFor: ['inject-peer-cidrs'] } });
test('gone where it waits for nobody', gone, { ...marker(), spec: { waitingFor: [] } });
test('gone where it says nothing', gone, { ...marker(), spec: undefined });
test('the same kind of another group is foreign', (tt) => {
  tt.deepEqual(markRendered([marker(), other], 'x').map(title), [
    'UnrenderedManifests/run-the-functions',
    'UnrenderedManifests/x',
  ]);
});
test('the configuration itself, of the same group, stays', (tt) => {
  const config = configObject(goodSpec());
  tt.deepEqual(markRendered([config], 'inject-peer-cidrs'), [config]);
});
