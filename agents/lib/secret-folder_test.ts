import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { SecretFolder, type SecretFile } from './secret-folder.ts';

const MIB = 1024 * 1024;

interface Bench {
  readonly folder: string;
  readonly secrets: SecretFolder;
  /** What each onChange was told, as text. */
  readonly changes: Record<string, string>[];
}

/** `inside`: the mounted folder in the one made here, not made yet. */
async function bench(
  tt: ExecutionContext,
  names: (folder: string) => readonly string[] = () => ['a', 'b'],
  inside = '',
): Promise<Bench> {
  tt.timeout(20_000);
  const outer = await mkdtemp(join(tmpdir(), 'constellation-vpn-secrets-'));
  tt.teardown(() => rm(outer, { recursive: true, force: true }));
  const folder = join(outer, inside);
  const changes: Record<string, string>[] = [];
  const secrets = new SecretFolder({
    folder,
    names: () => names(folder),
    source: (name) => `the key ${name.toUpperCase()} of the Secret s`,
    onChange: (files) => changes.push(textOf(files)),
  });
  return { folder, secrets, changes };
}

const textOf = (files: ReadonlyMap<string, SecretFile>): Record<string, string> =>
  Object.fromEntries(
    [...files].map(([name, file]) => [name, Buffer.isBuffer(file) ? file.toString('latin1') : file.problem]),
  );

let generations = 0;
/** As kubelet does: files are links through `..data`, which is swapped. */
function mount(folder: string, files: Record<string, string>): void {
  const target = `..${++generations}`;
  mkdirSync(join(folder, target));
  for (const [name, value] of Object.entries(files)) writeFileSync(join(folder, target, name), value, 'latin1');
  symlinkSync(target, join(folder, '..data_tmp'));
  renameSync(join(folder, '..data_tmp'), join(folder, '..data'));
  for (const name of Object.keys(files))
    try {
      symlinkSync(`..data/${name}`, join(folder, name));
    } catch {
      // there already
    }
}

const missing = (folder: string, name: string): string =>
  `${folder}/${name} is missing: the key ${name.toUpperCase()} of the Secret s must exist in this pod's namespace, and be mounted there`;

test('before it was read', async (tt) => {
  const { secrets, changes } = await bench(tt);
  tt.is(secrets.files.size, 0);
  tt.deepEqual(changes, []);
});

test('every byte as it is, told once, however often it is read', async (tt) => {
  const { folder, secrets, changes } = await bench(tt);
  const a = String.fromCharCode(...Array(256).keys());
  mount(folder, { a, b: 'x\n', other: 'y' });
  for (let n = 0; n < 3; n++) await secrets.read();
  tt.deepEqual(textOf(secrets.files), { a, b: 'x\n' });
  tt.is(changes.length, 1);
});

test('mounted anew with the same content: no change', async (tt) => {
  const { folder, secrets, changes } = await bench(tt);
  for (let n = 0; n < 2; n++) {
    mount(folder, { a: '1', b: '2' });
    await secrets.read();
  }
  tt.is(changes.length, 1);
});

test('one byte in one file is a change', async (tt) => {
  const { folder, secrets, changes } = await bench(tt);
  for (const b of ['2', '3']) {
    mount(folder, { a: '1', b });
    await secrets.read();
  }
  tt.deepEqual(changes, [
    { a: '1', b: '2' },
    { a: '1', b: '3' },
  ]);
});

test('missing, and then there', async (tt) => {
  const { folder, secrets, changes } = await bench(tt);
  mount(folder, { a: '1' });
  for (let n = 0; n < 2; n++) await secrets.read();
  tt.deepEqual(changes, [{ a: '1', b: missing(folder, 'b') }]);
  mount(folder, { a: '1', b: '2' });
  await secrets.read();
  tt.deepEqual(changes[1], { a: '1', b: '2' });
});

test('another problem is a change, too', async (tt) => {
  const { folder, secrets, changes } = await bench(tt);
  mount(folder, { a: '1' });
  await secrets.read();
  mount(folder, { a: '1', b: '' });
  await secrets.read();
  tt.is(changes[1]?.b, `${folder}/b is empty: the key B of the Secret s must have a value`);
});

test('a problem whose text is the content of a file before: told apart', async (tt) => {
  const { folder, secrets, changes } = await bench(tt, () => ['a']);
  mount(folder, { a: missing(folder, 'a') });
  await secrets.read();
  mount(folder, {});
  await secrets.read();
  tt.is(changes.length, 2);
  tt.false(Buffer.isBuffer(secrets.files.get('a')));
});

test('other files are wanted', async (tt) => {
  let names = ['a', 'b'];
  const { folder, secrets, changes } = await bench(tt, () => names);
  mount(folder, { a: '1', b: '2' });
  await secrets.read();
  names = ['b'];
  await secrets.read();
  tt.deepEqual(changes[1], { b: '2' });
});

test('nothing is wanted: nothing to tell', async (tt) => {
  const { secrets, changes } = await bench(tt, () => []);
  await secrets.read();
  tt.deepEqual(changes, []);
});

