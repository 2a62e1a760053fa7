import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { execa } from 'execa';
import { cacheFolder } from './tools.ts';

/** Variables for podman, buildah, kpt and kustomize. */
export type ContainerEnv = Readonly<Record<string, string>>;

/**
 * Podman and buildah with a configuration and a storage of their own, below the cache folder: the user's images and
 * configuration are neither read nor changed. Also for machines where podman's defaults fail, as without CAP_SYS_RESOURCE.
 */
export async function setUpContainers(): Promise<ContainerEnv> {
  const podman = await findPrograms();
  const home = join(cacheFolder(process.env), 'containers');
  const run = join(runFolder(), `constellation-vpn-${createHash('sha256').update(home).digest('hex').slice(0, 8)}`);
  const bin = join(home, 'bin');
  await mkdir(bin, { recursive: true });
  const env = {
    CONTAINERS_CONF: join(home, 'containers.conf'),
    CONTAINERS_STORAGE_CONF: join(home, 'storage.conf'),
    // kpt asks for podman by these: up to 1.0.0-beta.56 by the first, in beta.60 by the second. kustomize runs what is called docker.
    KPT_FN_RUNTIME: 'podman',
    KRM_FN_RUNTIME: 'podman',
    PATH: [bin, process.env.PATH].join(delimiter),
  };
  const limits = await hardLimits();
  await replace(env.CONTAINERS_CONF, (path) => writeFile(path, containersConf(run, limits)));
  await replace(env.CONTAINERS_STORAGE_CONF, (path) => writeFile(path, storageConf(home, run)));
  await replace(join(bin, 'docker'), (path) => symlink(podman, path));
  return env;
}

/** In one step: others may set the same up, or use it, at the same time. */
async function replace(path: string, make: (unfinished: string) => Promise<void>): Promise<void> {
  const unfinished = `${path}.${randomUUID()}`;
  await make(unfinished);
  await rename(unfinished, path);
}

/** Podman's path. */
async function findPrograms(): Promise<string> {
  const programs = ['podman', 'buildah', 'runc'];
  const found = await Promise.all(programs.map((name) => execa('sh', ['-c', `command -v ${name}`], { reject: false })));
  const missing = programs.filter((_, i) => found[i]?.exitCode !== 0);
  if (missing.length > 0) {
    throw new Error(
      `Containers need ${missing.join(', ')}. Install with: apt-get install ${missing.join(' ')} (or scripts/install-ci.sh)`,
    );
  }
  return found[0]!.stdout;
}

/** Podman wants this to be empty after a reboot. */
function runFolder(): string {
  return process.env.XDG_RUNTIME_DIR ?? (process.getuid?.() === 0 ? '/run' : tmpdir());
}

interface Limits {
  readonly nofile: number;
  readonly nproc: number;
}

/** Our own hard limits: podman's defaults are higher, and to raise a limit takes CAP_SYS_RESOURCE. */
async function hardLimits(): Promise<Limits> {
  const text = await readFile('/proc/self/limits', 'utf8');
  const hard = (name: string): number => {
    const value = new RegExp(`^${name} +\\S+ +(\\d+)`, 'm').exec(text)?.[1];
    return Math.min(Number(value ?? Infinity), 32768); // no number: unlimited
  };
  return { nofile: hard('Max open files'), nproc: hard('Max processes') };
}

/** containers.conf(5). What is not named here, podman finds out by itself. */
function containersConf(run: string, { nofile, nproc }: Limits): string {
  return `[containers]
default_ulimits = ["nofile=${nofile}:${nofile}", "nproc=${nproc}:${nproc}"]
[engine]
runtime = "runc"
events_logger = "file"
lock_type = "file"
tmp_dir = ${JSON.stringify(join(run, 'libpod'))}
`;
}

/** containers-storage.conf(5). $STORAGE_DRIVER=vfs is stronger, for where overlay does not work. */
function storageConf(home: string, run: string): string {
  return `[storage]
driver = "overlay"
graphroot = ${JSON.stringify(join(home, 'storage'))}
runroot = ${JSON.stringify(join(run, 'storage'))}
`;
}
