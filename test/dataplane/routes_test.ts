/** The node's routes: on a real kernel, with a real API server. */
import test from 'ava';
import { until } from '../api/agent.ts';
import { createSite, ourRoutes, setUp } from './routing.ts';

const fixture = setUp(test);

const ON_A = [
  '192.168.50.0/24 via 10.10.0.5 dev lxcfrontend src 10.10.0.1 mtu 1300',
  'unreachable 192.168.50.0/24 metric 4294967295',
  'fd12:3456::/48 via fd00:10::5 dev lxcfrontend src fd00:10::1 metric 1024 mtu 1300 pref medium',
  'unreachable fd12:3456::/48 dev lo metric 4294967295 pref medium',
];

test.serial('try', async (t) => {
  const site = await createSite(t, fixture);
  const a = await site.start('nodeA');
  await until(async () => (await ourRoutes(site.world.nodeA)).length === 4, 'routes').catch((e) => t.log(String(e)));
  t.log(a.log);
  t.log(await ourRoutes(site.world.nodeA));
  t.log(await a.get('/readyz'), await a.get('/frontend?ip=10.10.0.5'));
  t.log(await site.init('--timeout', '10'));
  t.log((await a.get('/metrics')).text);
  t.log(a.log);
  t.log(await site.world.frontend.exec('nft', 'list', 'ruleset'));
  t.deepEqual(await ourRoutes(site.world.nodeA), ON_A);
});
