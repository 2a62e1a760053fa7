/** What the agent `routing` takes for granted of Cilium's REST API: one list of checks, for the fake and for a real agent. */
import { request } from 'node:http';
import { join } from 'node:path';
import { text as textOf } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { CiliumApi, CiliumError, SOCKET } from '../../agents/routing/cilium/api.ts';
import { regenerationOf } from '../../agents/routing/cilium/failing-endpoints.ts';
import { type Cidr, hostCidr } from '../../functions/model/cidr.ts';

/** An agent that runs. */
export interface CiliumTarget {
  /** Where its socket is. */
  readonly folder: string;
  /** Of a pod on the agent's node that nobody needs meanwhile, IPv4 first. Its source check is turned off and on. */
  readonly endpoint: { readonly id: number; readonly addresses: readonly string[] };
  /** IPv4, ending in `.0`: a range that the CiliumEndpoint of this pod lists. */
  readonly range: {
    readonly cidr: Cidr;
    /** Of the pod's node. */
    readonly hostIP: string;
    readonly namespace: string;
    readonly pod: string;
  };
  /** Ends the agent. Another one comes in its place by itself. */
  end(): Promise<void>;
}

type Check = (t: ExecutionContext, target: CiliumTarget) => Promise<void>;

/** Of the range for benchmarks (RFC 2544), which nobody has. */
const NOBODY = '198.18.0.1';
const UNKNOWN = `ipv4:${NOBODY}`;
const NOBODYS = '198.18.0.0/24';
/** Of a regeneration that a PATCH led to; 1.20 has another word in it. */
const TRIGGERED = /^Triggering endpoint regeneration due to .*endpoint was updated via API$/;
const DONE = /^Successfully regenerated endpoint program \(Reason: (endpoint was updated via API|EndpointUpdate)\)$/;
/** An agent that starts compiles its programs first. */
const LIMIT_MS = 180_000;
/** The agent answers four such questions a second, the rest wait. */
const PAUSE_MS = 250;
/** What a PATCH that changes something takes at least: once a second the agent looks whether it can begin. */
const NOT_BEFORE_MS = 990;

