/** Arguments that more than one agent has, for commander. */
import { InvalidArgumentError } from 'commander';
import { isLeft } from 'fp-ts/lib/Either.js';
import { DnsLabel } from '../../functions/model/name.ts';

/** A namespace's name, which becomes part of paths. */
export function parseName(text: string): string {
  if (isLeft(DnsLabel.decode(text))) throw new InvalidArgumentError('It is no name of a namespace.');
  return text;
}

export function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65_535)
    throw new InvalidArgumentError('It must be a number up to 65535, or 0 for any free one.');
  return port;
}
