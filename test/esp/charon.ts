/** Both ends of a tunnel whose ESP is the kernel's. */
import { copyFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { startBareCharon, type BareCharon } from '../dataplane/charon.ts';
import { CLUSTER_CIDRS, ONPREM_CIDRS, PEER, POD, type World } from './world.ts';

export type StartAction = 'none' | 'trap' | 'start' | 'trap|start';

export interface Connection {
  /** ESP in UDP even where there is no NAT. */
  readonly encap: boolean;
  readonly startAction: StartAction;
}

/** Both IKE_SA and CHILD_SA are called so. */
export const TUNNEL = 'tunnel';
const SWANCTL_LIMIT_MS = 30_000;
let count = 0;

/** It takes orders, and knows no connection. The kernel may still have states and policies of one before it. */
export const startPodCharon = ({ pod, folder }: World): Promise<BareCharon> =>
  startBareCharon({ netns: pod, folder: join(folder, `pod${(count += 1)}`), role: 'frontend', esp: 'kernel' });

/** How the pod's charon gets its connection. */
export const connectPod = (charon: BareCharon, connection: Connection): Promise<void> =>
  load(charon, 'pod', connection);

/** It waits for the pod. */
export async function startPeer({ peer, folder }: World, encap: boolean): Promise<BareCharon> {
  const options = { netns: peer, folder: join(folder, `peer${(count += 1)}`), role: 'gateway', esp: 'kernel' } as const;
  const charon = await startBareCharon(options);
  await load(charon, 'peer', { encap, startAction: 'none' });
  return charon;
}

async function load(charon: BareCharon, end: 'pod' | 'peer', connection: Connection): Promise<void> {
  const file = join(dirname(charon.socket), 'swanctl.conf');
  await writeFile(file, swanctlConf(end, connection), { mode: 0o600 });
  await swanctl(charon, '--load-all', '--file', file);
}

export async function swanctl({ socket }: BareCharon, ...args: string[]): Promise<string> {
  const program = join(dirname(socket), 'swanctl');
  // AppArmor's profile, attached by path, allows no configuration or socket here.
  await copyFile('/usr/sbin/swanctl', program);
  const env = { STRONGSWAN_CONF: join(dirname(socket), 'strongswan.conf') };
  return (await execa(program, [...args, '--uri', `unix://${socket}`], { env, timeout: SWANCTL_LIMIT_MS })).stdout;
}

function swanctlConf(end: 'pod' | 'peer', { encap, startAction }: Connection): string {
  const pod = { address: POD[4], id: 'frontend', ts: CLUSTER_CIDRS };
  const peer = { address: PEER, id: 'gateway', ts: ONPREM_CIDRS };
  const [local, remote] = end === 'pod' ? [pod, peer] : [peer, pod];
  return `connections {
  ${TUNNEL} {
    version = 2
    local_addrs = ${local.address}
    remote_addrs = ${remote.address}
    proposals = aes256gcm16-prfsha384-ecp384
    encap = ${encap ? 'yes' : 'no'}
    mobike = no
    # Long: nothing here is about it, and a guest without KVM may be slow to answer.
    dpd_delay = 60s
    unique = replace
    local {
      auth = psk
      id = ${local.id}
    }
    remote {
      auth = psk
      id = ${remote.id}
    }
    children {
      ${TUNNEL} {
        local_ts = ${local.ts.join(',')}
        remote_ts = ${remote.ts.join(',')}
        esp_proposals = aes256gcm16-ecp384,aes256gcm16
        start_action = ${startAction}
      }
    }
  }
}
secrets {
  ike-${TUNNEL} {
    id-local = ${local.id}
    id-remote = ${remote.id}
    secret = "correct horse battery staple"
  }
}
`;
}

/** SPIs of the CHILD_SAs that charon knows, those of their IKE_SAs first. */
export async function spis(charon: BareCharon): Promise<{ ike: string[]; child: string[] }> {
  const sas = await swanctl(charon, '--list-sas', '--raw');
  const all = (name: string): string[] =>
    [...sas.matchAll(new RegExp(`${name}=([0-9a-f]+)`, 'g'))].map(([, spi = '']) => spi);
  return { ike: all('initiator-spi'), child: all('spi-in') };
}
