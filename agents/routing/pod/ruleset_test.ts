import { access } from 'node:fs/promises';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import type { Cidr } from '../../../functions/model/cidr.ts';
import { clampRuleset, ruleset } from './ruleset.ts';

/** npm puts another program of this name on PATH. */
const NFT = '/usr/sbin/nft';

const cidrs = (...texts: string[]): Cidr[] => texts as Cidr[];
const DUAL = cidrs('10.8.0.0/16', '192.168.100.0/24', 'fd12::/48');

/** The text, and where there is an `nft` that may ask the kernel: it finds no fault with it. */
const golden = test.macro(async (tt, text: string, expected: string) => {
  tt.is(text, expected);
  await accepted(tt, text);
});

async function accepted(tt: ExecutionContext, text: string): Promise<void> {
  if (!(await usable)) return tt.log(`not checked by ${NFT}: it is not there, or may not`);
  const { exitCode, stderr } = await check(text);
  tt.is(exitCode, 0, stderr);
}
const check = (input: string) => execa(NFT, ['-c', '-f', '-'], { input, reject: false });
const usable: Promise<boolean> = access(NFT)
  .then(() => check('table inet constellation_vpn_test {\n}\n'))
  .then(
    ({ exitCode }) => exitCode === 0,
    () => false,
  );

test(
  'both families and an mtu',
  golden,
  ruleset({ mtu: 1300, peerCIDRs: DUAL }),
  `table inet constellation_vpn
delete table inet constellation_vpn
table inet constellation_vpn {
  set ranges4 {
    type ipv4_addr
    flags interval
    auto-merge
    elements = { 10.8.0.0/16, 192.168.100.0/24 }
  }
  set ranges6 {
    type ipv6_addr
    flags interval
    auto-merge
    elements = { fd12::/48 }
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    meta nfproto ipv4 tcp flags & (syn | rst) == syn tcp option maxseg size > 1260 tcp option maxseg size set 1260
    meta nfproto ipv6 tcp flags & (syn | rst) == syn tcp option maxseg size > 1240 tcp option maxseg size set 1240
    rt ipsec missing meta ipsec missing iifname != "ipsec0" oifname != "ipsec0" counter drop
  }
  chain output {
    type filter hook output priority filter; policy accept;
    ip daddr @ranges4 rt ipsec missing oifname != "ipsec0" counter drop
    ip6 daddr @ranges6 rt ipsec missing oifname != "ipsec0" counter drop
  }
}
`,
);
test(
  'one family and no mtu',
  golden,
  ruleset({ mtu: null, peerCIDRs: cidrs('fd12::/48') }),
  `table inet constellation_vpn
delete table inet constellation_vpn
table inet constellation_vpn {
  set ranges4 {
    type ipv4_addr
    flags interval
    auto-merge
  }
  set ranges6 {
    type ipv6_addr
    flags interval
    auto-merge
    elements = { fd12::/48 }
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    rt ipsec missing meta ipsec missing iifname != "ipsec0" oifname != "ipsec0" counter drop
  }
  chain output {
    type filter hook output priority filter; policy accept;
    ip daddr @ranges4 rt ipsec missing oifname != "ipsec0" counter drop
    ip6 daddr @ranges6 rt ipsec missing oifname != "ipsec0" counter drop
  }
}
`,
);
test(
  'the clamps alone',
  golden,
  clampRuleset({ mtu: 1300, peerCIDRs: DUAL }),
  `table inet constellation_vpn
delete table inet constellation_vpn
table inet constellation_vpn {
  chain forward {
    type filter hook forward priority filter; policy accept;
    meta nfproto ipv4 tcp flags & (syn | rst) == syn tcp option maxseg size > 1260 tcp option maxseg size set 1260
    meta nfproto ipv6 tcp flags & (syn | rst) == syn tcp option maxseg size > 1240 tcp option maxseg size set 1240
  }
}
`,
);
test(
  'no clamps',
  golden,
  clampRuleset({ mtu: null, peerCIDRs: DUAL }),
  `table inet constellation_vpn
delete table inet constellation_vpn
table inet constellation_vpn {
  chain forward {
    type filter hook forward priority filter; policy accept;
  }
}
`,
);

const taken = test.macro(async (tt, mtu: number, peerCIDRs: Cidr[]) => {
  await accepted(tt, ruleset({ mtu, peerCIDRs }));
  await accepted(tt, clampRuleset({ mtu, peerCIDRs }));
  tt.pass();
});
test(
  'ranges inside each other and side by side',
  taken,
  1300,
  cidrs('10.0.0.0/8', '10.8.0.0/16', '11.0.0.0/8', '11.0.0.1/32'),
);
test('every address', taken, 1300, cidrs('0.0.0.0/0', '::/0'));
test('the smallest and the largest mtu', taken, 576, DUAL);
test('the largest mtu', taken, 9000, DUAL);
test(
  '10,000 ranges',
  taken,
  1300,
  Array.from({ length: 10_000 }, (_, i) => `10.${i >> 8}.${i & 255}.0/24` as Cidr),
);

test('nft is asked: it refuses what it does not know', async (tt) => {
  const wrong = ruleset({ mtu: 1300, peerCIDRs: DUAL }).replace('meta ipsec', 'meta ipsex');
  tt.true(!(await usable) || (await check(wrong)).exitCode !== 0);
});
