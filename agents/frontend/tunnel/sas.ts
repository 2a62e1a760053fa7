/** What list-sas and the updown events tell of SAs (VICI README, list-sa), as data. */
import { CONNECTION } from '../connection/load-conn.ts';
import type { ViciConnection } from '../vici/connection.ts';
import { list, sections, text, type Decoded } from '../vici/message.ts';

export interface ChildSa {
  /** Of the child in the configuration. */
  readonly name: string;
  readonly uid: string;
  readonly reqid: string;
  /** INSTALLED, and what comes before and after it. */
  readonly state: string;
  readonly mode: string;
  readonly protocol: string;
  readonly localTs: readonly string[];
  readonly remoteTs: readonly string[];
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly packetsIn: number;
  readonly packetsOut: number;
  /** Since it was installed. */
  readonly installedSeconds: number;
}

export interface IkeSa {
  /** Of the connection in the configuration. */
  readonly name: string;
  readonly uid: string;
  readonly version: string;
  /** ESTABLISHED, and what comes before and after it. */
  readonly state: string;
  readonly localHost: string;
  readonly localId: string;
  readonly remoteHost: string;
  readonly remoteId: string;
  /** 0 before it was. */
  readonly establishedSeconds: number;
  readonly children: readonly ChildSa[];
}

/** The SAs of the site's connection. Throws ViciUnavailable. */
export const listSas = async (vici: ViciConnection): Promise<IkeSa[]> =>
  readSas(await vici.stream('list-sas', 'list-sa', { ike: CONNECTION }));

/** `events`: those of list-sa, each one IKE_SA by its name. */
export const readSas = (events: readonly Decoded[]): IkeSa[] =>
  events.flatMap((event) => sections(event).map(([name, sa]) => readIkeSa(name, sa)));

export function readIkeSa(name: string, sa: Decoded): IkeSa {
  const of = (key: string): string => text(sa, key) ?? '';
  return {
    name,
    uid: of('uniqueid'),
    version: of('version'),
    state: of('state'),
    localHost: of('local-host'),
    localId: of('local-id'),
    remoteHost: of('remote-host'),
    remoteId: of('remote-id'),
    establishedSeconds: number(sa, 'established'),
    children: sections(sa, 'child-sas').map(([key, child]) => readChildSa(key, child)),
  };
}

function readChildSa(key: string, sa: Decoded): ChildSa {
  const of = (field: string): string => text(sa, field) ?? '';
  return {
    name: text(sa, 'name') ?? key,
    uid: of('uniqueid'),
    reqid: of('reqid'),
    state: of('state'),
    mode: of('mode'),
    protocol: of('protocol'),
    localTs: list(sa, 'local-ts'),
    remoteTs: list(sa, 'remote-ts'),
    bytesIn: number(sa, 'bytes-in'),
    bytesOut: number(sa, 'bytes-out'),
    packetsIn: number(sa, 'packets-in'),
    packetsOut: number(sa, 'packets-out'),
    installedSeconds: number(sa, 'install-time'),
  };
}

const number = (sa: Decoded, key: string): number => Number(text(sa, key) ?? 0);
