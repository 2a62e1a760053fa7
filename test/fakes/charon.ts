/** charon as the agent `frontend` sees it through VICI, in memory, with a gateway behind it. Answers as 5.9.8 does. */
import { Cidr, containsCidr } from '../../functions/model/cidr.ts';
import {
  ViciCommandError,
  ViciUnavailable,
  ViciUnknownCommand,
  type RequestOptions,
  type ViciConnection,
} from '../../agents/frontend/vici/connection.ts';
import {
  decodeMessage,
  encodeMessage,
  list,
  sections,
  text,
  type Decoded,
  type Section,
} from '../../agents/frontend/vici/message.ts';

interface Sent {
  readonly command: string;
  /** As charon decodes it. */
  readonly message: Decoded;
  /** How long it has to answer; undefined: as long as for any other command. */
  readonly timeoutMs: number | undefined;
}

interface FakeChildSa {
  readonly uid: string;
  readonly name: string;
  /** What it was made by, as JSON. */
  readonly config: string;
  state: string;
  readonly localTs: readonly string[];
  readonly remoteTs: readonly string[];
  /** Times that it is listed before it is INSTALLED. */
  looks: number;
}

interface FakeIkeSa {
  readonly uid: string;
  /** Of the connection. */
  readonly name: string;
  state: string;
  /** Its connection but the children, as JSON: an SA serves only what was loaded with it. */
  readonly config: string;
  children: FakeChildSa[];
}

const QUESTIONS: ReadonlySet<string> = new Set('get-keys get-shared get-algorithms list-conns list-sas'.split(' '));
/** Without a result: success. */
type Handler = (message: Decoded) => Section | undefined;

export class FakeCharon {
  /** In their order, the questions too. */
  readonly requests: Sent[] = [];
  readonly connections = new Map<string, Decoded>();
  readonly shared = new Map<string, Decoded>();
  readonly certificates: Decoded[] = [];
  readonly keys: Decoded[] = [];
  /** Of the connections loaded, the children whose start_action is trap: charon installs them itself. */
  readonly traps = new Set<string>();
  ikeSas: FakeIkeSa[] = [];
  algorithms: Section = { encryption: {}, integrity: {}, aead: {}, prf: {}, dh: {} };
  /** What becomes of what is initiated: silence leaves an IKE_SA that is being made, a refusal nothing. */
  gateway: 'answers' | 'silent' | 'refuses' = 'answers';
  /** Times that a new CHILD_SA is listed before it is INSTALLED. */
  looks = 0;
  /** Children that the gateway refuses alone. */
  readonly refusedChildren = new Set<string>();
  /** It ends at this command. */
  diesAt: string | undefined;
  /** charon's words to a command, instead of carrying it out. */
  readonly refusals = new Map<string, string>();
  /** Children that are in the configuration and lost their last SA to a command. */
  readonly interrupted: string[] = [];
  #stopped = false;
  #uid = 0;

  get vici(): ViciConnection {
    const client: Pick<ViciConnection, 'request' | 'stream'> = {
      request: async (command, message, options) => this.#answer(command, message, options),
      stream: async (command, event, message, options) => {
        const answer = this.#answer(command, message, options);
        return sections(answer, event).map(([, one]) => one);
      },
    };
    return client as ViciConnection;
  }

  /** What changes something, since the last call: `terminate 1`. */
  takeOrders(): string[] {
    const orders = this.requests
      .filter(({ command }) => !QUESTIONS.has(command))
      .map(({ command, message }) => {
        const [first] = Object.entries(message);
        const about =
          command === 'load-conn' ? first?.[0] : (ABOUT.map((key) => text(message, key)).find(Boolean) ?? '');
        return `${command} ${about}`.trim();
      });
    this.requests.length = 0;
    return orders;
  }

  /** Whatever is asked of it from now on is not answered. */
  stop(): void {
    this.#stopped = true;
  }

  /** Another process in its place: it knows nothing, counts from 1 again, and its gateway has seen the SAs end. */
  restart(): void {
    this.#stopped = false;
    this.diesAt = undefined;
    this.connections.clear();
    this.shared.clear();
    this.traps.clear();
    this.#clearCreds();
    this.ikeSas = [];
    this.#uid = 0;
  }

