import test from 'ava';
import { EngineError } from '../../src/core/errors.ts';
import { processTable, type TableProcess } from '../../src/core/process-table.ts';

const readAt = new Date(2026, 10, 25, 12, 0, 0);
const context = {
  readAtNs: readAt.getTime() * 1e6,
  memoryBytes: 1000 * 1024,
  userName: (uid: number) => (uid === 0 ? 'root' : String(uid)),
};
const shell: TableProcess = {
  pid: 7,
  parentPid: 1,
  group: 7,
  session: 7,
  uid: 0,
  terminal: 'pts/0',
  state: 'S',
  threads: 2,
  nice: 5,
  startedAtNs: (readAt.getTime() - 3_700_000) * 1e6,
  cpuNs: 370e9,
  virtualBytes: 4096,
  residentBytes: 100 * 1024,
  name: 'sh',
  arguments: ['sh', '-c', 'sleep 1'],
};
const zombie: TableProcess = {
  ...shell,
  pid: 8,
  uid: 33,
  terminal: '',
  state: 'Z',
  arguments: [],
  threads: 1,
  nice: 0,
};

test('-ef is the full format, and a process without a command line is in brackets', (t) => {
  const { titles, rows } = processTable('-ef', [shell, zombie], context);

  t.deepEqual(titles, ['UID', 'PID', 'PPID', 'C', 'STIME', 'TTY', 'TIME', 'CMD']);
  t.deepEqual(rows, [
    ['root', '7', '1', '10', '10:58', 'pts/0', '00:06:10', 'sh -c sleep 1'],
    ['33', '8', '1', '10', '10:58', '?', '00:06:10', '[sh]'],
  ]);
});

test('aux is the user format of BSD', (t) => {
  const { titles, rows } = processTable('aux', [shell], context);

  t.deepEqual(titles, ['USER', 'PID', '%CPU', '%MEM', 'VSZ', 'RSS', 'TTY', 'STAT', 'START', 'TIME', 'COMMAND']);
  t.deepEqual(rows, [['root', '7', '10.0', '10.0', '4', '100', 'pts/0', 'SNsl', '10:58', '6:10', 'sh -c sleep 1']]);
});

test('columns are chosen by name, in any of ps’ ways, with titles of one’s own', (t) => {
  const titles = (text: string): readonly string[] => processTable(text, [shell], context).titles;

  t.deepEqual(titles('-o pid,cmd'), ['PID', 'CMD']);
  t.deepEqual(titles('-opid,comm'), ['PID', 'COMMAND']);
  t.deepEqual(titles('-eo pid,etime'), ['PID', 'ELAPSED']);
  t.deepEqual(titles('o pid,%mem'), ['PID', '%MEM']);
  t.deepEqual(titles('-o ppid -o pid=NUMBER'), ['PPID', 'NUMBER']);
  t.deepEqual(titles(''), ['PID', 'TTY', 'TIME', 'CMD']);
});

test('what cannot be shown is refused, and said', (t) => {
  const refusal = (text: string): string =>
    t.throws(() => processTable(text, [shell], context), { instanceOf: EngineError }).message;

  t.regex(refusal('-o cmd'), /Couldn't find PID field in ps output/);
  t.regex(refusal('-o pid,nonsense'), /unknown column 'nonsense'/);
  t.regex(refusal('-o __proto__,pid'), /unknown column '__proto__'/);
  t.regex(refusal('-p 1'), /option '-p' is not known here/);
  t.regex(refusal('-eo'), /needs a list of columns/);
});
