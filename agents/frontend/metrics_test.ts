import test from 'ava';
import { createMetrics } from './metrics.ts';
import type { ChildSa, IkeSa } from './tunnel/sas.ts';

const CHILD: ChildSa = {
  name: '192.168.50.0/24',
  uid: '3',
  reqid: '1',
  state: 'INSTALLED',
  mode: 'TUNNEL',
  protocol: 'ESP',
  localTs: ['10.10.0.0/16', 'fd00:10::/56'],
  remoteTs: ['192.168.50.0/24'],
  bytesIn: 168,
  bytesOut: 5_000_000_000,
  packetsIn: 2,
  packetsOut: 3,
  installedSeconds: 60,
};
const IKE: IkeSa = {
  name: 'site',
  uid: '1',
  version: '2',
  state: 'ESTABLISHED',
  localHost: '10.10.0.5',
  localId: 'vpn-frontend',
  remoteHost: '198.51.100.7',
  remoteId: 'C=DE, CN="gw"',
  establishedSeconds: 120,
  children: [CHILD],
};
const IKE_LABELS = String.raw`{name="site",uid="1",version="2",local_host="10.10.0.5",local_id="vpn-frontend",remote_host="198.51.100.7",remote_id="C=DE, CN=\"gw\""}`;
const CHILD_LABELS =
  '{ike_sa_name="site",ike_sa_uid="1",ike_sa_remote_host="198.51.100.7",name="192.168.50.0/24",uid="3",reqid="1",mode="TUNNEL",protocol="ESP",local_ts="10.10.0.0/16, fd00:10::/56",remote_ts="192.168.50.0/24"}';

interface Bench {
  answer: () => Promise<readonly IkeSa[]>;
  readonly asked: () => number;
  /** The samples of the SAs, sorted. */
  scrape(): Promise<string[]>;
  readonly metrics: ReturnType<typeof createMetrics>;
}

function create(answer: Bench['answer'], configValid = (): boolean => true): Bench {
  let asked = 0;
  const metrics = createMetrics(configValid, () => {
    asked += 1;
    return bench.answer();
  });
  const bench: Bench = {
    answer,
    metrics,
    asked: () => asked,
    scrape: async () =>
      (await metrics.registry.metrics())
        .split('\n')
        .filter((line) => line.startsWith('ipsec_'))
        .sort(),
  };
  return bench;
}

const NONE = ['ipsec_half_open_ike_sas 0', 'ipsec_ike_sas 0', 'ipsec_up 1'];
const DOWN = ['ipsec_half_open_ike_sas 0', 'ipsec_ike_sas 0', 'ipsec_up 0'];
const ONE = [
  `ipsec_child_sa_bytes_in${CHILD_LABELS} 168`,
  `ipsec_child_sa_bytes_out${CHILD_LABELS} 5000000000`,
  `ipsec_child_sa_installed_seconds${CHILD_LABELS} 60`,
  `ipsec_child_sa_packets_in${CHILD_LABELS} 2`,
  `ipsec_child_sa_packets_out${CHILD_LABELS} 3`,
  `ipsec_child_sa_state${CHILD_LABELS} 3`,
  'ipsec_half_open_ike_sas 0',
  `ipsec_ike_sa_established_seconds${IKE_LABELS} 120`,
  `ipsec_ike_sa_state${IKE_LABELS} 2`,
  'ipsec_ike_sas 1',
  'ipsec_up 1',
];

test('one SA of each kind', async (tt) => {
  tt.deepEqual(await create(async () => [IKE]).scrape(), ONE);
});

test('none', async (tt) => {
  tt.deepEqual(await create(async () => []).scrape(), NONE);
});

test('what has gone is gone at the next scrape', async (tt) => {
  const bench = create(async () => [IKE]);
  await bench.scrape();
  bench.answer = async () => [];
  tt.deepEqual(await bench.scrape(), NONE);
});

test('charon does not answer: no SAs of before; then it does again', async (tt) => {
  const bench = create(async () => [IKE]);
  await bench.scrape();
  bench.answer = () => Promise.reject(new Error('no'));
  tt.deepEqual(await bench.scrape(), DOWN);
  bench.answer = async () => [IKE];
  tt.deepEqual(await bench.scrape(), ONE);
});

