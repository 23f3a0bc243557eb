import test from 'ava';
import { defineFlags } from '../../src/cli/flags/flag-table.ts';
import { parseFlags, UsageError } from '../../src/cli/flags/parse-flags.ts';
import { parseBytes, parseDurationNs, parseMoment, parseNanoCpus } from '../../src/cli/flags/quantities.ts';

const TABLE = defineFlags({
  interactive: { kind: 'boolean', short: 'i', summary: '' },
  tty: { kind: 'boolean', short: 't', summary: '' },
  rm: { kind: 'boolean', summary: '' },
  env: { kind: 'list', short: 'e', summary: '' },
  publish: { kind: 'list', short: 'p', summary: '' },
  subnet: { kind: 'words', summary: '' },
  time: { kind: 'integer', short: 'T', summary: '' },
  name: { kind: 'string', short: 'n', summary: '' },
});

test('flags are read as pflag reads them', (t) => {
  const { flags, words } = parseFlags(
    [
      '-it',
      '-p8080:80',
      '-p=1:2',
      '-e',
      'A=b',
      '--env=C=d=e',
      '--rm',
      'true',
      '--name',
      '-x',
      '--subnet',
      'a,b',
      '-T',
      '-1',
    ],
    TABLE,
    true,
  );
  t.deepEqual(flags, {
    interactive: true,
    tty: true,
    rm: true,
    env: ['A=b', 'C=d=e'],
    publish: ['8080:80', '1:2'],
    subnet: ['a', 'b'],
    time: -1,
    name: '-x',
  });
  t.deepEqual(words, ['true'], 'a boolean never takes the next word');
});

test('flags end at the first word where the rest belongs to a program', (t) => {
  const { flags, words } = parseFlags(['--rm=false', 'busybox', 'ls', '-i', '--rm'], TABLE, false);
  t.is(flags.rm, false);
  t.is(flags.interactive, undefined);
  t.deepEqual(words, ['busybox', 'ls', '-i', '--rm']);
});

test('after -- everything is a word', (t) => {
  t.deepEqual(parseFlags(['a', '--', '--rm', '-'], TABLE, true).words, ['a', '--rm', '-']);
});

test("wrong flags are refused with Docker's words", (t) => {
  const cases: [string[], string][] = [
    [['--foo'], 'unknown flag: --foo'],
    [['-iZ'], "unknown shorthand flag: 'Z' in -iZ"],
    [['--name'], 'flag needs an argument: --name'],
    [['-ie'], "flag needs an argument: 'e' in -ie"],
    [['--rm=zz'], 'invalid argument "zz" for "--rm" flag: strconv.ParseBool: parsing "zz": invalid syntax'],
    [['-Tx'], 'invalid argument "x" for "-T, --time" flag: strconv.ParseInt: parsing "x": invalid syntax'],
    [['--__proto__=1'], 'unknown flag: --__proto__'],
  ];
  for (const [argv, message] of cases)
    t.throws(() => parseFlags(argv, TABLE, true), { instanceOf: UsageError, message });
});

test('sizes are binary, whatever letter case and suffix', (t) => {
  t.deepEqual(
    ['1024', '1k', '1.5g', '64MiB', '2Gb', '0'].map(parseBytes),
    [1024, 1024, 1610612736, 67108864, 2147483648, 0],
  );
  for (const text of ['', 'abc', '-1', '1x', '1e3', '99999999p'])
    t.throws(() => parseBytes(text), { message: `invalid size: '${text}'` });
});

test('CPUs are decimals or fractions', (t) => {
  t.deepEqual(['1', '1.5', '.25', '1/2'].map(parseNanoCpus), [1e9, 1.5e9, 0.25e9, 0.5e9]);
  for (const text of ['', 'x', '-1', '.']) t.throws(() => parseNanoCpus(text));
});

test('durations and moments', (t) => {
  t.is(parseDurationNs('1h30m5.5s'), 5405500000000);
  t.throws(() => parseDurationNs('5'));
  t.is(parseMoment('1700000000.5', 0), '1700000000.5');
  t.is(parseMoment('42m', 3_000_000), '480.000000000');
  t.is(parseMoment('2013-01-02T13:23:37.25Z', 0), '1357133017.250000000');
});
