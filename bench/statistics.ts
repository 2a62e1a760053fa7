/** Figures and tables of the benchmarks. */
import { readFileSync } from 'node:fs';

const sorted = (all: readonly number[]): number[] => [...all].sort((a, b) => a - b);
export const quantile = (all: readonly number[], q: number): number =>
  sorted(all)[Math.min(all.length - 1, Math.floor(all.length * q))] ?? Number.NaN;
export const ms = (value: number): string => (value < 100 ? value.toFixed(1) : value.toFixed(0));
/** One row of a Markdown table, on stdout. */
export const row = (...cells: string[]): void => console.log(`| ${cells.join(' | ')} |`);
export const progress = (line: string): void => void process.stderr.write(`${line}\n`);

/** Seconds of CPU time that a process and its ended children took (proc(5), stat: utime, stime, cutime, cstime in 1/100 s). */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / 100;
}
/** Resident memory of a process: all of it, and what it shares with nobody. */
export function memoryMiB(pid: number): { resident: number; anonymous: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]) / 1024;
  return { resident: field('VmRSS'), anonymous: field('RssAnon') };
}
