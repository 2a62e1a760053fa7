/** One thing that can be known before deployment. Rules read, and never change anything. */
import type { Config } from '../../model/config.ts';
import type { Item, Result, Severity } from '../../model/krm.ts';

export type Rule = (config: Config, items: readonly Item[]) => Result[];

/** A result about a field of the configuration. */
export function inConfig(
  config: Config,
  severity: Severity,
  path: string,
  message: string,
  currentValue?: unknown,
): Result {
  return {
    severity,
    message,
    resourceRef: config.ref,
    field: { path, ...(currentValue === undefined ? {} : { currentValue }) },
  };
}

/** How a site is called in messages. */
export const called = (name: string): string => (name === '' ? 'the site' : `site ${name}`);
