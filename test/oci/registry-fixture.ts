import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TestImage } from './image-fixture.ts';

export interface RealRegistry extends AsyncDisposable {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  readonly url: string;
}

export interface RealRegistryOptions {
  /** One `user:bcrypt` line; the registry then demands basic authentication. */
  readonly htpasswd?: string;
  /** A registry it mirrors: reads pass through, pushes are refused. */
  readonly proxyUrl?: string;
}

const START_DEADLINE_MS = 10_000;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Debian's docker-registry on a loopback port of its own, with its storage in a temporary directory. */
export async function startRegistry(options: RealRegistryOptions = {}): Promise<RealRegistry> {
  await using stack = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'bulkhead-registry-'));
  stack.defer(() => rm(directory, { recursive: true, force: true }));
  const host = `127.0.0.1:${await freePort()}`;
  const lines = [
    'version: 0.1',
    'log: { level: error, accesslog: { disabled: true } }',
    `storage: { filesystem: { rootdirectory: ${join(directory, 'data')} }, delete: { enabled: true } }`,
    `http: { addr: '${host}' }`,
  ];
  if (options.proxyUrl !== undefined) lines.push(`proxy: { remoteurl: '${options.proxyUrl}' }`);
  if (options.htpasswd !== undefined) {
    await writeFile(join(directory, 'htpasswd'), `${options.htpasswd}\n`);
    lines.push(`auth: { htpasswd: { realm: test, path: ${join(directory, 'htpasswd')} } }`);
  }
  await writeFile(join(directory, 'config.yml'), lines.join('\n'));
  const child = spawn('docker-registry', ['serve', join(directory, 'config.yml')], { stdio: 'ignore' });
  const exited = once(child, 'exit');
  stack.defer(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  const url = `http://${host}`;
  const deadline = Date.now() + START_DEADLINE_MS;
  while (!(await answers(url))) {
    if (Date.now() > deadline || child.exitCode !== null) throw new Error(`docker-registry did not start on ${host}`);
    await sleep(20);
  }
  const owned = stack.move();
  return { host, url, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

async function answers(url: string): Promise<boolean> {
  return fetch(`${url}/v2/`).then(
    async (response) => {
      await response.arrayBuffer();
      return true;
    },
    () => false,
  );
}

/** Puts an image there with plain requests, independent of the code under test. */
export async function putImage(
  url: string,
  path: string,
  tag: string,
  image: TestImage,
  authorization?: string,
): Promise<void> {
  const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
  for (const blob of [...image.layers, image.config]) {
    const started = await fetch(`${url}/v2/${path}/blobs/uploads/`, { method: 'POST', headers });
    const target = new URL(started.headers.get('location') ?? '', url);
    target.searchParams.set('digest', blob.digest);
    const put = await fetch(target, {
      method: 'PUT',
      headers: { ...headers, 'content-type': 'application/octet-stream' },
      body: new Uint8Array(blob.bytes),
    });
    if (put.status !== 201) throw new Error(`blob ${blob.digest}: ${put.status} ${await put.text()}`);
  }
  await putManifest(url, path, tag, image.manifest, authorization);
}

export async function putManifest(
  url: string,
  path: string,
  tag: string,
  manifest: { mediaType: string; bytes: Buffer },
  authorization?: string,
): Promise<void> {
  const headers: Record<string, string> = {
    'content-type': manifest.mediaType,
    ...(authorization !== undefined && { authorization }),
  };
  const put = await fetch(`${url}/v2/${path}/manifests/${tag}`, {
    method: 'PUT',
    headers,
    body: new Uint8Array(manifest.bytes),
  });
  if (put.status !== 201) throw new Error(`manifest ${tag}: ${put.status} ${await put.text()}`);
}
