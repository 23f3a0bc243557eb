//! What the process that parses a layer may do: read what is open, write what is open, and use a bounded amount of
//! memory. Nothing else: no file can be opened, no program started, no socket made, no other process touched.

use crate::error::{Code, LayerError, Result};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// Address space: the limit on metadata twice, because vectors double, and what the decoders need.
const ADDRESS_SPACE_BYTES: u64 = 6 << 30;
/// "nobody": owns nothing.
const NOBODY: u32 = 65_534;

/// System calls of a process that computes, reads and writes.
const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    // A panic that ends in abort must look like one.
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_restart_syscall,
];

/// Limits and identity; before any thread is made. `file_bytes` bounds what may be written to one file.
pub fn drop_privileges(file_bytes: u64) -> Result<()> {
    // With an arena per thread, glibc reads /proc/sys/vm/overcommit_memory when it shrinks one (malloc/arena.c, heap_trim): a call that the
    // filter kills for. One arena is enough for two threads that pass large buffers.
    // SAFETY: mallopt only sets a number in the allocator, before any other thread exists.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    let refused = |what: &'static str| move |error: nix::Error| cannot_confine(&format!("{what}: {error}"));
    setrlimit(Resource::RLIMIT_AS, ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES).map_err(refused("limit memory"))?;
    setrlimit(Resource::RLIMIT_FSIZE, file_bytes, file_bytes).map_err(refused("limit files"))?;
    setrlimit(Resource::RLIMIT_NOFILE, 0, 0).map_err(refused("limit descriptors"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(refused("forbid core dumps"))?;
    // SAFETY: no handler is installed, the signal is ignored: a write beyond the limit then fails with EFBIG.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    if Uid::effective().is_root() {
        setgroups(&[]).map_err(refused("drop groups"))?;
        setresgid(Gid::from_raw(NOBODY), Gid::from_raw(NOBODY), Gid::from_raw(NOBODY)).map_err(refused("drop gid"))?;
        setresuid(Uid::from_raw(NOBODY), Uid::from_raw(NOBODY), Uid::from_raw(NOBODY)).map_err(refused("drop uid"))?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(refused("forbid new privileges"))
}

/// The system call filter, for all threads there are; no further one can be made.
pub fn filter_system_calls() -> Result<()> {
    let refused = |error: &dyn std::fmt::Display| cannot_confine(&format!("filter system calls: {error}"));
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let executable = libc::PROT_EXEC as u64;
        let not_executable = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), 0)
            .and_then(|condition| SeccompRule::new(vec![condition]))
            .map_err(|e| refused(&e))?;
        rules.insert(call, vec![not_executable]);
    }
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)
        .map_err(|e| refused(&e))?;
    let program: seccompiler::BpfProgram = filter.try_into().map_err(|e: seccompiler::BackendError| refused(&e))?;
    seccompiler::apply_filter_all_threads(&program).map_err(|e| refused(&e))
}

fn cannot_confine(what: &str) -> LayerError {
    LayerError::new(Code::Io, format!("cannot confine the reader ({what})"))
}
