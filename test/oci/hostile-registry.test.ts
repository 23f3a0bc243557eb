import test from 'ava';
import { createImage, blobOf, noise } from './image-fixture.ts';
import { sendBlob, sendJson, serveImage, startServer } from './hostile-registry.ts';
import { openStore, thrownBy, type StoreFixture } from './store-fixture.ts';

const image = createImage({ layers: [{ 'bin/data': noise(1_000_000, 'hostile') }] });
const layer = image.layers[0] ?? image.config;
const isLayer = (url: string | undefined): boolean => url?.endsWith(`/blobs/${layer.digest}`) ?? false;

async function isEmpty({ store, files }: StoreFixture): Promise<boolean> {
  const names = [...(await files('blobs/sha256')), ...(await files('blobs/ingest')), ...(await files('layers/ingest'))];
  return store.list().length === 0 && names.length === 0;
}

test('a blob with other content of the right length is refused and leaves nothing', async (t) => {
  await using server = await startServer(
    serveImage(image, (request, response) => {
      if (!isLayer(request.url)) return false;
      sendBlob(response, blobOf(noise(layer.size, 'other'), layer.mediaType));
      return true;
    }),
  );
  await using fixture = await openStore();

  const error = await thrownBy(fixture.store.pull(`${server.host}/app`));

  t.true(error.message.startsWith(`filesystem layer verification failed for digest ${layer.digest}`));
  t.true(await isEmpty(fixture));
});

test('a blob of another length than the manifest says is refused at its header', async (t) => {
  await using server = await startServer(
    serveImage(image, (request, response) => {
      if (!isLayer(request.url)) return false;
      response.writeHead(200, { 'content-length': '1000000000000' });
      response.write('x');
      return true;
    }),
  );
  await using fixture = await openStore();

  const error = await thrownBy(fixture.store.pull(`${server.host}/app`));

  t.regex(error.message, /has the wrong size: the manifest says \d+ bytes, the registry sends 1000000000000/);
  t.true(await isEmpty(fixture));
});

test('a blob that never ends is cut at the size of the manifest', async (t) => {
  await using server = await startServer(
    serveImage(image, (request, response) => {
      if (!isLayer(request.url)) return false;
      response.writeHead(200);
      const pour = (): void => {
        while (!response.destroyed && response.write(Buffer.alloc(65_536)));
      };
      response.on('drain', pour);
      pour();
      return true;
    }),
  );
  await using fixture = await openStore();

  const error = await thrownBy(fixture.store.pull(`${server.host}/app`));

  t.regex(error.message, /has the wrong size/);
  t.true(await isEmpty(fixture));
});

test('a connection that breaks is resumed where it broke', async (t) => {
  let cuts = 0;
  await using server = await startServer(
    serveImage(image, (request, response) => {
      if (!isLayer(request.url)) return false;
      const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? '0');
      const end = cuts < 2 ? start + 300_000 : layer.size;
      cuts += 1;
      response.writeHead(start > 0 ? 206 : 200, {
        'content-length': String(layer.size - start),
        'content-range': `bytes ${start}-${layer.size - 1}/${layer.size}`,
      });
      response.write(layer.bytes.subarray(start, end), () => (end < layer.size ? response.destroy() : response.end()));
      return true;
    }),
  );
  await using fixture = await openStore();

  const { image: pulled } = await fixture.store.pull(`${server.host}/app`);

  t.is(pulled.id, image.config.digest);
  const ranges = server.requests.filter(({ url }) => isLayer(url)).map(({ range }) => range);
  t.is(ranges.length, 3);
  t.is(ranges[0], undefined);
  t.true(Number(/\d+/.exec(ranges[2] ?? '')?.[0]) > Number(/\d+/.exec(ranges[1] ?? '')?.[0]));
});

test('a server that ignores the range is read from the start again', async (t) => {
  let isFirst = true;
  await using server = await startServer(
    serveImage(image, (request, response) => {
      if (!isLayer(request.url) || !isFirst) return false;
      isFirst = false;
      response.writeHead(200, { 'content-length': String(layer.size) });
      response.write(layer.bytes.subarray(0, 500_000), () => response.destroy());
      return true;
    }),
  );
  await using fixture = await openStore();

  const { image: pulled } = await fixture.store.pull(`${server.host}/app`);

  t.is(pulled.id, image.config.digest);
});

