import { setTimeout as delay } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { BULKHEAD, run, TestDaemon } from '../support/daemon.ts';

/** A terminal of a test's own: tmux with its own server. */
class Terminal implements AsyncDisposable {
  readonly #server: string;

  private constructor(server: string) {
    this.#server = server;
  }

  static async open(name: string, command: string): Promise<Terminal> {
    const terminal = new Terminal(`bh-test-${process.pid}-${name}`);
    await terminal.#tmux('-f', '/dev/null', 'new-session', '-d', '-x', '100', '-y', '30', command);
    return terminal;
  }

  async type(...keys: string[]): Promise<void> {
    await this.#tmux('send-keys', ...keys);
  }

  /** Types a question again and again until its answer is right: a new size takes its time to the other end. */
  async ask(t: ExecutionContext, question: string, answer: RegExp): Promise<void> {
    for (let attempt = 0; attempt < 10; attempt++) {
      await this.type(question, 'Enter');
      await delay(300);
      if (answer.test(await this.#tmux('capture-pane', '-p'))) return;
    }
    await this.until(t, answer);
  }

  async resize(columns: number, rows: number): Promise<void> {
    await this.#tmux('resize-window', '-x', String(columns), '-y', String(rows));
  }

  async until(t: ExecutionContext, pattern: RegExp): Promise<string> {
    const deadline = Date.now() + 30_000;
    for (;;) {
      const screen = await this.#tmux('capture-pane', '-p');
      if (pattern.test(screen)) return screen;
      if (Date.now() > deadline) {
        t.fail(`${String(pattern)} did not appear:\n${screen}`);
        return screen;
      }
      await delay(50);
    }
  }

  async #tmux(...args: string[]): Promise<string> {
    return (await run('tmux', ['-L', this.#server, ...args])).stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tmux('kill-server');
  }
}

for (const wall of ['vm', 'os'] as const) {
  test.serial(`${wall}: a terminal has the client's size, follows it, and is left by ctrl-p ctrl-q`, async (t) => {
    await using daemon = await TestDaemon.start(t);
    await daemon.load();
    const docker = `docker -H unix://${daemon.socketPath}`;

    await using terminal = await Terminal.open(
      wall,
      `sh -c '${docker} run -it --isolation ${wall} --name tty busybox sh; echo LEFT $?; sleep 60'`,
    );
    await terminal.until(t, /\/ #/);
    await terminal.type('stty size; tty', 'Enter');
    await terminal.until(t, /30 100\s+\/dev\//);
    await terminal.resize(120, 40);
    await terminal.ask(t, 'stty size', /40 120/);
    await terminal.type('vi /tmp/file', 'Enter');
    await terminal.until(t, /~\s+~\s+~/);
    await terminal.type('ihello', 'Escape', ':wq', 'Enter');
    await terminal.type('clear; cat /tmp/file', 'Enter');
    await terminal.until(t, /hello/);
    await terminal.type('C-p', 'C-q');
    await terminal.until(t, /LEFT 0/);
    const running = await daemon.docker(['inspect', '-f', '{{.State.Status}} {{.Config.Tty}}', 'tty']);
    await daemon.docker(['rm', '-f', 'tty']);

    t.is(running.stdout, 'running true\n');
  });

  test.serial(
    `${wall}: a terminal of exec has the client's size, follows it, is left by its keys, and lives on`,
    async (t) => {
      await using daemon = await TestDaemon.start(t);
      await daemon.load();
      await daemon.docker(['run', '-d', '--isolation', wall, '--name', 'box', 'busybox', 'sleep', '1000']);
      const clients = [
        ['docker', `docker -H unix://${daemon.socketPath}`, '2001', /LEFT 1/],
        ['own', `${BULKHEAD} -H unix://${daemon.socketPath}`, '2002', /LEFT 0/],
      ] as const;

      for (const [name, client, seconds, left] of clients) {
        await using terminal = await Terminal.open(
          `exec-${wall}-${name}`,
          `sh -c '${client} exec -it --detach-keys ctrl-a,d box sh; echo LEFT $?; sleep 60'`,
        );
        await terminal.until(t, /\/ #/);
        await terminal.type('stty size; tty', 'Enter');
        await terminal.until(t, /30 100\s+\/dev\/pts/);
        await terminal.resize(120, 40);
        await terminal.ask(t, 'stty size', /40 120/);
        await terminal.type(`exec sleep ${seconds}`, 'Enter');
        await terminal.type('C-a', 'd');
        await terminal.until(t, left);
        const processes = await daemon.docker(['exec', 'box', 'ps', '-o', 'args']);

        t.regex(processes.stdout, new RegExp(`^sleep ${seconds}$`, 'm'));
      }
    },
  );
}
