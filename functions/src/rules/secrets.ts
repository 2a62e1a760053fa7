/** The Secrets that the configuration refers to. */
import { getText, type Item, type Result } from '../../model/krm.ts';
import { pskProblem, pskWarnings } from '../../model/psk.ts';
import { FRONTEND } from '../frontends.ts';
import { about, findComponent, kindOf, nameOf, namespaceOf } from '../items.ts';
import { findSecret, isCalled, secretFiles, secretValue, type SecretFile } from '../secrets.ts';
import { inConfig, type Rule } from './rule.ts';

export const secretRefs: Rule = (config, items) =>
  config.vpn.sites.flatMap((site) => {
    const frontend = findComponent(items, 'StatefulSet', FRONTEND)[0];
    const bySecret = new Map<string, SecretFile[]>();
    for (const file of secretFiles(site, ''))
      if (file.secret !== '') bySecret.set(file.secret, [...(bySecret.get(file.secret) ?? []), file]);
    return [...bySecret].flatMap(([name, files]): Result[] => {
      const secret = findSecret(items, name, frontend === undefined ? '' : namespaceOf(frontend));
      if (secret !== undefined) return [...placed(secret, items), ...files.flatMap((file) => content(secret, file))];
      if (items.some((item) => makesSecret(item, name))) return [];
      const keys = `the key${files.length === 1 ? '' : 's'} ${files.map(({ key }) => key).join(', ')}`;
      return [
        inConfig(
          config,
          'info',
          `${config.paths.site(site.name)}.${files[0]?.field}`,
          `Secret ${name} with ${keys} is not among the items: create it in the VPN's namespace, or the frontend waits for it`,
        ),
      ];
    });
  });

/** A frontend mounts Secrets of its own namespace only. */
function placed(secret: Item, items: readonly Item[]): Result[] {
  const frontend = findComponent(items, 'StatefulSet', FRONTEND)[0];
  if (frontend === undefined || namespaceOf(secret) === namespaceOf(frontend)) return [];
  return [
    about(
      secret,
      'error',
      'metadata.namespace',
      `must be ${namespaceOf(frontend)}, where the frontend that mounts it is`,
    ),
  ];
}

/** Of an encrypted Secret only the keys are known; a value is looked at where it is one to look at, and never shown. */
function content(secret: Item, { key, path }: SecretFile): Result[] {
  const value = secretValue(secret, key);
  const field = `data.${key}`;
  if (value.kind === 'absent')
    return [about(secret, 'error', field, `is missing: the configuration refers to the key ${key}`)];
  if (value.kind === 'not text') return [about(secret, 'error', field, 'is no text to YAML: put it in quotes')];
  if (value.kind === 'broken') return [about(secret, 'error', field, 'is not base64: use stringData for text')];
  if (value.kind === 'encrypted') return [];
  if (value.bytes.length === 0) return [about(secret, 'error', field, 'is empty')];
  return sharedKey(path, value.bytes).map(([severity, message]) => about(secret, severity, field, message));
}

/** What the frontend would say of it, too. */
function sharedKey(path: string, bytes: Uint8Array): ['error' | 'warning', string][] {
  const text = Buffer.from(bytes).toString('utf8');
  const isText = Buffer.from(text, 'utf8').equals(bytes); // binary keys are fine
  if ((path !== 'psk' && path !== 'ppk') || !isText) return [];
  const problem = pskProblem(text);
  if (problem !== undefined) return [['error', problem]];
  // A PPK comes on top of another secret.
  return path === 'ppk' ? [] : pskWarnings(text).map((message) => ['warning', message]);
}

/** Operators that write a Secret from an object of theirs: cert-manager, External Secrets, Sealed Secrets. */
function makesSecret(item: Item, name: string): boolean {
  switch (kindOf(item)) {
    case 'Certificate':
      return getText(item, 'spec', 'secretName') === name;
    case 'ExternalSecret':
      return (getText(item, 'spec', 'target', 'name') ?? nameOf(item)) === name || isCalled(item, name);
    case 'SealedSecret':
      return isCalled(item, name);
    default:
      return false;
  }
}
