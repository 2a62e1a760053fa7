import { getEventListeners, once } from 'node:events';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import {
  type ConnectionOptions,
  ViciCommandError,
  ViciConnection,
  ViciUnavailable,
  ViciUnknownCommand,
  ViciUnknownEvent,
} from './connection.ts';
import { decodeMessage, type Decoded, encodeMessage, type Section, text, ViciFormatError } from './message.ts';
import { decodePacket, encodePacket, Framer, MAX_SEGMENT, type Packet } from './packet.ts';

/** charon's side of one connection. */
interface Peer {
  send(...packets: Packet[]): void;
  raw(...bytes: (number | string)[]): void;
  /** As a process that ends. */
  vanish(): void;
}
type Behaviour = (packet: Packet, peer: Peer) => void;

const response = (message: Section = {}): Packet => ({ type: 'CMD_RESPONSE', message: encodeMessage(message) });
const event = (name: string, message: Section = {}): Packet => ({
  type: 'EVENT',
  name,
  message: encodeMessage(message),
});
const CONFIRM: Packet = { type: 'EVENT_CONFIRM' };

/** `CMD_REQUEST version`. */
const said = (packet: Packet): string => ('name' in packet ? `${packet.type} ${packet.name}` : packet.type);

async function serve(tt: ExecutionContext, behave: Behaviour): Promise<{ path: string; heard: string[] }> {
  tt.timeout(20_000);
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-vici-'));
  const heard: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    const peer: Peer = {
      send: (...packets) => void socket.write(Buffer.concat(packets.map(encodePacket))),
      raw: (...bytes) =>
        void socket.write(
          Buffer.concat(bytes.map((part) => (typeof part === 'number' ? Buffer.of(part) : Buffer.from(part)))),
        ),
      vanish: () => void socket.destroy(),
    };
    const framer = new Framer();
    socket.on('error', () => undefined);
    socket.on('close', () => heard.push('end'));
    socket.on('data', (chunk: Buffer) => {
      for (const packet of framer.push(chunk).map(decodePacket)) {
        heard.push(said(packet));
        behave(packet, peer);
      }
    });
  });
  const path = join(folder, 'vici');
  await once(server.listen(path), 'listening');
  tt.teardown(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await rm(folder, { recursive: true });
  });
  return { path, heard };
}

interface Opened {
  readonly vici: ViciConnection;
  readonly path: string;
  /** What charon heard. */
  readonly heard: string[];
}

async function open(tt: ExecutionContext, behave: Behaviour, options: ConnectionOptions = {}): Promise<Opened> {
  const { path, heard } = await serve(tt, behave);
  const vici = await ViciConnection.open(path, options);
  tt.teardown(() => vici.close());
  return { vici, path, heard };
}

/** Answers a request with its name and message, confirms every event. */
const echo: Behaviour = (packet, peer) =>
  peer.send(
    packet.type === 'CMD_REQUEST' ? response({ name: packet.name, message: decodeMessage(packet.message) }) : CONFIRM,
  );
const plain = (message: unknown): unknown => JSON.parse(JSON.stringify(message));

test('a request, its message and its answer', async (tt) => {
  const { vici, heard } = await open(tt, echo);
  tt.deepEqual(plain(await vici.request('version')), { name: 'version', message: {} });
  const message = { tunnel: { remote_addrs: ['198.51.100.7'], version: '2' } };
  tt.deepEqual(plain(await vici.request('load-conn', message)), { name: 'load-conn', message });
  tt.deepEqual(heard, ['CMD_REQUEST version', 'CMD_REQUEST load-conn']);
});

test('100 requests at once: one under way at a time, in order, each gets its own answer', async (tt) => {
  let underWay = 0;
  const { vici, heard } = await open(tt, (packet, peer) => {
    underWay += 1;
    tt.is(underWay, 1);
    setImmediate(() => {
      underWay -= 1;
      echo(packet, peer);
    });
  });
  const names = Array.from({ length: 100 }, (_, at) => `command-${at}`);
  const answers = await Promise.all(names.map((name) => vici.request(name)));
  tt.deepEqual(
    answers.map((answer) => text(answer, 'name')),
    names,
  );
  tt.deepEqual(
    heard,
    names.map((name) => `CMD_REQUEST ${name}`),
  );
});

test('an answer of the longest size, in many chunks, and the one behind it', async (tt) => {
  const items = Array.from({ length: 8 }, () => 'x'.repeat(65_000));
  const { vici } = await open(tt, (_, peer) => peer.send(response({ items })));
  tt.deepEqual(plain(await vici.request('a')), { items });
  tt.deepEqual(plain(await vici.request('b')), { items });
});

