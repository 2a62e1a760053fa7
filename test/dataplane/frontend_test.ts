/** The agent `frontend` between a real charon and a real gateway: every way to authenticate, both directions, both families. */
import { readFile } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { until } from '../api/agent.ts';
import { makeAuthority } from '../certificates.ts';
import { strongswan6Root } from '../images/root.ts';
import {
  createSite,
  GATEWAY,
  gatewayConf,
  LOCAL_ID,
  ON_PREM,
  POD_RANGES,
  PSK,
  untilUp,
  type Site,
} from './frontend.ts';
import { answered, capture, ping, startFlow, tcpTransfer } from './traffic.ts';

const BOTH = ['192.168.50.9', 'fd12:3456::9'];

/** Expects traffic of all kinds in both directions, and nothing in clear between the sites. */
async function carries(t: ExecutionContext, { world }: Site): Promise<void> {
  const { client, nodeA, nodeB, onprem, wire } = world;
  const clear = await capture(wire, 'gateway', ON_PREM.map((cidr) => `net ${cidr}`).join(' or '));
  const esp = await capture(wire, 'gateway', 'udp port 4500');
  for (const from of [client, nodeA, nodeB])
    for (const to of BOTH) t.true(await answered(from, to), `${from.name} to ${to}`);
  for (const to of ['10.10.1.7', 'fd00:10:0:1::7', '10.10.0.5']) t.true(await answered(onprem, to), `on-prem to ${to}`);
  const limit = { timeoutMs: 20_000 };
  t.true((await tcpTransfer(client, onprem, '192.168.50.9', 300_000, limit)).digestsEqual, 'TCP to on-prem');
  t.true((await tcpTransfer(onprem, client, '10.10.1.7', 300_000, limit)).digestsEqual, 'TCP from on-prem');
  const flow = await startFlow(client, onprem, 'fd12:3456::9');
  await new Promise((resolve) => setTimeout(resolve, 300));
  const { sent, received } = await flow.stop();
  t.true(received > 0 && sent - received <= 1, `UDP: ${received} of ${sent}`);
  t.deepEqual(await clear.stop(), []);
  t.true((await esp.stop()).filter((line) => line.includes('UDP-encap: ESP')).length > 400);
}

test.serial(
  'a pre-shared key: ready, traffic both ways in both families, metrics, and records for Events',
  async (t) => {
    t.timeout(120_000);
    const site = await createSite(t);
    const agent = await site.startAgent();
    await untilUp(agent, 2);
    await carries(t, site);
    t.deepEqual(await agent.get('/readyz'), { status: 200, text: 'ok\n' });
    t.deepEqual(await agent.metric('ipsec_up'), { '': 1 });
    await until(async () => isDeepStrictEqual(await agent.metric('ipsec_ike_sas'), { '': 1 }), 'one IKE_SA');
    t.deepEqual(await agent.metric('ipsec_half_open_ike_sas'), { '': 0 });
    t.deepEqual(Object.values(await agent.metric('ipsec_ike_sa_state')), [2]);
    // Of the CHILD_SAs of now: the gateway's DPD gives up within seconds, so that on a busy machine the tunnel may have been
    // made anew, and there may be two for a moment.
    const bytesOut = async () =>
      Object.entries(await agent.metric('ipsec_child_sa_bytes_out'))
        .filter(([labels]) => /,name="192\.168\.50\.0\/24",.*remote_ts="192\.168\.50\.0\/24"/.test(labels))
        .reduce((sum, [, bytes]) => sum + bytes, 0);
    const { client, onprem } = site.world;
    await until(async () => {
      const before = await bytesOut();
      await tcpTransfer(client, onprem, '192.168.50.9', 300_000, { timeoutMs: 20_000 });
      const counted = (await bytesOut()) - before;
      return counted > 300_000 && counted < 400_000;
    }, 'the bytes of a transfer to be counted');
    const up = agent.log.find(({ msg }) => msg === 'CHILD_SA up');
    t.like(up, { level: 'info', ike: 'site', peer: GATEWAY, event: { type: 'Normal', reason: 'TunnelUp' } });
    t.false(JSON.stringify(agent.log).includes(PSK));
    t.deepEqual(agent.errors(), []);
  },
);

