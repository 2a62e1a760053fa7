import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { followFolder } from './follow-folder.ts';

async function scratch(tt: ExecutionContext): Promise<string> {
  tt.timeout(20_000);
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-follow-'));
  tt.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function until(what: () => boolean): Promise<void> {
  while (!what()) await sleep(2);
}

test('read at once, after each change, and no more after the end', async (tt) => {
  const folder = await scratch(tt);
  const end = new AbortController();
  let reads = 0;
  const followed = followFolder(folder, () => Promise.resolve(void reads++), end.signal);
  await until(() => reads === 1);
  await writeFile(join(folder, 'a'), '');
  await until(() => reads > 1);
  end.abort();
  await followed;
  const before = reads;
  await writeFile(join(folder, 'b'), '');
  await sleep(30);
  tt.is(reads, before);
});

test('a change during a reading leads to another one, after it', async (tt) => {
  const folder = await scratch(tt);
  const end = new AbortController();
  let [reads, under] = [0, 0];
  const read = async (): Promise<void> => {
    tt.is(++under, 1);
    if (++reads === 1) await writeFile(join(folder, 'a'), '');
    await sleep(20);
    under--;
  };
  const followed = followFolder(folder, read, end.signal);
  await until(() => reads > 1);
  end.abort();
  await followed;
});

test('a folder that comes later', async (tt) => {
  const folder = join(await scratch(tt), 'later');
  const end = new AbortController();
  let reads = 0;
  const followed = followFolder(folder, () => Promise.resolve(void reads++), end.signal);
  await until(() => reads === 1);
  await mkdir(folder);
  await until(() => reads === 2);
  end.abort();
  await followed;
  tt.pass();
});

test('ended before it began: nothing is read', async (tt) => {
  await followFolder('/no/such/folder', () => Promise.reject(new Error('read')), AbortSignal.abort());
  tt.pass();
});

test('what `read` throws ends it', async (tt) => {
  const folder = await scratch(tt);
  const read = (): Promise<void> => Promise.reject(new Error('our bug'));
  await tt.throwsAsync(followFolder(folder, read, new AbortController().signal), { message: 'our bug' });
});