const refused = test.macro(
  async (tt, answer: Packet, kind: new (...args: never[]) => Error, expected: Record<string, string>) => {
    let first = true;
    const { vici } = await open(tt, (packet, peer) => {
      if (packet.type !== 'CMD_REQUEST') return peer.send(CONFIRM);
      peer.send(first ? answer : response({ success: 'yes' }));
      first = false;
    });
    const error = await tt.throwsAsync(vici.request('load-conn', { secret: 'secret' }), { instanceOf: kind });
    tt.like(error, expected);
    tt.is(text(await vici.request('load-conn'), 'success'), 'yes', 'the connection goes on');
  },
);
test('success = no', refused, response({ success: 'no', errmsg: 'invalid value for: proposals' }), ViciCommandError, {
  message: 'load-conn: invalid value for: proposals',
  command: 'load-conn',
  errmsg: 'invalid value for: proposals',
});
test('success = no without a word', refused, response({ success: 'no' }), ViciCommandError, {
  message: 'load-conn: no, and not why',
});
test('unknown command', refused, { type: 'CMD_UNKNOWN' }, ViciUnknownCommand, {
  message: 'load-conn: charon knows no such command',
});

test('what can not be sent is not, and the connection goes on', async (tt) => {
  const { vici, heard } = await open(tt, echo);
  const large = Object.fromEntries(Array.from({ length: 9 }, (_, at) => [`v${at}`, 'x'.repeat(60_000)]));
  await tt.throwsAsync(vici.request('a', { ö: '' }), { instanceOf: ViciFormatError });
  await tt.throwsAsync(vici.request('a', large), {
    instanceOf: ViciFormatError,
    message: /^a packet of 540\d\d\d bytes/,
  });
  await tt.throwsAsync(vici.request('ö'), { instanceOf: ViciFormatError });
  await vici.request('b');
  tt.deepEqual(heard, ['CMD_REQUEST b']);
});

test('a stream: the events up to the answer, registered for it alone', async (tt) => {
  const { vici, heard } = await open(tt, (packet, peer) => {
    if (packet.type !== 'CMD_REQUEST') return peer.send(CONFIRM);
    if (packet.name === 'version') return peer.send(response());
    peer.send(event('list-sa', { a: '1' }), event('other'), event('list-sa', { b: '2' }), response(), event('list-sa'));
  });
  const [first, , second] = await Promise.all([
    vici.stream('list-sas', 'list-sa', { noblock: 'yes' }),
    vici.request('version'),
    vici.stream('list-sas', 'list-sa'),
  ]);
  tt.deepEqual(plain(first), [{ a: '1' }, { b: '2' }]);
  tt.deepEqual(plain(second), [{ a: '1' }, { b: '2' }]);
  const stream = ['EVENT_REGISTER list-sa', 'CMD_REQUEST list-sas', 'EVENT_UNREGISTER list-sa'];
  tt.deepEqual(heard, [...stream, 'CMD_REQUEST version', ...stream]);
});

test('a stream whose command fails is unregistered, and fails', async (tt) => {
  const { vici, heard } = await open(tt, (packet, peer) =>
    peer.send(packet.type === 'CMD_REQUEST' ? response({ success: 'no', errmsg: 'bad' }) : CONFIRM),
  );
  await tt.throwsAsync(vici.stream('list-sas', 'list-sa'), { instanceOf: ViciCommandError, message: 'list-sas: bad' });
  tt.deepEqual(heard, ['EVENT_REGISTER list-sa', 'CMD_REQUEST list-sas', 'EVENT_UNREGISTER list-sa']);
});

test('unknown event: of a stream, of a subscription, again', async (tt) => {
  const { vici, heard } = await open(tt, (packet, peer) => {
    peer.send(packet.type === 'CMD_REQUEST' ? response() : { type: 'EVENT_UNKNOWN' });
  });
  const expected = { instanceOf: ViciUnknownEvent, message: 'nothing: charon knows no such event' };
  await tt.throwsAsync(vici.stream('list-sas', 'nothing'), expected);
  await tt.throwsAsync(
    vici.subscribe('nothing', () => tt.fail()),
    expected,
  );
  await tt.throwsAsync(
    vici.subscribe('nothing', () => tt.fail()),
    expected,
  );
  await vici.request('version');
  tt.deepEqual(heard, [...Array<string>(3).fill('EVENT_REGISTER nothing'), 'CMD_REQUEST version']);
});

