/** Names: Kubernetes' and the network's. */
import { canonicalAddress } from './cidr.ts';
import { text, type Codec } from './codec.ts';

const LABEL = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/;
const HOST_LABEL = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?$/;

/** RFC 1123 label: part of object names and a label's value. */
export const DnsLabel: Codec<string> = text('DnsLabel', { pattern: LABEL.source, maxLength: 63 }, (s) => {
  if (s.length <= 63 && LABEL.test(s)) return s;
  const fixed = s
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
    .slice(0, 63);
  return {
    message: 'is not a DNS label: use at most 63 lower-case letters, digits and dashes, a letter or digit at both ends',
    ...(LABEL.test(fixed) ? { proposed: fixed } : {}),
  };
});

/** RFC 1123 subdomain: the name of a Secret. */
export const ObjectName: Codec<string> = text('ObjectName', { maxLength: 253 }, (s) =>
  s.length <= 253 && s.split('.').every((label) => LABEL.test(label))
    ? s
    : { message: 'is not an object name: use lower-case letters, digits, dashes and dots' },
);

/** A key in a Secret's data. */
export const SecretKey: Codec<string> = text('SecretKey', { pattern: '^[-._a-zA-Z0-9]+$', maxLength: 253 }, (s) =>
  s.length <= 253 && /^[-._a-zA-Z0-9]+$/.test(s)
    ? s
    : { message: "is not a Secret's key: use letters, digits, dashes, underscores and dots" },
);

/** An IP address or a fully qualified name. Canonical: lower case, RFC 5952. */
export const Host: Codec<string> = text('Host', { maxLength: 253 }, (s) => {
  if (s === '') return { message: 'is empty: write an IP address or a DNS name' };
  const address = canonicalAddress(s);
  if (address !== undefined) return address;
  const name = s.toLowerCase().replace(/\.$/, '');
  const labels = name.split('.');
  if (/^[\d.]+$/.test(name) || name.includes(':') || name.includes('/'))
    return { message: 'is not an IP address: write one without port or prefix length, or a DNS name' };
  if (name.length <= 253 && labels.every((label) => HOST_LABEL.test(label))) return name;
  return { message: 'is neither an IP address nor a DNS name' };
});

export const Address: Codec<string> = text('Address', {}, (s) => {
  return canonicalAddress(s) ?? { message: 'is not an IP address' };
});

/** An IKE identity in strongSwan's notation: address, FQDN, e-mail, distinguished name, `keyid:…`. */
export const Identity: Codec<string> = text('Identity', { maxLength: 1024 }, (s) => {
  if (s.trim() === '' || s !== s.trim()) return { message: 'is empty or has white space around it' };
  return /[\u0000-\u001f\u007f]/.test(s) ? { message: 'holds a line break or another control character' } : s;
});
