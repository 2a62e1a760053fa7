/**
 * Runs the test tiers: `npm test` all of them but those that take too long, `npm run test:<tier>` one. Prints every failure
 * as it happens and last one line `N passed, N failed, N skipped`. A tier whose machine lacks something is left out with the
 * reason; in CI (CI=true) that is a failure.
 */
import { dirname } from 'node:path';
import { readFile } from 'node:fs/promises';
import { release } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { ToolMissing } from '../scripts/tools.ts';
import { hasESP } from './esp/has-esp.ts';
import { findKernel } from './esp/kernel.ts';
import { lacking } from './lacking.ts';

interface Tier {
  readonly files: readonly string[];
  /** What runs them and prints TAP, where that isn't ava. */
  readonly command?: readonly string[];
  /** Why this machine can't run it, or undefined. */
  readonly missing: () => Promise<string | undefined>;
  /** Takes too long for every change. */
  readonly onlyByName?: boolean;
}

const AVA = ['ava', '--tap'];
/** A cluster each: two at a time take turns on a small machine, and what is measured is worse for it. */
const ONE_BY_ONE = [...AVA, '--concurrency=1'];
const missingForCluster = async (): Promise<string | undefined> =>
  (await unableNetwork()) ?? (await unableCilium()) ?? lacking('cluster');

const TIERS: Record<string, Tier> = {
  unit: {
    files: [
      'functions/**/*_test.ts',
      'agents/**/*_test.ts',
      'scripts/**/*_test.ts',
      'cli/values_test.ts',
      'test/functions/**/*_test.ts',
      'test/fakes/**/*_test.ts',
      'test/arch_test.ts',
    ],
    missing: () => lacking('unit'),
  },
  render: {
    files: ['test/render/**/*_test.ts', 'cli/import_test.ts', 'test/docs_test.ts'],
    missing: () => lacking('render'),
  },
  api: {
    files: ['test/api/**/*_test.ts'],
    missing: () => lacking('api'),
  },
  dataplane: {
    files: ['test/dataplane/**/*_test.ts'],
    missing: async () => (await unableNetwork()) ?? lacking('dataplane'),
  },
  esp: {
    files: ['test/esp/kernel_test.ts', 'test/esp/agent_test.ts'],
    command: [
      process.execPath,
      fileURLToPath(new URL('esp/run-on-esp.ts', import.meta.url)),
      process.execPath,
      '--test',
      '--test-concurrency=1',
      `--test-reporter=${fileURLToPath(new URL('esp/reporter.ts', import.meta.url))}`,
    ],
    missing: async () => (await lacking('esp')) ?? ((await hasESP()) ? undefined : lackingGuest()),
  },
  images: {
    files: ['test/images/**/*_test.ts'],
    missing: () => lacking('images'),
  },
  cluster: {
    files: ['test/cluster/*_test.ts'],
    command: ONE_BY_ONE,
    missing: async () =>
      process.env.KUBECONFIG === undefined ? missingForCluster() : ((await unableNetwork()) ?? lacking('existing')),
  },
  modes: {
    files: ['test/cluster/modes.ts', 'test/cluster/broken.ts'],
    command: ONE_BY_ONE,
    missing: async () =>
      process.env.KUBECONFIG === undefined
        ? missingForCluster()
        : '$KUBECONFIG is set, and these tests make clusters of their own',
    onlyByName: true,
  },
};

/** What a kernel with ESP takes where this machine's own has none. */
async function lackingGuest(): Promise<string | undefined> {
  if (process.arch !== 'x64') return 'this kernel has no ESP, and the guest that has is for x86-64 alone';
  const command = await lacking('guest');
  if (command !== undefined) return `this kernel has no ESP, and ${command}`;
  try {
    await findKernel((line) => console.error(line));
    return undefined;
  } catch (error) {
    if (error instanceof ToolMissing) return error.message;
    throw error;
  }
}

