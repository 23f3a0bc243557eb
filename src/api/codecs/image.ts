import type { ImageHistoryEntry } from '../../oci/image-history.ts';
import type { ImageRecord } from '../../oci/image-records.ts';
import type { RemovedEntry } from '../../oci/image-removal.ts';
import { isAtLeast, type ApiVersion } from '../api-version.ts';
import { formatTime } from './timestamp.ts';

/** One element of `GET /images/json`. `containers` is how many use it, -1 where nobody counted. */
export function encodeImageSummary(
  image: ImageRecord,
  version: ApiVersion,
  containers: number,
): Record<string, unknown> {
  return {
    Containers: containers,
    Created: epochSeconds(image.config.created),
    Id: image.id,
    Labels: image.config.config.Labels ?? null,
    ParentId: image.parent ?? '',
    ...encodeNames(image, version),
    SharedSize: -1,
    Size: image.sizeBytes,
    ...(isAtLeast(version, '1.44') ? {} : { VirtualSize: image.sizeBytes }),
  };
}

/** `GET /images/{name}/json`. Source: moby api/docs/v1.51.yaml, definition ImageInspect; graph-driver semantics. */
export function encodeImageInspect(image: ImageRecord, version: ApiVersion): Record<string, unknown> {
  const { config } = image;
  return {
    Id: image.id,
    RepoTags: image.repoTags,
    RepoDigests: image.repoDigests,
    Parent: image.parent ?? '',
    Comment: config.history.at(-1)?.comment ?? '',
    Created: config.created ?? '',
    DockerVersion: config.docker_version ?? '',
    Author: config.author ?? '',
    Config: encodeDefaults(image, version),
    Architecture: config.architecture,
    ...(config.variant === undefined ? {} : { Variant: config.variant }),
    Os: config.os,
    Size: image.sizeBytes,
    ...(isAtLeast(version, '1.44') ? {} : { VirtualSize: image.sizeBytes }),
    GraphDriver: { Data: null, Name: 'overlay2' },
    RootFS: { Type: 'layers', Layers: config.rootfs.diff_ids },
    Metadata: { LastTagTime: formatTime(image.lastTaggedAtMs) },
  };
}

export function encodeHistory(entries: readonly ImageHistoryEntry[]): Record<string, unknown>[] {
  return entries.map((entry) => ({
    Id: entry.id,
    Created: epochSeconds(entry.createdAt),
    CreatedBy: entry.createdBy,
    Tags: entry.tags.length > 0 ? entry.tags : null,
    Size: entry.sizeBytes,
    Comment: entry.comment,
  }));
}

export function encodeRemoved(entries: readonly RemovedEntry[]): Record<string, string>[] {
  return entries.map((entry) => ('untagged' in entry ? { Untagged: entry.untagged } : { Deleted: entry.deleted }));
}

/** Before 1.43 an image without a name had this one. */
function encodeNames(image: ImageRecord, version: ApiVersion): Record<string, readonly string[]> {
  const { repoTags, repoDigests } = image;
  const isNameless = repoTags.length === 0 && repoDigests.length === 0;
  if (isNameless && !isAtLeast(version, '1.43')) return { RepoTags: ['<none>:<none>'], RepoDigests: ['<none>@<none>'] };
  return { RepoTags: repoTags, RepoDigests: repoDigests };
}

/** Since 1.50 what is not set is left out; before, the fields of a whole container configuration stood there. */
function encodeDefaults(image: ImageRecord, version: ApiVersion): Record<string, unknown> {
  const { ExposedPorts: ports, Volumes: volumes, ...others } = image.config.config;
  const zeroes = isAtLeast(version, '1.50') ? {} : ZERO_CONFIG;
  const set = Object.fromEntries(Object.entries(others).filter(([, value]) => value !== undefined));
  return {
    ...zeroes,
    ...set,
    ...(ports === undefined ? {} : { ExposedPorts: keySet(ports) }),
    ...(volumes === undefined ? {} : { Volumes: keySet(volumes) }),
  };
}

const ZERO_CONFIG: Readonly<Record<string, unknown>> = {
  Hostname: '',
  Domainname: '',
  User: '',
  AttachStdin: false,
  AttachStdout: false,
  AttachStderr: false,
  Tty: false,
  OpenStdin: false,
  StdinOnce: false,
  Env: null,
  Cmd: null,
  Image: '',
  Volumes: null,
  WorkingDir: '',
  Entrypoint: null,
  OnBuild: null,
  Labels: null,
};

function keySet(keys: readonly string[]): Record<string, object> {
  return Object.fromEntries(keys.map((key) => [key, {}]));
}

/** Images without a creation time count as made in 1970. */
export function epochSeconds(time: string | undefined): number {
  const timeMs = Date.parse(time ?? '');
  return Number.isNaN(timeMs) ? 0 : Math.trunc(timeMs / 1000);
}
