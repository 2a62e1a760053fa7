import { setFlagsFromString } from 'node:v8';

/**
 * To be called first of all. An agent waits nearly all of its time, so V8's optimizing compilers gain it nothing, and cost
 * 15 MiB of resident memory: docs/benchmarks.md. Code that is not hot yet is not concerned, which is what makes it safe
 * to set these at run time (nodejs.org/api/v8.html, v8.setFlagsFromString).
 */
export function keepSmall(): void {
  for (const flag of ['--no-opt', '--no-maglev']) setFlagsFromString(flag);
}
