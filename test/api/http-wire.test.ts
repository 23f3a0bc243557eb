import test from 'ava';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { startFakeDaemon, type FakeDaemon } from './fake-daemon.ts';

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

interface AskOptions {
  readonly headers?: Record<string, string>;
  readonly body?: string;
}

function ask(daemon: FakeDaemon, method: string, path: string, options: AskOptions = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      { socketPath: daemon.socketPath, method, path, headers: { ...options.headers }, agent: false },
      (response) => {
        let body = '';
        response.on('data', (chunk: Buffer) => (body += chunk.toString()));
        response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
      },
    );
    request.on('error', reject);
    request.end(options.body);
  });
}

const JSON_HEADERS = { 'Content-Type': 'application/json' };

test('ping by GET and HEAD carries the negotiation headers', async (t) => {
  await using daemon = await startFakeDaemon();
  const expected = {
    'api-version': '1.51',
    'docker-experimental': 'false',
    ostype: 'linux',
    server: 'Docker/28.5.2 (linux)',
    swarm: 'inactive',
    'builder-version': '1',
    pragma: 'no-cache',
    'cache-control': 'no-cache, no-store, must-revalidate',
  };
  const get = await ask(daemon, 'GET', '/_ping');
  t.is(get.body, 'OK');
  t.like(get.headers, expected);
  const head = await ask(daemon, 'HEAD', '/_ping');
  t.like(head.headers, { ...expected, 'content-length': '0' });
});

test("versions out of range are refused in Docker's words, below 1.24 as plain text", async (t) => {
  await using daemon = await startFakeDaemon();
  const tooNew = await ask(daemon, 'GET', '/v1.99/version');
  t.is(tooNew.status, 400);
  t.is(tooNew.headers['content-type'], 'application/json');
  t.deepEqual(JSON.parse(tooNew.body), {
    message: 'client version 1.99 is too new. Maximum supported API version is 1.51',
  });
  const tooOld = await ask(daemon, 'GET', '/v1.12/version');
  t.is(tooOld.status, 400);
  t.is(tooOld.headers['content-type'], 'text/plain; charset=utf-8');
  t.is(
    tooOld.body,
    'client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version\n',
  );
  for (const version of ['/v1.24', '/v1.51', '']) t.is((await ask(daemon, 'GET', `${version}/version`)).status, 200);
});

test('unknown paths, wrong methods and endpoints that do not exist yet are 404 page not found, with the version headers', async (t) => {
  await using daemon = await startFakeDaemon();
  const requests = [
    ['GET', '/'],
    ['GET', '/nonsense'],
    ['POST', '/containers/json'],
    ['PUT', '/version'],
    ['GET', '/v1.51/containers/x/nonsense'],
    ['POST', '/build'],
    ['POST', '/session'],
    ['GET', '/%zz'],
    ['GET', '/v1.51'],
  ] as const;
  for (const [method, path] of requests) {
    const answer = await ask(daemon, method, path);
    t.is(answer.status, 404, path);
    t.is(answer.headers['content-type'], 'application/json', path);
    t.is(answer.headers['api-version'], '1.51', path);
    t.deepEqual(JSON.parse(answer.body), { message: 'page not found' }, path);
  }
});

test('every endpoint with a JSON body refuses other types, broken JSON and content after it', async (t) => {
  await using daemon = await startFakeDaemon();
  for (const path of ['/containers/create', '/containers/x/update', '/volumes/create', '/auth']) {
    const refusals: (readonly [AskOptions, string | RegExp])[] = [
      [
        { headers: { 'Content-Type': 'text/plain' }, body: '{}' },
        "unsupported Content-Type header (text/plain): must be 'application/json'",
      ],
      [{ headers: JSON_HEADERS, body: '{"Image":' }, /^invalid JSON: /],
      [{ headers: JSON_HEADERS, body: '{"Image":"a"} trash' }, 'unexpected content after JSON'],
      [{ headers: JSON_HEADERS, body: '{"Image":"}"}{}' }, 'unexpected content after JSON'],
      [{ headers: JSON_HEADERS, body: '[1]' }, /^invalid JSON: /],
      [{ headers: JSON_HEADERS, body: '   ' }, 'invalid JSON: got EOF while reading request body'],
    ];
    for (const [options, expected] of refusals) {
      const answer = await ask(daemon, 'POST', path, options);
      const { message } = JSON.parse(answer.body) as { message: string };
      t.is(answer.status, 400, `${path} ${options.body}`);
      t.true(typeof expected === 'string' ? message === expected : expected.test(message), message);
    }
  }
});

