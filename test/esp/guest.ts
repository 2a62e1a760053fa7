/**
 * Runs a command on Debian's kernel in QEMU, for machines whose own kernel lacks something. The guest sees the machine's
 * files, writes into memory, and has no network. QEMU needs no root; in the guest the command has it.
 */
import { access, constants, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { execa } from 'execa';
import { END, initramfs, MOUNT_TAG, type Job } from './initramfs.ts';
import type { Kernel } from './kernel.ts';

export type Accelerator = 'kvm' | 'tcg';

/** KVM that starts but does not work has been seen, one that hangs for ever among them. */
const PROBE_LIMIT_MS = 15_000;

/** KVM where a guest has really run with it, else TCG, which takes ten times as long. */
export async function findAccelerator(kernel: Kernel): Promise<Accelerator> {
  const cpu = await readFile('/proc/cpuinfo', 'utf8');
  const usable = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => /^flags\b.*\b(vmx|svm)\b/m.test(cpu),
    () => false,
  );
  if (!usable) return 'tcg';
  const ignore = (): void => undefined;
  const options = { accelerator: 'kvm', limitMs: PROBE_LIMIT_MS, stdout: ignore, stderr: ignore } as const;
  const probe = runInGuest(kernel, { command: ['true'], cwd: '/', env: {} }, options);
  return probe.then(
    (exitCode) => (exitCode === 0 ? 'kvm' : 'tcg'),
    () => 'tcg',
  );
}

export interface GuestOptions {
  readonly accelerator: Accelerator;
  readonly limitMs: number;
  readonly stdout: (chunk: Buffer) => void;
  readonly stderr: (chunk: Buffer) => void;
}

/** The guest did not get as far as the command's end. The message holds the end of what its kernel wrote. */
export class GuestFailed extends Error {
  override name = 'GuestFailed';
}

const MEMORY_MIB = 3072;
const CONSOLE_LINES = 60;

/** Resolves with the command's exit code, and has handed on all of its output by then. Throws GuestFailed. */
export async function runInGuest(kernel: Kernel, job: Job, options: GuestOptions): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), `cvpn-${process.pid}-guest-`));
  const file = (name: string): string => join(folder, name);
  let end: (exitCode: number) => void = () => undefined;
  const done = new Promise<number>((resolve) => (end = resolve));
  const stdout = splitEnd(options.stdout, (exitCode) => end(exitCode));
  const servers = [await listen(file('out'), stdout), await listen(file('err'), options.stderr)];
  try {
    await writeFile(file('initrd'), await initramfs(kernel, job));
    const words = await open(file('words'), 'w');
    const qemu = execa('setpriv', ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...qemuOptions(kernel, options)], {
      cwd: folder,
      stdio: ['ignore', words.fd as 1, words.fd as 1],
      reject: false,
      timeout: options.limitMs,
      killSignal: 'SIGKILL',
    });
    const ended = qemu.then(async ({ timedOut, exitCode, signal }) => {
      const why = timedOut
        ? `was not done after ${options.limitMs / 1000} s`
        : `ended by itself (${signal ?? exitCode})`;
      const read = (name: string) => readFile(file(name), 'utf8').catch(() => '');
      const console = lastLines(`${await read('words')}\n${await read('console')}`);
      throw new GuestFailed(`the guest (${options.accelerator}) ${why}. Its console ends with:\n${console}`);
    });
    try {
      return await Promise.race([done, ended]);
    } finally {
      qemu.kill('SIGKILL');
      await ended.catch(() => undefined);
      await words.close();
    }
  } finally {
    for (const server of servers) server.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Names of files are in QEMU's own folder. */
function qemuOptions(kernel: Kernel, { accelerator }: GuestOptions): string[] {
  const options = [
    `-accel ${accelerator === 'tcg' ? 'tcg,thread=multi' : 'kvm'} -cpu max,arch-capabilities=off -smp 2 -m ${MEMORY_MIB}`,
    '-M pc -nodefaults -no-user-config -no-reboot -display none -serial file:console',
    // The first virtio device, hence /dev/vport0p1 and /dev/vport0p2.
    '-device virtio-serial-pci',
    '-chardev socket,id=out,path=out -device virtserialport,chardev=out,nr=1',
    '-chardev socket,id=err,path=err -device virtserialport,chardev=err,nr=2',
    '-fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap',
    `-device virtio-9p-pci,fsdev=root,mount_tag=${MOUNT_TAG}`,
    '-initrd initrd',
  ];
  // panic=-1, and -no-reboot above: a panic ends QEMU at once.
  const parameters = 'console=ttyS0 quiet panic=-1 oops=panic mitigations=off nokaslr audit=0 random.trust_cpu=on';
  return [...options.join(' ').split(' '), '-kernel', kernel.image, '-append', parameters];
}

/** Hands on what comes before END; what follows, up to the end of the line, is the exit code. */
function splitEnd(before: (chunk: Buffer) => void, code: (code: number) => void): (chunk: Buffer) => void {
  let last: string | undefined;
  return (chunk) => {
    const at = last === undefined ? chunk.indexOf(END) : 0;
    if (at !== 0) before(at < 0 ? chunk : chunk.subarray(0, at));
    if (at < 0) return;
    last = (last ?? '') + chunk.subarray(at).toString();
    if (last.endsWith('\n')) code(Number(last.slice(END.length)));
  };
}

async function listen(path: string, take: (chunk: Buffer) => void): Promise<Server> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(
      new Writable({
        write(chunk: Buffer, _, done) {
          take(chunk);
          done();
        },
      }),
    );
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return server;
}

function lastLines(text: string): string {
  const lines = text.trimEnd().split(/\r?\n/).slice(-CONSOLE_LINES);
  return lines.map((line) => `  ${line}`).join('\n');
}
