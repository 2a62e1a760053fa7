import test from 'ava';
import { CILIUM_CHECKS } from '../contract/cilium-api.ts';
import { ciliumTarget } from './cilium-target.ts';
import { fixture } from './default.ts';
import { OWN, settled } from './fixture.ts';

// What the agent `routing` takes for granted of Cilium's agents, as the fake has it.

const ownTest = OWN ? test.serial : test.serial.skip;

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