test('a transfer that stalls is given up, and the pull with it after the last attempt', async (t) => {
  await using server = await startServer(
    serveImage(image, (request, response) => {
      if (!isLayer(request.url)) return false;
      response.writeHead(200, { 'content-length': String(layer.size) }).write(layer.bytes.subarray(0, 1000));
      return true;
    }),
  );
  await using fixture = await openStore({ registry: { stallTimeoutMs: 300, retry: { attempts: 2, firstDelayMs: 5 } } });

  const error = await thrownBy(fixture.store.pull(`${server.host}/app`));

  t.regex(error.message, /stalled/);
  t.is(server.requests.filter(({ url }) => isLayer(url)).length, 2);
  t.true(await isEmpty(fixture));
});

test('a cancelled pull stops the transfer and leaves nothing', async (t) => {
  const reached = Promise.withResolvers<void>();
  await using server = await startServer(
    serveImage(image, (request, response) => {
      if (!isLayer(request.url)) return false;
      response.writeHead(200, { 'content-length': String(layer.size) }).write(layer.bytes.subarray(0, 1000));
      reached.resolve();
      return true;
    }),
  );
  await using fixture = await openStore();
  const controller = new AbortController();

  const pulling = thrownBy(fixture.store.pull(`${server.host}/app`, { signal: controller.signal }));
  await reached.promise;
  controller.abort();
  const error = await pulling;

  t.is(error.name, 'AbortError');
  t.true(await isEmpty(fixture));
});

test('two pulls share one download, and one that gives up does not end the other', async (t) => {
  const reached = Promise.withResolvers<void>();
  const proceed = Promise.withResolvers<void>();
  await using server = await startServer(
    serveImage(image, (request, response) => {
      if (!isLayer(request.url)) return false;
      response.writeHead(200, { 'content-length': String(layer.size) }).write(layer.bytes.subarray(0, 200_000));
      reached.resolve();
      void proceed.promise.then(() => response.end(layer.bytes.subarray(200_000)));
      return true;
    }),
  );
  await using fixture = await openStore({ registry: { stallTimeoutMs: 10_000 } });
  const controller = new AbortController();

  const first = thrownBy(fixture.store.pull(`${server.host}/app`, { signal: controller.signal }));
  await reached.promise;
  const joined = Promise.withResolvers<void>();
  // Who joins is told at once how far the download is.
  const second = fixture.store.pull(`${server.host}/app`, {
    onProgress: ({ type }) => type === 'downloading' && joined.resolve(),
  });
  await joined.promise;
  controller.abort();
  await first;
  proceed.resolve();
  const { image: pulled } = await second;

  t.is(pulled.id, image.config.digest);
  t.is(server.requests.filter(({ url }) => isLayer(url)).length, 1);
});

test('a manifest of one gigabyte is refused before it is read', async (t) => {
  let sentBytes = 0;
  await using server = await startServer((request, response) => {
    if (request.url === '/v2/') {
      response.end('{}');
      return;
    }
    response.writeHead(200, {
      'content-length': String(1024 ** 3),
      'content-type': 'application/vnd.oci.image.manifest.v1+json',
    });
    const pour = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(65_536, 0x20))) sentBytes += 65_536;
    };
    response.on('drain', pour);
    pour();
  });
  await using fixture = await openStore();

  const error = await thrownBy(fixture.store.pull(`${server.host}/app`));

  t.regex(error.message, /larger than the 4194304 bytes allowed/);
  t.true(sentBytes < 32 * 1024 * 1024);
});

test('a manifest of unknown length is cut at the limit', async (t) => {
  await using server = await startServer((request, response) => {
    if (request.url === '/v2/') {
      response.end('{}');
      return;
    }
    response.writeHead(200);
    const pour = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(65_536, 0x20)));
    };
    response.on('drain', pour);
    pour();
  });
  await using fixture = await openStore();

  const error = await thrownBy(fixture.store.pull(`${server.host}/app`));

  t.regex(error.message, /larger than the 4194304 bytes allowed/);
});

