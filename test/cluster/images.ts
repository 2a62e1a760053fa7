/** The product's images and those that the cluster tests add, built from their Containerfiles, as files that a node imports. */
import { createHash } from 'node:crypto';
import { access, mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { buildContainerfile, buildImage } from '../../scripts/build-images.ts';
import { type ContainerEnv, setUpContainers } from '../../scripts/container-setup.ts';
import { cacheFolder } from '../../scripts/tools.ts';
import { hasESP } from '../esp/has-esp.ts';

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
  /** A docker archive of them all. */
  readonly file: string;
}

type Log = (line: string) => void;

export async function buildImages(log: Log): Promise<ClusterImages> {
  const env = await setUpContainers();
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
  const file = await save([agents, next.agents, strongswan, next.strongswan, workload], env);
  return { agents, strongswan, workload, next, file };
}

const nextOf = (image: string): string => image.replace(/:test$/, ':next');

/** In the cache folder, one for the same images: podman takes seconds for it. */
async function save(images: readonly string[], env: ContainerEnv): Promise<string> {
  const inspect = ['image', 'inspect', '--format={{.Id}}', ...images];
  const { stdout: ids } = await execa('podman', inspect, { env });
  const folder = join(cacheFolder(process.env), 'images');
  const path = join(folder, `${createHash('sha256').update(ids).digest('hex').slice(0, 12)}.tar`);
  if (await isThere(path)) return path;
  await mkdir(folder, { recursive: true });
  const partial = `${path}.${process.pid}`;
  await execa('podman', ['save', '--quiet', '--multi-image-archive', `--output=${partial}`, ...images], { env });
  await rename(partial, path);
  return path;
}

const isThere = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