/** By their titles, in an order in which one agent bears them. */
export const CILIUM_CHECKS: Readonly<Record<string, Check>> = {
  'an endpoint’s configuration, by each key of the endpoint': async (t, target) => {
    const { id, addresses } = target.endpoint;
    for (const key of [...addresses.map(keyOf), String(id), `cilium-local:${id}`]) {
      const answer = await ask(target, 'GET', `/v1/endpoint/${key}/config`);
      t.is(answer.status, 200, key);
      t.is(answer.type, 'application/json');
      const { realized } = JSON.parse(answer.text) as { realized: { options: Record<string, string> } };
      t.regex(realized.options.SourceIPVerification ?? '', /^(Enabled|Disabled)$/);
      t.truthy(realized.options.TraceNotification);
    }
    for (const address of addresses) t.is(typeof (await apiOf(target).sourceCheck(address)), 'boolean');
  },

  'an endpoint that the agent does not know: an empty answer': async (t, target) => {
    for (const about of ['config', 'log', 'healthz'])
      empty(t, await ask(target, 'GET', `/v1/endpoint/${UNKNOWN}/${about}`), 404);
    t.is(await apiOf(target).sourceCheck(NOBODY), undefined);
    t.false(await apiOf(target).turnSourceCheckOff(NOBODY));
    const patched = await patch(target, UNKNOWN, { SourceIPVerification: 'Disabled' });
    said(t, patched, 404, `endpoint ${UNKNOWN} not found`);
  },

  'keys that are none': async (t, target) => {
    for (const about of ['config', 'log', 'healthz']) {
      const get = (key: string) => ask(target, 'GET', `/v1/endpoint/${key}/${about}`);
      said(t, await get('nonsense:1'), 400, 'unknown endpoint ID prefix "nonsense"');
      said(t, await get('abc'), 400, 'invalid numeric cilium id: strconv.ParseInt: parsing "abc": invalid syntax');
      said(t, await get('65536'), 400, 'endpoint id too large: 65536');
    }
    const patched = await patch(target, 'nonsense:1', { SourceIPVerification: 'Disabled' });
    said(t, patched, 400, 'unknown endpoint ID prefix "nonsense"');
  },

  'an option that changes: seen at once, answered a second later, regenerated after that': async (t, target) => {
    const { id } = target.endpoint;
    const api = apiOf(target);
    for (const value of [await flipped(target), await flipped(target, true)]) {
      const before = await regenerations(target);
      let answered = false;
      const patched = patch(target, String(id), { SourceIPVerification: value }).finally(() => (answered = true));
      await until('the option to change', async () => (await option(target)) === value);
      t.false(answered);
      const answer = await patched;
      empty(t, answer, 200);
      t.true(answer.ms >= NOT_BEFORE_MS, `${answer.ms}`);
      t.is(await api.endpointHealth(id), 'Pending');
      t.is((await regenerations(target)).triggered, before.triggered + 1);
      await until('the end of the regeneration', async () => (await regenerations(target)).done > before.done);
      await until('the endpoint to be well', async () => (await api.endpointHealth(id)) === 'OK');
      t.is(await option(target), value);
    }
  },

  'the same value again: nothing is regenerated': async (t, target) => {
    const before = await regenerations(target);
    empty(t, await patch(target, String(target.endpoint.id), { SourceIPVerification: await option(target) }), 200);
    t.deepEqual(await regenerations(target), before);
  },

  'unknown options and values: nothing changes': async (t, target) => {
    const [value, before] = [await flipped(target), await regenerations(target)];
    const [key] = target.endpoint.addresses.map(keyOf) as [string];
    said(t, await patch(target, key, { Nonsense: 'Enabled' }), 400, 'unknown option "Nonsense"');
    said(t, await patch(target, key, { SourceIPVerification: 'perhaps' }), 400, 'invalid option value perhaps');
    const mixed = { SourceIPVerification: value, Nonsense: 'Enabled' };
    said(t, await patch(target, key, mixed), 400, 'unknown option "Nonsense"');
    t.not(await option(target), value);
    t.deepEqual(await regenerations(target), before);
  },

  'an endpoint’s log: the newest entry first': async (t, target) => {
    const { status, type, text } = await ask(target, 'GET', `/v1/endpoint/${target.endpoint.id}/log`);
    t.is(status, 200);
    t.is(type, 'application/json');
    const entries = JSON.parse(text) as Record<'timestamp' | 'code' | 'message' | 'state', string>[];
    t.true(entries.length > 2);
    for (const { timestamp, code, state } of entries) {
      t.regex(timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
      t.is(code, 'OK');
      t.regex(state, /^[a-z-]+$/);
    }
    const times = entries.map(({ timestamp }) => timestamp);
    t.deepEqual(times, times.toSorted().toReversed());
    const done = entries.findIndex(({ message }) => DONE.test(message));
    t.true(done >= 0 && done < entries.findIndex(({ message }) => TRIGGERED.test(message)));
    t.is(entries[done]?.state, 'ready');
    t.false(await apiOf(target).setByAnnotation(target.endpoint.addresses[0] ?? ''));
  },

  'an endpoint’s health': async (t, target) => {
    const { id } = target.endpoint;
    await until('the endpoint to be well', async () => (await apiOf(target).endpointHealth(id)) === 'OK');
    const { status, type, text } = await ask(target, 'GET', `/v1/endpoint/${id}/healthz`);
    t.is(status, 200);
    t.is(type, 'application/json');
    t.deepEqual(JSON.parse(text), { overallHealth: 'OK', bpf: 'OK', policy: 'OK', connected: true });
    t.is(await apiOf(target).endpointHealth(id), 'OK');
  },

  'the agent’s health, with the controllers of its endpoints': async (t, target) => {
    const { id } = target.endpoint;
    const { status, type, text } = await ask(target, 'GET', '/v1/healthz');
    t.is(status, 200);
    t.is(type, 'application/json');
    const { cilium } = JSON.parse(text) as { cilium: { state: string; msg: string } };
    t.is(cilium.state, 'Ok');
    t.regex(cilium.msg, /^\d+\.\d+\.\d+ /);
    const controllers = await apiOf(target).controllers();
    t.true(controllers.some(({ name }) => name === `endpoint-${id}-regeneration-recovery`));
    const { endpoints, failing } = regenerationOf(controllers);
    t.true(endpoints >= 1);
    t.deepEqual(failing, []);
    // Counts that are 0 are left out.
    t.true(controllers.every(({ status }) => status?.['consecutive-failure-count'] !== 0));
  },

  'a range: its entry, and those inside': async (t, target) => {
    const { cidr, hostIP, namespace, pod } = target.range;
    const own = async (asked: string) => {
      const { status, type, text } = await ask(target, 'GET', `/v1/ip?cidr=${asked}`);
      t.is(status, 200, asked);
      t.is(type, 'application/json');
      const entries = JSON.parse(text) as { cidr: string; identity: number }[];
      t.false(entries.some((entry) => entry.cidr.includes(':')));
      const found = entries.find((entry) => entry.cidr === cidr);
      t.is(typeof found?.identity, 'number');
      return { ...found, identity: 0 };
    };
    const metadata = { source: 'custom-resource', namespace, name: pod };
    for (const asked of [cidr, encodeURIComponent(cidr), cidr.replace('.0/', '.7/'), '0.0.0.0/0'])
      t.deepEqual(await own(asked), { cidr, hostIP, identity: 0, metadata }, asked);
    for (const entries of [await apiOf(target).entries(cidr), await apiOf(target).entries()])
      t.is(entries.find((entry) => entry.cidr === cidr)?.metadata?.source, 'custom-resource');
  },

  'a pod’s own address: an entry of the same kind': async (t, target) => {
    for (const cidr of target.endpoint.addresses.map(hostCidr)) {
      const entries = await apiOf(target).entries(cidr);
      t.deepEqual(
        entries.map((entry) => [entry.cidr, entry.metadata?.source]),
        [[cidr, 'custom-resource']],
      );
    }
  },

  'ranges without an entry, and what is none': async (t, target) => {
    const get = (cidr: string) => ask(target, 'GET', `/v1/ip?cidr=${cidr}`);
    empty(t, await get(NOBODYS), 404);
    empty(t, await get('2001:db8:1::/48'), 404);
    // What is around the range is not inside.
    empty(t, await get(target.range.cidr.replace(/\/\d+$/, '/32')), 404);
    t.deepEqual(await apiOf(target).entries(NOBODYS as Cidr), []);
    for (const cidr of ['nonsense', '10.8.0.1', '10.8.0.0/33'])
      said(t, await get(cidr), 400, `invalid CIDR address: ${cidr}`);
  },

  'unknown paths and methods': async (t, target) => {
    const path = await ask(target, 'GET', '/v1/nonsense');
    t.deepEqual([path.status, path.type], [404, 'application/json']);
    t.deepEqual(JSON.parse(path.text), { code: 404, message: 'path /v1/nonsense was not found' });
    const method = await ask(target, 'DELETE', '/v1/ip');
    t.deepEqual([method.status, method.type], [405, 'application/json']);
    t.deepEqual(JSON.parse(method.text), { code: 405, message: 'method DELETE is not allowed, but [GET] are' });
  },

  'a body that is none': async (t, target) => {
    const path = `/v1/endpoint/${target.endpoint.id}/config`;
    const codes = async (body: string | undefined) => {
      const { status, text } = await ask(target, 'PATCH', path, body);
      return [status, (JSON.parse(text) as { code: number }).code];
    };
    t.deepEqual(await codes(undefined), [422, 602]);
    t.deepEqual(await codes('{"options":'), [400, 400]);
    t.deepEqual(await codes('"text"'), [400, 400]);
  },

  'ended: away, and then with the source check on and a new log': async (t, target) => {
    const { id, addresses } = target.endpoint;
    const [address = ''] = addresses;
    const api = apiOf(target);
    t.true(await api.turnSourceCheckOff(address));
    t.false(await api.sourceCheck(address));
    await target.end();
    let away = false;
    await until('the source check to be on', async () => {
      const check = await api.sourceCheck(address).catch(kindOf);
      away ||= check === 'away';
      // The new agent has not kept it.
      if (away) t.not(check, false);
      return check === true;
    });
    t.true(away);
    t.deepEqual(await regenerations(target), { triggered: 0, done: 0 });
    await until('the endpoint to be well', async () => (await api.endpointHealth(id)) === 'OK');
    await until('its controllers', async () => regenerationOf(await api.controllers()).endpoints > 0);
    const { cidr } = target.range;
    await until('the range', async () => (await api.entries(cidr)).some((entry) => entry.cidr === cidr));
  },
};

interface Answer {
  readonly status: number;
  readonly type: string | undefined;
  readonly length: string | undefined;
  readonly text: string;
  readonly ms: number;
}

const apiOf = ({ folder }: CiliumTarget): CiliumApi => new CiliumApi(folder);
const keyOf = (address: string): string => `${address.includes(':') ? 'ipv6' : 'ipv4'}:${address}`;

/** As it goes over the socket: what the product's client leaves out is checked as well. */
async function ask({ folder }: CiliumTarget, method: string, path: string, body?: string): Promise<Answer> {
  const started = performance.now();
  const headers = { 'content-type': 'application/json' };
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath: join(folder, SOCKET), method, path, headers, agent: false }, (response) => {
      const { statusCode: status = 0, headers } = response;
      const answer = { status, type: headers['content-type'], length: headers['content-length'] };
      textOf(response).then((text) => resolve({ ...answer, text, ms: performance.now() - started }), reject);
    });
    sent.on('error', reject).end(body);
  });
}

