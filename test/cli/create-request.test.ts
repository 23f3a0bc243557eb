import test from 'ava';
import { CONTAINER_FLAGS } from '../../src/cli/container/container-flags.ts';
import { buildCreateRequest } from '../../src/cli/container/create-request.ts';
import { parseMount } from '../../src/cli/container/mount-specs.ts';
import { planPorts } from '../../src/cli/container/port-specs.ts';
import { parseFlags } from '../../src/cli/flags/parse-flags.ts';

function requestOf(line: string, environment: Record<string, string> = {}) {
  const { flags, words } = parseFlags(line.split(' '), CONTAINER_FLAGS, false);
  const [image = '', ...command] = words;
  return buildCreateRequest(flags, image, command, { environment, detached: false, consoleSize: undefined });
}

test('isolation and vCPUs go where the daemon looks for them', (t) => {
  const { HostConfig } = requestOf('--isolation os --vcpus 3 busybox');
  t.like(HostConfig, { Isolation: 'os', NanoCpus: 3e9 });
  t.throws(() => requestOf('--vcpus 1 --cpus 2 busybox'), { message: /--vcpus and --cpus/ });
});

test('limits, security and environment', (t) => {
  const request = requestOf(
    '-m 64m --memory-swap -1 --pids-limit 5 --ulimit nofile=1:2 --cap-add NET_ADMIN --read-only --tmpfs /t:size=1m --init --shm-size 1g --restart on-failure:3 -e A -e B=x -e C -l k -l a=b=c busybox',
    { A: '1' },
  );
  t.deepEqual(request.Env, ['A=1', 'B=x']);
  t.deepEqual(request.Labels, { k: '', a: 'b=c' });
  t.like(request.HostConfig, {
    Memory: 67108864,
    MemorySwap: -1,
    PidsLimit: 5,
    Ulimits: [{ Name: 'nofile', Soft: 1, Hard: 2 }],
    CapAdd: ['NET_ADMIN'],
    ReadonlyRootfs: true,
    Tmpfs: { '/t': 'size=1m' },
    Init: true,
    ShmSize: 1073741824,
    RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 3 },
  });
});

test('stdin is attached only when it is kept open, and is then closed with its first reader', (t) => {
  t.like(requestOf('busybox'), {
    AttachStdin: false,
    AttachStdout: true,
    AttachStderr: true,
    OpenStdin: false,
    StdinOnce: false,
  });
  t.like(requestOf('-i busybox'), { AttachStdin: true, OpenStdin: true, StdinOnce: true });
  t.like(requestOf('-a stdout busybox'), { AttachStdout: true, AttachStderr: false });
});

test('an empty entrypoint resets that of the image', (t) => {
  t.deepEqual(requestOf('--entrypoint= busybox ls').Entrypoint, ['']);
  t.is(requestOf('busybox').Cmd, undefined);
});

test('ports: addresses, ranges, protocols', (t) => {
  const { bindings, exposed } = planPorts(
    ['80', '127.0.0.1:8080:81/udp', '[::1]:90:90', '100-101:200-201', '300-310:82'],
    ['7-8'],
  );
  t.deepEqual(bindings, {
    '80/tcp': [{ HostIp: '', HostPort: '' }],
    '81/udp': [{ HostIp: '127.0.0.1', HostPort: '8080' }],
    '90/tcp': [{ HostIp: '::1', HostPort: '90' }],
    '200/tcp': [{ HostIp: '', HostPort: '100' }],
    '201/tcp': [{ HostIp: '', HostPort: '101' }],
    '82/tcp': [{ HostIp: '', HostPort: '300-310' }],
  });
  t.true('7/tcp' in exposed && '8/tcp' in exposed);
  for (const spec of ['abc', '1:2:3:4', '1-2:3-5', '70000', '80/xyz', ':'])
    t.throws(() => planPorts([spec], []), undefined, spec);
});

test('mounts are read field by field', (t) => {
  t.deepEqual(parseMount('type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave'), {
    Type: 'bind',
    Source: '/a',
    Target: '/b',
    ReadOnly: true,
    BindOptions: { Propagation: 'rslave' },
  });
  t.deepEqual(parseMount('type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777'), {
    Type: 'tmpfs',
    Target: '/t',
    TmpfsOptions: { SizeBytes: 1048576, Mode: 0o1777 },
  });
  t.deepEqual(parseMount('src=v,dst=/d,"volume-opt=o=a,b"'), {
    Type: 'volume',
    Source: 'v',
    Target: '/d',
    VolumeOptions: { DriverConfig: { Options: { o: 'a,b' } } },
  });
  for (const spec of ['type=bind,src=/a', 'dst=/a,colour=red', 'dst=/a,ro=maybe'])
    t.throws(() => parseMount(spec), undefined, spec);
});
