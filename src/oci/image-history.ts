import type { ImageRecord } from './image-records.ts';

/** One line of `docker history`, newest first. */
export interface ImageHistoryEntry {
  /** The image's ID for the newest, `<missing>` for the steps below it. */
  readonly id: string;
  readonly createdAt: string | undefined;
  readonly createdBy: string;
  readonly comment: string;
  readonly tags: readonly string[];
  readonly sizeBytes: number;
}

export function describeHistory(image: ImageRecord): ImageHistoryEntry[] {
  const { history } = image.config;
  const layered = history.filter(({ empty_layer }) => !empty_layer).length;
  // Layers without a history (old builders, plain imports) are shown too, below what is described.
  const undescribed = image.layers.slice(0, Math.max(0, image.layers.length - layered));
  const rest = image.layers.slice(undescribed.length);
  const lowest = undescribed.map((layer) => ({
    createdAt: image.config.created,
    createdBy: '',
    comment: '',
    sizeBytes: layer.uncompressedBytes,
  }));
  let next = 0;
  const described = history.map(({ created, created_by, comment, empty_layer }) => {
    const layer = empty_layer ? undefined : rest[next];
    if (!empty_layer) next += 1;
    return {
      createdAt: created,
      createdBy: created_by ?? '',
      comment: comment ?? '',
      sizeBytes: layer?.uncompressedBytes ?? 0,
    };
  });
  return [...lowest, ...described].reverse().map((entry, position) => ({
    ...entry,
    id: position === 0 ? image.id : '<missing>',
    tags: position === 0 ? image.repoTags : [],
  }));
}
