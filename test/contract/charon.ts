/** What the agent `frontend` takes for granted of charon: one list of checks, for the fake and for the real one. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext, TestFn } from 'ava';
import { childrenOf } from '../../agents/frontend/connection/children.ts';
import { connectionOf, loadConn } from '../../agents/frontend/connection/load-conn.ts';
import { missingPlugins } from '../../agents/frontend/connection/plugins.ts';
import { listSas, readSas, type ChildSa, type IkeSa } from '../../agents/frontend/tunnel/sas.ts';
import {
  ViciCommandError,
  type ViciConnection,
  ViciUnavailable,
  ViciUnknownCommand,
  ViciUnknownEvent,
} from '../../agents/frontend/vici/connection.ts';
import { list, type Decoded, type Section, sections, text } from '../../agents/frontend/vici/message.ts';
import { makeAuthority, makeKey } from '../certificates.ts';
import { configOf } from '../functions/items.ts';

/** A charon that has just started, and a gateway that answers, both without a CHILD_SA. */
export interface CharonTarget {
  readonly vici: ViciConnection;
  readonly site: {
    /** The gateway's address, and its identity. */
    readonly gateway: string;
    readonly localId: string;
    readonly psk: string;
    readonly podRanges: readonly string[];
    /** The gateway has these two, and keeps an old IKE_SA beside a new one. */
    readonly peerCIDRs: readonly [string, string];
  };
  /** What the gateway does from now on. */
  gateway(does: 'answers' | 'is silent' | 'refuses'): Promise<void>;
  /** The gateway asks for one CHILD_SA of all its ranges. */
  gatewayDials(): Promise<void>;
  /** As it happens after `rekey_time`. */
  rekey(child: string): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** Another charon in the place of the one that was killed. */
  restart(): Promise<ViciConnection>;
}

type Check = (t: ExecutionContext, target: CharonTarget) => Promise<void>;

/** A range that the gateway does not have. */
const REFUSED = '172.20.0.0/16';
const LIMIT_MS = 30_000;
/** Answered at once, as the agent asks. */
const AT_ONCE = { timeout: '-1', loglevel: '-1' };

/** Registers every check as a serial test of its own. `start` may add to the test's teardown. */
export function checkCharon(test: TestFn, start: (t: ExecutionContext) => Promise<CharonTarget>, name = ''): void {
  for (const [title, check] of Object.entries(CHECKS))
    test.serial(`${name}${title}`, async (t) => {
      t.timeout(600_000, 'an image may have to be built');
      await check(t, await start(t));
    });
}

