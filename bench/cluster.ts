/**
 * `npm run bench:cluster`: the product in a real cluster on this machine (test/cluster): how long an installation takes, what
 * the containers need, and what the tunnel carries beside one of two bare charons with the same way between them.
 *
 * With the defaults it takes about 6 minutes. Needs what the tier `cluster` needs. What a cluster's life costs (restarts,
 * changes, removed nodes) is measured by `npm run test:cluster`, which logs it.
 */
import { cpus } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { setUpContainers } from '../scripts/container-setup.ts';
import { type Cluster, startCluster } from '../test/cluster/cluster.ts';
import { connectSite, type Fixture, HOST, untilConnected } from '../test/cluster/fixture.ts';
import { createPods } from '../test/cluster/pods.ts';
import { apply, install, makeCheckout, NAMESPACE, RANGES, uninstall } from '../test/cluster/product.ts';
import { SITE_ADDRESS, startSite } from '../test/cluster/site.ts';
import { createGroup, ip, type Netns, type Place } from '../test/dataplane/netns.ts';
import { startStrongswan } from '../test/dataplane/strongswan.ts';
import { tcpTransfer } from '../test/dataplane/traffic.ts';
import { setUp } from '../test/dataplane/world.ts';
import { strongswan6Root } from '../test/images/root.ts';
import { ms, progress, quantile, row } from './statistics.ts';

const { values } = parseArgs({
  options: {
    help: { type: 'boolean', short: 'h' },
    rounds: { type: 'string', default: '3' },
    transfers: { type: 'string', default: '15' },
    mib: { type: 'string', default: '32' },
    'idle-seconds': { type: 'string', default: '60' },
  },
});
if (values.help === true) {
  console.log(`Usage: npm run bench:cluster -- [--rounds 3] [--transfers 15] [--mib 32] [--idle-seconds 60]

  --rounds        installations
  --transfers     TCP transfers by each way, in turns
  --mib           MiB of one transfer
  --idle-seconds  how long nothing changes, while CPU time is counted`);
  process.exit(0);
}
const [rounds, transfers, bytes] = [Number(values.rounds), Number(values.transfers), Number(values.mib) * 2 ** 20];
const idleSeconds = Number(values['idle-seconds']);

const cluster = await startCluster({ log: progress });
const checkout = await makeCheckout();
try {
  const fixture: Fixture = { cluster, own: cluster, checkout, pods: await createPods(cluster), psk: '' };
  await checkout.configure(cluster, { peerCIDRs: RANGES });
  await installations(fixture);
  await throughput(fixture);
  await needs('2 ranges');
  await manyRanges(fixture);
  await imageSizes(cluster);
  console.log(`\n${cpus().length} × ${cpus()[0]?.model}, Node ${process.version}`);
} finally {
  await cluster.stop();
  await checkout.remove();
}

/** From `kubectl apply` to pings from the site to a pod on each node. All are removed by docs/uninstall.md but the last. */
async function installations(fixture: Fixture): Promise<void> {
  const all: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    if (round > 0) await uninstall(cluster, checkout);
    progress(`installation ${round + 1} of ${rounds}`);
    const start = performance.now();
    const { psk } = await install(cluster, checkout);
    await connectSite(cluster, psk);
    fixture.psk = psk;
    await untilConnected(fixture, 120_000);
    all.push(performance.now() - start);
  }
  row('what', 'median', 'max');
  row('---', '---', '---');
  row(`apply to first packet, ${rounds} rounds`, `${ms(quantile(all, 0.5))} ms`, `${ms(Math.max(...all))} ms`);
}

/** Mbit/s of TCP from the site's host to a pod on the frontend's node, on another one, and beyond two bare charons. */
async function throughput({ pods }: Fixture): Promise<void> {
  const bare = await startBare();
  const node = await cluster.kubectl([
    '-n',
    NAMESPACE,
    'get',
    'pod',
    'vpn-frontend-0',
    '-o',
    'jsonpath={.spec.nodeName}',
  ]);
  const near = pods.pods.find((pod) => pod.node === node)!;
  const far = pods.pods.find((pod) => pod.node !== node)!;
  const ways: [string, Place, Place, string][] = [
    ['two bare charons, to the site', bare.inside, bare.onprem, HOST],
    ['a pod on the frontend’s node, to the site', near, cluster.onprem, HOST],
    ['a pod on another node, to the site', far, cluster.onprem, HOST],
    ['two bare charons, from the site', bare.onprem, bare.inside, bare.address],
    ['from the site, to a pod on the frontend’s node', cluster.onprem, near, near.address],
    ['from the site, to a pod on another node', cluster.onprem, far, far.address],
  ];
  const figures = new Map(ways.map(([name]) => [name, [] as number[]]));
  for (let turn = 0; turn < transfers; turn += 1) {
    progress(`transfers ${turn + 1} of ${transfers}`);
    for (const [name, from, to, address] of ways) {
      const transfer = await tcpTransfer(from, to, address, bytes, { timeoutMs: 120_000 });
      if (!transfer.digestsEqual) throw new Error(`${name}: ${transfer.bytes} bytes in ${transfer.ms} ms`);
      figures.get(name)!.push((bytes * 8) / 1000 / transfer.ms);
    }
  }
  console.log();
  row(`TCP, ${values.mib} MiB, medians of ${transfers}, in turns`, 'Mbit/s', 'of the bare ones');
  row('---', '---', '---');
  const median = (name: string): number => quantile(figures.get(name)!, 0.5);
  for (const [at, [name]] of ways.entries()) {
    const base = median(ways[at < 3 ? 0 : 3]![0]);
    row(name, ms(median(name)), at % 3 === 0 ? '' : (median(name) / base).toFixed(2));
  }
  await bare.stop();
}

