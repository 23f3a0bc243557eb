import test, { type ExecutionContext } from 'ava';
import { once } from 'node:events';
import { mkdir, open, readFile, rename, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { MachineTemplates } from '../../src/machine/machine-templates.ts';
import type { MachineTemplate, SandboxConfig } from '../../src/wire/shim.ts';
import {
  listDirectory,
  makeGate,
  makeMachineFixture,
  ramOf,
  saveMachine,
  sizeOf,
  until,
  type MachineFixture,
} from './machine-fixture.ts';

const SIZE = sizeOf(256);

async function ensured(templates: MachineTemplates, size = SIZE): Promise<MachineTemplate> {
  const template = await templates.ensure(size);
  if (!template) throw new Error('no template was made');
  return template;
}

/** Changes one bit in the middle, and nothing else. */
async function flipByte(path: string): Promise<void> {
  await using file = await open(path, 'r+');
  const at = Math.floor((await file.stat()).size / 2);
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, at);
  await file.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, at);
}

/** The template is the one that was made last. */
async function assertIsLatest(t: ExecutionContext, { made }: MachineFixture, template: MachineTemplate): Promise<void> {
  const latest = made.at(-1);
  if (!latest) throw new Error('none was made');
  t.is(await readFile(template.ramPath, 'utf8'), ramOf(latest));
  t.is(await readFile(template.statePath, 'utf8'), `state ${latest.id}`);
}

test('two wishes at the same time are one build, and both get it', async (t) => {
  const fixture = await makeMachineFixture(t);
  const templates = fixture.openTemplates();

  const [one, other] = await Promise.all([ensured(templates), ensured(templates)]);
  const found = await templates.find(SIZE);

  t.is(fixture.made.length, 1);
  t.deepEqual(one, other);
  t.deepEqual(found, one);
  await assertIsLatest(t, fixture, one);
});

test('what is saved has the size that was wanted, is saved beside its place, and gives back what its machine had', async (t) => {
  const fixture = await makeMachineFixture(t);
  const uid = fixture.machine.allocateUid('before');
  fixture.machine.releaseUid(uid);
  const templates = fixture.openTemplates();

  const template = await ensured(templates, sizeOf(512, 2));
  const [config] = fixture.made;

  t.is(config?.wall, 'template');
  t.is(config?.machine?.vcpus, 2);
  t.is(config?.machine?.memoryBytes, sizeOf(512).memoryBytes);
  t.is(config?.machine?.uid, uid);
  t.is(fixture.machine.allocateUid('after'), uid);
  t.not(config?.machine?.template?.ramPath, template.ramPath);
  t.deepEqual(await listDirectory(fixture.templatesDirectory), [`${await templates.key()}-2x512`]);
});

test('a template is not found before anybody wished for it, nor while it is made; who looks does not wait', async (t) => {
  const fixture = await makeMachineFixture(t);
  const gate = makeGate();
  const templates = fixture.openTemplates(async (config) => {
    await gate.opened;
    await saveMachine(config);
  });

  const before = await templates.find(SIZE);
  const wish = templates.ensure(SIZE);
  const meanwhile = await templates.find(SIZE);
  gate.open();
  await wish;

  t.is(before, undefined);
  t.is(meanwhile, undefined);
  t.truthy(await templates.find(SIZE));
});

test('machines of two sizes are saved one after the other', async (t) => {
  const fixture = await makeMachineFixture(t);
  let running = 0;
  let most = 0;
  const templates = fixture.openTemplates(async (config) => {
    most = Math.max(most, (running += 1));
    await saveMachine(config);
    running -= 1;
  });

  await Promise.all([256, 384, 512].map((mib) => templates.ensure(sizeOf(mib))));

  t.is(fixture.made.length, 3);
  t.is(most, 1);
});

test('the next daemon uses what is whole and makes nothing', async (t) => {
  const fixture = await makeMachineFixture(t);
  const before = await ensured(fixture.openTemplates());

  const after = await ensured(fixture.openTemplates());

  t.is(fixture.made.length, 1);
  t.deepEqual(after, before);
});

