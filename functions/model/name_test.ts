import test from 'ava';
import * as E from 'fp-ts/lib/Either.js';
import { problems } from './codec.ts';
import { Address, DnsLabel, Host, Identity, ObjectName, SecretKey } from './name.ts';

const codecs = { Address, DnsLabel, Host, Identity, ObjectName, SecretKey };
type Name = keyof typeof codecs;

const accepted = test.macro((tt, codec: Name, input: string, canonical = input) => {
  tt.deepEqual(codecs[codec].decode(input), E.right(canonical));
});
const refused = test.macro((tt, codec: Name, input: string, message: string, proposed?: string) => {
  const result = codecs[codec].decode(input);
  const found = E.isLeft(result) ? problems(result.left) : [];
  tt.deepEqual(found, [{ path: '', message, ...(proposed === undefined ? {} : { proposed }) }]);
});

const LABEL =
  'is not a DNS label: use at most 63 lower-case letters, digits and dashes, a letter or digit at both ends';
test('label', accepted, 'DnsLabel', 'berlin-2');
test('label: one character', accepted, 'DnsLabel', '7');
test('label: 63 characters', accepted, 'DnsLabel', 'a'.repeat(63));
test('label: 64 characters', refused, 'DnsLabel', 'a'.repeat(64), LABEL, 'a'.repeat(63));
test('label: capitals', refused, 'DnsLabel', 'Berlin', LABEL, 'berlin');
test('label: underscore', refused, 'DnsLabel', 'data_center 1', LABEL, 'data-center-1');
test('label: dot', refused, 'DnsLabel', 'berlin.de', LABEL, 'berlin-de');
test('label: dashes around', refused, 'DnsLabel', '-berlin-', LABEL, 'berlin');
test('label: empty', refused, 'DnsLabel', '', LABEL);
test('label: nothing to keep', refused, 'DnsLabel', '---', LABEL);
test('label: umlaut', refused, 'DnsLabel', 'münchen', LABEL, 'm-nchen');

const OBJECT = 'is not an object name: use lower-case letters, digits, dashes and dots';
test('object name', accepted, 'ObjectName', 'berlin.psk-1');
test('object name: capitals', refused, 'ObjectName', 'Berlin', OBJECT);
test('object name: empty', refused, 'ObjectName', '', OBJECT);
test('object name: two dots', refused, 'ObjectName', 'a..b', OBJECT);
test('object name: slash', refused, 'ObjectName', 'ns/name', OBJECT);
test('object name: 254 characters', refused, 'ObjectName', `${'a'.repeat(126)}.${'b'.repeat(127)}`, OBJECT);

const KEY = "is not a Secret's key: use letters, digits, dashes, underscores and dots";
test('secret key', accepted, 'SecretKey', 'tls.KEY_1-a');
test('secret key: empty', refused, 'SecretKey', '', KEY);
test('secret key: slash', refused, 'SecretKey', 'a/b', KEY);

const NO_IP = 'is not an IP address: write one without port or prefix length, or a DNS name';
test('host: IPv4', accepted, 'Host', '203.0.113.10');
test('host: IPv6', accepted, 'Host', '2001:DB8:0::1', '2001:db8::1');
test('host: name', accepted, 'Host', 'gw.example.com');
test('host: capitals and a final dot', accepted, 'Host', 'GW.Example.COM.', 'gw.example.com');
test('host: one label', accepted, 'Host', 'gateway');
test('host: underscore', accepted, 'Host', '_vpn.example.com');
test('host: empty', refused, 'Host', '', 'is empty: write an IP address or a DNS name');
test('host: port', refused, 'Host', '203.0.113.10:500', NO_IP);
test('host: prefix length', refused, 'Host', '203.0.113.10/32', NO_IP);
test('host: three numbers', refused, 'Host', '203.0.113', NO_IP);
test('host: IPv6 zone', refused, 'Host', 'fe80::1%eth0', NO_IP);
test('host: IPv6 in brackets', refused, 'Host', '[2001:db8::1]', NO_IP);
test('host: URL', refused, 'Host', 'https://gw.example.com', NO_IP);
test('host: space', refused, 'Host', 'gw example', 'is neither an IP address nor a DNS name');
test('host: %any', refused, 'Host', '%any', 'is neither an IP address nor a DNS name');
test(
  'host: label of 64 characters',
  refused,
  'Host',
  `${'a'.repeat(64)}.com`,
  'is neither an IP address nor a DNS name',
);

test('address: IPv6', accepted, 'Address', '2001:DB8::1', '2001:db8::1');
test('address: name', refused, 'Address', 'gw.example.com', 'is not an IP address');

const SPACE = 'is empty or has white space around it';
const CONTROL = 'holds a line break or another control character';
test('identity: distinguished name', accepted, 'Identity', 'C=DE, O=Example, CN=gw "1"');
test('identity: e-mail', accepted, 'Identity', 'vpn@example.com');
test('identity: empty', refused, 'Identity', '', SPACE);
test('identity: space after', refused, 'Identity', 'gw ', SPACE);
test('identity: line break', refused, 'Identity', 'a\nb', CONTROL);
test('identity: NUL', refused, 'Identity', 'a\0b', CONTROL);
