import { access, mkdir, rename } from 'node:fs/promises';
import { arch } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import type { ContainerEnv } from './container-setup.ts';
import { cacheFolder } from './tools.ts';

type Log = (line: string) => void;

/**
 * Puts `docker.io/library/debian:<suite>-slim` into the storage that `env` names: what is there stays, else it is pulled,
 * and where no registry can be reached, made from the machine's own Debian mirror.
 */
export async function ensureBaseImage(image: string, env: ContainerEnv, log: Log): Promise<void> {
  const podman = execa({ env, timeout: 120_000 });
  const exists = await podman({ reject: false })('podman', ['image', 'exists', image]);
  if (exists.exitCode === 0) return log(`${image} is here`);

  const pull = await podman({ reject: false })('podman', ['pull', '--quiet', image]);
  if (pull.exitCode === 0) return log(`${image} pulled`);
  log(`${image} cannot be pulled: ${pull.stderr.split('\n').at(-1)}`);

  const suite = /^docker\.io\/library\/debian:([a-z]+)-slim$/.exec(image)?.[1];
  if (suite === undefined) throw new Error(`${image} is not there, and only Debian's slim images can be made here`);
  const tarball = join(cacheFolder(process.env), `debian-${suite}-slim-${arch()}.tar`);
  if (await isFile(tarball)) {
    log(`${image} imported from ${tarball}`);
  } else {
    await bootstrap(suite, tarball);
    log(`${image} made by mmdebstrap, and kept as ${tarball}`);
  }
  await podman('podman', ['import', '--quiet', tarball, image]);
}

async function isFile(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** As the official slim image: the essential packages, and of their documentation the licences only. */
async function bootstrap(suite: string, tarball: string): Promise<void> {
  if ((await execa('mmdebstrap', ['--version'], { reject: false })).exitCode !== 0) {
    throw new Error(
      'The base image needs mmdebstrap. Install with: apt-get install mmdebstrap (or scripts/install-ci.sh)',
    );
  }
  await mkdir(cacheFolder(process.env), { recursive: true });
  const partial = `${tarball}.partial`;
  await execa(
    'mmdebstrap',
    [
      '--variant=minbase',
      '--format=tar',
      ...['doc', 'info', 'locale', 'man'].map((it) => `--dpkgopt=path-exclude=/usr/share/${it}/*`),
      '--dpkgopt=path-include=/usr/share/doc/*/copyright',
      suite,
      partial,
      ...(await sources(suite)),
    ],
    { timeout: 900_000 },
  );
  await rename(partial, tarball);
}

/** The machine's Debian mirrors, for another suite. Empty (mmdebstrap's default is used) where it has none, as on Ubuntu. */
async function sources(suite: string): Promise<string[]> {
  const { stdout } = await execa('apt-get', [
    'indextargets',
    '--format',
    '$(REPO_URI) $(CODENAME)',
    'Created-By: Packages',
    'Origin: Debian',
    'Component: main',
  ]);
  const lines = stdout.split('\n').flatMap((line) => {
    const [, uri, pocket] = /^(\S+) [a-z]+(|-updates|-security)$/.exec(line) ?? [];
    return uri === undefined ? [] : [`deb ${uri} ${suite}${pocket} main`];
  });
  return [...new Set(lines)];
}
