import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import test from 'ava';
import { RegistryTransport } from '../../src/oci/registry/transport.ts';
import { thrownBy } from './store-fixture.ts';
import { startTlsServer } from './tls-fixture.ts';

interface Proxy extends AsyncDisposable {
  readonly url: string;
  readonly targets: string[];
}

/** Sends every CONNECT to `port` on loopback, whatever host was asked for. */
async function startProxy(port: number): Promise<Proxy> {
  const targets: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer();
  server.on('connect', (request, client: Socket) => {
    targets.push(request.url ?? '');
    const upstream = connect(port, '127.0.0.1', () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n');
      client.pipe(upstream).pipe(client);
    });
    for (const socket of [client, upstream]) sockets.add(socket.on('error', () => undefined));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    targets,
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close');
      for (const socket of sockets) socket.destroy();
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

test('a registry elsewhere is reached through the proxy, with its certificate checked', async (t) => {
  await using registry = await startTlsServer((_request, response) => response.end('{}'), 'DNS:registry.example');
  await using proxy = await startProxy(registry.port);
  const options = {
    insecureRegistries: [],
    stallTimeoutMs: 1000,
    connectTimeoutMs: 2000,
    userAgent: 'test',
    certificatesDirectory: '/nonexistent',
  };
  await using transport = new RegistryTransport({ ...options, proxy: proxy.url, noProxy: '' });

  const error = await thrownBy(transport.send({ method: 'GET', url: 'https://registry.example/v2/' }));

  t.regex(error.message, /certificate signed by unknown authority/);
  t.deepEqual(proxy.targets, ['registry.example:443']);
});

test('a registry on this host, or one excepted, is reached without the proxy', async (t) => {
  await using registry = await startTlsServer((_request, response) => response.end('{}'));
  await using proxy = await startProxy(registry.port);
  const options = {
    insecureRegistries: [],
    stallTimeoutMs: 1000,
    connectTimeoutMs: 2000,
    userAgent: 'test',
    certificatesDirectory: '/nonexistent',
  };
  await using transport = new RegistryTransport({ ...options, proxy: proxy.url, noProxy: '0.0.0.0' });

  const local = await transport.send({ method: 'GET', url: `https://localhost:${registry.port}/v2/` });
  await thrownBy(transport.send({ method: 'GET', url: `https://0.0.0.0:${registry.port}/v2/` }));

  t.is(local.status, 200);
  t.deepEqual(proxy.targets, []);
});
