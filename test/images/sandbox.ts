import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadAll } from 'js-yaml';

const BASE = join(import.meta.dirname, '../../base');

interface SecurityContext {
  readonly runAsUser?: number;
  readonly runAsGroup?: number;
  readonly allowPrivilegeEscalation?: boolean;
  readonly readOnlyRootFilesystem?: boolean;
  readonly capabilities?: { readonly drop?: readonly string[]; readonly add?: readonly string[] };
}
interface Container {
  readonly name: string;
  readonly image: string;
  readonly args?: readonly string[];
  readonly securityContext?: SecurityContext;
}
interface PodSpec {
  readonly securityContext?: SecurityContext;
  readonly initContainers?: readonly Container[];
  readonly containers: readonly Container[];
}

export interface Sandbox {
  /** As `routing-init`. */
  readonly container: string;
  /** Podman's, for the user, group, capabilities and file system that a kubelet would give. No network but `lo`. */
  readonly flags: readonly string[];
  readonly args: readonly string[];
}

/** The containers of base/*.yaml that run `image`. */
export async function sandboxes(image: string): Promise<Sandbox[]> {
  const pods: PodSpec[] = [];
  for (const name of ['frontend', 'routing', 'endpoint-sync']) {
    const objects = loadAll(await readFile(join(BASE, `${name}.yaml`), 'utf8')) as {
      spec?: { template?: { spec: PodSpec } };
    }[];
    for (const { spec } of objects) if (spec?.template !== undefined) pods.push(spec.template.spec);
  }
  return pods.flatMap((pod) =>
    [...(pod.initContainers ?? []), ...pod.containers]
      .filter((it) => it.image.startsWith(`${image}:`))
      .map((it) => ({
        container: it.name,
        flags: flags({ ...pod.securityContext, ...it.securityContext }),
        args: it.args ?? [],
      })),
  );
}

function flags({ runAsUser, runAsGroup, capabilities = {}, ...context }: SecurityContext): string[] {
  const { drop = [], add = [] } = capabilities;
  return [
    '--network=none',
    '--pull=never',
    // Without a group Kubernetes takes the user's in /etc/passwd, podman too.
    ...(runAsUser === undefined
      ? []
      : [`--user=${[runAsUser, ...(runAsGroup === undefined ? [] : [runAsGroup])].join(':')}`]),
    ...drop.map((it) => `--cap-drop=${it.toLowerCase()}`),
    ...add.map((it) => `--cap-add=${it}`),
    ...(context.allowPrivilegeEscalation === false ? ['--security-opt=no-new-privileges'] : []),
    // Podman would mount a tmpfs on /run, /tmp and /var/tmp, Kubernetes mounts none.
    ...(context.readOnlyRootFilesystem === true ? ['--read-only', '--read-only-tmpfs=false'] : []),
  ];
}