test('events: right behind the confirmation, before, during and behind an answer, in order, for all who asked', async (tt) => {
  const { vici, heard } = await open(tt, (packet, peer) => {
    if (packet.type === 'EVENT_REGISTER') return peer.send(CONFIRM, event(packet.name, { at: '1' }));
    peer.send(event('log', { at: '2' }), event('other'));
    setTimeout(() => peer.send(event('log', { at: '3' }), response(), event('log', { at: '4' })), 20);
  });
  const seen: string[] = [];
  const note =
    (who: string) =>
    (message: Decoded): void =>
      void seen.push(`${who}${text(message, 'at')}`);
  await vici.subscribe('log', note('a'));
  await vici.subscribe('log', note('b'));
  await vici.request('initiate');
  await vici.request('initiate');
  tt.deepEqual(heard, ['EVENT_REGISTER log', 'CMD_REQUEST initiate', 'CMD_REQUEST initiate']);
  tt.deepEqual(seen, ['a1', ...['2', '3', '4', '2', '3', '4'].flatMap((at) => [`a${at}`, `b${at}`])]);
});

test('an event that is subscribed to and streamed comes to both, once, and stays registered', async (tt) => {
  const { vici, heard } = await open(tt, (packet, peer) =>
    peer.send(...(packet.type === 'CMD_REQUEST' ? [event('list-sa', { a: '1' }), response()] : [CONFIRM])),
  );
  const seen: Decoded[] = [];
  await vici.subscribe('list-sa', (message) => void seen.push(message));
  tt.deepEqual(plain(await vici.stream('list-sas', 'list-sa')), [{ a: '1' }]);
  tt.deepEqual(plain(seen), [{ a: '1' }]);
  tt.deepEqual(heard, ['EVENT_REGISTER list-sa', 'CMD_REQUEST list-sas']);
});

test('a handler that throws: said to onError, the others and the connection go on', async (tt) => {
  const errors: unknown[] = [];
  const options = { onError: (error: unknown) => void errors.push(error) };
  const { vici } = await open(
    tt,
    (packet, peer) => {
      peer.send(...(packet.type === 'CMD_REQUEST' ? [event('log'), response()] : [CONFIRM]));
    },
    options,
  );
  const bug = new Error('bug');
  let others = 0;
  await vici.subscribe('log', () => {
    throw bug;
  });
  await vici.subscribe('log', () => (others += 1));
  await vici.request('a');
  await vici.request('a');
  tt.deepEqual(errors, [bug, bug]);
  tt.is(others, 2);
});

test('a handler that throws without onError: ends the process', async (tt) => {
  const { path } = await serve(tt, (packet, peer) => {
    peer.send(...(packet.type === 'CMD_REQUEST' ? [event('log'), response()] : [CONFIRM]));
  });
  const { exitCode, stdout, stderr } = await runScript(`
    const vici = await ViciConnection.open(${JSON.stringify(path)});
    await vici.subscribe('log', () => { throw new Error('a bug'); });
    await vici.request('a');
    console.log('answered');
    await vici.closed;`);
  tt.is(exitCode, 1);
  tt.regex(stderr, /Error: a bug/);
  tt.is(stdout, '');
});

test('a handler that closes the connection: nothing is handled any more', async (tt) => {
  const { vici } = await open(tt, (packet, peer) => {
    if (packet.type === 'EVENT_REGISTER') peer.send(CONFIRM);
    else peer.send(event('log'), event('log'), response());
  });
  let events = 0;
  await vici.subscribe('log', () => {
    events += 1;
    vici.close();
  });
  await tt.throwsAsync(vici.request('a'), { instanceOf: ViciUnavailable, message: /was closed on this side$/ });
  tt.is(events, 1);
});

