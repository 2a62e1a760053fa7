/** endpoint-sync as a process: the bundle that its image holds, with a kubeconfig in place of a Pod's ServiceAccount. */
import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { execa } from 'execa';
import { buildAgents, NODE_FLAGS, type AGENTS } from '../../scripts/build-agents.ts';
import { CILIUM_NAMESPACE, NAMESPACE } from './cilium.ts';

export interface LogRecord {
  ts: string;
  level: string;
  component: string;
  msg: string;
  object?: unknown;
  rule?: unknown;
  problem?: unknown;
  port?: unknown;
  [key: string]: unknown;
}

/** A folder as kubelet mounts a ConfigMap: files are links through `..data`, which a change swaps. */
export class ConfigVolume {
  readonly folder: string;
  #generation: string | undefined;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async create(config?: string): Promise<ConfigVolume> {
    const volume = new ConfigVolume(await mkdtemp(join(tmpdir(), 'constellation-vpn-config-')));
    if (config !== undefined) await volume.set(config);
    return volume;
  }

  get file(): string {
    return join(this.folder, 'config.json');
  }

  async set(config: string): Promise<void> {
    const generation = `..${randomUUID()}`;
    await mkdir(join(this.folder, generation));
    await writeFile(join(this.folder, generation, 'config.json'), config);
    await symlink(generation, join(this.folder, '..data_tmp'));
    await rename(join(this.folder, '..data_tmp'), join(this.folder, '..data'));
    if (this.#generation === undefined) await symlink('..data/config.json', this.file);
    else await rm(join(this.folder, this.#generation), { recursive: true });
    this.#generation = generation;
  }

  remove(): Promise<void> {
    return rm(this.folder, { recursive: true, force: true });
  }
}

/** A folder that has them already: building takes half a minute in a guest of the tier esp. */
export const AGENTS_FOLDER = 'CONSTELLATION_VPN_AGENTS';

let folder: Promise<string> | undefined;
/** Path of an agent's bundle. Built once for each process. */
export async function agentBundle(name: (typeof AGENTS)[number]): Promise<string> {
  folder ??= process.env[AGENTS_FOLDER] === undefined ? buildOnce() : Promise.resolve(process.env[AGENTS_FOLDER]);
  return join(await folder, `${name}.mjs`);
}

async function buildOnce(): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), 'constellation-vpn-agents-'));
  process.once('exit', () => rmSync(made, { recursive: true, force: true }));
  await buildAgents(made);
  // An agent that is not root reads it, too.
  await chmod(made, 0o755);
  return made;
}

const common = (kubeconfig: string): string[] => [
  '--kubeconfig',
  kubeconfig,
  '--namespace',
  NAMESPACE,
  '--cilium-namespace',
  CILIUM_NAMESPACE,
];

export interface Agent {
  readonly log: LogRecord[];
  readonly pid: number;
  readonly url: string;
  /** The values of all samples of a metric, by their labels as written: `{object="CiliumEndpoint"}`, or `''`. */
  metric(name: string): Promise<Record<string, number>>;
  ready(): Promise<{ status: number; text: string }>;
  /** Records of level error. */
  errors(): LogRecord[];
  /** Waits for the process's end. Default: SIGTERM. */
  stop(signal?: NodeJS.Signals): Promise<number | undefined>;
}

/** Of Prometheus' text format the samples of one metric, by their labels as written. */
export function samplesOf(text: string, name: string): Record<string, number> {
  const samples = [...text.matchAll(/^(\w+)(\{[^}]*\})? (\S+)$/gm)].filter(([, sample]) => sample === name);
  return Object.fromEntries(samples.map(([, , labels = '', value]) => [labels, Number(value)]));
}

/** Resolves when its HTTP server listens. */
export async function startAgent(kubeconfig: string, volume: ConfigVolume): Promise<Agent> {
  const child = execa(
    process.execPath,
    [...NODE_FLAGS, await agentBundle('endpoint-sync'), ...common(kubeconfig), '--config', volume.file, '--port', '0'],
    { reject: false, buffer: false, stderr: 'inherit' },
  );
  const log: LogRecord[] = [];
  createInterface(child.stdout).on('line', (line) => log.push(JSON.parse(line) as LogRecord));
  const started = await until(() => log.find(({ msg }) => msg === 'started'), 'the agent to start');
  const url = `http://127.0.0.1:${String(started.port)}`;
  return {
    log,
    pid: child.pid ?? 0,
    url,
    errors: () => log.filter(({ level }) => level === 'error'),
    metric: async (name) => samplesOf(await (await fetch(`${url}/metrics`)).text(), name),
    async ready() {
      const response = await fetch(`${url}/readyz`);
      return { status: response.status, text: await response.text() };
    },
    async stop(signal = 'SIGTERM') {
      child.kill(signal);
      return (await child).exitCode;
    },
  };
}

export async function cleanup(
  kubeconfig: string,
): Promise<{ exitCode: number | undefined; log: LogRecord[]; stderr: string }> {
  const { exitCode, stdout, stderr } = await execa(
    process.execPath,
    [await agentBundle('endpoint-sync'), 'cleanup', ...common(kubeconfig)],
    { reject: false },
  );
  const lines = stdout.split('\n').filter((line) => line !== '');
  return { exitCode, log: lines.map((line) => JSON.parse(line) as LogRecord), stderr };
}

/**
 * The first value of `read` that is neither undefined nor false. The limit is far above what it takes on an idle machine: a
 * test that states a time measures it.
 */
export async function until<T>(
  read: () => T | Promise<T>,
  what: string,
  limitMs = 60_000,
): Promise<Exclude<T, undefined | false>> {
  const end = performance.now() + limitMs;
  for (;;) {
    const value = await read();
    if (value !== undefined && value !== false) return value as Exclude<T, undefined | false>;
    if (performance.now() > end) throw new Error(`waited ${limitMs} ms in vain for ${what}`);
    await sleep(20);
  }
}

/** What `read` answers once it answers the same twice, `quietMs` apart. */
export async function settled<T>(read: () => Promise<T>, what: string, quietMs = 1_000): Promise<T> {
  let last = await read();
  const { same } = await until(async () => {
    await sleep(quietMs);
    const before = last;
    last = await read();
    return isDeepStrictEqual(last, before) && { same: last };
  }, `${what} to stay the same`);
  return same;
}
