/**
 * What the guest starts from: a statically linked busybox, the modules that its root file system takes, and /init. That one
 * mounts the machine's own files by 9p, read-only, below an overlay in memory, so that the guest has the same programs and
 * the same checkout at the same paths, and runs the command there.
 */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { execa } from 'execa';
import type { Kernel } from './kernel.ts';

export interface Job {
  /** Without a shell. */
  readonly command: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
}

/** Between the command's output and its exit code on the guest's first serial port; no text has it. */
export const END = '\0';
/** By which the guest finds the machine's files. */
export const MOUNT_TAG = 'machine';

export async function initramfs(kernel: Kernel, job: Job): Promise<Buffer> {
  const modules = await rootModules(kernel);
  return archive([
    { name: 'bin', mode: DIRECTORY },
    { name: 'modules', mode: DIRECTORY },
    { name: 'bin/busybox', mode: EXECUTABLE, data: await readFile(kernel.busybox) },
    ...(await Promise.all(
      modules.map(async (path) => ({ name: `modules/${basename(path)}`, mode: FILE, data: await readFile(path) })),
    )),
    { name: 'init', mode: EXECUTABLE, data: Buffer.from(init(kernel, modules)) },
    { name: 'job', mode: EXECUTABLE, data: Buffer.from(jobScript(job)) },
  ]);
}

/** Paths, in the order in which they can be loaded. */
async function rootModules({ folder, release }: Kernel): Promise<string[]> {
  const modules = ['virtio_pci', 'virtio_console', '9pnet_virtio', '9p', 'overlay'];
  const options = ['--show-depends', '--dirname', folder, '--set-version', release, '--all'];
  const { stdout } = await execa('/usr/sbin/modprobe', [...options, ...modules]);
  // Whatever is not a module of its own (`builtin …`) is in the kernel.
  const paths = stdout.split('\n').flatMap((line) => /^insmod (\S+)/.exec(line)?.[1] ?? []);
  return [...new Set(paths)];
}

function init({ folder, release }: Kernel, modules: readonly string[]): string {
  return `#!/bin/busybox sh
set -eu
/bin/busybox --install -s /bin
export PATH=/bin
# Without it the end of init would be a panic, and its dump all that is seen.
trap 'echo "init: the last command failed"; poweroff -f' EXIT
mkdir -p /proc /sys /dev /machine /memory /root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in ${modules.map((path) => basename(path)).join(' ')}; do insmod /modules/$module; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576,cache=loose,ro ${MOUNT_TAG} /machine
mount -t tmpfs memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/machine,upperdir=/memory/upper,workdir=/memory/work overlay /root
mkdir -p /root/lib/modules/${release}
mount --bind ${quote(`/root${folder}/lib/modules/${release}`)} /root/lib/modules/${release}
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount -t devtmpfs dev /root/dev
mount -t tmpfs run /root/run
mkdir -p /root/run/tmp
cp /job /root/run/job
# They come some time after their module; a shell that opens one too early makes a file of that name.
until [ -c /dev/vport0p1 ] && [ -c /dev/vport0p2 ]; do sleep 0.1; done
exec switch_root /root /bin/sh /run/job
`;
}

/** The machine's /bin/sh. Its exit code goes out last, after all of the output on the same port. */
function jobScript({ command, cwd, env }: Job): string {
  // The machine's /tmp is seen here too, with whatever tests of other processes have left in it. The cache halves the start
  // of each process of Node after the first.
  const variables = { ...env, TMPDIR: '/run/tmp', NODE_COMPILE_CACHE: '/run/node' };
  return `${Object.entries(variables)
    .map(([name, value]) => `export ${name}=${quote(value)}`)
    .join('\n')}
exec 3>/dev/vport0p1 4>/dev/vport0p2
cd ${quote(cwd)}
${command.map(quote).join(' ')} </dev/null >&3 2>&4
printf '\\0%d\\n' $? >&3
# Until the machine has read that, and ends the guest.
sleep 30
echo o >/proc/sysrq-trigger
sleep 30
`;
}

const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

interface Entry {
  readonly name: string;
  readonly mode: number;
  readonly data?: Buffer;
}

const DIRECTORY = 0o040755;
const EXECUTABLE = 0o100755;
const FILE = 0o100644;

/** As `cpio -H newc` writes it: https://docs.kernel.org/driver-api/early-userspace/buffer-format.html */
function archive(entries: readonly Entry[]): Buffer {
  const parts = [...entries, { name: 'TRAILER!!!', mode: 0 }].flatMap(({ name, mode, data = Buffer.alloc(0) }, i) => {
    const path = Buffer.from(`${name}\0`);
    // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    const numbers = [i + 1, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, path.length, 0];
    const header = `070701${numbers.map((number) => number.toString(16).padStart(8, '0')).join('')}`;
    return [padded(Buffer.concat([Buffer.from(header), path])), padded(data)];
  });
  return Buffer.concat(parts);
}

const padded = (data: Buffer): Buffer => Buffer.concat([data, Buffer.alloc(-data.length & 3)]);
