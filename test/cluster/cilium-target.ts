import type { Cidr } from '../../functions/model/cidr.ts';
import type { CiliumTarget } from '../contract/cilium-api.ts';
import type { Fixture } from './fixture.ts';
import { NAMESPACE, RANGES } from './product.ts';

/** For the checks of test/contract: the agent of a node without the frontend, and a pod there. The VPN is installed. */
export async function ciliumTarget({ own, pods: { pods } }: Fixture): Promise<CiliumTarget> {
  const { kubectl, nodes } = own;
  const frontend = await kubectl([
    ...`-n ${NAMESPACE} get pod vpn-frontend-0 -o`.split(' '),
    'jsonpath={.spec.nodeName} {.status.hostIP}',
  ]);
  const [frontendNode, hostIP = ''] = frontend.split(' ');
  const node = nodes.find(({ name }) => name !== frontendNode)!;
  const pod = pods.find((each) => each.node === node.name)!;
  const id = await kubectl([
    ...`-n vpn-test get ciliumendpoint ${pod.name.split('/')[1]} -o`.split(' '),
    'jsonpath={.status.id}',
  ]);
  // Of the node itself, not of a container.
  const [containerd] = await node.pids(/\/containerd\S* --config/);
  return {
    folder: `/proc/${containerd}/root/run/cilium`,
    endpoint: { id: Number(id), addresses: pod.addresses },
    range: { cidr: RANGES[0] as Cidr, hostIP, namespace: NAMESPACE, pod: 'vpn-frontend-0' },
    // Another pod: a container that is killed again and again waits longer each time.
    async end() {
      const which = ['-l', 'k8s-app=cilium', '--field-selector', `spec.nodeName=${node.name}`];
      await kubectl(['-n', 'kube-system', 'delete', 'pod', ...which, '--wait=false']);
    },
  };
}
