/** The agent `frontend` beside a charon in the frontend's pod of a world, with the manifests' user, and a gateway. */
import { chmod, copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { ExecutionContext } from 'ava';
import { isLeft } from 'fp-ts/lib/Either.js';
import { ConstellationVpn, encodeVpn } from '../../functions/model/vpn.ts';
import { NODE_FLAGS } from '../../scripts/build-agents.ts';
import { agentBundle, samplesOf, until, type LogRecord } from '../api/agent.ts';
import { Volume, type Files } from '../volume.ts';
import type { Netns } from './netns.ts';
import { startStrongswan, type Strongswan } from './strongswan.ts';
import { createWorld, type World } from './world.ts';

/** The frontend container's in base/frontend.yaml; the api tier's access_test compares the manifests. */
export const USER = 65_532;
const SECURITY = [
  ...`--no-new-privs --reuid ${USER} --regid ${USER} --clear-groups --inh-caps=-all --bounding-set=-all`.split(' '),
  '--pdeathsig',
  'KILL',
];
/** Which inject-peer-cidrs writes into the configuration where nothing else is said. */
export const LOCAL_ID = 'vpn-frontend.constellation-vpn';
export const PSK = 'correct horse battery staple';
export const GATEWAY = '198.51.100.7';
/** With kernel-libipsec each needs an address of the pod inside. */
export const POD_RANGES = ['10.10.0.0/16', 'fd00:10::/56'];
export const ON_PREM = ['192.168.50.0/24', 'fd12:3456::/48'];

export interface SiteSpec {
  peerCIDRs?: readonly string[];
  probe?: string;
  ipsec?: Readonly<Record<string, unknown>>;
}

/** config.json as the functions render it. Throws where it is refused. */
export function configOf({ peerCIDRs = ON_PREM, probe, ipsec = {} }: SiteSpec = {}): string {
  const spec = {
    podCIDR: POD_RANGES,
    serviceCIDR: ['10.96.0.0/12', 'fd00:96::/112'],
    peerCIDRs,
    ...(probe === undefined ? {} : { probe }),
    // Without traps, which kernel-libipsec lacks before 5.9.11.
    ipsec: {
      peer: GATEWAY,
      pskSecretRef: { name: 'psk' },
      startAction: 'start',
      localTrafficSelectors: POD_RANGES,
      localID: LOCAL_ID,
      ...ipsec,
    },
  };
  const decoded = ConstellationVpn.decode({
    apiVersion: 'constellation-vpn.io/v1alpha1',
    kind: 'ConstellationVPN',
    spec,
  });
  if (isLeft(decoded))
    throw new Error(
      JSON.stringify(decoded.left.map(({ message, context }) => [context.map(({ key }) => key), message])),
    );
  return JSON.stringify(encodeVpn(decoded.right));
}

export interface GatewayOptions {
  /** Children by name: local_ts and remote_ts as swanctl.conf has them, and what else. */
  readonly children?: Readonly<Record<string, string>>;
  /** Lines of the connection. */
  readonly connection?: string;
  readonly local?: string;
  readonly remote?: string;
  readonly secrets?: string;
  /** Where the frontend is, for a gateway that dials. */
  readonly remoteAddress?: string;
  /** Certificates and keys, by their path in swanctl's folder: `x509/gw.pem`. */
  readonly files?: Files;
}

/** swanctl.conf of the gateway, as an administrator would write it. */
export function gatewayConf(options: GatewayOptions = {}): string {
  const {
    children = { cluster: `local_ts = ${ON_PREM.join(',')}\nremote_ts = ${POD_RANGES.join(',')}` },
    connection = '',
    local = `auth = psk\nid = ${GATEWAY}`,
    remote = `auth = psk\nid = ${LOCAL_ID}`,
    secrets = `ike-1 {\nsecret = "${PSK}"\n}`,
    remoteAddress = '%any',
  } = options;
  const blocks = Object.entries(children).map(
    ([name, lines]) => `${name} {\nesp_proposals = aes256gcm16-ecp384,aes256gcm16\n${lines}\n}`,
  );
  return `connections {
cluster {
version = 2
remote_addrs = ${remoteAddress}
proposals = aes256gcm16-prfsha384-ecp384
encap = yes
mobike = no
dpd_delay = 1s
unique = replace
${connection}
local {
${local}
}
remote {
${remote}
}
children {
${blocks.join('\n')}
}
}
}
secrets {
${secrets}
}
`;
}

export interface Frontend {
  readonly pid: number;
  readonly log: LogRecord[];
  errors(): LogRecord[];
  get(path: string): Promise<{ status: number; text: string }>;
  metric(name: string): Promise<Record<string, number>>;
  stop(signal?: NodeJS.Signals): Promise<number | undefined>;
}

export interface Site {
  readonly world: World;
  readonly config: Volume;
  readonly secrets: Volume;
  gateway: Strongswan;
  /** Another one in its place, with the same configuration. */
  restartGateway(): Promise<void>;
  /** The pod's; changes at startCharon. */
  charon: Strongswan;
  /** Another one in its place. */
  startCharon(): Promise<Strongswan>;
  startAgent(...args: string[]): Promise<Frontend>;
  configure(spec: SiteSpec): Promise<void>;
  /** What names charon resolves to, in place of DNS. */
  setHosts(hosts: Hosts): Promise<void>;
  /** The gateway's packets come from 192.0.2.1, and ports 500 and 4500 of nodeA lead to the frontend. */
  natGateway(): Promise<void>;
}

type Hosts = Readonly<Record<string, string>>;
const hostsFile = (hosts: Hosts): string =>
  Object.entries(hosts)
    .map(([name, address]) => `${address} ${name}\n`)
    .join('');

export interface SiteOptions {
  readonly spec?: SiteSpec;
  readonly secrets?: Files;
  readonly gateway?: GatewayOptions;
  /** What names charon resolves to, in place of DNS. */
  readonly hosts?: Hosts;
  /** Of the strongSwan in the pod. */
  readonly root?: string;
}

/** A world whose nodes have the routes to the site, a gateway that answers, and a charon without orders in the pod. */
export async function createSite(
  t: Pick<ExecutionContext, 'teardown'>,
  { spec = {}, secrets = { psk: PSK }, gateway = {}, hosts, root }: SiteOptions = {},
): Promise<Site> {
  const world = await createWorld();
  const [config, secretVolume] = await Promise.all([
    Volume.create({ 'config.json': configOf(spec) }),
    Volume.create(secrets),
  ]);
  t.teardown(async () => {
    await world.remove();
    await Promise.all([config.remove(), secretVolume.remove()]);
  });
  // The agent is not root.
  await chmod(world.folder, 0o711);
  await routeToSite(world);
  // As in the image: one with a capability, as Debian installs it, can't be run by a process that may have none.
  const bin = join(world.folder, 'bin');
  await mkdir(bin);
  await copyFile('/usr/bin/ping', join(bin, 'ping'));
  const hostsPath = join(world.folder, 'hosts');
  const setHosts = (named: Hosts) => writeFile(hostsPath, hostsFile(named));
  if (hosts !== undefined) await setHosts(hosts);
  const startCharon = async (): Promise<Strongswan> => {
    const started = await startStrongswan({
      netns: world.frontend,
      folder: join(world.folder, 'fe'),
      group: USER,
      ...(hosts === undefined ? {} : { hosts: hostsPath }),
      ...(root === undefined ? {} : { root }),
    });
    t.teardown(() => started.stop());
    site.charon = started;
    return started;
  };
  const restartGateway = async (): Promise<void> => {
    const peer = await startStrongswan({ netns: world.gateway, folder: join(world.folder, 'gw') });
    t.teardown(() => peer.stop());
    await peer.load(gatewayConf(gateway), gateway.files);
    site.gateway = peer;
  };
  const site = {
    world,
    config,
    secrets: secretVolume,
    restartGateway,
    startCharon,
    async startAgent(...args: string[]) {
      const agent = await startFrontend(
        world.frontend,
        [
          ...`--config ${config.folder}/config.json --secrets ${secretVolume.folder}`.split(' '),
          '--socket',
          site.charon.socket,
          ...args,
        ],
        SECURITY,
        { PATH: `${bin}:${process.env.PATH}` },
      );
      t.teardown(() => agent.stop('SIGKILL'));
      return agent;
    },
    setHosts,
    natGateway: () => natGateway(world),
    configure: (next: SiteSpec) => config.set({ 'config.json': configOf(next) }),
  } as Site;
  await Promise.all([restartGateway(), startCharon()]);
  return site;
}

/** What programs routing and routing init would have done. */
async function routeToSite({ frontend, nodeA, nodeB }: World): Promise<void> {
  const [v4, v6] = ON_PREM;
  await frontend.sysctl({ 'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1 });
  await nodeA.ip(
    `route add ${v4} via 10.10.0.5 dev lxcfrontend src 10.10.0.1`,
    `route add ${v6} via fd00:10::5 dev lxcfrontend src fd00:10::1`,
  );
  await nodeB.ip(`route add ${v4} dev cilium_host src 10.10.1.1`, `route add ${v6} dev cilium_host src fd00:10:0:1::1`);
}

async function natGateway({ nodeA, wire }: World): Promise<void> {
  const nat = (chain: string): string => `table ip gateway {\n chain nat {\n ${chain}\n }\n}\n`;
  await wire.exec('nft', nat('type nat hook postrouting priority srcnat; ip saddr 198.51.100.7 masquerade'));
  await nodeA.exec(
    'nft',
    nat('type nat hook prerouting priority dstnat; iifname "uplink" udp dport { 500, 4500 } dnat to 10.10.0.5'),
  );
}

/** Waits until this many CHILD_SAs carry traffic. */
export async function untilUp(agent: Frontend, children: number, limitMs?: number): Promise<void> {
  const installed = async (): Promise<boolean> => {
    const states = Object.values(await agent.metric('ipsec_child_sa_state'));
    return states.filter((state) => state === INSTALLED).length >= children;
  };
  await until(installed, `${children} CHILD_SAs`, limitMs);
}

/** As the metric counts. */
const INSTALLED = 3;
const PORT = 9812;
/** A guest of the tier esp is slow. */
const START_MS = 60_000;

/** Resolves when its HTTP server listens. `security`: arguments of setpriv, by default what the manifests give it. */
export async function startFrontend(
  netns: Netns,
  args: readonly string[],
  security: readonly string[] = SECURITY,
  env: Record<string, string> = {},
): Promise<Frontend> {
  const command = [...security, process.execPath, ...NODE_FLAGS, await agentBundle('frontend'), ...args];
  const child = netns.start('setpriv', command, { buffer: false, stderr: 'inherit', stdout: 'pipe', env });
  const log: LogRecord[] = [];
  createInterface(child.stdout).on('line', (line) => log.push(JSON.parse(line) as LogRecord));
  const get = async (path: string): Promise<{ status: number; text: string }> => {
    const port = Number(log.find(({ msg }) => msg === 'started')?.port ?? PORT);
    const text = await netns.exec('curl', '-s', '-w', '\n%{http_code}', `http://127.0.0.1:${port}${path}`);
    const end = text.lastIndexOf('\n');
    return { status: Number(text.slice(end + 1)), text: text.slice(0, end) };
  };
  await until(() => log.some(({ msg }) => msg === 'started'), 'frontend to start', START_MS);
  return {
    pid: child.pid ?? 0,
    log,
    errors: () => log.filter(({ level }) => level === 'error'),
    get,
    metric: async (name) => samplesOf((await get('/metrics')).text, name),
    async stop(signal = 'SIGTERM') {
      child.kill(signal);
      return (await child).exitCode;
    },
  };
}
