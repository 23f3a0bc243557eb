import { EngineError } from '../core/errors.ts';
import { mediaTypes, type IndexEntry, type OciIndex } from '../wire/oci/manifest.ts';

/** What an image must run on. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string | undefined;
}

/** x86-64 only for now: what the machines here are. */
export const hostPlatform: Platform = { os: 'linux', architecture: 'amd64' };

const ARCHITECTURE_ALIASES: Readonly<Record<string, Pick<Platform, 'architecture' | 'variant'>>> = {
  x86_64: { architecture: 'amd64' },
  'x86-64': { architecture: 'amd64' },
  aarch64: { architecture: 'arm64' },
  i386: { architecture: '386' },
  armhf: { architecture: 'arm', variant: 'v7' },
  armel: { architecture: 'arm', variant: 'v6' },
};

const COMPONENT = /^[A-Za-z0-9_.-]{1,64}$/;

/** `linux/amd64`, `linux/arm64/v8`, or one component, as containerd reads it. */
export function parsePlatform(text: string): Platform {
  const parts = text.split('/');
  if (parts.length > 3 || !parts.every((part) => COMPONENT.test(part))) {
    throw new EngineError(
      'invalid-argument',
      `"${text}" is an invalid OS component or platform; use OS/ARCHITECTURE[/VARIANT]`,
    );
  }
  const [first = '', second, third] = parts.map((part) => part.toLowerCase());
  if (second === undefined) {
    if (first === 'linux' || first === 'windows') return { os: first, architecture: hostPlatform.architecture };
    return { os: 'linux', ...normalise(first, undefined) };
  }
  return { os: first, ...normalise(second, third) };
}

function normalise(architecture: string, variant: string | undefined): Pick<Platform, 'architecture' | 'variant'> {
  const known = ARCHITECTURE_ALIASES[architecture] ?? { architecture };
  const given = variant ?? known.variant;
  return { architecture: known.architecture, ...(given !== undefined && { variant: given }) };
}

export function formatPlatform({ os, architecture, variant }: Platform): string {
  return variant === undefined ? `${os}/${architecture}` : `${os}/${architecture}/${variant}`;
}

/**
 * The entry of an index to pull. Attestations (`unknown/unknown`) are not images. Among several that match, the one without a
 * variant (amd64) or with the default one wins; x86-64-v3 and above only when asked for, since a guest may lack it.
 */
export function selectManifest(index: OciIndex, wanted: Platform): IndexEntry {
  const images = index.manifests.filter((entry) => isImage(entry));
  const matching = images.filter(
    ({ platform }) => platform?.os === wanted.os && platform.architecture === wanted.architecture,
  );
  const variantOf = (entry: IndexEntry): string | undefined => entry.platform?.variant ?? defaultVariant(wanted);
  const byVariant = matching.find((entry) => variantOf(entry) === (wanted.variant ?? defaultVariant(wanted)));
  // Of other architectures any variant will do unasked; of amd64 only what every x86-64 guest can run.
  const anyVariant = wanted.variant === undefined && wanted.architecture !== 'amd64' ? matching[0] : undefined;
  const onlyUndescribed = images.length === 1 && !images[0]?.platform ? images[0] : undefined;
  const chosen = byVariant ?? anyVariant ?? onlyUndescribed;
  if (chosen) return chosen;
  throw new EngineError(
    'not-found',
    `no matching manifest for ${formatPlatform(wanted)} in the manifest list entries`,
    {
      details: { available: images.flatMap(({ platform }) => (platform ? [formatPlatform(platform)] : [])) },
    },
  );
}

function isImage({ mediaType, platform, annotations }: IndexEntry): boolean {
  if (mediaType !== mediaTypes.ociManifest && mediaType !== mediaTypes.dockerManifest) return false;
  if (annotations?.['vnd.docker.reference.type'] === 'attestation-manifest') return false;
  return !(platform?.os === 'unknown' && platform.architecture === 'unknown');
}

function defaultVariant({ architecture }: Platform): string | undefined {
  return { arm64: 'v8', arm: 'v7', amd64: 'v1' }[architecture];
}
