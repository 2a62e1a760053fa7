/**
 * Secrets as the agents read them: a mounted folder, each file a key of some Secret. Kubernetes changes all of them at
 * once by swapping the symbolic link `..data` in the folder (pkg/volume/util/atomic_writer.go), so a certificate and its
 * key are read as they belong together. What they hold is in no message.
 */
import { open, readlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { followFolder } from './follow-folder.ts';

/** What a Secret can hold at most, in bytes (MaxSecretSize in Kubernetes' API). */
const SIZE_LIMIT = 1024 * 1024;
/** The link changes once a minute or so. */
const ATTEMPTS = 10;

/** The bytes, or a sentence with the file's path and the cure. */
export type SecretFile = Buffer | { readonly problem: string };

interface Options {
  readonly folder: string;
  /** The files that are wanted now. */
  readonly names: () => readonly string[];
  /** Where a file comes from: `the key psk of the Secret berlin-psk`. */
  readonly source: (name: string) => string;
  /** Another byte, another problem, or other files are wanted. */
  readonly onChange: (files: ReadonlyMap<string, SecretFile>) => void;
}

/** Follows the folder. */
export class SecretFolder {
  readonly #options: Options;
  #files: ReadonlyMap<string, SecretFile> = new Map();
  #reading: Promise<void> = Promise.resolve();

  constructor(options: Options) {
    this.#options = options;
  }

  /** By name, as of the last reading; all of one state of the folder. */
  get files(): ReadonlyMap<string, SecretFile> {
    return this.#files;
  }

  /** Reads, then follows changes until `signal` is aborted. */
  follow(signal: AbortSignal): Promise<void> {
    return followFolder(this.#options.folder, () => this.read(), signal);
  }

  /** Reads now, after a reading that is under way: for when other files are wanted. */
  read(): Promise<void> {
    this.#reading = this.#reading.then(() => this.#readOnce());
    return this.#reading;
  }

  async #readOnce(): Promise<void> {
    const files = await this.#readAll();
    if (files === undefined || sameFiles(files, this.#files)) return;
    this.#files = files;
    this.#options.onChange(files);
  }

  /** Undefined where the folder changed during every attempt; its last change leads to another reading. */
  async #readAll(): Promise<ReadonlyMap<string, SecretFile> | undefined> {
    const { folder, names, source } = this.#options;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const before = await stateOf(folder);
      const files = new Map<string, SecretFile>();
      for (const name of names()) files.set(name, await readSecret(join(folder, name), source(name)));
      if ((await stateOf(folder)) === before) return files;
    }
    return undefined;
  }
}

/** Of a mounted volume the name of its present state, which never comes again; undefined for any other folder. */
function stateOf(folder: string): Promise<string | undefined> {
  return readlink(join(folder, '..data')).catch(() => undefined);
}

async function readSecret(path: string, source: string): Promise<SecretFile> {
  let file: FileHandle | undefined;
  try {
    file = await open(path);
    return await readLimited(file, path, source);
  } catch (error) {
    return { problem: `${path} ${reasonOf(error as NodeJS.ErrnoException, source)}` };
  } finally {
    await file?.close();
  }
}

async function readLimited(file: FileHandle, path: string, source: string): Promise<SecretFile> {
  if (!(await file.stat()).isFile()) return { problem: `${path} is no file: ${source} must be mounted there` };
  const buffer = Buffer.alloc(SIZE_LIMIT + 1);
  let size = 0;
  while (size < buffer.length) {
    const { bytesRead } = await file.read(buffer, size, buffer.length - size);
    if (bytesRead === 0) break;
    size += bytesRead;
  }
  if (size > SIZE_LIMIT)
    return { problem: `${path} is larger than 1 MiB, more than a Secret can hold: ${source} must be mounted there` };
  if (size === 0) return { problem: `${path} is empty: ${source} must have a value` };
  return Buffer.from(buffer.subarray(0, size)); // a copy: the rest of the buffer is given back
}

function reasonOf({ code, message }: NodeJS.ErrnoException, source: string): string {
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return `is missing: ${source} must exist in this pod's namespace, and be mounted there`;
    case 'EACCES':
    case 'EPERM':
      return `can't be read (${code}): this process must be of the volume's group, securityContext.fsGroup of the pod, and the volume's defaultMode must be 0440`;
    case undefined:
    default:
      return `can't be read (${code ?? message}): ${source} must be mounted there`;
  }
}

function sameFiles(a: ReadonlyMap<string, SecretFile>, b: ReadonlyMap<string, SecretFile>): boolean {
  return a.size === b.size && [...a].every(([name, file]) => sameFile(file, b.get(name)));
}

function sameFile(a: SecretFile, b: SecretFile | undefined): boolean {
  if (Buffer.isBuffer(a)) return Buffer.isBuffer(b) && a.equals(b);
  return b !== undefined && !Buffer.isBuffer(b) && a.problem === b.problem;
}
