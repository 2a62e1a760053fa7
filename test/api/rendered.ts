/** The VPN's own manifests, rendered by the real functions from the base, with any sites. */
import { join } from 'node:path';
import { execa } from 'execa';
import { loadAll } from 'js-yaml';
import { isRecord } from '../../functions/model/krm.ts';
import { dump } from '../../functions/lib/yaml.ts';
import { findTool } from '../../scripts/tools.ts';

const ROOT = join(import.meta.dirname, '../..');

export interface SiteInput {
  name?: string;
  peerCIDRs: string[];
  /** Bytes; null: none. */
  mtu?: number | null;
}

export interface Rendered {
  /** Namespace, ServiceAccounts, Roles and RoleBindings, as YAML documents. */
  accounts: string;
  /** config.json of vpn-config. */
  config: string;
  items: Record<string, unknown>[];
}

export async function renderVpn(sites: readonly SiteInput[]): Promise<Rendered> {
  const { path } = await findTool('kustomize');
  const { stdout: base } = await execa(path, ['build', join(ROOT, 'base')]);
  const ipsec = { peer: '198.51.100.7', pskSecretRef: { name: 'psk' } };
  const functionConfig = {
    apiVersion: 'constellation-vpn.io/v1alpha1',
    kind: 'ConstellationVPN',
    metadata: { name: 'vpn' },
    spec: {
      podCIDR: ['10.10.0.0/16', 'fd00:10::/56'],
      serviceCIDR: ['10.96.0.0/12', 'fd00:96::/112'],
      sites: sites.map((site) => ({ ...site, ipsec })),
    },
  };
  const list = { apiVersion: 'config.kubernetes.io/v1', kind: 'ResourceList', items: loadAll(base), functionConfig };
  const { stdout } = await execa(join(ROOT, 'functions/dist/constellation-vpn'), { input: dump(list) });
  const [output] = loadAll(stdout) as { items: Record<string, unknown>[] }[];
  const items = output?.items ?? [];
  const accounts = items.filter(({ kind }) =>
    ['Namespace', 'ServiceAccount', 'Role', 'RoleBinding'].includes(String(kind)),
  );
  const config = items.find(
    ({ kind, metadata }) => kind === 'ConfigMap' && isRecord(metadata) && metadata.name === 'vpn-config',
  );
  const data = config?.data;
  return {
    accounts: accounts.map((item) => dump(item)).join('---\n'),
    config: isRecord(data) ? String(data['config.json']) : '',
    items,
  };
}
