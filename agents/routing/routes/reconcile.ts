/** Keeps the node's routes: reads what an event concerns, plans, applies. */
import { hostCidr, type Cidr } from '../../../functions/model/cidr.ts';
import type { Vpn } from '../../../functions/model/vpn.ts';
import type { Log } from '../../lib/log.ts';
import type { Again } from '../../lib/queue.ts';
import { SayOnce } from '../../lib/say-once.ts';
import { frontendsOf, type Frontend, type Frontends } from '../frontends.ts';
import type { Pod } from '../../lib/kube/objects.ts';
import { change, type Refused } from '../kernel/ip.ts';
import type { KernelEvent } from '../kernel/monitor.ts';
import type { KernelWatch } from '../kernel/watch.ts';
import { PROTO, seenAs, type SeenRoute } from '../kernel/route.ts';
import { CILIUM_HOST, readNode, readRanges, type Links } from '../kernel/state.ts';
import type { Metrics } from '../metrics.ts';
import { causesOf, DueCauses } from './causes.ts';
import {
  desiredRoutes,
  isRefusal,
  tooLargeMtus,
  type NodeState,
  type Refusal,
  type Wanted,
  type Way,
} from './desired.ts';
import { planRoutes, type Plan, type Step } from './plan.ts';
import { RangeIndex } from '../range-index.ts';

/** The events of what was applied here come until so long afterwards, in milliseconds. */
const ECHO_MS = 2_000;
/** More changes than this are made while nobody watches the kernel. */
const MANY_STEPS = 500;
/** Changes of more ranges than this are looked at all together. */
const MANY = 64;

interface Deps {
  readonly log: Log;
  readonly metrics: Metrics;
  readonly vpn: () => Vpn | undefined;
  /** The frontends' pods of this node; undefined while they are not known. */
  readonly pods: () => readonly Pod[] | undefined;
  /** Whether Cilium tunnels between nodes; undefined while that is not known. */
  readonly tunnels: () => boolean | undefined;
  /** Runs something while nobody watches the kernel. */
  readonly quietly: KernelWatch['quietly'];
}

