/** One connection to charon's VICI socket, see packet.ts and message.ts for what goes over it. */
import { connect, type Socket } from 'node:net';
import { decodeMessage, type Decoded, encodeMessage, type Section, text, ViciFormatError } from './message.ts';
import { decodePacket, encodePacket, Framer, type Packet } from './packet.ts';

/** What the world outside can do to a request. */
export class ViciError extends Error {
  override name = 'ViciError';
}

/** There is no connection, or no more: the message says why, and what to look at. */
export class ViciUnavailable extends ViciError {
  override name = 'ViciUnavailable';
}

/** charon carried the command out in vain, or refused it. `errmsg`: its words. */
export class ViciCommandError extends ViciError {
  override name = 'ViciCommandError';
  readonly command: string;
  readonly errmsg: string;
  constructor(command: string, errmsg: string) {
    super(`${command}: ${errmsg}`);
    this.command = command;
    this.errmsg = errmsg;
  }
}

/** This charon has no such command: another version, or a plugin that is not loaded. */
export class ViciUnknownCommand extends ViciError {
  override name = 'ViciUnknownCommand';
  constructor(command: string) {
    super(`${command}: charon knows no such command`);
  }
}

export class ViciUnknownEvent extends ViciError {
  override name = 'ViciUnknownEvent';
  constructor(event: string) {
    super(`${event}: charon knows no such event`);
  }
}

export interface ConnectionOptions {
  /** For each answer, from when its question is sent. Default: 10,000. Connecting takes no time on a unix socket. */
  readonly timeoutMs?: number;
  /** Closes it, also while it opens. */
  readonly signal?: AbortSignal;
  /** A handler of an event threw. Default: that is thrown on, outside of the connection, and ends the process. */
  readonly onError?: (error: unknown) => void;
}

export interface RequestOptions {
  /** Instead of the connection's. */
  readonly timeoutMs?: number;
}

type Handler = (message: Decoded) => void;
type Question = Exclude<Extract<Packet, { name: string }>, { type: 'EVENT' }>;
interface Sent {
  readonly expects: readonly Packet['type'][];
  /** The answer's message. Undefined where charon knows no such command or event. */
  readonly resolve: (message: Decoded | undefined) => void;
  readonly reject: (reason: Error) => void;
  readonly timer: NodeJS.Timeout;
  /** Gathers the messages of the event. */
  readonly collect: Collect | undefined;
}
interface Collect {
  readonly event: string;
  readonly messages: Decoded[];
}

const TIMEOUT_MS = 10_000;

/**
 * charon answers one after another and an answer names no question, so one question is under way at a time, the rest wait,
 * first come, first served. One that is not answered in time ends the connection: its late answer would be taken for the
 * next one's.
 */
export class ViciConnection {
  /** Once it is over: why, or undefined after close(). */
  readonly closed: Promise<Error | undefined>;
  readonly #path: string;
  readonly #options: ConnectionOptions;
  readonly #socket: Socket;
  readonly #framer = new Framer();
  /** By event; there is one for exactly those that are registered, but for streams. */
  readonly #handlers = new Map<string, Handler[]>();
  readonly #close = (): void => this.close();
  #tellClosed: (reason: Error | undefined) => void = () => undefined;
  #sent: Sent | undefined;
  /** Resolves when the last one that waits has had its turn. */
  #turn: Promise<void> = Promise.resolve();
  /** What every question gets from now on. */
  #over: Error | undefined;