test('stats and update refuse what contradicts itself, and what is not there', async (t) => {
  await using daemon = await startFakeDaemon();
  const contradiction = await ask(daemon, 'GET', '/containers/x/stats?one-shot=1');
  const missing = await ask(daemon, 'GET', '/containers/x/stats?stream=0');
  const policy = await ask(daemon, 'POST', '/containers/x/update', {
    headers: JSON_HEADERS,
    body: JSON.stringify({ RestartPolicy: { Name: 'sometimes' } }),
  });

  t.is(contradiction.status, 400);
  t.is(missing.status, 404);
  t.is(policy.status, 400);
});

test("create refuses what is wrong in itself, in Docker's words", async (t) => {
  await using daemon = await startFakeDaemon();
  const create = (body: unknown, version = 'v1.51'): Promise<Answer> =>
    ask(daemon, 'POST', `/${version}/containers/create`, { headers: JSON_HEADERS, body: JSON.stringify(body) });
  const empty = 'config cannot be empty in order to create a container';
  const cases: (readonly [unknown, string])[] = [
    [{}, empty],
    [{ HostConfig: {} }, empty],
    [{ Image: 'busybox', Env: ['=x'] }, 'invalid environment variable: =x'],
    [
      { Image: 'busybox', WorkingDir: 'a/b' },
      "the working directory 'a/b' is invalid, it needs to be an absolute path",
    ],
    [
      { Image: 'busybox', HostConfig: { AutoRemove: true, RestartPolicy: { Name: 'always' } } },
      "can't create 'AutoRemove' container with restart policy",
    ],
  ];
  for (const [body, message] of cases) {
    const answer = await create(body);
    t.is(answer.status, 400);
    t.deepEqual(JSON.parse(answer.body), { message });
  }
  const twoNetworks = { Image: 'busybox', NetworkingConfig: { EndpointsConfig: { a: {}, b: {} } } };
  t.is((await create(twoNetworks, 'v1.43')).status, 400);
  t.is((await create(twoNetworks, 'v1.44')).status, 201);
  const wrongType = await create({ Image: 'busybox', HostConfig: { Memory: 'much' } });
  t.regex((JSON.parse(wrongType.body) as { message: string }).message, /^invalid JSON: HostConfig\.Memory: /);
});

test('a body past the limit is refused before it is all there', async (t) => {
  await using daemon = await startFakeDaemon();
  const socket = await daemon.connect();
  socket.on('error', () => undefined);
  socket.write(
    'POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n',
  );
  const chunk = Buffer.concat([Buffer.from('100000\r\n'), Buffer.alloc(1024 * 1024, 0x20), Buffer.from('\r\n')]);
  for (let sent = 0; sent < 9; sent += 1) socket.write(chunk);
  const [answer] = (await once(socket, 'data')) as [Buffer];
  socket.destroy();
  t.regex(answer.toString(), /^HTTP\/1\.1 400 [\s\S]*request body is larger than 8388608 bytes/);
});

test('start takes no body, and a started container answers 304 without one', async (t) => {
  await using daemon = await startFakeDaemon();
  await daemon.docker(['create', '--name', 'box', 'busybox', 'sleep', '30']);
  const refused = await ask(daemon, 'POST', '/containers/box/start', { headers: JSON_HEADERS, body: '{"Binds":[]}' });
  t.is(refused.status, 400);
  t.is((await ask(daemon, 'POST', '/containers/box/start', { headers: JSON_HEADERS, body: '{}' })).status, 204);
  const again = await ask(daemon, 'POST', '/containers/box/start');
  t.deepEqual([again.status, again.body], [304, '']);
});

test('parameters come from a form body too', async (t) => {
  await using daemon = await startFakeDaemon();
  await daemon.docker(['create', '--name', 'box', 'busybox', 'true']);
  const headers = { 'Content-Type': 'application/x-www-form-urlencoded' };
  t.is((await ask(daemon, 'POST', '/containers/box/rename', { headers, body: 'name=crate' })).status, 204);
  t.is((await ask(daemon, 'GET', '/containers/crate/json')).status, 200);
});

