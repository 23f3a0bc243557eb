import { access, constants, readFile } from 'node:fs/promises';
import { availableParallelism, freemem, release, totalmem } from 'node:os';
import { parseArgs } from 'node:util';
import { connect } from '../client/index.ts';
import { EngineError } from '../core/errors.ts';
import { MachineHost } from '../machine/machine-host.ts';
import { cgroupVersion } from '../platform/cgroups.ts';
import { runProgram } from '../platform/exec.ts';
import { findArtifacts } from './artifacts.ts';
import { findLeaks } from './leaks.ts';

interface Finding {
  readonly subject: string;
  /** `note` is worth knowing, `missing` takes something away, `fatal` means that no container can run. */
  readonly verdict: 'ok' | 'note' | 'missing' | 'fatal';
  readonly text: string;
}

const MARKS: Readonly<Record<Finding['verdict'], string>> = {
  ok: 'ok  ',
  note: 'note',
  missing: 'MISS',
  fatal: 'FAIL',
};

/** `bulkhead doctor [--leaks]`: what works on this host and what does not, with cause and remedy. Answers the exit status. */
export async function doctorCommand(argv: readonly string[]): Promise<number> {
  const { values } = parseDoctorArguments(argv);
  if (values.leaks) return await printLeaks(values);
  const findings = await examineHost();
  for (const { subject, verdict, text } of findings)
    process.stdout.write(`${MARKS[verdict]}  ${subject.padEnd(18)} ${text}\n`);
  const isFatal = findings.some(({ verdict }) => verdict === 'fatal');
  process.stdout.write(isFatal ? '\nNo container can run on this host yet.\n' : '\nContainers can run on this host.\n');
  return isFatal ? 1 : 0;
}

type DoctorValues = ReturnType<typeof parseDoctorArguments>['values'];

function parseDoctorArguments(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        leaks: { type: 'boolean', default: false },
        'data-root': { type: 'string', default: '/var/lib/bulkhead' },
        'exec-root': { type: 'string', default: '/run/bulkhead' },
        'bridge-prefix': { type: 'string', default: 'bh' },
        host: { type: 'string', short: 'H' },
      },
    });
  } catch (error) {
    throw new EngineError(
      'invalid-argument',
      `${(error as Error).message}; usage: bulkhead doctor [--leaks] [--data-root DIR] [--exec-root DIR]`,
      { cause: error },
    );
  }
}

async function printLeaks(values: DoctorValues): Promise<number> {
  const known = await knownObjects(values.host ?? `unix://${values['exec-root']}/bulkhead.sock`);
  const leaks = await findLeaks({
    dataRoot: values['data-root'],
    execRoot: values['exec-root'],
    interfacePrefix: values['bridge-prefix'],
    knownContainers: known?.containers,
    knownGuests: known?.guests,
  });
  for (const { kind, name, why } of leaks) process.stdout.write(`${kind}: ${name}: ${why}\n`);
  process.stdout.write(`${leaks.length} leaks\n`);
  return leaks.length === 0 ? 0 : 1;
}

interface KnownObjects {
  readonly containers: ReadonlySet<string>;
  readonly guests: ReadonlySet<string>;
}

async function knownObjects(host: string): Promise<KnownObjects | undefined> {
  try {
    const client = connect({ host });
    const containers = await client.containers.list({ all: true });
    const guests = await client.guests.list();
    return { containers: new Set(containers.map(({ Id }) => Id)), guests: new Set(guests.map(({ id }) => id)) };
  } catch {
    return undefined;
  }
}

async function examineHost(): Promise<Finding[]> {
  const machine = await MachineHost.open('auto', findArtifacts().machineFiles, {
    scope: 'doctor',
    kernelArguments: [],
  });
  const walls = [machineFinding(machine), await namespaceFinding()];
  const canRun = walls.some(({ verdict }) => verdict === 'ok');
  return [
    processorFinding(),
    { subject: 'kernel', verdict: 'ok', text: `Linux ${release()}, cgroup version ${await cgroupVersion()}` },
    {
      subject: 'resources',
      verdict: 'ok',
      text: `${availableParallelism()} CPUs, ${mib(totalmem())} MiB memory, ${mib(freemem())} MiB free`,
    },
    kvmFinding(machine),
    ...walls.map((finding) =>
      finding.verdict !== 'ok' && !canRun ? { ...finding, verdict: 'fatal' as const } : finding,
    ),
    await deviceFinding('/dev/net/tun', 'networks of machines', 'modprobe tun'),
    await programFinding('nft', ['--version'], 'networks', 'install the package nftables'),
    await fileSystemFinding('erofs', 'layers of containers on the host’s kernel', 'modprobe erofs'),
    await fileSystemFinding('overlay', 'containers on the host’s kernel', 'modprobe overlay'),
  ];
}

function processorFinding(): Finding {
  const verdict = process.arch === 'x64' ? 'ok' : 'fatal';
  return {
    subject: 'processor',
    verdict,
    text: verdict === 'ok' ? 'x86-64' : `${process.arch}: only x86-64 is supported`,
  };
}

function kvmFinding({ kvm }: MachineHost): Finding {
  return kvm.usable
    ? { subject: 'KVM', verdict: 'ok', text: `runs unmodified guests (${kvm.vendor})` }
    : {
        subject: 'KVM',
        verdict: 'note',
        text: `${kvm.message}; machines are emulated in software instead, which is slower and no hardware wall`,
      };
}

function machineFinding(machine: MachineHost): Finding {
  if (machine.problem) return { subject: 'isolation vm', verdict: 'missing', text: machine.problem };
  return {
    subject: 'isolation vm',
    verdict: 'ok',
    text: machine.accelerator === 'kvm' ? 'works (KVM)' : 'works (emulated)',
  };
}

async function namespaceFinding(): Promise<Finding> {
  const { verdict, text } = await programFinding('runc', ['--version'], 'isolation os', 'install the package runc');
  return { subject: 'isolation os', verdict, text: verdict === 'ok' ? `works (${text})` : text };
}

async function programFinding(
  program: string,
  args: readonly string[],
  purpose: string,
  remedy: string,
): Promise<Finding> {
  try {
    const text = await runProgram(program, args, { purpose: `ask ${program} for its version` });
    return { subject: program, verdict: 'ok', text: text.split('\n', 1)[0] ?? '' };
  } catch {
    return { subject: program, verdict: 'missing', text: `${program} does not run; needed for ${purpose}: ${remedy}` };
  }
}

async function deviceFinding(path: string, purpose: string, remedy: string): Promise<Finding> {
  try {
    await access(path, constants.R_OK | constants.W_OK);
    return { subject: path, verdict: 'ok', text: 'accessible' };
  } catch {
    return {
      subject: path,
      verdict: 'missing',
      text: `not accessible; needed for ${purpose}: run as root, or ${remedy}`,
    };
  }
}

async function fileSystemFinding(name: string, purpose: string, remedy: string): Promise<Finding> {
  const known = (await readFile('/proc/filesystems', 'utf8'))
    .split('\n')
    .some((line) => line.trim().split(/\s+/).at(-1) === name);
  return known
    ? { subject: name, verdict: 'ok', text: 'known to this kernel' }
    : { subject: name, verdict: 'note', text: `not loaded yet; needed for ${purpose}: ${remedy}` };
}

function mib(bytes: number): number {
  return Math.floor(bytes / 1024 / 1024);
}
