import test from 'ava';
import fc from 'fast-check';
import { resolveConfig, format } from 'prettier';
import { dump } from '../functions/lib/yaml.ts';
import { pskProblem } from '../functions/model/psk.ts';
import { configurationText, importValues, parseValues, secretText } from './values.ts';

const PSK = 'K7mGzQ0pYt2vXr5nBw8sLd1c';
const ipsec = { peer: '198.51.100.7', psk: PSK };
const minimal = { peerCIDRs: ['172.16.0.0/16'], ipsec };

const faults = test.macro((tt, source: string, expected: string) => {
  const parsed = parseValues(source);
  tt.is('fault' in parsed ? parsed.fault : undefined, expected);
});
const map = "the chart's values are a map: peerCIDRs: …";
test('empty', faults, '', 'is empty');
test('comments only', faults, '# values\n', 'is empty');
test('null', faults, 'null\n', 'is empty');
test('a list', faults, '- peerCIDRs\n', `holds a list; ${map}`);
test('text', faults, 'peerCIDRs', `holds text; ${map}`);
test('two documents', faults, 'mtu: 1\n---\nmtu: 2\n', "holds 2 YAML documents; the chart's values are one");
test(
  'indentation',
  faults,
  'ipsec:\n  psk: a\n peer: b\n',
  'is not YAML: bad indentation of a mapping entry in line 3',
);
test('a key twice', faults, 'mtu: 1\nmtu: 2\n', 'is not YAML: duplicated mapping key in line 2');
test(
  'a key that YAML takes for an alias',
  faults,
  `mtu: 1\nipsec: {psk: *${PSK}}\n`,
  'is not YAML: unidentified alias in line 2',
);
test(
  'a key that YAML takes for a tag',
  faults,
  `mtu: 1\nipsec:\n  psk: !${PSK}\n`,
  'has a YAML tag in line 3: put text that begins with ! in quotes',
);
test('a key with a tag handle', faults, `psk: !${PSK}!x y\n`, 'is not YAML: undeclared tag handle in line 1');
test(
  'a new configuration',
  faults,
  'kind: ConstellationVPN\n',
  'is a ConstellationVPN already: there is nothing to import',
);
test(
  'a manifest',
  faults,
  'apiVersion: v1\nkind: Secret\n',
  'is a Kubernetes object; the values come from `helm get values RELEASE --all -o yaml`',
);

const refuses = test.macro((tt, values: Record<string, unknown>, expected: Record<string, string>) => {
  const imported = importValues(values);
  const found = 'problems' in imported ? imported.problems : [];
  tt.deepEqual(Object.fromEntries(found.map(({ path, message }) => [path, message])), expected);
  tt.is(found.length, Object.keys(expected).length);
});
const empty = "is empty, the chart's default: ";
const emptyRanges = `${empty}list at least one on-prem range`;
const emptyPeer = `${empty}write the IP address or DNS name of the on-prem gateway`;
const emptyPsk = `${empty}write the pre-shared key that the on-prem gateway has (in single quotes: YAML takes #, &, * and ! for its own)`;
const defaults = { peerCIDRs: emptyRanges, 'ipsec.peer': emptyPeer, 'ipsec.psk': emptyPsk };
test("the chart's defaults", refuses, { mtu: 1300, peerCIDRs: [], ipsec: { psk: '', peer: '' } }, defaults);
test('nothing', refuses, {}, defaults);
test('taken away', refuses, { peerCIDRs: null, ipsec: { psk: null, peer: null } }, defaults);
test('ipsec taken away', refuses, { ...minimal, ipsec: null }, { 'ipsec.peer': emptyPeer, 'ipsec.psk': emptyPsk });
test(
  'all at once',
  refuses,
  {
    podCIDR: '10.10.0.0',
    peerCIDR: [],
    peerCIDRs: ['172.16.0.1/16', '::/200'],
    ipsec: { peer: 'a b', psk: 'changeme' },
  },
  {
    podCIDR: 'has no prefix length; one host is /32',
    'peerCIDRs[0]': 'has host bits set: the network is 172.16.0.0/16',
    'peerCIDRs[1]': 'has a bad prefix length: it goes from 0 to 128',
    peerCIDR: 'is not a known field; did you mean peerCIDRs?',
    'ipsec.peer': 'is neither an IP address nor a DNS name',
    'ipsec.psk': 'is a placeholder, not a key; `openssl rand -base64 32` makes one',
  },
);
test(
  'a misspelt key',
  refuses,
  { ...minimal, ipsec: { peer: ipsec.peer, psks: PSK } },
  { 'ipsec.psk': emptyPsk, 'ipsec.psks': 'is not a known field; did you mean psk?' },
);
test(
  'a number for a key',
  refuses,
  { ...minimal, ipsec: { ...ipsec, psk: 12345 } },
  {
    'ipsec.psk': 'expected text, found a number; put it in quotes',
  },
);
test(
  'a list for a map',
  refuses,
  { ...minimal, ipsec: [] },
  {
    ipsec:
      'expected a map of fields (peer, psk, pskSecretRef, certificate, ppkSecretRef, localID, remoteID, proposals, dpdDelay, rekeyTime, startAction, localTrafficSelectors, childSAs), found a list',
  },
);
test(
  'text for a list',
  refuses,
  { ...minimal, peerCIDRs: '172.16.0.0/16' },
  {
    peerCIDRs: 'expected a list, found text',
  },
);
test('a quoted mtu', refuses, { ...minimal, mtu: '1300' }, { mtu: 'expected a number; remove the quotes' });
const foreign = 'is no value of the old chart: remove it here, and add it to vpn.yaml after the import';
test(
  'the new format',
  refuses,
  { ...minimal, sites: [{ ipsec }], ipsec: { ...ipsec, pskSecretRef: { name: 'a' } } },
  { sites: foreign, 'ipsec.pskSecretRef': foreign },
);

