import { EngineError } from './errors.ts';

/** A process as a table shows it; numbers in the units of `ps`' sources (native/protocol/src/usage.rs). */
export interface TableProcess {
  readonly pid: number;
  readonly parentPid: number;
  readonly group: number;
  readonly session: number;
  readonly uid: number;
  readonly terminal: string;
  readonly state: string;
  readonly threads: number;
  readonly nice: number;
  readonly startedAtNs: number;
  readonly cpuNs: number;
  readonly virtualBytes: number;
  readonly residentBytes: number;
  readonly name: string;
  readonly arguments: readonly string[];
}

export interface TableContext {
  readonly readAtNs: number;
  readonly memoryBytes: number;
  readonly userName: (uid: number) => string;
}

export interface ProcessTable {
  readonly titles: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

interface Column {
  readonly title: string;
  readonly cell: (process: TableProcess, context: TableContext) => string;
}

/** The columns of procps' `ps` that say something of a container's processes. Source: ps(1), "Standard format specifiers". */
const COLUMNS: Readonly<Record<string, Column>> = {
  args: { title: 'COMMAND', cell: commandLine },
  c: { title: 'C', cell: (process, context) => String(Math.floor(cpuPercent(process, context))) },
  cmd: { title: 'CMD', cell: commandLine },
  comm: { title: 'COMMAND', cell: ({ name }) => name },
  etime: { title: 'ELAPSED', cell: (process, context) => elapsed(ranForSeconds(process, context)) },
  etimes: { title: 'ELAPSED', cell: (process, context) => String(Math.floor(ranForSeconds(process, context))) },
  lstart: { title: 'STARTED', cell: ({ startedAtNs }) => longTime(startedAtNs) },
  ni: { title: 'NI', cell: ({ nice }) => String(nice) },
  nlwp: { title: 'NLWP', cell: ({ threads }) => String(threads) },
  pcpu: { title: '%CPU', cell: (process, context) => cpuPercent(process, context).toFixed(1) },
  pgid: { title: 'PGID', cell: ({ group }) => String(group) },
  pid: { title: 'PID', cell: ({ pid }) => String(pid) },
  pmem: {
    title: '%MEM',
    cell: ({ residentBytes }, { memoryBytes }) => ((residentBytes / Math.max(1, memoryBytes)) * 100).toFixed(1),
  },
  ppid: { title: 'PPID', cell: ({ parentPid }) => String(parentPid) },
  rss: { title: 'RSS', cell: ({ residentBytes }) => String(Math.floor(residentBytes / 1024)) },
  s: { title: 'S', cell: ({ state }) => state },
  sid: { title: 'SID', cell: ({ session }) => String(session) },
  start: { title: 'START', cell: startText },
  stat: { title: 'STAT', cell: stateText },
  stime: { title: 'STIME', cell: startText },
  time: { title: 'TIME', cell: ({ cpuNs }) => clock(Math.floor(cpuNs / 1e9)) },
  bsdtime: { title: 'TIME', cell: ({ cpuNs }) => minutes(Math.floor(cpuNs / 1e9)) },
  tty: { title: 'TTY', cell: ({ terminal }) => terminal || '?' },
  uid: { title: 'UID', cell: ({ uid }) => String(uid) },
  userid: { title: 'UID', cell: ({ uid }, { userName }) => userName(uid) },
  user: { title: 'USER', cell: ({ uid }, { userName }) => userName(uid) },
  vsz: { title: 'VSZ', cell: ({ virtualBytes }) => String(Math.floor(virtualBytes / 1024)) },
};

/** Other names of the same columns, and titles where they differ. */
const ALIASES: Readonly<Record<string, readonly [string, string?]>> = {
  '%cpu': ['pcpu'],
  '%mem': ['pmem'],
  command: ['args'],
  cputime: ['time'],
  euid: ['uid', 'EUID'],
  euser: ['user', 'EUSER'],
  nice: ['ni'],
  pgrp: ['pgid', 'PGRP'],
  rssize: ['rss', 'RSS'],
  sess: ['sid', 'SESS'],
  start_time: ['stime', 'START'],
  state: ['s'],
  thcount: ['nlwp', 'THCNT'],
  tname: ['tty'],
  tt: ['tty', 'TT'],
  ucmd: ['comm', 'CMD'],
  ucomm: ['comm'],
  uname: ['user'],
  vsize: ['vsz'],
};

const SETS = {
  plain: ['pid', 'tty', 'time', 'ucmd'],
  full: ['userid', 'pid', 'ppid', 'c', 'stime', 'tty', 'time', 'cmd'],
  extraFull: ['userid', 'pid', 'ppid', 'c', 'vsz', 'rss', 'stime', 'tty', 'time', 'cmd'],
  bsd: ['pid', 'tty', 'stat', 'bsdtime', 'args'],
  bsdUser: ['user', 'pid', '%cpu', '%mem', 'vsz', 'rss', 'tty', 'stat', 'start', 'bsdtime', 'args'],
} as const;

/**
 * The table that `ps` with these arguments would print of these processes; no `ps` runs, so it works in a machine whose image has none.
 * Words are taken as `ps` takes them: `-ef`, `aux`, `-eo pid,cmd`, `-o pid=ID`. Choosing processes is not possible: they are the container's.
 */
export function processTable(
  psArguments: string,
  processes: readonly TableProcess[],
  context: TableContext,
): ProcessTable {
  const columns = parseArguments(psArguments);
  // Docker finds the container's processes by this column, so its clients expect the error where it is missing.
  if (!columns.some(({ name }) => name === 'pid')) {
    throw new EngineError('invalid-argument', `Couldn't find PID field in ps output: add pid to '${psArguments}'`);
  }
  return {
    titles: columns.map(({ title }) => title),
    rows: processes.map((process) => columns.map(({ column }) => column.cell(process, context))),
  };
}

interface ChosenColumn {
  readonly name: string;
  readonly title: string;
  readonly column: Column;
}

function parseArguments(text: string): ChosenColumn[] {
  const words = text.split(/\s+/).filter((word) => word !== '');
  const chosen: ChosenColumn[] = [];
  const flags = new Set<string>();
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    const isBsd = !word.startsWith('-');
    const letters = word.replace(/^-/, '');
    const format = letters.indexOf('o');
    const plain = format < 0 ? letters : letters.slice(0, format);
    for (const letter of plain) {
      if (!(isBsd ? 'auxwf' : 'AaedfFwx').includes(letter)) throw unknownOption(word);
      flags.add(isBsd ? `bsd-${letter}` : letter);
    }
    if (format < 0) continue;
    const list = letters.slice(format + 1) || words.shift();
    if (!list) throw new EngineError('invalid-argument', `ps: '${word}' needs a list of columns, such as pid,cmd`);
    chosen.push(...parseColumns(list));
  }
  if (chosen.length > 0) return chosen;
  const has = (...wanted: string[]): boolean => wanted.some((flag) => flags.has(flag));
  const set = has('bsd-u')
    ? SETS.bsdUser
    : has('F')
      ? SETS.extraFull
      : has('f')
        ? SETS.full
        : has('bsd-a', 'bsd-x')
          ? SETS.bsd
          : SETS.plain;
  return set.map((name) => findColumn(name));
}