test('filters are taken in both encodings, and nothing else', async (t) => {
  await using daemon = await startFakeDaemon();
  const list = (filters: string): Promise<Answer> =>
    ask(daemon, 'GET', `/volumes?filters=${encodeURIComponent(filters)}`);
  t.is((await list('{"label":{"a=b":true}}')).status, 200);
  t.is((await list('{"label":["a=b"]}')).status, 200);
  for (const bad of ['{"label":"a"}', '{"label":[1]}', 'x', '[]']) {
    const answer = await list(bad);
    t.is(answer.status, 400, bad);
    t.deepEqual(JSON.parse(answer.body), { message: 'invalid filter' }, bad);
  }
  t.deepEqual(JSON.parse((await list('{"colour":["a"]}')).body), { message: "invalid filter 'colour'" });
});

test('numbers, times and conditions that are none are refused by name', async (t) => {
  await using daemon = await startFakeDaemon();
  await daemon.docker(['create', '--name', 'box', 'busybox', 'true']);
  const requests = [
    ['POST', '/containers/box/stop?t=soon', /parameter t/],
    ['POST', '/containers/box/resize?h=1', /invalid resize width/],
    ['POST', '/containers/box/resize?h=-1&w=1', /invalid resize height "-1"/],
    ['POST', '/containers/box/wait?condition=never', /invalid condition: "never"/],
    ['GET', '/containers/box/logs?stdout=1&since=yesterday', /parameter since/],
    ['GET', '/containers/box/logs', /you must choose at least one stream/],
    ['GET', '/events?since=5&until=4', /`since` time cannot be after `until` time/],
    ['GET', '/containers/json?limit=x', /parameter limit/],
  ] as const;
  for (const [method, path, expected] of requests) {
    const answer = await ask(daemon, method, path);
    t.is(answer.status, 400, path);
    t.regex((JSON.parse(answer.body) as { message: string }).message, expected);
  }
});

test('the headers of a wait come at once, and its answer when the container ends', async (t) => {
  await using daemon = await startFakeDaemon();
  await daemon.docker(['run', '-d', '--name', 'box', 'busybox', 'sh', '-c', 'sleep 1; exit 5']);
  const socket = await daemon.connect();
  socket.write('POST /v1.51/containers/box/wait HTTP/1.1\r\nHost: d\r\n\r\n');
  const [headers] = (await once(socket, 'data')) as [Buffer];
  t.regex(headers.toString(), /^HTTP\/1\.1 200 OK\r\n/);
  t.notRegex(headers.toString(), /StatusCode/);
  const [body] = (await once(socket, 'data')) as [Buffer];
  t.regex(body.toString(), /\{"StatusCode":5\}/);
  socket.destroy();
});

test('a hundred requests at once are all answered', async (t) => {
  await using daemon = await startFakeDaemon();
  const answers = await Promise.all(
    Array.from({ length: 100 }, (_, index) =>
      ask(daemon, 'POST', `/containers/create?name=box${index}`, {
        headers: JSON_HEADERS,
        body: '{"Image":"busybox","Cmd":["true"]}',
      }),
    ),
  );
  t.true(answers.every(({ status }) => status === 201));
  t.is((JSON.parse((await ask(daemon, 'GET', '/containers/json?all=1')).body) as unknown[]).length, 100);
});

test('an offer of HTTP/2 in an ordinary request is passed over', async (t) => {
  await using daemon = await startFakeDaemon();
  const answer = await daemon.exchange(
    'GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n',
    '\r\n\r\nOK',
  );
  t.regex(answer, /^HTTP\/1\.1 200 OK/);
});

test('bytes that are no HTTP are answered with 400, and the server goes on', async (t) => {
  await using daemon = await startFakeDaemon();
  t.regex(await daemon.exchange('\x16\x03\x01\x02\x00\x01\r\n\r\n'), /^HTTP\/1\.1 400 Bad Request/);
  t.is((await ask(daemon, 'GET', '/_ping')).status, 200);
});

test('events end for a client that goes away, and replay up to a moment that has passed', async (t) => {
  await using daemon = await startFakeDaemon();
  const socket = await daemon.connect();
  socket.write('GET /events HTTP/1.1\r\nHost: d\r\n\r\n');
  await once(socket, 'data');
  t.is(daemon.engine.events.subscriptions, 1);
  socket.destroy();
  while (daemon.engine.events.subscriptions > 0) await delay(5);
  await daemon.docker(['create', '--name', 'box', 'busybox', 'true']);
  const replay = await ask(daemon, 'GET', `/events?since=1&until=${Math.ceil(Date.now() / 1000)}.5`);
  const event = JSON.parse(replay.body) as Record<string, unknown>;
  t.like(event, { status: 'create', from: 'busybox', Type: 'container', Action: 'create' });
});
