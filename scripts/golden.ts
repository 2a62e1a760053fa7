/**
 * Renders every overlay with the real kustomize into `rendered/<overlay>/{vpn,cilium}/`, for Flux, Argo CD and anyone
 * who runs no plugins. The golden files of the render tests at once. `--check` writes nothing and fails where a file is
 * not fresh.
 */
import { readdirSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { findTool } from './tools.ts';
import { writeOrCheck } from './write-or-check.ts';

const ROOT = new URL('..', import.meta.url).pathname;

/** What `kustomize build` prints for a folder of the repository. Throws with kustomize's own words. */
export async function render(folder: string): Promise<string> {
  const { path } = await findTool('kustomize');
  const args = ['build', '--enable-alpha-plugins', '--enable-exec', folder];
  const { exitCode, stdout, stderr } = await execa(path, args, { cwd: ROOT, reject: false, stripFinalNewline: false });
  if (exitCode !== 0) throw new Error(`kustomize build ${folder} failed:\n${stderr}`);
  return stdout;
}

export const OVERLAYS: readonly string[] = readdirSync(`${ROOT}overlays`).sort();

const HEADERS = {
  vpn: 'The VPN itself.',
  cilium: "Cilium's one key and its agents' restart: apply it server-side, never prune it.",
} as const;

/**
 * The manifests as they are kept in git: a Secret is left out and named, for whoever deploys them has to bring it.
 * Documents are told apart by their `kind:` line, which kustomize writes at the line's start.
 */
export function withoutSecrets(manifests: string): string {
  const documents = manifests.split(/^---\n/m);
  const isSecret = (document: string) => /^kind: Secret$/m.test(document);
  const notes = documents.filter(isSecret).map((document) => {
    // kustomize writes data, which may have a key `name`, before metadata
    const [, name] = /^metadata:\n(?: .*\n)*? {2}name: (.*)$/m.exec(document) ?? [];
    return `# Left out: Secret ${name}. Create it before this is applied.\n`;
  });
  return notes.join('') + documents.filter((document) => !isSecret(document)).join('---\n');
}

/** File names below `rendered` with their texts. */
export async function rendered(): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for (const overlay of OVERLAYS) {
    for (const [target, folder] of Object.entries({
      vpn: `overlays/${overlay}`,
      cilium: `overlays/${overlay}/cilium`,
    })) {
      const header = `# Rendered by \`npm run golden\` from ${folder}; do not edit. ${HEADERS[target as keyof typeof HEADERS]}\n`;
      const manifests = withoutSecrets(await render(folder));
      files.set(`${overlay}/${target}/manifests.yaml`, header + manifests);
      files.set(
        `${overlay}/${target}/kustomization.yaml`,
        'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - manifests.yaml\n',
      );
    }
  }
  return files;
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { check: { type: 'boolean' } } });
  await mkdir(`${ROOT}rendered`, { recursive: true });
  try {
    await writeOrCheck(`${ROOT}rendered`, await rendered(), values.check === true, 'npm run golden');
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
