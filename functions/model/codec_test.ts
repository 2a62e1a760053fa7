import test from 'ava';
import { nearest } from './codec.ts';

const near = test.macro((tt, word: string, candidates: string[], expected: string | undefined) => {
  tt.is(nearest(word, candidates), expected);
});
test('one letter too many', near, 'peerCIDRss', ['podCIDR', 'peerCIDRs'], 'peerCIDRs');
test('other capitals', near, 'PEERCIDRS', ['podCIDR', 'peerCIDRs'], 'peerCIDRs');
test('two letters changed round', near, 'pks', ['peer', 'psk'], 'psk');
test('the nearest of several', near, 'remoteId', ['localID', 'remoteID'], 'remoteID');
test('one in three letters', near, 'mtx', ['mtu'], 'mtu');
test('two in three letters', near, 'mxx', ['mtu'], undefined);
test('a third of the letters', near, 'restartXXXts', ['restartAgents'], 'restartAgents');
test('more than a third', near, 'restXXXXXXts', ['restartAgents'], undefined);
test('no candidates', near, 'mtu', [], undefined);
test('nothing written', near, '', ['mtu'], undefined);
