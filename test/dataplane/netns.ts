/**
 * Network namespaces for tests: what runs in one has interfaces, routes and rules of its own, and the machine's files and
 * processes. Needs root and, of Debian's packages, iproute2 and util-linux.
 *
 * A group of them is named after the process that made it: cvpn-<pid>-<random>-<role>, with a scratch folder of the same
 * name less the role. A process that is killed leaves both behind; the next group made on the machine removes them, and an
 * interface cvpn-<pid>-… of the machine's own namespace.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa, type Options, type ResultPromise } from 'execa';

export interface Netns {
  /** As `ip netns` lists it. */
  readonly name: string;
  /** For nsenter --net=. */
  readonly path: string;
  /** Of its group, for sockets and files; removed with it. Short enough for the path of a unix socket. */
  readonly folder: string;
  /** Runs a command in here, without a shell, for 30 s at most. Resolves with stdout; rejects with stderr where it fails. */
  exec(command: string, ...args: string[]): Promise<string>;
  /**
   * Several `ip` commands, each without the word `ip` and without options, in one process. Rejects with the first that
   * fails; those after it are not run.
   */
  ip(...lines: string[]): Promise<void>;
  /** By path or with dots: `net.ipv4.ip_forward`. Only net.* is a namespace's own. */
  sysctl(settings: Record<string, string | number>): Promise<void>;
  /**
   * A program that runs on. Never rejects. Dies with the group, and with the thread that started it, however that ends; but
   * the kernel forgets the latter where it changes its user: such a `setpriv` needs a `--pdeathsig KILL` of its own.
   */
  start<O extends Options>(command: string, args: readonly string[], options: O): ResultPromise<O & { reject: false }>;
}

/** Where a program of the tests can run: a network namespace, or a pod of a cluster. */
export interface Place extends Pick<Netns, 'name' | 'start'> {
  /** Node and inside.ts there, where they are not this machine's. */
  readonly inside?: readonly [node: string, file: string];
}

export interface Group<Role extends string> {
  readonly spaces: Readonly<Record<Role, Netns>>;
  readonly folder: string;
  /** Kills whatever runs in the namespaces, whoever started it, and removes them and the folder. Again: does nothing. */
  remove(): Promise<void>;
}

/** iproute2's. */
const NAMESPACES = '/run/netns';
const PREFIX = 'cvpn';
/** Without what npm and npx put before it: with ava comes another `nft`, which does nothing and says that all is well. */
const PATH = (process.env.PATH ?? '')
  .split(':')
  .filter((folder) => !folder.endsWith('node_modules/.bin'))
  .join(':');
const EXEC_LIMIT_MS = 30_000;
const KILL_LIMIT_MS = 10_000;

export async function createGroup<Role extends string>(roles: readonly Role[]): Promise<Group<Role>> {
  await removeLeftovers();
  // Random: threads of one process have one pid, and pids come again.
  const id = `${PREFIX}-${process.pid}-${randomBytes(4).toString('hex')}`;
  const folder = join(tmpdir(), id);
  const named = roles.map((role) => [role, `${id}-${role.toLowerCase()}`] as const);
  const names = named.map(([, name]) => name);
  const remove = async () => {
    const present = await listNamespaces();
    await removeNamespaces(names.filter((name) => present.includes(name)));
    await rm(folder, { recursive: true, force: true });
  };
  await mkdir(folder, { mode: 0o700 });
  try {
    await ip(...names.map((name) => `netns add ${name}`));
  } catch (error) {
    await remove();
    throw error;
  }
  const spaces = Object.fromEntries(named.map(([role, name]) => [role, netns(name, folder)]));
  return { spaces: spaces as Record<Role, Netns>, folder, remove };
}

/** As a program that turns into the command, so that the pid is the command's; see test/control-plane/daemon.ts. */
const DYING = ['--pdeathsig', 'KILL'];

