/** A site's connection as VICI's load-conn takes it (swanctl.conf(5), section connections): a pure function. */
import type { Site } from '../../../functions/model/vpn.ts';
import type { Section } from '../vici/message.ts';
import type { Child } from './children.ts';

/** Of the one connection that a frontend has. */
export const CONNECTION = 'site';
/** Where charon takes any address: the gateway's is often hidden by a cloud's load balancer, and proves nothing. */
const ANYWHERE = ['0.0.0.0/0', '::/0'];
/** Seconds. An IKE_SA carries little, its CHILD_SAs have times of their own. */
const IKE_REKEY_TIME = 4 * 3600;

/** Without `children`, which change without the IKE_SA. */
export interface Connection {
  readonly ike: Section;
  readonly children: Readonly<Record<string, Section>>;
}

/** `localId`: our identity, in swanctl's notation. */
export function connectionOf(site: Site, localId: string, children: readonly Child[]): Connection {
  const { ipsec } = site;
  const auth = ipsec.certificate === undefined ? 'psk' : 'pubkey';
  const { ppkSecretRef: ppk } = ipsec;
  return {
    ike: {
      version: '2',
      // The first one is where we dial; an answer may come from anywhere.
      remote_addrs: [ipsec.peer, ...ANYWHERE],
      proposals: ipsec.proposals.ike,
      // A load balancer forwards UDP, not ESP.
      encap: 'yes',
      // The frontend's address is the load balancer's: nothing moves.
      mobike: 'no',
      fragmentation: 'yes',
      dpd_delay: String(ipsec.dpdDelay),
      rekey_time: String(IKE_REKEY_TIME),
      // A gateway that comes back replaces its own old SA, whatever it says of it.
      unique: 'replace',
      // For ever: it may be down for the night.
      keyingtries: '0',
      send_cert: 'always',
      ...(ppk === undefined ? {} : { ppk_id: ppk.id, ppk_required: yesNo(ppk.required) }),
      local: { auth, id: localId },
      remote: { auth, id: ipsec.remoteID ?? ipsec.peer },
    },
    children: Object.fromEntries(children.map((child) => [child.name, childSection(site, child)])),
  };
}

function childSection({ ipsec }: Site, { localTs, remoteTs, dialled }: Child): Section {
  return {
    mode: 'tunnel',
    local_ts: localTs,
    remote_ts: remoteTs,
    esp_proposals: ipsec.proposals.esp,
    rekey_time: String(ipsec.rekeyTime),
    // Never start: charon would close and make again what changes. The agent dials, also after an SA has ended: where charon
    // restarts several CHILD_SAs itself (dpd_action, close_action), they may come up with one reqid (5.9.8), and the kernel
    // then takes one's packets for the other's.
    start_action: dialled && ipsec.startAction.includes('trap') ? 'trap' : 'none',
  };
}

/** The message of load-conn. */
export const loadConn = ({ ike, children }: Connection): Section => ({ [CONNECTION]: { ...ike, children } });

const yesNo = (value: boolean): string => (value ? 'yes' : 'no');