const CHECKS: Readonly<Record<string, Check>> = {
  'a new charon has no connection, no credentials and no SA': async (t, { vici }) => {
    t.like(await vici.request('get-keys'), { keys: [] });
    t.like(await vici.request('get-shared'), { keys: [] });
    t.deepEqual(await vici.stream('list-conns', 'list-conn'), []);
    t.deepEqual(await vici.stream('list-sas', 'list-sa', { ike: 'site' }), []);
  },

  'unknown commands and events': async (t, { vici }) => {
    await t.throwsAsync(vici.request('no-such-command'), { instanceOf: ViciUnknownCommand });
    await t.throwsAsync(
      vici.subscribe('no-such-event', () => undefined),
      { instanceOf: ViciUnknownEvent },
    );
  },

  'algorithms: what the default proposals need': async (t, target) => {
    const algorithms = await target.vici.request('get-algorithms');
    const { site } = siteOf(target);
    t.deepEqual(missingPlugins(site.ipsec.proposals.ike, algorithms), []);
    t.deepEqual(missingPlugins(['aes256gcm16-ecp17'], algorithms), [{ token: 'ecp17', plugin: 'openssl' }]);
  },

  'shared keys: one for each id, until they are unloaded or all is cleared': async (t, { vici }) => {
    const ids = async (): Promise<string[]> => list(await vici.request('get-shared'), 'keys').toSorted();
    t.is(
      text(await vici.request('load-shared', { id: 'b', type: 'IKE', data: Buffer.of(0, 255, 10) }), 'success'),
      'yes',
    );
    await vici.request('load-shared', { id: 'a', type: 'ppk', data: 'x'.repeat(32), owners: ['id'] });
    await vici.request('load-shared', { id: 'b', type: 'IKE', data: 'another' });
    await vici.request('load-shared', { type: 'IKE', data: 'without an id' });
    t.deepEqual(await ids(), ['a', 'b']);
    await vici.request('unload-shared', { id: 'b' });
    t.is(text(await vici.request('unload-shared', { id: 'b' }), 'success'), 'yes', 'again');
    t.deepEqual(await ids(), ['a']);
    await refused(t, vici, 'load-shared', { id: 'c', type: 'NONE', data: 'x' }, 'invalid shared key type: NONE');
    await refused(t, vici, 'load-shared', { id: 'c', type: 'IKE' }, 'shared key data missing');
    await refused(t, vici, 'unload-shared', {}, 'unique identifier missing');
    t.deepEqual(await ids(), ['a']);
    await vici.request('clear-creds');
    t.deepEqual(await ids(), []);
  },

  'a private key: held once, by its fingerprint, until all is cleared': async (t, { vici }) => {
    const key = newKey();
    const [first, second] = [await loadKey(vici, key), await loadKey(vici, key)];
    const id = text(first, 'id') ?? '';
    t.regex(id, /^[0-9a-f]{40}$/);
    t.is(text(second, 'id'), id);
    t.deepEqual(list(await vici.request('get-keys'), 'keys'), [id]);
    const other = text(await loadKey(vici, newKey()), 'id') ?? '';
    t.deepEqual(list(await vici.request('get-keys'), 'keys').toSorted(), [id, other].toSorted());
    await refused(t, vici, 'load-key', { type: 'any', data: 'no key' }, 'parsing ANY private key failed');
    await vici.request('clear-creds');
    t.deepEqual(list(await vici.request('get-keys'), 'keys'), []);
  },

  'certificates: parsed, and an authority must be one': async (t, { vici }) => {
    const root = await makeAuthority('root');
    const leaf = await root.issue({ subject: 'CN=vpn' });
    const [certificate, authority] = [leaf, root].map((one) => new X509Certificate(one.certificate).raw) as [
      Buffer,
      Buffer,
    ];
    const load = (flag: string, data: Buffer) => vici.request('load-cert', { type: 'X509', flag, data });
    for (let times = 0; times < 2; times++) {
      t.is(text(await load('NONE', certificate), 'success'), 'yes');
      t.is(text(await load('CA', authority), 'success'), 'yes');
    }
    const not = (flag: string, data: Buffer, words: string) =>
      refused(t, vici, 'load-cert', { type: 'X509', flag, data }, words);
    await not('NONE', Buffer.from('no certificate'), 'parsing X509 certificate failed');
    await not('CA', certificate, 'ca certificate lacks CA basic constraint, rejected');
    await not('OTHER', certificate, "invalid certificate flag 'OTHER'");
  },

  'a connection: loaded twice, listed with its ranges, replaced, unloaded': async (t, target) => {
    const { vici } = target;
    const message = connection(target, { childSAs: 'one' }, ['10.33.0.0/16', '10.8.0.0/16', '10.32.0.0/11']);
    for (let times = 0; times < 2; times++) t.is(text(await vici.request('load-conn', message), 'success'), 'yes');
    await vici.request('load-conn', { other: message.site ?? {} });
    const conns = await connections(vici);
    t.deepEqual(Object.keys(conns).toSorted(), ['other', 'site']);
    t.is(text(conns.site ?? {}, 'version'), 'IKEv2');
    const ranges = async (): Promise<unknown> =>
      sections((await connections(vici)).site ?? {}, 'children').map(([name, child]) => [
        name,
        text(child, 'mode'),
        list(child, 'local-ts'),
        list(child, 'remote-ts'),
      ]);
    // Sorted by the configuration, and without what is inside another one.
    t.deepEqual(await ranges(), [['all', 'TUNNEL', target.site.podRanges, ['10.8.0.0/16', '10.32.0.0/11']]]);

    await vici.request('load-conn', connection(target, { childSAs: 'one' }, ['10.8.0.0/16']));
    t.deepEqual(await ranges(), [['all', 'TUNNEL', target.site.podRanges, ['10.8.0.0/16']]]);
    t.is(text(await vici.request('unload-conn', { name: 'other' }), 'success'), 'yes');
    t.deepEqual(Object.keys(await connections(vici)), ['site']);
    await refused(t, vici, 'unload-conn', { name: 'other' }, "unload: connection 'other' not found");
    await refused(t, vici, 'unload-conn', {}, 'unload: missing connection name');
  },

  'a connection that is refused: the old one stays': async (t, target) => {
    const { vici } = target;
    await vici.request('load-conn', connection(target));
    const before = await vici.stream('list-conns', 'list-conn');
    const site = connection(target, { dpdDelay: 5 }).site as Section;
    const words = 'unknown option: no_such_option, config discarded';
    await refused(t, vici, 'load-conn', { site: { ...site, no_such_option: 'yes' } }, words);
    const [[name, child] = ['', {}]] = Object.entries(site.children as Record<string, Section>);
    const children = { [name]: { ...child, no_such_option: 'yes' } };
    await refused(t, vici, 'load-conn', { site: { ...site, children } }, words);
    t.deepEqual(await vici.stream('list-conns', 'list-conn'), before);
  },

  'initiate: the SAs and all that is read of them': async (t, target) => {
    const { vici, site } = target;
    const [v4] = site.peerCIDRs;
    await load(target);
    t.is(text(await initiate(vici, v4), 'success'), 'yes');
    const [ike] = await untilSas(vici, 'the CHILD_SA', (sas) => installed(sas, v4).length === 1);
    const { localHost, establishedSeconds, children, ...rest } = ike as IkeSa;
    t.deepEqual(rest, {
      name: 'site',
      uid: '1',
      version: '2',
      state: 'ESTABLISHED',
      localId: site.localId,
      remoteHost: site.gateway,
      remoteId: site.gateway,
    });
    t.regex(localHost, /^[\d.]+$/);
    t.true(establishedSeconds >= 0 && establishedSeconds < 60);
    t.is(children.length, 1);
    const { installedSeconds, localTs, ...child } = children[0] as ChildSa;
    t.deepEqual(child, {
      name: v4,
      uid: '1',
      reqid: '1',
      state: 'INSTALLED',
      mode: 'TUNNEL',
      protocol: 'ESP',
      remoteTs: [v4],
      bytesIn: 0,
      bytesOut: 0,
      packetsIn: 0,
      packetsOut: 0,
    });
    t.deepEqual(localTs, site.podRanges.slice(0, 1));
    t.true(installedSeconds >= 0 && installedSeconds < 60);
    const [event] = await vici.stream('list-sas', 'list-sa', { ike: 'site' });
    const [[, raw] = ['', {}]] = sections(event ?? {});
    const [[key] = []] = sections(raw, 'child-sas');
    t.is(key, `${v4}-1`);
    for (const value of ['established', 'uniqueid']) t.regex(text(raw, value) ?? '', /^\d+$/);
    t.deepEqual(await vici.stream('list-sas', 'list-sa', { ike: 'other' }), []);
  },

  'initiate again: no second CHILD_SA by the same configuration': async (t, target) => {
    const { vici, site } = target;
    const [v4, v6] = site.peerCIDRs;
    await load(target);
    await initiate(vici, v4);
    await untilSas(vici, 'the first CHILD_SA', (sas) => installed(sas, v4).length === 1);
    t.is(text(await initiate(vici, v4), 'success'), 'yes');
    await initiate(vici, v6);
    const sas = await untilSas(vici, 'the other CHILD_SA', (sas) => installed(sas, v6).length === 1);
    t.is(sas.length, 1, 'both in one IKE_SA');
    t.deepEqual(names(sas), [v4, v6]);
  },

  'unique ids: IKE_SAs and CHILD_SAs count for themselves': async (t, target) => {
    const { vici, site } = target;
    const [v4, v6] = site.peerCIDRs;
    await load(target);
    await initiate(vici, v4);
    await untilSas(vici, 'the first CHILD_SA', (sas) => installed(sas, v4).length === 1);
    await load(target, { dpdDelay: 5 });
    await initiate(vici, v6);
    const sas = await untilSas(vici, 'the second IKE_SA', (all) => installed(all, v6).length === 1);
    t.deepEqual(sas.map(({ uid }) => uid).toSorted(), ['1', '2']);
    t.deepEqual(sas.flatMap(({ children }) => children.map(({ uid }) => uid)).toSorted(), ['1', '2']);
  },

  'initiate: a child or a connection that is not configured': async (t, target) => {
    const { vici, site } = target;
    const [v4] = site.peerCIDRs;
    await refused(t, vici, 'initiate', { ike: 'site', child: v4, ...AT_ONCE }, `CHILD_SA config '${v4}' not found`);
    await load(target);
    await refused(t, vici, 'initiate', { ike: 'site', child: 'x', ...AT_ONCE }, "CHILD_SA config 'x' not found");
    await refused(t, vici, 'initiate', { ike: 'other', child: v4, ...AT_ONCE }, `CHILD_SA config '${v4}' not found`);
    t.deepEqual(await listSas(vici), []);
  },

  'a child that the gateway refuses: the IKE_SA stays, with the others': async (t, target) => {
    const { vici, site } = target;
    const [v4] = site.peerCIDRs;
    await load(target);
    t.is(text(await initiate(vici, REFUSED), 'success'), 'yes');
    const sas = await untilSas(vici, 'an IKE_SA', (all) => all.some(({ state }) => state === 'ESTABLISHED'));
    await untilSas(vici, 'the end of the try', (all) => names(all).length === 0);
    await initiate(vici, v4);
    const later = await untilSas(vici, 'the other CHILD_SA', (all) => installed(all, v4).length === 1);
    t.deepEqual(
      later.map(({ uid }) => uid),
      sas.map(({ uid }) => uid),
    );
    await initiate(vici, REFUSED);
    await sleep(500);
    t.deepEqual(names(await listSas(vici)), [v4]);
  },

  'a gateway that refuses: nothing stays': async (t, target) => {
    const { vici, site } = target;
    await target.gateway('refuses');
    await load(target);
    t.is(text(await initiate(vici, site.peerCIDRs[0]), 'success'), 'yes');
    await untilSas(vici, 'the end of the try', (sas) => sas.length === 0);
    await sleep(500);
    t.deepEqual(await listSas(vici), []);
  },

  'a silent gateway: one IKE_SA that is being made': async (t, target) => {
    const { vici, site } = target;
    await target.gateway('is silent');
    await load(target);
    for (const child of [...site.peerCIDRs, site.peerCIDRs[0]])
      t.is(text(await initiate(vici, child), 'success'), 'yes');
    const sas = await listSas(vici);
    t.deepEqual(
      sas.map(({ uid, state, remoteHost, children }) => [uid, state, remoteHost, children]),
      [['1', 'CONNECTING', site.gateway, []]],
    );
    // Not known yet.
    t.is(sas[0]?.remoteId, '%any');
  },

  'a gateway that falls silent: an IKE_SA that stands is listed as before': async (t, target) => {
    const { vici, site } = target;
    const [v4, v6] = site.peerCIDRs;
    await load(target);
    await initiate(vici, v4);
    await untilSas(vici, 'the CHILD_SA', (sas) => installed(sas, v4).length === 1);
    await target.gateway('is silent');
    t.is(text(await initiate(vici, v6), 'success'), 'yes');
    const sas = await listSas(vici);
    t.deepEqual(
      sas.map(({ uid, state }) => [uid, state]),
      [['1', 'ESTABLISHED']],
    );
    t.is(installed(sas, v4).length, 1);
    t.is(installed(sas, v6).length, 0);
  },

  'a changed child: a second CHILD_SA beside the old one, which is closed by its id': async (t, target) => {
    const { vici, site } = target;
    const [v4] = site.peerCIDRs;
    await load(target);
    await initiate(vici, v4);
    const before = await untilSas(vici, 'the CHILD_SA', (sas) => installed(sas, v4).length === 1);
    const [old = ''] = installed(before, v4);
    await load(target, { rekeyTime: 1800 });
    t.deepEqual(installed(await listSas(vici), v4), [old]);
    await initiate(vici, v4);
    const both = await untilSas(vici, 'a second CHILD_SA', (sas) => installed(sas, v4).length === 2);
    t.is(both.length, 1);
    const kept = installed(both, v4).filter((uid) => uid !== old);

    const answer = await vici.request('terminate', { 'child-id': old, ...AT_ONCE });
    t.like(answer, { success: 'yes', matches: '1', terminated: '1' });
    await untilSas(vici, 'the old one to go', (sas) => installed(sas, v4).length === 1);
    t.deepEqual(installed(await listSas(vici), v4), kept);
  },

  'the last CHILD_SA is closed: the IKE_SA stays': async (t, target) => {
    const { vici, site } = target;
    const [v4] = site.peerCIDRs;
    await load(target);
    await initiate(vici, v4);
    await untilSas(vici, 'the CHILD_SA', (sas) => installed(sas, v4).length === 1);
    await vici.request('terminate', { 'child-id': '1', ...AT_ONCE });
    const sas = await untilSas(vici, 'the CHILD_SA to go', (all) => names(all).length === 0);
    t.deepEqual(
      sas.map(({ uid, state }) => [uid, state]),
      [['1', 'ESTABLISHED']],
    );
  },

  'a changed connection: a second IKE_SA beside the old one, which is closed by its id': async (t, target) => {
    const { vici, site } = target;
    const [v4, v6] = site.peerCIDRs;
    await load(target);
    for (const child of [v4, v6]) await initiate(vici, child);
    await untilSas(vici, 'both CHILD_SAs', (sas) => names(sas).length === 2);
    await load(target, { dpdDelay: 5 });
    await initiate(vici, v4);
    const both = await untilSas(vici, 'a second IKE_SA', (sas) => installed(sas, v4).length === 2);
    t.deepEqual(both.map(({ uid, children }) => [uid, ...children.map(({ name }) => name)].join(' ')).toSorted(), [
      `1 ${v4} ${v6}`,
      `2 ${v4}`,
    ]);

    const answer = await vici.request('terminate', { 'ike-id': '1', ...AT_ONCE });
    t.like(answer, { success: 'yes', matches: '1', terminated: '1' });
    const [left, ...others] = await untilSas(vici, 'the old one to go', (sas) => sas.length === 1);
    t.deepEqual(others, []);
    t.is(left?.uid, '2');
    t.deepEqual(names([left as IkeSa]), [v4]);
  },

  'terminate: SAs that are not there': async (t, target) => {
    const { vici, site } = target;
    await load(target);
    await initiate(vici, site.peerCIDRs[0]);
    await untilSas(vici, 'the CHILD_SA', (sas) => installed(sas, site.peerCIDRs[0]).length === 1);
    const words = 'no matching SAs to terminate found';
    await refused(t, vici, 'terminate', { 'child-id': '99', ...AT_ONCE }, words);
    await refused(t, vici, 'terminate', { 'ike-id': '99', ...AT_ONCE }, words);
    await refused(t, vici, 'terminate', AT_ONCE, 'missing terminate selector');
    t.is(names(await listSas(vici)).length, 1);
  },

  'the gateway dials: a CHILD_SA of the child that holds its ranges': async (t, target) => {
    const { vici, site } = target;
    await load(target);
    await target.gatewayDials();
    const sas = await untilSas(vici, 'the CHILD_SA', (all) => installed(all, 'all').length === 1);
    t.is(sas.length, 1);
    t.is(sas[0]?.name, 'site');
    t.deepEqual(sas[0]?.children[0]?.remoteTs, [...site.peerCIDRs]);
    t.deepEqual(sas[0]?.children[0]?.localTs, site.podRanges);
  },

  'a connection is unloaded: its SAs stay': async (t, target) => {
    const { vici, site } = target;
    const [v4, v6] = site.peerCIDRs;
    await load(target);
    await initiate(vici, v4);
    await untilSas(vici, 'the CHILD_SA', (sas) => installed(sas, v4).length === 1);
    await vici.request('unload-conn', { name: 'site' });
    t.deepEqual(installed(await listSas(vici), v4), ['1']);
    await refused(t, vici, 'initiate', { ike: 'site', child: v6, ...AT_ONCE }, `CHILD_SA config '${v6}' not found`);
  },

  'events: SAs up and down': async (t, target) => {
    const { vici, site } = target;
    const [v4, v6] = site.peerCIDRs;
    const { said, until } = await follow(vici);
    await load(target);
    await initiate(vici, v4);
    await until(2);
    await initiate(vici, v6);
    await until(3);
    t.deepEqual(said.splice(0), ['ike 1 ESTABLISHED up', `child ${v4} 1 INSTALLED up`, `child ${v6} 2 INSTALLED up`]);
    await vici.request('terminate', { 'child-id': '1', ...AT_ONCE });
    await until(1);
    t.deepEqual(said.splice(0), [`child ${v4} 1 DELETED down`]);
    await vici.request('terminate', { 'ike-id': '1', ...AT_ONCE });
    await until(2);
    t.deepEqual(said.splice(0), ['ike 1 DELETING down', `child ${v6} 2 INSTALLED down`]);
  },

  'events: an IKE_SA that did not come about ends too': async (t, target) => {
    const { vici, site } = target;
    const { said, until } = await follow(vici);
    await target.gateway('refuses');
    await load(target);
    await initiate(vici, site.peerCIDRs[0]);
    await until(1);
    t.deepEqual(said, ['ike 1 CONNECTING down']);
  },

  'events: a CHILD_SA is rekeyed': async (t, target) => {
    const { vici, site } = target;
    const [v4] = site.peerCIDRs;
    const rekeys: Decoded[] = [];
    await vici.subscribe('child-rekey', (message) => void rekeys.push(message));
    await load(target);
    await initiate(vici, v4);
    await untilSas(vici, 'the CHILD_SA', (sas) => installed(sas, v4).length === 1);
    await target.rekey(v4);
    await untilSas(vici, 'the new CHILD_SA', (sas) => installed(sas, v4).join() === '2');
    await waitFor('the event', async () => rekeys.length > 0);
    const [[name, sa] = ['', {}]] = sections(rekeys[0] ?? {});
    t.is(name, 'site');
    t.is(text(sa, 'remote-host'), site.gateway);
    const [[child, both] = ['', {}]] = sections(sa, 'child-sas');
    t.is(child, v4);
    const of = (key: string): (string | undefined)[] => sections(both).map(([, one]) => text(one, key));
    t.deepEqual(
      sections(both).map(([which]) => which),
      ['old', 'new'],
    );
    t.deepEqual(of('name'), [v4, v4]);
    t.deepEqual(of('uniqueid'), ['1', '2']);
    // 5.9, 6.0
    t.regex(of('state').join(' '), /^(REKEYED|REKEYING) INSTALLED$/);
  },

  'events: the log, with the connection that a line is about': async (t, target) => {
    const { vici, site } = target;
    const lines: Decoded[] = [];
    await vici.subscribe('log', (message) => void lines.push(message));
    await target.gateway('refuses');
    await load(target);
    const find = (msg: string): Decoded | undefined => lines.find((line) => text(line, 'msg') === msg);
    await waitFor('a line of load-conn', async () => find('added vici connection: site') !== undefined);
    t.like(find('added vici connection: site'), { group: 'CFG', level: '1' });
    t.is(text(find('added vici connection: site') ?? {}, 'ikesa-name'), undefined);
    await initiate(vici, site.peerCIDRs[0]);
    const refusal = 'received NO_PROPOSAL_CHOSEN notify error';
    await waitFor('the refusal', async () => find(refusal) !== undefined);
    t.like(find(refusal), { group: 'IKE', level: '1', 'ikesa-name': 'site', 'ikesa-uniqueid': '1' });
  },

  'killed, and another one in its place: it knows nothing and counts anew': async (t, target) => {
    const { vici, site } = target;
    const [v4] = site.peerCIDRs;
    await load(target);
    await initiate(vici, v4);
    await untilSas(vici, 'the CHILD_SA', (sas) => installed(sas, v4).length === 1);
    await target.kill();
    for (const asked of [vici.request('get-keys'), listSas(vici)])
      await t.throwsAsync(asked, {
        instanceOf: ViciUnavailable,
        message: /: charon has ended, or has closed the connection$/,
      });

    const next = await target.restart();
    t.like(await next.request('get-shared'), { keys: [] });
    t.deepEqual(await next.stream('list-conns', 'list-conn'), []);
    t.deepEqual(await listSas(next), []);
    await load({ ...target, vici: next });
    await initiate(next, v4);
    const sas = await untilSas(next, 'the CHILD_SA', (all) => installed(all, v4).length === 1);
    t.is(sas[0]?.uid, '1');
    t.deepEqual(installed(sas, v4), ['1']);
  },
};

