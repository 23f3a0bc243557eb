/**
 * Runs the test suites (all of them, or the one named) and sums up: the last line is `N passed, N failed, N skipped`.
 * A suite that ends badly without naming a failed test counts as one failure.
 */
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';

interface Suite {
  readonly name: string;
  readonly command: readonly string[];
  readonly directory?: string;
  readonly count: (output: string) => Counts;
}

interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

const sum = (output: string, pattern: RegExp): number =>
  [...output.matchAll(pattern)].reduce((total, match) => total + Number(match[1]), 0);

const countCargo = (output: string): Counts => ({
  passed: sum(output, /^test result: .*?(\d+) passed/gm),
  failed: sum(output, /^test result: .*?(\d+) failed/gm),
  skipped: sum(output, /^test result: .*?(\d+) ignored/gm),
});

const countAva = (output: string): Counts => ({
  passed: sum(output, /^# pass (\d+)/gm),
  failed: sum(output, /^# fail (\d+)/gm),
  skipped: sum(output, /^# skip (\d+)/gm),
});

const ava = (name: string, patterns: readonly string[], concurrency: number): Suite => ({
  name,
  command: ['npx', 'ava', '--tap', '--concurrency', String(concurrency), ...patterns],
  count: countAva,
});

const suites: readonly Suite[] = [
  {
    name: 'native',
    command: ['cargo', 'test', '--locked', '--release', '--workspace', '--no-fail-fast'],
    directory: 'native',
    count: countCargo,
  },
  ava('unit', ['test/**/*.test.ts', '!test/e2e/**'], availableParallelism()),
  // Each file has a daemon and machines of its own.
  ava('e2e', ['test/e2e/**/*.test.ts'], availableParallelism()),
];

async function run(suite: Suite): Promise<Counts> {
  process.stdout.write(`\n== suite ${suite.name}\n`);
  const [program = '', ...args] = suite.command;
  const child = spawn(program, args, { cwd: suite.directory ?? '.', stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    process.stdout.write(text);
  });
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status) => resolve(status ?? 1));
  });
  const counts = suite.count(output);
  if (counts.passed + counts.failed === 0 && /no tests|Couldn.t find any files/i.test(output)) return counts;
  return code !== 0 && counts.failed === 0 ? { ...counts, failed: 1 } : counts;
}

const wanted = process.argv[2];
const started = performance.now();
const results: Counts[] = [];
for (const suite of suites.filter(({ name }) => wanted === undefined || name === wanted))
  results.push(await run(suite));
const total = (key: keyof Counts): number => results.reduce((all, counts) => all + counts[key], 0);
process.stdout.write(`\n${Math.round((performance.now() - started) / 1000)} s\n`);
process.stdout.write(`${total('passed')} passed, ${total('failed')} failed, ${total('skipped')} skipped\n`);
process.exitCode = total('failed') > 0 || total('passed') === 0 ? 1 : 0;
