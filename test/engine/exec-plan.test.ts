import test from 'ava';
import { EngineError } from '../../src/core/errors.ts';
import { encodeStdoutText, execFailureExitCode, execFailureText, planExec } from '../../src/engine/exec-plan.ts';

const RECORD: Parameters<typeof planExec>[0] = {
  config: { Env: ['PATH=/bin', 'A=1', 'B=2'], User: 'ada', WorkingDir: '/srv' },
  hostConfig: { CapDrop: ['ALL'], SecurityOpt: ['no-new-privileges'], Ulimits: [{ Name: 'nofile', Soft: 1, Hard: 2 }] },
  hostname: 'lovelace',
  isolation: 'os',
};

const REQUEST = {
  command: ['id', '-u'],
  tty: false,
  stdin: true,
  stdout: true,
  stderr: true,
  environment: [],
  user: '',
  workingDirectory: '',
  isPrivileged: false,
  detachKeys: undefined,
  size: undefined,
};

const OPTIONS = { detach: false, size: undefined, hostCapabilities: new Set(['CAP_CHOWN', 'CAP_KILL']) };

test("an exec has the container's settings where it names none", (t) => {
  const { process, user, stdin } = planExec(RECORD, REQUEST, OPTIONS);

  t.like(process, {
    terminal: false,
    args: ['id', '-u'],
    env: ['HOSTNAME=lovelace', 'PATH=/bin', 'A=1', 'B=2'],
    cwd: '/srv',
    capabilities: { bounding: [], effective: [], permitted: [] },
    rlimits: [{ type: 'RLIMIT_NOFILE', soft: 1, hard: 2 }],
    noNewPrivileges: true,
  });
  t.is(user, 'ada');
  t.true(stdin);
});

test('its own environment, user, directory, privileges and terminal go over them', (t) => {
  const request = {
    ...REQUEST,
    tty: true,
    environment: ['A=one', 'B', 'C=3', 'TERM=vt100'],
    user: '0:0',
    workingDirectory: '/tmp',
    isPrivileged: true,
    size: { height: 24, width: 80 },
  };
  const planned = planExec(RECORD, request, OPTIONS);
  const resized = planExec(RECORD, request, { ...OPTIONS, detach: true, size: { height: 40, width: 100 } });

  t.like(planned.process, {
    terminal: true,
    env: ['HOSTNAME=lovelace', 'PATH=/bin', 'A=one', 'C=3', 'TERM=vt100'],
    cwd: '/tmp',
    capabilities: { bounding: ['CAP_CHOWN', 'CAP_KILL'] },
  });
  t.is(planned.user, '0:0');
  t.deepEqual(planned.terminalSize, { height: 24, width: 80 });
  t.deepEqual(resized.terminalSize, { height: 40, width: 100 });
  t.false(resized.stdin);
});

test('a program that cannot be started gives the code and the text of Docker', (t) => {
  const failure = (code: 'command-not-found' | 'command-not-executable' | 'invalid-argument', shimCode: string) =>
    new EngineError(code, 'exec: "x": reason', { details: { shimCode } });
  const user = new EngineError('invalid-argument', 'unable to find user x', { details: { shimCode: 'no-such-user' } });
  const runtime = new EngineError(
    'command-not-found',
    'exec failed: unable to start container process: exec: "x": reason',
  );

  t.is(execFailureExitCode(failure('command-not-found', 'command-not-found')), 127);
  t.is(execFailureExitCode(failure('command-not-executable', 'command-not-executable')), 126);
  t.is(execFailureExitCode(failure('invalid-argument', 'bad-working-directory')), 127);
  t.is(execFailureExitCode(user), 126);
  t.is(execFailureText(user), 'unable to find user x');
  const expected =
    'OCI runtime exec failed: exec failed: unable to start container process: exec: "x": reason: unknown';
  t.is(execFailureText(failure('command-not-found', 'command-not-found')), expected);
  t.is(execFailureText(runtime), expected);
  t.deepEqual([...encodeStdoutText('ab', false)], [1, 0, 0, 0, 0, 0, 0, 2, 97, 98]);
  t.is(encodeStdoutText('ab', true).toString(), 'ab');
});