const patch = (target: CiliumTarget, key: string, options: Record<string, string>): Promise<Answer> =>
  ask(target, 'PATCH', `/v1/endpoint/${key}/config`, JSON.stringify({ options }));

function empty(t: ExecutionContext, { status, type, length, text }: Answer, expected: number): void {
  t.deepEqual([status, type, length, text], [expected, undefined, '0', '']);
}

/** The agent's errors are JSON strings. */
function said(t: ExecutionContext, { status, type, text }: Answer, expected: number, words: string): void {
  t.deepEqual([status, type, JSON.parse(text)], [expected, 'application/json', words]);
}

/** The source check of the endpoint, in Cilium's words. */
async function option(target: CiliumTarget): Promise<string> {
  const { text } = await ask(target, 'GET', `/v1/endpoint/${target.endpoint.id}/config`);
  const { realized } = JSON.parse(text) as { realized: { options: { SourceIPVerification: string } } };
  return realized.options.SourceIPVerification;
}

/** The value that it has not, or that it has after that one. */
async function flipped(target: CiliumTarget, twice = false): Promise<string> {
  return ((await option(target)) === 'Enabled') === twice ? 'Enabled' : 'Disabled';
}

/** Of those that the API led to, how many began and ended. */
async function regenerations(target: CiliumTarget): Promise<{ triggered: number; done: number }> {
  const log = await apiOf(target).endpointLog(target.endpoint.id);
  const count = (wanted: RegExp): number => log.filter(({ message = '' }) => wanted.test(message)).length;
  return { triggered: count(TRIGGERED), done: count(DONE) };
}

async function until(what: string, done: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + LIMIT_MS;
  while (!(await done())) {
    if (performance.now() > end) throw new Error(`waited ${LIMIT_MS} ms for ${what}`);
    await sleep(PAUSE_MS);
  }
}

function kindOf(error: unknown): string {
  if (error instanceof CiliumError) return error.kind;
  throw error;
}
