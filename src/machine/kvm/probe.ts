import { readFileSync, statSync } from 'node:fs';
import { EngineError, systemErrorCode } from '../../core/errors.ts';
import type { VcpuExit } from './exits.ts';
import { kernelInstructions, readFeatures, type KernelInstruction } from './kernel-instructions.ts';
import { Kvm, type CpuidEntry } from './kvm.ts';
import { codeSelector, enterLongMode, osXsave, wordBytes } from './long-mode.ts';
import type { Vcpu } from './vcpu.ts';
import type { Vm } from './vm.ts';

/** How KVM runs guests here. `pvm`: in software, by the kernel alone, without the processor's help. */
export type KvmVendor = 'vmx' | 'svm' | 'pvm' | 'unknown';

export type KvmProbe =
  | { readonly usable: true; readonly vendor: KvmVendor; readonly details: Readonly<Record<string, unknown>> }
  | {
      readonly usable: false;
      /**
       * `no-device`: there is no KVM. `no-permission`: this user may not open it. `busy`: another hypervisor holds the processor.
       * `cannot-run-kernel`: guests run, but an unmodified Linux kernel would die.
       */
      readonly reason: 'no-device' | 'no-permission' | 'busy' | 'cannot-run-kernel';
      /** Cause and remedy, for a user. */
      readonly message: string;
      readonly details: Readonly<Record<string, unknown>>;
    };

const memoryBytes = 0x10000;
const interruptTableAddress = 0x5000n;
const handlerAddress = 0x6000n;
const stackEnd = 0x8000n;
const codeAddress = 0x8000n;
const scratchAddress = 0xa000n;
const reportPort = 0xf4;
/** `out 0xf4, al`: the guest says that it got this far. */
const report = [0xe6, reportPort] as const;
// Generous: KVM inside an emulated processor takes a second for what takes one a millisecond.
const runTimeoutMs = 5000;

/**
 * Finds out by running guests whether an unmodified Linux kernel can run on this host's KVM. Processor flags and the presence of the device
 * do not tell: KVM can exist and yet emulate a guest's kernel code, with an emulator that lacks instructions every kernel uses. Takes a few
 * milliseconds. Rejects only if KVM misbehaves in a way that has no name above.
 */
export async function probeKvm({
  path = '/dev/kvm',
  signal,
}: { path?: string; signal?: AbortSignal } = {}): Promise<KvmProbe> {
  const vendor = readVendor();
  try {
    using kvm = Kvm.open(path);
    const cpuid = kvm.supportedCpuid();
    const features = readFeatures(cpuid);
    const failures: Record<string, string> = {};
    const plain = await tryCode(kvm, cpuid, [], signal);
    if (plain !== undefined) failures['a long-mode guest'] = plain;
    for (const { name, code } of kernelInstructions.filter(({ exists }) => exists(features))) {
      const failure = plain ?? (await tryCode(kvm, cpuid, code, signal));
      if (failure !== undefined) failures[name] = failure;
    }
    const details = { path, vendor, apiVersion: kvm.apiVersion, features, failures };
    if (Object.keys(failures).length === 0) return { usable: true, vendor, details };
    return { usable: false, reason: 'cannot-run-kernel', message: cannotRunMessage(path, vendor, failures), details };
  } catch (error) {
    const refusal = refusalOf(error, path);
    if (refusal === undefined) throw error;
    return { usable: false, ...refusal, details: { path, vendor, errno: errnoOf(error) } };
  }
}

/** Runs one piece of kernel code in a machine of its own; undefined if it got to its end, else what happened. */
async function tryCode(
  kvm: Kvm,
  cpuid: readonly CpuidEntry[],
  code: KernelInstruction['code'],
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  using vm = kvm.createVm();
  vm.addMemory({ guestAddress: 0n, sizeBytes: memoryBytes });
  vm.write(codeAddress, Uint8Array.from([...code, ...report]));
  using vcpu = vm.createVcpu(0);
  vcpu.setCpuid(cpuid);
  enterLongMode(vm, vcpu, { cr4: readFeatures(cpuid).xsave ? osXsave : 0n });
  installHandler(vm, vcpu);
  vcpu.setRegisters({ rip: codeAddress, rdi: scratchAddress, rsp: stackEnd, rflags: 2n });
  const timeout = AbortSignal.timeout(runTimeoutMs);
  const exit = await vcpu.run({ signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]) });
  if (exit.kind === 'io-out' && exit.port === reportPort) return undefined;
  if (signal?.aborted === true)
    throw new EngineError('cancelled', 'the probe of KVM was cancelled', { cause: signal.reason });
  return describeExit(exit);
}

