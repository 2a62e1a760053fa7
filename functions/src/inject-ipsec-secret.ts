/**
 * inject-ipsec-secret: the Secret of each site into its frontend's volume. Of a literal key it makes a Secret; a
 * reference it only wires, whether the Secret is among the items or made elsewhere.
 */
import type { Config } from '../model/config.ts';
import { get, isRecord, type Item, type Outcome, type Result } from '../model/krm.ts';
import { pskWarnings } from '../model/psk.ts';
import type { Site } from '../model/vpn.ts';
import { FRONTEND, frontendsBySite, secretName } from './frontends.ts';
import {
  about,
  cloneOf,
  COMPONENT_LABEL,
  copy,
  edit,
  findComponent,
  listAt,
  mapAt,
  nameOf,
  namespaceOf,
  type Draft,
} from './items.ts';
import { markRendered } from './marker.ts';
import { findSecret, isCalled, secretFiles } from './secrets.ts';

export const NAME = 'inject-ipsec-secret';
const SECRET_COMPONENT = 'ipsec';
const VOLUME = 'ipsec';

export const usage = `Wires each site's Secret (pre-shared key, certificate, PPK) into the volume of its frontend. Of a literal
ipsec.psk it makes the Secret vpn-ipsec[-site].
`;

export function injectIpsecSecret(items: readonly Item[], config: Config): Outcome {
  const { sites } = config.vpn;
  const frontends = frontendsBySite(items);
  const results: Result[] = [];
  const replaced = new Map<Item, Item>();
  const secrets: Item[] = [];
  const made = findComponent(items, 'Secret', SECRET_COMPONENT);
  for (const site of sites) {
    const frontend = frontends.get(site.name);
    if (frontend === undefined) {
      results.push(missingFrontend(items, site));
      continue;
    }
    const wired = wire(frontend, site, items);
    if (wired === undefined) results.push(noVolume(frontend));
    else replaced.set(frontend, wired);
    if (site.ipsec.psk === undefined) continue;
    secrets.push(literalSecret(frontend, site.ipsec.psk, made));
    results.push(...taken(frontend, items, made), ...aboutLiteral(site.ipsec.psk, site, config));
  }
  const referred = sites.flatMap((site) => secretFiles(site, '').map(({ secret }) => secret));
  const kept = items.flatMap((item) => {
    if (!made.includes(item)) return [replaced.get(item) ?? item];
    const literal = secrets.find((secret) => nameOf(secret) === nameOf(item));
    if (literal !== undefined) return [literal];
    // one that was made of a literal key before and is now referred to is the only place that has the key
    return referred.some((name) => isCalled(item, name)) ? [item] : [];
  });
  const added = secrets.filter((secret) => !kept.includes(secret));
  return { items: markRendered([...kept, ...added], NAME), results };
}

const noVolume = (frontend: Item): Result =>
  about(
    frontend,
    'error',
    'spec.template.spec.volumes',
    `has no projected volume named ${VOLUME}: take the StatefulSet from base/`,
  );

const aboutLiteral = (psk: string, { name }: Site, { ref, paths }: Config): Result[] =>
  literalWarnings(psk).map((message) => ({
    severity: 'warning',
    message,
    resourceRef: ref,
    field: { path: `${paths.site(name)}.ipsec.psk` },
  }));

/** The name of the Secret to be made may be that of a Secret of the user's. */
function taken(frontend: Item, items: readonly Item[], made: readonly Item[]): Result[] {
  const other = findSecret(items, secretName(frontend), namespaceOf(frontend));
  if (other === undefined || made.includes(other) || namespaceOf(other) !== namespaceOf(frontend)) return [];
  return [
    about(
      other,
      'error',
      'metadata.name',
      'is the name of the Secret to be made of ipsec.psk: refer to this one by pskSecretRef, or rename it',
    ),
  ];
}

/** What is wrong with a key in the configuration; the key itself is never quoted. */
export function literalWarnings(psk: string): string[] {
  return [
    'is a secret in a file that is usually kept in git: put it into a Secret and name that in pskSecretRef',
    ...pskWarnings(psk),
  ];
}

function missingFrontend(items: readonly Item[], { name }: Site): Result {
  const any = findComponent(items, 'StatefulSet', FRONTEND).length > 0;
  const cure = any ? 'run inject-peer-cidrs before' : 'include base/ of Constellation VPN';
  return {
    severity: 'error',
    message: `no frontend StatefulSet${name === '' ? '' : ` for the site ${name}`} among the items: ${cure}`,
  };
}

/** The frontend with its volume's sources; undefined where it has no such volume. */
function wire(frontend: Item, site: Site, items: readonly Item[]): Item | undefined {
  let found = false;
  const wired = edit(frontend, (draft) => {
    for (const volume of listAt(draft, 'spec', 'template', 'spec', 'volumes')) {
      if (!isRecord(volume) || volume.name !== VOLUME || !isRecord(volume.projected)) continue;
      const others = Array.isArray(volume.projected.sources)
        ? volume.projected.sources.filter((source) => get(source, 'secret') === undefined)
        : [];
      volume.projected.sources = [...sources(site, frontend, items), ...others];
      found = true;
    }
  });
  return found ? wired : undefined;
}

/** Projected sources, one for each Secret: `{secret: {name, items: [{key, path}]}}`. Sources of other kinds are the user's. */
function sources(site: Site, frontend: Item, items: readonly Item[]): unknown[] {
  const bySecret = new Map<string, { key: string; path: string }[]>();
  for (const { secret, key, path } of secretFiles(site, secretName(frontend))) {
    const found = findSecret(items, secret, namespaceOf(frontend));
    const name = found === undefined ? secret : nameOf(found);
    bySecret.set(name, [...(bySecret.get(name) ?? []), { key, path }]);
  }
  return [...bySecret].map(([name, files]) => ({ secret: { name, items: files } }));
}

/** Base64 carries every byte, and nothing that substitutes `${…}` in manifests finds anything in it. */
function literalSecret(frontend: Item, psk: string, old: readonly Item[]): Item {
  const name = secretName(frontend);
  const own = old.find((item) => nameOf(item) === name);
  return edit(own ?? secretBeside(frontend, name), (draft) => {
    draft.data = { psk: Buffer.from(psk, 'utf8').toString('base64') };
  });
}

function secretBeside(frontend: Item, name: string): Draft {
  const { metadata } = cloneOf({ apiVersion: 'v1', kind: 'Secret', metadata: copy(frontend.metadata) }, name);
  const secret = { apiVersion: 'v1', kind: 'Secret', metadata, type: 'Opaque' };
  const labels = mapAt(secret, 'metadata', 'labels');
  labels[COMPONENT_LABEL] = SECRET_COMPONENT;
  labels['app.kubernetes.io/component'] = SECRET_COMPONENT;
  return secret;
}
