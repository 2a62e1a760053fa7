/** Gives charon the site's keys and certificates over VICI. Live SAs don't notice: they are used when somebody authenticates. */
import { list, type Section } from '../vici/message.ts';
import type { ViciConnection } from '../vici/connection.ts';
import type { CertificateCredentials, Credentials } from './decode.ts';

/** Names of the shared keys in charon: one with the same name is replaced. */
const PSK_ID = 'psk';
const PPK_ID = 'ppk';

/**
 * Afterwards charon has these and no others. A shared key is replaced in one step; of a changed certificate's predecessor it
 * forgets at first, since it can't be told to unload one.
 */
export async function loadCredentials(vici: ViciConnection, credentials: Credentials, ppkId: string): Promise<void> {
  const keys = list(await vici.request('get-keys'), 'keys');
  if (credentials.kind === 'certificate' || keys.length > 0) await vici.request('clear-creds');
  if (credentials.kind === 'certificate') await loadCertificates(vici, credentials);
  const shared = sharedKeys(credentials, ppkId);
  for (const key of shared) await vici.request('load-shared', key);
  const wanted = new Set(shared.map(({ id }) => id));
  for (const id of list(await vici.request('get-shared'), 'keys'))
    if (!wanted.has(id)) await vici.request('unload-shared', { id });
}

async function loadCertificates(vici: ViciConnection, credentials: CertificateCredentials): Promise<void> {
  const { key, chain, authorities } = credentials;
  await vici.request('load-key', { type: 'any', data: key });
  for (const data of chain) await vici.request('load-cert', { type: 'X509', flag: 'NONE', data });
  for (const data of authorities) await vici.request('load-cert', { type: 'X509', flag: 'CA', data });
}

/** Messages of load-shared. */
function sharedKeys(credentials: Credentials, ppkId: string): (Section & { readonly id: string })[] {
  const { ppk } = credentials;
  return [
    // Without owners: the pod has one site, whose gateway may call itself what it likes until it is authenticated.
    ...(credentials.kind === 'psk' ? [{ id: PSK_ID, type: 'IKE', data: credentials.psk }] : []),
    ...(ppk === undefined ? [] : [{ id: PPK_ID, type: 'ppk', data: ppk, owners: [ppkId] }]),
  ];
}