test('readings asked for at once come one after the other, the last one with the last names', async (tt) => {
  const slow = Array.from({ length: 200 }, (_, n) => `slow${n}`);
  let asked = 0;
  const { folder, secrets } = await bench(tt, () => (asked++ === 0 ? slow : ['b']));
  mount(folder, { b: '2' });
  await Promise.all([secrets.read(), secrets.read()]);
  tt.deepEqual(textOf(secrets.files), { b: '2' });
});

test('a folder instead of a file', async (tt) => {
  const { folder, secrets } = await bench(tt, () => ['a']);
  await mkdir(join(folder, 'a'));
  await secrets.read();
  tt.is(textOf(secrets.files).a, `${folder}/a is no file: the key A of the Secret s must be mounted there`);
});

test('a link to itself', async (tt) => {
  const { folder, secrets } = await bench(tt, () => ['a']);
  symlinkSync('a', join(folder, 'a'));
  await secrets.read();
  tt.is(textOf(secrets.files).a, `${folder}/a can't be read (ELOOP): the key A of the Secret s must be mounted there`);
});

const size = test.macro(async (tt, bytes: number, ok: boolean) => {
  const { folder, secrets } = await bench(tt, () => ['a']);
  await writeFile(join(folder, 'a'), Buffer.alloc(bytes, 'k'));
  await secrets.read();
  const file = secrets.files.get('a');
  if (ok) tt.is(Buffer.isBuffer(file) && file.length, bytes);
  else tt.regex(textOf(secrets.files).a ?? '', /\/a is larger than 1 MiB, more than a Secret can hold: the key A of/);
});
test('as large as a Secret can be', size, MIB, true);
test('larger', size, MIB + 1, false);

test('not readable', async (tt) => {
  const { folder } = await bench(tt);
  await writeFile(join(folder, 'a'), 'hunter2', { mode: 0 });
  await chmod(folder, 0o755);
  // root reads everything
  const user = process.getuid?.() === 0 ? { uid: 65532, gid: 65532 } : {};
  const program = `
    const { SecretFolder } = await import(${JSON.stringify(import.meta.resolve('./secret-folder.ts'))});
    const secrets = new SecretFolder({
      folder: ${JSON.stringify(folder)}, names: () => ['a'], source: () => 'it', onChange: () => undefined,
    });
    await secrets.read();
    console.log(secrets.files.get('a').problem);
  `;
  const { stdout } = await execa(process.execPath, ['--input-type=module', '--eval', program], { cwd: '/', ...user });
  tt.is(
    stdout,
    `${folder}/a can't be read (EACCES): this process must be of the volume's group, securityContext.fsGroup of the pod, and the volume's defaultMode must be 0440`,
  );
});

/** `names` that swap the link between the first file and the second, while it is read, as often as `times` says. */
const swapped = (times: number) => {
  let swaps = 0;
  return (folder: string): readonly string[] => {
    const names = ['a', 'b'];
    return Object.assign(names, {
      *[Symbol.iterator]() {
        yield 'a';
        if (swaps++ < times) mount(folder, { a: `new ${swaps}`, b: `new ${swaps}` });
        yield 'b';
      },
    });
  };
};

test('swapped between two files: read again, both of one state', async (tt) => {
  const { folder, secrets, changes } = await bench(tt, swapped(3));
  mount(folder, { a: 'old', b: 'old' });
  await secrets.read();
  tt.deepEqual(changes, [{ a: 'new 3', b: 'new 3' }]);
});

test('swapped at every attempt: what was read before stays', async (tt) => {
  const { folder, secrets, changes } = await bench(tt, swapped(Infinity));
  mount(folder, { a: 'old', b: 'old' });
  await secrets.read();
  tt.deepEqual(changes, []);
});

/** Follows while `use` runs. */
async function following({ secrets }: Bench, use: () => Promise<void>): Promise<void> {
  const controller = new AbortController();
  const followed = secrets.follow(controller.signal);
  try {
    await use();
  } finally {
    controller.abort();
    await followed;
  }
}

async function until(what: () => boolean): Promise<void> {
  while (!what()) await sleep(2);
}

test('followed: never files of two states', async (tt) => {
  const one = await bench(tt);
  mount(one.folder, { a: '0', b: '0' });
  await following(one, async () => {
    for (let n = 1; n <= 100; n++) {
      mount(one.folder, { a: String(n), b: String(n) });
      if (n % 5 === 0) await sleep(1);
    }
    await until(() => one.changes.at(-1)?.a === '100');
  });
  for (const { a, b } of one.changes) tt.is(a, b);
});

test('followed: the folder comes later', async (tt) => {
  const one = await bench(tt, () => ['a'], 'ipsec');
  await following(one, async () => {
    await until(() => one.changes.length === 1);
    tt.deepEqual(one.changes, [{ a: missing(one.folder, 'a') }]);
    await mkdir(one.folder);
    mount(one.folder, { a: '1' });
    await until(() => one.changes.length === 2);
  });
  tt.deepEqual(one.changes[1], { a: '1' });
});
