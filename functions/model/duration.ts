import { Codec, fail, nameOf } from './codec.ts';
import * as t from 'io-ts';

const SECONDS = { s: 1, m: 60, h: 3600, d: 86400 } as const;

/**
 * A time as swanctl writes it: whole seconds, or a number with the unit s, m, h or d (`30s`, `4h`).
 * Canonical: seconds. `minimum` and `maximum` in seconds, both included.
 */
export function duration(minimum: number, maximum: number): Codec<number> {
  const schema = {
    oneOf: [
      { type: 'integer', minimum, maximum },
      { type: 'string', pattern: '^[0-9]+[smhd]?$' },
    ],
  };
  return new Codec('duration', schema, (u, c) => {
    const seconds = secondsOf(u);
    if (seconds === undefined)
      return fail(
        u,
        c,
        `expected a time such as 30, 30s, 5m or 4h, found ${typeof u === 'string' ? 'other text' : nameOf(u)}`,
      );
    return seconds >= minimum && seconds <= maximum
      ? t.success(seconds)
      : fail(u, c, `must be from ${minimum} to ${maximum} seconds`);
  });
}

function secondsOf(u: unknown): number | undefined {
  if (typeof u === 'number') return Number.isInteger(u) ? u : undefined;
  const [, digits, unit = 's'] = typeof u === 'string' ? (/^(\d{1,9})([smhd])?$/.exec(u) ?? []) : [];
  return digits === undefined ? undefined : Number(digits) * SECONDS[unit as keyof typeof SECONDS];
}
