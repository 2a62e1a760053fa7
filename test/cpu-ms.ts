/** Milliseconds that this thread computes for `run`. Unlike the clock's, they do not grow with what else a machine does. */
export function cpuMs(run: () => void): number {
  const before = process.threadCpuUsage();
  run();
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1_000;
}
