import { watch } from 'node:fs';
import { stat } from 'node:fs/promises';

/**
 * inotify: `onEvent` at each change in the folder (a hint, several may be one), and at an error. Undefined where the folder
 * is not there (yet).
 */
export function watchFolder(folder: string, onEvent: () => void): { close: () => void } | undefined {
  try {
    const watcher = watch(folder, onEvent);
    watcher.on('error', onEvent);
    return watcher;
  } catch {
    return undefined;
  }
}

/** Changes whenever the file is made anew; undefined where there is none. */
export async function fileIdentity(file: string): Promise<string | undefined> {
  const found = await stat(file, { bigint: true }).catch(() => undefined);
  return found === undefined ? undefined : `${found.dev} ${found.ino} ${found.birthtimeNs} ${found.ctimeNs}`;
}
