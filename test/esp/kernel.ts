/**
 * Debian's kernel, which has ESP, and the programs that start it: extracted, not installed, in the cache folder. Whatever
 * version apt knows is taken, and apt checks what it downloads; what is in the cache stays until it is deleted.
 *
 * Not the cloud variant of the kernel, which is a third of the size: it can't mount 9p.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rename, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { cacheFolder, ToolMissing } from '../../scripts/tools.ts';

export interface Kernel {
  /** As uname -r says it: 6.1.0-56-amd64. */
  readonly release: string;
  readonly image: string;
  /** Absolute, with lib/modules/<release> in it. */
  readonly folder: string;
  /** Linked statically. */
  readonly busybox: string;
}

const META_PACKAGE = 'linux-image-amd64';
const DOWNLOAD_LIMIT_MS = 10 * 60_000;
/** Of the package's 400 MB these 150, with all that networks, IPsec and nftables take. Folders differ in Debian 13. */
const WANTED = [
  '*/boot/vmlinuz-*',
  '*/modules.order',
  '*/modules.builtin*',
  ...['arch', 'crypto', 'fs', 'lib', 'net', 'drivers/virtio'].map((folder) => `*/kernel/${folder}/*`),
  ...['net/dummy', 'net/veth', 'net/tun', 'char/virtio_console'].map((module) => `*/kernel/drivers/${module}.ko*`),
];

/** Throws ToolMissing where there is none in the cache and it can't be downloaded. */
export async function findKernel(log: (line: string) => void): Promise<Kernel> {
  const folder = join(cacheFolder(process.env), 'esp', 'guest');
  const cached = await readKernel(folder);
  if (cached !== undefined) return cached;
  const started = performance.now();
  log(`esp: downloading a kernel with ESP (${META_PACKAGE} 70 MB, busybox-static 1 MB) into ${folder}, once`);
  await fill(folder);
  const kernel = await readKernel(folder);
  if (kernel === undefined) throw new ToolMissing(`the packages have no kernel where it was looked for: ${folder}`);
  log(`esp: kernel ${kernel.release} is there after ${Math.round((performance.now() - started) / 1000)} s`);
  return kernel;
}

async function readKernel(folder: string): Promise<Kernel | undefined> {
  const images = await readdir(join(folder, 'boot')).catch(() => []);
  const [image] = images.filter((name) => name.startsWith('vmlinuz-'));
  if (image === undefined) return undefined;
  const release = image.slice('vmlinuz-'.length);
  return { release, image: join(folder, 'boot', image), folder, busybox: join(folder, 'bin', 'busybox') };
}

/** In one step: what is cut short leaves nothing there, and of two at the same time the first one stays. */
async function fill(folder: string): Promise<void> {
  const unfinished = `${folder}.${randomUUID()}`;
  const downloads = await mkdtemp(join(tmpdir(), `cvpn-${process.pid}-kernel-`));
  try {
    await mkdir(unfinished, { recursive: true });
    await downloadPackages(downloads);
    await unpack(downloads, unfinished);
    await rename(unfinished, folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOTEMPTY') throw error;
    });
  } catch (error) {
    if (error instanceof ToolMissing) throw error;
    throw new ToolMissing(`a kernel with ESP can't be put into ${dirname(folder)}: ${(error as Error).message}`);
  } finally {
    await rm(unfinished, { recursive: true, force: true });
    await rm(downloads, { recursive: true, force: true });
  }
}

async function downloadPackages(folder: string): Promise<void> {
  const attempt = async (): Promise<void> => {
    const { stdout } = await execa('apt-cache', ['depends', META_PACKAGE], { env: { LC_ALL: 'C' } });
    const image = /^\s*Depends: (linux-image-\S+)$/m.exec(stdout)?.[1];
    if (image === undefined) throw new Error(`apt-cache knows no ${META_PACKAGE}`);
    await execa('apt-get', ['download', '-qq', image, 'busybox-static'], { cwd: folder, timeout: DOWNLOAD_LIMIT_MS });
  };
  try {
    await attempt();
  } catch {
    // No list of packages, or one so old that it names files that are gone.
    await execa('apt-get', ['update', '-qq'], { timeout: DOWNLOAD_LIMIT_MS });
    await attempt();
  }
}

async function unpack(downloads: string, folder: string): Promise<void> {
  const files = (await readdir(downloads)).map((name) => join(downloads, name));
  const extract = async (prefix: string, patterns: readonly string[]): Promise<void> => {
    const file = files.find((path) => path.startsWith(join(downloads, prefix)));
    if (file === undefined) throw new Error(`apt-get downloaded no ${prefix}`);
    const untar = ['-x', '-C', folder, '--no-same-owner', '--wildcards', ...patterns];
    await execa('dpkg-deb', ['--fsys-tarfile', file], { buffer: { stdout: false } }).pipe('tar', untar);
  };
  await extract('linux-image-', WANTED);
  await extract('busybox-static', ['*/bin/busybox']);
  // Debian 13 has both below usr/.
  const top = await readdir(folder);
  for (const name of ['lib', 'bin']) if (!top.includes(name)) await symlink(`usr/${name}`, join(folder, name));
  const [release = ''] = await readdir(join(folder, 'lib', 'modules'));
  await execa('/usr/sbin/depmod', ['-b', folder, release]);
}
