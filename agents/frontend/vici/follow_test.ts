import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import type { Log } from '../../lib/log.ts';
import { ViciCommandError, type ViciConnection } from './connection.ts';
import { followVici, type FollowOptions } from './follow.ts';
import { encodeMessage } from './message.ts';
import { encodePacket } from './packet.ts';

/** It takes some milliseconds; on a busy machine more. Without a hint it would be 500 to 1000. */
const SOON_MS = 400;

/** Answers everything with an empty message. */
class FakeCharon {
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  /** Connections that it has had. */
  connections = 0;
  private constructor(vanishing: boolean) {
    this.#server = createServer((socket) => {
      this.connections += 1;
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('data', () => {
        if (vanishing) socket.destroy();
        else socket.write(encodePacket({ type: 'CMD_RESPONSE', message: encodeMessage({}) }));
      });
    });
  }
  static async start(path: string, { vanishing = false } = {}): Promise<FakeCharon> {
    const charon = new FakeCharon(vanishing);
    await once(charon.#server.listen(path), 'listening');
    return charon;
  }
  get connected(): number {
    return [...this.#sockets].filter((socket) => !socket.destroyed).length;
  }
  /** Goes on listening: nothing changes in the folder. */
  drop(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
  stop(): void {
    this.drop();
    this.#server.close();
  }
}

interface Followed {
  readonly socket: string;
  /** `info connected to charon`. */
  readonly lines: string[];
  readonly sessions: { connection: ViciConnection; signal: AbortSignal }[];
  readonly done: Promise<void>;
  abort(): void;
  charon(options?: { vanishing?: boolean }): Promise<FakeCharon>;
  /** Resolves when there have been so many, with the milliseconds it took. */
  until(sessions: number): Promise<number>;
}

async function follow(
  tt: ExecutionContext,
  onConnected: FollowOptions['onConnected'] = async () => undefined,
  folder?: string,
): Promise<Followed> {
  tt.timeout(20_000);
  const scratch = await mkdtemp(join(tmpdir(), 'constellation-vpn-follow-'));
  const socket = join(scratch, folder ?? '', 'vici');
  const lines: string[] = [];
  const say = (level: string) => (_: unknown, message?: string) => void lines.push(`${level} ${message}`);
  const log = { info: say('info'), warn: say('warn'), error: say('error') } as unknown as Log;
  const sessions: Followed['sessions'] = [];
  const controller = new AbortController();
  const done = followVici({
    socket,
    signal: controller.signal,
    log,
    timeoutMs: 1000,
    onConnected: async (connection, signal) => {
      sessions.push({ connection, signal });
      await onConnected(connection, signal);
    },
  });
  done.catch(() => undefined);
  const charons: FakeCharon[] = [];
  tt.teardown(async () => {
    controller.abort();
    for (const charon of charons) charon.stop();
    await done.catch(() => undefined);
    await rm(scratch, { recursive: true });
  });
  return {
    socket,
    lines,
    sessions,
    done,
    abort: () => controller.abort(),
    async charon(options) {
      const charon = await FakeCharon.start(socket, options);
      charons.push(charon);
      return charon;
    },
    async until(count) {
      const start = performance.now();
      while (sessions.length < count) await sleep(1);
      return performance.now() - start;
    },
  };
}

test('a charon that is there; the end', async (tt) => {
  const followed = await follow(tt);
  const charon = await followed.charon();
  await followed.until(1);
  await sleep(100);
  tt.is(charon.connections, 1);
  tt.false(followed.sessions[0]?.signal.aborted);
  followed.abort();
  await followed.done;
  tt.true(followed.sessions[0]?.signal.aborted);
  tt.is(await followed.sessions[0]?.connection.closed, undefined);
  while (charon.connected > 0) await sleep(1);
  tt.is(followed.lines.at(-1), 'info connected to charon');
});

test('a charon that comes, goes and comes: found at once, said once', async (tt) => {
  const followed = await follow(tt);
  await sleep(2500); // at the longest backoff
  tt.deepEqual(followed.lines, ['warn no connection to charon']);
  let charon = await followed.charon();
  const waits = [await followed.until(1)];
  await sleep(1100);
  charon.stop();
  await sleep(2500);
  tt.true(followed.sessions[0]?.signal.aborted);
  charon = await followed.charon();
  waits.push(await followed.until(2));
  tt.log(`found after ${waits.map((ms) => `${ms.toFixed(1)} ms`).join(', ')}`);
  for (const ms of waits) tt.true(ms < SOON_MS, `${ms} ms`);
  await sleep(20);
  tt.is(charon.connected, 1);
  tt.deepEqual(followed.lines, [
    'warn no connection to charon',
    'info connected to charon',
    'warn lost the connection to charon',
    'warn no connection to charon',
    'info connected to charon',
  ]);
});

test('a folder that comes later', async (tt) => {
  const followed = await follow(tt, undefined, 'later');
  await sleep(300);
  await mkdir(dirname(followed.socket));
  await sleep(1200); // now it is watched
  await followed.charon();
  tt.true((await followed.until(1)) < SOON_MS);
});

test('other changes in the folder make no storm of tries', async (tt) => {
  const followed = await follow(tt, async () => {
    throw new ViciCommandError('load-conn', 'bad proposal');
  });
  await followed.charon();
  const start = performance.now();
  while (performance.now() - start < 300 || followed.sessions.length < 3) {
    await writeFile(join(dirname(followed.socket), 'log'), 'x');
    await sleep(1);
  }
  const each = (performance.now() - start) / followed.sessions.length;
  tt.true(each > 9, `a try each ${each} ms`);
});

test('what is refused while it sets up: closed, tried again, said once', async (tt) => {
  let failing = true;
  const followed = await follow(tt, async () => {
    if (failing) throw new ViciCommandError('load-conn', 'bad proposal');
  });
  await sleep(50);
  const charon = await followed.charon();
  await followed.until(4);
  failing = false;
  const count = followed.sessions.length;
  await followed.until(count + 1);
  await sleep(20);
  tt.is(charon.connected, 1);
  tt.deepEqual(followed.lines, [
    'warn no connection to charon',
    'warn no connection to charon',
    'info connected to charon',
  ]);
  for (const { signal } of followed.sessions.slice(0, -1)) tt.true(signal.aborted);
});

test('a charon that vanishes while it is set up: as any other', async (tt) => {
  const followed = await follow(tt, async (connection, signal) => {
    await connection.request('version').catch(() => undefined);
    signal.throwIfAborted(); // no ViciError
  });
  const charon = await followed.charon({ vanishing: true });
  await followed.until(3);
  await sleep(50);
  charon.stop();
  tt.is(followed.lines.filter((line) => line === 'info connected to charon').length, 0);
});

test('one that falls over again and again is tried ever more seldom', async (tt) => {
  const followed = await follow(tt, async (connection) => {
    setTimeout(() => void connection.request('version').catch(() => undefined), 5);
  });
  await followed.charon({ vanishing: true });
  await followed.until(3);
  await sleep(1500);
  tt.true(followed.sessions.length < 20, `${followed.sessions.length}`);
});

test('a connection that lasted: what failed before it is forgotten', async (tt) => {
  let failures = 0;
  const followed = await follow(tt, async () => {
    failures += 1;
    if (failures < 7) throw new ViciCommandError('load-conn', 'bad proposal');
  });
  const charon = await followed.charon();
  await followed.until(7);
  await sleep(1100);
  charon.drop();
  tt.true((await followed.until(8)) < SOON_MS);
});

test('a bug ends it, and the connection', async (tt) => {
  const followed = await follow(tt, async () => {
    throw new TypeError('a bug');
  });
  const charon = await followed.charon();
  await tt.throwsAsync(followed.done, { instanceOf: TypeError, message: 'a bug' });
  while (charon.connected > 0) await sleep(1);
  tt.pass();
});

const aborted = test.macro(async (tt, prepare: (followed: Followed) => Promise<unknown>) => {
  const followed = await follow(tt, (connection) => connection.request('version').then(() => sleep(100)));
  await prepare(followed);
  const start = performance.now();
  const said = followed.lines.length;
  followed.abort();
  await followed.done;
  tt.is(followed.lines.length, said);
  tt.true(performance.now() - start < 500);
});
test('the end at once', aborted, async () => undefined);
test('the end while it waits', aborted, () => sleep(1500));
test('the end while it sets up', aborted, async (followed) => {
  await followed.charon();
  await followed.until(1);
});
