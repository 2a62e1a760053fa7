import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import type { Cidr } from '../../functions/model/cidr.ts';
import { CILIUM_CHECKS, type CiliumTarget } from '../contract/cilium-api.ts';
import { CiliumAPI } from './cilium-api.ts';

/** One agent for all, as a real one has it. */
let agent: CiliumAPI;
let target: CiliumTarget;

test.before(async () => {
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-cilium-'));
  agent = await CiliumAPI.start(folder);
  agent.add({ id: 17, ipv4: '10.10.0.5', ipv6: 'fd00:10::5' });
  const range = { cidr: '10.8.0.0/16' as Cidr, hostIP: '192.0.2.10', namespace: 'vpn', pod: 'frontend' };
  const metadata = { source: 'custom-resource', namespace: range.namespace, name: range.pod };
  const steered = { hostIP: range.hostIP, identity: 40_000, metadata };
  for (const cidr of [range.cidr, '10.8.1.0/24', 'fd12::/48', '10.10.0.5/32', 'fd00:10::5/128'])
    agent.ipcache.set(cidr, steered);
  for (const cidr of ['0.0.0.0/0', '::/0']) agent.ipcache.set(cidr, { identity: 2 });
  target = {
    folder,
    endpoint: { id: 17, addresses: ['10.10.0.5', 'fd00:10::5'] },
    range,
    end: async () => void agent.restart({ downMs: 600, restoreMs: 600, leaveSocket: true }),
  };
});
test.after.always(async () => {
  await agent.stop();
  await rm(target.folder, { recursive: true, force: true });
});

for (const [title, check] of Object.entries(CILIUM_CHECKS)) test.serial(title, (t) => check(t, target));
