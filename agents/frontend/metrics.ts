import { Counter, Gauge } from 'prom-client';
import { createRegistry, registerConfigValid } from '../lib/metrics.ts';
import type { ChildSa, IkeSa } from './tunnel/sas.ts';

const PREFIX = 'constellation_vpn_frontend';

const IKE_LABELS = ['name', 'uid', 'version', 'local_host', 'local_id', 'remote_host', 'remote_id'] as const;
const CHILD_LABELS = [
  'ike_sa_name',
  'ike_sa_uid',
  'ike_sa_remote_host',
  'name',
  'uid',
  'reqid',
  'mode',
  'protocol',
  'local_ts',
  'remote_ts',
] as const;

/** Values of the state metrics, as strongSwan's own enums count (ike_sa_state_t, child_sa_state_t; 6.0). */
const IKE_STATES = 'CREATED CONNECTING ESTABLISHED PASSIVE REKEYING REKEYED DELETING DESTROYING'.split(' ');
const CHILD_STATES =
  'CREATED ROUTED INSTALLING INSTALLED UPDATING REKEYING REKEYED RETRYING DELETING DELETED DESTROYING'.split(' ');

/** `sas` is asked at each scrape, and rejects while charon does not answer. */
export function createMetrics(configValid: () => boolean, sas: () => Promise<readonly IkeSa[]>) {
  const registry = createRegistry();
  registerConfigValid(registry, configValid);
  const registers = [registry];
  registerSas(registry, sas);
  return {
    registry,
    reloads: new Counter({
      name: `${PREFIX}_reloads_total`,
      help: 'Times that something was loaded into charon. Label what: credentials, connection.',
      labelNames: ['what'] as const,
      registers,
    }),
    failures: new Counter({
      name: `${PREFIX}_negotiation_failures_total`,
      help: 'Negotiations with the gateway that failed, by reason and by the side that refused (ours, theirs).',
      labelNames: ['reason', 'side'] as const,
      registers,
    }),
    credentialsValid: new Gauge({
      name: `${PREFIX}_credentials_valid`,
      help: "1: the site's Secret as it is now is in force. 0: it is refused, and the last good one, if any, stays.",
      registers,
    }),
    certificateExpiry: new Gauge({
      name: `${PREFIX}_certificate_expiry_timestamp_seconds`,
      help: "When our certificate (role leaf) and the gateway's CA (role ca) end, in seconds since 1970.",
      labelNames: ['role'] as const,
      registers,
    }),
    probeLoss: new Gauge({
      name: `${PREFIX}_probe_loss_ratio`,
      help: 'Part of the last pings through the tunnel that were not answered, 0 to 1. Only where the site has a probe.',
      labelNames: ['address'] as const,
      registers,
    }),
    probeLatency: new Gauge({
      name: `${PREFIX}_probe_latency_seconds`,
      help: 'Average round trip of the last pings through the tunnel.',
      labelNames: ['address'] as const,
      registers,
    }),
  };
}

export type Metrics = ReturnType<typeof createMetrics>;

/** Under the names that exporters of strongSwan use (sergeymakinen/ipsec_exporter), so that their dashboards work. */
function registerSas(registry: ReturnType<typeof createRegistry>, sas: () => Promise<readonly IkeSa[]>): void {
  const registers = [registry];
  // Asked once a scrape, for all of them.
  let asked: Promise<void> | undefined;
  const collect = (): Promise<void> => {
    asked ??= sas()
      .then(
        (found) => fill(found, true),
        () => fill([], false),
      )
      .finally(() => {
        asked = undefined;
      });
    return asked;
  };
  const plain = (name: string, help: string): Gauge => new Gauge({ name, help, registers, collect });
  const ofIke = (name: string, help: string) => new Gauge({ name, help, labelNames: IKE_LABELS, registers, collect });
  const ofChild = (name: string, help: string) =>
    new Gauge({ name, help, labelNames: CHILD_LABELS, registers, collect });
  const up = plain('ipsec_up', '1: charon answers.');
  const ikeSas = plain('ipsec_ike_sas', "IKE_SAs of the site's connection.");
  const halfOpen = plain('ipsec_half_open_ike_sas', 'IKE_SAs that are being made.');
  const ikeState = ofIke('ipsec_ike_sa_state', `State of an IKE_SA: ${legend(IKE_STATES)}.`);
  const established = ofIke('ipsec_ike_sa_established_seconds', 'Seconds since an IKE_SA was established.');
  const perChild: readonly [Gauge<(typeof CHILD_LABELS)[number]>, (sa: ChildSa) => number][] = [
    [
      ofChild('ipsec_child_sa_state', `State of a CHILD_SA: ${legend(CHILD_STATES)}.`),
      ({ state }) => CHILD_STATES.indexOf(state),
    ],
    [ofChild('ipsec_child_sa_bytes_in', 'Bytes received through a CHILD_SA.'), ({ bytesIn }) => bytesIn],
    [ofChild('ipsec_child_sa_bytes_out', 'Bytes sent through a CHILD_SA.'), ({ bytesOut }) => bytesOut],
    [ofChild('ipsec_child_sa_packets_in', 'Packets received through a CHILD_SA.'), ({ packetsIn }) => packetsIn],
    [ofChild('ipsec_child_sa_packets_out', 'Packets sent through a CHILD_SA.'), ({ packetsOut }) => packetsOut],
    [
      ofChild('ipsec_child_sa_installed_seconds', 'Seconds since a CHILD_SA was installed.'),
      ({ installedSeconds }) => installedSeconds,
    ],
  ];
  const all = [ikeSas, halfOpen, ikeState, established, ...perChild.map(([gauge]) => gauge)];
  const fill = (found: readonly IkeSa[], answers: boolean): void => {
    up.set(Number(answers));
    for (const gauge of all) gauge.reset();
    ikeSas.set(found.length);
    halfOpen.set(found.filter(({ state }) => state === 'CREATED' || state === 'CONNECTING').length);
    for (const sa of found) {
      ikeState.set(ikeLabels(sa), IKE_STATES.indexOf(sa.state));
      established.set(ikeLabels(sa), sa.establishedSeconds);
      for (const child of sa.children)
        for (const [gauge, value] of perChild) gauge.set(childLabels(sa, child), value(child));
    }
  };
}

const legend = (states: readonly string[]): string => states.map((state, i) => `${i} ${state}`).join(', ');

const ikeLabels = (sa: IkeSa): Record<(typeof IKE_LABELS)[number], string> => ({
  name: sa.name,
  uid: sa.uid,
  version: sa.version,
  local_host: sa.localHost,
  local_id: sa.localId,
  remote_host: sa.remoteHost,
  remote_id: sa.remoteId,
});

const childLabels = (sa: IkeSa, child: ChildSa): Record<(typeof CHILD_LABELS)[number], string> => ({
  ike_sa_name: sa.name,
  ike_sa_uid: sa.uid,
  ike_sa_remote_host: sa.remoteHost,
  name: child.name,
  uid: child.uid,
  reqid: child.reqid,
  mode: child.mode,
  protocol: child.protocol,
  local_ts: child.localTs.join(', '),
  remote_ts: child.remoteTs.join(', '),
});
