/** What charon tells of its own accord: SAs up and down, rekeys, failed negotiations; as log lines, and as data for Events. */
import type { Log } from '../../lib/log.ts';
import type { Metrics } from '../metrics.ts';
import type { ViciConnection } from '../vici/connection.ts';
import { flag, sections, text, type Decoded } from '../vici/message.ts';
import { FailureReader } from './failures.ts';
import { readIkeSa, type ChildSa, type IkeSa } from './sas.ts';

interface Deps {
  readonly log: Log;
  readonly metrics: Metrics;
  /** What we offer and accept, as the configuration has it: charon does not tell who only offers. */
  readonly proposals: () => { readonly ike: readonly string[]; readonly esp: readonly string[] } | undefined;
  /** An SA is up, or has ended. */
  readonly onChange: () => void;
}

/** What a Kubernetes Event of it would be (events.k8s.io/v1 `type`, `reason`, `note`); regarding the frontend's pod. */
interface EventRecord {
  readonly type: 'Normal' | 'Warning';
  readonly reason: string;
  readonly note: string;
}

/** Subscribes; ends with the connection. */
export async function followEvents(vici: ViciConnection, { log, metrics, proposals, onChange }: Deps): Promise<void> {
  const failures = new FailureReader();
  const say = (event: EventRecord, keys: object, message: string): void =>
    log[event.type === 'Normal' ? 'info' : 'warn']({ ...keys, event }, message);

  await vici.subscribe('ike-updown', (message) => {
    const up = flag(message, 'up');
    for (const sa of sasOf(message)) {
      // An attempt that failed: charon's log has said why.
      if (!up && sa.state === 'CONNECTING') continue;
      say(
        up
          ? { type: 'Normal', reason: 'GatewayConnected', note: `IKE_SA with ${sa.remoteHost} (${sa.remoteId}) is up` }
          : { type: 'Warning', reason: 'GatewayLost', note: `IKE_SA with ${sa.remoteHost} (${sa.remoteId}) has ended` },
        ikeKeys(sa),
        up ? 'IKE_SA up' : 'IKE_SA down',
      );
    }
    onChange();
  });
  await vici.subscribe('child-updown', (message) => {
    const up = flag(message, 'up');
    for (const sa of sasOf(message))
      for (const child of sa.children) {
        const ranges = child.remoteTs.join(', ');
        say(
          up
            ? { type: 'Normal', reason: 'TunnelUp', note: `traffic to ${ranges} goes through the tunnel` }
            : { type: 'Warning', reason: 'TunnelDown', note: `the tunnel to ${ranges} has ended` },
          childKeys(sa, child),
          up ? 'CHILD_SA up' : 'CHILD_SA down',
        );
      }
    onChange();
  });
  await vici.subscribe('ike-rekey', (message) => {
    for (const sa of rekeyed(message)) log.info(ikeKeys(sa), 'IKE_SA rekeyed');
  });
  await vici.subscribe('child-rekey', (message) => {
    for (const [name, sa] of sections(message))
      for (const [, child] of sections(sa, 'child-sas'))
        log.info(
          { ike: name, child: text(child, 'name') ?? childName(child), peer: text(sa, 'remote-host') },
          'CHILD_SA rekeyed',
        );
  });
  await vici.subscribe('log', (message) => {
    const failure = failures.read({
      group: text(message, 'group') ?? '',
      msg: text(message, 'msg') ?? '',
      ...(text(message, 'ikesa-name') === undefined ? {} : { ike: text(message, 'ikesa-name') as string }),
    });
    if (failure === undefined) return;
    const { reason, side, message: note } = failure;
    metrics.failures.inc({ reason, side });
    const ours = reason === 'proposal' ? { ourProposals: proposals() } : {};
    say(
      { type: 'Warning', reason: 'NegotiationFailed', note },
      { reason, refusedBy: side, ...ours },
      'negotiation failed',
    );
  });
}

/** Of an updown event: an IKE_SA by its name, beside `up`. */
const sasOf = (message: Decoded): IkeSa[] => sections(message).map(([name, sa]) => readIkeSa(name, sa));

/** Of ike-rekey, the new one: `{<name>: {old: {…}, new: {…}}}`. */
const rekeyed = (message: Decoded): IkeSa[] =>
  sections(message).flatMap(([name, both]) =>
    sections(both)
      .filter(([which]) => which === 'new')
      .map(([, sa]) => readIkeSa(name, sa)),
  );

/** Of child-rekey: `{old: {name, …}, new: {name, …}}`. */
const childName = (child: Decoded): string | undefined =>
  sections(child)
    .filter(([which]) => which === 'new')
    .map(([, sa]) => text(sa, 'name'))[0];

const ikeKeys = ({ name, uid, remoteHost, remoteId, localId }: IkeSa) => ({
  ike: name,
  uid,
  peer: remoteHost,
  remoteId,
  localId,
});

const childKeys = (sa: IkeSa, { name, uid, localTs, remoteTs }: ChildSa) => ({
  ike: sa.name,
  child: name,
  uid,
  peer: sa.remoteHost,
  localTs: localTs.join(', '),
  remoteTs: remoteTs.join(', '),
});
