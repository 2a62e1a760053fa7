/** Kernel settings under a folder such as /proc/sys/net. */
import { readFile, writeFile } from 'node:fs/promises';

/** `absent`: the kernel has no such setting. `written`: it was another value before. */
export type SysctlResult = 'absent' | 'kept' | 'written';

/** Writes only where the value differs. Throws a sentence that names the file: not readable, not writable, not kept. */
export async function setSysctl(file: string, value: string): Promise<SysctlResult> {
  const before = await read(file);
  if (before === undefined) return 'absent';
  if (before === value) return 'kept';
  await writeFile(file, value).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${file} can't be written (${error.code ?? error.message})`, { cause: error });
  });
  if ((await read(file)) !== value) throw new Error(`${file} was set to ${value} and still is ${before}`);
  return 'written';
}

/** Undefined where there is no such file. */
async function read(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, 'utf8')).trim();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new Error(`${file} can't be read (${code ?? message})`, { cause: error });
  }
}
