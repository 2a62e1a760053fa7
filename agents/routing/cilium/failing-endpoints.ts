/** Which endpoints Cilium's agent fails to regenerate, and why: facts of cilium/cilium pkg/endpoint/policy.go. Pure. */
import type { Controller, LogEntry } from './api.ts';

/**
 * Every endpoint has this controller. It waits for a regeneration that fails, then tries again and again, and counts its
 * failures; a regeneration that ends because the pod goes is none (startRegenerationFailureHandler).
 */
const RECOVERY = /^endpoint-(\d+)-regeneration-recovery$/;
const MAX_LENGTH = 300;

export interface Regeneration {
  /** How many endpoints the agent knows. */
  readonly endpoints: number;
  /** Ids of those that failed, and failed again when the agent tried once more. */
  readonly failing: readonly number[];
}

export function regenerationOf(controllers: readonly Controller[]): Regeneration {
  const failing: number[] = [];
  let endpoints = 0;
  for (const { name = '', status } of controllers) {
    const id = RECOVERY.exec(name)?.[1];
    if (id === undefined) continue;
    endpoints += 1;
    if ((status?.['consecutive-failure-count'] ?? 0) > 0) failing.push(Number(id));
  }
  return { endpoints, failing: failing.toSorted((a, b) => a - b) };
}

/** The agent's own words for the last failure of an endpoint, in one line; undefined where its log has none. */
export function failureOf(log: readonly LogEntry[]): string | undefined {
  const words = log
    .find(({ code }) => code === 'Failure')
    ?.message?.replaceAll(/\s+/g, ' ')
    .trim();
  return words !== undefined && words.length > MAX_LENGTH ? `${words.slice(0, MAX_LENGTH)}…` : words;
}
