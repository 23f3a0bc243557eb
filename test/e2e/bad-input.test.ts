import { request } from 'node:http';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { busyboxImage, packImages } from '../support/archive.ts';
import { run, TestDaemon } from '../support/daemon.ts';

function post(
  socketPath: string,
  path: string,
  body: string,
  type = 'application/json',
): Promise<{ status: number; body: string }> {
  return new Promise((done, reject) => {
    const outgoing = request({ socketPath, path, method: 'POST', headers: { 'content-type': type } }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      answer.on('end', () => done({ status: answer.statusCode ?? 0, body: text }));
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

test.serial('wrong wishes are refused with what was asked and what there is', async (t) => {
  await using daemon = await TestDaemon.start(t);
  await daemon.load();
  const refusal = async (...args: string[]): Promise<string> => {
    const { code, stderr } = await daemon.docker(['run', '--rm', ...args]);
    t.is(code, 125, args.join(' '));
    return stderr;
  };

  t.regex(await refusal('-m', '1', 'busybox', 'true'), /minimum memory limit allowed is 6MB/i);
  t.regex(
    await refusal('-m', '900g', 'busybox', 'true'),
    /memory limit of 921600 MiB is more than this host's \d+ MiB/,
  );
  t.regex(await refusal('--cpus', '999', 'busybox', 'true'), /range of CPUs is from 0.01 to/i);
  t.regex(await refusal('--cap-add', 'NONSENSE', 'busybox', 'true'), /unknown capability/);
  t.regex(await refusal('--network', 'nowhere', 'busybox', 'true'), /network nowhere not found/);
  t.regex(
    await refusal('-v', '/tmp:/mnt', 'busybox', 'true'),
    /HostConfig\.Binds is not supported .*: bind mounts and volumes/,
  );
  t.regex(await refusal('--name', '-x-', 'busybox', 'true'), /Invalid container name/);
  t.regex(await refusal('--pull', 'never', 'nosuchimage', 'true'), /No such image: nosuchimage:latest/);
  t.is((await daemon.docker(['ps', '-aq'])).stdout, '');
});

test.serial('malformed requests get Docker’s answers', async (t) => {
  await using daemon = await TestDaemon.start(t);
  const { socketPath } = daemon;

  const malformed = await post(socketPath, '/v1.51/containers/create', '{"Image":');
  const wrongType = await post(socketPath, '/v1.51/containers/create', '{}', 'text/plain');
  const unknownPath = await post(socketPath, '/v1.51/no/such/path', '');
  const tooNew = await post(socketPath, '/v1.99/containers/create', '{}');

  t.is(malformed.status, 400);
  t.is(wrongType.status, 400);
  t.deepEqual(unknownPath, { status: 404, body: '{"message":"page not found"}\n' });
  t.is(tooNew.status, 400);
  t.regex(tooNew.body, /client version 1\.99 is too new\. Maximum supported API version is 1\.51/);
});

test.serial('archives that are none, or lie, load nothing', async (t) => {
  await using daemon = await TestDaemon.start(t);
  const load = async (data: Buffer): Promise<string> => {
    const path = join(daemon.root, 'bad.tar');
    await writeFile(path, data);
    const { code, stderr } = await daemon.docker(['load', '-i', path]);
    t.not(code, 0);
    return stderr;
  };
  const good = await packImages([await busyboxImage()]);
  const lying = Buffer.from(good);
  lying.write('#!', good.indexOf('from the image\n'));

  t.not(await load(Buffer.from('this is no tar at all')), '');
  t.not(await load(good.subarray(0, good.length / 2)), '');
  t.regex(await load(lying), /sha256|digest|diff/i);
  t.is((await daemon.docker(['images', '-q'])).stdout, '');
});

test.serial('a registry that is not there is named', async (t) => {
  await using daemon = await TestDaemon.start(t);

  const { code, stderr } = await daemon.docker(['pull', '127.0.0.1:1/nothing/here:1']);

  t.is(code, 1);
  t.regex(stderr, /127\.0\.0\.1:1/);
});

test.serial('without QEMU the vm wall says what is missing, and the other wall still works', async (t) => {
  // A PATH with everything that the daemon needs but QEMU.
  const tools = `/tmp/bh-tools-${process.pid}`;
  await mkdir(tools, { recursive: true });
  // The daemon needs them to its very end.
  t.teardown(() => run('rm', ['-rf', tools]));
  await run('sh', [
    '-c',
    `PATH=/usr/sbin:/usr/bin:/sbin:/bin; for p in runc nft sh readlink dirname; do ln -sf "$(command -v $p)" ${tools}/$p; done`,
  ]);
  await chmod(tools, 0o755);
  await using daemon = await TestDaemon.start(t, [], { PATH: tools });
  await daemon.load();

  const machine = await daemon.docker(['run', '--rm', '--isolation', 'vm', 'busybox', 'true']);
  const namespaces = await daemon.docker(['run', '--rm', '--isolation', 'os', 'busybox', 'echo', 'works']);

  t.is(machine.code, 125);
  t.regex(
    machine.stderr,
    /isolation vm is not possible on this host: .*qemu-system-x86_64 is not installed.*--isolation os/,
  );
  t.deepEqual(namespaces, { code: 0, stdout: 'works\n', stderr: '' });
});

test.serial('--accelerator kvm is refused where KVM cannot run an unmodified guest', async (t) => {
  await using daemon = await TestDaemon.start(t);
  const probe = await daemon.bulkhead(['doctor']);

  t.is(probe.code, 0);
  t.regex(probe.stdout, /isolation vm\s+works/);
  t.regex(probe.stdout, /isolation os\s+works/);
  if (/runs unmodified guests/.test(probe.stdout)) return;
  const refused = await run('bin/bulkhead', [
    'daemon',
    '--accelerator',
    'kvm',
    '--data-root',
    `${daemon.root}/k`,
    '--exec-root',
    `${daemon.root}/r`,
    '-H',
    `unix://${daemon.root}/k.sock`,
  ]);
  t.not(refused.code, 0);
  t.regex(refused.stderr, /--accelerator kvm: .*\/dev\/kvm/);
});
