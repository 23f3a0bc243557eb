import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ImageStore } from '../../src/oci/image-store.ts';
import { imageMigrations } from '../../src/oci/image-records.ts';
import type { LayerBuilder } from '../../src/oci/layer-builder.ts';
import { RegistryClient, type RegistryOptions } from '../../src/oci/registry/registry-client.ts';
import { Database } from '../../src/platform/database.ts';
import { createLayerBuilder } from './layer-builder-fixture.ts';

export interface StoreFixture extends AsyncDisposable {
  readonly root: string;
  readonly store: ImageStore;
  readonly database: Database;
  readonly registry: RegistryClient;
  /** Names below `directory` of the data root. */
  readonly files: (directory: string) => Promise<string[]>;
}

export interface StoreFixtureOptions {
  readonly registry?: RegistryOptions;
  readonly layerBuilder?: LayerBuilder;
  readonly root?: string;
}

/** Retries at once. Time enough for a loaded machine; what tests stalls sets its own. */
const quick: RegistryOptions = { stallTimeoutMs: 15_000, retry: { firstDelayMs: 5, maxDelayMs: 20 } };

export async function openStore(options: StoreFixtureOptions = {}): Promise<StoreFixture> {
  await using stack = new AsyncDisposableStack();
  const root = options.root ?? (await mkdtemp(join(tmpdir(), 'bulkhead-store-')));
  if (options.root === undefined) stack.defer(() => rm(root, { recursive: true, force: true }));
  const database = stack.use(Database.open(join(root, 'state.sqlite'), imageMigrations));
  const registry = stack.use(new RegistryClient({ ...quick, ...options.registry }));
  const store = await ImageStore.open({
    root,
    database,
    layerBuilder: options.layerBuilder ?? createLayerBuilder(),
    registry,
  });
  const owned = stack.move();
  return {
    root,
    store,
    database,
    registry,
    files: (directory) => readdir(join(root, directory)),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

export async function thrownBy(
  action: Promise<unknown> | (() => unknown),
): Promise<Error & { code?: string; details?: Record<string, unknown> }> {
  try {
    await (typeof action === 'function' ? action() : action);
  } catch (error) {
    return error as Error;
  }
  throw new Error('expected a failure');
}