const keys = test.macro((tt, psk: string, expected: string | Buffer, warnings: string[] = []) => {
  const imported = importValues({ ...minimal, ipsec: { ...ipsec, psk } });
  if ('problems' in imported) {
    tt.deepEqual(imported.problems, [{ path: 'ipsec.psk', message: expected as string }]);
    return;
  }
  tt.deepEqual(Buffer.from(imported.psk), expected as Buffer);
  tt.deepEqual(
    imported.warnings.map(({ message }) => message),
    warnings,
  );
});
const random = Buffer.from('00ff10c3a9e28082d4f1fe0a7b5c00ff10c3a9e2', 'hex');
const stands = (prefix: string, what: string) =>
  `begins with ${prefix}: the Secret holds the key decoded from ${what}, as strongSwan read it`;
const awkward = `a'b"c\\d$e\${f}%g#h{{i}}é–\u{1f511}`;
test('awkward characters', keys, awkward, Buffer.from(awkward));
test('short', keys, 'k7mGzQ', Buffer.from('k7mGzQ'), [
  'has fewer than 20 characters and can be guessed from one recorded handshake',
]);
test('base64', keys, `0s${random.toString('base64')}`, random, [stands('0s', 'base64')]);
test(
  'hexadecimal',
  keys,
  `0X${random
    .toString('hex')
    .replaceAll(/..(?!$)/g, '$&:')
    .toUpperCase()}`,
  random,
  [stands('0X', 'hexadecimal digits')],
);
const isNot = (prefix: string, what: string) =>
  `begins with ${prefix}, after which strongSwan expects ${what}; what follows is not that`;
test('no base64', keys, '0s-not-base64-', isNot('0s', 'base64'));
test('no digits', keys, '0x', isNot('0x', 'hexadecimal digits'));
test('half a byte', keys, '0x123', isNot('0x', 'hexadecimal digits'));
test(
  'a placeholder in base64',
  keys,
  `0s${Buffer.from('changeme').toString('base64')}`,
  'is a placeholder, not a key; `openssl rand -base64 32` makes one (decoded from base64, as strongSwan read it)',
);
test('a line break', keys, `${PSK}\n`, pskProblem('\n') ?? '');

test('any key is carried or refused', (tt) => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (psk) => {
      fc.pre(!/^0[sx]/i.test(psk));
      const parsed = parseValues(dump({ ...minimal, ipsec: { ...ipsec, psk } }));
      const imported = 'values' in parsed ? importValues(parsed.values) : parsed;
      tt.is('psk' in imported, pskProblem(psk) === undefined);
      if ('psk' in imported) tt.is(Buffer.from(imported.psk).toString(), psk);
    }),
  );
  tt.pass();
});

const specs = test.macro((tt, values: Record<string, unknown>, expected: object) => {
  const imported = importValues(values);
  tt.deepEqual('spec' in imported ? imported.spec : imported, expected);
});
const moved = { ipsec: { peer: '198.51.100.7', pskSecretRef: { name: 'vpn-psk', key: 'psk' } } };
test('only what is needed', specs, minimal, { ...minimal, ...moved });
test(
  'text stays text',
  specs,
  { ...minimal, podCIDR: '10.10.0.0/16' },
  { ...minimal, ...moved, podCIDR: '10.10.0.0/16' },
);
test('an empty mtu', specs, { ...minimal, mtu: '' }, { ...minimal, ...moved, mtu: '' });
test('no mtu', specs, { ...minimal, mtu: null }, { ...minimal, ...moved, mtu: '' });
test('no podCIDR', specs, { ...minimal, podCIDR: null }, { ...minimal, ...moved });
test("helm's title", specs, { 'USER-SUPPLIED VALUES': null, ...minimal }, { ...minimal, ...moved });

test('dropped values', (tt) => {
  const imported = importValues({ ...minimal, image: { tag: 'v1' }, nameOverride: 'n', fullnameOverride: '' });
  tt.deepEqual('warnings' in imported ? imported.warnings.map(({ path }) => path) : imported, [
    'image',
    'nameOverride',
  ]);
});

const isFormatted = test.macro(async (tt, text: string) => {
  const options = await resolveConfig(import.meta.filename);
  tt.is(await format(text, { ...options, parser: 'yaml' }), text);
});
const places = { program: 'functions/dist/constellation-vpn', schema: '../schema/constellation-vpn.schema.json' };
const spec = { podCIDR: ['10.10.0.0/16', 'fd00::/48'], mtu: '', ...minimal, ...moved };
test('the configuration is formatted', isFormatted, configurationText(spec, places));
test('the Secret is formatted', isFormatted, secretText(random));
