import test from 'ava';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createImage, layoutArchive, noise } from '../oci/image-fixture.ts';
import { putImage, startRegistry } from '../oci/registry-fixture.ts';
import { openStore } from '../oci/store-fixture.ts';
import { startFakeDaemon } from './fake-daemon.ts';

const image = createImage({
  layers: [{ hello: 'hello' }],
  config: { Labels: { colour: 'red' }, ExposedPorts: { '80/tcp': {} } },
});
/** bcrypt of "secret" for "ann". */
const HTPASSWD = 'ann:$2b$05$ykBqQRsCknnp4W4Cnb1v7eibKqzdyBLVT.2M/eHNDax3pjqa1UV.6';

test('docker pull shows layers and the last line libraries wait for, and inspect, images, history and df know the image', async (t) => {
  await using fixture = await openStore();
  await using registry = await startRegistry();
  await putImage(registry.url, 'a/b', 'one', image);
  await using daemon = await startFakeDaemon(fixture.store);
  const name = `${registry.host}/a/b:one`;
  const pulled = await daemon.docker(['pull', name]);
  t.is(pulled.exitCode, 0, pulled.stderr);
  t.regex(
    pulled.stdout,
    /Pull complete[\s\S]*Digest: sha256:[0-9a-f]{64}\nStatus: Downloaded newer image for .*\/a\/b:one\n/,
  );
  t.regex((await daemon.docker(['pull', name])).stdout, /Status: Image is up to date for/);
  const inspected = await daemon.docker([
    'image',
    'inspect',
    '--format',
    '{{.Id}} {{json .Config.ExposedPorts}} {{.Os}}/{{.Architecture}}',
    name,
  ]);
  t.is(inspected.stdout, `${image.config.digest} {"80/tcp":{}} linux/amd64\n`);
  t.is(
    (await daemon.docker(['images', '-q', '--no-trunc', '--filter', 'label=colour=red'])).stdout,
    `${image.config.digest}\n`,
  );
  t.is((await daemon.docker(['images', '-q', '--filter', 'label=colour=blue'])).stdout, '');
  t.is(
    (await daemon.docker(['images', '-q', '--no-trunc', `${registry.host}/a/*`])).stdout,
    `${image.config.digest}\n`,
  );
  t.regex((await daemon.docker(['history', name])).stdout, /step 0/);
  t.regex((await daemon.docker(['system', 'df'])).stdout, /Images\s+1/);
});

test('names with slashes, ports and percent signs reach the same image', async (t) => {
  await using fixture = await openStore();
  await using daemon = await startFakeDaemon(fixture.store);
  await writeFile(join(fixture.root, 'image.tar'), layoutArchive(image, 'localhost:5000/a/b:tag'));
  await daemon.docker(['load', '-i', join(fixture.root, 'image.tar')]);
  for (const path of [
    'localhost:5000/a/b:tag',
    'localhost%3A5000%2Fa%2Fb%3Atag',
    image.config.digest,
    image.config.digest.slice(7, 19),
  ]) {
    const answer = await daemon.exchange(
      `GET /v1.51/images/${path}/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n`,
    );
    t.regex(answer, /^HTTP\/1\.1 200 OK/, path);
    t.true(answer.includes(`"Id":"${image.config.digest}"`), path);
  }
});

test('docker load, tag, save, push, rmi and image prune find their way', async (t) => {
  await using fixture = await openStore();
  await using registry = await startRegistry();
  await using daemon = await startFakeDaemon(fixture.store);
  const archive = join(fixture.root, 'image.tar');
  await writeFile(archive, layoutArchive(image, 'thing:1'));
  t.is((await daemon.docker(['load', '-q', '-i', archive])).stdout, 'Loaded image: thing:1\n');
  const target = `${registry.host}/pushed:2`;
  t.is((await daemon.docker(['tag', 'thing:1', target])).exitCode, 0);
  t.regex((await daemon.docker(['push', target])).stdout, /2: digest: sha256:[0-9a-f]{64} size: \d+/);
  const saved = await daemon.docker(['save', '-o', join(fixture.root, 'saved.tar'), 'thing:1']);
  t.is(saved.exitCode, 0, saved.stderr);
  t.is((await daemon.docker(['rmi', target])).exitCode, 0);
  t.regex((await daemon.docker(['rmi', 'thing:1'])).stdout, /Untagged: thing:1\n(.*\n)*Deleted: sha256:/);
  t.regex((await daemon.docker(['load', '-i', join(fixture.root, 'saved.tar')])).stdout, /Loaded image: thing:1/);
  t.regex((await daemon.docker(['image', 'prune', '-af'])).stdout, /Total reclaimed space: [1-9]/);
  t.is((await daemon.docker(['images', '-q'])).stdout, '');
});

