import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { endpointsOf, isInsecureHost } from '../../src/oci/registry/endpoints.ts';
import { readHostCertificates } from '../../src/oci/registry/host-certificates.ts';
import { RegistryClient } from '../../src/oci/registry/registry-client.ts';
import { RegistryTransport } from '../../src/oci/registry/transport.ts';
import { createImage } from './image-fixture.ts';
import { serveImage, startServer } from './hostile-registry.ts';
import { openStore, thrownBy } from './store-fixture.ts';
import { startTlsServer } from './tls-fixture.ts';

const none = { mirrors: [], insecureRegistries: [] };
const image = createImage({ layers: [{ a: 'a' }] });

test('only loopback and allowed hosts are asked over plain HTTP, after HTTPS', (t) => {
  const urls = (domain: string, insecureRegistries: string[] = []): string[] =>
    endpointsOf(domain, { mirrors: [], insecureRegistries }).map(({ baseUrl }) => baseUrl);

  t.deepEqual(urls('docker.io'), ['https://registry-1.docker.io']);
  t.deepEqual(urls('quay.io'), ['https://quay.io']);
  t.deepEqual(urls('localhost:5000'), ['https://localhost:5000', 'http://localhost:5000']);
  t.deepEqual(urls('127.8.9.1:5000'), ['https://127.8.9.1:5000', 'http://127.8.9.1:5000']);
  t.deepEqual(urls('[::1]:5000'), ['https://[::1]:5000', 'http://[::1]:5000']);
  t.deepEqual(urls('localhost.evil.example'), ['https://localhost.evil.example']);
  t.deepEqual(urls('127.evil.example'), ['https://127.evil.example']);
  t.deepEqual(urls('reg.lan:5000', ['reg.lan:5000']), ['https://reg.lan:5000', 'http://reg.lan:5000']);
  t.deepEqual(urls('reg.lan:5001', ['reg.lan:5000']), ['https://reg.lan:5001']);
});

test('an allowed network is matched by address only', (t) => {
  t.true(isInsecureHost('10.1.2.3:5000', ['10.0.0.0/8']));
  t.false(isInsecureHost('11.1.2.3:5000', ['10.0.0.0/8']));
  t.false(isInsecureHost('reg.lan', ['10.0.0.0/8']));
  t.false(isInsecureHost('10.1.2.3', ['10.0.0.0/99', 'x/y']));
});

test('mirrors come first, and a mirror that is no address is refused at once', (t) => {
  const endpoints = endpointsOf('docker.io', { ...none, mirrors: ['http://localhost:5001/', 'https://m.example/hub'] });

  t.deepEqual(
    endpoints.map(({ baseUrl }) => baseUrl),
    ['http://localhost:5001', 'https://m.example/hub', 'https://registry-1.docker.io'],
  );
  t.throws(() => new RegistryClient({ mirrors: ['m.example'] }), {
    message: /registry mirror "m.example" is not valid/,
  });
  t.throws(() => new RegistryClient({ mirrors: ['http://m.example'] }), { message: /uses plain HTTP/ });
});

test('a mirror that fails is passed over for the next one', async (t) => {
  await using broken = await startServer((_request, response) => response.writeHead(500).end());
  await using lacking = await startServer((request, response) =>
    response.writeHead(request.url === '/v2/' ? 200 : 404).end(),
  );
  await using good = await startServer(serveImage(image));
  await using fixture = await openStore({
    registry: { mirrors: [broken, lacking, good].map(({ host }) => `http://${host}`) },
  });

  const { image: pulled } = await fixture.store.pull('demo', { auth: { username: 'ann', password: 'secret' } });

  t.deepEqual(pulled.repoTags, ['demo:latest']);
  t.false(good.requests.some(({ authorization }) => authorization !== undefined));
});

test('a registry on loopback may have any certificate', async (t) => {
  await using server = await startTlsServer(serveImage(image));
  await using fixture = await openStore();

  const { image: pulled } = await fixture.store.pull(`localhost:${server.port}/app`);

  t.is(pulled.id, image.config.digest);
});

test('a certificate laid down for a registry is trusted there, once it is there', async (t) => {
  await using server = await startTlsServer(serveImage(image), 'IP:0.0.0.0');
  const host = `0.0.0.0:${server.port}`;
  const certificatesDirectory = await mkdtemp(join(tmpdir(), 'bulkhead-certs-'));
  t.teardown(() => rm(certificatesDirectory, { recursive: true, force: true }));
  await using fixture = await openStore({ registry: { certificatesDirectory } });

  const before = await thrownBy(fixture.store.pull(`${host}/app`));
  await mkdir(join(certificatesDirectory, host));
  await writeFile(join(certificatesDirectory, host, 'ca.crt'), server.certificate);
  const { image: pulled } = await fixture.store.pull(`${host}/app`);

  t.regex(before.message, /certificate signed by unknown authority/);
  t.is(pulled.id, image.config.digest);
});

test('a client certificate without its key is named', async (t) => {
  const certificatesDirectory = await mkdtemp(join(tmpdir(), 'bulkhead-certs-'));
  t.teardown(() => rm(certificatesDirectory, { recursive: true, force: true }));
  await mkdir(join(certificatesDirectory, 'reg.example'));
  await writeFile(join(certificatesDirectory, 'reg.example', 'client.cert'), '');

  t.throws(() => readHostCertificates(certificatesDirectory, 'reg.example'), { message: /^missing key client\.key/ });
  t.is(readHostCertificates(certificatesDirectory, '../reg.example'), undefined);
});

test('connection failures are named as docker names them', async (t) => {
  await using plain = await startServer((_request, response) => response.end());
  await using tls = await startTlsServer((_request, response) => response.end());
  const options = {
    insecureRegistries: [],
    stallTimeoutMs: 1000,
    connectTimeoutMs: 2000,
    userAgent: 'test',
    certificatesDirectory: '/nonexistent',
  };
  await using transport = new RegistryTransport(options);
  // Linux connects 0.0.0.0 to this host, but it is no loopback address, so verification is on.
  const host = '0.0.0.0';
  const get = (url: string) => thrownBy(transport.send({ method: 'GET', url }));

  const toPlain = await get(`https://${host}:${plain.host.split(':')[1] ?? ''}/v2/`);
  const untrusted = await get(`https://${host}:${tls.port}/v2/`);
  const unknown = await get('https://no-such-host.invalid/v2/?token=secret');

  t.regex(toPlain.message, /^Get "https:\/\/0\.0\.0\.0:\d+\/v2\/": http: server gave HTTP response to HTTPS client$/);
  t.regex(untrusted.message, /tls: failed to verify certificate: x509: certificate signed by unknown authority$/);
  t.regex(unknown.message, /^Get "https:\/\/no-such-host\.invalid\/v2\/": dial tcp: lookup no-such-host\.invalid: /);
});
