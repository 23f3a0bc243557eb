import type { Engine } from '../../engine/engine.ts';
import { isAtLeast, type ApiVersion } from '../api-version.ts';
import { encodeImageSummary } from './image.ts';
import { encodeContainerSummary } from './container-list.ts';

/** `/system/df`. Lists are never null up to API 1.51; `types` empty means all. */
export async function encodeDiskUsage(
  engine: Engine,
  version: ApiVersion,
  types: readonly string[],
): Promise<Record<string, unknown>> {
  const wants = (type: string): boolean => types.length === 0 || !isAtLeast(version, '1.42') || types.includes(type);
  const filters = new Map();
  const views = wants('container') ? engine.containers.list({ all: true, limit: 0, filters }) : [];
  // One that is removed meanwhile has no size; the others do.
  const sizes = await Promise.all(views.map(({ id }) => engine.usage.sizes(id).catch(() => undefined)));
  const images = wants('image') ? engine.images.list({ all: true, filters }) : [];
  const layerBytes = wants('image') ? (await engine.images.diskUsage()).layerBytes : 0;
  const nowMs = Date.now();
  return {
    LayersSize: layerBytes,
    Images: images.map((image) => encodeImageSummary(image, version, engine.images.containersOf(image.id).length)),
    Containers: views.map((view, index) => encodeContainerSummary(view, version, nowMs, sizes[index])),
    Volumes: [],
    BuildCache: [],
    ...(isAtLeast(version, '1.42') ? {} : { BuilderSize: 0 }),
  };
}
