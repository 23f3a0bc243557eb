import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import type { MachineClass } from '../core/resources.ts';
import { runProgram } from '../platform/exec.ts';
import { readTscFrequency } from '../platform/ffi/host-clock.ts';
import type { MachineBase } from './machine-host.ts';

/** Grows when templates of before must not be used any more. */
const FORMAT = 1;
const MIB = 1024 * 1024;

/** What a saved machine was made from, and can only be used with. The slot table and QEMU's arguments are the shim's: its digest stands for them. */
export interface TemplateFacts {
  readonly format: number;
  readonly accelerator: string;
  readonly cpuModel: string;
  readonly kernelArguments: readonly string[];
  /** SHA-256 of each file. */
  readonly kernel: string;
  readonly initramfs: string;
  readonly shim: string;
  readonly qemu: string;
  /** A clone's time stamp counter goes on with the host's, at the rate that its kernel was told. */
  readonly tscKhz: number;
}

export async function readTemplateFacts(machine: MachineBase, shimPath: string): Promise<TemplateFacts> {
  const [kernel, initramfs, shim, qemu, tscKhz] = await Promise.all([
    digestOf(machine.kernelPath),
    digestOf(machine.initramfsPath),
    digestOf(shimPath),
    describeQemu(machine.qemuPath),
    stableTscKhz(),
  ]);
  const { accelerator, cpuModel, kernelArguments } = machine;
  return { format: FORMAT, accelerator, cpuModel, kernelArguments, kernel, initramfs, shim, qemu, tscKhz };
}

/** First part of a template's name: all that is not its size. */
export function factsKey(facts: TemplateFacts): string {
  return createHash('sha256').update(JSON.stringify(facts)).digest('hex').slice(0, 16);
}

/** `KEY-2x1024` for two vCPUs and 1024 MiB. */
export function templateName(key: string, size: MachineClass): string {
  return `${key}-${className(size)}`;
}

export function className({ vcpus, memoryBytes }: MachineClass): string {
  return `${vcpus}x${memoryBytes / MIB}`;
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: MIB })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** Version and file: a package can be rebuilt without its version changing. */
async function describeQemu(path: string): Promise<string> {
  const [version, { size, mtimeMs }] = await Promise.all([
    runProgram(path, ['--version'], { purpose: 'ask QEMU for its version' }),
    stat(await realpath(path)),
  ]);
  return `${version.split('\n')[0] ?? ''} (${size} bytes of ${new Date(mtimeMs).toISOString()})`;
}

/** One that was measured differs a little each time; a thousandth is what a guest's clock can do with. */
async function stableTscKhz(): Promise<number> {
  const { khz, source } = await readTscFrequency();
  return source === 'measured' ? Math.round(khz / 1000) * 1000 : khz;
}
