/** The product's images and those that the cluster tests add, built from their Containerfiles, as files that a node imports. */
import { once } from 'node:events';
import { createHash } from 'node:crypto';
import { mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { buildContainerfile, buildImage } from '../../scripts/build-images.ts';
import { type ContainerEnv, setUpContainers } from '../../scripts/container-setup.ts';
import { cacheFolder } from '../../scripts/tools.ts';
import { hasESP } from '../esp/has-esp.ts';
import { buildCilium, type Cilium } from './cilium.ts';

/** Names as manifests write them. */
export interface VpnImages {
  readonly agents: string;
  readonly strongswan: string;
}

export interface Images extends VpnImages {
  readonly workload: string;
}

/** On a kernel without ESP strongSwan's is the one that does it in user space. */
export interface ClusterImages extends Images {
  /** The same images under other tags, as a new version has one. */
  readonly next: VpnImages;
  /** Docker archives of them all, and of Cilium's where there is one. */
  readonly files: readonly string[];
}

type Log = (line: string) => void;

/** One at a time on this machine: they write the same bundles, configuration and tags. */
export async function buildImages(cilium: Cilium | undefined, log: Log): Promise<ClusterImages> {
  const folder = cacheFolder(process.env);
  await mkdir(folder, { recursive: true });
  // flock(1) holds the lock until its input ends, which it also does when this process is killed.
  const lock = execa('flock', [join(folder, 'images.lock'), 'sh', '-c', 'echo; exec cat'], {
    stdin: 'pipe',
    buffer: false,
    reject: false,
  });
  await once(lock.stdout, 'data');
  try {
    return await build(cilium, log);
  } finally {
    lock.stdin.end();
    await lock;
  }
}

async function build(cilium: Cilium | undefined, logEach: Log): Promise<ClusterImages> {
  const env = await setUpContainers();
  const log = eachOnce(logEach);
  log('images: agents, strongSwan and the tests’ own');
  const agents = await buildImage('agents', env, log);
  let strongswan = await buildImage('strongswan', env, log);
  if (!(await hasESP())) {
    const user = (file: string, name: string) =>
      buildContainerfile(file, `localhost/constellation-vpn/${name}:test`, env, log);
    await user('test/images/Containerfile.kernel-libipsec', 'strongswan-libipsec');
    strongswan = await user('test/cluster/Containerfile.strongswan-libipsec', 'strongswan-cluster');
  }
  const workload = await buildContainerfile(
    'test/cluster/Containerfile.workload',
    'localhost/constellation-vpn/workload:test',
    env,
    log,
  );
  const next = { agents: nextOf(agents), strongswan: nextOf(strongswan) };
  await execa('podman', ['tag', agents, next.agents], { env });
  await execa('podman', ['tag', strongswan, next.strongswan], { env });
  const files = [await save([agents, next.agents, strongswan, next.strongswan, workload], env)];
  if (cilium !== undefined) files.push(await save([await buildCilium(cilium, env, log)], env));
  return { agents, strongswan, workload, next, files };
}

/** Passes a line on the first time: every image says that its base is here. */
function eachOnce(log: Log): Log {
  const seen = new Set<string>();
  return (line) => {
    if (!seen.has(line)) log(line);
    seen.add(line);
  };
}

const nextOf = (image: string): string => image.replace(/:test$/, ':next');

const ARCHIVES = 6;

/** In the cache folder, one for the same images: podman takes seconds for it. Those used last stay there. */
async function save(images: readonly string[], env: ContainerEnv): Promise<string> {
  const inspect = ['image', 'inspect', '--format={{.Id}}', ...images];
  const { stdout: ids } = await execa('podman', inspect, { env });
  const folder = join(cacheFolder(process.env), 'images');
  const path = join(folder, `${createHash('sha256').update(ids).digest('hex').slice(0, 12)}.tar`);
  const now = new Date();
  if (
    await utimes(path, now, now).then(
      () => true,
      () => false,
    )
  )
    return path;
  await mkdir(folder, { recursive: true });
  const partial = `${path}.${process.pid}`;
  await execa('podman', ['save', '--quiet', '--multi-image-archive', `--output=${partial}`, ...images], { env });
  await rename(partial, path);
  await keepNewest(ARCHIVES, folder);
  return path;
}

/** Removes what is older than the `count` newest files or folders of a folder, of those whose name has the prefix. */
export async function keepNewest(count: number, folder: string, prefix = ''): Promise<void> {
  const paths = (await readdir(folder)).filter((name) => name.startsWith(prefix)).map((name) => join(folder, name));
  // Another process may remove one at the same time.
  const ages = await Promise.all(
    paths.map((path) =>
      stat(path).then(
        ({ mtimeMs }) => -mtimeMs,
        () => 0,
      ),
    ),
  );
  const byAge = paths.map((path, index) => [ages[index]!, path] as const).toSorted(([a], [b]) => a - b);
  for (const [, path] of byAge.slice(count)) await rm(path, { recursive: true, force: true });
}
