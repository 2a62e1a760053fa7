/** What becomes of a tunnel on bad days: processes killed, keys and ranges changed, gateways that refuse. */
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { until } from '../api/agent.ts';
import {
  createSite,
  configOf,
  gatewayConf,
  LOCAL_ID,
  ON_PREM,
  POD_RANGES,
  PSK,
  untilUp,
  type Frontend,
  type Site,
  type SiteOptions,
  type SiteSpec,
} from './frontend.ts';
import { answered, capture, ping, startFlow } from './traffic.ts';

const FAILURES = 'constellation_vpn_frontend_negotiation_failures_total';

async function started(t: ExecutionContext, options: SiteOptions = {}): Promise<{ site: Site; agent: Frontend }> {
  t.timeout(180_000);
  const site = await createSite(t, options);
  const agent = await site.startAgent();
  return { site, agent };
}

/** Unique ids of the CHILD_SAs, by the label as written. */
const childUids = async (agent: Frontend): Promise<string[]> =>
  Object.keys(await agent.metric('ipsec_child_sa_state'))
    .map(
      (labels) =>
        `${/name="([^"]*)"/.exec(labels.slice(labels.indexOf(',name=')))?.[1]} ${/,uid="(\d+)"/.exec(labels)?.[1]}`,
    )
    .toSorted();

const failuresOf = async (agent: Frontend): Promise<string> => JSON.stringify(await agent.metric(FAILURES));

/** Milliseconds until a ping comes through. */
async function timeToTraffic({ world }: Site): Promise<number> {
  const start = performance.now();
  await until(
    async () => (await ping(world.client, '192.168.50.9', { count: 1 })).received === 1,
    'traffic again',
    30_000,
  );
  return performance.now() - start;
}

test.serial('charon is killed under traffic: another one in its place is loaded and dials at once', async (t) => {
  const { site, agent } = await started(t);
  await untilUp(agent, 2);
  const clear = await capture(site.world.wire, 'gateway', `net ${ON_PREM[0]}`);
  const flow = await startFlow(site.world.client, site.world.onprem, '192.168.50.9');
  await site.charon.stop('SIGKILL');
  await until(async () => (await agent.get('/readyz')).status === 503, 'not to be ready');
  t.regex((await agent.get('/readyz')).text, /charon does not answer/);
  t.deepEqual(await agent.metric('ipsec_up'), { '': 0 });
  await site.startCharon();
  const ms = await timeToTraffic(site);
  t.log(`traffic ${Math.round(ms)} ms after charon's start`);
  t.true(ms < 10_000);
  await until(async () => (await agent.get('/readyz')).status === 200, 'to be ready again');
  t.true((await flow.stop()).received > 0);
  t.deepEqual(await clear.stop(), []);
});

test.serial('the agent is killed: traffic goes on, and the next one adopts what is there', async (t) => {
  const { site, agent } = await started(t);
  await untilUp(agent, 2);
  const before = await childUids(agent);
  const flow = await startFlow(site.world.client, site.world.onprem, '192.168.50.9');
  await agent.stop('SIGKILL');
  await sleep(300);
  const next = await site.startAgent();
  await until(async () => (await next.get('/readyz')).status === 200, 'to be ready');
  await sleep(1_500); // it has looked, and looked again
  t.deepEqual(await childUids(next), before);
  t.is(await next.stop('SIGTERM'), 0);
  await sleep(300);
  const { sent, received } = await flow.stop();
  t.true(sent - received <= 1, `${received} of ${sent}`);
});

test.serial('SIGTERM to charon and the agent at once, as at the end of a pod: the gateway hears of it', async (t) => {
  const { site, agent } = await started(t);
  await untilUp(agent, 2);
  const start = performance.now();
  await Promise.all([site.charon.stop('SIGTERM'), agent.stop('SIGTERM')]);
  t.true(performance.now() - start < 5_000);
  const log = await readFile(site.gateway.log, 'utf8');
  t.regex(log, /received DELETE for IKE_SA/);
  t.is((await site.gateway.swanctl('--list-sas')).trim(), '');
});

test.serial('the gateway is killed, found dead, and back: the frontend dials again by itself', async (t) => {
  const { site, agent } = await started(t);
  await untilUp(agent, 2);
  await site.gateway.stop('SIGKILL');
  const start = performance.now();
  await until(
    async () => agent.log.some(({ msg }) => msg === 'IKE_SA down' || msg === 'CHILD_SA down'),
    'its death to be known',
    20_000,
  ).catch(() => undefined);
  t.log(`found dead after ${Math.round(performance.now() - start)} ms`);
  await site.restartGateway();
  t.true((await timeToTraffic(site)) < 20_000);
});

