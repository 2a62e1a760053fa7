/**
 * charon as the agent `frontend` sees it through VICI, in memory, with a gateway behind it. Answers as 5.9.8 and 6.0 do:
 * test/contract/charon.ts holds it against them.
 */
import { createHash, createPrivateKey, createPublicKey, type KeyObject, X509Certificate } from 'node:crypto';
import { Cidr, containsCidr } from '../../functions/model/cidr.ts';
import {
  ViciCommandError,
  ViciUnavailable,
  ViciUnknownCommand,
  ViciUnknownEvent,
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
  /** Its connection but the children: an SA serves only what was loaded with it. */
  readonly config: Decoded;
  children: FakeChildSa[];
}

/** A client's connection: what it has subscribed to. */
type Subscriptions = Map<string, ((message: Decoded) => void)[]>;

const QUESTIONS: ReadonlySet<string> = new Set('get-keys get-shared get-algorithms list-conns list-sas'.split(' '));
const EVENTS: ReadonlySet<string> = new Set('ike-updown child-updown ike-rekey child-rekey log'.split(' '));
/** `raw`: as it was sent, with the bytes. Without a result: success. */
type Handler = (message: Decoded, raw: Section) => Section | undefined;

/** What the default proposals need. */
export const ALGORITHMS = {
  encryption: { AES_CBC: 'aes' },
  integrity: { HMAC_SHA2_256_128: 'hmac' },
  aead: { AES_GCM_16: 'openssl' },
  prf: { PRF_HMAC_SHA2_256: 'hmac', PRF_HMAC_SHA2_384: 'hmac' },
  dh: { ECP_384: 'openssl', CURVE_25519: 'openssl', MODP_3072: 'gmp' },
} satisfies Section;
const SHARED_KEY_TYPES: ReadonlySet<string> = new Set('ike eap xauth ntlm ppk'.split(' '));
/** Of swanctl.conf(5) those that the agent sets. */
const IKE_OPTIONS = new Set(
  'version remote_addrs proposals encap mobike fragmentation dpd_delay rekey_time unique keyingtries send_cert'
    .concat(' ppk_id ppk_required local remote children')
    .split(' '),
);
const CHILD_OPTIONS = new Set('mode local_ts remote_ts esp_proposals rekey_time start_action'.split(' '));

export class FakeCharon {
  /** In their order, the questions too. */
  readonly requests: Sent[] = [];
  readonly connections = new Map<string, Decoded>();
  readonly shared = new Map<string, Decoded>();
  /** By flag and subject: `CA CN=root`. */
  readonly certificates = new Set<string>();
  /** Fingerprints. */
  readonly keys = new Set<string>();
  ikeSas: FakeIkeSa[] = [];
  algorithms: Section = ALGORITHMS;
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
  #ikeUid = 0;
  #childUid = 0;
  readonly #clients = new Set<Subscriptions>();

