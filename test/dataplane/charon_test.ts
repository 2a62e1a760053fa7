/** The checks of test/contract/charon.ts, at the charons that exist. */
import test, { type ExecutionContext } from 'ava';
import { ViciConnection } from '../../agents/frontend/vici/connection.ts';
import { checkCharon, type CharonTarget } from '../contract/charon.ts';
import { strongswan6Root } from '../images/root.ts';
import { createSite, GATEWAY, gatewayConf, LOCAL_ID, ON_PREM, POD_RANGES, PSK } from './frontend.ts';

/** A gateway that keeps an old IKE_SA beside a new one of the same peer. */
const KEEPS = 'unique = never';

async function start(t: ExecutionContext, root?: string): Promise<CharonTarget> {
  const site = await createSite(t, { gateway: { connection: KEEPS }, ...(root === undefined ? {} : { root }) });
  const open = async (): Promise<ViciConnection> => {
    const vici = await ViciConnection.open(site.charon.socket);
    t.teardown(() => vici.close());
    return vici;
  };
  const [v4 = '', v6 = ''] = ON_PREM;
  const vici = await open();
  return {
    vici,
    site: { gateway: GATEWAY, localId: LOCAL_ID, psk: PSK, podRanges: POD_RANGES, peerCIDRs: [v4, v6] },
    async gateway(does) {
      const refusing = does === 'refuses' ? `${KEEPS}\nproposals = aes128-sha512-modp4096` : KEEPS;
      if (does === 'is silent') await site.world.gateway.ip('link set eth0 down');
      else await site.gateway.load(gatewayConf({ connection: refusing }));
    },
    async gatewayDials() {
      await site.natGateway();
      await site.gateway.load(gatewayConf({ connection: KEEPS, remoteAddress: '192.0.2.10' }));
      await site.gateway.swanctl('--initiate', '--child', 'cluster');
    },
    async rekey(child) {
      await vici.request('rekey', { child });
    },
    kill: () => site.charon.stop('SIGKILL'),
    async restart() {
      await site.startCharon();
      return open();
    },
  };
}

checkCharon(test, (t) => start(t), "the machine's own: ");
let root: Promise<string> | undefined;
checkCharon(test, async (t) => start(t, await (root ??= strongswan6Root())), '6.0, as in the image: ');
