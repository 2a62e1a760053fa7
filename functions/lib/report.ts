/** What the user sees on stderr. */
import { familyOf } from '../model/cidr.ts';
import type { Result } from '../model/krm.ts';
import type { Vpn } from '../model/vpn.ts';

const COLOURS = { error: 31, warning: 33, info: 36 } as const;

/** One line, e.g. `[error] v1/ConfigMap/ns/name spec.x: message`. */
export function formatResult({ severity, message, resourceRef, field, file }: Result, colour: boolean): string {
  const label = `[${severity}]`;
  const ref =
    resourceRef === undefined
      ? ''
      : [resourceRef.apiVersion, resourceRef.kind, resourceRef.namespace, resourceRef.name].filter(Boolean).join('/');
  const where = [ref, file === undefined ? '' : `(${file.path})`, field?.path ?? '']
    .filter((part) => part !== '')
    .join(' ');
  const proposed = field?.proposedValue === undefined ? '' : ` (proposed: ${JSON.stringify(field.proposedValue)})`;
  const prefix = colour ? `\u001b[${COLOURS[severity]}m${label}\u001b[0m` : label;
  // what the user wrote must not steer the terminal
  const text = `${where === '' ? '' : `${where}: `}${message}${proposed}`.replaceAll(
    /[\u0000-\u001f\u007f-\u009f]+/g,
    ' ',
  );
  return `${prefix} ${text}`;
}

/** Two lines: the sites, and the change to Cilium. */
export function summary(name: string, { sites, cilium }: Vpn): string {
  const cidrs = sites.flatMap(({ peerCIDRs }) => peerCIDRs);
  const v6 = cidrs.filter((cidr) => familyOf(cidr) === 6).length;
  const families = v6 === 0 ? '' : ` (${cidrs.length - v6} IPv4, ${v6} IPv6)`;
  const withKey = sites.filter(({ ipsec }) => ipsec.certificate === undefined).length;
  const ppks = sites.filter(({ ipsec }) => ipsec.ppkSecretRef !== undefined).length;
  const auth = [
    [withKey, 'pre-shared key'],
    [sites.length - withKey, 'certificate'],
    [ppks, 'PPK'],
  ] as const;
  const key = cilium.sctp ? 'enable-sctp' : 'bpf-lb-sock-hostns-only';
  const change =
    cilium.sctp || cilium.socketLBHostNamespaceOnly
      ? `${key}=true, ${cilium.restartAgents ? 'agents restart once' : 'agents are not restarted'}`
      : 'unchanged';
  return [
    `${name}: ${count(sites.length, 'site')}, ${count(cidrs.length, 'peer CIDR')}${families}; authentication: ${auth
      .filter(([n]) => n > 0)
      .map(([n, what]) => count(n, what))
      .join(', ')}`,
    `${name}: Cilium: ${change}`,
    '',
  ].join('\n');
}

const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`;
