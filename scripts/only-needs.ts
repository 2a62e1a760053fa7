/**
 * node scripts/only-needs.ts COMMAND…: runs it as on a fresh Debian machine. /usr then holds only the essential packages, the
 * packages of needs.tsv, what all these depend on, and Node, npm and Go, each from wherever it is. So a program, a plugin or a
 * header that needs.tsv lacks is not found, whoever looks for it and by whatever path. Other processes see all of /usr: what
 * hides the rest is an overlay in a mount namespace of the command's own. For root on Debian.
 */
import { link, mkdir, mkdtemp, readdir, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { NEEDS } from './needs.ts';

const HIDES_IN = ['bin', 'sbin', 'lib', 'libexec', 'include', 'share', 'local'].map((name) => join('/usr', name));
const OWN_PROGRAMS = join(import.meta.dirname, '../node_modules/.bin');
const SYSTEM_PATH = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
/** The kernel's, which no package of the list brings. Cilium's pods mount it: where it is not, it could not be made. */
const MODULES = '/usr/lib/modules';
/** The overlay is the command's own. Other mounts stay shared: what it leaves in /run/netns is seen by whoever cleans up. */
const MOUNT = `mount --make-private "$(stat --format=%m /usr)"
mount -t overlay -o "lowerdir=$0/usr:/usr" overlay /usr
exec "$@"`;

interface Visible {
  /** Files and folders of packages. */
  readonly owned: ReadonlySet<string>;
  /** Files, and folders with all that is in them, whether a package owns them or not. */
  readonly given: readonly string[];
}

/** Node, npm and Go, which the machine brings. `folders`: where PATH finds them. */
async function findGiven(): Promise<{ folders: string[]; given: string[] }> {
  const env = { PATH: (process.env.PATH ?? '').replaceAll(OWN_PROGRAMS, '') };
  const { stdout } = await execa('sh', ['-c', 'for each in node npm go; do command -v $each; done'], {
    env,
    reject: false,
  });
  const programs = stdout.split('\n');
  const files = await Promise.all(programs.map((program) => realpath(program)));
  // …/lib/node_modules/npm/bin/npm-cli.js and …/go/bin/go need what is in their folders; node is all in one file.
  const given = files.map((file) => (file.endsWith('/node') ? file : dirname(dirname(file))));
  return { folders: programs.map(dirname), given };
}

async function visiblePackages(): Promise<string[]> {
  const format = '${db:Status-Status} ${Essential} ${Priority} ${Package}\n';
  const { stdout } = await execa('dpkg-query', ['--show', '--showformat', format]);
  const installed = stdout.split('\n').filter((line) => line.startsWith('installed '));
  const essential = installed.filter((line) => / yes | required /.test(line));
  const names = new Set(installed.map(nameOf));
  const wanted = [...essential.map(nameOf), 'apt', 'ca-certificates', ...NEEDS.map((need) => need.package)];
  const depends = ['depends', '--recurse', '--installed', '--important', ...wanted.filter((name) => names.has(name))];
  // A line for each package that is reached, and below it, indented, what it depends on.
  const closure = await execa('apt-cache', depends, { env: { LC_ALL: 'C' } });
  return [...new Set(closure.stdout.split('\n'))].filter((line) => names.has(line));
}

const nameOf = (line: string): string => line.split(' ').at(-1)!;

async function filesOf(packages: readonly string[]): Promise<Set<string>> {
  const { stdout } = await execa('dpkg-query', ['--listfiles', ...packages]);
  // Some have files in /bin and /lib, which are links to folders of /usr.
  return new Set(stdout.split('\n').map((path) => path.replace(/^\/(?=(bin|sbin|lib\w*)\/)/, '/usr/')));
}

/**
 * Fills `upper` with what hides the rest of `folder`: to overlayfs a character device 0/0 says that a file is deleted. Resolves
 * with the number of files and whole folders.
 */
async function hide(folder: string, upper: string, deleted: string, visible: Visible): Promise<number> {
  let count = 0;
  await mkdir(upper, { recursive: true });
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    const above = join(upper, entry.name);
    if (entry.isDirectory() && mustLookInto(path, visible)) {
      count += await hide(path, above, deleted, visible);
    } else if (!(await isVisible(path, visible))) {
      await link(deleted, above);
      count += 1;
    }
  }
  return count;
}

const mustLookInto = (folder: string, { owned, given }: Visible): boolean =>
  !given.includes(folder) && (owned.has(folder) || given.some((path) => path.startsWith(`${folder}/`)));

/** A link that no package owns is visible if its target is: Debian's alternatives, npm's programs. */
async function isVisible(path: string, { owned, given }: Visible): Promise<boolean> {
  if (owned.has(path)) return true;
  const target = await realpath(path).catch(() => path);
  return owned.has(target) || given.some((each) => `${target}/`.startsWith(`${each}/`));
}

async function run(command: readonly string[]): Promise<number> {
  const { folders, given } = await findGiven();
  const packages = await visiblePackages();
  const visible: Visible = { owned: await filesOf(packages), given: [...given, MODULES] };
  const scratch = await mkdtemp(join(tmpdir(), 'constellation-vpn-only-needs-'));
  try {
    const deleted = join(scratch, 'deleted');
    await execa('mknod', [deleted, 'c', '0', '0']);
    let count = 0;
    for (const folder of HIDES_IN) count += await hide(folder, join(scratch, folder), deleted, visible);
    await mkdir(join(scratch, MODULES), { recursive: true });
    console.error(
      `only-needs: /usr holds ${packages.length} packages; ${count} files and folders of others are hidden`,
    );
    const unshare = ['--mount', '--propagation=unchanged', 'sh', '-euc', MOUNT, scratch, ...command];
    const { exitCode = 1 } = await execa('unshare', unshare, {
      env: { PATH: [...new Set([OWN_PROGRAMS, ...folders, ...SYSTEM_PATH])].join(':') },
      stdio: 'inherit',
      reject: false,
    });
    return exitCode;
  } finally {
    await rm(scratch, { recursive: true });
  }
}

const command = process.argv.slice(2);
if (command.length === 0) {
  console.error('usage: node scripts/only-needs.ts COMMAND…');
  process.exitCode = 2;
} else {
  process.exitCode = await run(command);
}
