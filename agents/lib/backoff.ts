/** How long to wait before the next try. */

export interface BackoffLimits {
  /** Before the second try, in milliseconds. */
  readonly firstMs: number;
  /** Never longer than this. */
  readonly maxMs: number;
}

/**
 * Doubles with each failure in a row (1, 2, …), and takes a random part of the upper half, so that agents which failed
 * together do not come back together.
 */
export function backoffMs(
  failures: number,
  { firstMs, maxMs }: BackoffLimits,
  random: () => number = Math.random,
): number {
  const full = Math.min(maxMs, firstMs * 2 ** Math.min(failures - 1, 30));
  return full / 2 + (full / 2) * random();
}
