/** A certificate's subject as an identity in swanctl's notation: pure. */

const SEQUENCE = 0x30;
/** `[0] EXPLICIT Version` (RFC 5280, 4.1). */
const VERSION = 0xa0;

/**
 * `asn1dn:#3017…`, its DER. From the text charon would make the strings' types anew, and a gateway that compares bytes would
 * know another name. `der`: a certificate's, as node:crypto has parsed it. Undefined where the subject is empty.
 */
export function subjectIdentity(der: Uint8Array): string | undefined {
  const certificate = element(der, 0);
  const tbs = element(der, certificate.start);
  let at = tbs.start;
  if (der[at] === VERSION) at = element(der, at).end;
  // serialNumber, signature, issuer, validity
  for (let skipped = 0; skipped < 4; skipped++) at = element(der, at).end;
  const subject = element(der, at);
  if (der[at] !== SEQUENCE || subject.start === subject.end) return undefined;
  return `asn1dn:#${Buffer.from(der.subarray(at, subject.end)).toString('hex')}`;
}

/** Where the content of the element at `at` starts and ends (X.690, 8.1). */
function element(der: Uint8Array, at: number): { start: number; end: number } {
  const first = der[at + 1] ?? 0;
  const octets = first < 0x80 ? 0 : first & 0x7f;
  const start = at + 2 + octets;
  let length = octets === 0 ? first : 0;
  for (const octet of der.subarray(at + 2, start)) length = length * 256 + octet;
  return { start, end: start + length };
}
