import { stat } from 'node:fs/promises';
import test from 'ava';
import { CILIUM_CHECKS } from '../contract/cilium-api.ts';
import { ciliumTarget } from './cilium-target.ts';
import { fixture } from './default.ts';
import { OWN, settled } from './fixture.ts';

// What the agent `routing` takes for granted of Cilium's agents, as the fake has it.

const ownTest = OWN ? test.serial : test.serial.skip;

ownTest('Cilium translates Services for its node alone, not for the whole machine', async (t) => {
  for (const node of fixture.own.nodes) {
    const [agent] = await node.pids(/^cilium-agent --config-dir/);
    const [its, own] = [`/proc/${agent}/root/run/cilium/cgroupv2`, '/run/cilium/cgroupv2'];
    t.is(String((await stat(its)).ino), await node.exec('stat', '--format=%i', own), node.name);
  }
});

for (const [title, check] of Object.entries(CILIUM_CHECKS))
  ownTest(`Cilium’s API: ${title}`, async (t) => {
    t.timeout(5 * 60_000);
    await check(t, await ciliumTarget(fixture));
  });

ownTest('Cilium’s API: the cluster is well after that', async (t) => {
  t.timeout(5 * 60_000);
  await settled(fixture);
  t.pass();
});
