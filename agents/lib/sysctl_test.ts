import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { setSysctl, type SysctlResult } from './sysctl.ts';

let folder = '';
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-sysctl-'));
});
test.after.always(() => rm(folder, { recursive: true, force: true }));

test('another value before: written, and kept the second time', async (tt) => {
  const file = join(folder, 'forwarding');
  await writeFile(file, '0\n');
  tt.is(await setSysctl(file, '1'), 'written');
  tt.is(await readFile(file, 'utf8'), '1');
  const { mtimeNs } = await stat(file, { bigint: true });
  tt.is(await setSysctl(file, '1'), 'kept');
  tt.is((await stat(file, { bigint: true })).mtimeNs, mtimeNs);
});

const set = test.macro(async (tt, file: string, value: string, expected: SysctlResult) => {
  tt.is(await setSysctl(file, value), expected);
});
test('what can’t be written is kept where it is right already', set, '/proc/sys/kernel/ostype', 'Linux', 'kept');
test('no such setting', set, '/proc/sys/net/ipv9/forwarding', '1', 'absent');
test('a file where a folder should be', set, '/proc/sys/kernel/ostype/forwarding', '1', 'absent');

const fails = test.macro(async (tt, file: string, value: string, message: string) => {
  const error = await tt.throwsAsync(setSysctl(file, value));
  tt.is(error.message, message);
});
test(
  'not writable, not even for root',
  fails,
  '/proc/sys/kernel/ostype',
  'Plan 9',
  "/proc/sys/kernel/ostype can't be written (EACCES)",
);
test('not readable', fails, '/proc', '1', "/proc can't be read (EISDIR)");
test('taken and not kept', fails, '/dev/null', '1', '/dev/null was set to 1 and still is ');
