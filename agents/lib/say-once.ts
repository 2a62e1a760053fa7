/** What stays wrong is said once, not at every look. */
export class SayOnce {
  readonly #said = new Map<string, string>();

  /** Calls `say` unless the last text for this key was the same. */
  say(key: string, text: string, say: () => void): void {
    if (this.#said.get(key) === text) return;
    this.#said.set(key, text);
    say();
  }

  /** It is over: true where something had been said of the key. */
  over(key: string): boolean {
    return this.#said.delete(key);
  }

  /** All but these are over. */
  retain(keys: ReadonlySet<string>): void {
    for (const key of this.#said.keys()) if (!keys.has(key)) this.#said.delete(key);
  }
}
