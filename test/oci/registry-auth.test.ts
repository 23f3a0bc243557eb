import test from 'ava';
import { parseChallenges } from '../../src/oci/registry/challenge.ts';
import { registryOfServerAddress } from '../../src/oci/registry/login.ts';
import { createImage } from './image-fixture.ts';
import { sendJson, serveImage, startServer, type Handler, type HostileRegistry } from './hostile-registry.ts';
import { putImage, startRegistry } from './registry-fixture.ts';
import { openStore, thrownBy } from './store-fixture.ts';

const image = createImage({ layers: [{ secret: 'x' }] });
/** bcrypt of "secret" for "ann", made once with cost 5. */
const HTPASSWD = 'ann:$2b$05$ykBqQRsCknnp4W4Cnb1v7eibKqzdyBLVT.2M/eHNDax3pjqa1UV.6';

test('challenges are read with quotes, commas and several schemes', (t) => {
  const [bearer, basic] = parseChallenges(
    'Bearer realm="https://a/t?x=1,2",service="s \\"q\\"",scope="a,b", Basic realm=plain',
  );

  t.is(bearer?.scheme, 'bearer');
  t.is(bearer?.parameters.get('realm'), 'https://a/t?x=1,2');
  t.is(bearer?.parameters.get('service'), 's "q"');
  t.is(basic?.scheme, 'basic');
  t.is(basic?.parameters.get('realm'), 'plain');
});

test('a registry with passwords gives its image to who has one, and to nobody else', async (t) => {
  await using registry = await startRegistry({ htpasswd: HTPASSWD });
  const authorization = `Basic ${Buffer.from('ann:secret').toString('base64')}`;
  await putImage(registry.url, 'private', 'latest', image, authorization);
  await using fixture = await openStore();

  const anonymous = await thrownBy(fixture.store.pull(`${registry.host}/private`));
  const wrong = await thrownBy(
    fixture.store.pull(`${registry.host}/private`, { auth: { username: 'ann', password: 'guess' } }),
  );
  const { image: pulled } = await fixture.store.pull(`${registry.host}/private`, {
    auth: { username: 'ann', password: 'secret' },
  });

  t.regex(anonymous.message, /no basic auth credentials/);
  t.is(anonymous.code, 'unauthorized');
  t.is(wrong.message, 'unauthorized: authentication required');
  t.is(pulled.id, image.config.digest);
});

test('a login is checked with the registry', async (t) => {
  await using registry = await startRegistry({ htpasswd: HTPASSWD });
  await using fixture = await openStore();

  const wrong = await thrownBy(fixture.store.login(registry.host, { username: 'ann', password: 'guess' }));

  t.is(wrong.message, `login attempt to http://${registry.host}/v2/ failed with status: 401 Unauthorized`);
  t.is(wrong.code, 'unauthorized');
  await t.notThrowsAsync(fixture.store.login(registry.url, { username: 'ann', password: 'secret' }));
});

test('the address of a login names a registry', (t) => {
  t.is(registryOfServerAddress('https://index.docker.io/v1/'), 'docker.io');
  t.is(registryOfServerAddress(''), 'docker.io');
  t.is(registryOfServerAddress('http://localhost:5000'), 'localhost:5000');
  t.is(registryOfServerAddress('ghcr.io'), 'ghcr.io');
});

interface TokenServer extends AsyncDisposable {
  readonly registry: HostileRegistry;
  readonly grants: URLSearchParams[];
}

