import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Leak, LeakScope } from './leaks.ts';

/** The monitor's socket in a guest's machine arguments: `…path=EXECROOT/g/ID12/monitor.sock…`. */
const MONITOR_PATTERN = /path=([^,]*)\/g\/([0-9a-f]{12})\/monitor\.sock/;

interface Program {
  readonly pid: number;
  readonly args: readonly string[];
}

/** The exec root and the short id of the guest whose machine this is; undefined for any other program. */
export function guestOfProgram(
  args: readonly string[],
): { readonly execRoot: string; readonly id: string } | undefined {
  if (!basename(args[0] ?? '').startsWith('qemu-system')) return undefined;
  for (const argument of args) {
    const [, execRoot, id] = MONITOR_PATTERN.exec(argument) ?? [];
    if (execRoot !== undefined && id !== undefined) return { execRoot, id };
  }
  return undefined;
}

/** Guests have no shim: their machine is a process of its own, and what there is without that, or without the guest's files, is a leak. */
export async function findGuestLeaks(scope: LeakScope, programs: readonly Program[]): Promise<Leak[]> {
  const guests = await readdir(join(scope.dataRoot, 'guests')).catch(() => []);
  const isGuest = (shortId: string): boolean => guests.some((id) => id.startsWith(shortId));
  const machines = programs.flatMap(({ pid, args }) => {
    const guest = guestOfProgram(args);
    return guest?.execRoot === scope.execRoot ? [{ pid, id: guest.id }] : [];
  });
  const lives = (id: string): boolean =>
    machines.some((machine) => machine.id.startsWith(id) || id.startsWith(machine.id));
  const [interfaces, directories] = await Promise.all([
    readdir('/sys/class/net'),
    readdir(join(scope.execRoot, 'g')).catch(() => []),
  ]);
  const tap = new RegExp(`^${scope.interfacePrefix}g([0-9a-f]{8,})$`);
  return [
    ...machines
      .filter(({ id }) => !isGuest(id))
      .map(({ pid }): Leak => ({ kind: 'process', name: `${pid} (qemu)`, why: 'no guest has this machine' })),
    ...interfaces
      .filter((name) => !lives(tap.exec(name)?.[1] ?? '') && tap.test(name))
      .map((name): Leak => ({ kind: 'interface', name, why: 'no guest that runs has it' })),
    ...directories
      .filter((name) => name !== 'empty' && !lives(name))
      .map((name): Leak => ({
        kind: 'socket',
        name: join(scope.execRoot, 'g', name),
        why: 'no guest that runs has it',
      })),
    ...(scope.knownGuests === undefined
      ? []
      : guests
          .filter((id) => scope.knownGuests?.has(id) === false)
          .map((id): Leak => ({
            kind: 'file',
            name: join(scope.dataRoot, 'guests', id),
            why: 'the daemon knows no such guest',
          }))),
  ];
}
