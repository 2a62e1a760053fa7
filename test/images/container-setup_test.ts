import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { setUpContainers } from '../../scripts/container-setup.ts';

test('test files may set containers up at the same time', async (t) => {
  const cache = await mkdtemp(join(tmpdir(), 'constellation-vpn-containers-'));
  t.teardown(() => rm(cache, { recursive: true }));
  process.env.CONSTELLATION_VPN_CACHE = cache;
  const settings = await Promise.all(Array.from({ length: 10 }, () => setUpContainers()));
  t.regex(await readFile(settings[0]!.CONTAINERS_STORAGE_CONF!, 'utf8'), /graphroot/);
  t.deepEqual((await readdir(join(cache, 'containers'))).sort(), ['bin', 'containers.conf', 'storage.conf']);
  t.deepEqual(await readdir(join(cache, 'containers/bin')), ['docker']);
});