/** What may happen to a template while no daemon looks at it. */
const damages: readonly [string, (paths: MachineTemplate & { manifestPath: string }) => Promise<void>][] = [
  ['a flipped bit in its RAM', ({ ramPath }) => flipByte(ramPath)],
  ['a flipped bit in its state', ({ statePath }) => flipByte(statePath)],
  ['truncated RAM', async ({ ramPath }) => truncate(ramPath, (await stat(ramPath)).size - 1)],
  ['truncated state', ({ statePath }) => truncate(statePath, 3)],
  ['empty RAM', ({ ramPath }) => truncate(ramPath, 0)],
  ['zeroes after its RAM', async ({ ramPath }) => truncate(ramPath, (await stat(ramPath)).size + 4096)],
  [
    "another machine's RAM of the same size",
    ({ ramPath }) => writeFile(`${ramPath}.new`, 'x'.repeat(68)).then(() => rename(`${ramPath}.new`, ramPath)),
  ],
  ['no RAM', ({ ramPath }) => rm(ramPath)],
  ['no state', ({ statePath }) => rm(statePath)],
  [
    'a directory in place of its RAM',
    ({ ramPath }) =>
      rm(ramPath)
        .then(() => mkdir(ramPath))
        .then(() => undefined),
  ],
  ['no manifest', ({ manifestPath }) => rm(manifestPath)],
  ['an empty manifest', ({ manifestPath }) => writeFile(manifestPath, '')],
  ['half a manifest', async ({ manifestPath }) => truncate(manifestPath, 20)],
  ['a manifest without digests', ({ manifestPath }) => writeFile(manifestPath, '{"createdAtMs":1}')],
  [
    "a manifest with another machine's digests",
    ({ manifestPath }) =>
      writeFile(
        manifestPath,
        JSON.stringify({ ramSha256: '0'.repeat(64), stateSha256: '0'.repeat(64), createdAtMs: 1 }),
      ),
  ],
];
for (const [what, damage] of damages) {
  test(`a template with ${what} is not used but made anew`, async (t) => {
    const fixture = await makeMachineFixture(t);
    const before = await ensured(fixture.openTemplates());
    await damage({ ...before, manifestPath: join(before.ramPath, '../manifest.json') });

    const templates = fixture.openTemplates();
    const after = await ensured(templates);

    t.is(fixture.made.length, 2);
    await assertIsLatest(t, fixture, after);
    t.deepEqual(await templates.find(SIZE), after);
  });
}

for (const [what, change] of [
  ['was written to', ({ ramPath }) => flipByte(ramPath)],
  ['had its state written to', ({ statePath }) => flipByte(statePath)],
  [
    'was written to by someone who put its time back',
    async ({ ramPath }) => {
      const { atime, mtime } = await stat(ramPath);
      await flipByte(ramPath);
      await utimes(ramPath, atime, mtime);
    },
  ],
  [
    'was replaced',
    ({ statePath }) => writeFile(`${statePath}.new`, 'x').then(() => rename(`${statePath}.new`, statePath)),
  ],
  ['was deleted', ({ ramPath }) => rm(ramPath)],
] as const satisfies readonly [string, (template: MachineTemplate) => Promise<void>][]) {
  test(`a template that ${what} after it was checked is not found any more, and made anew`, async (t) => {
    const fixture = await makeMachineFixture(t);
    const templates = fixture.openTemplates();
    await change(await ensured(templates));

    const found = await templates.find(SIZE);
    const after = await ensured(templates);

    t.is(found, undefined);
    t.is(fixture.made.length, 2);
    await assertIsLatest(t, fixture, after);
    t.deepEqual(await templates.find(SIZE), after);
  });
}

test('a template that no machine came up from is made anew at the next wish', async (t) => {
  const fixture = await makeMachineFixture(t);
  const templates = fixture.openTemplates();
  await ensured(templates);

  templates.reject(SIZE);
  const found = await templates.find(SIZE);
  await ensured(templates);

  t.is(found, undefined);
  t.is(fixture.made.length, 2);
  t.deepEqual(await listDirectory(fixture.templatesDirectory), [`${await templates.key()}-1x256`]);
});

test('what was begun and what other programs made is swept away, what is ours stays', async (t) => {
  const fixture = await makeMachineFixture(t);
  await ensured(fixture.openTemplates());
  const templates = fixture.openTemplates();
  const key = await templates.key();
  const foreign = ['0123456789abcdef-1x256', `${key}-1x512.new`, `${key}0-1x256`, 'anything'];
  for (const name of foreign) {
    await mkdir(join(fixture.templatesDirectory, name));
    await writeFile(join(fixture.templatesDirectory, name, 'ram'), 'x');
  }

  await templates.sweep();
  await ensured(templates);

  t.deepEqual(await listDirectory(fixture.templatesDirectory), [`${key}-1x256`]);
  t.is(fixture.made.length, 1);
});

