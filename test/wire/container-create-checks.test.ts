import test from 'ava';
import { containerCreateSchema } from '../../src/wire/docker/container-config.ts';
import { checkContainerCreate, checkContainerName } from '../../src/wire/docker/container-create-checks.ts';

const options = { allowsSeveralNetworks: true };

test('what docker run sends passes, with its nulls and fields we do not know', (t) => {
  const sent = {
    Hostname: '',
    ExposedPorts: {},
    Env: null,
    Cmd: ['true'],
    Image: 'busybox',
    Volumes: {},
    Entrypoint: null,
    OnBuild: null,
    Labels: {},
    HostConfig: {
      Binds: null,
      NetworkMode: 'default',
      RestartPolicy: { Name: 'no', MaximumRetryCount: 0 },
      ConsoleSize: [0, 0],
      Novelty: { a: 1 },
    },
    NetworkingConfig: { EndpointsConfig: { default: null } },
  };
  const checked = checkContainerCreate(containerCreateSchema.parse(sent), options);
  t.deepEqual(checked.HostConfig?.['Novelty'], { a: 1 });
});

test('a command may be one text, as old clients send it', (t) => {
  t.deepEqual(containerCreateSchema.parse({ Cmd: 'true', Entrypoint: 'sh' }).Cmd, ['true']);
});

test("names are Docker's: two characters at least, with or without the slash", (t) => {
  t.is(checkContainerName(undefined), undefined);
  t.is(checkContainerName(''), undefined);
  t.is(checkContainerName('/web.1_a-b'), '/web.1_a-b');
  for (const bad of ['a', '-a', 'a b', 'ä1', '//ab', '/']) {
    t.throws(() => checkContainerName(bad), {
      message: `Invalid container name (${bad}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
    });
  }
});

test('what contradicts itself is refused', (t) => {
  const refused = (body: object): string =>
    t.throws(() => checkContainerCreate(containerCreateSchema.parse({ Image: 'busybox', ...body }), options))
      ?.message ?? '';
  t.regex(refused({ HostConfig: { RestartPolicy: { Name: 'sometimes' } } }), /unknown policy 'sometimes'/);
  t.regex(
    refused({ HostConfig: { RestartPolicy: { Name: 'always', MaximumRetryCount: 3 } } }),
    /maximum retry count can only be used with 'on-failure'/,
  );
  t.regex(
    refused({ HostConfig: { RestartPolicy: { Name: 'on-failure', MaximumRetryCount: -1 } } }),
    /cannot be negative/,
  );
  t.regex(refused({ Healthcheck: { Interval: 5 } }), /Interval in Healthcheck cannot be less than 1ms/);
  t.regex(refused({ Env: ['A=\0'] }), /zero byte/);
});