  /** The gateway asks for a CHILD_SA of this child of ours. Its uid. */
  gatewayDials(connection: string, name: string, localTs: readonly string[], remoteTs: readonly string[]): string {
    const sa = this.#ikeSaOf(connection);
    const child = this.#newChild(name, localTs, remoteTs, 0);
    sa.children.push(child);
    return child.uid;
  }

  /** Of the children with an SA that carries traffic, the uids. */
  get installed(): Record<string, string[]> {
    const found: Record<string, string[]> = {};
    for (const { name, uid, state } of this.ikeSas.flatMap(({ children }) => children))
      if (state === 'INSTALLED') found[name] = [...(found[name] ?? []), uid];
    return found;
  }

  #answer(command: string, section: Section = {}, { timeoutMs }: RequestOptions = {}): Decoded {
    const message = decodeMessage(encodeMessage(section));
    if (command === this.diesAt) this.stop();
    if (this.#stopped) throw new ViciUnavailable('/vici: charon has ended, or has closed the connection');
    this.requests.push({ command, message, timeoutMs });
    const refusal = this.refusals.get(command);
    if (refusal !== undefined) throw new ViciCommandError(command, refusal);
    const handler = this.#handlers[command];
    if (handler === undefined) throw new ViciUnknownCommand(command);
    return decodeMessage(encodeMessage(handler(message) ?? { success: 'yes' }));
  }

  readonly #handlers: Readonly<Record<string, Handler>> = {
    'get-algorithms': () => this.algorithms,
    'get-keys': () => ({ keys: this.keys.map((_, i) => `key-${i}`) }),
    'get-shared': () => ({ keys: [...this.shared.keys()] }),
    'load-key': (message) => void this.keys.push(message),
    'load-cert': (message) => void this.certificates.push(message),
    'load-shared': (message) => void this.shared.set(text(message, 'id') ?? '', message),
    'unload-shared': (message) => void this.shared.delete(text(message, 'id') ?? ''),
    'clear-creds': () => {
      this.#clearCreds();
      return undefined;
    },
    'load-conn': (message) => this.#loadConn(message),
    'unload-conn': (message) => {
      const name = text(message, 'name') ?? '';
      if (!this.connections.delete(name))
        throw new ViciCommandError('unload-conn', `unload: connection '${name}' not found`);
      return undefined;
    },
    'list-conns': () => ({ 'list-conn': numbered([...this.connections].map(connectionRecord)) }),
    'list-sas': (message) => ({
      'list-sa': numbered(this.ikeSas.filter(({ name }) => name === text(message, 'ike')).map((sa) => sasRecord(sa))),
    }),
    initiate: (message) => this.#initiate(text(message, 'ike') ?? '', text(message, 'child') ?? ''),
    terminate: (message) => this.#terminate(text(message, 'ike-id'), text(message, 'child-id')),
  };

  /** The shared keys as well. */
  #clearCreds(): void {
    this.shared.clear();
    this.certificates.length = 0;
    this.keys.length = 0;
  }

  #loadConn(message: Decoded): Section {
    for (const [name, connection] of sections(message)) {
      this.connections.set(name, connection);
      this.traps.clear();
      for (const [child, section] of sections(connection, 'children'))
        if (text(section, 'start_action') === 'trap') this.traps.add(child);
    }
    return { success: 'yes' };
  }

  #configOf(child: string): Decoded | undefined {
    return [...this.connections.values()]
      .flatMap((connection) => sections(connection, 'children'))
      .find(([name]) => name === child)?.[1];
  }

  #ikeSaOf(connection: string): FakeIkeSa {
    const { children: _, ...ike } = this.connections.get(connection) ?? {};
    const config = JSON.stringify(ike);
    const known = this.ikeSas.find((sa) => sa.name === connection && sa.config === config);
    if (known !== undefined) return known;
    const made: FakeIkeSa = { uid: this.#next(), name: connection, state: 'ESTABLISHED', config, children: [] };
    this.ikeSas.push(made);
    return made;
  }

  #newChild(name: string, localTs: readonly string[], remoteTs: readonly string[], looks: number): FakeChildSa {
    const config = JSON.stringify(this.#configOf(name));
    return {
      uid: this.#next(),
      name,
      config,
      state: looks === 0 ? 'INSTALLED' : 'INSTALLING',
      localTs,
      remoteTs,
      looks,
    };
  }

  #initiate(connection: string, name: string): Section {
    const config = this.#configOf(name);
    if (config === undefined) throw new ViciCommandError('initiate', `CHILD_SA config '${name}' not found`);
    if (this.gateway === 'refuses' || this.refusedChildren.has(name)) return { success: 'yes' };
    const sa = this.#ikeSaOf(connection);
    if (this.gateway === 'silent') {
      if (sa.children.length === 0) sa.state = 'CONNECTING';
      return { success: 'yes' };
    }
    sa.state = 'ESTABLISHED';
    // Nor does charon make a second one by the same configuration.
    if (sa.children.some((child) => child.state === 'INSTALLED' && child.config === JSON.stringify(config)))
      return { success: 'yes' };
    sa.children.push(this.#newChild(name, selectors(config, 'local_ts'), selectors(config, 'remote_ts'), this.looks));
    return { success: 'yes' };
  }

  #terminate(ikeId: string | undefined, childId: string | undefined): Section {
    const before = this.installed;
    const goes = (uid: string): boolean => uid === childId;
    const matches =
      this.ikeSas.some(({ uid }) => uid === ikeId) ||
      this.ikeSas.some(({ children }) => children.some(({ uid }) => goes(uid)));
    if (!matches) throw new ViciCommandError('terminate', 'no matching SAs to terminate found');
    this.ikeSas = this.ikeSas.filter(({ uid }) => uid !== ikeId);
    for (const sa of this.ikeSas) sa.children = sa.children.filter(({ uid }) => !goes(uid));
    const after = this.installed;
    for (const name of Object.keys(before))
      if (after[name] === undefined && this.#configOf(name) !== undefined) this.interrupted.push(name);
    return { success: 'yes', matches: '1', terminated: '1' };
  }

  #next(): string {
    this.#uid += 1;
    return String(this.#uid);
  }
}

