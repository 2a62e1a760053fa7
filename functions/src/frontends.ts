/** One StatefulSet, Service and PodDisruptionBudget for each site, made from the base's. */
import type { Item, Result } from '../model/krm.ts';
import { localIdentity } from '../model/identity.ts';
import type { Site, Vpn } from '../model/vpn.ts';
import {
  about,
  cloneOf,
  edit,
  findComponent,
  labelOf,
  mapAt,
  missingComponent,
  nameOf,
  namespaceOf,
  SITE_LABEL,
  type Draft,
} from './items.ts';

export const FRONTEND = 'frontend';

/** The longest name of a StatefulSet whose pods can be created: their label controller-revision-hash adds 11 characters to it. */
export const MAX_FRONTEND_NAME = 52;

/** `vpn-frontend`, with the user's prefix and without a site's suffix. */
export function baseName(item: Item): string {
  const site = labelOf(item, SITE_LABEL);
  const name = nameOf(item);
  return site !== undefined && site !== '' && name.endsWith(`-${site}`) ? name.slice(0, -site.length - 1) : name;
}

const siteName = (base: string, site: string): string => (site === '' ? base : `${base}-${site}`);

const siteOf = (item: Item): string => labelOf(item, SITE_LABEL) ?? '';

/** The frontends among the items by their sites' names. */
export function frontendsBySite(items: readonly Item[]): ReadonlyMap<string, Item> {
  return new Map(findComponent(items, 'StatefulSet', FRONTEND).map((item) => [siteOf(item), item]));
}

/** The Secret that inject-ipsec-secret makes of a literal key: `vpn-frontend-berlin` → `vpn-ipsec-berlin`, with any prefix. */
export function secretName(frontend: Item): string {
  return siteName(baseName(frontend).replace('frontend', 'ipsec'), siteOf(frontend));
}

/** Our identity to a site's gateway. `frontend`: that of any site, or the base's; the site's own has the same base name. */
export function identityOf(vpn: Vpn, site: Site, frontend: Item | undefined): string | undefined {
  return frontend === undefined
    ? localIdentity(vpn, site, '')
    : localIdentity(vpn, site, namespaceOf(frontend), siteName(baseName(frontend), site.name));
}

interface Expanded {
  readonly items: Item[];
  readonly results: readonly Result[];
}

/**
 * The items with exactly one object of `kind` for each site, in the place of those that were there. A site's own is
 * kept with what users changed in it; a new one is made from the base's. `setSite` writes what depends on the site.
 */
export function perSite(
  items: readonly Item[],
  kind: string,
  sites: readonly Site[],
  setSite: (draft: Draft, site: Site) => void,
): Expanded {
  const found = findComponent(items, kind, FRONTEND);
  const own = new Map(found.map((item) => [siteOf(item), item]));
  const template = own.get('') ?? found[0];
  if (template === undefined) return { items: [...items], results: [missingComponent(kind, FRONTEND)] };
  const twice = found.filter((item) => own.get(siteOf(item)) !== item);
  if (twice.length > 0) return { items: [...items], results: twice.map((item) => secondOf(item, kind)) };
  const base = baseName(template);
  const results: Result[] = [];
  const made = sites.map((site) => {
    const name = siteName(base, site.name);
    const before = own.get(site.name);
    if (before === undefined && siteOf(template) !== '')
      results.push(
        about(
          template,
          'info',
          '',
          `is what ${name} was made from: look there for what was changed for ${siteOf(template)} alone`,
        ),
      );
    return edit(before ?? cloneOf(template, name), (draft) => {
      mapAt(draft, 'metadata').name = name;
      mapAt(draft, 'metadata', 'labels')[SITE_LABEL] = site.name;
      setSite(draft, site);
    });
  });
  const first = found[0];
  return { items: items.flatMap((item) => (item === first ? made : found.includes(item) ? [] : [item])), results };
}

function secondOf(item: Item, kind: string): Result {
  const of = siteOf(item) === '' ? 'without a site' : `of the site ${siteOf(item)}`;
  return about(item, 'error', 'metadata.labels', `is not the only ${kind} ${of}: keep one`);
}
