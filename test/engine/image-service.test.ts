import test from 'ava';
import { Readable } from 'node:stream';
import type { ContainerState } from '../../src/core/container-state.ts';
import { parseImageReference } from '../../src/core/image-reference.ts';
import type { EngineEvent } from '../../src/engine/engine.ts';
import { Images } from '../../src/engine/image-service.ts';
import { createImage, layoutArchive, type TestImage } from '../oci/image-fixture.ts';
import { putImage, startRegistry } from '../oci/registry-fixture.ts';
import { openStore, type StoreFixture } from '../oci/store-fixture.ts';

const image = createImage({ layers: [{ hello: 'hello' }], config: { Labels: { colour: 'red' } } });
const other = createImage({ layers: [{ other: 'other' }] });
const created: ContainerState = { status: 'created' };
const layersOf = (...images: TestImage[]): string[] => images.flatMap(({ diffIds }) => diffIds);
const layerFiles = async (fixture: StoreFixture): Promise<string[]> =>
  (await fixture.files('layers')).filter((name) => name.endsWith('.erofs'));

interface Scene {
  readonly images: Images;
  readonly containers: { id: string; imageId: string; state: ContainerState }[];
  /** `action actorId name`, in order. */
  readonly told: string[];
  readonly events: Omit<EngineEvent, 'timeNs'>[];
  /** Layers that may stay mounted, of each sweep. */
  readonly sweeps: string[][];
  readonly errors: string[];
  readonly load: (one: TestImage, name: string) => Promise<unknown>;
}

function serve(fixture: StoreFixture, unmount: () => Promise<void> = () => Promise.resolve()): Scene {
  const events: Omit<EngineEvent, 'timeNs'>[] = [];
  const scene = {
    containers: [] as Scene['containers'],
    told: [] as string[],
    sweeps: [] as string[][],
    errors: [] as string[],
    events,
  };
  const images = new Images({
    images: fixture.store,
    table: { all: () => scene.containers },
    events: {
      publish: (event) => {
        events.push(event);
        scene.told.push(`${event.action} ${event.actorId} ${event.attributes['name'] ?? ''}`);
      },
    },
    layerMounts: {
      sweep: (needed) => {
        scene.sweeps.push([...needed]);
        return unmount();
      },
    },
    clock: { nowMs: () => Date.UTC(2026, 0, 1) },
    logger: { error: (_facts, message) => void scene.errors.push(message) },
  });
  const load = (one: TestImage, name: string): Promise<unknown> =>
    images.load(Readable.from([layoutArchive(one, name)]), {});
  return { ...scene, images, load };
}

test("events have Docker's actors and names, and the image's labels", async (t) => {
  await using fixture = await openStore();
  await using registry = await startRegistry();
  await putImage(registry.url, 'a/b', 'one', image);
  const { images, told, events } = serve(fixture);
  const id = image.config.digest;
  const name = `${registry.host}/a/b`;

  await images.pull(parseImageReference(`${name}:one`), {});
  images.tag(`${name}:one`, parseImageReference(`${name}:two`));
  await images.push(parseImageReference(`${name}:two`), {});
  images.save([`${name}:one`, `${name}:two`]).destroy();
  await images.remove(`${name}:two`, { force: false, prune: true });
  await images.remove(`${name}:one`, { force: false, prune: true });

  t.deepEqual(told, [
    `pull ${name}:one ${name}`,
    `tag ${id} ${name}:two`,
    `push ${name}:two ${name}`,
    `save ${id} ${id}`,
    `untag ${id} ${id}`,
    `untag ${id} ${id}`,
    `untag ${id} ${id}`,
    `delete ${id} ${id}`,
  ]);
  t.deepEqual(
    events.map(({ attributes }) => attributes['colour']),
    [...Array<string>(7).fill('red'), undefined],
  );
});

