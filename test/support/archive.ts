import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { buffer } from 'node:stream/consumers';
import tar, { type Header } from 'tar-stream';

/** One entry of a layer: what tar-stream calls it, and its content. */
export type Entry = Partial<Header> & { readonly name: string; readonly content?: Buffer | string };

export interface TestImage {
  readonly name: string;
  /** Lowest first. */
  readonly layers: readonly (readonly Entry[])[];
  readonly config?: object;
}

/** A `docker load`able archive. The same image gives the same bytes. */
export async function packImages(images: readonly TestImage[]): Promise<Buffer> {
  const archive = tar.pack();
  const manifest = [];
  for (const image of images) {
    const layers = await Promise.all(image.layers.map(packLayer));
    const diffIds = layers.map((layer) => `sha256:${sha256(layer)}`);
    const config = JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      created: '2026-01-01T00:00:00Z',
      config: { Cmd: ['sh'], Env: ['PATH=/bin:/usr/bin'], ...image.config },
      rootfs: { type: 'layers', diff_ids: diffIds },
      history: diffIds.map((_, index) => ({ created: '2026-01-01T00:00:00Z', created_by: `layer ${index}` })),
    });
    const configName = `${sha256(Buffer.from(config))}.json`;
    const names = layers.map((_, index) => `${image.name.replaceAll(/\W/g, '-')}-${index}/layer.tar`);
    archive.entry({ name: configName }, config);
    layers.forEach((layer, index) => archive.entry({ name: names[index] ?? '' }, layer));
    manifest.push({ Config: configName, RepoTags: [image.name], Layers: names });
  }
  archive.entry({ name: 'manifest.json' }, JSON.stringify(manifest));
  archive.finalize();
  return await buffer(archive);
}

async function packLayer(entries: readonly Entry[]): Promise<Buffer> {
  const layer = tar.pack();
  for (const { content, ...header } of entries) {
    layer.entry({ mtime: new Date('2026-01-01T00:00:00Z'), uid: 0, gid: 0, ...header }, content ?? '');
  }
  layer.finalize();
  return await buffer(layer);
}

function sha256(data: Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}

const APPLETS =
  'ash awk cat chmod chown cp date dd df dmesg echo env false free grep head hostname httpd id ifconfig ip kill ln ls md5sum mkdir mknod ' +
  'mount mv nc nproc nslookup ping printf ps pwd readlink rm route sed seq sh sha256sum sleep sort stat stty su sync tail test top touch tr ' +
  'trap true tty uname vi wc wget whoami yes';

/** Debian's static busybox as an image of one layer: small, and with everything that a test needs to look around. */
export async function busyboxLayer(): Promise<Entry[]> {
  const directory = (name: string, mode = 0o755): Entry => ({ name, type: 'directory', mode });
  return [
    directory('bin'),
    directory('etc'),
    directory('root', 0o700),
    directory('tmp', 0o1777),
    directory('proc'),
    directory('sys'),
    directory('dev'),
    { name: 'bin/busybox', mode: 0o755, content: await readFile('/bin/busybox') },
    ...APPLETS.split(' ').map((applet): Entry => ({ name: `bin/${applet}`, type: 'symlink', linkname: 'busybox' })),
    {
      name: 'etc/passwd',
      content:
        'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nada:x:1000:1000:Ada:/home/ada:/bin/sh\n',
    },
    { name: 'etc/group', content: 'root:x:0:\nnogroup:x:65534:\nada:x:1000:\nwheel:x:10:ada\n' },
    { name: 'etc/from-image', content: 'from the image\n' },
  ];
}

export async function busyboxImage(name = 'busybox:latest'): Promise<TestImage> {
  return { name, layers: [await busyboxLayer()] };
}
