import test from 'ava';
import { fixture } from './default.ts';
import { installed } from './fixture.ts';
import { RANGES } from './product.ts';

// After install.ts has removed the VPN, and ways.ts what it installed.

test.serial('installed once more, where it was removed before', async (t) => {
  t.timeout(5 * 60_000);
  await fixture.checkout.configure(fixture.cluster, { peerCIDRs: RANGES });
  await installed(fixture);
  t.pass();
});
