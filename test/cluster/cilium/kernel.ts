/** The one door to `ip` and `nft`: on the node, or in the overlay's network namespace. */
import { exec, ExecError } from '../../../agents/lib/exec.ts';
import { readRefused } from '../../../agents/routing/kernel/ip.ts';
import type { RouteJson } from './plan.ts';
import { TABLE } from './ruleset.ts';

/** Not the first on PATH: npm puts another one there, which does nothing. */
const NFT = '/usr/sbin/nft';
/** Of what is there, or gone, already. */
const HARMLESS = ['File exists', 'No such process'];

/** `overlay`: path of the namespace's file; without, the node. */
const enter = (overlay: string | undefined): string[] => (overlay === undefined ? [] : ['nsenter', `--net=${overlay}`]);

export async function run(words: readonly string[], overlay?: string, input?: string): Promise<string> {
  const [command = '', ...args] = [...enter(overlay), ...words];
  return exec(command, args, input === undefined ? {} : { input });
}

/** `ip` commands, all of them also after one that is refused; throws then. */
export async function change(lines: readonly string[], overlay?: string): Promise<void> {
  if (lines.length === 0) return;
  try {
    await run(['ip', '-force', '-batch', '-'], overlay, `${lines.join('\n')}\n`);
  } catch (error) {
    if (!(error instanceof ExecError) || error.reason !== 'failed') throw error;
    const refused = [...readRefused(error.stderr)].filter(([, reason]) => !HARMLESS.includes(reason));
    if (refused.length === 0) return;
    const texts = refused.map(([number, reason]) => `${lines[number]}: ${reason}`);
    throw new Error(`ip ${texts[0]}${texts.length > 1 ? ` (and ${texts.length - 1} more)` : ''}`, { cause: error });
  }
}

/** `table`: `main`, or `all`. IPv4. */
export const readRoutes = async (table: string, overlay?: string): Promise<RouteJson[]> =>
  JSON.parse(await run(['ip', '-4', '-j', 'route', 'show', 'table', table], overlay)) as RouteJson[];

export async function readLinks(overlay?: string): Promise<string[]> {
  const links = JSON.parse(await run(['ip', '-j', 'link', 'show'], overlay)) as { ifname: string }[];
  return links.map(({ ifname }) => ifname);
}

export const nft = (text: string): Promise<string> => run([NFT, '-f', '-'], undefined, text);

/** Elements of a set of our table that an earlier instance has left; none where there is no such set. */
export async function readSet(name: string): Promise<string[]> {
  const text = await run([NFT, '-j', 'list', 'set', ...TABLE.split(' '), name]).catch(() => '{"nftables":[]}');
  const { nftables } = JSON.parse(text) as { nftables: { set?: { elem?: string[] } }[] };
  return nftables.flatMap(({ set }) => set?.elem ?? []);
}

/** For `follow`. It dies with this process, also where that is killed with -9. */
export const monitorArgs = (overlay: string | undefined, ...objects: string[]): string[] => [
  '--pdeathsig',
  'KILL',
  ...enter(overlay),
  'ip',
  '-4',
  '-o',
  'monitor',
  ...objects,
];
