/** `kubectl apply --server-side --force-conflicts` of what the tests apply, without kubectl. */
import { setTimeout as sleep } from 'node:timers/promises';
import { loadAll } from 'js-yaml';
import { isRecord } from '../../functions/model/krm.ts';
import type { Answer, Request } from './client.ts';

export interface Parsed {
  apiVersion: string;
  kind: string;
  name: string;
  namespace?: string;
  /** The document as it was written: the server reads it, with its own rules of YAML. */
  text: string;
}

/** Namespaces first, then CRDs: what is in them, or of them, needs them. Otherwise as written. */
const FIRST = ['Namespace', 'CustomResourceDefinition'];
const CRD_LIMIT_MS = 30_000;

/** Throws at the first document that the server refuses, with its words. */
export async function applyAll(yaml: string, request: Request): Promise<void> {
  const documents = parseDocuments(yaml);
  const rank = ({ kind }: Parsed) => (FIRST.indexOf(kind) + FIRST.length + 1) % (FIRST.length + 1);
  for (const document of documents.toSorted((a, b) => rank(a) - rank(b))) {
    const path = await pathOf(document, request);
    const query = 'fieldManager=test&force=true&fieldValidation=Strict';
    const answer = await request('PATCH', `${path}?${query}`, document.text, 'application/apply-patch+yaml');
    if (answer.status >= 300) throw new Error(`${nameOf(document)} was not applied: ${statusOf(answer)}`);
    if (document.kind === 'CustomResourceDefinition') await established(path, document, request);
  }
}

export function parseDocuments(yaml: string): Parsed[] {
  // Between two lines of ---, so that each document is there as text; none in a part that is empty or only comments.
  return yaml.split(/^---(?:[ \t].*)?$/m).flatMap((text) =>
    loadAll(text)
      .filter((value) => value !== null)
      .map((value) => parseDocument(value, text)),
  );
}

function parseDocument(value: unknown, text: string): Parsed {
  const { apiVersion, kind, metadata } = isRecord(value) ? value : {};
  const { name, namespace } = isRecord(metadata) ? metadata : {};
  if (typeof apiVersion !== 'string' || typeof kind !== 'string' || typeof name !== 'string')
    throw new Error(`a document without apiVersion, kind or metadata.name: ${text.trim().slice(0, 200)}`);
  return { apiVersion, kind, name, ...(typeof namespace === 'string' ? { namespace } : {}), text };
}

/** From the server's discovery: /api/v1 and /apis/GROUP/VERSION list the kinds with their plurals. */
async function pathOf(document: Parsed, request: Request): Promise<string> {
  const { apiVersion, kind, name, namespace = 'default' } = document;
  const prefix = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  const { body } = await request('GET', prefix);
  const found = findResource(body, kind);
  if (found === undefined) throw new Error(`${nameOf(document)}: the server knows no ${kind} in ${apiVersion}`);
  return [prefix, ...(found.namespaced === true ? ['namespaces', namespace] : []), found.name, name].join('/');
}

/** Waits until the server serves the kind: it takes the CRD first and serves it a moment later. */
async function established(path: string, document: Parsed, request: Request): Promise<void> {
  const deadline = Date.now() + CRD_LIMIT_MS;
  while (Date.now() < deadline) {
    const { body } = await request('GET', path);
    if (await isServed(body, request)) return;
    await sleep(25);
  }
  throw new Error(`${nameOf(document)} is not served after ${CRD_LIMIT_MS / 1000} s`);
}

async function isServed(crd: unknown, request: Request): Promise<boolean> {
  const { spec, status } = isRecord(crd) ? crd : {};
  const established = list(status, 'conditions').some(
    (condition) => condition.type === 'Established' && condition.status === 'True',
  );
  if (!established || !isRecord(spec) || !isRecord(spec.names)) return false;
  for (const { name, served } of list(spec, 'versions')) {
    if (served !== true) continue;
    const version = `/apis/${String(spec.group)}/${String(name)}`;
    const { status: listed } = await request('GET', `${version}/${String(spec.names.plural)}?limit=1`);
    const { body: discovery } = await request('GET', version);
    if (listed !== 200 || findResource(discovery, spec.names.kind) === undefined) return false;
  }
  return true;
}

/** The kind itself, not one of its subresources ('pods/status'). */
function findResource(discovery: unknown, kind: unknown): Record<string, unknown> | undefined {
  return list(discovery, 'resources').find((each) => each.kind === kind && !String(each.name).includes('/'));
}

function list(value: unknown, key: string): Record<string, unknown>[] {
  const items = isRecord(value) ? value[key] : undefined;
  return Array.isArray(items) ? items.filter(isRecord) : [];
}

function nameOf({ kind, name, namespace }: Parsed): string {
  return `${kind} ${namespace === undefined ? '' : `${namespace}/`}${name}`;
}

/** '404 the server could not find the requested resource' */
export function statusOf({ status, body }: Answer): string {
  return `${status} ${isRecord(body) ? String(body.message) : String(body)}`;
}
