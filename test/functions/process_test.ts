import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { load } from 'js-yaml';
import { dump } from '../../functions/lib/yaml.ts';
import { base, ciliumConfig, configObject, goodSpec, named, type Loose } from './items.ts';
import { FUNCTIONS, start, type FunctionName } from './process.ts';

// The executables that users run, each a process of its own.

const list = (spec: object, items: readonly unknown[] = base()): string =>
  dump({ apiVersion: 'config.kubernetes.io/v1', kind: 'ResourceList', items, functionConfig: configObject(spec) });
const literal = (psk: unknown): object => goodSpec({}, { pskSecretRef: null, psk });

for (const name of FUNCTIONS) {
  const root = join(import.meta.dirname, '../..');

  test(`${name}: executable, of one file, with a usage`, async (tt) => {
    const path = join(root, 'functions/dist', name);
    tt.is((await stat(path)).mode & 0o777, 0o755);
    tt.regex(await readFile(path, 'utf8'), /^#!\/usr\/bin\/env node\n/);
    const { exitCode, stdout, stderr } = await start(name, '', ['--help']);
    tt.is(exitCode, 0);
    tt.regex(stdout, new RegExp(`^Usage: ${name} `));
    tt.is(stderr, '');
  });

  test(`${name}: a good list`, async (tt) => {
    const { exitCode, stdout, stderr } = await start(name, list(goodSpec()));
    tt.is(exitCode, 0, stderr);
    const { apiVersion, kind, items, functionConfig } = load(stdout) as Loose;
    tt.is(`${apiVersion} ${kind}`, 'config.kubernetes.io/v1 ResourceList');
    tt.is(named(items, 'ConfigMap', 'foreign').data.a, 'b');
    tt.deepEqual(functionConfig, configObject(goodSpec()));
    tt.regex(
      stderr,
      new RegExp(
        `${name}: 1 site, 1 peer CIDR; authentication: 1 pre-shared key\n${name}: Cilium: enable-sctp=true, agents restart once\n$`,
      ),
    );
    tt.notRegex(stderr, /\u001b/);
  });

  test(`${name}: twice is once`, async (tt) => {
    const items = [...base(), ciliumConfig({ other: 'x' })];
    const once = await start(name, list(literal('Zq9 a key that is long enough'), items));
    const again = await start(name, once.stdout.replace(/^results:[\s\S]*/m, ''));
    tt.is(again.stdout.replace(/^results:[\s\S]*/m, ''), once.stdout.replace(/^results:[\s\S]*/m, ''));
    tt.deepEqual([once.exitCode, again.exitCode], [0, 0], again.stderr);
    tt.true(once.stdout.includes('name: vpn-frontend'));
  });

  test(`${name}: bad input of every kind`, async (tt) => {
    for (const [what, input] of Object.entries(BAD)) {
      const { exitCode, stdout, stderr } = await start(name, input);
      tt.is(exitCode, 1, what);
      tt.is(stdout, '', what);
      tt.regex(stderr, /^(\[(error|warning|info)\] [^\n]+\n)+$/, what);
      tt.regex(stderr, /^\[error\] /m, what);
      tt.notRegex(stderr, /internal error|node:internal|\.js:\d|\n +at /, what);
      tt.notRegex(stderr, /Zq9|WnE5/, what); // the key, or the beginning of its base64
    }
  });
}

const HEAD = 'apiVersion: config.kubernetes.io/v1\nkind: ResourceList\n';
const CONFIG = dump({ functionConfig: configObject(goodSpec()) });
const BAD: Record<string, string | Uint8Array> = {
  nothing: '',
  'white space': '\n\n',
  'no YAML': 'a: [b\n',
  text: 'Zq9',
  'binary data': Buffer.from([0x7f, 0x45, 0x4c, 0x46, 0, 1, 2, 255]),
  'no ResourceList': 'apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n',
  'a list of another kind': 'apiVersion: v1\nkind: List\nitems: []\n',
  'several documents': `${list(goodSpec())}---\n${list(goodSpec())}`,
  'items of text': `${HEAD}items: Zq9\n${CONFIG}`,
  'an item of text': `${HEAD}items: [Zq9]\n${CONFIG}`,
  'no functionConfig': `${HEAD}items: []\n`,
  'another kind': `${HEAD}items: []\nfunctionConfig: {apiVersion: v1, kind: ConfigMap, data: {psk: Zq9}}\n`,
  'unknown apiVersion': list(literal('Zq9')).replace(
    'constellation-vpn.io/v1alpha1\n  kind: Const',
    'constellation-vpn.io/v9\n  kind: Const',
  ),
  'misspelt keys': list({ ...goodSpec(), peerCIRDs: [], ipesc: { psk: 'Zq9' } }),
  'a list where text belongs': list(literal(['Zq9'])),
  'a map where text belongs': list(literal({ Zq8: 'Zq9' })),
  'an empty key': list(literal('')),
  'a key with a line break': list(literal('Zq9\nabcdefghijklmnopqrst')),
  'a key with NUL': list(literal('Zq9\0abcdefghijklmnopqrst')),
  'a key with a tab': list(literal('Zq9\tabcdefghijklmnopqrst')),
  'a key with a space after': list(literal('Zq9abcdefghijklmnopqrst ')),
  'two keys': list(goodSpec({}, { psk: 'Zq9 a key that is long enough' })),
  'a key that is an alias': list(literal('PLACE')).replace('PLACE', '*Zq9'),
  'a key that is a tag': list(literal('PLACE')).replace('PLACE', '!Zq9!x y'),
  'a key with an open quote': list(literal('PLACE')).replace('PLACE', '"Zq9'),
  'an endless list of lists': `${HEAD}items: ${'['.repeat(200_000)}`,
};

const carried = test.macro(async (tt, psk: string) => {
  const { exitCode, stdout, stderr } = await start('constellation-vpn', list(literal(psk)));
  tt.is(exitCode, 0, stderr);
  const { items, results } = load(stdout) as Loose;
  const coded = Buffer.from(psk).toString('base64');
  tt.is(named(items, 'Secret', 'vpn-ipsec').data.psk, coded);
  const others = JSON.stringify([items.filter(({ kind }: Loose) => kind !== 'Secret'), results]) + stderr;
  tt.false(others.includes(psk) || others.includes(coded) || others.includes(JSON.stringify(psk).slice(1, -1)));
});
test('a key with quotes', carried, `it's a "quoted" key of some length`);
test('a key that templates and shells would change', carried, '100%s of $HOME and ${HOME} and $(id) #1 \\n `x`');
test('a key beyond ASCII', carried, 'Schlüssel – 鍵 – 😀 – lang genug');
test('a key that looks like YAML', carried, '{a: [b, &c *d !e | > % @]}');
test('a key that looks like a number', carried, '12345678901234567890123');

test('10 MB of foreign items, to the byte', async (tt) => {
  const foreign = Array.from(
    { length: 10_000 },
    (_, i) => `- kind: Foreign\n  metadata: {name: n${i}} # ${'x'.repeat(960)}\n  mode: 0644\n`,
  ).join('');
  const source = `${HEAD}items:\n${foreign}${CONFIG}`;
  tt.true(source.length > 10_000_000);
  const { exitCode, stdout, stderr } = await start('validate-vpn', source);
  tt.is(exitCode, 0, stderr);
  tt.true(stdout.startsWith(`${HEAD}items:\n${foreign}${CONFIG}results:\n`));
});

// What the stock runner of kpt-functions does wrong (docs/adr/0002), one after the other, on the executables

const FOREIGN = `- resources: [a.yaml] # no apiVersion, kind, name
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: twice}
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: twice}
- apiVersion: v1
  kind: Secret # after a ConfigMap
- kind: Odd
  metadata: null
- kind: Odd
  metadata: {annotations: null}
  octal: "0o644"
  digits: "08"
  mode: 0644
  time: 22:30
  long: 123456789012345678901234567890
`;
const run = (name: FunctionName, rest = ''): ReturnType<typeof start> =>
  start(name, `${HEAD}items:\n${FOREIGN}${dump(base())}${CONFIG}${rest}`);

for (const name of FUNCTIONS) {
  test(`${name}: keeps duplicates, nameless objects, objects without metadata, scalars and order`, async (tt) => {
    const { stdout } = await run(name);
    tt.true(stdout.startsWith(`${HEAD}items:\n${FOREIGN}`), stdout.slice(0, 1000));
  });
  test(`${name}: keeps functionConfig and earlier results`, async (tt) => {
    const { stdout } = await run(name, 'results:\n- message: earlier\n  severity: info\n  line: 010\n');
    tt.true(stdout.includes(CONFIG));
    tt.regex(stdout, /^results:\n- message: earlier\n {2}severity: info\n {2}line: 010\n/m);
  });
}
test('results: on stderr always, and as the specification has them', async (tt) => {
  const { stdout, stderr } = await start('validate-vpn', list(goodSpec({ mtu: 1500 })));
  const { results } = load(stdout) as Loose;
  tt.deepEqual(results[0], {
    severity: 'warning',
    message: 'leaves less than 100 bytes for ESP on an Ethernet path: above 1400 large packets are likely lost',
    resourceRef: { apiVersion: 'constellation-vpn.io/v1alpha1', kind: 'ConstellationVPN', name: 'vpn' },
    field: { path: 'spec.mtu', currentValue: 1500 },
  });
  tt.true(stderr.startsWith('[warning] constellation-vpn.io/v1alpha1/ConstellationVPN/vpn spec.mtu: leaves less'));
});
test('no warning of Node’s at any run', async (tt) => {
  const { stderr } = await start('constellation-vpn', list(goodSpec()));
  tt.notRegex(stderr, /Warning|DEP\d/);
});
test('a reader that stops early: one line, no stack trace', async (tt) => {
  const foreign = Array.from({ length: 2000 }, (_, i) => ({ kind: 'X', i, text: 'x'.repeat(200) }));
  const child = execa(join(import.meta.dirname, '../../functions/dist/validate-vpn'), {
    input: list(goodSpec(), [...base(), ...foreign]),
    reject: false,
    buffer: { stdout: false },
  });
  child.stdout.destroy();
  const { exitCode, stderr } = await child;
  tt.is(exitCode, 1);
  tt.notRegex(stderr, /\n +at /);
  tt.regex(stderr, /^\[error\] stdout: EPIPE: broken pipe, write$/m);
});

test('stdin that another process made non-blocking, and that is empty at first', async (tt) => {
  // To open its stdin, Node sets O_NONBLOCK on the pipe, which the function then inherits.
  const parent = `process.stdin; require('child_process').spawn(${JSON.stringify(
    join(import.meta.dirname, '../../functions/dist/validate-vpn'),
  )}, { stdio: 'inherit' })`;
  const child = execa(process.execPath, ['--eval', parent], { reject: false });
  const input = list(goodSpec());
  child.stdin.write(input.slice(0, 100));
  await new Promise((resolve) => setTimeout(resolve, 1000));
  child.stdin.end(input.slice(100));
  const { stdout, stderr } = await child;
  tt.false(stderr.includes('EAGAIN'), stderr);
  tt.regex(stdout, /kind: ResourceList/);
});
