/** The one list of what the tests need on a Debian machine: scripts/needs.tsv, whose head says what its columns are. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const WHO = [
  'unit',
  'render',
  'api',
  'dataplane',
  'esp',
  'guest',
  'images',
  'base-image',
  'cluster',
  'existing',
  'go',
] as const;
/** A tier of the tests, or one of the others in the list's head. */
export type Who = (typeof WHO)[number];

export interface Need {
  /** A program's name, or the absolute path of a file. */
  readonly file: string;
  /** Debian's. */
  readonly package: string;
  readonly who: readonly Who[];
  readonly why: string;
}

/** Throws where a line is not as the list's head says. */
export function parseNeeds(text: string): Need[] {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return lines.map((line) => {
    const [file = '', name = '', who = '', why = '', ...more] = line.split('\t');
    const words = who.split(' ');
    if (why === '' || more.length > 0) throw new Error(`needs.tsv: not four columns with tabs between: ${line}`);
    if (!words.every(isWho)) throw new Error(`needs.tsv: ${who}: a word is none of ${WHO.join(', ')}`);
    return { file, package: name, who: words, why };
  });
}

const isWho = (word: string): word is Who => (WHO as readonly string[]).includes(word);

const LIST = join(import.meta.dirname, 'needs.tsv');
export const NEEDS: readonly Need[] = parseNeeds(readFileSync(LIST, 'utf8'));
export const needsOf = (who: Who): Need[] => NEEDS.filter((need) => need.who.includes(who));
