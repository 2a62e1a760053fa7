/** A node's routes as tests expect and see them, and what they change on a node. */
import { mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { ExecutionContext } from 'ava';
import { until, type LogRecord } from '../api/agent.ts';
import type { Netns } from './netns.ts';
import { connectPlainTunnel, FORWARDING, type World } from './world.ts';
import { answered } from './traffic.ts';
import { ourRoutes, PROTO, SITE, type Fixture, type Routing } from './routing.ts';

/** An event's effect, in milliseconds: far less than the agent's own re-check takes to come. */
const SOON_MS = 20_000;

/** What differs from a frontend on nodeA with the site's mtu; undefined: not in the route. */
interface Way {
  device?: string;
  via?: readonly [ipv4: string, ipv6: string];
  src?: readonly [ipv4: string, ipv6: string] | undefined;
  mtu?: number | undefined;
}

const NODE_A = ['10.10.0.1', 'fd00:10::1'] as const;
const NODE_B = ['10.10.1.1', 'fd00:10:0:1::1'] as const;

const word = (name: string, value: string | number | undefined) => (value === undefined ? '' : ` ${name} ${value}`);

/** What lies below every route of ours, and alone where a range can't be reached, as `ip route` prints it. */
export const nowhere = (cidrs: readonly string[]): string[] =>
  cidrs.map(
    (cidr) =>
      `unreachable ${cidr}${cidr.includes(':') ? ' dev lo metric 4294967295 pref medium' : ' metric 4294967295'}`,
  );

/** The routes of the frontend's node, sorted. */
export function throughPod(cidrs: readonly string[], way: Way = {}): string[] {
  const { device, via, src, mtu } = {
    device: 'lxcfrontend',
    via: ['10.10.0.5', 'fd00:10::5'],
    src: NODE_A,
    mtu: SITE.mtu,
    ...way,
  };
  const route = (cidr: string) =>
    cidr.includes(':')
      ? `${cidr} via ${via[1]} dev ${device}${word('src', src?.[1])} metric 1024${word('mtu', mtu)} pref medium`
      : `${cidr} via ${via[0]} dev ${device}${word('src', src?.[0])}${word('mtu', mtu)}`;
  return [...cidrs.map(route), ...nowhere(cidrs)].toSorted();
}

/** The routes of another node, nodeB where `src` says nothing else, sorted. */
export function throughTunnel(cidrs: readonly string[], way: Pick<Way, 'src' | 'mtu'> = {}): string[] {
  const { src, mtu } = { src: NODE_B, mtu: SITE.mtu, ...way };
  const route = (cidr: string) =>
    cidr.includes(':')
      ? `${cidr} dev cilium_host${word('src', src?.[1])} metric 1024${word('mtu', mtu)} pref medium`
      : `${cidr} dev cilium_host scope link${word('src', src?.[0])}${word('mtu', mtu)}`;
  return [...cidrs.map(route), ...nowhere(cidrs)].toSorted();
}

export const ON_A = throughPod(SITE.peerCIDRs);
export const ON_B = throughTunnel(SITE.peerCIDRs);
/** nodeA's while there is no frontend on it. */
export const ON_A_WITHOUT_POD = throughTunnel(SITE.peerCIDRs, { src: NODE_A });

/** Waits until our routes in a namespace are these, in any order, and no others. */
export async function untilRoutes(
  t: ExecutionContext,
  netns: Netns,
  expected: readonly string[],
  limitMs = SOON_MS,
): Promise<void> {
  const wanted = expected.toSorted();
  let seen: string[] = [];
  const same = async () => {
    seen = (await ourRoutes(netns)).toSorted();
    return isDeepStrictEqual(seen, wanted);
  };
  await until(same, 'our routes', limitMs).catch(() => undefined);
  t.deepEqual(seen, wanted);
}

/** Routes of others in the main table, byte for byte. */
export async function foreignRoutes(netns: Netns): Promise<string> {
  const ours = new RegExp(` proto ${PROTO}( |$)`);
  const list = async (family: string) => (await netns.exec('ip', family, 'route', 'show', 'table', 'main')).split('\n');
  return [...(await list('-4')), ...(await list('-6'))].filter((line) => !ours.test(line)).join('\n');
}

/** Waits for a record of the log, which may be there already. */
export function untilLogged(
  { log }: Pick<Routing, 'log'>,
  msg: string,
  fields: (record: LogRecord) => boolean = () => true,
  limitMs = SOON_MS,
): Promise<LogRecord> {
  return until(() => log.find((record) => record.msg === msg && fields(record)), `"${msg}" in the log`, limitMs);
}

export const problemOf = ({ problem }: LogRecord): string => String(problem);

export const logged = ({ log }: Pick<Routing, 'log'>, msg: string): number =>
  log.filter((record) => record.msg === msg).length;

/** Waits until the agent says that it is ready. */
export async function untilReady(agent: Routing, limitMs?: number): Promise<void> {
  await until(async () => (await agent.get('/readyz')).status === 200, 'to be ready', limitMs);
}

/** How long after its start the agent still looks at everything by itself, with something to spare. */
export const STARTING_MS = 4_000;

/** Waits until the agent looks only where an event tells it to, for about a minute. */
export async function untilSettled(agent: Routing): Promise<void> {
  await untilReady(agent);
  const { ts } = await untilLogged(agent, 'started');
  await sleep(Math.max(0, Date.parse(ts) + STARTING_MS - Date.now()));
}

/** Waits until it says that it is not, for a reason that matches; answers all reasons. */
export async function untilUnready(agent: Routing, reason: RegExp, limitMs = SOON_MS): Promise<string> {
  const answer = async () => {
    const { status, text } = await agent.get('/readyz');
    return status === 503 && reason.test(text) && text;
  };
  return until(answer, `not to be ready because of ${String(reason)}`, limitMs);
}

/** The rendered configuration with other sites. */
export function configOf(
  { rendered }: Pick<Fixture, 'rendered'>,
  ...sites: { name?: string; peerCIDRs?: readonly string[]; mtu?: number | null }[]
): string {
  const config = JSON.parse(rendered.config) as { spec: { sites: { name: string; ipsec: object }[] } };
  const [first] = config.spec.sites;
  config.spec.sites = sites.map((site) => ({
    ...first,
    ...site,
    name: site.name ?? SITE.name,
    ipsec: { ...first?.ipsec, ...(site.name === undefined ? {} : { localID: site.name }) },
  }));
  return JSON.stringify(config);
}

/** In place of the VPN: what reaches the frontend gets to the site, and back. */
export async function connectSite(world: World): Promise<void> {
  await world.frontend.sysctl(FORWARDING);
  await connectPlainTunnel(world);
}

/** Expects echo requests to be answered. */
export async function reaches(t: ExecutionContext, from: Netns, to: readonly string[]): Promise<void> {
  for (const address of to) t.true(await answered(from, address), address);
}

export interface RouteWatch {
  /** Every change of a route since then, a line each. */
  stop(): Promise<string[]>;
}

/** In tables that no agent looks at: they only show that the monitor has come so far. */
const MARK = 'blackhole 203.0.113.0';
let marks = 4000;

/** `ip monitor route`. Resolves when it sees what happens. */
export async function watchRoutes(netns: Netns): Promise<RouteWatch> {
  const child = netns.start('ip', ['-o', 'monitor', 'route'], { buffer: false, stdin: 'ignore' });
  const lines: string[] = [];
  createInterface(child.stdout).on('line', (line) => lines.push(line));
  const mark = async () => {
    marks += 1;
    await netns.ip(`route add ${MARK} table ${marks}`);
    return `table ${marks}`;
  };
  const sees = (text: string) => lines.some((line) => line.includes(MARK) && line.includes(text));
  await until(async () => sees(await mark()), 'ip monitor');
  return {
    async stop() {
      const last = await mark();
      await until(() => sees(last), 'ip monitor to come to its end');
      child.kill('SIGKILL');
      await child;
      return lines.filter((line) => !line.includes(MARK)).map((line) => line.trim());
    },
  };
}

/** What hangs still watches, and goes on once it is told to work. */
const kinds = (ip: string) => ({
  fails: 'echo "out of luck" >&2; exit 3',
  hangs: `case "$*" in *monitor*) ;; *) until [ -L ${ip} ]; do sleep 0.1; done;; esac; exec ip "$@"`,
});

export interface OtherIp {
  readonly env: Record<string, string>;
  set(kind: 'works' | 'missing' | keyof ReturnType<typeof kinds>): Promise<void>;
}

/** A PATH on which `ip` is what a test says. It works at first. */
export async function otherIp(netns: Netns): Promise<OtherIp> {
  const bin = join(netns.folder, 'bin');
  await mkdir(bin);
  const paths = (await netns.exec('sh', '-c', 'for name in setpriv nsenter ip; do command -v $name; done')).split('\n');
  for (const path of paths) await symlink(path, join(bin, path.slice(path.lastIndexOf('/') + 1)));
  const [ip, hidden, next] = ['ip', 'ip.hidden', 'ip.next'].map((name) => join(bin, name)) as [string, string, string];
  const real = paths.find((path) => path.endsWith('/ip')) ?? '';
  return {
    env: { PATH: bin },
    async set(kind) {
      if (kind === 'missing') return rename(ip, hidden);
      if (kind === 'works') await symlink(real, next);
      else await writeFile(next, `#!/bin/sh\nPATH=${process.env.PATH}\n${kinds(ip)[kind]}\n`, { mode: 0o755 });
      await rename(next, ip);
    },
  };
}
