import test from 'ava';
import { checkCharon, type CharonTarget } from '../contract/charon.ts';
import { FakeCharon } from './charon.ts';

const SITE: CharonTarget['site'] = {
  gateway: '198.51.100.7',
  localId: 'frontend.example',
  psk: 'correct horse battery staple',
  podRanges: ['10.10.0.0/16', 'fd00:10::/56'],
  peerCIDRs: ['192.168.50.0/24', 'fd12:3456::/48'],
};

checkCharon(test, async () => {
  const charon = new FakeCharon();
  charon.refusedChildren.add('172.20.0.0/16');
  return {
    vici: charon.vici,
    site: SITE,
    async gateway(does) {
      charon.gateway = does === 'is silent' ? 'silent' : does;
    },
    async gatewayDials() {
      charon.gatewayDials('site', 'all', SITE.podRanges, SITE.peerCIDRs);
    },
    rekey: async (child) => charon.rekey(child),
    kill: async () => charon.stop(),
    async restart() {
      charon.restart();
      return charon.vici;
    },
  };
});
