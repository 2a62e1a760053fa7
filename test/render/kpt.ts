/** A kpt package of the repository's own files in a folder of its own, for the render tests. */
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { execa } from 'execa';
import { findTool } from '../../scripts/tools.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const PARTS = [
  'Kptfile',
  '.krmignore',
  'kustomization.yaml',
  'package.json',
  'base',
  'functions/config',
  'functions/dist',
  'overlays',
];

export interface Package {
  readonly folder: string;
  /** Runs `kpt fn render --allow-exec` with more arguments. Never throws on a failed rendering. */
  readonly render: (...args: string[]) => Promise<{ exitCode: number; stdout: string; stderr: string }>;
  /** Every file below the folder but the executables, by its relative path. */
  readonly files: () => Promise<Map<string, string>>;
  readonly remove: () => Promise<void>;
}

/** `config`: the text of functions/config/vpn.yaml in place of the default. */
export async function makePackage(config?: string): Promise<Package> {
  const { path } = await findTool('kpt');
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-kpt-'));
  for (const part of PARTS) await cp(join(ROOT, part), join(folder, part), { recursive: true });
  if (config !== undefined) await writeFile(join(folder, 'functions/config/vpn.yaml'), config);
  return {
    folder,
    async render(...args) {
      const {
        exitCode = 1,
        stdout,
        stderr,
      } = await execa(path, ['fn', 'render', '--allow-exec', '--truncate-output=false', ...args], {
        cwd: folder,
        reject: false,
        stripFinalNewline: false,
      });
      return { exitCode, stdout, stderr };
    },
    async files() {
      const entries = await readdir(folder, { recursive: true, withFileTypes: true });
      const paths = entries
        .filter((entry) => entry.isFile())
        .map(({ parentPath, name }) => relative(folder, join(parentPath, name)));
      const found = new Map<string, string>();
      for (const name of paths.sort())
        if (!name.startsWith('functions/dist/')) found.set(name, await readFile(join(folder, name), 'utf8'));
      return found;
    },
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}