function siteOf(
  { site }: CharonTarget,
  ipsec: object = {},
  peerCIDRs: readonly string[] = [...site.peerCIDRs, REFUSED],
) {
  const { vpn } = configOf({
    peerCIDRs,
    ipsec: {
      peer: site.gateway,
      localID: site.localId,
      localTrafficSelectors: site.podRanges,
      pskSecretRef: { name: 'psk' },
      startAction: 'start',
      ...ipsec,
    },
  });
  const [one] = vpn.sites;
  if (one === undefined) throw new Error('no site');
  return { vpn, site: one };
}

/** As the agent loads it. `ipsec`: other than the defaults. */
function connection(target: CharonTarget, ipsec?: object, peerCIDRs?: readonly string[]): Section {
  const { vpn, site } = siteOf(target, ipsec, peerCIDRs);
  return loadConn(connectionOf(site, target.site.localId, childrenOf(vpn, site)));
}

/** With the key that the gateway has. */
async function load(target: CharonTarget, ipsec?: object): Promise<void> {
  await target.vici.request('load-shared', { id: 'psk', type: 'IKE', data: target.site.psk });
  await target.vici.request('load-conn', connection(target, ipsec));
}

/** PKCS#8 in DER, as the agent sends it. */
const newKey = (): Uint8Array => createPrivateKey(makeKey('P-256')).export({ format: 'der', type: 'pkcs8' });

