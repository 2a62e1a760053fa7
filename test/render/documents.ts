import { loadAll } from 'js-yaml';
import { LOSSLESS } from '../../functions/lib/yaml.ts';
import { isRecord } from '../../functions/model/krm.ts';

export type Document = Record<string, unknown>;

/** The objects of a stream of YAML documents, scalars as written. */
export function documents(text: string): Document[] {
  return loadAll(text, { schema: LOSSLESS }).filter(isRecord);
}

/** `apiVersion/Kind/namespace/name` */
export function key({ apiVersion, kind, metadata }: Document): string {
  const { namespace = '', name = '' } = isRecord(metadata) ? metadata : {};
  return [apiVersion, kind, namespace, name].map(String).join('/');
}

/** By key. Fails on duplicates, which no cluster would keep apart. */
export function byKey(list: readonly Document[]): Map<string, Document> {
  const found = new Map<string, Document>();
  for (const document of list) {
    if (found.has(key(document))) throw new Error(`twice among the documents: ${key(document)}`);
    found.set(key(document), document);
  }
  return found;
}
