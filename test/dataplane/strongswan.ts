/**
 * strongSwan in a network namespace: a bare charon that the agent `frontend` drives, or a gateway that an administrator has
 * configured with swanctl.conf. ESP runs in user space (plugin kernel-libipsec), see charon.ts.
 */
import { chmod, copyFile, mkdir, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { startDaemon, type Daemon } from '../control-plane/daemon.ts';
import type { Files } from '../volume.ts';
import type { Netns } from './netns.ts';

export interface StrongswanOptions {
  readonly netns: Netns;
  /** Its own, absolute; made when missing. A socket's path ends at 107 bytes, so not a long one. */
  readonly folder: string;
  /** Instead of the usual ones. */
  readonly plugins?: string;
  /** Another strongSwan's root folder, see test/images/root.ts. Default: the machine's own. */
  readonly root?: string;
  /** A file in place of /etc/hosts. */
  readonly hosts?: string;
  /** The group that the socket belongs to. Default: root's. */
  readonly group?: number;
}

export interface Strongswan {
  readonly folder: string;
  readonly socket: string;
  /** File with its output. */
  readonly log: string;
  /** Loads this swanctl.conf, and nothing else stays. `files`: certificates and keys, by their path: `x509/gw.pem`. */
  load(swanctlConf: string, files?: Files): Promise<void>;
  /** Its output. Throws with its words. */
  swanctl(...args: string[]): Promise<string>;
  stop(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>;
}

/** Of 6.0, as agents/strongswan/strongswan.conf has them. */
const PLUGINS_6 =
  'random drbg nonce openssl pem pkcs1 pkcs8 x509 constraints counters socket-default kernel-libipsec kernel-netlink vici';
const PLUGINS = [
  'random nonce aes sha1 sha2 hmac kdf drbg gmp openssl gcm pem pkcs1 pkcs8 x509 pubkey constraints socket-default vici',
  'kernel-libipsec kernel-netlink',
].join(' ');
const STOP_LIMIT_MS = 5000;
/** As in the image. */
const TRIES = 4;

/** Resolves when it takes orders. A second one in the same folder takes the first one's place. */
export async function startStrongswan(options: StrongswanOptions): Promise<Strongswan> {
  const { netns, folder, root, plugins = root === undefined ? PLUGINS : PLUGINS_6 } = options;
  const file = (name: string): string => join(folder, name);
  await mkdir(folder, { recursive: true });
  await chmod(folder, 0o755);
  await writeFile(
    file('strongswan.conf'),
    strongswanConf(root === undefined ? file('vici') : '/var/run/vici', plugins, TRIES),
  );
  // AppArmor's profiles, attached by path, allow neither program a configuration or a socket here.
  for (const name of ['charon-systemd', 'swanctl']) await copyFile(`/usr/sbin/${name}`, file(name)).catch(ignoreBusy);
  // swanctl looks for the folders of certificates and keys here.
  const env = { STRONGSWAN_CONF: file('strongswan.conf'), SWANCTL_DIR: folder };
  const daemon: Daemon = await startDaemon({
    name: `charon in ${netns.name}`,
    path: 'nsenter',
    args: [`--net=${netns.path}`, ...(root === undefined ? ownCharon(options) : charonIn(root, options))],
    cwd: folder,
    log: file('charon.log'),
    ready: () => answers(file('vici')),
  });
  const swanctl = async (...args: string[]): Promise<string> =>
    (await execa(file('swanctl'), [...args, '--uri', `unix://${file('vici')}`], { env, timeout: 20_000 })).stdout;
  return {
    folder,
    socket: file('vici'),
    log: file('charon.log'),
    async load(swanctlConf, files = {}) {
      for (const [name, content] of Object.entries(files)) {
        await mkdir(dirname(file(name)), { recursive: true });
        await writeFile(file(name), content);
      }
      await writeFile(file('swanctl.conf'), swanctlConf, { mode: 0o600 });
      await swanctl('--load-all', '--clear', '--file', file('swanctl.conf'));
    },
    swanctl,
    async stop(signal = 'SIGKILL') {
      if (daemon.pid === undefined) return;
      await daemon.stop(signal, STOP_LIMIT_MS);
      // What a charon that is killed leaves, to a table that is empty then: see charon.ts.
      for (const family of ['-4', '-6'])
        await netns.start('ip', [family, 'rule', 'delete', 'preference', '220', 'lookup', '220'], {});
    },
  };
}

const asGroup = (group = 0): string[] => ['setpriv', '--regid', String(group), '--clear-groups'];

function ownCharon({ folder, group, hosts }: StrongswanOptions): string[] {
  const bind = ['unshare', '-m', 'sh', '-c', 'mount --bind "$0" /etc/hosts && exec "$@"'];
  return [
    ...(hosts === undefined ? [] : [...bind, hosts]),
    ...asGroup(group),
    'env',
    `STRONGSWAN_CONF=${folder}/strongswan.conf`,
    join(folder, 'charon-systemd'),
  ];
}

/** Its /var/run is the folder. Mounts are its own, and gone with it. */
function charonIn(root: string, { folder, group }: StrongswanOptions): string[] {
  const bind = 'mount --bind "$0" "$1/var/run" && shift && exec "$@"';
  const charon = ['env', 'STRONGSWAN_CONF=/var/run/strongswan.conf', 'chroot', root, 'charon-systemd'];
  return ['unshare', '-m', 'sh', '-c', bind, folder, root, ...asGroup(group), ...charon];
}

function ignoreBusy(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ETXTBSY') throw error;
}

/** strongswan.conf of a charon that logs to stderr. `tries`: with a DPD delay of 1 s a dead peer is found after 1 + 0.6 × (tries + 1) s. */
export const strongswanConf = (socket: string, plugins: string, tries: number): string => `charon-systemd {
  load_modular = no
  load = ${plugins}
  retransmit_timeout = 0.6
  retransmit_base = 1
  retransmit_tries = ${tries}
  plugins {
    kernel-libipsec {
      allow_peer_ts = yes
    }
    vici {
      socket = unix://${socket}
    }
  }
  filelog {
    stderr {
      default = 1
      time_format = %T
      time_add_ms = yes
      flush_line = yes
    }
  }
  journal {
    default = -1
  }
}
swanctl {
  load = pem pkcs1 pkcs8 openssl
}
`;

/** Whether somebody listens there; the file of one that was killed refuses. */
export function answers(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const client = connect(socket, () => {
      client.destroy();
      resolve(true);
    });
    client.on('error', () => resolve(false));
  });
}
