import test from 'ava';
import { formatPlatform, parsePlatform, selectManifest } from '../../src/oci/platform-selection.ts';
import { indexSchema } from '../../src/wire/oci/manifest.ts';
import { blobOf, descriptorOf } from './image-fixture.ts';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

function indexWith(
  ...platforms: readonly (readonly [architecture: string, variant?: string])[]
): ReturnType<typeof indexSchema.parse> {
  const manifests = platforms.map(([architecture, variant], position) => ({
    ...descriptorOf(blobOf(Buffer.from(String(position)), MANIFEST)),
    platform: { os: 'linux', architecture, ...(variant !== undefined && { variant }) },
  }));
  return indexSchema.parse({ schemaVersion: 2, manifests });
}

test('platforms are read as containerd reads them', (t) => {
  t.is(formatPlatform(parsePlatform('linux/amd64')), 'linux/amd64');
  t.is(formatPlatform(parsePlatform('linux/aarch64')), 'linux/arm64');
  t.is(formatPlatform(parsePlatform('linux/arm/v6')), 'linux/arm/v6');
  t.is(formatPlatform(parsePlatform('x86_64')), 'linux/amd64');
  t.is(formatPlatform(parsePlatform('linux')), 'linux/amd64');
  for (const text of ['', 'a/b/c/d', 'linux/', 'linux/am d64'])
    t.throws(() => parsePlatform(text), { code: 'invalid-argument' });
});

test('the plain amd64 image is taken before one for newer processors', (t) => {
  const index = indexWith(['amd64', 'v3'], ['amd64'], ['arm64', 'v8']);

  t.is(index.manifests.indexOf(selectManifest(index, parsePlatform('linux/amd64'))), 1);
  t.is(index.manifests.indexOf(selectManifest(index, parsePlatform('linux/amd64/v3'))), 0);
  t.is(index.manifests.indexOf(selectManifest(index, parsePlatform('linux/arm64'))), 2);
  t.throws(() => selectManifest(index, parsePlatform('linux/amd64/v4')), { code: 'not-found' });
});

test('an image for newer processors alone is not taken unasked', (t) => {
  t.throws(() => selectManifest(indexWith(['amd64', 'v3']), parsePlatform('linux/amd64')), {
    message: 'no matching manifest for linux/amd64 in the manifest list entries',
  });
});