  /** Another connection each time. */
  get vici(): ViciConnection {
    const subscriptions: Subscriptions = new Map();
    this.#clients.add(subscriptions);
    const answer = (command: string, message?: Section, options?: RequestOptions): Decoded => {
      if (!this.#clients.has(subscriptions)) throw gone();
      return this.#answer(command, message, options);
    };
    const client: Pick<ViciConnection, 'request' | 'stream' | 'subscribe'> = {
      request: async (command, message, options) => answer(command, message, options),
      stream: async (command, event, message, options) =>
        sections(answer(command, message, options), event).map(([, one]) => one),
      subscribe: async (event, handler) => {
        if (!EVENTS.has(event)) throw new ViciUnknownEvent(event);
        subscriptions.set(event, [...(subscriptions.get(event) ?? []), handler]);
      },
    };
    return client as ViciConnection;
  }

  /** Of the connections loaded, the children whose start_action is trap: charon installs them itself. */
  get traps(): string[] {
    return [...this.connections.values()]
      .flatMap((connection) => sections(connection, 'children'))
      .filter(([, child]) => text(child, 'start_action') === 'trap')
      .map(([name]) => name);
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

  /** Whatever is asked of it from now on is not answered, and no connection is ever answered again. */
  stop(): void {
    this.#stopped = true;
    this.#clients.clear();
  }

  /** Another process in its place: it knows nothing, counts from 1 again, and its gateway has seen the SAs end. */
  restart(): void {
    this.#stopped = false;
    this.diesAt = undefined;
    this.#clients.clear();
    this.connections.clear();
    this.#clearCreds();
    this.ikeSas = [];
    this.#ikeUid = 0;
    this.#childUid = 0;
  }

  /** The gateway asks for a CHILD_SA of this child of ours. Its uid. */
  gatewayDials(connection: string, name: string, localTs: readonly string[], remoteTs: readonly string[]): string {
    const sa = this.#ikeSaOf(connection) ?? this.#newIkeSa(connection);
    return this.#addChild(sa, name, localTs, remoteTs).uid;
  }

  /** As it happens after `rekey_time`: charon lists the old CHILD_SA for another 5 s. */
  rekey(name: string): void {
    for (const sa of this.ikeSas)
      for (const old of sa.children.filter((child) => child.name === name && child.state === 'INSTALLED')) {
        old.state = 'REKEYED';
        const made = { ...old, uid: this.#nextChildUid(), state: 'INSTALLED' };
        sa.children.push(made);
        const both = { old: childRecord(old), new: childRecord(made) };
        this.#tell('child-rekey', { [sa.name]: { ...ikeRecord(sa), 'child-sas': { [name]: both } } });
        old.state = 'DELETED';
      }
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
    if (this.#stopped) throw gone();
    this.requests.push({ command, message, timeoutMs });
    const refusal = this.refusals.get(command);
    if (refusal !== undefined) throw new ViciCommandError(command, refusal);
    const handler = this.#handlers[command];
    if (handler === undefined) throw new ViciUnknownCommand(command);
    return decodeMessage(encodeMessage(handler(message, section) ?? { success: 'yes' }));
  }

  readonly #handlers: Readonly<Record<string, Handler>> = {
    'get-algorithms': () => this.algorithms,
    'get-keys': () => ({ keys: [...this.keys] }),
    'get-shared': () => ({ keys: [...this.shared.keys()] }),
    'load-key': (_, { data }) => {
      const id = fingerprint(privateKey(data));
      this.keys.add(id);
      return { success: 'yes', id };
    },
    'load-cert': (message, { data }) => this.#loadCert(text(message, 'flag') ?? 'NONE', certificate(data)),
    'load-shared': (message) => this.#loadShared(message),
    'unload-shared': (message) => {
      const id = text(message, 'id');
      if (id === undefined) throw new ViciCommandError('unload-shared', 'unique identifier missing');
      this.shared.delete(id);
      return undefined;
    },
    'clear-creds': () => {
      this.#clearCreds();
      return undefined;
    },
    'load-conn': (message) => this.#loadConn(message),
    'unload-conn': (message) => {
      const name = text(message, 'name');
      if (name === undefined) throw new ViciCommandError('unload-conn', 'unload: missing connection name');
      if (!this.connections.delete(name))
        throw new ViciCommandError('unload-conn', `unload: connection '${name}' not found`);
      return undefined;
    },
    'list-conns': () => ({ 'list-conn': numbered([...this.connections].map(connectionRecord)) }),
    'list-sas': (message) => ({
      'list-sa': numbered(
        this.ikeSas.filter(({ name }) => name === text(message, 'ike')).map((sa) => this.#sasRecord(sa)),
      ),
    }),
    initiate: (message) => this.#initiate(text(message, 'ike') ?? '', text(message, 'child') ?? ''),
    terminate: (message) => this.#terminate(text(message, 'ike-id'), text(message, 'child-id')),
  };

  #loadCert(flag: string, { subject, ca }: X509Certificate): undefined {
    const refuse = (words: string): never => {
      throw new ViciCommandError('load-cert', words);
    };
    if (flag !== 'NONE' && flag !== 'CA') refuse(`invalid certificate flag '${flag}'`);
    if (flag === 'CA' && !ca) refuse('ca certificate lacks CA basic constraint, rejected');
    this.certificates.add(`${flag} ${subject}`);
  }

  /** One without an id is never listed. */
  #loadShared(message: Decoded): undefined {
    const [id, type = ''] = [text(message, 'id'), text(message, 'type')];
    if (!SHARED_KEY_TYPES.has(type.toLowerCase()))
      throw new ViciCommandError('load-shared', `invalid shared key type: ${type}`);
    if (message.data === undefined) throw new ViciCommandError('load-shared', 'shared key data missing');
    if (id !== undefined) this.shared.set(id, message);
  }

  /** The shared keys as well. */
  #clearCreds(): void {
    this.shared.clear();
    this.certificates.clear();
    this.keys.clear();
  }

  #loadConn(message: Decoded): undefined {
    for (const [name, connection] of sections(message)) {
      const unknown = [
        ...Object.keys(connection).filter((key) => !IKE_OPTIONS.has(key)),
        ...sections(connection, 'children').flatMap(([, child]) =>
          Object.keys(child).filter((key) => !CHILD_OPTIONS.has(key)),
        ),
      ];
      if (unknown.length > 0)
        throw new ViciCommandError('load-conn', `unknown option: ${unknown[0]}, config discarded`);
      const verb = this.connections.has(name) ? 'updated' : 'added';
      this.connections.set(name, connection);
      this.#tell('log', { group: 'CFG', level: '1', thread: '1', msg: `${verb} vici connection: ${name}` });
    }
  }