test.serial('a range is added and another removed: nothing is lost on those that stay', async (t) => {
  const ranges = Array.from({ length: 10 }, (_, i) => `10.77.${i}.0/24`);
  const children = {
    cluster: `local_ts = ${[...ON_PREM, '10.77.0.0/16'].join(',')}\nremote_ts = ${POD_RANGES.join(',')}`,
  };
  const { site, agent } = await started(t, {
    spec: { peerCIDRs: [...ON_PREM, ...ranges.slice(0, 5)] },
    gateway: { children },
  });
  for (const [i] of ranges.entries()) await site.world.gateway.ip(`address add 10.77.${i}.1/24 dev lan`);
  await untilUp(agent, 7);
  const before = await childUids(agent);
  const flows = [
    await startFlow(site.world.client, site.world.onprem, '192.168.50.9'),
    await startFlow(site.world.client, site.world.onprem, 'fd12:3456::9'),
  ];
  await site.configure({ peerCIDRs: [...ON_PREM, ...ranges.slice(1, 6)] });
  await until(async () => {
    const now = (await childUids(agent)).join('\n');
    return now.includes('10.77.5.0/24') && !now.includes('10.77.0.0/24');
  }, 'the ranges to change');
  await sleep(500);
  for (const flow of flows) {
    const { sent, received } = await flow.stop();
    t.is(received, sent);
  }
  const kept = before.filter((child) => !child.startsWith('10.77.0.0/24'));
  t.deepEqual(
    (await childUids(agent)).filter((child) => !child.startsWith('10.77.5.0/24')),
    kept,
  );
});

test.serial('one CHILD_SA for all: a changed range makes the new one before the old one goes', async (t) => {
  const spec = (peerCIDRs: readonly string[]): SiteSpec => ({ peerCIDRs, ipsec: { childSAs: 'one' } });
  const { site, agent } = await started(t, { spec: spec(ON_PREM.slice(0, 1)) });
  await untilUp(agent, 1);
  const flow = await startFlow(site.world.client, site.world.onprem, '192.168.50.9');
  await site.configure(spec(ON_PREM));
  await until(async () => {
    const sas = await childUids(agent);
    const labels = Object.keys(await agent.metric('ipsec_child_sa_state'));
    return sas.length === 1 && labels[0]?.includes('fd12:3456::/48');
  }, 'the new CHILD_SA alone');
  t.true(await answered(site.world.client, 'fd12:3456::9'));
  const { sent, received } = await flow.stop();
  t.log(`${sent - received} of ${sent} lost`);
  t.true(sent - received < 100);
});

test.serial('from a CHILD_SA for each range to one for all: it stands before they go', async (t) => {
  const { site, agent } = await started(t);
  await untilUp(agent, 2);
  const flow = await startFlow(site.world.client, site.world.onprem, '192.168.50.9');
  await site.configure({ ipsec: { childSAs: 'one' } });
  await until(async () => (await childUids(agent)).map((one) => one.split(' ')[0]).join() === 'all', 'the one alone');
  const { sent, received } = await flow.stop();
  t.log(`${sent - received} of ${sent} lost`);
  t.true(sent - received < 100);
  for (const to of ['192.168.50.9', 'fd12:3456::9']) t.true(await answered(site.world.client, to));
});

test.serial(
  'the key is rotated on both ends under traffic: live SAs stay, the next authentication has the new one',
  async (t) => {
    const { site, agent } = await started(t);
    await untilUp(agent, 2);
    const before = await childUids(agent);
    const flow = await startFlow(site.world.client, site.world.onprem, '192.168.50.9');
    const next = 'another battery staple that is long';
    await site.secrets.set({ psk: next });
    await until(() => agent.log.filter(({ msg }) => msg === 'credentials loaded').length === 2, 'the new key');
    await site.gateway.load(gatewayConf({ secrets: `ike-1 {\nsecret = "${next}"\n}` }));
    await sleep(500);
    t.deepEqual(await childUids(agent), before);
    const { sent, received } = await flow.stop();
    t.is(received, sent);
    await site.charon.swanctl('--terminate', '--ike', 'site');
    await untilUp(agent, 2);
    t.true(await answered(site.world.client, '192.168.50.9'));
    t.false(JSON.stringify(agent.log).includes('battery'));
  },
);

test.serial('a broken Secret keeps the last good key, says so, and is over when it is mended', async (t) => {
  const { site, agent } = await started(t);
  await untilUp(agent, 2);
  const before = await childUids(agent);
  for (const psk of ['', `${PSK}\n`]) {
    await site.secrets.set({ psk });
    await until(async () => (await agent.metric('constellation_vpn_frontend_credentials_valid'))[''] === 0, 'refusal');
  }
  await site.secrets.set({});
  await until(
    () => agent.errors().some(({ problem }) => String(problem).includes('is missing')),
    'the missing key to be said',
  );
  t.is((await agent.get('/readyz')).status, 200);
  t.deepEqual(await childUids(agent), before);
  await site.secrets.set({ psk: PSK });
  await until(
    async () => (await agent.metric('constellation_vpn_frontend_credentials_valid'))[''] === 1,
    'the good one',
  );
  t.deepEqual(await childUids(agent), before);
});

