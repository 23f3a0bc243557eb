import test from 'ava';
import { formatPhases } from '../../src/cli/container/timing.ts';
import { formatPorts, formatWall } from '../../src/cli/render/container-rows.ts';
import { formatRows } from '../../src/cli/render/format-rows.ts';
import { formatBar } from '../../src/cli/render/progress.ts';
import { alignTable } from '../../src/cli/render/table.ts';
import {
  ellipsize,
  formatBinaryBytes,
  formatDecimalBytes,
  formatDuration,
  shortId,
} from '../../src/cli/render/units.ts';

test('columns are at least ten wide, parted by three blanks, and the last is not padded', (t) => {
  t.is(alignTable(['A\tB\tC', 'long cell here\tb\tc']), 'A                B         C\nlong cell here   b         c');
});

test('sizes have as many digits as in Docker', (t) => {
  t.deepEqual(
    [0, 999, 1000, 4860000, 133456789, 1e12].map((size) => formatDecimalBytes(size)),
    ['0B', '999B', '1kB', '4.86MB', '133MB', '1TB'],
  );
  t.is(formatBinaryBytes(25769803776), '24GiB');
});

test('durations are rounded as in Docker', (t) => {
  const second = 1000;
  const hour = 3600 * second;
  t.deepEqual(
    [
      0,
      second,
      59 * second,
      60 * second,
      120 * second,
      hour,
      2 * hour,
      47 * hour,
      48 * hour,
      14 * 24 * hour,
      61 * 24 * hour,
      800 * 24 * hour,
    ].map(formatDuration),
    [
      'Less than a second',
      '1 second',
      '59 seconds',
      'About a minute',
      '2 minutes',
      'About an hour',
      '2 hours',
      '47 hours',
      '2 days',
      '2 weeks',
      '2 months',
      '2 years',
    ],
  );
});

test('ids and commands are cut', (t) => {
  t.is(shortId(`sha256:${'ab'.repeat(32)}`), 'abababababab');
  t.is(ellipsize('abcdef', 4), 'abc…');
  t.is(ellipsize('abcd', 4), 'abcd');
});

test('ports that are alike inside and outside are told as ranges', (t) => {
  const port = (PrivatePort: number, PublicPort?: number, IP?: string) => ({
    PrivatePort,
    PublicPort,
    IP,
    Type: 'tcp',
  });
  t.is(
    formatPorts([
      port(443),
      port(444),
      port(80, 8080, '0.0.0.0'),
      port(80, 8080, '::'),
      port(90, 90, '0.0.0.0'),
      port(91, 91, '0.0.0.0'),
    ]),
    '0.0.0.0:90-91->90-91/tcp, 443-444/tcp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp',
  );
});

test('an emulated machine is called so', (t) => {
  t.is(formatWall({ wall: 'vm', accelerator: 'tcg', driver: 'qemu' }), 'vm (emulated)');
  t.is(formatWall({ wall: 'vm', accelerator: 'kvm', driver: 'kvm' }), 'vm');
  t.is(formatWall({ wall: 'os', accelerator: 'none', driver: 'runc' }), 'os');
  t.is(formatWall(undefined), '');
});

test('formats: default table, own table, template, json', (t) => {
  const rows = [{ ID: 'x1', Name: '<a>', Label: () => 'l' }];
  const format = (text: string | undefined) =>
    formatRows(rows, { format: text, defaultTable: '{{.ID}}\t{{.Name}}', headers: { ID: 'THE ID', Name: 'NAME' } });
  t.is(format(undefined), 'THE ID    NAME\nx1        <a>\n');
  t.is(format('table {{upper .Name}}\\t{{.Label "a.project"}}'), 'NAME      project\n<A>       l\n');
  t.is(format('{{.ID}}-{{json .Name}}'), 'x1-"<a>"\n');
  t.is(format('json'), '{"ID":"x1","Name":"\\u003ca\\u003e"}\n');
});

test('a progress bar shows only what the terminal has room for', (t) => {
  const message = { progressDetail: { current: 50, total: 100 } };
  t.is(formatBar(message, 120), `[${'='.repeat(25)}>${' '.repeat(24)}]       50B/100B`);
  t.is(formatBar(message, 80), '     50B/100B');
});

test('phases are told in milliseconds since the first and since the one before', (t) => {
  const lines = formatPhases([
    { name: 'accepted', monotonicNs: 1_000_000_000 },
    { name: 'running', monotonicNs: '1012500000' },
  ]);
  t.deepEqual(lines, ['      0.0 ms      +0.0 ms  accepted', '     12.5 ms     +12.5 ms  running']);
});
