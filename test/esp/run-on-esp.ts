/**
 * node run-on-esp.ts <command>: runs it, in this folder, on a kernel with ESP: this machine's own where it has ESP, otherwise
 * Debian's in QEMU. Ends with the command's exit code, or with 125 where it could not be run to its end.
 */
import { dirname } from 'node:path';
import { execa } from 'execa';
import { agentBundle, AGENTS_FOLDER } from '../api/agent.ts';
import { hasESP } from './has-esp.ts';
import { findAccelerator, GuestFailed, runInGuest } from './guest.ts';
import { findKernel } from './kernel.ts';

/** With KVM or an idle machine the tier takes a tenth of it. */
const LIMIT_MS = 25 * 60_000;
const FAILED = 125;
/** Variables that the command gets in the guest. */
const VARIABLES = ['PATH', 'HOME', 'CI', 'FORCE_COLOR'];

const log = (line: string): void => void process.stderr.write(`${line}\n`);

const command = process.argv.slice(2);
process.exitCode = (await hasESP()) ? await runHere() : await runInQemu();

async function runHere(): Promise<number> {
  const [program = '', ...args] = command;
  const { exitCode = FAILED } = await execa(program, args, { stdio: 'inherit', reject: false });
  return exitCode;
}

async function runInQemu(): Promise<number> {
  const kernel = await findKernel(log);
  const accelerator = await findAccelerator(kernel);
  log(`esp: this kernel has no ESP, so ${kernel.release} runs in QEMU (${accelerator})`);
  const agents = dirname(await agentBundle('routing'));
  const env = {
    ...Object.fromEntries(VARIABLES.map((name) => [name, process.env[name]] as const).filter(isSet)),
    [AGENTS_FOLDER]: agents,
  };
  try {
    return await runInGuest(
      kernel,
      { command, cwd: process.cwd(), env },
      {
        accelerator,
        limitMs: LIMIT_MS,
        stdout: (chunk) => void process.stdout.write(chunk),
        stderr: (chunk) => void process.stderr.write(chunk),
      },
    );
  } catch (error) {
    if (!(error instanceof GuestFailed)) throw error;
    log(`esp: ${error.message}`);
    return FAILED;
  }
}

function isSet(variable: readonly [string, string | undefined]): variable is readonly [string, string] {
  return variable[1] !== undefined;
}