/** `pid,cmd`; a title after `=` takes the rest of the word, commas too. */
function parseColumns(list: string): ChosenColumn[] {
  const equals = list.indexOf('=');
  if (equals < 0)
    return list
      .split(',')
      .filter(Boolean)
      .map((name) => findColumn(name));
  const names = list.slice(0, equals).split(',').filter(Boolean);
  return names.map((name, index) => {
    const column = findColumn(name);
    return index === names.length - 1 ? { ...column, title: list.slice(equals + 1) || column.title } : column;
  });
}

function findColumn(name: string): ChosenColumn {
  const [target, title] = (Object.hasOwn(ALIASES, name) ? ALIASES[name] : undefined) ?? [name];
  const column = Object.hasOwn(COLUMNS, target) ? COLUMNS[target] : undefined;
  if (!column) {
    throw new EngineError(
      'invalid-argument',
      `ps: unknown column '${name.slice(0, 40)}'; there are ${[...Object.keys(COLUMNS), ...Object.keys(ALIASES)].sort().join(' ')}`,
    );
  }
  return { name: target, title: title ?? column.title, column };
}

function unknownOption(word: string): EngineError {
  return new EngineError(
    'invalid-argument',
    `ps: option '${word.slice(0, 40)}' is not known here; use -ef, aux, or -o with a list of columns`,
  );
}

/** As `ps` shows a process without a command line (any more). */
function commandLine({ arguments: words, name }: TableProcess): string {
  return words.length > 0 ? words.join(' ') : `[${name}]`;
}

function ranForSeconds({ startedAtNs }: TableProcess, { readAtNs }: TableContext): number {
  return Math.max(0, (readAtNs - startedAtNs) / 1e9);
}

function cpuPercent(process: TableProcess, context: TableContext): number {
  const seconds = ranForSeconds(process, context);
  return seconds > 0 ? Math.min((process.cpuNs / 1e9 / seconds) * 100, 9999) : 0;
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}

/** `[DD-]HH:MM:SS` */
function clock(seconds: number): string {
  const days = Math.floor(seconds / 86_400);
  const time = `${two(Math.floor(seconds / 3600) % 24)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
  return days > 0 ? `${days}-${time}` : time;
}

/** `MMM:SS` */
function minutes(seconds: number): string {
  return `${Math.floor(seconds / 60)}:${two(seconds % 60)}`;
}

/** `[[DD-]HH:]MM:SS` */
function elapsed(seconds: number): string {
  const whole = Math.floor(seconds);
  return whole < 3600 ? `${two(Math.floor(whole / 60))}:${two(whole % 60)}` : clock(whole);
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];

/** The time of one that was started today, the day of an older one. */
function startText({ startedAtNs }: TableProcess, { readAtNs }: TableContext): string {
  const started = new Date(startedAtNs / 1e6);
  const now = new Date(readAtNs / 1e6);
  if (started.toDateString() === now.toDateString()) return `${two(started.getHours())}:${two(started.getMinutes())}`;
  const isThisYear = started.getFullYear() === now.getFullYear();
  return isThisYear ? `${MONTHS[started.getMonth()]}${two(started.getDate())}` : String(started.getFullYear());
}

function longTime(startedAtNs: number): string {
  const time = new Date(startedAtNs / 1e6);
  const day = `${DAYS[time.getDay()]} ${MONTHS[time.getMonth()]} ${String(time.getDate()).padStart(2)}`;
  return `${day} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())} ${time.getFullYear()}`;
}

function stateText({ state, nice, session, pid, threads }: TableProcess): string {
  const priority = nice < 0 ? '<' : nice > 0 ? 'N' : '';
  return `${state}${priority}${session === pid ? 's' : ''}${threads > 1 ? 'l' : ''}`;
}
