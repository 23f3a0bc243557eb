import { escapeOption } from '../disks/qemu-img.ts';
import type { DiskFormat } from '../../wire/guest-disk.ts';

/** Everything that a guest's machine is made of. */
export interface GuestMachineSpec {
  readonly name: string;
  /** 128 bits, hex with dashes. */
  readonly uuid: string;
  /** Versioned (`pc-q35-7.2`), so that a guest finds the same machine after an upgrade of QEMU. */
  readonly machineType: string;
  readonly accelerator: 'kvm' | 'tcg';
  readonly vcpus: number;
  /** How many there can be while it runs. */
  readonly maxVcpus: number;
  readonly memoryBytes: number;
  /** How much there can be while it runs; what is above `memoryBytes` is plugged by virtio-mem. */
  readonly maxMemoryBytes: number;
  readonly firmware:
    { readonly kind: 'bios' } | { readonly kind: 'uefi'; readonly code: string; readonly variables: string };
  /** From the guest's own disk to the last of its bases. */
  readonly disk: readonly { readonly path: string; readonly format: DiskFormat }[];
  /** An ISO image. */
  readonly seed: string | undefined;
  readonly network: { readonly tap: string; readonly macAddress: string } | undefined;
  readonly uid: number;
  /** Directory of its sockets; root's own. */
  readonly runtimeDir: string;
  /** An empty directory. */
  readonly emptyRoot: string;
  readonly consoleLog: string;
}

export const MONITOR_SOCKET = 'monitor.sock';
export const CONSOLE_SOCKET = 'console.sock';
export const AGENT_SOCKET = 'agent.sock';
/** Id of the agent's port, as VSERPORT_CHANGE tells it. */
export const AGENT_PORT = 'agent0';

/** Id of the device that memory is plugged through. */
export const PLUGGED_MEMORY = 'memory1';

const MIB = 1024 * 1024;
/** Linux takes memory in blocks of 128 MiB on x86-64; less of one would not be usable. */
export const PLUG_BLOCK_MIB = 128;
/** Translated code of an emulated machine, MiB: a whole distribution's start fits. */
const TRANSLATION_CACHE_MIB = 512;
/** Free places for what is attached later. A port costs the guest a bridge device, and half a millisecond of its start. */
const SPARE_PORTS = 4;

/**
 * QEMU's command line. Files are opened before QEMU gives up root (`-runas`), puts itself into an empty root (`-chroot`), and forbids itself
 * to start processes (`-sandbox`): from then on it has what it was given. Every image of the disk's chain is named here with its format, so
 * no name that stands in an image is followed.
 */
export function qemuArguments(spec: GuestMachineSpec): string[] {
  const args: string[] = [];
  const add = (name: string, value: string): void => void args.push(`-${name}`, value);
  const path = escapeOption;
  const socket = (name: string): string => path(`${spec.runtimeDir}/${name}`);
  add('name', `guest=${path(spec.name)},debug-threads=on`);
  add('uuid', spec.uuid);
  add('machine', `${spec.machineType},vmport=off`);
  add('accel', spec.accelerator === 'tcg' ? `tcg,thread=multi,tb-size=${TRANSLATION_CACHE_MIB}` : 'kvm');
  add('cpu', spec.accelerator === 'tcg' ? 'max' : 'host');
  add('smp', `cpus=${spec.vcpus},maxcpus=${spec.maxVcpus}`);
  addMemory(spec, add);
  args.push('-nodefaults', '-no-user-config');
  add('display', 'none');
  add('rtc', 'base=utc,driftfix=slew');
  // Suspend to RAM leaves a guest that nobody wakes.
  add('global', 'ICH9-LPC.disable_s3=1');
  add('global', 'ICH9-LPC.disable_s4=1');
  add('runas', `${spec.uid}:${spec.uid}`);
  add('chroot', path(spec.emptyRoot));
  add('sandbox', 'on,obsolete=deny,spawn=deny,resourcecontrol=deny');
  addFirmware(spec, add);
  addDisk(spec, add);
  if (spec.seed !== undefined) {
    add('blockdev', `driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename=${path(spec.seed)}`);
    add('device', 'virtio-blk-pci,id=seed0,drive=seed,serial=seed');
  }
  if (spec.network) {
    add('netdev', `tap,id=net0,ifname=${spec.network.tap},script=no,downscript=no`);
    add('device', `virtio-net-pci,id=nic0,netdev=net0,mac=${spec.network.macAddress}`);
  }
  add('chardev', `socket,id=monitor,path=${socket(MONITOR_SOCKET)},server=on,wait=off`);
  add('mon', 'chardev=monitor,mode=control');
  add(
    'chardev',
    `socket,id=console,path=${socket(CONSOLE_SOCKET)},server=on,wait=off,logfile=${path(spec.consoleLog)},logappend=on`,
  );
  add('serial', 'chardev:console');
  add('device', 'virtio-serial-pci');
  add('chardev', `socket,id=agent,path=${socket(AGENT_SOCKET)},server=on,wait=off`);
  add('device', `virtserialport,id=${AGENT_PORT},chardev=agent,name=org.qemu.guest_agent.0`);
  add('device', 'virtio-rng-pci');
  // Pages that the guest has freed go back to the host by themselves.
  add('device', 'virtio-balloon-pci,id=balloon0,free-page-reporting=on');
  for (let port = 1; port <= SPARE_PORTS; port++) {
    add('device', `pcie-root-port,id=spare${port},chassis=${port},slot=${port}`);
  }
  return args;
}

type Add = (name: string, value: string) => void;

/** Nothing of what can be plugged is taken from the host before it is. */
function addMemory({ memoryBytes, maxMemoryBytes }: GuestMachineSpec, add: Add): void {
  const sizeMib = Math.floor(memoryBytes / MIB);
  const spareMib = Math.floor((maxMemoryBytes - memoryBytes) / MIB / PLUG_BLOCK_MIB) * PLUG_BLOCK_MIB;
  if (spareMib <= 0) {
    add('m', `size=${sizeMib}M`);
    return;
  }
  add('m', `size=${sizeMib}M,maxmem=${sizeMib + spareMib}M`);
  add('object', `memory-backend-ram,id=plugged,size=${spareMib}M,reserve=off`);
  add('device', `virtio-mem-pci,id=${PLUGGED_MEMORY},memdev=plugged,requested-size=0`);
}

function addFirmware({ firmware }: GuestMachineSpec, add: Add): void {
  if (firmware.kind === 'bios') return;
  add('drive', `if=pflash,unit=0,format=raw,readonly=on,file=${escapeOption(firmware.code)}`);
  add('drive', `if=pflash,unit=1,format=raw,file=${escapeOption(firmware.variables)}`);
}

function addDisk({ disk }: GuestMachineSpec, add: Add): void {
  const nodeOf = (index: number): string => (index === 0 ? 'disk0' : `base${index}`);
  // The last base first: a node can only name what is there already.
  for (const [index, image] of [...disk.entries()].reverse()) {
    const node = {
      driver: image.format,
      'node-name': nodeOf(index),
      // Null: also a name that stands in the last image is not followed.
      ...(image.format === 'qcow2' ? { backing: index + 1 < disk.length ? nodeOf(index + 1) : null } : {}),
      ...(index === 0 ? { discard: 'unmap' } : { 'read-only': true }),
      file: { driver: 'file', filename: image.path, ...(index === 0 ? { discard: 'unmap' } : {}) },
    };
    add('blockdev', JSON.stringify(node));
  }
  add('device', 'virtio-blk-pci,id=root,drive=disk0,serial=root,bootindex=1');
}
