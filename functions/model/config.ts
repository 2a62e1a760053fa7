/** The functionConfig: decoded once, here. */
import * as E from 'fp-ts/lib/Either.js';
import { Cidr } from './cidr.ts';
import { problems } from './codec.ts';
import { fileOf, get, getText, isRecord, refOf, type ResourceRef, type Result } from './krm.ts';
import { API_VERSION, ConstellationVpn, KIND, type Vpn } from './vpn.ts';

export interface Config {
  readonly vpn: Vpn;
  /** For results about the configuration. */
  readonly ref: ResourceRef;
  /** Field paths in the user's own order, which the canonical form does not keep. */
  readonly paths: Paths;
}

export interface Paths {
  /** `spec.sites[1]`, or `spec` where the short form is used. `name` is the canonical site's. */
  readonly site: (name: string) => string;
  /** Where a site's MTU is said: `spec.sites[1].mtu`, or `spec.mtu`. */
  readonly mtu: (name: string) => string;
  /** `spec.sites[1].peerCIDRs[0]` */
  readonly peerCIDR: (name: string, cidr: Cidr) => string;
}

/** The configuration, or every problem of it as results with field paths. `program` names who asks. */
export function decodeConfig(source: unknown, program: string): Config | { results: Result[] } {
  if (source === undefined || source === null)
    return error(
      `${program}: no functionConfig: it needs a ${KIND} object; in a Kptfile set configPath, in a kustomization name the file under transformers`,
    );
  if (!isRecord(source)) return error(`${program}: functionConfig is no object of kind ${KIND}`);
  const ref = refOf(source);
  if (source.kind !== KIND)
    return error(
      `${program}: functionConfig is of kind ${ref.kind || '(none)'}; it must be a ${KIND} of ${API_VERSION}`,
    );
  const decoded = ConstellationVpn.decode(source);
  if (E.isRight(decoded)) return { vpn: decoded.right, ref, paths: pathsOf(source) };
  const file = fileOf(source);
  return {
    results: problems(decoded.left).map(({ path, message, proposed }) => ({
      severity: 'error',
      message,
      resourceRef: ref,
      field: { path, ...(proposed === undefined ? {} : { proposedValue: proposed }) },
      ...(file === undefined ? {} : { file }),
    })),
  };
}

const error = (message: string): { results: Result[] } => ({ results: [{ severity: 'error', message }] });

function pathsOf(source: Record<string, unknown>): Paths {
  const sites = get(source, 'spec', 'sites');
  const entries = Array.isArray(sites)
    ? sites.map((site: unknown, i) => ({ site, path: `spec.sites[${i}]` }))
    : [{ site: source.spec, path: 'spec' }];
  const names = new Map<string, string>();
  const withMtu = new Set<string>();
  const cidrs = new Map<string, string>();
  for (const { site, path } of entries) {
    const name = Array.isArray(sites) ? (getText(site, 'name') ?? '') : '';
    names.set(name, path);
    if (get(site, 'mtu') !== undefined) withMtu.add(name);
    const list = get(site, 'peerCIDRs');
    if (!Array.isArray(list)) continue;
    list.forEach((text: unknown, i) => {
      const cidr = Cidr.decode(text);
      const key = E.isRight(cidr) ? `${name} ${cidr.right}` : '';
      if (!cidrs.has(key)) cidrs.set(key, `${path}.peerCIDRs[${i}]`);
    });
  }
  const site = (name: string) => names.get(name) ?? 'spec';
  const mtu = (name: string) => (withMtu.has(name) ? `${site(name)}.mtu` : 'spec.mtu');
  return { site, mtu, peerCIDR: (name, cidr) => cidrs.get(`${name} ${cidr}`) ?? `${site(name)}.peerCIDRs` };
}
