import { EngineError } from '../../core/errors.ts';
import { ReadableWatch } from '../../platform/ffi/descriptors.ts';
import {
  answerRead,
  beginRun,
  closeHandle,
  finishRun,
  getRegisters,
  getSystemRegisters,
  kickVcpu,
  setCpuid,
  setRegisters,
  setSystemRegisters,
  vcpuEventDescriptor,
  type NativeHandle,
} from '../../platform/ffi/kvm.ts';
import { decodeExit, type VcpuExit } from './exits.ts';
import type { CpuidEntry } from './kvm.ts';
import {
  decodeRegisters,
  decodeSystemRegisters,
  encodeSystemRegisters,
  registerNames,
  type Registers,
  type SystemRegisters,
} from './registers.ts';

/**
 * A virtual processor. Guest code runs on a thread of its own, so the event loop goes on while it runs, and any number of vCPUs can run at
 * once. One call at a time: while a run is in progress everything but `kick` and disposal fails with `conflict`.
 */
export class Vcpu implements Disposable {
  readonly index: number;
  readonly #handle: NativeHandle;
  readonly #onDispose: () => void;
  #endRun: ((reason: EngineError) => void) | undefined;
  #closed = false;

  private constructor(handle: NativeHandle, index: number, onDispose: () => void) {
    this.#handle = handle;
    this.index = index;
    this.#onDispose = onDispose;
  }

  get #live(): NativeHandle {
    if (this.#closed) throw new EngineError('wrong-state', `vCPU ${this.index} is disposed`);
    return this.#handle;
  }

  /** For `Vm.createVcpu`. */
  static adopt(handle: NativeHandle, index: number, onDispose: () => void): Vcpu {
    return new Vcpu(handle, index, onDispose);
  }

  /** General registers as they are now. */
  get registers(): Registers {
    return decodeRegisters(getRegisters(this.#live));
  }

  /** Sets the registers that are named, 64-bit unsigned, and keeps the others. */
  setRegisters(changes: Partial<Registers>): void {
    const next = { ...this.registers, ...changes };
    const bad = registerNames.find((name) => BigInt.asUintN(64, next[name]) !== next[name]);
    if (bad !== undefined) {
      throw new EngineError(
        'invalid-argument',
        `register ${bad} of vCPU ${this.index} must be a 64-bit unsigned number`,
      );
    }
    setRegisters(this.#live, next);
  }

  /** Segments, descriptor tables and control registers as they are now. */
  get systemRegisters(): SystemRegisters {
    return decodeSystemRegisters(getSystemRegisters(this.#live));
  }

  /** Sets the system registers that are named, and keeps the others. The kernel refuses combinations that no processor has. */
  setSystemRegisters(changes: Partial<SystemRegisters>): void {
    setSystemRegisters(this.#live, encodeSystemRegisters({ ...this.systemRegisters, ...changes }));
  }

  /** What the guest's CPUID instruction answers; before the first run. Without it the guest has none of the optional features. */
  setCpuid(entries: readonly CpuidEntry[]): void {
    setCpuid(this.#live, entries);
  }

  /** The value that the guest's read gets, little-endian; after an `io-in` or `mmio-read` exit, before the next run. */
  answer(bytes: Uint8Array): void {
    answerRead(this.#live, bytes);
  }

  /** Ends the run in progress, if any, with an `interrupted` exit; says whether there was one. A kick is never kept for a later run. */
  kick(): boolean {
    return kickVcpu(this.#live);
  }

  /**
   * Lets the guest run until it needs something, and tells what. An aborted `signal` ends the run: the promise then gives
   * `interrupted`, or the exit that came at the same moment; guest state is intact and the vCPU can run on.
   *
   * Rejects with `cancelled` if the signal was aborted before the start, `conflict` if it runs already, `wrong-state` if it is disposed
   * (before or meanwhile) or waits for an answer.
   */
  async run({ signal }: { signal?: AbortSignal } = {}): Promise<VcpuExit> {
    if (signal?.aborted === true) throw new EngineError('cancelled', `the run of vCPU ${this.index} was cancelled`);
    beginRun(this.#live);
    const ended = Promise.withResolvers<undefined>();
    const kick = (): void => void this.kick();
    const watch = ReadableWatch.open(vcpuEventDescriptor(this.#live), () => ended.resolve(undefined));
    this.#endRun = (reason) => {
      // The descriptor is closed right after, so the watch has to go now.
      watch[Symbol.dispose]();
      ended.reject(reason);
    };
    signal?.addEventListener('abort', kick);
    try {
      await ended.promise;
      return decodeExit(finishRun(this.#live));
    } finally {
      watch[Symbol.dispose]();
      signal?.removeEventListener('abort', kick);
      this.#endRun = undefined;
    }
  }

  /** Ends a run in progress (its promise rejects with `wrong-state`) and frees the vCPU. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#endRun?.(new EngineError('wrong-state', `vCPU ${this.index} was disposed while it ran`));
    this.#onDispose();
    closeHandle(this.#handle);
  }
}
