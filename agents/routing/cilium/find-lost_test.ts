import test from 'ava';
import type { Cidr } from '../../../functions/model/cidr.ts';
import { freeze } from '../../../test/functions/items.ts';
import type { IpEntry } from './api.ts';
import { findLoss, type Loss } from './find-lost.ts';

const RANGE = '10.8.0.0/16' as Cidr;
const RANGES: ReadonlySet<string> = new Set([RANGE, '10.8.1.0/24', 'fd12::/48']);

/** Without a source: no metadata at all. */
const entry = (cidr: string, source?: string): IpEntry =>
  source === undefined ? { cidr } : { cidr, metadata: { source } };
const steered = (cidr: string): IpEntry => entry(cidr, 'custom-resource');

const loss = test.macro((tt, entries: IpEntry[], expected: Loss | undefined) => {
  tt.deepEqual(findLoss(RANGE, freeze(entries), RANGES), expected);
});
test('steered', loss, [steered(RANGE)], undefined);
test('no entry', loss, [], { cidr: RANGE, kind: 'missing' });
test('none of its own, though it holds one that is well', loss, [steered('10.8.1.0/24')], {
  cidr: RANGE,
  kind: 'missing',
});
test('a policy’s, with the pod’s name', loss, [entry(RANGE, 'generated')], { cidr: RANGE, kind: 'policy' });
test('a policy’s, without a source', loss, [entry(RANGE)], { cidr: RANGE, kind: 'policy' });
test('metadata without a source', loss, [{ cidr: RANGE, metadata: {} }], { cidr: RANGE, kind: 'policy' });
const INSIDE: Loss = { cidr: RANGE, kind: 'inside', part: '10.8.7.0/24' };
test('a policy’s inside', loss, [steered(RANGE), entry('10.8.7.0/24', 'generated')], INSIDE);
test('a policy’s inside, listed before it', loss, [entry('10.8.7.0/24'), steered(RANGE)], INSIDE);
test('the first of two inside', loss, [steered(RANGE), entry('10.8.7.0/24'), entry('10.8.9.9/32')], INSIDE);
test('a CiliumEndpoint’s inside', loss, [steered(RANGE), steered('10.8.7.0/24')], undefined);
test('another range inside that is lost itself', loss, [steered(RANGE), entry('10.8.1.0/24')], undefined);
const sentTo = (hostIP: string): IpEntry => ({ ...steered(RANGE), hostIP });
const onThisNode = test.macro((tt, entries: IpEntry[], expected: Loss | undefined) => {
  tt.deepEqual(findLoss(RANGE, freeze(entries), RANGES, ['192.0.2.10']), expected);
});
test('the frontend runs here, and the range is sent here', onThisNode, [sentTo('192.0.2.10')], undefined);
test('the frontend runs here, and the range is sent to another node', onThisNode, [sentTo('192.0.2.11')], {
  cidr: RANGE,
  kind: 'elsewhere',
});
test(
  'the frontend runs here, and the agent does not say where the range is sent',
  onThisNode,
  [steered(RANGE)],
  undefined,
);
test(
  'the frontend runs here, and Cilium’s address of a node is of the other family',
  onThisNode,
  [sentTo('fd00::10')],
  undefined,
);
test('the frontend runs elsewhere: which node is right is not known', loss, [sentTo('192.0.2.11')], undefined);
test('taken by a policy, and one inside', loss, [entry(RANGE), entry('10.8.7.0/24')], { cidr: RANGE, kind: 'policy' });
