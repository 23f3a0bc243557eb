/**
 * `make demo`: a real image, made here, through a real registry on loopback, into a container behind each wall.
 * `make demo IMAGE=alpine` pulls that image from where it lives instead.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, createWriteStream, existsSync, mkdtempSync, statSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { release, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import tar from 'tar-stream';
import { makeUserland } from './debian-userland.ts';

const ROOT = resolve(import.meta.dirname, '..');
const WORK = join(ROOT, 'build', 'demo');
const BULKHEAD = join(ROOT, 'bin', 'bulkhead');
const REGISTRY = join(ROOT, 'build', 'programs', 'docker-registry', 'usr', 'bin', 'docker-registry');

/** Printed by the container about itself. */
const QUESTION = [
  'echo kernel=$(uname -r)',
  'echo cpus=$(nproc)',
  'echo memory=$(awk "/MemTotal/ {print int(\\$2/1024)}" /proc/meminfo) MiB',
  'echo processes=$(ls -d /proc/[0-9]* | wc -l)',
  'echo system=$(. /etc/os-release; echo $PRETTY_NAME)',
].join('; ');

const say = (text: string): void => void process.stdout.write(`${text}\n`);
const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`;

async function step<T>(text: string, work: () => Promise<T>): Promise<T> {
  const since = performance.now();
  process.stdout.write(`* ${text} … `);
  const result = await work();
  say(seconds(since));
  return result;
}

async function run(program: string, args: readonly string[]): Promise<string> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
  const code = await new Promise<number>((done, reject) => {
    child.once('error', reject);
    child.once('close', (status) => done(status ?? 1));
  });
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}:\n${errors || output}`);
  return output;
}

