/**
 * patch-cilium-sctp: the one key of cilium-config that makes Cilium translate Services for VPN traffic, the restart of
 * its agents, which read that file only at their start, and the frontends' annotation for Cilium 1.20 and later.
 */
import type { Config } from '../model/config.ts';
import type { Item, Outcome, Result } from '../model/krm.ts';
import type { Vpn } from '../model/vpn.ts';
import { FRONTEND } from './frontends.ts';
import { annotationOf, cloneOf, edit, findComponent, groupOf, kindOf, mapAt, nameOf, type Draft } from './items.ts';
import { markRendered } from './marker.ts';

export const NAME = 'patch-cilium-sctp';
const PARTIAL = 'constellation-vpn.io/partial';
const RESTART_ANNOTATION = 'constellation-vpn.io/cilium-config';
const SOURCE_CHECK_ANNOTATION = 'config.cilium.io/disable-source-ip-verification';

export const usage = `Sets the one key of cilium-config that makes Cilium translate Services for VPN traffic (enable-sctp, or
bpf-lb-sock-hostns-only), restarts its agents with it, and lets the frontends send packets of foreign sources.
`;

/** An object that holds only what we own of Cilium's; the cluster's own has the rest. */
export const isPartial = (item: Item): boolean => annotationOf(item, PARTIAL) === 'true';

export const isCiliumConfig = (item: Item): boolean =>
  kindOf(item) === 'ConfigMap' && groupOf(item) === '' && nameOf(item) === 'cilium-config';

const isAgent = (item: Item): boolean =>
  kindOf(item) === 'DaemonSet' && groupOf(item) === 'apps' && nameOf(item) === 'cilium';

/** The key to set to "true", or undefined where the user leaves Cilium alone. cilium/cilium pkg/option/config.go */
function ciliumKey({ cilium }: Vpn): string | undefined {
  if (cilium.sctp) return 'enable-sctp';
  return cilium.socketLBHostNamespaceOnly ? 'bpf-lb-sock-hostns-only' : undefined;
}

export function patchCiliumSctp(items: readonly Item[], { vpn }: Config): Outcome {
  const frontends = new Set(findComponent(items, 'StatefulSet', FRONTEND));
  const annotated = items.map((item) => (frontends.has(item) ? edit(item, allowForeignSources) : item));
  if (frontends.size === 0 && !annotated.some(isCiliumConfig)) return { items: annotated, results: [nothingToPatch] };
  const key = ciliumKey(vpn);
  const { restartAgents } = vpn.cilium;
  const patched = annotated.flatMap((item) => {
    if (isCiliumConfig(item)) return [setKey(item, key)];
    return isAgent(item) ? setRestart(item, key, restartAgents) : [item];
  });
  return { items: markRendered(restartAgents ? withAgent(patched, key) : patched, NAME), results: [] };
}

const nothingToPatch: Result = {
  severity: 'error',
  message:
    'neither a frontend StatefulSet nor the ConfigMap cilium-config among the items: include base/ or base/cilium/ of Constellation VPN',
};

function allowForeignSources(draft: Draft): void {
  mapAt(draft, 'spec', 'template', 'metadata', 'annotations')[SOURCE_CHECK_ANNOTATION] = 'true';
}

/**
 * The partial object holds this key alone; without one it holds none, by which server-side apply takes the key back. In a
 * whole cilium-config every other key stays, a "true" from before among them: it may be the user's own.
 */
function setKey(item: Item, key: string | undefined): Item {
  return edit(item, (draft) => {
    if (isPartial(item)) delete draft.data;
    if (key !== undefined) mapAt(draft, 'data')[key] = 'true';
  });
}

/** No clock: the annotation's value changes when, and only when, the key does. */
function setRestart(item: Item, key: string | undefined, restart: boolean): Item[] {
  if (!restart) return isPartial(item) ? [] : [item];
  if (key === undefined && !isPartial(item)) return [item];
  return [
    edit(item, (draft) => {
      mapAt(draft, 'spec', 'template', 'metadata', 'annotations')[RESTART_ANNOTATION] = restartValue(key);
    }),
  ];
}

const restartValue = (key: string | undefined): string => (key === undefined ? 'none' : `${key}=true`);

/** Beside the partial cilium-config, the agents' DaemonSet of which an earlier run with restartAgents false left nothing. */
function withAgent(items: readonly Item[], key: string | undefined): Item[] {
  const config = items.find((item) => isCiliumConfig(item) && isPartial(item));
  if (config === undefined || items.some(isAgent)) return [...items];
  const { metadata } = cloneOf({ apiVersion: 'apps/v1', kind: 'DaemonSet', metadata: config.metadata }, 'cilium');
  const annotations = { [RESTART_ANNOTATION]: restartValue(key) };
  const agent: Draft = {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata,
    spec: { template: { metadata: { annotations } } },
  };
  return items.flatMap((item) => (item === config ? [item, agent] : [item]));
}
