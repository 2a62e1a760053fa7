import { access, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { buildContainerfile, buildImage } from '../../scripts/build-images.ts';
import { setUpContainers } from '../../scripts/container-setup.ts';
import { cacheFolder } from '../../scripts/tools.ts';

/** What charon opens in /dev: name, major and minor number. */
const DEVICES = [
  ['null', 1, 3],
  ['random', 1, 8],
  ['urandom', 1, 9],
  ['net/tun', 10, 200],
] as const;

/**
 * The root folder of strongSwan's image for `chroot` (root is needed), with kernel-libipsec beside the plugins that the image
 * has. It is shared and stays in the cache folder, one for each image: what a test writes there (a configuration, a socket)
 * goes into a folder of its own below `var/run`, named to charon by $STRONGSWAN_CONF.
 */
export async function strongswan6Root(log: (line: string) => void = () => undefined): Promise<string> {
  const env = await setUpContainers();
  await buildImage('strongswan', env, log);
  const file = 'test/images/Containerfile.kernel-libipsec';
  const tag = await buildContainerfile(file, 'localhost/constellation-vpn/strongswan-libipsec:test', env, log);
  const { stdout: id } = await execa('podman', ['image', 'inspect', '--format={{.Id}}', tag], { env });
  const folder = join(cacheFolder(process.env), `strongswan6-${id.slice(0, 12)}`);
  if (await isThere(folder)) return folder;

  const partial = await mkdtemp(`${folder}.`);
  const { stdout: container } = await execa('podman', ['create', tag], { env });
  try {
    const tarball = join(partial, 'root.tar'); // podman opens /dev/stdout, which fails where that is a socket
    await execa('podman', ['export', `--output=${tarball}`, container], { env });
    await mkdir(join(partial, 'root'));
    await execa('tar', ['--extract', `--file=${tarball}`, `--directory=${join(partial, 'root')}`]);
    for (const [name, major, minor] of DEVICES) {
      const path = join(partial, 'root/dev', name);
      await mkdir(dirname(path), { recursive: true });
      await rm(path, { force: true });
      await execa('mknod', ['--mode=666', path, 'c', `${major}`, `${minor}`]);
    }
    // Where another one was faster, its folder is as good.
    await rename(join(partial, 'root'), folder).catch(async (error: unknown) => {
      if (!(await isThere(folder))) throw error;
    });
  } finally {
    await execa('podman', ['rm', container], { env });
    await rm(partial, { recursive: true, force: true });
  }
  return folder;
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
