/** TAP as ava prints it, for test/run.ts: Node's own puts four lines of data below each test. */
import type { EventData } from 'node:test';
import { inspect } from 'node:util';

type Event =
  | { type: 'test:pass' | 'test:fail'; data: EventData.TestPass | EventData.TestFail }
  | { type: 'test:diagnostic'; data: EventData.TestDiagnostic };

export default async function* reporter(events: AsyncIterable<Event>): AsyncGenerator<string> {
  for await (const { type, data } of events) {
    // The sums at the end are said for the file as a whole.
    if (
      type === 'test:diagnostic' &&
      !/^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) /.test(data.message)
    )
      yield indent(data.message, '# ');
    if (type === 'test:pass') yield `ok ${line(data)}`;
    if (type === 'test:fail')
      yield `not ok ${line(data)}${indent(inspect((data as EventData.TestFail).details.error.cause), '  ')}`;
  }
}

const line = ({ testNumber, name, details }: EventData.TestPass | EventData.TestFail): string =>
  `${testNumber} - ${name} (${(details.duration_ms / 1000).toFixed(1)} s)\n`;

const indent = (text: string, prefix: string): string => `${text.replace(/^/gm, prefix)}\n`;
