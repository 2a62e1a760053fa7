import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import type { Vpn } from '../../functions/model/vpn.ts';
import { configObject, configOf, goodSite, goodSpec } from '../../test/functions/items.ts';
import { ConfigFile, parseConfig } from './config.ts';
import { createLog } from './log.ts';

const textOf = (spec: object): string => JSON.stringify(configObject(spec));
const GOOD = textOf(goodSpec());
const OTHER = textOf(goodSpec({ mtu: 1400 }));

test('a good one, with what it leaves out filled in', (tt) => {
  tt.deepEqual(parseConfig(GOOD), { vpn: configOf(goodSpec()).vpn });
});

const refused = test.macro((tt, text: string, ...problems: (string | RegExp)[]) => {
  const parsed = parseConfig(text);
  const said = 'problems' in parsed ? parsed.problems : [];
  tt.is(said.length, problems.length);
  problems.forEach((problem, i) => {
    const found = said[i] ?? '';
    if (typeof problem === 'string') tt.is(found, problem);
    else tt.regex(found, problem);
  });
});
const EMPTY = /^is empty: the manifests were applied without the functions.*--enable-alpha-plugins and --enable-exec/;
test('empty, as base/ has it', refused, '', EMPTY);
test('nothing but white space', refused, ' \n', EMPTY);
test('no JSON', refused, '{"a":', 'is not JSON: render and apply again');
test('YAML', refused, 'kind: ConstellationVPN\n', 'is not JSON: render and apply again');
test('null', refused, 'null', /^expected a map of fields/);
test('a list', refused, '[]', /^expected a map of fields .*found a list$/);
test(
  'every problem, its path first',
  refused,
  textOf(goodSpec({ mtu: 1, pearCIDRs: [] })),
  'spec.mtu expected a whole number of bytes from 576 to 9000',
  'spec.pearCIDRs is not a known field; did you mean peerCIDRs?',
);

/** The path of everything in a value, itself included. */
function places(value: unknown, path: (string | number)[] = []): (string | number)[][] {
  if (typeof value !== 'object' || value === null) return [path];
  return [path, ...Object.entries(value).flatMap(([key, inner]) => places(inner, [...path, key]))];
}
function put(value: unknown, path: readonly (string | number)[], wanted: unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return wanted;
  if (typeof value !== 'object' || value === null) return value; // it was replaced by another one
  const copy = structuredClone(value) as Record<string | number, unknown>;
  copy[key] = put(copy[key], rest, wanted);
  return copy;
}

test('values are never quoted: each may be a key in the wrong place', (tt) => {
  const certificate = { secretRef: { name: 'tls' } };
  const ppkSecretRef = { name: 'ppk', id: 'b' };
  const whole = configObject({
    podCIDR: '10.10.0.0/16',
    sites: [
      { name: 'a', peerCIDRs: ['192.168.100.0/24'], mtu: 1300, ipsec: { peer: '194.25.0.10', certificate } },
      goodSite('b', '192.168.200.0/24', {}, { rekeyTime: '1h', startAction: 'none', ppkSecretRef }),
      { name: 'c', peerCIDRs: ['fd00::/48'], ipsec: { peer: '194.25.0.11', localID: 'c', psk: 'x'.repeat(30) + 'y' } },
    ],
  });
  tt.true('vpn' in parseConfig(JSON.stringify(whole)));
  const secret = fc.constantFrom('hunter2hunter2', 'Tr0ub4dor&3', 'c2VjcmV0c2VjcmV0c2VjcmV0Cg==', 'geheim\u0000geheim');
  const wrap = fc.constantFrom<(s: string) => unknown>(
    (s) => s,
    (s) => [s],
    (s) => ({ psk: s }),
    (s) => `${s}/24`,
    (s) => ` ${s}`,
  );
  const where = fc.uniqueArray(fc.constantFrom(...places(whole)), { minLength: 1, maxLength: 3 });
  fc.assert(
    fc.property(where, secret, wrap, (paths, key, wrapped) => {
      const bad = paths.reduce<unknown>((value, path) => put(value, path, wrapped(key)), whole);
      const parsed = parseConfig(JSON.stringify(bad));
      const said = 'problems' in parsed ? parsed.problems.join('\n') : '';
      tt.false(said.includes(key.slice(0, 6)), said);
    }),
    { numRuns: 500 },
  );
});

interface Bench {
  readonly folder: string;
  readonly file: string;
  readonly config: ConfigFile;
  readonly changes: Vpn[];
  /** `level msg: problem` of each record. */
  readonly said: string[];
  /** The log as it is written. */
  readonly raw: string[];
}

