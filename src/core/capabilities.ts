import { EngineError } from './errors.ts';

/** All of Linux's capabilities by number, 0 first. Source: include/uapi/linux/capability.h, Linux 6.12. */
export const CAPABILITIES = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_DAC_READ_SEARCH',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETPCAP',
  'CAP_LINUX_IMMUTABLE',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_BROADCAST',
  'CAP_NET_ADMIN',
  'CAP_NET_RAW',
  'CAP_IPC_LOCK',
  'CAP_IPC_OWNER',
  'CAP_SYS_MODULE',
  'CAP_SYS_RAWIO',
  'CAP_SYS_CHROOT',
  'CAP_SYS_PTRACE',
  'CAP_SYS_PACCT',
  'CAP_SYS_ADMIN',
  'CAP_SYS_BOOT',
  'CAP_SYS_NICE',
  'CAP_SYS_RESOURCE',
  'CAP_SYS_TIME',
  'CAP_SYS_TTY_CONFIG',
  'CAP_MKNOD',
  'CAP_LEASE',
  'CAP_AUDIT_WRITE',
  'CAP_AUDIT_CONTROL',
  'CAP_SETFCAP',
  'CAP_MAC_OVERRIDE',
  'CAP_MAC_ADMIN',
  'CAP_SYSLOG',
  'CAP_WAKE_ALARM',
  'CAP_BLOCK_SUSPEND',
  'CAP_AUDIT_READ',
  'CAP_PERFMON',
  'CAP_BPF',
  'CAP_CHECKPOINT_RESTORE',
] as const;

/** What Docker leaves a container by default. Source: moby daemon/pkg/oci/caps/defaults.go. */
const DEFAULTS = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_MKNOD',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
  'CAP_KILL',
  'CAP_AUDIT_WRITE',
] as const;

export interface CapabilityRequest {
  readonly add: readonly string[];
  readonly drop: readonly string[];
  readonly privileged: boolean;
  /** What can be given at all: the host's bounding set (os wall) or everything (vm wall: the guest's own kernel). */
  readonly available: ReadonlySet<string>;
}

/** The container's capabilities, by Docker's rules: `ALL` on either side, names with or without `CAP_`. */
export function planCapabilities(request: CapabilityRequest): string[] {
  if (request.privileged) return CAPABILITIES.filter((name) => request.available.has(name));
  const add = request.add.map(canonicalName);
  const drop = new Set(request.drop.map(canonicalName));
  const base = add.includes('ALL')
    ? CAPABILITIES.filter((name) => request.available.has(name))
    : drop.has('ALL')
      ? []
      : DEFAULTS;
  const wanted = new Set<string>(base.filter((name) => !drop.has(name)));
  for (const name of add.filter((one) => one !== 'ALL')) wanted.add(name);
  return CAPABILITIES.filter((name) => wanted.has(name));
}

/** The set bits of a `CapBnd:` line of /proc/self/status (64 bits in hex). */
export function parseCapabilityMask(hex: string): Set<string> {
  const mask = BigInt(`0x${hex.trim()}`);
  return new Set(CAPABILITIES.filter((_, bit) => (mask >> BigInt(bit)) & 1n));
}

function canonicalName(text: string): string {
  const upper = text.toUpperCase();
  if (upper === 'ALL') return upper;
  const name = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
  if (!(CAPABILITIES as readonly string[]).includes(name)) {
    throw new EngineError('invalid-argument', `invalid capability: unknown capability: "${text}"`);
  }
  return name;
}
