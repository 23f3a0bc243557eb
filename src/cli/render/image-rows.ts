import type { ImageSummary } from '../../client/index.ts';
import type { Row } from './format-rows.ts';
import { formatDecimalBytes, formatDuration, formatGoTime, shortId } from './units.ts';

export const IMAGE_HEADERS = {
  Containers: 'CONTAINERS',
  CreatedAt: 'CREATED AT',
  CreatedSince: 'CREATED',
  Digest: 'DIGEST',
  ID: 'IMAGE ID',
  Repository: 'REPOSITORY',
  SharedSize: 'SHARED SIZE',
  Size: 'SIZE',
  Tag: 'TAG',
  UniqueSize: 'UNIQUE SIZE',
  VirtualSize: 'VIRTUAL SIZE',
};

export const IMAGE_TABLE = '{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}';
export const IMAGE_TABLE_WITH_DIGESTS = '{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}';

const NONE = '<none>';

/** One row a tag; an image known by its digest only, or by nothing, has one with `<none>`. */
export function describeImageRows(
  images: readonly ImageSummary[],
  options: { truncates: boolean; showsDigests: boolean; nowMs: number },
): Row[] {
  return images.flatMap((image) =>
    namesOf(image, options.showsDigests).map(({ repository, tag, digest }) => ({
      Containers: image.Containers < 0 ? 'N/A' : String(image.Containers),
      // Read only if a template asks: time zone names cost 20 ms.
      get CreatedAt() {
        return formatGoTime(image.Created);
      },
      CreatedSince: image.Created <= 0 ? 'N/A' : `${formatDuration(options.nowMs - image.Created * 1000)} ago`,
      Digest: digest,
      ID: options.truncates ? shortId(image.Id) : image.Id,
      Repository: repository,
      SharedSize: image.SharedSize < 0 ? 'N/A' : formatDecimalBytes(image.SharedSize),
      Size: formatDecimalBytes(image.Size),
      Tag: tag,
      UniqueSize: image.SharedSize < 0 ? 'N/A' : formatDecimalBytes(image.Size - image.SharedSize),
      VirtualSize: formatDecimalBytes(image.Size, 4),
    })),
  );
}

interface ShownName {
  readonly repository: string;
  readonly tag: string;
  readonly digest: string;
}

function namesOf(image: ImageSummary, showsDigests: boolean): ShownName[] {
  const tags = image.RepoTags.filter((name) => name !== '<none>:<none>').map((name) => {
    const colon = name.lastIndexOf(':');
    return { repository: name.slice(0, colon), tag: name.slice(colon + 1) };
  });
  const digests = image.RepoDigests.filter((name) => !name.startsWith('<none>@')).map((name) => {
    const at = name.indexOf('@');
    return { repository: name.slice(0, at), digest: name.slice(at + 1) };
  });
  if (tags.length === 0 && digests.length === 0) return [{ repository: NONE, tag: NONE, digest: NONE }];
  if (tags.length === 0) return digests.map(({ repository, digest }) => ({ repository, tag: NONE, digest }));
  if (!showsDigests) return tags.map((name) => ({ ...name, digest: NONE }));
  return tags.flatMap((name) => {
    const own = digests.filter(({ repository }) => repository === name.repository);
    return own.length === 0 ? [{ ...name, digest: NONE }] : own.map(({ digest }) => ({ ...name, digest }));
  });
}
