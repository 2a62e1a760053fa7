/**
 * The configuration as the agents read it: `config.json` of the ConfigMap vpn-config, mounted as a volume. Kubernetes
 * changes such a volume by swapping the symbolic link `..data` in its folder (pkg/volume/util/atomic_writer.go).
 */
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import * as E from 'fp-ts/lib/Either.js';
import { problems } from '../../functions/model/codec.ts';
import { ConstellationVpn, type Vpn } from '../../functions/model/vpn.ts';
import { followFolder } from './follow-folder.ts';
import type { Log } from './log.ts';

/** The configuration, or what is wrong with the text: one sentence each, field path first, no value quoted. */
export function parseConfig(text: string): { vpn: Vpn } | { problems: string[] } {
  if (text.trim() === '')
    return {
      problems: [
        'is empty: the manifests were applied without the functions having run (kustomize needs --enable-alpha-plugins and --enable-exec); render and apply again',
      ],
    };
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return { problems: ['is not JSON: render and apply again'] };
  }
  const decoded = ConstellationVpn.decode(json);
  if (E.isRight(decoded)) return { vpn: decoded.right };
  return {
    problems: problems(decoded.left).map(({ path, message }) => (path === '' ? message : `${path} ${message}`)),
  };
}

interface Options {
  readonly file: string;
  readonly log: Log;
  /** A new configuration that is valid. */
  readonly onChange: (vpn: Vpn) => void;
}

/** Follows the file. A broken one keeps the last good one in force. */
export class ConfigFile {
  readonly #options: Options;
  #text: string | undefined;
  #vpn: Vpn | undefined;
  #problems: readonly string[] = ['has not been read yet'];

  constructor(options: Options) {
    this.#options = options;
  }

  /** The last good configuration. */
  get vpn(): Vpn | undefined {
    return this.#vpn;
  }

  /** What is wrong with the file as it is now, each with its path; none: it is in force. */
  get problems(): readonly string[] {
    return this.#problems.map((problem) => `configuration ${this.#options.file}: ${problem}`);
  }

  /** Reads, then follows changes until `signal` is aborted. */
  follow(signal: AbortSignal): Promise<void> {
    return followFolder(dirname(this.#options.file), () => this.read(), signal);
  }

  async read(): Promise<void> {
    const { file, log, onChange } = this.#options;
    const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => error);
    if (typeof text !== 'string') {
      this.#text = undefined;
      const reason = text.code === 'ENOENT' ? 'is missing' : `can't be read (${text.code ?? text.message})`;
      return this.#broken([`${reason}: the ConfigMap vpn-config must be mounted there, with the key config.json`]);
    }
    if (text === this.#text) return;
    this.#text = text;
    const parsed = parseConfig(text);
    if ('problems' in parsed) return this.#broken(parsed.problems);
    this.#problems = [];
    this.#vpn = parsed.vpn;
    const cidrs = parsed.vpn.sites.reduce((sum, { peerCIDRs }) => sum + peerCIDRs.length, 0);
    log.info({ file, sites: parsed.vpn.sites.length, cidrs }, 'configuration read');
    onChange(parsed.vpn);
  }

  #broken(problems: readonly string[]): void {
    if (problems.join('\n') === this.#problems.join('\n')) return;
    this.#problems = problems;
    const kept = this.#vpn !== undefined;
    const { file, log } = this.#options;
    for (const problem of problems)
      log.error(
        { file, problem },
        kept
          ? 'configuration refused, the last good one stays in force'
          : 'configuration refused, waiting for a valid one',
      );
  }
}