/** Vector 3 leads to an `iretq`. The gate's layout: Intel SDM vol. 3, 6.14.1; it fits one word and a half for addresses below 64 KiB. */
function installHandler(vm: Vm, vcpu: Vcpu): void {
  const vector = 3n;
  const presentInterruptGate = 0x8en << 40n;
  const gate = presentInterruptGate | (BigInt(codeSelector) << 16n) | handlerAddress;
  vm.write(interruptTableAddress + vector * 16n, wordBytes([gate, 0n]));
  vm.write(handlerAddress, Uint8Array.of(0x48, 0xcf)); // iretq
  vcpu.setSystemRegisters({ idt: { base: interruptTableAddress, limit: 16 * 4 - 1 } });
}

function describeExit(exit: VcpuExit): string {
  switch (exit.kind) {
    case 'internal-error':
      return exit.suberror === 1 ? 'unknown to the instruction emulator' : `internal error ${exit.suberror} of KVM`;
    case 'shutdown':
      return 'faulted';
    case 'interrupted':
      return `did not end within ${runTimeoutMs} ms`;
    case 'fail-entry':
      return `refused by the processor (${exit.reason})`;
    default:
      return `ended with ${exit.kind}`;
  }
}

function cannotRunMessage(path: string, vendor: KvmVendor, failures: Readonly<Record<string, string>>): string {
  const list = Object.entries(failures).map(([name, failure]) => `${name} (${failure})`);
  const kind = vendor === 'pvm' ? 'KVM without hardware virtualization (PVM)' : 'KVM';
  return (
    `${path} is ${kind} and cannot run an unmodified Linux kernel: ${list.join(', ')}. ` +
    'Use software emulation (--accelerator tcg), or a host with VT-x or AMD-V, nested virtualization enabled if it is a virtual machine itself'
  );
}

function errnoOf(error: unknown): string {
  const errno = error instanceof EngineError ? error.details['errno'] : undefined;
  return typeof errno === 'string' ? errno : '';
}

function refusalOf(
  error: unknown,
  path: string,
): { reason: 'no-device' | 'no-permission' | 'busy'; message: string } | undefined {
  switch (errnoOf(error)) {
    case 'ENOENT':
    case 'ENODEV':
    case 'ENXIO':
      return {
        reason: 'no-device',
        message:
          `${path} does not exist: load the kernel module (modprobe kvm_intel or kvm_amd), enable virtualization in the firmware, ` +
          'or nested virtualization if this host is a virtual machine; without KVM use --accelerator tcg',
      };
    case 'EACCES':
    case 'EPERM':
      return {
        reason: 'no-permission',
        message: `${path} may not be opened by user ${process.getuid?.() ?? 'unknown'}: ${permissionRemedy(path)}`,
      };
    case 'EBUSY':
      return {
        reason: 'busy',
        message: `${path} cannot create a machine, for another hypervisor (VirtualBox, VMware) holds the processor's virtualization: stop its machines`,
      };
    default:
      return undefined;
  }
}

function permissionRemedy(path: string): string {
  try {
    const { gid, mode } = statSync(path);
    if ((mode & 0o060) !== 0o060)
      return `its mode is ${(mode & 0o777).toString(8)}; let its group read and write it (chmod g+rw ${path})`;
    return `add the user to group ${groupName(gid)} (usermod -aG ${groupName(gid)} USER) and log in again`;
  } catch (error) {
    return `its directory cannot be read (${systemErrorCode(error)})`;
  }
}

function groupName(gid: number): string {
  const line = readFileSync('/etc/group', 'utf8')
    .split('\n')
    .find((entry) => entry.split(':')[2] === String(gid));
  return line?.split(':')[0] ?? String(gid);
}

function readVendor(): KvmVendor {
  const flags = new Set(/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.trim().split(/\s+/));
  if (flags.has('vmx')) return 'vmx';
  if (flags.has('svm')) return 'svm';
  const module = statSync('/sys/module/kvm_pvm', { throwIfNoEntry: false });
  return module === undefined ? 'unknown' : 'pvm';
}