function netns(name: string, folder: string): Netns {
  const path = join(NAMESPACES, name);
  // `ip netns exec` would mount another /sys as well.
  const enter = ['nsenter', `--net=${path}`];
  return {
    name,
    path,
    folder,
    exec: (command, ...args) => run([...enter, command, ...args]),
    ip: (...lines) => runIp(lines, enter),
    async sysctl(settings) {
      // /proc/sys/net is that of the process that opens it.
      const line = ([key, value]: [string, string | number]) =>
        `echo ${value} > /proc/sys/${key.includes('/') ? key : key.replaceAll('.', '/')}`;
      await run([...enter, 'sh', '-eu'], Object.entries(settings).map(line).join('\n'));
    },
    start(command, args, options) {
      const all = { ...options, env: { PATH, ...options.env }, reject: false };
      // TypeScript compares no two of execa's types where the options are not known.
      return execa('setpriv', [...DYING, ...enter, command, ...args], all) as never;
    },
  };
}

async function run(command: readonly string[], input = ''): Promise<string> {
  const options = { input, env: { PATH, LC_ALL: 'C' }, timeout: EXEC_LIMIT_MS };
  return (await execa('setpriv', [...DYING, ...command], options)).stdout;
}

/** As Netns.ip, in the machine's own namespace; `netns NAME` says where an interface is made. */
export const ip = (...lines: string[]): Promise<void> => runIp(lines, []);

async function runIp(lines: readonly string[], enter: readonly string[]): Promise<void> {
  try {
    await run([...enter, 'ip', '-batch', '-'], lines.join('\n'));
  } catch (error) {
    const { stderr } = error as { stderr?: string };
    // One that it can't read it doesn't count.
    const number = /Command failed -:(\d+)/.exec(stderr ?? '')?.[1];
    const failed = number === undefined ? lines.join('; ') : lines[Number(number) - 1];
    throw new Error(`ip ${failed}: ${stderr}`, { cause: error });
  }
}

/** Nobody has made a namespace yet where the folder is missing. */
const listNamespaces = (): Promise<string[]> => readdir(NAMESPACES).catch(() => []);

async function removeNamespaces(names: readonly string[]): Promise<void> {
  if (names.length === 0) return;
  await killInside(names);
  await run(['ip', '-force', '-batch', '-'], names.map((name) => `netns delete ${name}`).join('\n'));
}

/** A namespace without a name lives on as long as a process in it. */
async function killInside(names: readonly string[]): Promise<void> {
  const identities = await Promise.all(names.map((name) => identity(join(NAMESPACES, name))));
  const deadline = Date.now() + KILL_LIMIT_MS;
  for (;;) {
    const pids = await processesIn(new Set(identities));
    if (pids.length === 0) return;
    if (Date.now() > deadline) throw new Error(`killed in vain for ${KILL_LIMIT_MS / 1000} s: ${pids.join(', ')}`);
    for (const pid of pids) kill(pid);
    await sleep(2);
  }
}

/** Process ids. One that has ended and that nobody has waited for yet is in no namespace. */
export async function processesIn(identities: ReadonlySet<string | undefined>): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const namespaces = await Promise.all(pids.map((pid) => identity(`/proc/${pid}/ns/net`)));
  const inside = (_: string, at: number) => namespaces[at] !== undefined && identities.has(namespaces[at]);
  return pids.filter(inside).map(Number);
}

/** What two paths of one namespace have in common; undefined where the path leads nowhere any more. */
export async function identity(path: string): Promise<string | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found && `${found.dev}:${found.ino}`;
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Whether it is called as what a group makes, and the group's process is no more. */
export function isLeftover(name: string): boolean {
  const pid = new RegExp(`^${PREFIX}-(\\d+)-`).exec(name)?.[1];
  return pid !== undefined && !isAlive(Number(pid));
}

/** Of all groups whose process is no more. */
export async function removeLeftovers(): Promise<void> {
  // Another test process may be at it at the same time; what remains is for the next.
  await removeNamespaces((await listNamespaces()).filter(isLeftover)).catch(() => undefined);
  for (const name of (await readdir('/sys/class/net')).filter(isLeftover))
    await ip(`link delete ${name}`).catch(() => undefined);
  for (const name of (await readdir(tmpdir())).filter(isLeftover))
    await rm(join(tmpdir(), name), { recursive: true, force: true });
}

/** One that has ended and that nobody has waited for yet is not. */
function isAlive(pid: number): boolean {
  try {
    // Its name, in parentheses, may hold any character.
    return !/^.*\) [ZX] /s.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch (error) {
    if (!['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    return false;
  }
}
