import { Readable } from 'node:stream';
import { isRunning } from '../core/container-state.ts';
import { EngineError } from '../core/errors.ts';
import type { ContainerRecord } from './container-record.ts';
import { containerPaths } from './container-view.ts';
import type { LogOptions } from './engine.ts';
import { planLogOptions } from './log-options.ts';
import { readLog } from './log-reader.ts';

const ALL_LOGS: Omit<LogOptions, 'stdout' | 'stderr' | 'follow'> = {
  sinceNs: undefined,
  untilNs: undefined,
  tail: undefined,
  timestamps: false,
  details: false,
};

/** The logs of containers, read back from their files. */
export class ContainerLogs {
  readonly #dataRoot: string;
  readonly #ended: (id: string) => Promise<void>;

  /** `ended` settles when nothing will write to a running container's log any more. */
  constructor(dataRoot: string, ended: (id: string) => Promise<void>) {
    this.#dataRoot = dataRoot;
    this.#ended = ended;
  }

  /** What a client asked for. */
  open(record: ContainerRecord, options: LogOptions, signal: AbortSignal): Readable {
    if (record.state.status === 'dead' || record.state.status === 'removing') {
      throw new EngineError('conflict', 'can not get logs from container which is dead or marked for removal');
    }
    if (record.hostConfig.LogConfig?.Type === 'none') {
      throw new EngineError('unsupported', 'configured logging driver does not support reading');
    }
    return this.#read(record, options, signal);
  }

  /** All that was written so far, for a client that attaches; followed when there is no live stream to go over to. */
  history(record: ContainerRecord, streams: Pick<LogOptions, 'stdout' | 'stderr' | 'follow'>): Readable {
    return this.#read(record, { ...ALL_LOGS, ...streams }, new AbortController().signal);
  }

  #read(record: ContainerRecord, options: LogOptions, signal: AbortSignal): Readable {
    const ended = isRunning(record.state) ? this.#ended(record.id) : Promise.resolve();
    const { maxFiles } = planLogOptions(record.hostConfig);
    const { logPath: path } = containerPaths(this.#dataRoot, record.id);
    return Readable.from(readLog({ path, maxFiles, tty: record.config.Tty ?? false, ended }, options, signal), {
      objectMode: false,
    });
  }
}