/** A folder for one test, and what reads it. `inside`: the configuration's folder in it, not made yet. */
async function bench(tt: ExecutionContext, inside = ''): Promise<Bench> {
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-config-'));
  tt.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, inside, 'config.json');
  const changes: Vpn[] = [];
  const said: string[] = [];
  const raw: string[] = [];
  const log = createLog('test', {
    write: (line) => {
      const { level, msg, problem } = JSON.parse(line) as { level: string; msg: string; problem?: string };
      said.push(`${level} ${msg}${problem === undefined ? '' : `: ${problem}`}`);
      raw.push(line);
    },
  });
  const config = new ConfigFile({ file, log, onChange: (vpn) => changes.push(vpn) });
  return { folder, file, config, changes, said, raw };
}

const READ = 'info configuration read';
const KEPT = 'error configuration refused, the last good one stays in force';
const WAITING = 'error configuration refused, waiting for a valid one';
const NOT_JSON = 'is not JSON: render and apply again';
const MISSING = 'is missing: the ConfigMap vpn-config must be mounted there, with the key config.json';

test('before it was read', async (tt) => {
  const { config, file } = await bench(tt);
  tt.is(config.vpn, undefined);
  tt.deepEqual(config.problems, [`configuration ${file}: has not been read yet`]);
});

test('read: in force, told once, however often it is read', async (tt) => {
  const { config, file, changes, said } = await bench(tt);
  await writeFile(file, GOOD);
  for (let n = 0; n < 3; n++) await config.read();
  tt.deepEqual(config.problems, []);
  tt.deepEqual(config.vpn, configOf(goodSpec()).vpn);
  tt.deepEqual(changes, [config.vpn as Vpn]);
  tt.deepEqual(said, [READ]);
});

test('a changed one is told', async (tt) => {
  const { config, file, changes } = await bench(tt);
  for (const text of [GOOD, OTHER]) {
    await writeFile(file, text);
    await config.read();
  }
  tt.deepEqual(
    changes.map(({ sites }) => sites[0]?.mtu),
    [1300, 1400],
  );
});

test('broken: the last good one stays, said once, and again after it was mended', async (tt) => {
  const { config, file, changes, said } = await bench(tt);
  for (const text of [GOOD, '{', '[', '{', GOOD, '{']) {
    await writeFile(file, text);
    await config.read();
    tt.deepEqual(config.vpn, configOf(goodSpec()).vpn);
    tt.deepEqual(config.problems, text === GOOD ? [] : [`configuration ${file}: ${NOT_JSON}`]);
  }
  tt.deepEqual(said, [READ, `${KEPT}: ${NOT_JSON}`, READ, `${KEPT}: ${NOT_JSON}`]);
  tt.is(changes.length, 2);
});

test('broken from the beginning', async (tt) => {
  const { config, file, changes, said } = await bench(tt);
  await writeFile(file, textOf(goodSpec({ mtu: 1 })));
  await config.read();
  const problem = 'spec.mtu expected a whole number of bytes from 576 to 9000';
  tt.is(config.vpn, undefined);
  tt.deepEqual(config.problems, [`configuration ${file}: ${problem}`]);
  tt.deepEqual(said, [`${WAITING}: ${problem}`]);
  tt.deepEqual(changes, []);
});

test('another problem is said, too', async (tt) => {
  const { config, file, said } = await bench(tt);
  for (const text of ['{', '']) {
    await writeFile(file, text);
    await config.read();
  }
  tt.is(said.length, 2);
  tt.regex(said[1] ?? '', /^error .*: is empty/);
});

test('a key in the wrong place is neither in the log nor among the problems', async (tt) => {
  const { config, file, raw } = await bench(tt);
  await writeFile(
    file,
    textOf(goodSpec({ mtu: 'hunter2hunter2' }, { pskSecretRef: 'hunter2hunter2', psk: ['hunter2'] })),
  );
  await config.read();
  tt.true(config.problems.length > 0);
  tt.false([...raw, ...config.problems].join('\n').includes('hunter2'));
});

test('a good one’s key is not in the log', async (tt) => {
  const { config, file, raw } = await bench(tt);
  const ipsec = { peer: '194.25.0.10', psk: 'hunter2hunter2hunter2' };
  await writeFile(file, textOf({ peerCIDRs: ['192.168.100.0/24'], ipsec }));
  await config.read();
  tt.deepEqual(config.problems, []);
  tt.false(raw.join('\n').includes('hunter2'));
});

test('missing, said once, and then there', async (tt) => {
  const { config, file, said } = await bench(tt);
  await config.read();
  await config.read();
  tt.deepEqual(config.problems, [`configuration ${file}: ${MISSING}`]);
  await writeFile(file, GOOD);
  await config.read();
  tt.deepEqual(config.problems, []);
  tt.deepEqual(said, [`${WAITING}: ${MISSING}`, READ]);
});