/** Network namespaces want root, and a kernel that lets them be made. */
async function unableNetwork(): Promise<string | undefined> {
  const { exitCode, stderr } = await execa('unshare', ['--net', 'true'], { reject: false });
  return exitCode === 0 ? undefined : `network namespaces can't be made here (root is needed): ${stderr}`;
}

/** As root, tests start programs of this checkout as other users, as an image of the agents does. */
async function isClosedToOthers(): Promise<boolean> {
  if (process.getuid?.() !== 0) return false;
  const { exitCode } = await execa('test', ['-r', import.meta.filename], { uid: 65532, gid: 65532, reject: false });
  return exitCode !== 0;
}

/** What a node of Cilium wants of this machine's kernel. */
async function unableCilium(): Promise<string | undefined> {
  const mounts = await readFile('/proc/self/mounts', 'utf8');
  if (!/ cgroup2 /.test(mounts)) return 'no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified';
  if (!/\tbpf$/m.test(await readFile('/proc/filesystems', 'utf8')))
    return 'this kernel has no file system `bpf` (CONFIG_BPF_SYSCALL)';
  const [major = 0, minor = 0] = release().split('.').map(Number.parseFloat);
  return major * 100 + minor < 510 ? `this kernel is ${release()}, and Cilium's programs take 5.10` : undefined;
}

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** Lines of TAP that say nothing to a reader. */
const NOISE = /^(TAP version|1\.\.|# (tests|pass|fail|skip|todo)|\s*$)/;

function countLine(line: string, counts: Counts): void {
  if (/^(not )?ok .*# (SKIP|TODO)/.test(line)) counts.skipped += 1;
  else if (line.startsWith('ok ')) counts.passed += 1;
  else if (line.startsWith('not ok ')) counts.failed += 1;
}

/** Runs a tier's tests and passes their TAP on: passed tests as one line each, failed ones with all that ava says of them. */
async function runTier(name: string, { files, command = AVA }: Tier, counts: Counts): Promise<void> {
  const [program = '', ...args] = [...command, ...files];
  const child = execa(program, args, {
    preferLocal: true,
    reject: false,
    stderr: 'inherit',
    buffer: false,
    env: { FORCE_COLOR: '0' },
  });
  const before = { ...counts };
  for await (const line of child) {
    countLine(line, counts);
    if (!NOISE.test(line)) console.log(`${name}: ${line}`);
  }
  const { exitCode } = await child;
  const ranNone = counts.passed === before.passed;
  if (counts.failed === before.failed && (exitCode !== 0 || ranNone)) {
    counts.failed += 1;
    console.log(`${name}: not ok - the tests ended with ${exitCode ?? 'a signal'}${ranNone ? ' and ran no test' : ''}`);
  }
}

const { positionals } = parseArgs({ allowPositionals: true });
const unknown = positionals.filter((name) => !Object.hasOwn(TIERS, name));
if (unknown.length > 0) {
  console.error(`no such tier: ${unknown.join(', ')}. There are ${Object.keys(TIERS).join(', ')}.`);
  process.exit(1);
}
if (await isClosedToOthers()) {
  const folder = dirname(import.meta.dirname);
  console.error(
    `${folder} can't be read by other users, and some tests need that: clone into another folder (/srv, say).`,
  );
  process.exit(1);
}
const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
for (const [name, tier] of Object.entries(TIERS)) {
  if (positionals.length > 0 ? !positionals.includes(name) : tier.onlyByName === true) continue;
  const started = Date.now();
  const reason = await tier.missing();
  if (reason === undefined) {
    await runTier(name, tier, counts);
    console.log(`${name}: done in ${Math.round((Date.now() - started) / 1000)} s`);
  } else if (process.env.CI === 'true') {
    counts.failed += 1;
    console.log(`${name}: not ok - can't run here, which in CI is a failure: ${reason}`);
  } else {
    console.log(`${name}: left out, this machine can't run it: ${reason}`);
  }
}
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exitCode = counts.failed === 0 ? 0 : 1;