/** The second layer: something new, and something of the first taken away (a whiteout). */
async function makeSecondLayer(path: string): Promise<void> {
  const layer = tar.pack();
  layer.entry({ name: 'opt/', type: 'directory', mode: 0o755 });
  layer.entry({ name: 'opt/hello' }, 'hello from the second layer\n');
  layer.entry({ name: 'usr/share/.wh.doc' }, '');
  layer.finalize();
  await pipeline(layer, createWriteStream(path));
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

/** A `docker load`able archive of the two layers. */
async function packImage(path: string, layers: readonly string[], name: string): Promise<void> {
  const digests = await Promise.all(layers.map(digestOf));
  const config = JSON.stringify({
    architecture: 'amd64',
    os: 'linux',
    config: { Cmd: ['bash'], Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'] },
    rootfs: { type: 'layers', diff_ids: digests.map((digest) => `sha256:${digest}`) },
  });
  const archive = tar.pack();
  const written = pipeline(archive, createWriteStream(path));
  archive.entry({ name: 'config.json' }, config);
  for (const [index, layer] of layers.entries()) {
    const entry = archive.entry({ name: `${index}/layer.tar`, size: statSync(layer).size });
    await pipeline(createReadStream(layer), entry);
  }
  const names = layers.map((_, index) => `${index}/layer.tar`);
  archive.entry(
    { name: 'manifest.json' },
    JSON.stringify([{ Config: 'config.json', RepoTags: [name], Layers: names }]),
  );
  archive.finalize();
  await written;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  return typeof address === 'object' && address ? address.port : 0;
}

function startService(program: string, args: readonly string[], log: string): ChildProcess {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const file = createWriteStream(log);
  child.stdout.pipe(file);
  child.stderr.pipe(file);
  return child;
}

async function waitUntil(what: string, isTrue: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!(await isTrue().catch(() => false))) {
    if (performance.now() > deadline) throw new Error(`${what} did not come up within 30 s`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

async function startRegistry(port: number): Promise<ChildProcess> {
  const storage = join(WORK, 'registry');
  await rm(storage, { recursive: true, force: true });
  const config = join(WORK, 'registry.yml');
  await writeFile(
    config,
    `version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: ${storage}}}\nhttp: {addr: '127.0.0.1:${port}'}\n`,
  );
  const registry = startService(REGISTRY, ['serve', config], join(WORK, 'registry.log'));
  await waitUntil('the registry', async () => (await fetch(`http://127.0.0.1:${port}/v2/`)).ok);
  return registry;
}

interface Answer {
  readonly wall: string;
  readonly facts: Readonly<Record<string, string>>;
  readonly milliseconds: number;
}

async function ask(host: string, wall: string, image: string): Promise<Answer> {
  const since = performance.now();
  const output = await run(BULKHEAD, [
    '-H',
    host,
    'run',
    '--rm',
    '--isolation',
    wall,
    '--cpus',
    '1',
    '-m',
    '256m',
    image,
    'sh',
    '-c',
    QUESTION,
  ]);
  const facts = Object.fromEntries(
    output
      .trim()
      .split('\n')
      .map((line) => line.split('=', 2) as [string, string]),
  );
  return { wall, facts, milliseconds: Math.round(performance.now() - since) };
}

function printTable(answers: readonly Answer[], accelerator: string): void {
  const titles = ['', ...answers.map(({ wall }) => (wall === 'vm' ? `micro-VM (${accelerator})` : 'host kernel'))];
  const row = (title: string, value: (answer: Answer) => string): string[] => [title, ...answers.map(value)];
  const rows = [
    titles,
    row('isolation', ({ wall }) => wall),
    row('system', ({ facts }) => facts['system'] ?? ''),
    row('kernel', ({ facts }) => facts['kernel'] ?? ''),
    row('CPUs', ({ facts }) => facts['cpus'] ?? ''),
    row('memory', ({ facts }) => facts['memory'] ?? ''),
    row('processes seen', ({ facts }) => facts['processes'] ?? ''),
    row('whole command', ({ milliseconds }) => `${milliseconds} ms`),
  ];
  const widths = titles.map((_, column) => Math.max(...rows.map((cells) => (cells[column] ?? '').length)));
  say('');
  for (const cells of rows)
    say(
      cells
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('   ')
        .trimEnd(),
    );
  say(`\nThis host's kernel is ${release()}. --cpus 1 -m 256m was asked of both.`);
}

async function main(): Promise<void> {
  const wantedImage = process.argv[2];
  await mkdir(WORK, { recursive: true });
  const state = mkdtempSync(join(tmpdir(), 'bh-demo-'));
  const host = `unix://${state}/d.sock`;
  const services: ChildProcess[] = [];
  try {
    const daemon = startService(
      BULKHEAD,
      [
        'daemon',
        '-H',
        host,
        '--data-root',
        join(state, 'data'),
        '--exec-root',
        join(state, 'run'),
        '--bridge-prefix',
        'bhdem',
        '--shutdown-containers',
      ],
      join(WORK, 'daemon.log'),
    );
    services.push(daemon);
    await step('start the daemon', () =>
      waitUntil('the daemon', async () => (await run(BULKHEAD, ['-H', host, 'version'])) !== ''),
    );
    const image = wantedImage ?? (await publishDemoImage(host, services));
    await step(`pull ${image}`, () => run(BULKHEAD, ['-H', host, 'pull', image]));
    const answers = [
      await step('run it in a micro-VM of its own', () => ask(host, 'vm', image)),
      await step('run it on the host kernel', () => ask(host, 'os', image)),
    ];
    const accelerator = await run(BULKHEAD, ['-H', host, 'info']);
    printTable(answers, /emulated|tcg/i.test(accelerator) ? 'emulated' : 'KVM');
    if (!wantedImage) {
      const second = await run(BULKHEAD, [
        '-H',
        host,
        'run',
        '--rm',
        image,
        'sh',
        '-c',
        'cat /opt/hello; test -e /usr/share/doc || echo "the whiteout hides /usr/share/doc"',
      ]);
      say(second.trim());
    }
  } finally {
    for (const service of services.reverse()) {
      const gone = service.exitCode === null && service.signalCode === null ? once(service, 'exit') : undefined;
      service.kill('SIGTERM');
      await gone;
    }
    await rm(state, { recursive: true, force: true });
  }
}

async function publishDemoImage(host: string, services: ChildProcess[]): Promise<string> {
  const base = join(WORK, 'userland.tar');
  if (!existsSync(base)) await step('make a Debian userland with mmdebstrap (once)', () => makeUserland(base));
  const second = join(WORK, 'second.tar');
  await makeSecondLayer(second);
  const port = await freePort();
  const name = `127.0.0.1:${port}/demo/debian:12`;
  services.push(await step('start a registry on loopback', () => startRegistry(port)));
  const archive = join(WORK, 'image.tar');
  await step('make an image of two layers and load it', async () => {
    await packImage(archive, [base, second], name);
    await run(BULKHEAD, ['-H', host, 'load', '-i', archive]);
    await rm(archive);
  });
  await step(`push it to ${name}`, () => run(BULKHEAD, ['-H', host, 'push', name]));
  await step('remove it here', () => run(BULKHEAD, ['-H', host, 'rmi', name]));
  return name;
}

main().catch((error: unknown) => {
  process.stderr.write(`\ndemo: ${error instanceof Error ? error.message : String(error)}\nlogs: ${WORK}\n`);
  process.exitCode = 1;
});
