/** Fifty frontends with fifty gateways on one machine, as in a cluster with many sites on few nodes. */
import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { Volume } from '../volume.ts';
import { configOf, gatewayConf, PSK, startFrontend, untilUp, USER } from './frontend.ts';
import { createGroup, type Netns } from './netns.ts';
import { startStrongswan } from './strongswan.ts';
import { answered } from './traffic.ts';

const PAIRS = 50;
/** Processes that start at the same time. */
const AT_ONCE = 5;

test('fifty frontends with fifty gateways: every tunnel comes up and carries traffic', async (t) => {
  t.timeout(300_000);
  const names = Array.from({ length: PAIRS }, (_, i) => [`pod${i}`, `gw${i}`]).flat();
  const group = await createGroup(names);
  const secrets = await Volume.create({ psk: PSK });
  const config = await Volume.create({ 'config.json': configOf() });
  t.teardown(async () => {
    await group.remove();
    await Promise.all([secrets.remove(), config.remove()]);
  });
  await chmod(group.folder, 0o711);

  const pair = async (i: number): Promise<void> => {
    const [pod, gateway] = [group.spaces[`pod${i}`], group.spaces[`gw${i}`]] as [Netns, Netns];
    await connect(pod, gateway);
    const [charon, peer] = await Promise.all([
      startStrongswan({ netns: pod, folder: join(group.folder, `f${i}`), group: USER }),
      startStrongswan({ netns: gateway, folder: join(group.folder, `g${i}`) }),
    ]);
    t.teardown(() => Promise.all([charon.stop(), peer.stop()]));
    await peer.load(gatewayConf());
    const options = `--config ${config.folder}/config.json --secrets ${secrets.folder} --socket ${charon.socket}`;
    const agent = await startFrontend(pod, options.split(' '));
    t.teardown(() => agent.stop('SIGKILL'));
    await untilUp(agent, 2, 60_000);
    t.deepEqual(agent.errors(), [], pod.name);
  };
  const todo = Array.from({ length: PAIRS }, (_, i) => i);
  const worker = async (): Promise<void> => {
    for (let next = todo.shift(); next !== undefined; next = todo.shift()) await pair(next);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  // All of them at the same time.
  for (let i = 0; i < PAIRS; i++) {
    const pod = group.spaces[`pod${i}`] as Netns;
    t.true(await answered(pod, '192.168.50.1', { from: '10.10.0.5' }), pod.name);
  }
});

async function connect(pod: Netns, gateway: Netns): Promise<void> {
  await pod.ip(
    'link set lo up',
    `link add eth0 type veth peer name eth0 netns ${gateway.name}`,
    'link set eth0 up',
    // As if masqueraded: an address inside the tunnel's own ranges would be sent into it.
    'address add 198.51.100.5/24 dev eth0',
    'address add 10.10.0.5/32 dev lo',
    'address add fd00:10::5/128 dev lo',
  );
  await gateway.ip(
    'link set lo up',
    'link set eth0 up',
    'address add 198.51.100.7/24 dev eth0',
    'address add 192.168.50.1/32 dev lo',
    'address add fd12:3456::1/128 dev lo',
  );
}
