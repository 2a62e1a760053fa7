import test from 'ava';
import * as E from 'fp-ts/lib/Either.js';
import { problems } from '../../functions/model/codec.ts';
import { LostRanges, LostRangesHint } from './lost-ranges.ts';

/** Only what is asked of a codec here. */
interface Decoder {
  decode(input: unknown): E.Either<Parameters<typeof problems>[0], unknown>;
}
const answer = (codec: Decoder, text: string): unknown => {
  const decoded = codec.decode(JSON.parse(text));
  return E.isRight(decoded)
    ? decoded.right
    : problems(decoded.left)
        .map(({ path, message }) => `${path}: ${message}`)
        .join('\n');
};

const accepted = test.macro((tt, codec: Decoder, text: string, value: unknown) => {
  tt.deepEqual(answer(codec, text), value);
});
const refused = test.macro((tt, codec: Decoder, text: string, message: RegExp) => {
  const found = answer(codec, text);
  tt.is(typeof found, 'string');
  tt.regex(String(found), message);
});

test('hint', accepted, LostRangesHint, '{"node":"node-1.example"}', { node: 'node-1.example' });
test('hint without node', refused, LostRangesHint, '{}', /^node: is missing$/);
test('hint of something else', refused, LostRangesHint, '[]', /^: expected a map/);
test(
  'hint with a selector in the name',
  refused,
  LostRangesHint,
  '{"node":"a,spec.nodeName!=b"}',
  /^node: is not an object name/,
);
test('hint with a path in the name', refused, LostRangesHint, '{"node":"../x"}', /^node: is not an object name/);
test('hint that claims authority', refused, LostRangesHint, '{"node":"a","lost":[]}', /^lost: is not a known field/);

test('answer: nothing lost', accepted, LostRanges, '{"lost":[]}', { lost: [] });
test(
  'answer: both families, canonical',
  accepted,
  LostRanges,
  '{"lost":[{"pod":"vpn-frontend-0","cidr":"10.8.0.0/16"},{"pod":"vpn-frontend-b-0","cidr":"FD00:0::/48"}]}',
  {
    lost: [
      { pod: 'vpn-frontend-0', cidr: '10.8.0.0/16' },
      { pod: 'vpn-frontend-b-0', cidr: 'fd00::/48' },
    ],
  },
);
test('answer without list', refused, LostRanges, '{}', /^lost: is missing$/);
test('answer with no CIDR', refused, LostRanges, '{"lost":[{"pod":"a","cidr":"10.8.0.1"}]}', /^lost\[0\]\.cidr: /);
test('answer without pod', refused, LostRanges, '{"lost":[{"cidr":"10.8.0.0/16"}]}', /^lost\[0\]\.pod: is missing$/);
