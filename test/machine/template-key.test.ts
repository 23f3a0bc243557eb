import test from 'ava';
import { utimes, writeFile } from 'node:fs/promises';
import { className, factsKey, readTemplateFacts, templateName } from '../../src/machine/template-key.ts';
import { makeMachineFixture, MIB, sizeOf, type MachineFixture } from './machine-fixture.ts';

const keyOf = async (
  { base, shimPath }: MachineFixture,
  change: Partial<MachineFixture['base']> = {},
): Promise<string> => factsKey(await readTemplateFacts({ ...base, ...change }, shimPath));

test('the key of the same programs on the same host is the same', async (t) => {
  const fixture = await makeMachineFixture(t);

  t.is(await keyOf(fixture), await keyOf(fixture));
  t.regex(await keyOf(fixture), /^[0-9a-f]{16}$/);
});

for (const [what, pathOf] of [
  ['guest kernel', ({ base }) => base.kernelPath],
  ['initramfs', ({ base }) => base.initramfsPath],
  ['shim', ({ shimPath }) => shimPath],
] as const satisfies readonly [string, (fixture: MachineFixture) => string][]) {
  test(`another ${what} is another key, even of the same length`, async (t) => {
    const fixture = await makeMachineFixture(t);
    const before = await keyOf(fixture);

    await writeFile(pathOf(fixture), 'x', { flag: 'r+' });

    t.not(await keyOf(fixture), before);
  });
}

test('another version of QEMU is another key', async (t) => {
  const fixture = await makeMachineFixture(t);
  const before = await keyOf(fixture);

  await writeFile(fixture.base.qemuPath, '#!/bin/sh\necho QEMU emulator version 7.2.1\n');
  // So that nothing but what it says has changed.
  await utimes(fixture.base.qemuPath, 1_000, 1_000);
  const changed = await keyOf(fixture);
  await writeFile(fixture.base.qemuPath, '#!/bin/sh\necho QEMU emulator version 7.2.2\n');
  await utimes(fixture.base.qemuPath, 1_000, 1_000);

  t.not(changed, before);
  t.not(await keyOf(fixture), changed);
});

test('a QEMU that was built again under the same version is another key', async (t) => {
  const fixture = await makeMachineFixture(t);
  await utimes(fixture.base.qemuPath, 1_000, 1_000);
  const before = await keyOf(fixture);

  await utimes(fixture.base.qemuPath, 1_001, 1_001);

  t.not(await keyOf(fixture), before);
});

for (const [what, change] of [
  ['CPU model', { cpuModel: 'host' }],
  ['accelerator', { accelerator: 'kvm' }],
  ['list of kernel arguments', { kernelArguments: ['norandmaps'] }],
] as const) {
  test(`another ${what} is another key`, async (t) => {
    const fixture = await makeMachineFixture(t);

    t.not(await keyOf(fixture, change), await keyOf(fixture));
  });
}

test('a host whose time stamp counter has another rate has another key, and so has another format', async (t) => {
  const { base, shimPath } = await makeMachineFixture(t);
  const facts = await readTemplateFacts(base, shimPath);

  t.true(facts.tscKhz > 0);
  t.not(factsKey({ ...facts, tscKhz: facts.tscKhz + 1_000 }), factsKey(facts));
  t.not(factsKey({ ...facts, format: facts.format + 1 }), factsKey(facts));
});

test('templates of different sizes have different names below one key', (t) => {
  const sizes = [sizeOf(256), sizeOf(512), sizeOf(256, 2), { vcpus: 2, memoryBytes: 1024 * MIB }];

  t.deepEqual(sizes.map(className), ['1x256', '1x512', '2x256', '2x1024']);
  t.is(templateName('0123456789abcdef', sizeOf(384)), '0123456789abcdef-1x384');
});

test('a QEMU that cannot say its version is an error that names it', async (t) => {
  const fixture = await makeMachineFixture(t);
  await writeFile(fixture.base.qemuPath, '#!/bin/sh\nexit 3\n');

  await t.throwsAsync(keyOf(fixture), { message: new RegExp(fixture.base.qemuPath) });
});
