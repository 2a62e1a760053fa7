/**
 * Pings a host of the site, through the tunnel: an SA may stand and carry nothing. Needs iputils' ping and no capability
 * where net.ipv4.ping_group_range (which holds for IPv6, too) has the agent's group: it uses ICMP sockets then.
 */
import { exec, ExecError } from '../../lib/exec.ts';
import type { Log } from '../../lib/log.ts';
import { SayOnce } from '../../lib/say-once.ts';
import { wait } from '../../lib/wait.ts';

export interface ProbeResult {
  readonly address: string;
  /** Part of the pings without an answer, 0 to 1. */
  readonly loss: number;
  /** Average round trip; undefined where nothing was answered. */
  readonly latencySeconds?: number;
}

interface Options {
  readonly log: Log;
  readonly onResult: (result: ProbeResult) => void;
  /** Nothing is known of this address any more: it is another one now, or none, or ping can't run. May come repeatedly. */
  readonly onUnknown?: (address: string) => void;
  /** Between two rounds. */
  readonly intervalMs?: number;
  /** Pings a round. */
  readonly count?: number;
}

/** Of ping's, the least that it allows without privilege; 1 s for the last answer. */
const BETWEEN_SECONDS = 0.2;
const ANSWER_SECONDS = 1;
const MARGIN_MS = 10_000;
/** As long as a timer can be. */
const FOREVER_MS = 2 ** 31 - 1;

const LOST =
  "With no CHILD_SA this has to be. With one: check that the on-prem host is up and its firewall answers ping from the pods, that its network routes the pods' range back to the gateway, that the gateway's traffic selectors and firewall let the host and the pods' range through, and that its packets in UDP 4500 or ESP arrive (bytes of the CHILD_SA).";

export class Probe {
  readonly #options: Options;
  readonly #said = new SayOnce();
  #address: string | undefined;
  /** Aborted when the address changes, and at the end. */
  #wake = new AbortController();

  constructor(options: Options) {
    this.#options = options;
  }

  /** Counts at once. `undefined`: nothing is pinged. */
  set(address: string | undefined): void {
    if (address === this.#address) return;
    const former = this.#address;
    this.#address = address;
    this.#said.retain(new Set());
    const wake = this.#wake;
    this.#wake = new AbortController();
    wake.abort();
    if (former !== undefined) this.#options.onUnknown?.(former);
  }

  /** Until `signal` is aborted; the round that runs is ended first, which takes 2 s. */
  async run(signal: AbortSignal): Promise<void> {
    const { intervalMs = 15_000 } = this.#options;
    const end = (): void => this.#wake.abort();
    signal.addEventListener('abort', end);
    while (!signal.aborted) {
      const address = this.#address;
      const wake = this.#wake.signal;
      if (address !== undefined) await this.#round(address, () => !wake.aborted && !signal.aborted);
      if (!signal.aborted) await wait(address === undefined ? FOREVER_MS : intervalMs, wake);
    }
    signal.removeEventListener('abort', end);
  }

  async #round(address: string, wanted: () => boolean): Promise<void> {
    const { log, onResult, onUnknown, count = 5 } = this.#options;
    try {
      const result = await ping(address, count);
      if (!wanted()) return;
      if (this.#said.over('broken')) log.info({ address }, 'ping runs again');
      onResult(result);
      this.#sayPath(result);
    } catch (error) {
      // What is left is ping itself, or a bug of ours.
      if (!(error instanceof ExecError)) throw error;
      if (!wanted()) return;
      const problem = cannotPing(error);
      this.#said.say('broken', problem, () => log.error({ address, problem }, 'the path can not be probed'));
      onUnknown?.(address);
    }
  }

  #sayPath({ address, loss }: ProbeResult): void {
    const { log } = this.#options;
    if (loss < 1) {
      if (this.#said.over('lost')) log.info({ address, loss }, 'the path to the site carries traffic again');
      return;
    }
    this.#said.say('lost', address, () =>
      log.warn({ address, check: LOST }, 'no answer through the tunnel: the path to the site is lost'),
    );
  }
}

/** Throws ExecError where ping can't run. */
async function ping(address: string, count: number): Promise<ProbeResult> {
  const family = address.includes(':') ? ['-6'] : [];
  const args = [
    ...family,
    '-n',
    '-q',
    '-c',
    `${count}`,
    '-i',
    `${BETWEEN_SECONDS}`,
    '-W',
    `${ANSWER_SECONDS}`,
    address,
  ];
  const timeoutMs = (count * BETWEEN_SECONDS + ANSWER_SECONDS) * 1000 + MARGIN_MS;
  const counted = readPing(await exec('ping', args, { timeoutMs }).catch(lostOutput));
  if (counted === undefined || counted.sent === 0) return { address, loss: 1 };
  const { sent, received, latencySeconds } = counted;
  const loss = 1 - Math.min(received / sent, 1);
  return { address, loss, ...(latencySeconds === undefined ? {} : { latencySeconds }) };
}

/** Without an answer ping ends with 1; without a route, or with a policy and no SA, with 2 and no figures. */
function lostOutput(error: unknown): string {
  if (error instanceof ExecError && error.reason === 'failed' && (hasFigures(error) || NO_WAY.test(error.stderr)))
    return error.stdout;
  throw error;
}

const hasFigures = ({ stdout }: ExecError): boolean => readPing(stdout) !== undefined;
/** EACCES, of a route that prohibits, has a sentence of ping's own. */
const NO_WAY = /^\S*ping6?: (?:connect: |Do you want to ping broadcast\?)/m;

/** What iputils' `ping -q` counted, 20221126 (Debian 12) as 20240905 (Debian 13). Undefined where it came to no figures. */
export function readPing(stdout: string): { sent: number; received: number; latencySeconds?: number } | undefined {
  const counts = /^(\d+) packets transmitted, (\d+) received[,\n]/m.exec(`${stdout}\n`);
  if (counts === null) return undefined;
  const [sent, received] = counts.slice(1).map(Number);
  if (sent === undefined || received === undefined) return undefined;
  const average = /^rtt min\/avg\/max\/mdev = \d+\.\d+\/(\d+\.\d+)\//m.exec(stdout)?.[1];
  return { sent, received, ...(average === undefined ? {} : { latencySeconds: Number(average) / 1000 }) };
}

const SYSCTL =
  'the pod needs the sysctl net.ipv4.ping_group_range with the agent\'s group, as in its securityContext: sysctls: [{name: net.ipv4.ping_group_range, value: "0 2147483647"}]';

function cannotPing({ reason, message, stderr }: ExecError): string {
  if (reason === 'missing') return `${message}: the image lacks iputils-ping`;
  // The kernel refuses a file that asks for a capability which the container may not have.
  if (message.includes('exit code EPERM'))
    return 'ping has a file capability (cap_net_raw) that this container may not have: remove it in the image (setcap -r), ping needs none';
  if (/socket: (?:Operation not permitted|Permission denied)/.test(stderr))
    return `ping may open no socket (${lastPart(stderr)}): ${SYSCTL}`;
  return message;
}

const lastPart = (stderr: string): string => /socket: ([A-Z][a-z ]+)/.exec(stderr)?.[1] ?? '';
