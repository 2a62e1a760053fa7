/** PEM (RFC 7468) as users paste it: CR LF, text around the blocks, blocks without a line break between them. */

export interface PemBlock {
  /** Of the words that a label may have only known ones are to be shown: it is part of a file with secrets. */
  readonly label: string;
  /** `cut off`: there is no END of it. `encrypted`: as OpenSSL did it before PKCS#8. */
  readonly content: { readonly der: Buffer } | 'cut off' | 'not base64' | 'encrypted';
}

/** Every block, in the file's order. */
export function readPem(bytes: Buffer): PemBlock[] {
  const text = bytes.toString('latin1');
  const marks = [...text.matchAll(/-----(BEGIN|END) ([A-Z0-9 ]{1,40})-----/g)].map((match) => ({
    kind: match[1],
    label: match[2] ?? '',
    start: match.index,
    end: match.index + match[0].length,
  }));
  return marks.flatMap((mark, i): PemBlock[] => {
    if (mark.kind !== 'BEGIN') return [];
    const { label } = mark;
    const next = marks[i + 1];
    if (next?.kind !== 'END' || next.label !== label) return [{ label, content: 'cut off' }];
    return [{ label, content: contentOf(text.slice(mark.end, next.start)) }];
  });
}

function contentOf(body: string): PemBlock['content'] {
  if (/^Proc-Type:.*ENCRYPTED/m.test(body)) return 'encrypted';
  const compact = body.replaceAll(/^.*:.*$/gm, '').replaceAll(/\s/g, '');
  const der = Buffer.from(compact, 'base64');
  return der.length > 0 && der.toString('base64') === compact ? { der } : 'not base64';
}
