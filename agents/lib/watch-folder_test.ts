import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { fileIdentity, watchFolder } from './watch-folder.ts';

async function scratch(tt: ExecutionContext): Promise<string> {
  tt.timeout(10_000);
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-folder-'));
  tt.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Resolves when an event came after `change`. */
const noticed = test.macro(async (tt, change: (folder: string) => Promise<unknown>) => {
  const folder = await scratch(tt);
  await writeFile(join(folder, 'old'), 'a');
  let watcher: ReturnType<typeof watchFolder>;
  const event = new Promise<void>((resolve) => {
    watcher = watchFolder(folder, resolve);
  });
  tt.truthy(watcher);
  await change(folder);
  await event;
  watcher?.close();
  tt.pass();
});
test('a new file', noticed, (folder) => writeFile(join(folder, 'new'), ''));
test('a file that is written', noticed, (folder) => writeFile(join(folder, 'old'), 'b'));
test('a file that is deleted', noticed, (folder) => rm(join(folder, 'old')));
test('a file that takes another’s place', noticed, (folder) => rename(join(folder, 'old'), join(folder, 'new')));

test('closed: not a word any more', async (tt) => {
  const folder = await scratch(tt);
  let events = 0;
  watchFolder(folder, () => (events += 1))?.close();
  await writeFile(join(folder, 'new'), '');
  await sleep(50);
  tt.is(events, 0);
});

test('a folder that is not there', (tt) => {
  tt.is(
    watchFolder('/no/such/folder', () => undefined),
    undefined,
  );
});

test('the identity of a file: the same until it is made anew', async (tt) => {
  const folder = await scratch(tt);
  const file = join(folder, 'socket');
  tt.is(await fileIdentity(file), undefined);
  await writeFile(file, '');
  const first = await fileIdentity(file);
  tt.regex(first ?? '', /^\d+ \d+ \d+ \d+$/);
  tt.is(await fileIdentity(file), first);
  await rm(file);
  tt.is(await fileIdentity(file), undefined);
  await sleep(20); // the inode may be the same again, the time is not
  await writeFile(file, '');
  tt.not(await fileIdentity(file), first);
});

test('the identity of a file that another takes the place of', async (tt) => {
  const folder = await scratch(tt);
  await mkdir(join(folder, 'a'));
  await mkdir(join(folder, 'b'));
  const first = await fileIdentity(join(folder, 'a'));
  await rename(join(folder, 'b'), join(folder, 'a'));
  tt.not(await fileIdentity(join(folder, 'a')), first);
});