interface Bare {
  readonly onprem: Netns;
  /** Holds the address that the tunnel leads to. */
  readonly inside: Netns;
  readonly address: string;
  stop(): Promise<void>;
}

/** A site of its own, and in place of a cluster a charon with a swanctl.conf written by hand, of the image's version. */
async function startBare(): Promise<Bare> {
  const group = await createGroup(['wire', 'nat', 'gateway', 'onprem', 'inside']);
  const { wire, inside, ...rest } = group.spaces;
  const [address, service] = ['10.244.1.9', '10.96.0.9'];
  await ip(`link add eth0 netns ${inside.name} type veth peer name br0 netns ${wire.name}`);
  await setUp(wire, 1, ['link set br0 up', 'address add 10.77.0.1/24 dev br0']);
  await setUp(inside, 1, [
    'link set eth0 up',
    'address add 10.77.0.11/24 dev eth0',
    'route add default via 10.77.0.1',
    `address add ${address}/32 dev lo`,
    `address add ${service}/32 dev lo`,
  ]);
  const site = await startSite({ wire, ...rest });
  const clusterRanges = [...cluster.podCIDRs, ...cluster.serviceCIDRs];
  const psk = 'a-key-for-this-benchmark';
  await site.load({ psk, localID: SITE_ADDRESS, remoteID: cluster.peer.id, ranges: RANGES, clusterRanges });
  const charon = await startStrongswan({
    netns: inside,
    folder: join(group.folder, 'inside'),
    root: await strongswan6Root(),
  });
  await charon.load(bareConf(psk, clusterRanges));
  await charon.swanctl('--initiate', '--child', 'site');
  return {
    onprem: rest.onprem,
    inside,
    address,
    async stop() {
      await charon.stop();
      await site.stop();
      await group.remove();
    },
  };
}

function bareConf(psk: string, ranges: readonly string[]): string {
  return `connections {
  site {
    version = 2
    remote_addrs = ${SITE_ADDRESS}
    proposals = aes256gcm16-prfsha384-ecp384
    encap = yes
    mobike = no
    local {
      auth = psk
      id = ${cluster.peer.id}
    }
    remote {
      auth = psk
      id = ${SITE_ADDRESS}
    }
    children {
      site {
        local_ts = ${ranges.join(',')}
        remote_ts = ${RANGES[0]}
        esp_proposals = aes256gcm16-ecp384
      }
    }
  }
}
secrets {
  ike-site {
    secret = 0s${Buffer.from(psk).toString('base64')}
  }
}
`;
}

interface Usage {
  readonly memoryMiB: number;
  readonly cpuSeconds: number;
}

/** Of each container of the VPN, by its node's kubelet. */
async function usage(): Promise<Map<string, Usage>> {
  const all = new Map<string, Usage>();
  for (const { name } of cluster.nodes) {
    const text = await cluster.kubectl(['get', '--raw', `/api/v1/nodes/${name}/proxy/stats/summary`]);
    const { pods } = JSON.parse(text) as {
      pods: {
        podRef: { name: string; namespace: string };
        containers?: { name: string; memory?: { workingSetBytes?: number }; cpu?: { usageCoreNanoSeconds?: number } }[];
      }[];
    };
    for (const { podRef, containers = [] } of pods.filter((pod) => pod.podRef.namespace === NAMESPACE))
      for (const { name: container, memory, cpu } of containers)
        all.set(`${container} (${podRef.name.startsWith('vpn-routing') ? name : podRef.name})`, {
          memoryMiB: (memory?.workingSetBytes ?? 0) / 2 ** 20,
          cpuSeconds: (cpu?.usageCoreNanoSeconds ?? 0) / 1e9,
        });
  }
  return all;
}

async function needs(what: string): Promise<void> {
  // kubelet looks every ten seconds.
  await sleep(20_000);
  const before = await usage();
  progress(`at rest with ${what} for ${idleSeconds} s`);
  await sleep(idleSeconds * 1000);
  const after = await usage();
  console.log();
  row(`container, ${what}, at rest`, 'MiB', 'CPU seconds a minute');
  row('---', '---', '---');
  for (const [name, { memoryMiB, cpuSeconds }] of after) {
    const seconds = ((cpuSeconds - (before.get(name)?.cpuSeconds ?? 0)) / idleSeconds) * 60;
    row(name, memoryMiB.toFixed(0), seconds.toFixed(2));
  }
}

async function manyRanges({ psk }: Fixture): Promise<void> {
  const more = Array.from({ length: 198 }, (_, index) => `172.30.${index}.0/24`);
  const ranges = [...RANGES, ...more];
  await cluster.gateway.ip(...more.map((range) => `address add ${range.replace('.0/24', '.1/32')} dev lo`));
  await connectSite(cluster, psk, ranges);
  await checkout.configure(cluster, { peerCIDRs: ranges });
  await apply(cluster, checkout);
  await sleep(30_000);
  await needs('200 ranges');
}

/** As unpacked, which is what a node keeps. */
async function imageSizes({ images }: Cluster): Promise<void> {
  const env = await setUpContainers();
  console.log();
  row('image, unpacked', 'MiB', 'target');
  row('---', '---', '---');
  for (const [image, target] of [
    [images.agents, '180'],
    ['localhost/constellation-vpn/strongswan:test', '120'],
  ] as const) {
    const { stdout } = await execa('podman', ['image', 'inspect', '--format={{.Size}}', image], { env });
    row(image.replace('localhost/', '').replace(':test', ''), (Number(stdout) / 2 ** 20).toFixed(1), target);
  }
}
