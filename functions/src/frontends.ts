/** One StatefulSet, Service and PodDisruptionBudget for each site, made from the base's. */
import type { Item, Result } from '../model/krm.ts';
import type { Site } from '../model/vpn.ts';
import {
  cloneOf,
  edit,
  findComponent,
  labelOf,
  mapAt,
  missingComponent,
  nameOf,
  removeAt,
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
  return site !== undefined && name.endsWith(`-${site}`) ? name.slice(0, -site.length - 1) : name;
}

const siteName = (base: string, site: string): string => (site === '' ? base : `${base}-${site}`);

/** The frontend of a site among the items. */
export function frontendOf(items: readonly Item[], site: string): Item | undefined {
  return findComponent(items, 'StatefulSet', FRONTEND).find((item) => (labelOf(item, SITE_LABEL) ?? '') === site);
}

/** The Secret that inject-ipsec-secret makes of a literal key: `vpn-frontend-berlin` → `vpn-ipsec-berlin`, with any prefix. */
export function secretName(frontend: Item): string {
  return siteName(baseName(frontend).replace('frontend', 'ipsec'), labelOf(frontend, SITE_LABEL) ?? '');
}

interface Expanded {
  readonly items: Item[];
  readonly results: readonly Result[];
}

/**
 * The items with exactly one object of `kind` for each site, in the place of those that were there. A site's own is
 * kept with what users changed in it; a new one is made from the first. `setSite` writes what depends on the site.
 */
export function perSite(
  items: readonly Item[],
  kind: string,
  sites: readonly Site[],
  setSite: (draft: Draft, site: Site) => void,
): Expanded {
  const found = findComponent(items, kind, FRONTEND);
  const template = found[0];
  if (template === undefined) return { items: [...items], results: [missingComponent(kind, FRONTEND)] };
  const base = baseName(template);
  const made = sites.map((site) => {
    const name = siteName(base, site.name);
    const own = found.find((item) => (labelOf(item, SITE_LABEL) ?? '') === site.name);
    return edit(own ?? cloneOf(template, name), (draft) => {
      mapAt(draft, 'metadata').name = name;
      setLabel(draft, site.name, 'metadata', 'labels');
      setSite(draft, site);
    });
  });
  return {
    items: items.flatMap((item) => (item === template ? made : found.includes(item) ? [] : [item])),
    results: [],
  };
}

/** The site's label in the map at `path`; none for the site without a name. */
export function setLabel(draft: Draft, site: string, ...path: readonly string[]): void {
  if (site === '') removeAt(draft, ...path, SITE_LABEL);
  else mapAt(draft, ...path)[SITE_LABEL] = site;
}
