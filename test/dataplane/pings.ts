/** Pings that go on while something happens. A program of C: in a guest without KVM each one of Node takes seconds. */
import { createInterface } from 'node:readline';
import type { Netns } from './netns.ts';

export interface PingReport {
  sent: number;
  received: number;
  /** Sequence numbers of those without an answer, before the last one that has one. */
  lost: number[];
  /** Between two answers, or the last and the end. About the interval where none is lost. */
  longestGapMs: number;
}

export interface Pings {
  /** Resolves with the time in ms until the next answer comes. Throws after `limitMs`. */
  next(limitMs: number): Promise<number>;
  /** The last one may still be on its way. Again: the same report. */
  stop(): Promise<PingReport>;
}

export function startPings(from: Netns, to: string, { intervalMs = 100 } = {}): Pings {
  const args = ['-n', '-i', String(intervalMs / 1000), to];
  const child = from.start('ping', args, { env: { LC_ALL: 'C' }, buffer: false });
  const answered = new Set<number>();
  let sent = 0;
  let lastAt = performance.now();
  let longestGapMs = 0;
  const pass = (): void => {
    longestGapMs = Math.max(longestGapMs, Math.round(performance.now() - lastAt));
    lastAt = performance.now();
  };
  let onAnswer = (): void => undefined;
  const lines = createInterface(child.stdout);
  lines.on('line', (line) => {
    const sequence = /icmp_seq=(\d+) ttl=/.exec(line)?.[1];
    if (sequence !== undefined) {
      answered.add(Number(sequence));
      pass();
      onAnswer();
    }
    sent = Number(/^(\d+) packets transmitted/.exec(line)?.[1] ?? sent);
  });
  const over = new Promise((resolve) => lines.once('close', resolve));
  return {
    async next(limitMs) {
      const started = performance.now();
      await new Promise<void>((resolve, reject) => {
        const late = () => reject(new Error(`no answer from ${to} within ${limitMs} ms`));
        const timer = setTimeout(late, limitMs);
        onAnswer = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      return Math.round(performance.now() - started);
    },
    async stop() {
      if (child.exitCode === null) pass();
      child.kill('SIGINT');
      await Promise.all([child, over]);
      const last = Math.max(0, ...answered);
      const lost = Array.from({ length: last }, (_, i) => i + 1).filter((sequence) => !answered.has(sequence));
      return { sent, received: answered.size, lost, longestGapMs };
    },
  };
}
