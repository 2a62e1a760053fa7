/**
 * What a cloud does for Services of type LoadBalancer, at the router in front of the test cluster's nodes: gives each an
 * address and hands what comes to it to a node's port. Clients keep their addresses. Needs nftables and conntrack.
 *
 * A cloud asks the nodes themselves (healthCheckNodePort) who has a pod of the Service; here the EndpointSlices say it.
 */
import { isIPv4 } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { statusOf } from '../control-plane/apply.ts';
import type { Answer, Request } from '../control-plane/client.ts';
import type { Netns } from '../dataplane/netns.ts';

/** Of the API's objects what matters here. */
export interface Service {
  readonly metadata: { readonly namespace: string; readonly name: string };
  readonly spec: {
    readonly externalTrafficPolicy?: string;
    readonly ports: readonly { readonly port: number; readonly nodePort?: number; readonly protocol: string }[];
  };
  readonly status?: { readonly loadBalancer?: { readonly ingress?: readonly { readonly ip?: string }[] } };
}

export interface EndpointSlice {
  readonly metadata: { readonly namespace: string; readonly labels?: Readonly<Record<string, string>> };
  /** The API writes null where there is none. */
  readonly endpoints: readonly Endpoint[] | null;
}

interface Endpoint {
  readonly nodeName?: string;
  readonly conditions?: { readonly ready?: boolean; readonly terminating?: boolean };
}

/** Addresses by the nodes' names. */
export type Nodes = Readonly<Record<string, string>>;

export interface LoadBalancerOptions {
  /** As a user who may list Services and EndpointSlices everywhere, and patch the status of Services. */
  readonly request: Request;
  /** The router in front of the nodes. */
  readonly wire: Netns;
  /** The first Service's. The next one's is one higher, up to .255. */
  readonly address: string;
  /** Looked at again each time. */
  readonly nodes: Nodes;
}

export interface LoadBalancer {
  /** What it has set up stays. Rejects with what it died of, if it did. */
  stop(): Promise<void>;
}

/** Between two looks at the API server, 2 lists of 3 ms each. What has changed takes effect within this and 50 ms more. */
const INTERVAL_MS = 250;
const SERVICES = '/api/v1/services?fieldSelector=spec.type%3DLoadBalancer';
const SLICES = '/apis/discovery.k8s.io/v1/endpointslices';
const MERGE_PATCH = 'application/merge-patch+json';

/** Resolves after the first round. While the API server is away, what was set up last stays. */
export async function startLoadBalancer(options: LoadBalancerOptions): Promise<LoadBalancer> {
  const { request, wire, address, nodes } = options;
  let current: Rules = new Map();
  const round = async (): Promise<void> => {
    const [listed, slices] = await Promise.all([
      list<Service>(request, SERVICES),
      list<EndpointSlice>(request, SLICES),
    ]);
    if (listed === undefined || slices === undefined) return;
    const services = assignAddresses(listed, address);
    for (const [index, service] of services.entries())
      if (service !== listed[index]) await patchStatus(request, service);
    const wanted = planRules(services, slices, nodes);
    await replaceRules(wire, current, wanted);
    current = wanted;
  };
  await round();
  const end = new AbortController();
  const running = (async () => {
    while (await pause(end.signal)) await round();
  })();
  // What it dies of is for stop() to say, not to end this process.
  running.catch(() => undefined);
  return {
    async stop() {
      end.abort();
      await running;
    },
  };
}

/** Whether it goes on. */
async function pause(signal: AbortSignal): Promise<boolean> {
  await sleep(INTERVAL_MS, undefined, { signal }).catch(() => undefined);
  return !signal.aborted;
}

/** undefined: the API server is away or busy. */
async function list<T>(request: Request, path: string): Promise<T[] | undefined> {
  const answer = await ask(request('GET', path));
  return (answer?.body as { items: T[] } | undefined)?.items;
}

/** Where the Service has gone meanwhile, or the server, the next round sees to it. */
async function patchStatus(request: Request, { metadata: { namespace, name }, status }: Service): Promise<void> {
  const path = `/api/v1/namespaces/${namespace}/services/${name}/status`;
  await ask(request('PATCH', path, { status }, MERGE_PATCH), [404]);
}

/** undefined where there is no answer to go by now. Throws at a refusal, which would be for good, but for those `expected`. */
async function ask(sent: Promise<Answer>, expected: readonly number[] = []): Promise<Answer | undefined> {
  const answer = await sent.catch(() => undefined);
  if (answer === undefined || answer.status === 200) return answer;
  if (answer.status === 429 || answer.status >= 500 || expected.includes(answer.status)) return undefined;
  throw new Error(`load balancer: ${statusOf(answer)}`);
}