test('taken away and put back as it was', async (tt) => {
  const { config, file, said } = await bench(tt);
  await writeFile(file, GOOD);
  await config.read();
  await rm(file);
  await config.read();
  tt.deepEqual(config.problems, [`configuration ${file}: ${MISSING}`]);
  tt.not(config.vpn, undefined);
  await writeFile(file, GOOD);
  await config.read();
  tt.deepEqual(config.problems, []);
  tt.deepEqual(said, [READ, `${KEPT}: ${MISSING}`, READ]);
});

test('a folder in its place', async (tt) => {
  const { config, file } = await bench(tt);
  await mkdir(file);
  await config.read();
  tt.regex(config.problems[0] ?? '', /config\.json: can't be read \(EISDIR\)/);
});

/** Follows while `use` runs. */
async function following({ config }: Bench, use: () => Promise<void>): Promise<void> {
  const controller = new AbortController();
  const followed = config.follow(controller.signal);
  try {
    await use();
  } finally {
    controller.abort();
    await followed;
  }
}

async function until(tt: ExecutionContext, what: () => boolean): Promise<void> {
  tt.timeout(20_000);
  while (!what()) await sleep(2);
  tt.pass();
}

/** As kubelet does: files are links through `..data`, which is swapped. */
async function mount(folder: string, generation: string, text: string): Promise<void> {
  await mkdir(join(folder, `..${generation}`));
  await writeFile(join(folder, `..${generation}`, 'config.json'), text);
  await symlink(`..${generation}`, join(folder, '..data_tmp'));
  await rename(join(folder, '..data_tmp'), join(folder, '..data'));
  await symlink('..data/config.json', join(folder, 'config.json')).catch(() => undefined);
}

test('followed: a changed ConfigMap, a broken one, a mended one', async (tt) => {
  const one = await bench(tt);
  const { folder, config, changes } = one;
  await mount(folder, '1', GOOD);
  await following(one, async () => {
    await until(tt, () => changes.length === 1);
    await mount(folder, '2', OTHER);
    await rm(join(folder, '..1'), { recursive: true });
    await until(tt, () => config.vpn?.sites[0]?.mtu === 1400);
    await mount(folder, '3', '');
    await until(tt, () => config.problems.length === 1);
    tt.is(config.vpn?.sites[0]?.mtu, 1400);
    await mount(folder, '4', GOOD);
    await until(tt, () => config.problems.length === 0);
    tt.is(config.vpn?.sites[0]?.mtu, 1300);
  });
  tt.is(changes.length, 3);
});

test('followed: many changes in a row, the last one counts', async (tt) => {
  const one = await bench(tt);
  await following(one, async () => {
    for (let n = 0; n < 20; n++) await mount(one.folder, String(n), textOf(goodSpec({ mtu: 1300 + n })));
    await until(tt, () => one.config.vpn?.sites[0]?.mtu === 1319);
  });
});

test('followed: the file comes later', async (tt) => {
  const one = await bench(tt);
  await following(one, async () => {
    await until(tt, () => one.said.length === 1);
    await writeFile(one.file, GOOD);
    await until(tt, () => one.config.problems.length === 0);
  });
});

test('followed: the folder comes later', async (tt) => {
  const one = await bench(tt, 'config');
  await following(one, async () => {
    await until(tt, () => one.said.length === 1);
    await mkdir(join(one.folder, 'config'));
    await writeFile(one.file, GOOD);
    await until(tt, () => one.config.problems.length === 0);
  });
});

test('followed: the folder goes and comes back', async (tt) => {
  const one = await bench(tt, 'config');
  await mkdir(join(one.folder, 'config'));
  await writeFile(one.file, GOOD);
  await following(one, async () => {
    await until(tt, () => one.changes.length === 1);
    await rm(join(one.folder, 'config'), { recursive: true });
    await until(tt, () => one.config.problems.length === 1);
    await mkdir(join(one.folder, 'config'));
    await writeFile(one.file, OTHER);
    await until(tt, () => one.config.vpn?.sites[0]?.mtu === 1400);
  });
});

test('followed: no more after the end', async (tt) => {
  const one = await bench(tt);
  await writeFile(one.file, GOOD);
  await following(one, () => until(tt, () => one.changes.length === 1));
  await writeFile(one.file, OTHER);
  await sleep(30);
  tt.is(one.changes.length, 1);
  await one.config.follow(AbortSignal.abort());
  tt.is(one.changes.length, 1);
});