/** What three requests, the closed promise, and a later request get, when charon behaves so at the first. */
const ends = test.macro(
  async (tt, behave: (peer: Peer) => void, message: RegExp, options: ConnectionOptions = { timeoutMs: 5000 }) => {
    const { vici, path, heard } = await open(tt, (_, peer) => behave(peer), options);
    const results = await Promise.allSettled([
      vici.request('a'),
      vici.stream('b', 'c'),
      vici.subscribe('d', () => tt.fail()),
    ]);
    const reason = await vici.closed;
    tt.true(reason instanceof ViciUnavailable);
    tt.regex(reason?.message ?? '', message);
    tt.true(reason?.message.startsWith(`${path}: `));
    for (const result of results) tt.is(result.status === 'rejected' ? result.reason : undefined, reason);
    tt.is(await tt.throwsAsync(vici.request('e')), reason as Error);
    vici.close();
    tt.is(await vici.closed, reason);
    tt.is(await tt.throwsAsync(vici.request('f')), reason as Error);
    while (!heard.includes('end')) await sleep(5);
    tt.deepEqual(heard, ['CMD_REQUEST a', 'end']);
  },
);
const later = (peer: Peer, then: () => void): void => {
  setTimeout(() => {
    then();
    peer.vanish();
  }, 200);
};
test(
  'no answer in time, and a late one',
  ends,
  (peer) => later(peer, () => peer.send(response())),
  /: no answer to a within 50 ms$/,
  { timeoutMs: 50 },
);
test('charon vanishes', ends, (peer) => peer.vanish(), /: charon has ended, or has closed the connection$/);
test(
  'charon vanishes inside of an answer',
  ends,
  (peer) => {
    peer.raw(0, 0, 0, 9, 1);
    peer.vanish();
  },
  /: charon has ended, or has closed the connection$/,
);
test(
  'a packet of unknown type',
  ends,
  (peer) => peer.raw(0, 0, 0, 1, 9),
  /: what came is no VICI: a packet of unknown type 9$/,
);
test('an empty packet', ends, (peer) => peer.raw(0, 0, 0, 0), /: what came is no VICI: an empty packet$/);
test(
  'a malformed answer',
  ends,
  (peer) => peer.raw(0, 0, 0, 2, 1, 3),
  /: what came is no VICI: ends inside of an element at byte 1$/,
);
test(
  'a malformed event',
  ends,
  (peer) => {
    peer.raw(0, 0, 0, 4, 7, 1, 'x', 2);
    peer.send(response());
  },
  /: what came is no VICI: the end of a section that has not begun at byte 0$/,
);
test(
  'a packet that is too large',
  ends,
  (peer) => peer.raw(0, 8, 0, 1),
  new RegExp(`no VICI: a packet of ${MAX_SEGMENT + 1} bytes is announced`),
);
test('the answer to another question', ends, (peer) => peer.send(CONFIRM), /: a EVENT_CONFIRM that nobody asked for$/);
test(
  "a client's packet",
  ends,
  (peer) => peer.send({ type: 'CMD_REQUEST', name: 'x', message: Buffer.of() }),
  /: a CMD_REQUEST that nobody asked for$/,
);
test('an answer too many', ends, (peer) => later(peer, () => peer.send(response())), /: no answer to a within 50 ms$/, {
  timeoutMs: 50,
});

test('two answers to one question', async (tt) => {
  const { vici } = await open(tt, (_, peer) => peer.send(response(), response()));
  await vici.request('a');
  tt.regex((await vici.closed)?.message ?? '', /: a CMD_RESPONSE that nobody asked for$/);
});

test('a timeout of its own; what waits has its time from when it is sent', async (tt) => {
  const { vici } = await open(
    tt,
    (packet, peer) => {
      setTimeout(() => echo(packet, peer), 400);
    },
    { timeoutMs: 1000 },
  );
  await Promise.all(['a', 'b', 'c'].map((name) => vici.request(name)));
  await tt.throwsAsync(vici.request('d', {}, { timeoutMs: 20 }), { message: /no answer to d within 20 ms$/ });
});
test('a stream with a timeout of its own', async (tt) => {
  const { vici } = await open(tt, (packet, peer) => {
    if (packet.type === 'EVENT_REGISTER') peer.send(CONFIRM);
  });
  await tt.throwsAsync(vici.stream('a', 'b', {}, { timeoutMs: 20 }), { message: /no answer to a within 20 ms$/ });
});

test('close: what is under way and what waits is rejected, closed says nothing', async (tt) => {
  const { vici, heard } = await open(tt, () => undefined);
  const requests = [vici.request('a'), vici.request('b')];
  await sleep(20);
  vici.close();
  vici.close();
  for (const request of requests)
    await tt.throwsAsync(request, { instanceOf: ViciUnavailable, message: /was closed on this side$/ });
  tt.is(await vici.closed, undefined);
  await tt.throwsAsync(
    vici.subscribe('c', () => undefined),
    { instanceOf: ViciUnavailable },
  );
  while (!heard.includes('end')) await sleep(5);
  tt.deepEqual(heard, ['CMD_REQUEST a', 'end']);
});

