/**
 * Calls that a container on the host's kernel has no business making: they load code into the kernel, reach its keys or its
 * debugging interfaces, or undo the namespaces. Docker's own list is a long allow-list; ours denies by name, so that a new harmless call
 * of a new libc works at once. A call that its capability set would allow (privileged) is not filtered at all.
 * In a machine there is no filter: the kernel behind it is the guest's own.
 */
const DENIED = [
  'acct',
  'add_key',
  'bpf',
  'clock_adjtime',
  'clock_settime',
  'create_module',
  'delete_module',
  'finit_module',
  'fsconfig',
  'fsmount',
  'fsopen',
  'fspick',
  'get_kernel_syms',
  'init_module',
  'io_uring_enter',
  'io_uring_register',
  'io_uring_setup',
  'ioperm',
  'iopl',
  'kcmp',
  'kexec_file_load',
  'kexec_load',
  'keyctl',
  'lookup_dcookie',
  'mount',
  'mount_setattr',
  'move_mount',
  'move_pages',
  'name_to_handle_at',
  'nfsservctl',
  'open_by_handle_at',
  'open_tree',
  'perf_event_open',
  'pivot_root',
  'process_madvise',
  'query_module',
  'quotactl',
  'quotactl_fd',
  'reboot',
  'request_key',
  'setns',
  'settimeofday',
  'stime',
  'swapoff',
  'swapon',
  '_sysctl',
  'sysfs',
  'umount',
  'umount2',
  'unshare',
  'uselib',
  'userfaultfd',
  'ustat',
  'vm86',
  'vm86old',
] as const;

const CLONE_NEWNS_TO_NEWNET = 0x7e02_0000;
const EPERM = 1;
const ENOSYS = 38;

/** The `linux.seccomp` object of a runtime-spec for a container with these capabilities; undefined when nothing is filtered. */
export function planSeccomp(capabilities: readonly string[], unconfined: boolean): object | undefined {
  if (unconfined || capabilities.includes('CAP_SYS_ADMIN')) return undefined;
  return {
    defaultAction: 'SCMP_ACT_ALLOW',
    architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
    syscalls: [
      { names: [...DENIED], action: 'SCMP_ACT_ERRNO', errnoRet: EPERM },
      // clone3 passes its flags in memory, where a filter cannot look: "no such call" makes libc fall back to clone.
      { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS },
      ...namespaceFlags().map((flag) => ({
        names: ['clone'],
        action: 'SCMP_ACT_ERRNO',
        errnoRet: EPERM,
        args: [{ index: 0, value: flag, valueTwo: flag, op: 'SCMP_CMP_MASKED_EQ' }],
      })),
    ],
  };
}

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: one rule each, as any one of them is refused. */
function namespaceFlags(): number[] {
  return Array.from({ length: 32 }, (_, bit) => 2 ** bit).filter(
    (flag) => (BigInt(CLONE_NEWNS_TO_NEWNET) & BigInt(flag)) !== 0n,
  );
}
