/** A folder as kubelet mounts a ConfigMap or a Secret: files are links through `..data`, which a change swaps. */
import { randomUUID } from 'node:crypto';
import { chmod, mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type Files = Readonly<Record<string, string | Uint8Array>>;

export class Volume {
  readonly folder: string;
  #generation: string | undefined;
  #names: readonly string[] = [];

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** Readable for everybody, as a test's processes have users of their own. */
  static async create(files: Files): Promise<Volume> {
    const volume = new Volume(await mkdtemp(join(tmpdir(), 'constellation-vpn-volume-')));
    await chmod(volume.folder, 0o755);
    await volume.set(files);
    return volume;
  }

  /** These and no others, all at once. */
  async set(files: Files): Promise<void> {
    const generation = `..${randomUUID()}`;
    const names = Object.keys(files);
    await mkdir(join(this.folder, generation));
    for (const name of names) await writeFile(join(this.folder, generation, name), files[name] ?? '');
    await symlink(generation, join(this.folder, '..data_tmp'));
    await rename(join(this.folder, '..data_tmp'), join(this.folder, '..data'));
    for (const name of this.#names.filter((old) => !names.includes(old))) await rm(join(this.folder, name));
    for (const name of names.filter((added) => !this.#names.includes(added)))
      await symlink(`..data/${name}`, join(this.folder, name));
    if (this.#generation !== undefined) await rm(join(this.folder, this.#generation), { recursive: true });
    this.#generation = generation;
    this.#names = names;
  }

  remove(): Promise<void> {
    return rm(this.folder, { recursive: true, force: true });
  }
}