  private constructor(path: string, options: ConnectionOptions) {
    this.#path = path;
    this.#options = options;
    this.closed = new Promise((resolve) => {
      this.#tellClosed = resolve;
    });
    this.#socket = connect({ path });
    this.#socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    this.#socket.on('error', (error: NodeJS.ErrnoException) => this.#end(unavailable(path, error)));
    this.#socket.on('end', () => this.#end(new ViciUnavailable(`${path}: ${ENDED}`)));
    options.signal?.addEventListener('abort', this.#close);
    if (options.signal?.aborted === true) this.close();
  }

  /** Throws ViciUnavailable. */
  static async open(path: string, options: ConnectionOptions = {}): Promise<ViciConnection> {
    const connection = new ViciConnection(path, options);
    await new Promise<void>((resolve, reject) => {
      connection.#socket.once('connect', resolve);
      void connection.closed.then(() => reject(connection.#over));
    });
    return connection;
  }

  /**
   * The answer's message. Throws ViciCommandError where it says success=no, ViciUnknownCommand, ViciUnavailable; and
   * ViciFormatError for what can't be sent. charon drops an answer of more than 512 KiB: that is a timeout.
   */
  async request(command: string, message: Section = {}, options: RequestOptions = {}): Promise<Decoded> {
    const question = commandOf(command, message);
    return this.#inTurn(() => this.#command(question, options));
  }

  /** The messages of `event` that come before the answer: `stream('list-sas', 'list-sa')`. Throws as request() does. */
  async stream(
    command: string,
    event: string,
    message: Section = {},
    options: RequestOptions = {},
  ): Promise<Decoded[]> {
    const question = commandOf(command, message);
    const collect: Collect = { event, messages: [] };
    return this.#inTurn(async () => {
      // charon sends an event as often as it is registered, and one unregistering would be for the subscriber's.
      const subscribed = this.#handlers.has(event);
      if (!subscribed) await this.#register(event);
      try {
        await this.#command(question, options, collect);
      } finally {
        if (!subscribed) await this.#exchange({ type: 'EVENT_UNREGISTER', name: event });
      }
      return collect.messages;
    });
  }

  /**
   * Calls `handler` for each `event` until the connection is over. Those that come while charon carries out a command of
   * this connection arrive at once; but this call itself waits for its turn. Throws ViciUnknownEvent, ViciUnavailable.
   */
  async subscribe(event: string, handler: Handler): Promise<void> {
    return this.#inTurn(async () => {
      const others = this.#handlers.get(event);
      // Before the question: the first event may come right behind the answer.
      this.#handlers.set(event, [...(others ?? []), handler]);
      if (others !== undefined) return;
      try {
        await this.#register(event);
      } catch (error) {
        this.#handlers.delete(event);
        throw error;
      }
    });
  }

  /** Whatever is under way or waits is rejected. Again: does nothing. */
  close(): void {
    this.#end(new ViciUnavailable(`${this.#path}: the connection was closed on this side`), { byUs: true });
  }

  #inTurn<T>(job: () => Promise<T>): Promise<T> {
    const run = this.#turn.then(job);
    this.#turn = run.then(
      () => undefined,
      () => undefined,
    );
    return run;
  }

  async #command(question: Question, { timeoutMs }: RequestOptions, collect?: Collect): Promise<Decoded> {
    const answer = await this.#exchange(question, timeoutMs, collect);
    if (answer === undefined) throw new ViciUnknownCommand(question.name);
    if (text(answer, 'success') === 'no')
      throw new ViciCommandError(question.name, text(answer, 'errmsg') ?? 'no, and not why');
    return answer;
  }

  async #register(event: string): Promise<void> {
    const answer = await this.#exchange({ type: 'EVENT_REGISTER', name: event });
    if (answer === undefined) throw new ViciUnknownEvent(event);
  }

  #exchange(
    question: Question,
    timeoutMs = this.#options.timeoutMs ?? TIMEOUT_MS,
    collect?: Collect,
  ): Promise<Decoded | undefined> {
    return new Promise((resolve, reject) => {
      if (this.#over !== undefined) return reject(this.#over);
      const bytes = encodePacket(question);
      const late = `${this.#path}: no answer to ${question.name} within ${timeoutMs} ms`;
      const timer = setTimeout(() => this.#end(new ViciUnavailable(late)), timeoutMs);
      const expects: Sent['expects'] =
        question.type === 'CMD_REQUEST' ? ['CMD_RESPONSE', 'CMD_UNKNOWN'] : ['EVENT_CONFIRM', 'EVENT_UNKNOWN'];
      this.#sent = { expects, resolve, reject, timer, collect };
      this.#socket.write(bytes);
    });
  }

  #receive(chunk: Uint8Array): void {
    try {
      for (const segment of this.#framer.push(chunk)) {
        if (this.#over !== undefined) return; // a handler has closed it
        this.#take(decodePacket(segment));
      }
    } catch (error) {
      if (!(error instanceof ViciFormatError)) throw error;
      this.#end(new ViciUnavailable(`${this.#path}: what came is no VICI: ${error.message}`, { cause: error }));
    }
  }

  #take(packet: Packet): void {
    if (packet.type === 'EVENT') return this.#takeEvent(packet.name, decodeMessage(packet.message));
    const sent = this.#sent;
    if (sent === undefined || !sent.expects.includes(packet.type))
      throw new ViciFormatError(`a ${packet.type} that nobody asked for`);
    const answer =
      'message' in packet ? decodeMessage(packet.message) : packet.type === 'EVENT_CONFIRM' ? {} : undefined;
    clearTimeout(sent.timer);
    this.#sent = undefined;
    sent.resolve(answer);
  }

  #takeEvent(name: string, message: Decoded): void {
    const collect = this.#sent?.collect;
    if (collect?.event === name) collect.messages.push(message);
    for (const handler of this.#handlers.get(name) ?? []) {
      try {
        handler(message);
      } catch (error) {
        this.#handlerThrew(error);
      }
    }
  }

  #handlerThrew(error: unknown): void {
    if (this.#options.onError !== undefined) return this.#options.onError(error);
    queueMicrotask(() => {
      throw error;
    });
  }

  #end(reason: Error, { byUs } = { byUs: false }): void {
    if (this.#over !== undefined) return;
    this.#over = reason;
    clearTimeout(this.#sent?.timer);
    this.#sent?.reject(reason);
    this.#sent = undefined;
    this.#options.signal?.removeEventListener('abort', this.#close);
    this.#socket.destroy();
    this.#tellClosed(byUs ? undefined : reason);
  }
}

const commandOf = (name: string, message: Section): Question => ({
  type: 'CMD_REQUEST',
  name,
  message: encodeMessage(message),
});

const ENDED = 'charon has ended, or has closed the connection';
const WORDS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such socket: charon is not up yet, or shares another folder',
  EACCES: "permission denied: this process must be in the group of charon's socket",
  ECONNREFUSED: 'nobody listens on the socket: charon has ended, or is not up yet',
  ECONNRESET: ENDED,
  EPIPE: ENDED,
};

const unavailable = (path: string, error: NodeJS.ErrnoException): ViciUnavailable =>
  new ViciUnavailable(`${path}: ${WORDS[error.code ?? ''] ?? error.message}`, { cause: error });