test('the signal closes it, and is left alone afterwards', async (tt) => {
  const controller = new AbortController();
  const { vici, path } = await open(tt, () => undefined, { signal: controller.signal });
  const request = vici.request('a');
  await sleep(20);
  controller.abort();
  await tt.throwsAsync(request, { instanceOf: ViciUnavailable, message: /was closed on this side$/ });
  tt.is(await vici.closed, undefined);
  tt.deepEqual(getEventListeners(controller.signal, 'abort'), []);
  await tt.throwsAsync(ViciConnection.open(path, { signal: controller.signal }), {
    message: /was closed on this side$/,
  });
});
test('the signal while it opens', async (tt) => {
  const { path } = await serve(tt, echo);
  const controller = new AbortController();
  const opening = ViciConnection.open(path, { signal: controller.signal });
  controller.abort();
  await tt.throwsAsync(opening, { instanceOf: ViciUnavailable, message: /was closed on this side$/ });
});

const unavailable = test.macro(async (tt, prepare: (folder: string) => Promise<unknown>, message: RegExp) => {
  const folder = await mkdtemp(join(tmpdir(), 'constellation-vpn-vici-'));
  tt.teardown(() => rm(folder, { recursive: true, force: true }));
  await prepare(folder);
  const error = await tt.throwsAsync(ViciConnection.open(join(folder, 'vici')), { instanceOf: ViciUnavailable });
  tt.regex(error?.message ?? '', message);
  tt.true(error?.message.startsWith(join(folder, 'vici: ')));
  tt.true(error?.cause instanceof Error);
});
test('no socket', unavailable, async () => undefined, /: there is no such socket: charon is not up yet/);
test('no folder', unavailable, (folder) => rm(folder, { recursive: true }), /: there is no such socket/);
test(
  'a socket that nobody listens on',
  unavailable,
  async (folder) => {
    await execa(
      process.execPath,
      [
        '-e',
        `require('net').createServer().listen(${JSON.stringify(join(folder, 'vici'))}, () => process.kill(process.pid, 'SIGKILL'))`,
      ],
      { reject: false },
    );
  },
  /: nobody listens on the socket: charon has ended/,
);
test(
  'no socket but a file',
  unavailable,
  (folder) => writeFile(join(folder, 'vici'), ''),
  /: nobody listens on the socket/,
);

/** Of a user who may not. */
test('a socket of another group', async (tt) => {
  const { path } = await serve(tt, echo);
  await chmod(join(path, '..'), 0o755);
  await chmod(path, 0o700);
  const { stdout } = await runScript(
    `await ViciConnection.open(${JSON.stringify(path)}).catch((error) => console.log(error.name, error.message));`,
    process.getuid?.() === 0 ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] : [],
  );
  tt.is(
    stdout,
    process.getuid?.() === 0
      ? `ViciUnavailable ${path}: permission denied: this process must be in the group of charon's socket`
      : '',
  );
});

const SCRIPTS: Record<string, string> = {
  'is closed': 'vici.close();',
  'was lost': "await vici.request('vanish').catch(() => {});",
  answered: "await vici.request('a'); vici.close();",
  'was closed with a request under way':
    "const a = vici.request('hang').catch(() => {}); setTimeout(() => vici.close(), 20); await a;",
};
for (const [name, script] of Object.entries(SCRIPTS))
  test(`the process may end: ${name}`, async (tt) => {
    const { path } = await serve(tt, (packet, peer) => {
      if (said(packet) === 'CMD_REQUEST vanish') peer.vanish();
      else if (said(packet) !== 'CMD_REQUEST hang') echo(packet, peer);
    });
    const start = `const controller = new AbortController();
      const vici = await ViciConnection.open(${JSON.stringify(path)}, { timeoutMs: 60_000, signal: controller.signal });`;
    const { exitCode, timedOut } = await runScript(`${start}\n${script}`);
    tt.false(timedOut);
    tt.is(exitCode, 0);
  });

/** In a process of its own, for 10 s at most. */
async function runScript(script: string, prefix: readonly string[] = []) {
  const from = new URL('connection.ts', import.meta.url).href;
  const text = `import { ViciConnection } from ${JSON.stringify(from)};\n${script}`;
  const own = [process.execPath, '--input-type=module-typescript', '-e', text];
  // `env` runs it as it is.
  return execa('env', [...prefix, ...own], { reject: false, timeout: 10_000 });
}
