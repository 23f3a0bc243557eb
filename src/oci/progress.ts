import { shortHex, type Digest } from '../core/digest.ts';
import { familiarName, type ImageReference } from '../core/image-reference.ts';

export type PullStatus = 'downloaded' | 'up-to-date';

export type PullProgress =
  | { readonly type: 'started'; readonly reference: ImageReference }
  | {
      readonly type: 'layerQueued' | 'waiting' | 'verifying' | 'downloaded' | 'pulled' | 'exists';
      readonly digest: Digest;
    }
  | {
      readonly type: 'downloading' | 'extracting';
      readonly digest: Digest;
      readonly current: number;
      readonly total: number;
    }
  | { readonly type: 'digest'; readonly digest: Digest }
  | { readonly type: 'finished'; readonly status: PullStatus; readonly reference: ImageReference };

export type PushProgress =
  | { readonly type: 'started'; readonly reference: ImageReference }
  | { readonly type: 'preparing' | 'waiting' | 'pushed' | 'exists'; readonly diffId: Digest }
  | { readonly type: 'mounted'; readonly diffId: Digest; readonly from: string }
  | { readonly type: 'pushing'; readonly diffId: Digest; readonly current: number; readonly total: number }
  | { readonly type: 'finished'; readonly tag: string; readonly digest: Digest; readonly sizeBytes: number };

/** One line of Docker's progress stream. Source: https://github.com/moby/moby/blob/v28.2.2/pkg/jsonmessage/jsonmessage.go */
export interface DockerProgressLine {
  readonly status?: string;
  readonly id?: string;
  readonly progressDetail?: { readonly current?: number; readonly total?: number };
  readonly progress?: string;
  readonly aux?: Readonly<Record<string, unknown>>;
}

const PULL_WORDS = {
  layerQueued: 'Pulling fs layer',
  waiting: 'Waiting',
  verifying: 'Verifying Checksum',
  downloaded: 'Download complete',
  pulled: 'Pull complete',
  exists: 'Already exists',
  downloading: 'Downloading',
  extracting: 'Extracting',
} as const;

const PUSH_WORDS = {
  preparing: 'Preparing',
  waiting: 'Waiting',
  pushed: 'Pushed',
  exists: 'Layer already exists',
} as const;

function tagOrDigest({ tag, digest }: ImageReference): string {
  return digest ?? tag ?? 'latest';
}

/** `alpine:latest`, and `alpine@sha256:…` without the tag when the digest decides, as Docker's last line says. */
function target(reference: ImageReference): string {
  const name = familiarName(reference);
  return reference.digest === undefined ? `${name}:${tagOrDigest(reference)}` : `${name}@${reference.digest}`;
}

export function describePullProgress(event: PullProgress): DockerProgressLine {
  switch (event.type) {
    case 'started':
      return { status: `Pulling from ${event.reference.path}`, id: tagOrDigest(event.reference) };
    case 'downloading':
    case 'extracting':
      return { status: PULL_WORDS[event.type], id: shortHex(event.digest), ...bar(event.current, event.total) };
    case 'digest':
      return { status: `Digest: ${event.digest}` };
    case 'finished':
      return {
        status:
          event.status === 'downloaded'
            ? `Status: Downloaded newer image for ${target(event.reference)}`
            : `Status: Image is up to date for ${target(event.reference)}`,
      };
    default:
      return { status: PULL_WORDS[event.type], progressDetail: {}, id: shortHex(event.digest) };
  }
}

/** The last event gives two lines: the sentence for people, the same as data. */
export function describePushProgress(event: PushProgress): DockerProgressLine[] {
  switch (event.type) {
    case 'started':
      return [{ status: `The push refers to repository [${event.reference.domain}/${event.reference.path}]` }];
    case 'mounted':
      return [{ status: `Mounted from ${event.from}`, progressDetail: {}, id: shortHex(event.diffId) }];
    case 'pushing':
      return [{ status: 'Pushing', id: shortHex(event.diffId), ...bar(event.current, event.total) }];
    case 'finished':
      return [
        { status: `${event.tag}: digest: ${event.digest} size: ${event.sizeBytes}` },
        { progressDetail: {}, aux: { Tag: event.tag, Digest: event.digest, Size: event.sizeBytes } },
      ];
    default:
      return [{ status: PUSH_WORDS[event.type], progressDetail: {}, id: shortHex(event.diffId) }];
  }
}

const BAR_WIDTH = 50;

/** Clients that draw no bar of their own print `progress`. */
function bar(current: number, total: number): Pick<DockerProgressLine, 'progressDetail' | 'progress'> {
  if (total <= 0) return { progressDetail: { current }, progress: formatBytes(current).padStart(8) };
  const filled = Math.min(BAR_WIDTH, Math.floor((current / total) * BAR_WIDTH));
  const drawing = `[${'='.repeat(filled)}>${' '.repeat(BAR_WIDTH - filled)}]`;
  const numbers = `${formatBytes(current).padStart(8)}/${formatBytes(total)}`;
  return { progressDetail: { current, total }, progress: `${drawing} ${numbers}` };
}

/** Decimal units and four significant digits, as go-units' HumanSize. */
function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${Number(value.toPrecision(4))}${units[unit] ?? 'B'}`;
}
