import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { PassThrough, Writable, type Readable } from 'node:stream';
import { EngineError } from '../../src/core/errors.ts';
import { isRunning, transition, type ContainerEvent } from '../../src/core/container-state.ts';
import type {
  Attachment,
  AttachOptions,
  ContainerService,
  ContainerView,
  EventLog,
  Filters,
  LogOptions,
  WaitCondition,
  WaitResult,
} from '../../src/engine/engine.ts';
import type { ContainerCreateRequest } from '../../src/wire/docker/container-config.ts';
import type { ContainerUpdateRequest } from '../../src/wire/docker/container-update.ts';

/** The only image there is. */
const IMAGE = 'busybox';
const IMAGE_ID = `sha256:${'ab'.repeat(32)}`;

interface FakeContainer {
  view: ContainerView;
  process: ChildProcessWithoutNullStreams | undefined;
  readonly log: Buffer[];
  readonly attached: Set<PassThrough>;
  readonly waiting: Set<(result: WaitResult | 'removed') => void>;
}

export class FakeContainers implements ContainerService {
  readonly #containers = new Map<string, FakeContainer>();
  readonly #events: EventLog;
  readonly #calls: string[];
  /** Attachments that were closed by their client. */
  closedAttachments = 0;

  constructor(events: EventLog, calls: string[]) {
    this.#events = events;
    this.#calls = calls;
  }