test('what the saving of a machine had on the host when its daemon died is found by the next one', async (t) => {
  const fixture = await makeMachineFixture(t);
  let left: SandboxConfig | undefined;
  // A daemon that dies hears nothing of its shim any more.
  void fixture
    .openTemplates(async (config) => {
      await mkdir(config.runtimeDir, { recursive: true });
      left = config;
      await new Promise(() => undefined);
    })
    .ensure(SIZE);
  await until('it is being saved', () => left !== undefined);

  await fixture.openTemplates().sweep();

  await t.throwsAsync(stat(left?.runtimeDir ?? ''), { code: 'ENOENT' });
  t.deepEqual(await listDirectory(fixture.templatesDirectory), []);
});

test('a daemon that ends gives up what it saves, and leaves nothing of it', async (t) => {
  const fixture = await makeMachineFixture(t);
  const templates = fixture.openTemplates(async (_, signal) => {
    await once(signal, 'abort');
    throw new Error('given up');
  });
  const wish = templates.ensure(SIZE);
  await until('it is being saved', () => fixture.made.length === 1);

  await templates.close();

  t.is(await wish, undefined);
  t.deepEqual(await listDirectory(fixture.templatesDirectory), []);
  t.deepEqual(fixture.logged, [], 'that is no fault');
});

test('another kernel sweeps the templates of the one before', async (t) => {
  const fixture = await makeMachineFixture(t);
  await ensured(fixture.openTemplates());
  await writeFile(fixture.base.kernelPath, 'another one');

  const templates = fixture.openTemplates();
  await templates.sweep();
  const left = await listDirectory(fixture.templatesDirectory);
  await ensured(templates);

  t.deepEqual(left, []);
  t.is(fixture.made.length, 2);
});

test('at most 8 sizes are kept; the one that was made longest ago goes, and can be wished for again', async (t) => {
  const fixture = await makeMachineFixture(t);
  const templates = fixture.openTemplates();
  const sizes = Array.from({ length: 10 }, (_, index) => sizeOf(256 + index));

  for (const [index, size] of sizes.entries()) {
    const { ramPath } = await ensured(templates, size);
    await utimes(join(ramPath, '..'), 1_000 + index, 1_000 + index);
  }
  const kept = await listDirectory(fixture.templatesDirectory);
  const [oldest, , third] = sizes as [typeof SIZE, typeof SIZE, typeof SIZE];

  t.deepEqual(
    kept.map((name) => name.slice(-3)),
    ['258', '259', '260', '261', '262', '263', '264', '265'],
  );
  t.is(await templates.find(oldest), undefined);
  t.truthy(await templates.find(third));
  t.truthy(await templates.ensure(oldest));
  t.is((await listDirectory(fixture.templatesDirectory)).length, 8);
});

for (const [what, make] of [
  ['a machine that cannot be saved', () => Promise.reject(new Error('the machine ended'))],
  ['a machine that is saved by halves', (config) => writeFile(config.machine?.template?.ramPath ?? '', 'half')],
] as const satisfies readonly [string, Parameters<MachineFixture['openTemplates']>[0]][]) {
  test(`${what} is no template, leaves nothing, and is no obstacle to later wishes`, async (t) => {
    const fixture = await makeMachineFixture(t);
    const uid = fixture.machine.allocateUid('before');
    fixture.machine.releaseUid(uid);
    let fails = true;
    const templates = fixture.openTemplates((config) => (fails ? make(config) : saveMachine(config)));

    const wished = await templates.ensure(SIZE);
    const again = await templates.ensure(SIZE);
    const found = await templates.find(SIZE);
    const left = await listDirectory(fixture.templatesDirectory);
    fails = false;
    const other = await templates.ensure(sizeOf(512));

    t.deepEqual([wished, again, found], [undefined, undefined, undefined]);
    t.deepEqual(left, []);
    t.truthy(other);
    t.is(fixture.machine.allocateUid('after'), uid);
    t.true(fixture.logged.some(({ msg }) => msg.includes('no machine could be saved')));
  });
}

test('a host whose kernel cannot be read has no templates, and its daemon can live without', async (t) => {
  const fixture = await makeMachineFixture(t);
  await rm(fixture.base.kernelPath);
  const templates = fixture.openTemplates();

  await t.notThrowsAsync(templates.sweep());
  t.is(await templates.ensure(SIZE), undefined);
  t.is(await templates.find(SIZE), undefined);
  t.notThrows(() => templates.reject(SIZE));
  await t.notThrowsAsync(templates.settle());
});