test('docker import makes an image of a tar', async (t) => {
  await using fixture = await openStore();
  await using daemon = await startFakeDaemon(fixture.store);
  const tar = join(fixture.root, 'root.tar');
  await writeFile(tar, noiseTar());
  const imported = await daemon.docker(['import', tar, 'made:here']);
  t.regex(imported.stdout, /^sha256:[0-9a-f]{64}\n$/, imported.stderr);
  t.is((await daemon.docker(['images', '--format', '{{.Repository}}:{{.Tag}}'])).stdout, 'made:here\n');
});

test("an image that is nowhere is Docker's error, for a pull, an inspection and a removal", async (t) => {
  await using fixture = await openStore();
  await using registry = await startRegistry();
  await using daemon = await startFakeDaemon(fixture.store);
  const pulled = await daemon.docker(['pull', `${registry.host}/no/such:tag`]);
  t.is(pulled.exitCode, 1);
  t.regex(pulled.stderr, /Error response from daemon: .*(not found|manifest unknown)/);
  t.regex((await daemon.docker(['image', 'inspect', 'nowhere'])).stderr, /No such image: nowhere:latest/);
  t.regex((await daemon.docker(['rmi', 'nowhere'])).stderr, /No such image: nowhere:latest/);
  t.regex((await daemon.docker(['pull', 'UPPER'])).stderr, /must be lowercase/);
  t.regex((await daemon.docker(['image', 'ls', '--filter', 'nonsense=1'])).stderr, /invalid filter 'nonsense'/);
});

test('docker login succeeds with the right password and not with a wrong one', async (t) => {
  await using fixture = await openStore();
  await using registry = await startRegistry({ htpasswd: HTPASSWD });
  await using daemon = await startFakeDaemon(fixture.store);
  const wrong = await daemon.docker(['login', '-u', 'ann', '--password-stdin', registry.host], { stdin: 'guess' });
  t.is(wrong.exitCode, 1);
  t.regex(wrong.stderr, /login attempt to .* failed with status: 401 Unauthorized/);
  const right = await daemon.docker(['login', '-u', 'ann', '--password-stdin', registry.host], { stdin: 'secret' });
  t.is(right.exitCode, 0, right.stderr);
  t.regex(right.stdout, /^Login Succeeded$/m);
  const body = JSON.stringify({ username: 'ann', password: 'guess', serveraddress: registry.host });
  const head = `POST /v1.51/auth HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\n`;
  t.regex(await daemon.exchange(`${head}Content-Length: ${body.length}\r\n\r\n${body}`), /^HTTP\/1\.1 401 /);
});

test('a load of garbage is an ordinary error, with nothing left behind', async (t) => {
  await using fixture = await openStore();
  await using daemon = await startFakeDaemon(fixture.store);
  await writeFile(join(fixture.root, 'bad.tar'), noise(100_000, 'bad'));
  const loaded = await daemon.docker(['load', '-i', join(fixture.root, 'bad.tar')]);
  t.is(loaded.exitCode, 1);
  t.is((await daemon.docker(['images', '-q'])).stdout, '');
});

function noiseTar(): Buffer {
  return (
    createImage({ layers: [{ file: noise(10_000, 'import') }], compression: 'none' }).layers[0]?.bytes ??
    Buffer.alloc(0)
  );
}
