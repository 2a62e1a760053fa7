/**
 * inject-peer-cidrs: the canonical configuration into the ConfigMap, a frontend for each site, and what depends on the
 * names that kustomize gave: RBAC by name, and the namespaces of the Roles beside Cilium.
 */
import type { Config } from '../model/config.ts';
import { isRecord, type Item, type Outcome } from '../model/krm.ts';
import { encodeVpn, type Site, type Vpn } from '../model/vpn.ts';
import { frontendsBySite, identityOf, perSite, secretName } from './frontends.ts';
import {
  annotationOf,
  COMPONENT_LABEL,
  edit,
  findComponent,
  kindOf,
  labelOf,
  listAt,
  mapAt,
  missingComponent,
  nameOf,
  namespaceOf,
  SITE_LABEL,
  type Draft,
} from './items.ts';
import { markRendered } from './marker.ts';
import { isCalled } from './secrets.ts';

export const NAME = 'inject-peer-cidrs';
const MTU_ANNOTATION = 'constellation-vpn.io/mtu';
const NAMESPACE_ANNOTATION = 'constellation-vpn.io/namespace';

export const usage = `Fills in what depends on the sites: ConfigMap vpn-config, and for each site a StatefulSet, a
Service and a PodDisruptionBudget made from the ones in base/.
`;

export function injectPeerCidrs(items: readonly Item[], { vpn }: Config): Outcome {
  const { sites } = vpn;
  const statefulSets = perSite(items, 'StatefulSet', sites, setStatefulSet);
  const services = perSite(statefulSets.items, 'Service', sites, setService);
  const budgets = perSite(services.items, 'PodDisruptionBudget', sites, setBudget);
  const withRoles = pinNamespaces(nameFrontends(budgets.items, sites));
  const config = findComponent(items, 'ConfigMap', 'config');
  const canonical = canonicalJson(vpn, withRoles);
  return {
    items: markRendered(withRoles, NAME).map((item) =>
      config.includes(item) ? edit(item, (draft) => (mapAt(draft, 'data')['config.json'] = canonical)) : item,
    ),
    results: [
      ...statefulSets.results,
      ...services.results,
      ...budgets.results,
      ...(config.length === 0 ? [missingComponent('ConfigMap', 'config')] : []),
      ...(findComponent(items, 'Role', 'endpoint-sync').length === 0
        ? [missingComponent('Role', 'endpoint-sync')]
        : []),
    ],
  };
}

function setStatefulSet(draft: Draft, site: Site): void {
  const spec = mapAt(draft, 'spec');
  spec.serviceName = mapAt(draft, 'metadata').name;
  mapAt(spec, 'selector', 'matchLabels')[SITE_LABEL] = site.name;
  mapAt(spec, 'template', 'metadata', 'labels')[SITE_LABEL] = site.name;
  // What the init container sets up depends on the MTU alone: a change of it must make new pods, other changes must not.
  mapAt(spec, 'template', 'metadata', 'annotations')[MTU_ANNOTATION] = site.mtu === null ? 'path' : String(site.mtu);
}

function setService(draft: Draft, site: Site): void {
  mapAt(draft, 'spec', 'selector')[SITE_LABEL] = site.name;
}

function setBudget(draft: Draft, site: Site): void {
  mapAt(draft, 'spec', 'selector', 'matchLabels')[SITE_LABEL] = site.name;
}

/** The pods whose CiliumEndpoints may be patched. A StatefulSet of one replica has the pod `<name>-0`. */
function nameFrontends(items: readonly Item[], sites: readonly Site[]): Item[] {
  const frontends = frontendsBySite(items);
  const pods = sites
    .map(({ name }) => frontends.get(name))
    .filter((item) => item !== undefined)
    .map((item) => `${nameOf(item)}-0`);
  const roles = findComponent(items, 'Role', 'endpoint-sync');
  return items.map((item) =>
    roles.includes(item)
      ? edit(item, (draft) => {
          for (const rule of listAt(draft, 'rules'))
            if (
              isRecord(rule) &&
              Array.isArray(rule.resources) &&
              rule.resources.includes('ciliumendpoints') &&
              rule.resourceNames !== undefined
            )
              rule.resourceNames = pods;
        })
      : item,
  );
}

/**
 * kustomize's `namespace:` moves every object; those that belong beside Cilium say so and go back. From there kustomize
 * no longer finds the ServiceAccounts they name, so the subjects get the names and namespace that those have now.
 */
function pinNamespaces(items: readonly Item[]): Item[] {
  const accounts = items.filter(
    (item) => kindOf(item) === 'ServiceAccount' && labelOf(item, COMPONENT_LABEL) !== undefined,
  );
  return items.map((item) => {
    const namespace = annotationOf(item, NAMESPACE_ANNOTATION);
    if (namespace === undefined) return item;
    return edit(item, (draft) => {
      mapAt(draft, 'metadata').namespace = namespace;
      if (kindOf(item) !== 'RoleBinding') return;
      for (const subject of listAt(draft, 'subjects')) {
        if (!isRecord(subject)) continue;
        const account = accounts.find((candidate) => isCalled(candidate, String(subject.name)));
        if (account === undefined) continue;
        subject.name = nameOf(account);
        if (namespaceOf(account) !== '') subject.namespace = namespaceOf(account);
      }
    });
  });
}

/**
 * The configuration as the agents read it: canonical, a literal key replaced by a reference to the Secret that
 * inject-ipsec-secret makes of it, and our identity filled in. JSON with two spaces, ended by a line break.
 */
function canonicalJson(vpn: Vpn, items: readonly Item[]): string {
  const frontends = frontendsBySite(items);
  const sites = vpn.sites.map((site) => {
    const frontend = frontends.get(site.name);
    const { psk, ...ipsec } = site.ipsec;
    const localID = identityOf(vpn, site, frontend);
    return {
      ...site,
      ipsec: {
        ...ipsec,
        ...(psk === undefined
          ? {}
          : { pskSecretRef: { name: frontend === undefined ? '' : secretName(frontend), key: 'psk' } }),
        // With a certificate and no identity of our own charon takes the certificate's subject.
        ...(localID === undefined ? {} : { localID }),
      },
    };
  });
  return `${JSON.stringify(encodeVpn({ ...vpn, sites }), null, 2)}\n`;
}