test('a redirect to another host carries no credentials and its content is still verified', async (t) => {
  await using storage = await startServer((_request, response) => sendBlob(response, layer), 'localhost');
  await using server = await startServer(
    serveImage(image, (request, response) => {
      if (request.headers.authorization === undefined) {
        sendJson(response, 401, {}, { 'www-authenticate': 'Basic realm="test"' });
        return true;
      }
      if (!isLayer(request.url)) return false;
      response.writeHead(307, { location: `http://${storage.host}/blob` }).end();
      return true;
    }),
  );
  await using fixture = await openStore();

  const { image: pulled } = await fixture.store.pull(`${server.host}/app`, {
    auth: { username: 'ann', password: 'secret' },
  });

  t.is(pulled.id, image.config.digest);
  t.deepEqual(
    storage.requests.map(({ authorization }) => authorization),
    [undefined],
  );
});

test('a redirect to plain HTTP on a host that is not allowed it is refused', async (t) => {
  await using server = await startServer(
    serveImage(image, (request, response) => {
      if (!isLayer(request.url)) return false;
      response.writeHead(302, { location: 'http://192.0.2.1/blob' }).end();
      return true;
    }),
  );
  await using fixture = await openStore({ registry: { retry: { attempts: 1 } } });

  const error = await thrownBy(fixture.store.pull(`${server.host}/app`));

  t.regex(error.message, /redirected to plain HTTP on 192\.0\.2\.1/);
});

test('schema 1 and things that are no images are refused by name', async (t) => {
  const documents: Record<string, object> = {
    old: { schemaVersion: 1, fsLayers: [] },
    chart: {
      schemaVersion: 2,
      config: { ...image.config, mediaType: 'application/vnd.cncf.helm.config.v1+json', bytes: undefined },
      layers: [],
    },
    both: { schemaVersion: 2, config: {}, layers: [], manifests: [] },
  };
  await using server = await startServer((request, response) => {
    const name = (request.url ?? '').split('/').at(-1) ?? '';
    sendJson(response, 200, documents[name] ?? {});
  });
  await using fixture = await openStore();

  const [old, chart, both] = await Promise.all(
    ['old', 'chart', 'both'].map((tag) => thrownBy(fixture.store.pull(`${server.host}/app:${tag}`))),
  );

  t.regex(old?.message ?? '', /schema 1/);
  t.is(old?.code, 'unsupported');
  t.regex(chart?.message ?? '', /no container image: its configuration is application\/vnd\.cncf\.helm/);
  t.regex(both?.message ?? '', /ambiguous/);
});

test('a manifest that is not what its digest says is refused', async (t) => {
  await using server = await startServer(serveImage(image));
  await using fixture = await openStore();

  const error = await thrownBy(fixture.store.pull(`${server.host}/app@${layer.digest}`));

  t.regex(error.message, /^manifest verification failed for digest/);
});

test('a server error is tried again, and given up after the attempts', async (t) => {
  await using server = await startServer(
    serveImage(image, (request, response) => {
      if (!isLayer(request.url)) return false;
      sendJson(response, 503, { errors: [{ code: 'UNAVAILABLE', message: 'later' }] });
      return true;
    }),
  );
  await using fixture = await openStore({ registry: { retry: { attempts: 3, firstDelayMs: 1 } } });

  const error = await thrownBy(fixture.store.pull(`${server.host}/app`));

  t.is(error.message, 'unavailable: later');
  t.is(server.requests.filter(({ url }) => isLayer(url)).length, 3);
});

test('a registry that is down is named with its address', async (t) => {
  const server = await startServer(() => undefined);
  await server[Symbol.asyncDispose]();
  await using fixture = await openStore();

  const error = await thrownBy(fixture.store.pull(`${server.host}/app`));

  t.is(error.message, `Get "http://${server.host}/v2/": dial tcp ${server.host}: connect: connection refused`);
  t.is(error.code, 'unavailable');
});
