/** The import rules bite: each of them is broken once, in a copy of the tree, and must be reported by its name. */
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';

const ROOT = new URL('..', import.meta.url).pathname;

async function cruise(file: string, text: string): Promise<{ exitCode: number | undefined; output: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-arch-'));
  for (const part of [
    'functions/model',
    'functions/lib',
    'functions/src',
    'agents',
    'scripts',
    'test',
    'tsconfig.json',
    'package.json',
    '.dependency-cruiser.cjs',
  ])
    await cp(join(ROOT, part), join(folder, part), { recursive: true });
  await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  await mkdir(dirname(join(folder, file)), { recursive: true });
  await writeFile(join(folder, file), text);
  const { exitCode, stdout, stderr } = await execa(
    join(ROOT, 'node_modules/.bin/depcruise'),
    ['functions', 'agents', 'scripts', 'test'],
    { cwd: folder, reject: false },
  );
  await rm(folder, { recursive: true });
  return { exitCode, output: `${stdout}\n${stderr}` };
}

const broken = test.macro(async (t, rule: string, file: string, text: string) => {
  const { exitCode, output } = await cruise(file, text);
  t.not(exitCode, 0);
  t.regex(output, new RegExp(`error ${rule}:`), output);
});

test('the tree keeps every rule, and modules are cruised at all', async (t) => {
  const { exitCode, output } = await cruise('functions/src/innocent.ts', 'export const x = 1;\n');
  t.is(exitCode, 0, output);
  const [, modules] = /\((\d+) modules/.exec(output) ?? [];
  t.true(Number(modules) > 30, output);
});
test(
  'model: no file system',
  broken,
  'model-stands-alone',
  'functions/model/bad.ts',
  "import { readFileSync } from 'node:fs';\nexport const x = readFileSync;\n",
);
test(
  'model: no YAML',
  broken,
  'model-stands-alone',
  'functions/model/bad.ts',
  "import { load } from 'js-yaml';\nexport const x = load;\n",
);
test(
  'functions: no file system',
  broken,
  'functions-are-pure',
  'functions/src/bad.ts',
  "import { readFileSync } from 'node:fs';\nexport const x = readFileSync;\n",
);
test(
  'functions: no runner',
  broken,
  'only-run-files-run',
  'functions/src/bad.ts',
  "import { main } from '../lib/run.ts';\nexport const x = main;\n",
);
test(
  'runner: knows no function',
  broken,
  'lib-knows-no-function',
  'functions/lib/bad.ts',
  "import { NAME } from '../src/validate-vpn.ts';\nexport const x = NAME;\n",
);
test(
  'functions: nothing of scripts',
  broken,
  'functions-know-nobody-else',
  'functions/lib/bad.ts',
  "import { FUNCTIONS } from '../../scripts/build.ts';\nexport const x = FUNCTIONS;\n",
);
test(
  'agents: no function',
  broken,
  'agents-know-the-model-only',
  'agents/lib/bad.ts',
  "import { NAME } from '../../functions/src/validate-vpn.ts';\nexport const x = NAME;\n",
);
test(
  'agents: none knows another',
  broken,
  'agents-know-not-each-other',
  'agents/routing/bad.ts',
  "import { WriteBudget } from '../endpoint-sync/write-budget.ts';\nexport const x = WriteBudget;\n",
);
test(
  'agents: sockets in agents/lib alone',
  broken,
  'only-agents-lib-touches-the-world',
  'agents/endpoint-sync/bad.ts',
  "import { get } from 'node:http';\nexport const x = get;\n",
);
test(
  'agents: the Kubernetes client in agents/lib alone',
  broken,
  'only-agents-lib-touches-the-world',
  'agents/endpoint-sync/bad.ts',
  "import { KubeConfig } from '@kubernetes/client-node/dist/config.js';\nexport const x = KubeConfig;\n",
);
test(
  'scripts: nothing of test',
  broken,
  'only-tests-and-benchmarks-import-test',
  'scripts/bad.ts',
  "import '../test/run.ts';\n",
);
test(
  'no cycles',
  broken,
  'no-cycles',
  'functions/model/bad.ts',
  "import './bad2.ts';\nimport { y } from './bad.ts';\nexport const x = y;\nexport const y = 1;\n",
);
test(
  'no unresolvable import',
  broken,
  'resolvable',
  'scripts/bad.ts',
  "import x from 'no-such-package';\nexport default x;\n",
);