test('a load and an import are told of', async (t) => {
  await using fixture = await openStore();
  const { images, told, load } = serve(fixture);
  await load(image, 'thing:1');
  const source = Readable.from([createImage({ layers: [{ a: 'a' }], compression: 'none' }).layers[0]?.bytes]);
  const target = parseImageReference('made:here');
  const { signal } = new AbortController();
  const { id, config } = await images.import(source, { target, comment: 'by hand', signal });

  t.deepEqual(told, [
    `load ${image.config.digest} ${image.config.digest}`,
    `tag ${id} made:here`,
    `import ${id} ${id}`,
  ]);
  t.is(config.created, '2026-01-01T00:00:00.000Z');
  t.is(config.history[0]?.comment, 'by hand');
  t.is(images.resolve('made:here').id, id);
});

test('a container stands against the removal of its image, and a removal by force leaves it what it needs until it goes', async (t) => {
  await using fixture = await openStore();
  const { images, containers, sweeps, load } = serve(fixture);
  await load(image, 'thing:1');
  await load(other, 'other:1');
  const { id } = images.resolve('thing:1');
  containers.push({ id: 'c'.repeat(64), imageId: id, state: created });
  t.deepEqual(images.containersOf(id), ['c'.repeat(64)]);

  await t.throwsAsync(images.remove('thing:1', { force: false, prune: true }), {
    message: /container cccccccccccc is using/,
  });
  t.is(sweeps.length, 0);
  await images.remove('thing:1', { force: true, prune: true });
  t.deepEqual(sweeps.pop()?.sort(), layersOf(image, other).sort());
  t.is((await layerFiles(fixture)).length, 2);

  containers.pop();
  await images.afterContainerRemoval(id);
  t.deepEqual(sweeps.pop(), layersOf(other));
  t.is((await layerFiles(fixture)).length, 1);
});

test('the end of a container whose image is still there, or has another container, costs nothing', async (t) => {
  await using fixture = await openStore();
  const { images, containers, sweeps, load } = serve(fixture);
  await load(image, 'thing:1');
  const { id } = images.resolve('thing:1');
  await images.afterContainerRemoval(id);
  containers.push({ id: 'd'.repeat(64), imageId: id, state: created });
  await images.remove('thing:1', { force: true, prune: true });
  sweeps.pop();
  await images.afterContainerRemoval(id);
  t.deepEqual(sweeps, []);
});

test('prune takes unnamed images, with dangling=false also named ones, and none that a container uses', async (t) => {
  await using fixture = await openStore();
  const { images, containers, sweeps, told, load } = serve(fixture);
  await load(image, 'thing:1');
  await load(other, 'other:1');
  images.tag('thing:1', parseImageReference('thing:2'));
  containers.push({ id: 'e'.repeat(64), imageId: images.resolve('other:1').id, state: created });

  t.deepEqual(await images.prune(new Map()), { removed: [], reclaimedBytes: 0 });
  const { removed, reclaimedBytes } = await images.prune(new Map([['dangling', ['false']]]));
  t.deepEqual(removed.slice(0, 3), [
    { untagged: 'thing:1' },
    { untagged: 'thing:2' },
    { deleted: image.config.digest },
  ]);
  t.true(reclaimedBytes > 0);
  t.is(told.at(-1), 'prune  ');
  t.deepEqual(sweeps.at(-1), layersOf(other));
  t.deepEqual(
    images.list({ all: true, filters: new Map() }).map(({ repoTags }) => repoTags),
    [['other:1']],
  );
  await t.throwsAsync(images.prune(new Map([['reference', ['x']]])), { message: "invalid filter 'reference'" });
});

test('a sweep at start finishes what an earlier daemon did not', async (t) => {
  await using fixture = await openStore();
  const { images, containers, sweeps, load } = serve(fixture);
  await load(image, 'thing:1');
  containers.push({ id: 'f'.repeat(64), imageId: images.resolve('thing:1').id, state: created });
  await images.remove('thing:1', { force: true, prune: true });
  containers.pop();
  await images.sweep();
  t.deepEqual(sweeps.at(-1), []);
  t.deepEqual(await layerFiles(fixture), []);
});

test('a removal has happened even where a mount cannot be given up: that is logged', async (t) => {
  await using fixture = await openStore();
  const { images, errors, load } = serve(fixture, () => Promise.reject(new Error('EIO')));
  await load(image, 'thing:1');
  t.true((await images.remove('thing:1', { force: false, prune: true })).length > 1);
  t.is(errors.length, 1);
});
