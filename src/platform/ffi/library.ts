import { existsSync } from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import { z } from 'zod';
import { EngineError, toEngineError, type ErrorCode } from '../../core/errors.ts';
import { findInstallation } from '../installation.ts';
import { functionDeclarations, structures, type FunctionName } from './declarations.ts';

/** The ABI this file is written for; see `BH_ABI_VERSION` in `native/binding/include/bulkhead.h`. */
const abiVersion = 1;

type NativeFunction = ReturnType<ReturnType<typeof koffi.load>['func']>;

/** The loaded libbulkhead. */
export interface NativeLibrary {
  readonly path: string;
  /** Calls on this thread; a negative result is thrown as an EngineError. */
  call(name: FunctionName, ...args: unknown[]): number;
  /**
   * A host effect, on a thread of libuv's pool: JSON in, JSON out, checked by `schema`. It cannot be cancelled once begun, so it is only for
   * work that ends by itself.
   */
  effect<T>(name: FunctionName, request: unknown, schema: z.ZodType<T>): Promise<T>;
  /** The same on this thread, for what takes microseconds and must be ordered with its caller. */
  effectNow<T>(name: FunctionName, request: unknown, schema: z.ZodType<T>): T;
}

const faultSchema = z.object({
  code: z.number().int(),
  errno: z.string().optional(),
  object: z.string(),
  message: z.string(),
  needed_bytes: z.number().optional(),
});

/** `BH_ERROR_*` in the engine's terms; -5 (the kernel refused) goes by its errno. */
const codesOfFaults: Readonly<Record<number, ErrorCode>> = {
  [-1]: 'invalid-argument',
  [-2]: 'wrong-state',
  [-3]: 'conflict',
  [-4]: 'invalid-argument',
  [-6]: 'internal',
  [-7]: 'wrong-state',
  [-8]: 'internal',
};

const codesOfErrnos: Readonly<Record<string, ErrorCode>> = {
  ENOENT: 'not-found',
  ENODEV: 'not-found',
  ENXIO: 'not-found',
  ESRCH: 'not-found',
  EEXIST: 'conflict',
  EBUSY: 'conflict',
  EADDRINUSE: 'conflict',
  EAGAIN: 'conflict',
  EACCES: 'forbidden',
  EPERM: 'forbidden',
  EROFS: 'forbidden',
  ENOSPC: 'resource-exhausted',
  ENOMEM: 'resource-exhausted',
  EMFILE: 'resource-exhausted',
  ENFILE: 'resource-exhausted',
  EDQUOT: 'resource-exhausted',
  EINVAL: 'invalid-argument',
  ENOTDIR: 'invalid-argument',
  EISDIR: 'invalid-argument',
  ENAMETOOLONG: 'invalid-argument',
  ENOSYS: 'unsupported',
  EOPNOTSUPP: 'unsupported',
  ENOTBLK: 'unsupported',
  ETIMEDOUT: 'timed-out',
};

function faultError(json: string, name: string): EngineError {
  let content: unknown;
  try {
    content = JSON.parse(json);
  } catch (cause) {
    return new EngineError('internal', `${name} failed without saying why`, { cause });
  }
  const { success, data } = faultSchema.safeParse(content);
  if (!success) return new EngineError('internal', `${name} failed without saying why`, { details: { json } });
  const byErrno = data.errno === undefined ? undefined : codesOfErrnos[data.errno];
  const code = byErrno ?? codesOfFaults[data.code] ?? 'internal';
  return new EngineError(code, data.message, {
    details: { object: data.object, call: name, ...(data.errno === undefined ? {} : { errno: data.errno }) },
  });
}

type Reply = [string | null];

function decodeReply<T>(name: string, code: number, reply: Reply, schema: z.ZodType<T>): T {
  if (code < 0) throw faultError(reply[0] ?? '', name);
  try {
    return schema.parse(JSON.parse(reply[0] ?? ''));
  } catch (cause) {
    throw new EngineError('internal', `${name} gave a reply that is not understood`, { cause });
  }
}

/** `BULKHEAD_LIBRARY`, else the library of this installation or checkout. */
export function findLibrary(environment: Readonly<Record<string, string | undefined>> = process.env): string {
  const path = environment['BULKHEAD_LIBRARY'] || join(findInstallation().programs, 'libbulkhead.so');
  if (existsSync(path)) return path;
  throw new EngineError(
    'unavailable',
    `libbulkhead.so is not at ${path}: build it with \`cargo build --release -p bulkhead-binding\` in native/, or set BULKHEAD_LIBRARY`,
    { details: { path } },
  );
}

/** Loads the library at `path`; fails if it has another ABI. */
function loadLibrary(path: string): NativeLibrary {
  let library: ReturnType<typeof koffi.load>;
  try {
    library = koffi.load(path);
  } catch (cause) {
    throw new EngineError('unavailable', `cannot load ${path}`, { cause, details: { path } });
  }
  let found: number;
  try {
    found = Number(library.func(functionDeclarations.bh_abi_version)());
  } catch (cause) {
    throw new EngineError('unavailable', `${path} is not libbulkhead`, { cause, details: { path } });
  }
  if (found !== abiVersion) {
    const message = `${path} has ABI version ${found}, this program needs ${abiVersion}: install both from the same release`;
    throw new EngineError('unavailable', message, { details: { path, found, needed: abiVersion } });
  }
  for (const [name, fields] of Object.entries(structures)) koffi.struct(name, fields);
  const free = library.func(functionDeclarations.bh_free);
  koffi.disposable('BhReply', 'str', free);
  const functions = new Map<FunctionName, NativeFunction>(
    Object.entries(functionDeclarations).map(([name, declaration]) => [
      name as FunctionName,
      library.func(declaration),
    ]),
  );
  const functionNamed = (name: FunctionName): NativeFunction => {
    const found = functions.get(name);
    if (found === undefined) throw new EngineError('internal', `${name} is not declared`);
    return found;
  };
  const lastError = (): string => {
    const buffer = Buffer.alloc(4096);
    const length = Number(functionNamed('bh_last_error')(buffer, buffer.length));
    return buffer.toString('utf8', 0, Math.min(length, buffer.length - 1));
  };
  return {
    path,
    call(name, ...args) {
      const code = Number(functionNamed(name)(...args));
      if (code < 0) throw faultError(lastError(), name);
      return code;
    },
    effectNow(name, request, schema) {
      const reply: Reply = [null];
      return decodeReply(name, Number(functionNamed(name)(JSON.stringify(request), reply)), reply, schema);
    },
    effect(name, request, schema) {
      return new Promise((resolve, reject) => {
        const reply: Reply = [null];
        functionNamed(name).async(JSON.stringify(request), reply, (error: unknown, code: number) => {
          if (error !== null && error !== undefined) {
            reject(new EngineError('internal', `${name} could not be called`, { cause: error }));
            return;
          }
          try {
            resolve(decodeReply(name, code, reply, schema));
          } catch (failure) {
            reject(toEngineError(failure));
          }
        });
      });
    },
  };
}

// A loaded library and koffi's named types are state of the process itself: they cannot be had twice, so neither can this.
let loaded: NativeLibrary | undefined;

/** The process's libbulkhead, loaded at the first call. */
export function nativeLibrary(): NativeLibrary {
  loaded ??= loadLibrary(findLibrary());
  return loaded;
}
