/**
 * Builds the images of the agents and of strongSwan as a registry would get them, with podman's storage in the cache folder
 * (setUpContainers). Where a registry can be reached, `podman build` alone does it, too: see agents/Containerfile.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { ensureBaseImage } from './base-image.ts';
import { buildAgents } from './build-agents.ts';
import { setUpContainers, type ContainerEnv } from './container-setup.ts';

const ROOT = join(import.meta.dirname, '..');
const CONTAINERFILES = { agents: 'agents/Containerfile', strongswan: 'agents/strongswan/Containerfile' } as const;

export type ImageName = keyof typeof CONTAINERFILES;

/** Answers its name, `localhost/constellation-vpn/<name>:test`. Layers that are there are not built again. */
export async function buildImage(name: ImageName, env: ContainerEnv, log: (line: string) => void): Promise<string> {
  if (name === 'agents') await buildAgents(join(ROOT, 'agents/dist'));
  return buildContainerfile(CONTAINERFILES[name], `localhost/constellation-vpn/${name}:test`, env, log);
}

/** `containerfile` and what it copies are relative to the repository's root. `more`: further arguments for buildah. */
export async function buildContainerfile(
  containerfile: string,
  tag: string,
  env: ContainerEnv,
  log: (line: string) => void,
  more: readonly string[] = [],
): Promise<string> {
  const file = join(ROOT, containerfile);
  const base = /^FROM (\S+) AS debian$/m.exec(await readFile(file, 'utf8'))?.[1];
  await ensureBaseImage(base!, env, log);
  // chroot: no container is needed to build, and none could be made inside one.
  const args = ['--isolation=chroot', '--layers', '--quiet', `--file=${file}`, `--tag=${tag}`, ...more, ROOT];
  await execa('buildah', ['build', ...args], { env, timeout: 15 * 60_000 });
  return tag;
}

if (import.meta.main) {
  parseArgs({ options: {} });
  const env = await setUpContainers();
  for (const name of Object.keys(CONTAINERFILES) as ImageName[]) {
    console.log(await buildImage(name, env, console.error));
  }
  console.error(`in podman's storage with CONTAINERS_STORAGE_CONF=${env.CONTAINERS_STORAGE_CONF}`);
}