  #childConfig(connection: string, child: string): Decoded | undefined {
    const loaded = this.connections.get(connection) ?? {};
    return sections(loaded, 'children').find(([name]) => name === child)?.[1];
  }

  /** That stands, or is being made, by the connection as it is loaded. */
  #ikeSaOf(connection: string): FakeIkeSa | undefined {
    const config = JSON.stringify(this.#ikeConfig(connection));
    return this.ikeSas.find((sa) => sa.name === connection && JSON.stringify(sa.config) === config);
  }

  #ikeConfig(connection: string): Decoded {
    const { children: _, ...ike } = this.connections.get(connection) ?? {};
    return ike;
  }

  #newIkeSa(connection: string, state = 'ESTABLISHED'): FakeIkeSa {
    this.#ikeUid += 1;
    const config = this.#ikeConfig(connection);
    const made: FakeIkeSa = { uid: String(this.#ikeUid), name: connection, state, config, children: [] };
    this.ikeSas.push(made);
    if (state === 'ESTABLISHED') this.#tell('ike-updown', { up: 'yes', [connection]: ikeRecord(made) });
    return made;
  }

  #nextChildUid(): string {
    this.#childUid += 1;
    return String(this.#childUid);
  }

  #addChild(
    sa: FakeIkeSa,
    name: string,
    localTs: readonly string[],
    remoteTs: readonly string[],
    looks = 0,
  ): FakeChildSa {
    const config = JSON.stringify(this.#childConfig(sa.name, name));
    const child = { uid: this.#nextChildUid(), name, config, state: 'INSTALLING', localTs, remoteTs, looks };
    sa.children.push(child);
    if (looks === 0) this.#install(sa, child);
    return child;
  }

  #install(sa: FakeIkeSa, child: FakeChildSa): void {
    child.state = 'INSTALLED';
    this.#tell('child-updown', { up: 'yes', ...childEvent(sa, child) });
  }

  #initiate(connection: string, name: string): Section | undefined {
    const config = this.#childConfig(connection, name);
    if (config === undefined) throw new ViciCommandError('initiate', `CHILD_SA config '${name}' not found`);
    const known = this.#ikeSaOf(connection);
    if (this.gateway === 'silent') {
      if (known === undefined) this.#newIkeSa(connection, 'CONNECTING');
      return undefined;
    }
    if (this.gateway === 'refuses') {
      if (known === undefined) this.#failIkeSa(connection);
      return undefined;
    }
    if (known !== undefined) known.state = 'ESTABLISHED';
    const sa = known ?? this.#newIkeSa(connection);
    // Nor does charon make a second one by the same configuration.
    if (sa.children.some((child) => child.state === 'INSTALLED' && child.config === JSON.stringify(config)))
      return undefined;
    if (this.refusedChildren.has(name)) return undefined;
    this.#addChild(sa, name, selectors(config, 'local_ts'), selectors(config, 'remote_ts'), this.looks);
    return undefined;
  }

  #failIkeSa(connection: string): void {
    const failed = this.#newIkeSa(connection, 'CONNECTING');
    this.ikeSas = this.ikeSas.filter((sa) => sa !== failed);
    this.#tell('log', {
      group: 'IKE',
      level: '1',
      thread: '1',
      'ikesa-name': connection,
      'ikesa-uniqueid': failed.uid,
      msg: 'received NO_PROPOSAL_CHOSEN notify error',
    });
    this.#tell('ike-updown', { [connection]: ikeRecord(failed) });
  }

  #terminate(ikeId: string | undefined, childId: string | undefined): Section {
    if (ikeId === undefined && childId === undefined)
      throw new ViciCommandError('terminate', 'missing terminate selector');
    const before = this.installed;
    const sa = this.ikeSas.find(({ uid, children }) =>
      ikeId === undefined ? children.some((child) => child.uid === childId) : uid === ikeId,
    );
    if (sa === undefined) throw new ViciCommandError('terminate', 'no matching SAs to terminate found');
    if (ikeId === undefined) this.#endChild(sa, childId);
    else this.#endIkeSa(sa);
    const after = this.installed;
    for (const name of Object.keys(before))
      if (after[name] === undefined && this.#childConfig(sa.name, name) !== undefined) this.interrupted.push(name);
    return { success: 'yes', matches: '1', terminated: '1' };
  }

  #endIkeSa(sa: FakeIkeSa): void {
    this.ikeSas = this.ikeSas.filter((other) => other !== sa);
    sa.state = 'DELETING';
    this.#tell('ike-updown', { [sa.name]: ikeRecord(sa) });
    for (const child of sa.children.filter(({ state }) => state === 'INSTALLED'))
      this.#tell('child-updown', childEvent(sa, child));
  }

  #endChild(sa: FakeIkeSa, uid: string | undefined): void {
    for (const child of sa.children.filter((one) => one.uid === uid)) {
      child.state = 'DELETED';
      this.#tell('child-updown', childEvent(sa, child));
    }
    sa.children = sa.children.filter((child) => child.uid !== uid);
  }

  #sasRecord(sa: FakeIkeSa): Section {
    for (const child of sa.children) {
      if (child.looks === 0 && child.state === 'INSTALLING') this.#install(sa, child);
      child.looks = Math.max(0, child.looks - 1);
    }
    const children = sa.children.map((child) => [`${child.name}-${child.uid}`, childRecord(child)]);
    return { [sa.name]: { ...ikeRecord(sa), 'child-sas': Object.fromEntries(children) } };
  }

  #tell(event: string, section: Section): void {
    const message = decodeMessage(encodeMessage(section));
    for (const subscriptions of this.#clients) for (const handler of subscriptions.get(event) ?? []) handler(message);
  }
}

