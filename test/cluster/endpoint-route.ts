/**
 * A CNI plugin behind `ptp`: gives the pod's route the form of Cilium's endpoint routes. ptp's has `scope host`, and a route
 * that is made by way of it then has no gateway for the kernel, for good, whatever becomes of the first.
 * https://www.cni.dev/docs/spec/: the network's configuration on stdin, the command in the environment.
 */
import { execFileSync } from 'node:child_process';
import { text } from 'node:stream/consumers';

interface Input {
  readonly cniVersion: string;
  readonly prevResult?: {
    readonly interfaces: readonly { readonly name: string; readonly sandbox?: string }[];
    readonly ips: readonly { readonly address: string }[];
  };
}

const { cniVersion, prevResult } = JSON.parse(await text(process.stdin)) as Input;
if (process.env.CNI_COMMAND === 'VERSION') console.log(JSON.stringify({ cniVersion, supportedVersions: [cniVersion] }));
if (process.env.CNI_COMMAND === 'ADD' && prevResult !== undefined) {
  const device = prevResult.interfaces.find(({ sandbox = '' }) => sandbox === '')?.name ?? '';
  const [address = ''] = prevResult.ips[0]?.address.split('/') ?? [];
  execFileSync('ip', ['route', 'replace', address, 'dev', device, 'proto', 'kernel', 'scope', 'link']);
  console.log(JSON.stringify({ ...prevResult, cniVersion }));
}
