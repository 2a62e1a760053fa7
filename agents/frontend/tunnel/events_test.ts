import test from 'ava';
import { FakeCharon } from '../../../test/fakes/charon.ts';
import type { Log } from '../../lib/log.ts';
import { createMetrics } from '../metrics.ts';
import { followEvents } from './events.ts';

const RANGE = '192.168.50.0/24';

interface Bench {
  readonly charon: FakeCharon;
  /** `level message`, and the note of the Event. */
  readonly said: string[];
  readonly keys: object[];
  readonly changes: () => number;
  readonly metrics: ReturnType<typeof createMetrics>;
}

/** A charon that knows the site's connection. */
async function followed(): Promise<Bench> {
  const charon = new FakeCharon();
  const said: string[] = [];
  const keys: object[] = [];
  let changes = 0;
  const say = (level: string) => (record: object, message: string) => {
    const { event } = record as { event?: { note: string } };
    said.push([`${level} ${message}`, event?.note].filter(Boolean).join(': '));
    keys.push(record);
  };
  const metrics = createMetrics(
    () => true,
    async () => [],
  );
  await followEvents(charon.vici, {
    log: { info: say('info'), warn: say('warn'), error: say('error') } as unknown as Log,
    metrics,
    proposals: () => ({ ike: ['aes256'], esp: [] }),
    onChange: () => {
      changes += 1;
    },
  });
  const child = { local_ts: ['10.10.0.0/16'], remote_ts: [RANGE] };
  const ends = { local: { id: 'us' }, remote: { id: 'them' } };
  await charon.vici.request('load-conn', { site: { remote_addrs: ['198.51.100.7'], ...ends, children: { a: child } } });
  return { charon, said, keys, changes: () => changes, metrics };
}

test('SAs come up and end', async (tt) => {
  const { charon, said, keys, changes } = await followed();
  await charon.vici.request('initiate', { ike: 'site', child: 'a' });
  tt.deepEqual(said.splice(0), [
    'info IKE_SA up: IKE_SA with 198.51.100.7 (them) is up',
    `info CHILD_SA up: traffic to ${RANGE} goes through the tunnel`,
  ]);
  tt.like(keys[0], { ike: 'site', uid: '1', peer: '198.51.100.7', remoteId: 'them', localId: 'us' });
  tt.like(keys[1], { ike: 'site', child: 'a', uid: '1', localTs: '10.10.0.0/16', remoteTs: RANGE });
  tt.is(changes(), 2);
  await charon.vici.request('terminate', { 'ike-id': '1' });
  tt.deepEqual(said, [
    'warn IKE_SA down: IKE_SA with 198.51.100.7 (them) has ended',
    `warn CHILD_SA down: the tunnel to ${RANGE} has ended`,
  ]);
  tt.is(changes(), 4);
});

test('a CHILD_SA is rekeyed: nothing has changed', async (tt) => {
  const { charon, said, keys, changes } = await followed();
  await charon.vici.request('initiate', { ike: 'site', child: 'a' });
  const before = changes();
  said.length = 0;
  charon.rekey('a');
  tt.deepEqual(said, ['info CHILD_SA rekeyed']);
  tt.deepEqual(keys.at(-1), { ike: 'site', child: 'a', peer: '198.51.100.7' });
  tt.is(changes(), before);
});

test('a gateway that refuses: why, and what we offered; nothing that stood is lost', async (tt) => {
  const { charon, said, keys, changes, metrics } = await followed();
  charon.gateway = 'refuses';
  await charon.vici.request('initiate', { ike: 'site', child: 'a' });
  tt.is(said.length, 1);
  tt.regex(said[0] ?? '', /^warn negotiation failed: /);
  tt.is(changes(), 1, 'it is looked at again');
  tt.like(keys[0], { reason: 'proposal', refusedBy: 'theirs', ourProposals: { ike: ['aes256'] } });
  const { values } = await metrics.failures.get();
  tt.deepEqual(
    values.map(({ labels, value }) => [labels, value]),
    [[{ reason: 'proposal', side: 'theirs' }, 1]],
  );
});