const gone = (): ViciUnavailable => new ViciUnavailable('/vici: charon has ended, or has closed the connection');

function privateKey(der: Section[string] | undefined): KeyObject {
  try {
    return createPrivateKey({ key: Buffer.from(der as Uint8Array), format: 'der', type: 'pkcs8' });
  } catch {
    throw new ViciCommandError('load-key', 'parsing ANY private key failed');
  }
}

const fingerprint = (key: KeyObject): string =>
  createHash('sha1')
    .update(createPublicKey(key).export({ format: 'der', type: 'spki' }))
    .digest('hex');

function certificate(der: Section[string] | undefined): X509Certificate {
  try {
    return new X509Certificate(Buffer.from(der as Uint8Array));
  } catch {
    throw new ViciCommandError('load-cert', 'parsing X509 certificate failed');
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

/** Identities are known once the gateway has proved its own. */
function ikeRecord({ uid, state, config }: FakeIkeSa): Section {
  const idOf = (side: string): string => {
    const [, section = {}] = sections(config).find(([name]) => name === side) ?? [];
    return state === 'CONNECTING' ? '%any' : (text(section, 'id') ?? '%any');
  };
  return {
    uniqueid: uid,
    version: '2',
    state,
    'local-host': '10.10.0.5',
    'local-id': idOf('local'),
    'remote-host': list(config, 'remote_addrs')[0] ?? '198.51.100.7',
    'remote-id': idOf('remote'),
    ...(state === 'ESTABLISHED' ? { established: '0' } : {}),
  };
}

const childEvent = (sa: FakeIkeSa, child: FakeChildSa): Section => ({
  [sa.name]: { ...ikeRecord(sa), 'child-sas': { [`${child.name}-${child.uid}`]: childRecord(child) } },
});

const childRecord = ({ uid, name, state, localTs, remoteTs }: FakeChildSa): Section => ({
  name,
  uniqueid: uid,
  reqid: '1',
  state,
  mode: 'TUNNEL',
  protocol: 'ESP',
  'bytes-in': '0',
  'packets-in': '0',
  'bytes-out': '0',
  'packets-out': '0',
  'install-time': '0',
  'local-ts': localTs,
  'remote-ts': remoteTs,
});
