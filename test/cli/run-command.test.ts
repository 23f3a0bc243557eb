import type { Duplex } from 'node:stream';
import { text } from 'node:stream/consumers';
import test from 'ava';
import {
  answerJson,
  frame,
  startScriptedDaemon,
  type ScriptedDaemon,
  type SeenRequest,
} from '../client/scripted-daemon.ts';
import { callCli } from './cli-harness.ts';

const ID = 'ab'.repeat(32);

interface RunScript {
  readonly startFailure?: { readonly status: number; readonly message: string };
  readonly exitCode?: number;
  /** The container's doing with its streams; default writes a line on each and ends. */
  readonly program?: (stream: Duplex) => Promise<void>;
  readonly missingImage?: boolean;
}

/** A daemon that runs one container by the script. */
async function startRunDaemon(script: RunScript = {}): Promise<ScriptedDaemon> {
  let pulled = script.missingImage !== true;
  let attached: Duplex | undefined;
  let finishWait = (): void => {};
  return startScriptedDaemon({
    attach: (stream) => {
      attached = stream;
    },
    answer: ({ method, path }, response) => {
      const action = `${method} ${path.replace(ID, 'ID')}`;
      if (action === 'POST /containers/create') {
        if (pulled) answerJson(response, 201, { Id: ID, Warnings: ['careful'] });
        else answerJson(response, 404, { message: 'No such image: busybox:latest' });
      } else if (action === 'POST /images/create') {
        pulled = true;
        answerJson(response, 200, { status: 'Status: Downloaded newer image for busybox:latest' });
      } else if (action === 'POST /containers/ID/wait') {
        response.writeHead(200, { 'content-type': 'application/json' });
        response.flushHeaders();
        finishWait = () => response.end(`{"StatusCode":${script.exitCode ?? 0}}\n`);
      } else if (action === 'POST /containers/ID/start' && script.startFailure !== undefined) {
        answerJson(response, script.startFailure.status, { message: script.startFailure.message });
        finishWait();
      } else if (action === 'POST /containers/ID/start') {
        response.writeHead(204).end();
        const program = script.program ?? writeBoth;
        if (attached !== undefined) void program(attached).then(() => finishWait());
      } else if (action === 'GET /containers/ID/json') {
        answerJson(response, 200, {
          Id: ID,
          State: {},
          Config: {},
          HostConfig: {},
          Bulkhead: { phases: [{ name: 'accepted', monotonicNs: 5 }] },
        });
      } else response.writeHead(204).end();
    },
  });
}

async function writeBoth(stream: Duplex): Promise<void> {
  stream.write(frame(1, 'out\n'));
  stream.end(frame(2, 'err\n'));
}

function calls(daemon: ScriptedDaemon): string[] {
  return daemon.seen.map(({ method, path }: SeenRequest) => `${method} ${path.replace(ID, 'ID')}`);
}

test("run calls in Docker's order, tells the streams apart and exits as the program", async (t) => {
  await using daemon = await startRunDaemon({ exitCode: 42 });
  const outcome = await callCli(['-H', daemon.host, 'run', '--rm', 'busybox', 'sh', '-c', 'exit 42']);
  t.deepEqual(outcome, { exitCode: 42, stdout: 'out\n', stderr: 'WARNING: careful\nerr\n' });
  t.deepEqual(calls(daemon), [
    'HEAD /_ping',
    'POST /containers/create',
    'POST /containers/ID/attach',
    'POST /containers/ID/wait',
    'POST /containers/ID/start',
  ]);
  t.is(daemon.seen[3]?.query.get('condition'), 'removed');
  t.deepEqual(JSON.parse(daemon.seen[1]?.body ?? '').Cmd, ['sh', '-c', 'exit 42']);
});

test('stdin reaches the program and its end does too', async (t) => {
  await using daemon = await startRunDaemon({
    program: async (stream) => {
      stream.end(frame(1, (await text(stream)).toUpperCase()));
    },
  });
  const outcome = await callCli(['-H', daemon.host, 'run', '-i', 'busybox', 'cat'], { stdin: 'hello\n' });
  t.is(outcome.stdout, 'HELLO\n');
  t.is(outcome.exitCode, 0);
});

test('a missing image is pulled, and its progress kept out of stdout', async (t) => {
  await using daemon = await startRunDaemon({ missingImage: true });
  const outcome = await callCli(['-H', daemon.host, 'run', 'busybox']);
  t.is(outcome.stdout, 'out\n');
  t.is(
    outcome.stderr,
    "Unable to find image 'busybox:latest' locally\nStatus: Downloaded newer image for busybox:latest\nWARNING: careful\nerr\n",
  );
  t.deepEqual(calls(daemon).slice(1, 4), ['POST /containers/create', 'POST /images/create', 'POST /containers/create']);
});

test('--pull never does not pull', async (t) => {
  await using daemon = await startRunDaemon({ missingImage: true });
  const outcome = await callCli(['-H', daemon.host, 'run', '--pull', 'never', 'busybox']);
  t.is(outcome.exitCode, 125);
  t.regex(
    outcome.stderr,
    /^bulkhead: Error response from daemon: No such image: busybox:latest\n\nRun 'bulkhead run --help'/,
  );
});

for (const [message, exitCode] of [
  ['exec: "foo": executable file not found in $PATH', 127],
  ['exec /x: no such file or directory', 127],
  ['exec /etc: permission denied', 126],
  ['port is already allocated', 125],
] as const) {
  test(`a start that fails with "${message}" exits ${exitCode}`, async (t) => {
    await using daemon = await startRunDaemon({ startFailure: { status: exitCode === 125 ? 500 : 400, message } });
    const outcome = await callCli(['-H', daemon.host, 'run', '--rm', 'busybox', 'foo']);
    t.is(outcome.exitCode, exitCode);
    t.is(outcome.stdout, '');
  });
}

test('-d prints the id and waits for nothing', async (t) => {
  await using daemon = await startRunDaemon();
  const outcome = await callCli(['-H', daemon.host, 'run', '-d', 'busybox']);
  t.is(outcome.stdout, `${ID}\n`);
  t.deepEqual(calls(daemon), ['HEAD /_ping', 'POST /containers/create', 'POST /containers/ID/start']);
});

test('--timing tells the phases, and removes the container itself when --rm was asked for', async (t) => {
  await using daemon = await startRunDaemon();
  const outcome = await callCli(['-H', daemon.host, 'run', '--rm', '--timing', 'busybox']);
  t.regex(outcome.stderr, / 0\.0 ms .* accepted\n/);
  t.regex(outcome.stderr, / client-started\n[^]* client-created\n[^]* client-attached\n[^]* client-exit-known\n$/);
  t.deepEqual(calls(daemon).slice(-2), ['GET /containers/ID/json', 'DELETE /containers/ID']);
  t.false(JSON.parse(daemon.seen[1]?.body ?? '').HostConfig.AutoRemove);
});
