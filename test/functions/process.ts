/** Starts the executables of functions/dist, as kustomize and kpt do. */
import { join } from 'node:path';
import { execa } from 'execa';
import { FUNCTIONS } from '../../scripts/build.ts';

export { FUNCTIONS };
export type FunctionName = (typeof FUNCTIONS)[number];

const DIST = join(import.meta.dirname, '../../functions/dist');

export interface Ran {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

export async function start(
  name: FunctionName,
  input: string | Uint8Array,
  args: readonly string[] = [],
): Promise<Ran> {
  const { exitCode, stdout, stderr } = await execa(join(DIST, name), [...args], {
    input,
    reject: false,
    stripFinalNewline: false,
    env: { LC_ALL: 'C' },
  });
  return { exitCode, stdout, stderr };
}