/**
 * The Services, each with an address in its status; as they were where they have it already. The status is the only memory.
 * Throws where there are no more addresses.
 */
export function assignAddresses(services: readonly Service[], first: string): Service[] {
  const [network, host] = split(first);
  const pool = Array.from({ length: 256 - host }, (_, index) => `${network}.${host + index}`);
  const owners = new Map<string, Service>();
  for (const service of services) {
    const has = addressOf(service);
    if (has !== undefined && pool.includes(has) && !owners.has(has)) owners.set(has, service);
  }
  return services.map((service) => {
    if (owners.get(addressOf(service) ?? '') === service) return service;
    const ip = pool.find((free) => !owners.has(free));
    if (ip === undefined) throw new Error(`load balancer: no address from ${first} on is free`);
    owners.set(ip, service);
    return { ...service, status: { loadBalancer: { ingress: [{ ip }] } } };
  });
}

function split(address: string): [network: string, host: number] {
  if (!isIPv4(address)) throw new Error(`load balancer: ${address} is no address of IPv4`);
  const dot = address.lastIndexOf('.');
  return [address.slice(0, dot), Number(address.slice(dot + 1))];
}

const addressOf = ({ status }: Service): string | undefined => status?.loadBalancer?.ingress?.[0]?.ip;

/** nft's rules by the Services' addresses; none where no node has a ready endpoint. Equal for equal arguments. */
export type Rules = ReadonlyMap<string, readonly string[]>;

/** For Services that have an address. */
export function planRules(services: readonly Service[], slices: readonly EndpointSlice[], nodes: Nodes): Rules {
  const rulesOf = (service: Service, address: string): string[] => {
    const node = targetOf(service, slices, nodes);
    if (node === undefined) return [];
    return service.spec.ports
      .filter(({ nodePort }) => nodePort !== undefined)
      .map(
        ({ port, protocol, nodePort }) =>
          `ip daddr ${address} ${protocol.toLowerCase()} dport ${port} dnat to ${node}:${nodePort}`,
      );
  };
  const planned = services.map((service) => [addressOf(service), service] as const);
  return new Map(planned.flatMap(([address, service]) => (address ? [[address, rulesOf(service, address)]] : [])));
}

/** Address of the first node that takes the Service's traffic. */
function targetOf(service: Service, slices: readonly EndpointSlice[], nodes: Nodes): string | undefined {
  const local = service.spec.externalTrafficPolicy === 'Local';
  const ready = new Set(local ? readyNodes(service, slices) : Object.keys(nodes));
  return Object.entries(nodes).find(([name]) => ready.has(name))?.[1];
}

function readyNodes({ metadata: { namespace, name } }: Service, slices: readonly EndpointSlice[]): string[] {
  return slices
    .filter(({ metadata }) => metadata.namespace === namespace)
    .filter(({ metadata }) => metadata.labels?.['kubernetes.io/service-name'] === name)
    .flatMap(({ endpoints }) => endpoints ?? [])
    .filter(({ conditions }) => conditions?.ready !== false && conditions?.terminating !== true)
    .flatMap(({ nodeName }) => nodeName ?? []);
}

/** nft's transaction that puts them in place of what was there. What nobody serves is dropped: no answer, as with a cloud. */
export function tableText(rules: Rules): string {
  const drops = [...rules.keys()].map((address) => `ip daddr ${address} drop`);
  return `table ip load-balancer
delete table ip load-balancer
table ip load-balancer {
  chain balance {
    type nat hook prerouting priority dstnat;
    ${[...rules.values()].flat().join('\n    ')}
  }
  chain rest {
    type filter hook prerouting priority dstnat + 1;
    ${drops.join('\n    ')}
  }
}
`;
}

/** Does nothing where they are the same. */
async function replaceRules(wire: Netns, current: Rules, wanted: Rules): Promise<void> {
  const textOf = (rules: Rules, address: string): string | undefined => rules.get(address)?.join('\n');
  const addresses = new Set([...current.keys(), ...wanted.keys()]);
  const changed = [...addresses].filter((address) => textOf(current, address) !== textOf(wanted, address));
  if (changed.length === 0) return;
  await wire.exec('nft', tableText(wanted));
  // A flow, such as ESP in UDP, would go to the node that it went to at first for as long as it lasts.
  for (const address of changed) await forgetFlows(wire, address);
}

async function forgetFlows(wire: Netns, address: string): Promise<void> {
  const { exitCode, stderr } = await wire.start('conntrack', ['-D', '--orig-dst', address], { env: { LC_ALL: 'C' } });
  // 1 where there was none, too.
  if (exitCode !== 0 && !stderr.includes(' 0 flow entries'))
    throw new Error(`conntrack -D --orig-dst ${address} in ${wire.name}: ${stderr}`);
}
