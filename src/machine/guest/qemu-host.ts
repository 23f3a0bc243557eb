import { access } from 'node:fs/promises';
import { EngineError } from '../../core/errors.ts';
import { runProgram } from '../../platform/exec.ts';

export const QEMU = 'qemu-system-x86_64';

/** The versioned name behind `q35`: `pc-q35-7.2`. A guest keeps the machine that it was made with. */
export async function newestMachineType(): Promise<string> {
  const text = await runProgram(QEMU, ['-machine', 'help'], { purpose: "list QEMU's machine types" });
  const name = /^q35\s.*\(alias of (pc-q35-[\w.]+)\)/m.exec(text)?.[1];
  if (name === undefined)
    throw new EngineError('unavailable', `${QEMU} has no machine type q35; install qemu-system-x86`);
  return name;
}

/** Code and empty variables of the UEFI firmware, as distributions install them; the pairs belong together. */
const FIRMWARE_FILES = [
  ['/usr/share/OVMF/OVMF_CODE_4M.fd', '/usr/share/OVMF/OVMF_VARS_4M.fd'],
  ['/usr/share/OVMF/OVMF_CODE.fd', '/usr/share/OVMF/OVMF_VARS.fd'],
  ['/usr/share/edk2/ovmf/OVMF_CODE.fd', '/usr/share/edk2/ovmf/OVMF_VARS.fd'],
] as const;

export async function findUefiFirmware(): Promise<{ code: string; variablesTemplate: string }> {
  for (const [code, variablesTemplate] of FIRMWARE_FILES) {
    const found = await Promise.all([access(code), access(variablesTemplate)]).then(
      () => true,
      () => false,
    );
    if (found) return { code, variablesTemplate };
  }
  throw new EngineError(
    'unavailable',
    'no UEFI firmware on this host; install the package ovmf, or launch with --firmware bios',
  );
}
