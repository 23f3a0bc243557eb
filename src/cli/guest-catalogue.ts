import type { CatalogueEntry } from './catalogue.ts';

/** Commands of guest operating systems and their disks. */
export const GUEST_CATALOGUE: readonly CatalogueEntry[] = [
  {
    name: 'disk create',
    summary: 'Create a disk image, empty or on a base',
    load: async () => (await import('./commands/disk.ts')).diskCreateCommand,
  },
  {
    name: 'disk info',
    aliases: ['disk inspect'],
    summary: 'Show size, format, chain, snapshots and users of a disk image',
    load: async () => (await import('./commands/disk.ts')).diskInfoCommand,
  },
  {
    name: 'disk resize',
    summary: 'Change the size of a disk image',
    load: async () => (await import('./commands/disk.ts')).diskResizeCommand,
  },
  {
    name: 'disk convert',
    summary: 'Copy a disk image into another format',
    load: async () => (await import('./commands/disk.ts')).diskConvertCommand,
  },
  {
    name: 'disk check',
    summary: 'Check the structure of a disk image, and repair it',
    load: async () => (await import('./commands/disk.ts')).diskCheckCommand,
  },
  {
    name: 'disk rebase',
    summary: 'Put a disk image on another base, or make it independent',
    load: async () => (await import('./commands/disk.ts')).diskRebaseCommand,
  },
  {
    name: 'disk commit',
    summary: 'Write what a disk image holds into its base',
    load: async () => (await import('./commands/disk.ts')).diskCommitCommand,
  },
  {
    name: 'disk remove',
    aliases: ['disk rm'],
    summary: 'Remove one or more disk images',
    load: async () => (await import('./commands/disk.ts')).diskRemoveCommand,
  },
  {
    name: 'disk snapshot create',
    summary: 'Keep the present state of a disk image within it',
    load: async () => (await import('./commands/disk-snapshot.ts')).diskSnapshotCreateCommand,
  },
  {
    name: 'disk snapshot list',
    aliases: ['disk snapshot ls'],
    summary: 'List the snapshots of a disk image',
    load: async () => (await import('./commands/disk-snapshot.ts')).diskSnapshotListCommand,
  },
  {
    name: 'disk snapshot restore',
    summary: 'Set a disk image back to a snapshot; what came after it is lost',
    load: async () => (await import('./commands/disk-snapshot.ts')).diskSnapshotRestoreCommand,
  },
  {
    name: 'disk snapshot delete',
    aliases: ['disk snapshot rm'],
    summary: 'Delete a snapshot of a disk image',
    load: async () => (await import('./commands/disk-snapshot.ts')).diskSnapshotDeleteCommand,
  },
  {
    name: 'vm launch',
    summary: 'Create, start and set up a guest operating system',
    load: async () => (await import('./commands/vm-launch.ts')).vmLaunchCommand,
  },
  {
    name: 'vm list',
    aliases: ['vm ls'],
    summary: 'List guests',
    load: async () => (await import('./commands/vm.ts')).vmListCommand,
  },
  {
    name: 'vm info',
    aliases: ['vm inspect'],
    summary: 'Show a guest',
    load: async () => (await import('./commands/vm.ts')).vmInfoCommand,
  },
  {
    name: 'vm start',
    summary: 'Start one or more stopped guests',
    load: async () => (await import('./commands/vm.ts')).vmStartCommand,
  },
  {
    name: 'vm stop',
    summary: 'Shut one or more guests down',
    load: async () => (await import('./commands/vm.ts')).vmStopCommand,
  },
  {
    name: 'vm restart',
    summary: 'Shut one or more guests down and start them again',
    load: async () => (await import('./commands/vm.ts')).vmRestartCommand,
  },
  {
    name: 'vm set',
    summary: 'Change the vCPUs, memory and disk of a guest, running or not',
    load: async () => (await import('./commands/vm-set.ts')).vmSetCommand,
  },
  {
    name: 'vm cp',
    summary: 'Copy a file into a guest, or out of it, through its agent',
    load: async () => (await import('./commands/vm-cp.ts')).vmCpCommand,
  },
  {
    name: 'vm delete',
    aliases: ['vm rm'],
    summary: 'Delete one or more guests with their disks',
    load: async () => (await import('./commands/vm.ts')).vmDeleteCommand,
  },
  {
    name: 'vm console',
    summary: "Attach to a guest's serial console, or show what it has said",
    load: async () => (await import('./commands/vm-console.ts')).vmConsoleCommand,
  },
  {
    name: 'vm exec',
    summary: 'Run a program in a guest through its agent',
    load: async () => (await import('./commands/vm-console.ts')).vmExecCommand,
  },
  {
    name: 'vm image list',
    aliases: ['vm image ls'],
    summary: 'List the images that guests are made from',
    load: async () => (await import('./commands/vm-images.ts')).vmImageListCommand,
  },
  {
    name: 'vm image import',
    summary: 'Take in a disk image as a guest image',
    load: async () => (await import('./commands/vm-images.ts')).vmImageImportCommand,
  },
  {
    name: 'vm image remove',
    aliases: ['vm image rm'],
    summary: 'Remove guest images',
    load: async () => (await import('./commands/vm-images.ts')).vmImageRemoveCommand,
  },
];
