/** Takes every route of ours from this node. */
import { change } from './kernel/ip.ts';
import { PROTO } from './kernel/route.ts';
import { readMainTable } from './kernel/state.ts';
import { RangeIndex } from './range-index.ts';
import type { Wanted } from './routes/desired.ts';
import { planRoutes } from './routes/plan.ts';

export interface CleanedUp {
  /** Routes that were deleted. */
  readonly deleted: number;
  /** Why some are left, a sentence each; none: nothing of ours is. */
  readonly problems: readonly string[];
}

export async function cleanUpRoutes(): Promise<CleanedUp> {
  const before = await planDeletions();
  const refused = await change(before.map(({ route }) => `route delete ${route} proto ${PROTO}`));
  const left = await planDeletions();
  const reasons = [...new Set(refused.values())].join('; ') || 'they came back: does the DaemonSet still run?';
  return {
    deleted: before.length - left.length,
    problems:
      left.length === 0 ? [] : [`${left.length} routes are left, ${left[0]?.cidr} the first of them: ${reasons}`],
  };
}

const planDeletions = async () =>
  planRoutes(new RangeIndex<Wanted>([]), { routes: await readMainTable(), addresses: [] }).steps;
