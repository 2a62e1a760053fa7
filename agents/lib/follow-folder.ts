import { wait } from './wait.ts';
import { watchFolder } from './watch-folder.ts';

/** Read again this often even if nothing said that it changed. */
const RECHECK_MS = 60_000;
/** The same while there is no folder to watch. */
const MISSING_FOLDER_MS = 2_000;

/**
 * Calls `read`, and again at each change in the folder, until `signal` is aborted; never twice at a time. The folder may
 * come later, go, and come back. Rejects as `read` does.
 */
export async function followFolder(folder: string, read: () => Promise<void>, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const round = new AbortController();
    const end = (): void => round.abort();
    signal.addEventListener('abort', end, { once: true });
    // Watching starts before reading, so that no change falls between the two.
    const watcher = watchFolder(folder, end);
    try {
      await read();
      await wait(watcher === undefined ? MISSING_FOLDER_MS : RECHECK_MS, round.signal);
    } finally {
      watcher?.close();
      signal.removeEventListener('abort', end);
    }
  }
}