const loadKey = (vici: ViciConnection, data: Uint8Array): Promise<Decoded> =>
  vici.request('load-key', { type: 'any', data });

const initiate = (vici: ViciConnection, child: string): Promise<Decoded> =>
  vici.request('initiate', { ike: 'site', child, 'init-limits': 'no', ...AT_ONCE });

async function refused(
  t: ExecutionContext,
  vici: ViciConnection,
  command: string,
  message: Section,
  errmsg: string,
): Promise<void> {
  const error = await t.throwsAsync(vici.request(command, message), { instanceOf: ViciCommandError });
  t.is(error.errmsg, errmsg);
}

async function connections(vici: ViciConnection): Promise<Record<string, Decoded>> {
  const events = await vici.stream('list-conns', 'list-conn');
  return Object.fromEntries(events.flatMap((event) => sections(event)));
}

/** Unique ids of a child's CHILD_SAs that carry traffic. */
const installed = (sas: readonly IkeSa[], child: string): string[] =>
  sas
    .flatMap(({ children }) => children)
    .filter(({ name, state }) => name === child && state === 'INSTALLED')
    .map(({ uid }) => uid);

/** Of all CHILD_SAs, in whatever state. */
const names = (sas: readonly IkeSa[]): string[] => sas.flatMap(({ children }) => children.map(({ name }) => name));

