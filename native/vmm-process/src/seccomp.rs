//! System calls of each kind of thread. Anything else kills the process.

use bulkhead_vmm::ThreadKind;
use bulkhead_vmm::virtio::net::TUNSETOFFLOAD;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// What every thread does: locks, memory, time, and its own end.
const EVERY: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_read,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
];

const DISK: &[libc::c_long] = &[
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_timerfd_settime,
];

const STREAM: &[libc::c_long] = &[
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_getrandom,
    libc::SYS_readv,
    libc::SYS_sendmsg,
    libc::SYS_timerfd_settime,
    libc::SYS_writev,
];

const MONITOR: &[libc::c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_getpid,
    libc::SYS_lseek,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_statx,
    libc::SYS_tgkill,
];

/// KVM's calls are all of this type.
const KVM_IOCTL: u64 = 0xae;
/// Requests of a vCPU's thread: running, and reading its state for a saved machine.
const VCPU_IOCTLS: &[u32] = &[
    0xae80,      // KVM_RUN
    0x8090_ae81, // KVM_GET_REGS
    0x8138_ae83, // KVM_GET_SREGS
    0xc008_ae88, // KVM_GET_MSRS
    0x8400_ae8e, // KVM_GET_LAPIC
    0xc008_ae91, // KVM_GET_CPUID2
    0x8004_ae98, // KVM_GET_MP_STATE
    0x8040_ae9f, // KVM_GET_VCPU_EVENTS
    0x8080_aea1, // KVM_GET_DEBUGREGS
    0xaea3,      // KVM_GET_TSC_KHZ
    0x9000_aea4, // KVM_GET_XSAVE
    0x8188_aea6, // KVM_GET_XCRS
];
/// Requests of the monitor's thread: the machine's own state.
const MONITOR_IOCTLS: &[u32] = &[
    0xc208_ae62, // KVM_GET_IRQCHIP
    0x8030_ae7c, // KVM_GET_CLOCK
    0x8070_ae9f, // KVM_GET_PIT2
];

fn only_requests(requests: &[u32]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    requests
        .iter()
        .map(|&request| {
            let is = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request.into())?;
            SeccompRule::new(vec![is])
        })
        .collect()
}

/// The filter of a kind of thread.
pub fn filter(kind: ThreadKind) -> Result<BpfProgram, seccompiler::BackendError> {
    let (calls, requests): (&[libc::c_long], Vec<u32>) = match kind {
        ThreadKind::Vcpu => (&[], VCPU_IOCTLS.to_vec()),
        ThreadKind::Disk => (DISK, Vec::new()),
        ThreadKind::Stream => (STREAM, vec![TUNSETOFFLOAD as u32]),
        ThreadKind::Monitor => (MONITOR, MONITOR_IOCTLS.to_vec()),
    };
    debug_assert!(
        requests.iter().all(|request| u64::from(request >> 8 & 0xff) == KVM_IOCTL || kind == ThreadKind::Stream)
    );
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        EVERY.iter().chain(calls).map(|&call| (call, Vec::new())).collect();
    if !requests.is_empty() {
        rules.insert(libc::SYS_ioctl, only_requests(&requests)?);
    }
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

/// Confines the calling thread.
pub fn confine(kind: ThreadKind) -> Result<(), String> {
    let program = filter(kind).map_err(|cause| cause.to_string())?;
    seccompiler::apply_filter(&program).map_err(|cause| cause.to_string())
}
