/** What this machine lacks for a tier of the tests, or for a cluster: programs of scripts/needs.tsv, and tools. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { needsOf, type Who } from '../scripts/needs.ts';
import { findTool, type ToolName, ToolMissing } from '../scripts/tools.ts';

const TOOLS: Partial<Record<Who, readonly ToolName[]>> = {
  render: ['kustomize', 'kpt', 'kubectl-validate'],
  api: ['kube-apiserver', 'etcd', 'kustomize'],
  dataplane: ['kube-apiserver', 'etcd', 'kustomize'],
  images: ['kustomize', 'kpt'],
  existing: ['kubectl', 'kustomize'],
  cluster: [
    'kube-apiserver',
    'etcd',
    'kube-controller-manager',
    'kube-scheduler',
    'kubelet',
    'kube-proxy',
    'containerd',
    'containerd-shim-runc-v2',
    'ctr',
    'runc',
    'kpt',
    'kubectl',
    'kustomize',
    'helm',
    'cilium-agent-1.18',
    'cilium-cni-1.18',
    'cilium-dbg-1.18',
    'cilium-operator-1.18',
    'cilium-agent-1.20',
    'cilium-cni-1.20',
    'cilium-dbg-1.20',
  ],
};

/** Debian keeps some programs in folders that are on root's PATH alone. */
const FOLDERS = ['/usr/sbin', '/usr/bin', '/sbin', '/bin', '/usr/local/bin'];

/** A sentence about the first that is missing, or undefined. Tools that are not there are built; `log` takes the progress. */
export async function lacking(who: Who, log?: (line: string) => void): Promise<string | undefined> {
  for (const { file, package: name } of needsOf(who))
    if (!FOLDERS.some((folder) => existsSync(resolve(folder, file))))
      return `${file} is not installed (Debian: apt-get install ${name})`;
  try {
    for (const tool of TOOLS[who] ?? []) await findTool(tool, log === undefined ? {} : { log });
    return undefined;
  } catch (error) {
    if (error instanceof ToolMissing) return error.message;
    throw error;
  }
}