/** A registry that wants `Bearer good`, with its token server in the same process under the name localhost. */
async function startTokenRegistry(
  grant: (parameters: URLSearchParams, authorization: string | undefined) => string | undefined,
): Promise<TokenServer> {
  const grants: URLSearchParams[] = [];
  const answer: Handler = (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const query = new URL(request.url ?? '', 'http://x').searchParams;
      const parameters = request.method === 'POST' ? new URLSearchParams(Buffer.concat(chunks).toString()) : query;
      grants.push(parameters);
      const token = grant(parameters, request.headers.authorization);
      if (token === undefined) sendJson(response, 401, { details: 'incorrect username or password' });
      else sendJson(response, 200, { token });
    });
  };
  const tokens = await startServer(answer, 'localhost');
  const challenge = `Bearer realm="http://${tokens.host}/token",service="test"`;
  const registry = await startServer(
    serveImage(image, (request, response) => {
      if (request.headers.authorization === 'Bearer good') return false;
      const error = request.headers.authorization === undefined ? '' : ',error="insufficient_scope"';
      sendJson(
        response,
        401,
        { errors: [{ code: 'UNAUTHORIZED', message: 'authentication required' }] },
        { 'www-authenticate': challenge + error },
      );
      return true;
    }),
  );
  return {
    registry,
    grants,
    [Symbol.asyncDispose]: async () => {
      await registry[Symbol.asyncDispose]();
      await tokens[Symbol.asyncDispose]();
    },
  };
}

test('a token is asked for with service and scope, once for the whole pull', async (t) => {
  await using server = await startTokenRegistry(() => 'good');
  await using fixture = await openStore();

  const { image: pulled } = await fixture.store.pull(`${server.registry.host}/team/app`);

  t.is(pulled.id, image.config.digest);
  t.is(server.grants.length, 1);
  t.is(server.grants[0]?.get('service'), 'test');
  t.is(server.grants[0]?.get('scope'), 'repository:team/app:pull');
});

test('the password goes to the token server and never to the registry', async (t) => {
  const basic = `Basic ${Buffer.from('ann:secret').toString('base64')}`;
  await using server = await startTokenRegistry((_, authorization) => (authorization === basic ? 'good' : undefined));
  await using fixture = await openStore();

  await fixture.store.pull(`${server.registry.host}/app`, { auth: { username: 'ann', password: 'secret' } });

  t.is(server.grants[0]?.get('account'), 'ann');
  t.false(server.registry.requests.some(({ authorization }) => authorization?.startsWith('Basic')));
});

test('an identity token is exchanged by POST', async (t) => {
  await using server = await startTokenRegistry((parameters) =>
    parameters.get('refresh_token') === 'refresh-me' ? 'good' : undefined,
  );
  await using fixture = await openStore();

  await fixture.store.pull(`${server.registry.host}/app`, { auth: { identityToken: 'refresh-me' } });

  t.is(server.grants[0]?.get('grant_type'), 'refresh_token');
  t.is(server.grants[0]?.get('scope'), 'repository:app:pull');
});

test('a ready registry token is used as it is', async (t) => {
  await using server = await startTokenRegistry(() => undefined);
  await using fixture = await openStore();

  const { image: pulled } = await fixture.store.pull(`${server.registry.host}/app`, {
    auth: { registryToken: 'good' },
  });

  t.is(pulled.id, image.config.digest);
  t.is(server.grants.length, 0);
});

test('a wrong password is the token server’s word', async (t) => {
  await using server = await startTokenRegistry(() => undefined);
  await using fixture = await openStore();

  const error = await thrownBy(
    fixture.store.pull(`${server.registry.host}/app`, { auth: { username: 'ann', password: 'no' } }),
  );

  t.is(error.message, 'unauthorized: incorrect username or password');
  t.is(error.code, 'unauthorized');
});

test('a token without the right to the repository is a denied pull in the words of docker', async (t) => {
  await using server = await startTokenRegistry(() => 'weak');
  await using fixture = await openStore();

  const error = await thrownBy(fixture.store.pull(`${server.registry.host}/app`));

  t.is(
    error.message,
    `pull access denied for ${server.registry.host}/app, repository does not exist or may require 'docker login': denied: requested access to the resource is denied`,
  );
  t.is(error.code, 'not-found');
});

test('credentials are not sent to a token server over plain HTTP outside this host', async (t) => {
  await using server = await startServer((_request, response) =>
    sendJson(response, 401, {}, { 'www-authenticate': 'Bearer realm="http://192.0.2.1/token",service="x"' }),
  );
  await using fixture = await openStore();

  const error = await thrownBy(
    fixture.store.pull(`${server.host}/app`, { auth: { username: 'ann', password: 'secret' } }),
  );

  t.regex(error.message, /wants credentials sent to http:\/\/192\.0\.2\.1 over plain HTTP/);
});