async function waitFor(what: string, done: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + LIMIT_MS;
  while (!(await done())) {
    if (performance.now() > end) throw new Error(`waited ${LIMIT_MS} ms for ${what}`);
    await sleep(20);
  }
}

async function untilSas(
  vici: ViciConnection,
  what: string,
  done: (sas: readonly IkeSa[]) => boolean,
): Promise<readonly IkeSa[]> {
  let sas: readonly IkeSa[] = [];
  await waitFor(what, async () => {
    sas = await listSas(vici);
    return done(sas);
  });
  return sas;
}

/** `said`: the updown events as they come, `ike 1 ESTABLISHED up`. */
async function follow(vici: ViciConnection): Promise<{ said: string[]; until: (count: number) => Promise<void> }> {
  const said: string[] = [];
  const direction = (message: Decoded): string => (text(message, 'up') === 'yes' ? 'up' : 'down');
  await vici.subscribe('ike-updown', (message) => {
    for (const { uid, state } of readSas([message])) said.push(`ike ${uid} ${state} ${direction(message)}`);
  });
  await vici.subscribe('child-updown', (message) => {
    for (const { name, uid, state } of readSas([message]).flatMap(({ children }) => children))
      said.push(`child ${name} ${uid} ${state} ${direction(message)}`);
  });
  return { said, until: (count) => waitFor(`${count} events`, async () => said.length >= count) };
}
