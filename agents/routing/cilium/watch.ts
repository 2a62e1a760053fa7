/** Notices starts and ends of Cilium's agent: it makes its socket anew. */
import { fileIdentity, watchFolder } from '../../lib/watch-folder.ts';
import { wait } from '../../lib/wait.ts';
import { SOCKET } from './api.ts';

/** Looked at again this often even if nothing was heard, in milliseconds: the folder may not have been there. */
const RECHECK_MS = 30_000;

/** Until `signal` is aborted. `onChange` gets whether there is a socket now. */
export async function watchCilium(
  folder: string,
  onChange: (there: boolean) => void,
  signal: AbortSignal,
): Promise<void> {
  const socket = `${folder}/${SOCKET}`;
  let last = await fileIdentity(socket);
  while (!signal.aborted) {
    const round = new AbortController();
    const end = (): void => round.abort();
    signal.addEventListener('abort', end, { once: true });
    // Watching starts before looking, so that no change falls between the two.
    const watcher = watchFolder(folder, end);
    const identity = await fileIdentity(socket);
    if (identity !== last) onChange(identity !== undefined);
    last = identity;
    await wait(RECHECK_MS, round.signal);
    watcher?.close();
    signal.removeEventListener('abort', end);
  }
}