test('a scrape asks once', async (tt) => {
  const bench = create(async () => [IKE]);
  tt.is(bench.asked(), 0);
  await bench.scrape();
  tt.is(bench.asked(), 1);
  await bench.scrape();
  tt.is(bench.asked(), 2);
  bench.answer = () => Promise.reject(new Error('no'));
  await bench.scrape();
  tt.is(bench.asked(), 3);
});

test('two scrapes at once ask once, and both see all', async (tt) => {
  const answers: ((sas: readonly IkeSa[]) => void)[] = [];
  const bench = create(() => new Promise((resolve) => answers.push(resolve)));
  const [one, two] = [bench.scrape(), bench.scrape()];
  tt.is(answers.length, 1);
  answers[0]?.([IKE]);
  tt.deepEqual(await Promise.all([one, two]), [ONE, ONE]);
});

const state = test.macro(async (tt, ike: string, child: string, expected: readonly number[]) => {
  const lines = await create(async () => [{ ...IKE, state: ike, children: [{ ...CHILD, state: child }] }]).scrape();
  const of = (name: string): number =>
    Number(
      lines
        .find((line) => line.startsWith(name))
        ?.split(' ')
        .at(-1),
    );
  tt.deepEqual([of('ipsec_ike_sa_state{'), of('ipsec_child_sa_state{'), of('ipsec_half_open_ike_sas')], [...expected]);
});
test('being made', state, 'CREATED', 'CREATED', [0, 0, 1]);
test('being negotiated', state, 'CONNECTING', 'ROUTED', [1, 1, 1]);
test('standing', state, 'ESTABLISHED', 'INSTALLED', [2, 3, 0]);
test('passive, installing', state, 'PASSIVE', 'INSTALLING', [3, 2, 0]);
test('being rekeyed', state, 'REKEYING', 'REKEYING', [4, 5, 0]);
test('rekeyed', state, 'REKEYED', 'REKEYED', [5, 6, 0]);
test('ending', state, 'DELETING', 'DELETING', [6, 8, 0]);
test('at its end', state, 'DESTROYING', 'DESTROYING', [7, 10, 0]);
test('retrying, deleted', state, 'DESTROYING', 'DELETED', [7, 9, 0]);
test('of a later strongSwan', state, 'NEW', 'NEW', [-1, -1, 0]);

test('several of both', async (tt) => {
  const lines = await create(async () => [
    IKE,
    { ...IKE, uid: '2', state: 'CONNECTING', children: [] },
    { ...IKE, uid: '3', children: [CHILD, { ...CHILD, uid: '4' }] },
  ]).scrape();
  tt.true(lines.includes('ipsec_ike_sas 3'));
  tt.true(lines.includes('ipsec_half_open_ike_sas 1'));
  tt.is(lines.filter((line) => line.startsWith('ipsec_child_sa_state')).length, 3);
});

test('the rest of them, and whether the configuration is valid', async (tt) => {
  let valid = true;
  const { metrics } = create(
    async () => [],
    () => valid,
  );
  metrics.reloads.inc({ what: 'connection' });
  metrics.failures.inc({ reason: 'NoProposalChosen', side: 'theirs' });
  metrics.credentialsValid.set(1);
  metrics.certificateExpiry.set({ role: 'leaf' }, 1_800_000_000);
  metrics.probeLoss.set({ address: '192.168.50.9' }, 0.5);
  metrics.probeLatency.set({ address: '192.168.50.9' }, 0.012);
  const lines = async (): Promise<string[]> =>
    (await metrics.registry.metrics()).split('\n').filter((line) => line.startsWith('constellation_vpn'));
  const expected = [
    'constellation_vpn_frontend_reloads_total{what="connection"} 1',
    'constellation_vpn_frontend_negotiation_failures_total{reason="NoProposalChosen",side="theirs"} 1',
    'constellation_vpn_frontend_credentials_valid 1',
    'constellation_vpn_frontend_certificate_expiry_timestamp_seconds{role="leaf"} 1800000000',
    'constellation_vpn_frontend_probe_loss_ratio{address="192.168.50.9"} 0.5',
    'constellation_vpn_frontend_probe_latency_seconds{address="192.168.50.9"} 0.012',
  ];
  tt.deepEqual((await lines()).sort(), ['constellation_vpn_config_valid 1', ...expected].sort());
  valid = false;
  tt.true((await lines()).includes('constellation_vpn_config_valid 0'));
});