for (const keyType of ['rsa-3072', 'P-384', 'ed25519'] as const)
  test.serial(`certificates: ${keyType}, the gateway's by an intermediate authority`, async (t) => {
    t.timeout(120_000);
    const authority = await makeAuthority('on-prem root');
    const intermediate = await authority.makeAuthority('on-prem issuing');
    const ours = await authority.issue({ subject: 'O=Acme, CN=frontend', san: [`DNS:${LOCAL_ID}`], keyType });
    const theirs = await intermediate.issue({
      subject: 'O=Acme, CN=gateway',
      san: [`IP:${GATEWAY}`, 'DNS:gw.example.com'],
      keyType,
    });
    const site = await createSite(t, {
      spec: {
        ipsec: {
          pskSecretRef: undefined,
          localID: undefined,
          certificate: { secretRef: { name: 'tls' } },
          remoteID: 'gw.example.com',
        },
      },
      secrets: { 'tls.crt': ours.certificate, 'tls.key': ours.key, 'ca.crt': authority.certificate },
      gateway: {
        local: 'auth = pubkey\nid = gw.example.com\ncerts = gw.pem',
        remote: 'auth = pubkey\nid = "O=Acme, CN=frontend"\ncacerts = root.pem',
        secrets: '',
        files: {
          'x509/gw.pem': theirs.certificate,
          'x509ca/root.pem': authority.certificate,
          'x509ca/issuing.pem': intermediate.certificate,
          'private/gw.key': theirs.key,
        },
      },
    });
    const agent = await site.startAgent();
    await untilUp(agent, 2);
    for (const to of BOTH) t.true(await answered(site.world.client, to));
    const expiry = Object.entries(
      await agent.metric('constellation_vpn_frontend_certificate_expiry_timestamp_seconds'),
    );
    t.deepEqual(
      expiry.map(([labels, seconds]) => [labels, seconds > Date.now() / 1000]),
      [
        ['{role="leaf"}', true],
        ['{role="ca"}', true],
      ],
    );
    t.deepEqual(agent.errors(), []);
  });

test.serial('a post-quantum pre-shared key: used by both; another one on the other side is refused', async (t) => {
  t.timeout(120_000);
  const ppk = 'a post-quantum key of more than 256 bits';
  const withKey = (key: string) => ({
    connection: 'ppk_id = berlin\nppk_required = yes',
    secrets: `ike-1 {\nsecret = "${PSK}"\n}\nppk-1 {\nid = berlin\nsecret = "${key}"\n}`,
  });
  const site = await createSite(t, {
    spec: { ipsec: { ppkSecretRef: { name: 'ppk', id: 'berlin' } } },
    secrets: { psk: PSK, ppk },
    gateway: withKey(ppk),
  });
  const agent = await site.startAgent();
  await untilUp(agent, 2);
  t.regex(await readFile(site.charon.log, 'utf8'), /using PPK for PPK_ID 'berlin'/);
  await site.gateway.load(gatewayConf(withKey('a different post-quantum key, also long')));
  await site.charon.swanctl('--terminate', '--ike', 'site');
  await until(
    async () => Object.keys(await agent.metric('constellation_vpn_frontend_negotiation_failures_total')).length > 0,
    'a failure to be counted',
  );
  t.false(JSON.stringify(agent.log).includes('post-quantum'));
});

test.serial('the gateway as a name; its address changes', async (t) => {
  t.timeout(120_000);
  const site = await createSite(t, {
    spec: { ipsec: { peer: 'gw.example.test', remoteID: GATEWAY } },
    hosts: { 'gw.example.test': GATEWAY },
  });
  const { gateway, client } = site.world;
  const agent = await site.startAgent();
  await untilUp(agent, 2);
  t.true(await answered(client, '192.168.50.9'));
  await site.setHosts({ 'gw.example.test': '198.51.100.8' });
  await gateway.ip(
    'address flush dev eth0 scope global',
    'address add 198.51.100.8/24 dev eth0',
    'route add default via 198.51.100.1',
  );
  await until(async () => (await ping(client, '192.168.50.9')).received === 3, 'traffic by the new address');
  t.true(agent.log.some(({ msg, peer }) => msg === 'IKE_SA up' && peer === '198.51.100.8'));
});