test.serial(
  'a wrong key: who refused is said and counted, and the right one is used as soon as it is there',
  async (t) => {
    const { site, agent } = await started(t, { secrets: { psk: 'not the key that the gateway has' } });
    await until(async () => (await failuresOf(agent)).includes('authentication'), 'the refusal', 30_000);
    const said = agent.log.find(({ msg }) => msg === 'negotiation failed');
    t.like(said, { level: 'warn', reason: 'authentication', refusedBy: 'theirs' });
    t.is((await agent.get('/readyz')).status, 200);
    await site.secrets.set({ psk: PSK });
    await untilUp(agent, 2, 60_000);
    t.false(JSON.stringify(agent.log).includes('not the key'));
  },
);

test.serial('a wrong identity of theirs and of ours: said by name', async (t) => {
  const { agent } = await started(t, { spec: { ipsec: { remoteID: 'somebody.else' } } });
  await until(async () => /identity|authentication/.test(await failuresOf(agent)), 'the refusal', 30_000);
  t.regex(JSON.stringify(agent.log.filter(({ msg }) => msg === 'negotiation failed')), /somebody\.else|refused/);
});

test.serial('proposals that do not match: whoever dials, the log says who offered what', async (t) => {
  const proposals = { ike: ['aes256-sha256-modp3072'], esp: ['aes256gcm16-ecp384'] };
  const { site, agent } = await started(t, { spec: { ipsec: { proposals } } });
  const said = (refusedBy: string) =>
    until(
      () => agent.log.find((record) => record.reason === 'proposal' && record.refusedBy === refusedBy),
      `a refusal of ${refusedBy}`,
      30_000,
    );
  t.like(await said('theirs'), { level: 'warn', msg: 'negotiation failed', ourProposals: proposals });
  await site.natGateway();
  await site.gateway.load(gatewayConf({ remoteAddress: '192.0.2.10' }));
  await t.throwsAsync(site.gateway.swanctl('--initiate', '--child', 'cluster'));
  const { event } = (await said('ours')) as { event?: { note?: string } };
  t.regex(event?.note ?? '', /AES_GCM_16_256/);
  t.regex(event?.note ?? '', /AES_CBC_256/);
});

test.serial('the socket vanishes in the middle of commands, again and again', async (t) => {
  const { site, agent } = await started(t);
  for (let round = 0; round < 5; round++) {
    await sleep(150 * round);
    await site.charon.stop('SIGKILL');
    await site.startCharon();
  }
  await untilUp(agent, 2, 30_000);
  t.true(await answered(site.world.client, '192.168.50.9'));
});

test.serial('no configuration, a broken one, an unknown site: said, and what ran goes on', async (t) => {
  const { site, agent } = await started(t);
  await untilUp(agent, 2);
  const before = await childUids(agent);
  for (const [config, problem] of [
    ['', /is empty/],
    ['{', /is not JSON/],
    [configOf().replace('"peer":', '"pear":'), /pear/],
  ] as const) {
    await site.config.set({ 'config.json': config });
    await until(() => agent.errors().some((record) => problem.test(String(record.problem))), String(problem));
  }
  t.deepEqual(await agent.metric('constellation_vpn_config_valid'), { '': 0 });
  t.deepEqual(await childUids(agent), before);
  await agent.stop();
  await site.configure({});
  const other = await site.startAgent('--site', 'paris');
  await until(async () => (await other.get('/readyz')).text.includes('has no site "paris"'), 'the unknown site');
});

test.serial('another gateway address: the next IKE_SA takes the place of the old one', async (t) => {
  const { site, agent } = await started(t);
  await untilUp(agent, 2);
  await site.world.gateway.ip('address add 198.51.100.8/24 dev eth0');
  await site.configure({ ipsec: { peer: '198.51.100.8', remoteID: '198.51.100.7' } });
  await until(
    async () => {
      const labels = Object.keys(await agent.metric('ipsec_ike_sa_state'));
      return labels.length === 1 && labels[0]?.includes('remote_host="198.51.100.8"');
    },
    'the other gateway',
    20_000,
  );
  await untilUp(agent, 2);
  t.true(await answered(site.world.client, '192.168.50.9'));
});

test.serial('a connection that somebody else loaded is unloaded, and only our keys are known', async (t) => {
  const { site, agent } = await started(t);
  await untilUp(agent, 2);
  await agent.stop();
  await site.charon
    .load(gatewayConf({ local: `auth = psk\nid = ${LOCAL_ID}`, remote: 'auth = psk\nid = other' }))
    .catch(() => undefined);
  await site.startAgent();
  await until(async () => {
    const conns = await site.charon.swanctl('--list-conns');
    return conns.includes('site:') && !conns.includes('cluster:');
  }, 'our connection alone');
  t.deepEqual((await site.charon.swanctl('--list-conns')).match(/^\w+: /gm), ['site: ']);
});
