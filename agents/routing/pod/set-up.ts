/** Sets up the frontend's pod, once, from inside: kill switch and MSS clamp first, then forwarding. */
import { familyOf, type Cidr } from '../../../functions/model/cidr.ts';
import type { Site } from '../../../functions/model/vpn.ts';
import { exec, ExecError } from '../../lib/exec.ts';
import type { Log } from '../../lib/log.ts';
import { setSysctl } from '../../lib/sysctl.ts';
import { ask, change, MISSING_CAPABILITY } from '../kernel/ip.ts';
import { PROTO, WORST_METRIC } from '../kernel/route.ts';
import { readMainTable } from '../kernel/state.ts';
import { RangeIndex } from '../range-index.ts';
import { wayOf } from '../routes/desired.ts';
import { planRoutes } from '../routes/plan.ts';
import { clampRuleset, ruleset } from './ruleset.ts';

export interface PodSettings {
  readonly site: Site;
  /** The pod's own address. */
  readonly podIP: string;
  /** Where the host's /proc/sys/net is mounted: written from inside the pod, it changes the pod's own. */
  readonly sysctlFolder: string;
}

/** What keeps the pod from being set up: one sentence that says what to do. Nothing is forwarded then. */
export class SetUpFailed extends Error {
  override name = 'SetUpFailed';
}

/** Throws SetUpFailed. Twice is once. */
export async function setUpPod({ site, podIP, sysctlFolder }: PodSettings, log: Log): Promise<void> {
  try {
    const mtu = await usableMtu(site, podIP, log);
    const killSwitch = await setRules(site, mtu, log);
    await setForwarding(site, sysctlFolder);
    log.info({ site: site.name, ranges: site.peerCIDRs.length, mtu, killSwitch }, 'pod set up');
  } catch (error) {
    if (!(error instanceof ExecError)) throw error;
    throw new SetUpFailed(`${error.message}: the image must have ip and nft`, { cause: error });
  }
}

/** The site's mtu, or what the pod's interface carries where that is less. */
async function usableMtu({ mtu }: Site, podIP: string, log: Log): Promise<number | null> {
  if (mtu === null) return null;
  const [links] = await ask(['addr show']);
  const device = (links as { ifname: string; mtu: number; addr_info?: { local?: string }[] }[] | undefined)?.find(
    ({ addr_info: all = [] }) => all.some(({ local }) => local === podIP),
  );
  if (device === undefined || mtu <= device.mtu) return mtu;
  log.warn(
    { mtu, device: device.ifname, limit: device.mtu },
    "mtu is larger than the interface's, which is used instead: lower mtu in the configuration",
  );
  return device.mtu;
}

/** Answers what is the kill switch. */
async function setRules(site: Site, mtu: number | null, log: Log): Promise<'nftables' | 'routes'> {
  const input = { mtu, peerCIDRs: site.peerCIDRs };
  const refused = await applyRuleset(ruleset(input));
  if (refused === undefined) {
    await setUnreachable([]);
    return 'nftables';
  }
  // Routes do the same, for the ranges of now, and charon's routes (table 220) win over them while a tunnel is up.
  log.warn(
    { problem: refused },
    'the kernel can\'t tell IPsec packets from others in nftables ("rt ipsec"): unreachable routes are the kill switch instead. Restart this pod after each change of peerCIDRs',
  );
  await setUnreachable(site.peerCIDRs);
  const noClamp = mtu === null ? undefined : await applyRuleset(clampRuleset(input));
  if (noClamp !== undefined)
    log.warn(
      { problem: noClamp },
      'no nftables in this kernel (CONFIG_NF_TABLES_INET): segments are not clamped, large packets rely on path MTU discovery',
    );
  return 'routes';
}

/** How the kernel says that it lacks an expression, a family, or nf_tables: EOPNOTSUPP, EPROTONOSUPPORT, EAFNOSUPPORT, ENOENT. */
const UNSUPPORTED = /not supported|No such file or directory/;

/** Undefined where it was taken, else what `nft` said. Throws SetUpFailed and ExecError where another kernel would not help. */
async function applyRuleset(text: string): Promise<string | undefined> {
  try {
    await exec('nft', ['-f', '-'], { input: text });
    return undefined;
  } catch (error) {
    if (!(error instanceof ExecError) || error.reason === 'missing') throw error;
    if (/Operation not permitted/.test(error.stderr))
      throw new SetUpFailed(`nft: ${MISSING_CAPABILITY}`, { cause: error });
    if (UNSUPPORTED.test(error.stderr)) return error.message;
    throw new SetUpFailed(`the kill switch can't be made, so the pod must not forward: ${error.message}`, {
      cause: error,
    });
  }
}

async function setUnreachable(cidrs: readonly Cidr[]): Promise<void> {
  const way = wayOf({ type: 'unreachable', metric: WORST_METRIC });
  const wanted = cidrs.map((cidr) => ({ cidr, site: '', way }));
  const { steps } = planRoutes(new RangeIndex(wanted), { routes: await readMainTable(), addresses: [] });
  const refused = await change(steps.map(({ do: kind, route }) => `route ${kind} ${route} proto ${PROTO}`));
  const [reason] = refused.values();
  if (reason !== undefined)
    throw new SetUpFailed(`the kill switch's routes can't be made, so the pod must not forward: ${reason}`);
}

async function setForwarding({ peerCIDRs }: Site, folder: string): Promise<void> {
  const settings = { 4: `${folder}/ipv4/ip_forward`, 6: `${folder}/ipv6/conf/all/forwarding` } as const;
  for (const family of [4, 6] as const) {
    const file = settings[family];
    const result = await setSysctl(file, '1').catch((error: Error) => {
      throw new SetUpFailed(`${error.message}: mount the host's /proc/sys/net at ${folder} (hostPath), not read-only`, {
        cause: error,
      });
    });
    if (result === 'absent' && (family === 4 || peerCIDRs.some((cidr) => familyOf(cidr) === 6)))
      throw new SetUpFailed(
        family === 4
          ? `${file} is not there: mount the host's /proc/sys/net at ${folder} (hostPath)`
          : `${file} is not there, so this pod has no IPv6: turn on IPv6 in the cluster, or take the IPv6 ranges out of the configuration`,
      );
  }
}
