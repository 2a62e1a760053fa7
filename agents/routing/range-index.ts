/** Finds the ranges that a prefix is in, however many there are. */
import { familyOf, parentOf, prefixLength, type Cidr, type Family } from '../../functions/model/cidr.ts';

export class RangeIndex<T extends { readonly cidr: Cidr }> {
  readonly #byCidr = new Map<Cidr, T>();
  /** Prefix lengths that occur, of each family. */
  readonly #lengths: Record<Family, Set<number>> = { 4: new Set(), 6: new Set() };

  constructor(entries: readonly T[]) {
    for (const entry of entries) {
      this.#byCidr.set(entry.cidr, entry);
      this.#lengths[familyOf(entry.cidr)].add(prefixLength(entry.cidr));
    }
  }

  get size(): number {
    return this.#byCidr.size;
  }

  get(cidr: Cidr): T | undefined {
    return this.#byCidr.get(cidr);
  }

  all(): T[] {
    return [...this.#byCidr.values()];
  }

  /** Every entry whose range holds the whole prefix, or is the prefix. */
  around(prefix: Cidr): T[] {
    const own = prefixLength(prefix);
    return [...this.#lengths[familyOf(prefix)]].flatMap((length) => {
      const entry = length > own ? undefined : this.#byCidr.get(length === own ? prefix : parentOf(prefix, length));
      return entry === undefined ? [] : [entry];
    });
  }
}