/** The key by which a message says what it is about. */
const ABOUT = ['child', 'child-id', 'ike-id', 'id', 'name', 'flag', 'type'];

const numbered = (records: readonly Section[]): Section =>
  Object.fromEntries(records.map((record, i) => [`event ${i}`, record]));

/** Of a child's configuration: charon leaves those out that are inside another one. */
function selectors(config: Decoded, key: string): string[] {
  const all = list(config, key).filter((one) => Cidr.is(one));
  return all.filter((cidr) => !all.some((other) => other !== cidr && containsCidr(other, cidr)));
}

/** Only the part that the agent reads; charon writes its own names there (`local-ts` of `local_ts`). */
const connectionRecord = ([name, connection]: readonly [string, Decoded]): Section => ({
  [name]: {
    version: 'IKEv2',
    children: Object.fromEntries(
      sections(connection, 'children').map(([child, section]) => [
        child,
        { mode: 'TUNNEL', 'local-ts': selectors(section, 'local_ts'), 'remote-ts': selectors(section, 'remote_ts') },
      ]),
    ),
  },
});

function sasRecord({ uid, name, state, children }: FakeIkeSa): Section {
  for (const child of children) {
    if (child.looks === 0 && child.state === 'INSTALLING') child.state = 'INSTALLED';
    child.looks = Math.max(0, child.looks - 1);
  }
  return {
    [name]: {
      uniqueid: uid,
      version: '2',
      state,
      'remote-host': '198.51.100.7',
      'child-sas': Object.fromEntries(children.map((child) => [`${child.name}-${child.uid}`, childRecord(child)])),
    },
  };
}

const childRecord = ({ uid, name, state, localTs, remoteTs }: FakeChildSa): Section => ({
  name,
  uniqueid: uid,
  reqid: '1',
  state,
  mode: 'TUNNEL',
  protocol: 'ESP',
  'local-ts': localTs,
  'remote-ts': remoteTs,
});
