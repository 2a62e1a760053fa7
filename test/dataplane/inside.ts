/**
 * The programs that run inside a namespace, one for each command: node inside.ts <program> <args>. What they have to say is
 * JSON, a line each, on stdout; the first line says that they are at work. The end of stdin asks for the last line.
 */
import { createHash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, createServer, isIPv6, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { joinSockets } from './join-sockets.ts';

const say = (message: unknown) => process.stdout.write(`${JSON.stringify(message)}\n`);
const onEndOfInput = (run: () => void) => process.stdin.on('end', run).resume();

export type ProgramName = 'tcp-server' | 'tcp-client' | 'udp-echo' | 'udp-probe' | 'http-server' | 'relay';

export interface Tally {
  bytes: number;
  /** SHA-256, in hex. */
  digest: string;
}

/** Takes one connection. First { port }, last a Tally of what came in. */
function tcpServer(address: string): void {
  const hash = createHash('sha256');
  let bytes = 0;
  const server = createServer((socket) => {
    socket.on('data', (chunk) => {
      hash.update(chunk);
      bytes += chunk.length;
    });
    // A client that is killed.
    socket.on('error', () => undefined);
  });
  server.listen(0, address, () => say({ port: portOf(server) }));
  onEndOfInput(() => {
    say({ bytes, digest: hash.digest('hex') } satisfies Tally);
    process.exit();
  });
}

/** First {}, last a Tally of what it sent, once the server has it all; ends with exit code 1 where there is no connection. */
async function tcpClient(address: string, port: string, total: string): Promise<void> {
  say({});
  const hash = createHash('sha256');
  const chunks = function* () {
    for (let left = Number(total); left > 0; left -= CHUNK_BYTES) {
      const chunk = randomBytes(Math.min(left, CHUNK_BYTES));
      hash.update(chunk);
      yield chunk;
    }
  };
  const socket = connect({ host: address, port: Number(port) });
  const closed = new Promise((resolve) => socket.once('close', resolve));
  // The server ends the connection when it has seen the end.
  await pipeline(Readable.from(chunks()), socket.resume());
  await closed;
  say({ bytes: Number(total), digest: hash.digest('hex') } satisfies Tally);
}
const CHUNK_BYTES = 65_536;

/** Sends every datagram back, until the end of stdin. First { port }. */
function udpEcho(address: string): void {
  const socket = createSocket(family(address));
  onEndOfInput(() => process.exit());
  socket.on('message', (data, from) => socket.send(data, from.port, from.address, ignoreError));
  socket.bind(0, address, () => say({ port: socket.address().port }));
}

export interface FlowReport {
  /** Probes. */
  sent: number;
  /** Of them, those that came back. */
  received: number;
  /**
   * Between the sending of two probes that came back with none in between that did, or from the first probe, or to the last.
   * About the interval where none is lost; at most two intervals more than the path was down.
   */
  longestGapMs: number;
  /** Sequence numbers, from 0, of those that did not come back. */
  lost: number[];
}

/** First {}, when it has sent the first probe; last a FlowReport. */
function udpProbe(address: string, port: string, intervalMs: string): void {
  const socket = createSocket(family(address));
  const sentAt: number[] = [];
  const received = new Set<number>();
  socket.on('message', (data) => received.add(data.readUInt32BE()));
  const probe = () => {
    const data = Buffer.alloc(4);
    data.writeUInt32BE(sentAt.length);
    sentAt.push(performance.now());
    // Without a route it fails at once, and is lost like any other.
    socket.send(data, Number(port), address, ignoreError);
  };
  const timer = setInterval(probe, Number(intervalMs));
  probe();
  say({});
  onEndOfInput(() => {
    clearInterval(timer);
    const deadline = performance.now() + STRAGGLERS_MS;
    setInterval(() => {
      if (received.size < sentAt.length && performance.now() < deadline) return;
      say(report(sentAt, received));
      process.exit();
    }, 5);
  });
}
/** How long the last probes have: on a busy machine each program on their way waits for its turn. */
const STRAGGLERS_MS = 1_500;

function report(sentAt: readonly number[], received: ReadonlySet<number>): FlowReport {
  const lost: number[] = [];
  let [longestGapMs, previous = 0] = [0, sentAt[0]];
  for (const [sequence, at] of sentAt.entries()) {
    if (!received.has(sequence)) lost.push(sequence);
    longestGapMs = Math.max(longestGapMs, at - previous);
    if (received.has(sequence)) previous = at;
  }
  return { sent: sentAt.length, received: received.size, longestGapMs: Math.round(longestGapMs), lost };
}

export interface HttpRequest {
  method: string;
  path: string;
  body: string;
}

/** Answers with these statuses, one request each, and with the last one from then on. First {}, then each HttpRequest. */
function httpServer(port: string, ...statuses: string[]): void {
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const status = (statuses.length > 1 ? statuses.shift() : statuses[0]) ?? '200';
    const body = await text(request);
    say({ method: request.method ?? '', path: request.url ?? '', body } satisfies HttpRequest);
    response.writeHead(Number(status)).end();
  };
  const server = createHttpServer((request, response) => void answer(request, response));
  server.listen(Number(port), () => say({}));
}

/**
 * Hands connections to 127.0.0.1:PORT on to a unix socket. Lines of stdin: `cut` breaks those that are there and refuses new
 * ones, `restore` takes new ones again; both are answered with {}.
 */
function relay(port: string, path: string): void {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    joinSockets(socket, connect({ path, allowHalfOpen: true }));
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  const answer = () => say({});
  const listen = () => server.listen(Number(port), '127.0.0.1', answer);
  const cut = () => {
    server.close(answer);
    for (const socket of sockets) socket.resetAndDestroy();
  };
  listen();
  createInterface(process.stdin).on('line', (line) => (line === 'cut' ? cut() : listen()));
}

const family = (address: string) => (isIPv6(address) ? 'udp6' : 'udp4');
const ignoreError = () => undefined;

function portOf(server: ReturnType<typeof createServer>): number {
  const address = server.address();
  if (typeof address === 'object' && address !== null) return address.port;
  throw new Error('not a TCP server that listens');
}

type Program = (...args: string[]) => unknown;
const PROGRAMS: Record<string, Program> = {
  'tcp-server': tcpServer,
  'tcp-client': tcpClient,
  'udp-echo': udpEcho,
  'udp-probe': udpProbe,
  'http-server': httpServer,
  relay,
} satisfies Record<ProgramName, unknown>;

const [name = '', ...args] = process.argv.slice(2);
const program = PROGRAMS[name];
if (program === undefined) throw new Error(`no program: ${name}`);
await program(...args);
