import { watch } from 'node:fs';

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
