/** Which parts of the IKE proposals this charon can't do, and the plugin that would. Pure. */
import { sections, text, type Decoded } from '../vici/message.ts';

export interface Missing {
  /** Of the proposal: `mlkem768`. */
  readonly token: string;
  readonly plugin: string;
}

/** Of a kind of token: how it is named in the answer to get-algorithms, and a plugin that offers it (strongSwan's plugin list). */
const KINDS: readonly [RegExp, (rest: string) => string, plugin: string][] = [
  [/^aes\d+gcm(\d+)$/, (icv) => `AES_GCM_${octets(icv)}`, 'gcm'],
  [/^aes\d+ccm(\d+)$/, (icv) => `AES_CCM_${octets(icv)}`, 'ccm'],
  [/^(chacha20poly1305)$/, () => 'CHACHA20_POLY1305', 'chapoly'],
  [/^aes\d+ctr()$/, () => 'AES_CTR', 'ctr'],
  [/^aes(?:128|192|256)?()$/, () => 'AES_CBC', 'aes'],
  [/^(3des)$/, () => '3DES_CBC', 'des'],
  [/^prfsha(\d+)$/, (bits) => (bits === '1' ? 'PRF_HMAC_SHA1' : `PRF_HMAC_SHA2_${bits}`), 'hmac'],
  [/^modp(\d+)$/, (bits) => `MODP_${bits}`, 'gmp'],
  [/^ecp(\d+)$/, (bits) => `ECP_${bits}`, 'openssl'],
  [/^ecp(\d+)bp$/, (bits) => `ECP_${bits}_BP`, 'openssl'],
  [/^(?:curve|x)25519()$/, () => 'CURVE_25519', 'curve25519'],
  [/^(?:curve|x)448()$/, () => 'CURVE_448', 'openssl'],
  [/^mlkem(\d+)$/, (size) => `ML_KEM_${size}`, 'ml'],
];

/** ICV lengths are written in octets or in bits. */
const octets = (icv: string): string => (Number(icv) > 16 ? String(Number(icv) / 8) : icv);

/** `algorithms`: the answer to get-algorithms, by kind the names and their plugins. Tokens that are not known here are not judged. */
export function missingPlugins(proposals: readonly string[], algorithms: Decoded): Missing[] {
  const known = new Set(
    sections(algorithms).flatMap(([, names]) => Object.keys(names).filter((name) => text(names, name) !== undefined)),
  );
  const tokens = new Set(proposals.flatMap((proposal) => proposal.split('-')));
  return [...tokens].flatMap((token) => {
    const needed = neededBy(token.replace(/^ke\d_/, ''));
    return needed === undefined || known.has(needed.algorithm) ? [] : [{ token, plugin: needed.plugin }];
  });
}

function neededBy(token: string): { algorithm: string; plugin: string } | undefined {
  for (const [pattern, algorithm, plugin] of KINDS) {
    const match = pattern.exec(token);
    if (match !== null) return { algorithm: algorithm(match[1] ?? ''), plugin };
  }
  return undefined;
}
