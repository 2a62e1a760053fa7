/**
 * A real charon in a network namespace, one end of a tunnel. ESP runs in user space (strongSwan's kernel-libipsec over
 * the TUN device `ipsec0`, always in UDP), so that it works on a kernel without ESP. Debian: charon-systemd,
 * strongswan-swanctl, libcharon-extra-plugins, libstrongswan-standard-plugins.
 */
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { startDaemon } from '../control-plane/daemon.ts';
import { answers, strongswanConf } from './strongswan.ts';

export interface DaemonOptions {
  /** As `nsenter --net` takes it. */
  netns: { path: string };
  /** Its own, absolute; made when missing. A socket's path ends at 107 bytes, so not a long one. */
  folder: string;
  /** The frontend dials, the gateway answers. */
  role: 'frontend' | 'gateway';
  /** To load besides those of a tunnel. */
  plugins?: readonly string[];
  /** Who does ESP: charon (default), or the kernel, where SIGKILL leaves states, policies and routes as they are. */
  esp?: 'charon' | 'kernel';
}

export interface CharonOptions extends DaemonOptions {
  /** Default: whatever the route to the peer says. */
  localAddress?: string;
  /** `%any` for a gateway whose peers come out of a NAT. */
  remoteAddress: string;
  /** CIDRs. Each needs an address of this namespace inside, otherwise no route is installed and the CHILD_SA fails. */
  localTs: readonly string[];
  remoteTs: readonly string[];
  psk: string;
  ids: { local: string; remote: string };
}

/** It takes orders, and knows no connection. */
export interface BareCharon {
  /** File with its output. */
  readonly log: string;
  /** VICI's. */
  readonly socket: string;
  /** SIGTERM: the peer gets a DELETE for each of its SAs, and nothing of charon stays. Does nothing when it has ended. */
  stop(): Promise<void>;
  /**
   * SIGKILL: the peer hears nothing and finds out by DPD, within 4 s. The kernel takes `ipsec0` and its routes with the
   * process. What a crash really leaves is the rule `220: from all lookup 220`, to a table that is empty; as it changes
   * no packet's way, it is removed here. Does nothing when charon has ended.
   */
  kill(): Promise<void>;
}

export interface Charon extends BareCharon {
  /** Resolves when the CHILD_SA stands. Throws with what swanctl says, after 2.4 s where the peer doesn't answer. */
  initiate(): Promise<void>;
  /** Closes the IKE_SA, the peer hears of it. Does nothing where there is none. */
  terminate(): Promise<void>;
  /** Whether a CHILD_SA stands in an IKE_SA; false when charon doesn't run. */
  established(): Promise<boolean>;
}

const CONNECTION = 'tunnel';
/** An initiation that nobody answers takes charon 2.4 s a message. */
const SWANCTL_LIMIT_MS = 20_000;
/** Takes 20 ms; charon waits for no answer to its DELETE. */
const STOP_LIMIT_MS = 5000;
/** A dead peer is found after 3.4 s. */
const TRIES = 3;
const PLUGINS = 'random nonce aes sha1 sha2 hmac kdf drbg gmp openssl gcm pem pkcs1 x509 pubkey socket-default vici';
/** The first one that offers IPsec is taken, on a kernel with ESP, too. */
const ESP_PLUGINS = { charon: ['kernel-libipsec', 'kernel-netlink'], kernel: ['kernel-netlink'] };

/** Resolves when it takes orders; throws StartFailed with the end of its log otherwise. */
export async function startBareCharon(options: DaemonOptions): Promise<BareCharon> {
  const { netns, folder, role, plugins = [], esp = 'charon' } = options;
  const file = (name: string): string => join(folder, name);
  await mkdir(folder, { recursive: true });
  await writeFile(
    file('strongswan.conf'),
    strongswanConf(file('vici'), [PLUGINS, ...ESP_PLUGINS[esp], ...plugins].join(' '), TRIES),
  );
  // AppArmor's profile, attached by path, allows no configuration or socket here.
  await copyFile('/usr/sbin/charon-systemd', file('charon-systemd'));
  const daemon = await startDaemon({
    name: `charon (${role})`,
    path: 'nsenter',
    args: [`--net=${netns.path}`, 'env', `STRONGSWAN_CONF=${file('strongswan.conf')}`, file('charon-systemd')],
    cwd: folder,
    log: file('charon.log'),
    ready: () => answers(file('vici')),
  });
  return {
    log: file('charon.log'),
    socket: file('vici'),
    stop: () => daemon.stop('SIGTERM', STOP_LIMIT_MS),
    async kill() {
      if (daemon.pid === undefined) return;
      await daemon.stop('SIGKILL');
      if (esp === 'kernel') return;
      for (const family of ['-4', '-6']) {
        const rule = ['ip', family, 'rule', 'delete', 'preference', '220', 'lookup', '220'];
        // It may have died before it made one.
        await execa('nsenter', [`--net=${netns.path}`, ...rule], { reject: false });
      }
    },
  };
}

/** Resolves when it takes orders and knows the connection; throws StartFailed with the end of its log otherwise. */
export async function startCharon(options: CharonOptions): Promise<Charon> {
  const file = (name: string): string => join(options.folder, name);
  const charon = await startBareCharon(options);
  // As charon-systemd, because of AppArmor.
  await copyFile('/usr/sbin/swanctl', file('swanctl'));
  await writeFile(file('swanctl.conf'), swanctlConf(options), { mode: 0o600 });
  const env = { STRONGSWAN_CONF: file('strongswan.conf') };
  const swanctl = async (...args: string[]): Promise<string> => {
    const uri = `unix://${charon.socket}`;
    const { stdout } = await execa(file('swanctl'), [...args, '--uri', uri], { env, timeout: SWANCTL_LIMIT_MS });
    return stdout;
  };
  try {
    await swanctl('--load-all', '--file', file('swanctl.conf'));
  } catch (error) {
    await charon.kill();
    throw error;
  }

  return {
    ...charon,
    async initiate() {
      await swanctl('--initiate', '--child', CONNECTION);
    },
    async terminate() {
      if ((await swanctl('--list-sas', '--noblock')) !== '') await swanctl('--terminate', '--ike', CONNECTION);
    },
    async established() {
      // No answer: it has ended, or ends meanwhile.
      const sas = await swanctl('--list-sas', '--raw').catch(() => '');
      return /state=ESTABLISHED.*child-sas \{.*state=INSTALLED/s.test(sas);
    },
  };
}

function swanctlConf({ localAddress, remoteAddress, localTs, remoteTs, psk, ids }: CharonOptions): string {
  return `connections {
  ${CONNECTION} {
    version = 2
    ${localAddress === undefined ? '' : `local_addrs = ${localAddress}`}
    remote_addrs = ${remoteAddress}
    proposals = aes256gcm16-prfsha384-ecp384
    encap = yes
    mobike = no
    dpd_delay = 1s
    unique = replace
    local {
      auth = psk
      id = ${ids.local}
    }
    remote {
      auth = psk
      id = ${ids.remote}
    }
    children {
      ${CONNECTION} {
        local_ts = ${localTs.join(',')}
        remote_ts = ${remoteTs.join(',')}
        esp_proposals = aes256gcm16
        start_action = none
      }
    }
  }
}
secrets {
  ike-${CONNECTION} {
    id-local = ${ids.local}
    id-remote = ${ids.remote}
    secret = 0s${Buffer.from(psk).toString('base64')}
  }
}
`;
}
