import test from 'ava';
import { InvalidArgumentError } from 'commander';
import { parseName, parsePort } from './command-line.ts';

const parses = test.macro(<T>(tt: { is: (a: T, b: T) => void }, parse: (text: string) => T, text: string, value: T) => {
  tt.is(parse(text), value);
});
const refuses = test.macro((tt, parse: (text: string) => unknown, text: string, message: string) => {
  tt.throws(() => parse(text), { instanceOf: InvalidArgumentError, message });
});

test('a namespace', parses, parseName, 'kube-system', 'kube-system');
const NO_NAME = 'It is no name of a namespace.';
test('a path for a namespace', refuses, parseName, '../x', NO_NAME);
test('a name with a dot', refuses, parseName, 'a.b', NO_NAME);
test('upper case', refuses, parseName, 'VPN', NO_NAME);
test('no name', refuses, parseName, '', NO_NAME);

test('a port', parses, parsePort, '9810', 9810);
test('any free port', parses, parsePort, '0', 0);
test('the last port', parses, parsePort, '65535', 65_535);
const NO_PORT = 'It must be a number up to 65535, or 0 for any free one.';
test('one port too many', refuses, parsePort, '65536', NO_PORT);
test('a negative port', refuses, parsePort, '-1', NO_PORT);
test('a fraction', refuses, parsePort, '80.5', NO_PORT);
test('hexadecimal', refuses, parsePort, '0x50', NO_PORT);
test('a port with white space', refuses, parsePort, ' 80', NO_PORT);
test('no port', refuses, parsePort, '', NO_PORT);
