/** Traffic between namespaces, and what is seen of it. Needs, of Debian's packages, iputils-ping and tcpdump. */
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FlowReport, Tally } from './inside.ts';
import type { Netns, Place } from './netns.ts';
import { startProgram } from './program.ts';

export interface PingResult {
  sent: number;
  received: number;
}

/**
 * Echo requests of ICMP in either family, 20 ms apart; waits 1 s for the answers. `from`: the source address, of which the
 * kernel's routes decide otherwise. Nothing is sent where there is no route at all. Throws where ping can't do it.
 */
export async function ping(
  ns: Place,
  to: string,
  { count = 3, from }: { count?: number; from?: string } = {},
): Promise<PingResult> {
  const source = from === undefined ? [] : ['-I', from];
  const args = ['-n', '-q', '-c', String(count), '-i', '0.02', '-W', '1', ...source, to];
  const { stdout, stderr } = await ns.start('ping', args, { env: { LC_ALL: 'C' } });
  const [, sent, received] = /^(\d+) packets transmitted, (\d+) received/m.exec(stdout) ?? [];
  if (sent !== undefined) return { sent: Number(sent), received: Number(received) };
  // By an unreachable, blackhole or prohibit route the kernel refuses to connect. `firewall`: ping's guess at the last.
  if (/connect: |firewall/.test(stderr)) return { sent: 0, received: 0 };
  throw new Error(`ping ${args.join(' ')} in ${ns.name}: ${stderr}`);
}

/** ping waits for the last answers for twice the time of the slowest one so far, which on a busy machine is too short. */
const TRIES = 3;

/** Whether all of three echo requests are answered, in one of a few tries. */
export async function answered(ns: Place, to: string, options: { from?: string } = {}): Promise<boolean> {
  for (let i = 0; i < TRIES; i++) if ((await ping(ns, to, options)).received === 3) return true;
  return false;
}

export interface Transfer {
  /** That arrived. */
  bytes: number;
  /** From the attempt to connect to the end of the connection, or of the time. */
  ms: number;
  /** Whether all has arrived, and as it was sent. */
  digestsEqual: boolean;
}

/**
 * Random bytes over one connection of TCP, from a client in `from` to a server in `to`. When the time is over, or where the
 * connection isn't made or breaks, resolves with what had arrived.
 */
export async function tcpTransfer(
  from: Place,
  to: Place,
  address: string,
  bytes: number,
  { timeoutMs }: { timeoutMs: number },
): Promise<Transfer> {
  const server = await startProgram(to, 'tcp-server', address);
  const client = await startProgram(from, 'tcp-client', address, server.first.port ?? 0, bytes);
  const start = performance.now();
  const over = new AbortController();
  const sent = await Promise.race([
    client.next<Tally>().catch(() => undefined),
    sleep(timeoutMs, undefined, { signal: over.signal }),
  ]);
  over.abort();
  const ms = Math.round(performance.now() - start);
  const arrived = await server.finish<Tally>();
  await client.kill();
  return { bytes: arrived.bytes, ms, digestsEqual: arrived.bytes === bytes && arrived.digest === sent?.digest };
}

export interface Capture {
  /** tcpdump's lines, one a packet: `17:12:06.123456 IP 10.10.1.7 > 192.168.50.9: ICMP echo request, …`. */
  stop(): Promise<string[]>;
}

/** Until tcpdump has printed what it saw last: no new line for so long. */
const PRINT_MS = 100;
/** After so many rounds with new lines it ends all the same. */
const PRINTS = 20;

/** Resolves when it listens. `filter`: see pcap-filter(7); `direction`: as seen from the device. Throws with tcpdump's words. */
export async function capture(
  ns: Netns,
  device: string,
  filter: string,
  { direction = 'inout' }: { direction?: 'in' | 'out' | 'inout' } = {},
): Promise<Capture> {
  // Without immediate mode packets lie in the kernel for up to 1 s, and are gone at the end.
  const options = ['-Z', 'root', '-n', '-l', '-U', '--immediate-mode', '-Q', direction];
  const child = ns.start('tcpdump', [...options, '-i', device, filter], { stdin: 'ignore', buffer: false });
  const lines: string[] = [];
  const read = createInterface(child.stdout).on('line', (line) => lines.push(line));
  const readAll = new Promise((resolve) => read.once('close', resolve));
  const words: string[] = [];
  const listens = new Promise<boolean>((resolve) => {
    createInterface(child.stderr)
      .on('line', (line) => {
        words.push(line);
        if (line.startsWith('listening on ')) resolve(true);
      })
      .on('close', () => resolve(false));
  });
  if (!(await listens)) throw new Error(`tcpdump at ${device} in ${ns.name}: ${words.join('\n')}`);
  return {
    async stop() {
      for (let i = 0, before = -1; i < PRINTS && before < lines.length; i++, await sleep(PRINT_MS))
        before = lines.length;
      child.kill('SIGTERM');
      await Promise.all([child, readAll]);
      // One that is told to end begins another line.
      return lines.filter((line) => line !== '');
    },
  };
}

export interface Flow {
  /** Waits up to 1.5 s for the last probes. */
  stop(): Promise<FlowReport>;
}

/** UDP datagrams, one each interval, that the other side sends back. Resolves when the first is sent, whatever becomes of it. */
export async function startFlow(
  from: Place,
  to: Place,
  address: string,
  { intervalMs = 10 }: { intervalMs?: number } = {},
): Promise<Flow> {
  const echo = await startProgram(to, 'udp-echo', address);
  const probe = await startProgram(from, 'udp-probe', address, echo.first.port ?? 0, intervalMs);
  return {
    async stop() {
      const report = await probe.finish<FlowReport>();
      await echo.kill();
      return report;
    },
  };
}