  create(request: ContainerCreateRequest, name: string | undefined): Promise<{ id: string; warnings: string[] }> {
    this.#calls.push('create');
    const image = request.Image ?? '';
    if (image !== IMAGE && image !== `${IMAGE}:latest`) {
      throw new EngineError('not-found', `No such image: ${image.includes(':') ? image : `${image}:latest`}`);
    }
    const id = randomBytes(32).toString('hex');
    const plainName = (name ?? `fake_${id.slice(0, 8)}`).replace(/^\//, '');
    const holder = [...this.#containers.values()].find(({ view }) => view.name === plainName);
    if (holder !== undefined) {
      throw new EngineError(
        'conflict',
        `Conflict. The container name "/${plainName}" is already in use by container "${holder.view.id}". You have to remove (or rename) that container to be able to reuse that name.`,
      );
    }
    const { HostConfig: hostConfig, NetworkingConfig: _networking, ...config } = request;
    const view: ContainerView = {
      id,
      name: plainName,
      createdAtMs: Date.now(),
      imageId: IMAGE_ID,
      imageReference: image,
      config,
      hostConfig: hostConfig ?? {},
      command: [...(request.Entrypoint ?? []), ...(request.Cmd ?? [])],
      state: { status: 'created' },
      restartCount: 0,
      logPath: `/fake/${id}.log`,
      hostnamePath: '',
      hostsPath: '',
      resolvConfPath: '',
      facts: { wall: 'vm', accelerator: 'tcg', driver: 'qemu', vcpus: 2, memoryBytes: 256 * 1024 * 1024 },
      networks: {},
      ports: { '80/tcp': [{ hostIp: '0.0.0.0', hostPort: 32768 }], '81/tcp': null },
      phases: [{ name: 'spawned', monotonicNs: 1 }],
    };
    this.#containers.set(id, { view, process: undefined, log: [], attached: new Set(), waiting: new Set() });
    this.#publish('create', view);
    return Promise.resolve({ id, warnings: [] });
  }

  list({ all }: { all: boolean; limit: number; filters: Filters }): ContainerView[] {
    return [...this.#containers.values()].map(({ view }) => view).filter(({ state }) => all || isRunning(state));
  }

  inspect(nameOrId: string): ContainerView {
    return this.#find(nameOrId).view;
  }

  async start(nameOrId: string): Promise<'started' | 'already-running'> {
    this.#calls.push('start');
    const container = this.#find(nameOrId);
    if (isRunning(container.view.state)) return 'already-running';
    const [program = '', ...args] = container.view.command;
    const child = spawn(program, args, { stdio: 'pipe' });
    try {
      await new Promise((resolve, reject) => child.once('spawn', () => resolve(undefined)).once('error', reject));
    } catch (error) {
      const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT';
      const reason = isMissing ? 'executable file not found in $PATH' : 'permission denied';
      const exitCode = isMissing ? 127 : 126;
      this.#change(container, { type: 'startFailed', error: reason, exitCode });
      this.#settle(container, exitCode);
      throw new EngineError(
        isMissing ? 'command-not-found' : 'command-not-executable',
        `failed to create task for container: exec: "${program}": ${reason}`,
        { cause: error },
      );
    }
    container.process = child;
    child.stdin.on('error', () => undefined);
    this.#change(container, { type: 'started', pid: child.pid ?? 0, atMs: Date.now() });
    this.#publish('start', container.view);
    child.stdout.on('data', (chunk: Buffer) => this.#output(container, 1, chunk));
    child.stderr.on('data', (chunk: Buffer) => this.#output(container, 2, chunk));
    if (container.view.config.OpenStdin !== true) child.stdin.end();
    child.once('close', (code, signal) => this.#exited(container, code ?? (signal === 'SIGKILL' ? 137 : 143)));
    return 'started';
  }

  async stop(nameOrId: string): Promise<'stopped' | 'not-running'> {
    const container = this.#find(nameOrId);
    if (!isRunning(container.view.state)) return 'not-running';
    await this.kill(nameOrId, 'SIGTERM');
    return 'stopped';
  }

  async restart(nameOrId: string): Promise<void> {
    await this.stop(nameOrId);
    await this.start(nameOrId);
  }

  async kill(nameOrId: string, signal: string | undefined): Promise<void> {
    const container = this.#find(nameOrId);
    if (!isRunning(container.view.state)) {
      throw new EngineError('wrong-state', `container ${container.view.id} is not running`);
    }
    const { result } = this.wait(nameOrId, 'next-exit', new AbortController().signal);
    container.process?.kill((signal ?? 'SIGKILL') as NodeJS.Signals);
    await result;
  }

  pause(nameOrId: string): Promise<void> {
    const container = this.#find(nameOrId);
    container.process?.kill('SIGSTOP');
    this.#change(container, { type: 'paused' });
    return Promise.resolve();
  }

  unpause(nameOrId: string): Promise<void> {
    const container = this.#find(nameOrId);
    container.process?.kill('SIGCONT');
    this.#change(container, { type: 'unpaused' });
    return Promise.resolve();
  }

  update(nameOrId: string, request: ContainerUpdateRequest): Promise<{ warnings: string[] }> {
    const container = this.#find(nameOrId);
    container.view = { ...container.view, hostConfig: { ...container.view.hostConfig, ...request } };
    return Promise.resolve({ warnings: [] });
  }

  resize(nameOrId: string, size: { height: number; width: number }): Promise<void> {
    this.#find(nameOrId);
    this.#calls.push(`resize ${size.height}x${size.width}`);
    return Promise.resolve();
  }

  rename(nameOrId: string, name: string): Promise<void> {
    const container = this.#find(nameOrId);
    container.view = { ...container.view, name: name.replace(/^\//, '') };
    return Promise.resolve();
  }

  wait(nameOrId: string, condition: WaitCondition, signal: AbortSignal): { result: Promise<WaitResult> } {
    this.#calls.push(`wait ${condition}`);
    const container = this.#find(nameOrId);
    const { state } = container.view;
    if (condition === 'not-running' && !isRunning(state)) {
      return { result: Promise.resolve({ exitCode: state.status === 'exited' ? state.exitCode : 0, error: '' }) };
    }
    let last: WaitResult = { exitCode: 0, error: '' };
    const result = new Promise<WaitResult>((resolve, reject) => {
      signal.addEventListener('abort', () => reject(new EngineError('cancelled', 'wait was cancelled')));
      const observe = (event: WaitResult | 'removed'): void => {
        if (event !== 'removed') last = event;
        if (event !== 'removed' && condition === 'removed') return;
        container.waiting.delete(observe);
        resolve(last);
      };
      container.waiting.add(observe);
    });
    return { result };
  }

  remove(nameOrId: string, options: { force: boolean }): Promise<void> {
    const container = this.#find(nameOrId);
    if (isRunning(container.view.state) && !options.force) {
      throw new EngineError(
        'conflict',
        `cannot remove container "/${container.view.name}": container is running: stop the container before removing or force remove`,
      );
    }
    container.process?.kill('SIGKILL');
    this.#remove(container);
    return Promise.resolve();
  }

  prune(): Promise<{ deleted: string[]; reclaimedBytes: number }> {
    const stopped = [...this.#containers.values()].filter(({ view }) => !isRunning(view.state));
    stopped.forEach((container) => this.#remove(container));
    return Promise.resolve({ deleted: stopped.map(({ view }) => view.id), reclaimedBytes: 0 });
  }

  attach(nameOrId: string, options: AttachOptions): Promise<Attachment> {
    this.#calls.push('attach');
    const container = this.#find(nameOrId);
    if (options.detachKeys === 'bad') throw new EngineError('invalid-argument', 'invalid detach keys (bad)');
    const output = new PassThrough();
    if (options.logs) container.log.forEach((frame) => output.write(frame));
    if (options.stream) container.attached.add(output);
    else output.end();
    const input = options.stdin ? this.#stdin(container) : undefined;
    let isClosed = false;
    const close = (): void => {
      if (!isClosed) this.closedAttachments += 1;
      isClosed = true;
      container.attached.delete(output);
    };
    return Promise.resolve({ tty: container.view.config.Tty === true, output, input, close });
  }

  logs(nameOrId: string, options: LogOptions): Promise<{ tty: boolean; output: Readable }> {
    const container = this.#find(nameOrId);
    const output = new PassThrough();
    container.log.slice(-(options.tail ?? container.log.length)).forEach((frame) => output.write(frame));
    if (options.follow && isRunning(container.view.state)) container.attached.add(output);
    else output.end();
    return Promise.resolve({ tty: container.view.config.Tty === true, output });
  }

  /** Kills what still runs. */
  [Symbol.dispose](): void {
    for (const { process } of this.#containers.values()) process?.kill('SIGKILL');
  }

  #stdin(container: FakeContainer): Writable {
    const started = async (): Promise<Writable> => {
      while (container.process === undefined) await new Promise((resolve) => setTimeout(resolve, 5));
      return container.process.stdin;
    };
    return new Writable({
      write: (chunk, _encoding, done) => void started().then((stdin) => stdin.write(chunk, done)),
      final: (done) => void started().then((stdin) => stdin.end(done)),
    });
  }

  #output(container: FakeContainer, stream: 1 | 2, chunk: Buffer): void {
    const frame = container.view.config.Tty === true ? chunk : encodeFrame(stream, chunk);
    container.log.push(frame);
    for (const output of container.attached) {
      if (output.write(frame)) continue;
      // The slowest reader sets the pace: the process waits while its pipe is not read.
      container.process?.stdout.pause();
      output.once('drain', () => container.process?.stdout.resume());
    }
  }

  #exited(container: FakeContainer, exitCode: number): void {
    this.#change(container, { type: 'exited', exitCode, oomKilled: false, error: '', atMs: Date.now() });
    this.#publish('die', container.view, { exitCode: String(exitCode) });
    this.#settle(container, exitCode);
  }

  /** A failed start ends attachments and waits too: the CLI waits for both. */
  #settle(container: FakeContainer, exitCode: number): void {
    container.attached.forEach((output) => output.end());
    container.attached.clear();
    [...container.waiting].forEach((observe) => observe({ exitCode, error: '' }));
    if (container.view.hostConfig.AutoRemove === true) this.#remove(container);
  }

  #remove(container: FakeContainer): void {
    this.#containers.delete(container.view.id);
    container.attached.forEach((output) => output.end());
    [...container.waiting].forEach((observe) => observe('removed'));
    this.#publish('destroy', container.view);
  }

  #change(container: FakeContainer, event: ContainerEvent): void {
    const state = transition(container.view.state, event);
    if (state === undefined)
      throw new EngineError('internal', `impossible: ${event.type} in ${container.view.state.status}`);
    container.view = { ...container.view, state };
  }

  #publish(action: string, view: ContainerView, more: Record<string, string> = {}): void {
    const attributes = { ...view.config.Labels, image: view.imageReference, name: view.name, ...more };
    this.#events.publish({ type: 'container', action, actorId: view.id, attributes });
  }

  #find(nameOrId: string): FakeContainer {
    const wanted = nameOrId.replace(/^\//, '');
    const found = [...this.#containers.values()].find(
      ({ view }) => view.name === wanted || (wanted.length > 0 && view.id.startsWith(wanted)),
    );
    if (found === undefined) throw new EngineError('not-found', `No such container: ${nameOrId}`);
    return found;
  }
}

/** Docker's multiplexing: stream number, three zeros, length, payload. */
export function encodeFrame(stream: 1 | 2, payload: Buffer): Buffer {
  const header = Buffer.alloc(8);
  header[0] = stream;
  header.writeUInt32BE(payload.length, 4);
  return Buffer.concat([header, payload]);
}