test.serial('a gateway behind NAT that dials: startAction none accepts it from whatever address', async (t) => {
  t.timeout(120_000);
  const site = await createSite(t, { spec: { ipsec: { startAction: 'none' } } });
  await site.natGateway();
  const agent = await site.startAgent();
  await until(async () => (await agent.get('/readyz')).status === 200, 'ready');
  t.deepEqual(await agent.metric('ipsec_ike_sas'), { '': 0 });
  await site.gateway.load(gatewayConf({ remoteAddress: '192.0.2.10' }));
  await site.gateway.swanctl('--initiate', '--child', 'cluster');
  await untilUp(agent, 1);
  t.regex(Object.keys(await agent.metric('ipsec_ike_sa_state')).join('\n'), /remote_host="192\.0\.2\.1"/);
  for (const to of BOTH) t.true(await answered(site.world.client, to));
  t.true(await answered(site.world.onprem, '10.10.1.7'));
});

test.serial('strongSwan 6.0, as the image has it: traps that dial at the first packet', async (t) => {
  t.timeout(600_000, 'the image may have to be built');
  const root = await strongswan6Root((line) => t.log(line));
  const site = await createSite(t, { root, spec: { ipsec: { startAction: 'trap' } } });
  t.regex(await site.charon.swanctl('--version', '--daemon'), /strongSwan 6\./);
  const agent = await site.startAgent();
  await until(async () => (await agent.get('/readyz')).status === 200, 'ready');
  t.deepEqual(await agent.metric('ipsec_ike_sas'), { '': 0 });
  for (const to of BOTH)
    await until(async () => (await ping(site.world.client, to)).received === 3, `traffic to ${to}`);
  await untilUp(agent, 2);
  await carries(t, site);
  t.deepEqual(agent.errors(), []);
});

test.serial('a probe: latency and loss through the tunnel, and a sentence when the path is lost', async (t) => {
  t.timeout(120_000);
  const site = await createSite(t, { spec: { probe: '192.168.50.9' } });
  // As base/frontend.yaml has it.
  await site.world.frontend.sysctl({ 'net.ipv4.ping_group_range': '65532 65532' });
  const agent = await site.startAgent();
  await untilUp(agent, 2);
  const loss = async (): Promise<number | undefined> =>
    (await agent.metric('constellation_vpn_frontend_probe_loss_ratio'))['{address="192.168.50.9"}'];
  await until(async () => (await loss()) === 0, 'an answered round');
  const [latency = 0] = Object.values(await agent.metric('constellation_vpn_frontend_probe_latency_seconds'));
  t.true(latency > 0);
  await site.world.onprem.ip('link set eth0 down');
  await until(async () => (await loss()) === 1, 'a lost round');
  t.true(agent.log.some(({ level }) => level === 'warn' || level === 'error'));
  t.deepEqual(Object.values(await agent.metric('ipsec_ike_sa_state')), [2], 'the SA stands all the same');
});

test.serial('one selector each (perPair), for a gateway that knows no more', async (t) => {
  t.timeout(120_000);
  const children = Object.fromEntries(
    ON_PREM.map((cidr, i) => [`pair${i}`, `local_ts = ${cidr}\nremote_ts = ${POD_RANGES[i]}`]),
  );
  const site = await createSite(t, { spec: { ipsec: { childSAs: 'perPair' } }, gateway: { children } });
  const agent = await site.startAgent();
  await untilUp(agent, 2);
  const labels = Object.keys(await agent.metric('ipsec_child_sa_state')).join('\n');
  t.regex(labels, /local_ts="10\.10\.0\.0\/16",remote_ts="192\.168\.50\.0\/24"/);
  t.regex(labels, /local_ts="fd00:10::\/56",remote_ts="fd12:3456::\/48"/);
  for (const to of BOTH) t.true(await answered(site.world.client, to));
});

test.serial('one CHILD_SA for all (one), for a gateway that keeps no more', async (t) => {
  t.timeout(120_000);
  const site = await createSite(t, { spec: { ipsec: { childSAs: 'one' } } });
  const agent = await site.startAgent();
  await untilUp(agent, 1);
  t.is(Object.keys(await agent.metric('ipsec_child_sa_state')).length, 1);
  for (const to of BOTH) t.true(await answered(site.world.client, to));
});
