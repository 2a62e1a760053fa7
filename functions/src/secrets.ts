/** Secrets among the items: which one a reference means, and what can be read of it. */
import { get, getText, isRecord, type Item } from '../model/krm.ts';
import type { Site } from '../model/vpn.ts';
import { annotationOf, groupOf, kindOf, nameOf, namespaceOf } from './items.ts';

/** kustomize's record of the names that an object had before its prefixes and suffixes. */
const PREVIOUS_NAMES = 'internal.config.kubernetes.io/previousNames';

/** True where the item is what users call `name`: its name, or its name before kustomize added to it. */
export function isCalled(item: Item, name: string): boolean {
  return nameOf(item) === name || (annotationOf(item, PREVIOUS_NAMES)?.split(',').includes(name) ?? false);
}

/** The Secret called `name` in the namespace; where there is none, one of another namespace. */
export function findSecret(items: readonly Item[], name: string, namespace: string): Item | undefined {
  const secrets = items.filter((item) => kindOf(item) === 'Secret' && groupOf(item) === '' && isCalled(item, name));
  const near = secrets.filter((item) => namespaceOf(item) === namespace);
  return near.find((item) => nameOf(item) === name) ?? near[0] ?? secrets[0];
}

/** A Secret's value: `encrypted` by SOPS, absent, not base64, or its bytes. */
type SecretValue =
  | { kind: 'absent' }
  | { kind: 'encrypted' }
  | { kind: 'broken' }
  | { kind: 'not text' }
  | { kind: 'bytes'; bytes: Uint8Array };

export function secretValue(secret: Item, key: string): SecretValue {
  if (['stringData', 'data'].some((part) => ['number', 'boolean'].includes(typeof get(secret, part, key))))
    return { kind: 'not text' };
  const clear = getText(secret, 'stringData', key);
  const coded = getText(secret, 'data', key);
  if (clear === undefined && coded === undefined) return { kind: 'absent' };
  if (isRecord(get(secret, 'sops'))) return { kind: 'encrypted' };
  if (clear !== undefined) return { kind: 'bytes', bytes: Buffer.from(clear, 'utf8') };
  const compact = (coded ?? '').replaceAll(/\s/g, '');
  const bytes = Buffer.from(compact, 'base64');
  return bytes.toString('base64') === compact ? { kind: 'bytes', bytes } : { kind: 'broken' };
}

/** One file that the frontend reads, and the Secret and key it comes from. */
export interface SecretFile {
  readonly secret: string;
  readonly key: string;
  /** The file's name in the frontend's volume. */
  readonly path: string;
  /** Where the configuration refers to it, below the site: `ipsec.pskSecretRef`. */
  readonly field: string;
}

/** The files of a site's volume, in the order of the volume's sources. `literal` is the Secret made of a literal key. */
export function secretFiles({ ipsec }: Site, literal: string): SecretFile[] {
  const { psk, pskSecretRef, certificate, ppkSecretRef } = ipsec;
  const files: SecretFile[] = [];
  if (psk !== undefined) files.push({ secret: literal, key: 'psk', path: 'psk', field: 'ipsec.psk' });
  if (pskSecretRef !== undefined)
    files.push({ secret: pskSecretRef.name, key: pskSecretRef.key, path: 'psk', field: 'ipsec.pskSecretRef' });
  if (certificate !== undefined)
    for (const key of ['tls.crt', 'tls.key', 'ca.crt'])
      files.push({ secret: certificate.secretRef.name, key, path: key, field: 'ipsec.certificate.secretRef' });
  if (ppkSecretRef !== undefined)
    files.push({ secret: ppkSecretRef.name, key: ppkSecretRef.key, path: 'ppk', field: 'ipsec.ppkSecretRef' });
  return files;
}
