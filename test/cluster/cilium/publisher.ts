/** The CiliumEndpoints of this node's pods. What others write into them it never reads: it sends when its own model changed. */
import type { Log } from '../../../agents/lib/log.ts';
import type { Collection } from './collection.ts';
import type { Kube } from './kube.ts';
import { type CiliumEndpoint, isAlive, isOnNode, type LocalEndpoint, type Pod, statusOf } from './plan.ts';

const API_VERSION = 'cilium.io/v2';

interface Deps {
  readonly kube: Kube;
  readonly log: Log;
  readonly nodeAddress: string;
  /** Of this node. */
  readonly pods: Collection<Pod>;
  /** Of all nodes. */
  readonly endpoints: Collection<CiliumEndpoint>;
  readonly local: () => readonly LocalEndpoint[];
}

type Status = NonNullable<ReturnType<typeof statusOf>>;

export class Publisher {
  readonly #deps: Deps;
  /** By the pod's key, what this process has sent. */
  readonly #sent = new Map<string, string>();

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  /** `key`: `namespace/name` */
  async reconcile(key: string): Promise<void> {
    const { pods, endpoints, local, nodeAddress } = this.#deps;
    if (!pods.synced || !endpoints.synced) return;
    const pod = pods.get(key);
    if (pod === undefined || !isAlive(pod)) return this.#withdraw(key);
    const status = statusOf(pod, local(), nodeAddress);
    const model = JSON.stringify([pod.metadata.uid, status]);
    if (status === undefined || this.#sent.get(key) === model) return;
    await this.#publish(key, pod, status);
    this.#sent.set(key, model);
  }

  async #publish(key: string, pod: Pod, status: Status): Promise<void> {
    const { kube, log } = this.#deps;
    const path = pathOf(key);
    const found = await kube.get<CiliumEndpoint>(path);
    if (found?.metadata.ownerReferences?.some(({ uid }) => uid === pod.metadata.uid) === true) {
      await kube.patch(path, [
        { op: 'test', path: '/metadata/uid', value: found.metadata.uid },
        { op: 'replace', path: '/status', value: status },
      ]);
      return log.info({ key, identity: status.identity.id }, 'CiliumEndpoint replaced');
    }
    if (found !== undefined) await kube.remove(path, found.metadata.uid);
    await kube.create(path.slice(0, path.lastIndexOf('/')), endpointOf(pod, status));
    log.info({ key, identity: status.identity.id }, 'CiliumEndpoint created');
  }

  async #withdraw(key: string): Promise<void> {
    const { kube, log, endpoints, nodeAddress } = this.#deps;
    if (!this.#sent.has(key) && !isOnNode(endpoints.get(key), nodeAddress)) return;
    const path = pathOf(key);
    const found = await kube.get<CiliumEndpoint>(path);
    if (isOnNode(found, nodeAddress)) {
      await kube.remove(path, found.metadata.uid);
      log.info({ key }, 'CiliumEndpoint deleted');
    }
    this.#sent.delete(key);
  }
}

function pathOf(key: string): string {
  const [namespace, name] = key.split('/');
  return `/apis/${API_VERSION}/namespaces/${namespace}/ciliumendpoints/${name}`;
}

function endpointOf({ metadata }: Pod, status: Status): object {
  const { name, namespace, labels = {}, uid } = metadata;
  const ownerReferences = [{ apiVersion: 'v1', kind: 'Pod', name, uid }];
  return {
    apiVersion: API_VERSION,
    kind: 'CiliumEndpoint',
    metadata: { name, namespace, labels, ownerReferences },
    status,
  };
}
