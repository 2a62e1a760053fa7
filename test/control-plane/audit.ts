/** The API server's audit log: who asked for what. https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/ */
import { isRecord } from '../../functions/model/krm.ts';

export interface AuditEntry {
  /** 'system:serviceaccount:NAMESPACE:NAME', 'admin'; empty where the server couldn't tell (401). */
  user: string;
  /** get, list, watch, create, update, patch, delete, deletecollection; for a path that is no resource the method. */
  verb: string;
  /** Plural; empty for a path that is no resource (/version). */
  resource: string;
  subresource?: string;
  namespace?: string;
  name?: string;
  /** HTTP status. */
  code: number;
  /** With the query. */
  path: string;
  userAgent: string;
  /** When the server got the request, milliseconds since the epoch. */
  at: number;
}

/**
 * Not in the log: what the API server asks itself, and what this folder's code asks to find out whether it is ready.
 * Watches are logged when they start; without RequestReceived all else is when it is answered.
 */
export const AUDIT_POLICY = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ['system:apiserver']
- level: None
  nonResourceURLs: ['/readyz*']
- level: Metadata
`;

/** By time of arrival. Lines that are no JSON are left out: one being written, and one that a SIGKILL cut off. */
export function parseAudit(log: string): AuditEntry[] {
  const seen = new Set<unknown>();
  const entries: AuditEntry[] = [];
  for (const line of log.split('\n')) {
    const event = parseLine(line);
    // A watch has a second event, of its end.
    if (!isRecord(event) || seen.has(event.auditID)) continue;
    seen.add(event.auditID);
    entries.push(toEntry(event));
  }
  return entries.sort((a, b) => a.at - b.at);
}

function parseLine(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function toEntry(event: Record<string, unknown>): AuditEntry {
  const { user, objectRef, responseStatus } = event;
  const object = isRecord(objectRef) ? objectRef : {};
  return {
    user: text(isRecord(user) ? user.username : undefined),
    verb: text(event.verb),
    resource: text(object.resource),
    ...optional('subresource', object.subresource),
    ...optional('namespace', object.namespace),
    ...optional('name', object.name),
    code: Number(isRecord(responseStatus) ? responseStatus.code : NaN),
    path: text(event.requestURI),
    userAgent: text(event.userAgent),
    at: Date.parse(text(event.requestReceivedTimestamp)),
  };
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function optional<K extends string>(key: K, value: unknown): Partial<Record<K, string>> {
  return typeof value === 'string' ? ({ [key]: value } as Record<K, string>) : {};
}