export class Routes {
  readonly #deps: Deps;
  readonly #saidRefused = new SayOnce();
  readonly #saidOdd = new SayOnce();
  #links: Links | undefined;
  #frontends: Frontends = { frontends: [], problems: [] };
  /** Of #frontends. */
  #podAddresses: ReadonlySet<Cidr | undefined> = new Set();
  #addresses: readonly string[] = [];
  #wanted: readonly Wanted[] = [];
  #index = new RangeIndex<Wanted>([]);
  /** What both were made of. */
  #madeOf: { readonly config: Vpn; readonly node: string } | undefined;
  /** Of each range the way that it was given, or why it has none. */
  readonly #ranges = new Map<Cidr, Way | Refusal>();
  /** What is to be looked at: these ranges, or all there is. */
  #dirty: Set<Cidr> | 'all' = 'all';
  /** When the first event came that has not been dealt with, in milliseconds of `performance.now()`. */
  #eventAt: number | undefined;
  /** The configuration changed and nothing else that #wanted comes from. */
  #configChanged = false;
  /** The sites that #frontends was made for. */
  #sites = '';
  /** All of the kernel is being read: what happens meanwhile may have been missed. */
  #reading = false;
  /** How many events of what was applied here are still to come, and until when, in milliseconds of `performance.now()`. */
  #echoes = 0;
  #echoesUntil = 0;
  readonly #dueCauses = new DueCauses();
  /** In how many milliseconds a cause is to be said that was held back, unless it is over then. */
  #againMs: number | undefined;
  #anyRefused = false;
  /** Nothing has happened since the last look that went well. */
  #settled = false;
  #checking = false;
  #problem: string | undefined = 'the routes have not been looked at yet';

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  /** Why the last look was none, or did not bring about what it should; undefined where all is well. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** To be asked at each event of an added or changed route of ours: true where it is of what was applied here. */
  isEcho(): boolean {
    if (this.#echoes === 0 || performance.now() > this.#echoesUntil) return false;
    this.#echoes -= 1;
    return true;
  }

  /** The kernel, the pods or Cilium's configuration may be other than they were. */
  recheck(): void {
    this.#dirty = 'all';
    this.#settled = false;
  }

  /** Only the configuration changed: ranges that stay as they were are not looked at. */
  configChanged(): void {
    this.#configChanged = true;
    this.#settled = false;
  }

  /** True where the event concerns something that is kept here. */
  event(event: KernelEvent): boolean {
    const concerned = this.#concerns(event);
    if (concerned.length === 0) return false;
    this.#eventAt ??= performance.now();
    this.#settled = false;
    if (concerned === 'all' || this.#dirty === 'all') this.#dirty = 'all';
    else for (const cidr of concerned) this.#dirty.add(cidr);
    return true;
  }

  #concerns(event: KernelEvent): readonly Cidr[] | 'all' {
    if (event.about === 'link') return this.#devices().has(event.device) ? 'all' : [];
    if (event.about !== 'route') return 'all';
    const { dst } = event;
    if (this.#reading || this.#podAddresses.has(dst)) return 'all';
    return this.#index.around(dst).map(({ cidr }) => cidr);
  }

  /** Devices that routes of ours lead to. */
  #devices(): ReadonlySet<string> {
    const direct = (this.#links?.frontends ?? []).flatMap(({ routes }) =>
      Object.values(routes).flatMap((route) => ('direct' in route ? [route.direct.name] : [])),
    );
    return new Set([CILIUM_HOST, ...direct]);
  }

  /** Throws where the kernel can't be read or refused something; what could be done is done then. */
  async reconcile(): Promise<Again | void> {
    const { vpn, pods, tunnels } = this.#deps;
    const known = { config: vpn(), pods: pods(), tunnels: tunnels() };
    // Until all is known, what an earlier run of this agent has set up stays.
    if (known.config === undefined || known.pods === undefined || known.tunnels === undefined) return;
    const eventAt = this.#eventAt;
    this.#eventAt = undefined;
    this.#settled = true;
    this.#checking = true;
    try {
      const steps = await this.#check(known.config, known.pods, known.tunnels);
      const seconds = (performance.now() - (eventAt ?? 0)) / 1000;
      if (eventAt !== undefined && steps > 0) this.#deps.metrics.repairSeconds.observe(seconds);
      this.#problem = undefined;
      return this.#lookAgain();
    } catch (error) {
      this.#dirty = 'all';
      this.#settled = false;
      this.#problem = error instanceof Error ? error.message : String(error);
      throw error;
    } finally {
      this.#checking = false;
      this.#count();
    }
  }

  /** Whether what was held back still holds shows a look at everything. */
  #lookAgain(): Again | undefined {
    if (this.#againMs === undefined) return undefined;
    this.#dirty = 'all';
    return { afterMs: this.#againMs };
  }

  #check(config: Vpn, pods: readonly Pod[], tunnels: boolean): Promise<number> {
    const dirty = this.#dirty;
    this.#dirty = new Set();
    const links = this.#links;
    if (dirty === 'all' || links === undefined || this.#sites !== siteNames(config))
      return this.#checkAll(config, pods, tunnels);
    return this.#checkSome(config, { ...links, tunnels }, pods, dirty);
  }

  async #checkAll(config: Vpn, pods: readonly Pod[], tunnels: boolean): Promise<number> {
    this.#configChanged = false;
    this.#deps.metrics.checks.inc({ extent: 'all' });
    this.#frontends = frontendsOf(pods, config);
    this.#podAddresses = new Set(
      this.#frontends.frontends.flatMap(({ addresses }) => Object.values(addresses).map(hostCidr)),
    );
    this.#sites = siteNames(config);
    this.#reading = true;
    const { links, seen } = await readNode(this.#frontends.frontends).finally(() => {
      this.#reading = false;
    });
    this.#links = links;
    this.#addresses = seen.addresses;
    this.#setWanted(config, { ...links, tunnels });
    return this.#apply(this.#wanted, planRoutes(this.#index, seen));
  }

  async #checkSome(config: Vpn, node: NodeState, pods: readonly Pod[], dirty: ReadonlySet<Cidr>): Promise<number> {
    const concerned = new Set(dirty);
    if (this.#configChanged) {
      this.#configChanged = false;
      this.#setWanted(config, node);
      for (const cidr of this.#changedRanges()) concerned.add(cidr);
    }
    if (concerned.size === 0) return 0;
    if (concerned.size > MANY) return this.#checkAll(config, pods, node.tunnels);
    this.#deps.metrics.checks.inc({ extent: 'some' });
    const gone = new Map([...concerned].flatMap((cidr) => (dirty.has(cidr) ? [] : this.#givenToGone(cidr))));
    const read = await readRanges([...concerned].filter((cidr) => !gone.has(cidr)));
    const seen = { routes: [...read, ...[...gone.values()].flat()], addresses: this.#addresses };
    const wanted = [...concerned].flatMap((cidr) => this.#index.get(cidr) ?? []);
    return this.#apply(wanted, planRoutes(new RangeIndex(wanted), seen, concerned));
  }

  /** The routes of a range that is wanted no more, where they need not be read: no event told that they are others. */
  #givenToGone(cidr: Cidr): [Cidr, SeenRoute[]][] {
    const given = this.#ranges.get(cidr);
    if (this.#index.get(cidr) !== undefined || given === undefined || isRefusal(given)) return [];
    return [[cidr, given.hops.map((hop) => seenAs(cidr, hop))]];
  }

  #setWanted(config: Vpn, node: NodeState): void {
    const madeOf = { config, node: JSON.stringify(node) };
    if (this.#madeOf?.config !== config || this.#madeOf.node !== madeOf.node) {
      this.#madeOf = madeOf;
      this.#wanted = desiredRoutes(config, node);
      this.#index = new RangeIndex(this.#wanted);
    }
    this.#sayOdd(config, node);
  }

  /** Ranges whose routes should be others than they were given, and those that are wanted no more. */
  #changedRanges(): Cidr[] {
    const changed: Cidr[] = [];
    for (const { cidr, way, refused } of this.#wanted)
      if (refused !== undefined || !isWay(this.#ranges.get(cidr), way)) changed.push(cidr);
    for (const cidr of this.#ranges.keys()) if (this.#index.get(cidr) === undefined) changed.push(cidr);
    return changed;
  }

  /** Answers how many steps there were. */
  async #apply(concerned: readonly Wanted[], { steps, refused }: Plan): Promise<number> {
    for (const { do: kind, cidr } of steps) this.#countRepair(kind, cidr);
    const failed = await this.#change(steps);
    if (steps.length > failed.size) this.#deps.log.info(countSteps(steps, failed), 'routes changed');
    const failures = kernelRefusals(steps, failed);
    this.#remember(concerned, new Map([...failures, ...refused]));
    this.#sayRefused();
    const [failure] = failures.values();
    if (failure !== undefined) throw new KernelRefused(failure.message, failures.size);
    this.#deps.metrics.lastSuccess.setToCurrentTime({ task: 'routes' });
    return steps.length;
  }

  #change(steps: readonly Step[]): Promise<Refused> {
    const lines = steps.map(({ do: kind, route }) => `route ${kind} ${route} proto ${PROTO}`);
    return steps.length > MANY_STEPS ? this.#deps.quietly(() => change(lines)) : this.#changeHeard(steps, lines);
  }

  async #changeHeard(steps: readonly Step[], lines: readonly string[]): Promise<Refused> {
    if (steps.length === 0) return new Map();
    const overdue = performance.now() > this.#echoesUntil;
    this.#echoes = (overdue ? 0 : this.#echoes) + steps.filter(({ do: kind }) => kind !== 'delete').length;
    this.#echoesUntil = Infinity;
    try {
      const failed = await change(lines);
      for (const i of failed.keys()) if (steps[i]?.do !== 'delete') this.#echoes = Math.max(0, this.#echoes - 1);
      return failed;
    } finally {
      this.#echoesUntil = performance.now() + ECHO_MS;
    }
  }

  #remember(concerned: readonly Wanted[], refused: ReadonlyMap<Cidr, Refusal>): void {
    for (const { cidr, way } of concerned) this.#ranges.set(cidr, refused.get(cidr) ?? way);
    if (this.#ranges.size === this.#index.size) return; // none of them is wanted no more
    for (const cidr of this.#ranges.keys()) if (this.#index.get(cidr) === undefined) this.#ranges.delete(cidr);
  }

  /** A step is a repair where the range was last given just these routes, or is none that was ever wanted. */
  #countRepair(kind: Step['do'], cidr: Cidr): void {
    const before = this.#ranges.get(cidr);
    const way = this.#index.get(cidr)?.way;
    const undone = way !== undefined && isWay(before, way);
    if (undone || (way === undefined && before === undefined)) this.#deps.metrics.repairs.inc({ kind: REPAIRS[kind] });
  }

  #count(): void {
    const { metrics } = this.#deps;
    const reasons = new Map<string, number>();
    let present = 0;
    for (const state of this.#ranges.values())
      if (!isRefusal(state)) present += 1;
      else reasons.set(state.reason, (reasons.get(state.reason) ?? 0) + 1);
    metrics.desired.set(this.#wanted.length);
    metrics.present.set(present);
    metrics.refused.reset();
    for (const [reason, count] of reasons) metrics.refused.set({ reason }, count);
  }

  /** One line for each cause, with the first of its ranges. */
  #sayRefused(): void {
    const { log } = this.#deps;
    const causes = causesOf(this.#ranges);
    const { due, againMs } = this.#dueCauses.of(causes, performance.now());
    this.#againMs = againMs;
    for (const [problem, one] of due)
      this.#saidRefused.say(problem, `${one.cidr} ${one.ranges}`, () =>
        log.error({ ...one, problem }, 'no route to this range'),
      );
    this.#saidRefused.retain(new Set(due.keys()));
    if (this.#anyRefused && causes.size === 0) log.info({}, 'every range has its route');
    this.#anyRefused = due.size > 0 || (this.#anyRefused && causes.size > 0);
  }

  #sayOdd(config: Vpn, node: NodeState): void {
    const { log } = this.#deps;
    const pods = this.#frontends.problems;
    const mtus = tooLargeMtus(config, node);
    for (const one of pods)
      this.#saidOdd.say(`pod ${one.pod}`, one.problem, () => log.error(one, 'this pod is no frontend'));
    for (const one of mtus)
      this.#saidOdd.say(`mtu ${one.site}`, JSON.stringify(one), () =>
        log.warn(one, "mtu is larger than the interface's, which is used instead: lower mtu in the configuration"),
      );
    this.#saidOdd.retain(new Set([...pods.map(({ pod }) => `pod ${pod}`), ...mtus.map(({ site }) => `mtu ${site}`)]));
  }

  /** The frontend's ranges that have no route, with the reason; undefined while its routes are still to be made. */
  refusedOf({ pod, uid, site }: Frontend): ReadonlyMap<Cidr, Refusal> | undefined {
    const planned = this.#frontends.frontends.some((one) => one.pod === pod && one.uid === uid);
    if (!planned || !this.#settled || this.#checking) return undefined;
    const refused = new Map<Cidr, Refusal>();
    for (const one of this.#wanted) {
      const state = one.site === site ? this.#ranges.get(one.cidr) : undefined;
      if (state !== undefined && isRefusal(state)) refused.set(one.cidr, state);
    }
    return refused;
  }
}

const REPAIRS = { add: 'missing-route', replace: 'changed-route', delete: 'stale-route' } as const;

const isWay = (state: Way | Refusal | undefined, { text }: Way): boolean =>
  state !== undefined && !isRefusal(state) && state.text === text;

const siteNames = ({ sites }: Vpn): string => sites.map(({ name }) => name).join(' ');

/** The kernel took not all; it is tried again. */
export class KernelRefused extends Error {
  override name = 'KernelRefused';
  constructor(reason: string, ranges: number) {
    super(`${ranges} ${ranges === 1 ? 'range has' : 'ranges have'} no route: ${reason}`);
  }
}

function kernelRefusals(steps: readonly Step[], failed: Refused): Map<Cidr, Refusal> {
  const refusals = new Map<Cidr, Refusal>();
  for (const [i, reason] of failed) {
    const step = steps[i];
    if (step === undefined || isHarmless(step, reason)) continue;
    refusals.set(step.cidr, { reason: 'kernel', message: `ip route ${step.do}: ${withCure(reason)}` });
  }
  return refusals;
}

/** What was to be deleted is gone. */
const isHarmless = (step: Step, reason: string): boolean => step.do === 'delete' && reason === 'No such process';

function withCure(reason: string): string {
  return reason === 'Nexthop has invalid gateway'
    ? `${reason}: Cilium has no endpoint route to the pod; set enable-endpoint-routes to "true" in cilium-config (Helm: endpointRoutes.enabled) and restart Cilium's agents`
    : reason;
}

function countSteps(steps: readonly Step[], failed: Refused): Record<string, number> {
  const counts: Record<string, number> = { added: 0, replaced: 0, deleted: 0 };
  const names = { add: 'added', replace: 'replaced', delete: 'deleted' } as const;
  for (const [i, step] of steps.entries())
    if (!failed.has(i)) counts[names[step.do]] = (counts[names[step.do]] ?? 0) + 1;
  return counts;
}
