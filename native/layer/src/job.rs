//! Two processes: this one opens the files, waits, and puts the finished image in its place; a forked child, which can
//! do nothing but read and write what is open, parses the blob. Both files have no name until the image is complete,
//! so nothing is left behind however either process ends.

use bulkhead_layer::{BuildSpec, Built, Code, LayerError, Result, build, confine};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, UnlinkatFlags, fork, linkat, unlinkat};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// The child's answer is one JSON line; more than this is none.
const ANSWER_BYTES: u64 = 64 << 10;

type Answer = std::result::Result<Built, LayerError>;

/// Builds the image of the blob on standard input at `output`.
pub fn run(spec: &BuildSpec, output: &Path) -> Result<Built> {
    let place = Place::open(output)?;
    let image = place.unnamed_file()?;
    let tails = place.unnamed_file()?;
    let (answer, to_answer) = std::io::pipe().map_err(|e| LayerError::from_io("make a pipe", e))?;
    // SAFETY: this process has one thread, so the child may do anything that the parent may.
    let child = match unsafe { fork() }.map_err(|e| from_errno("start the reader", e))? {
        ForkResult::Child => run_child(spec, &image, &tails, answer, to_answer),
        ForkResult::Parent { child } => child,
    };
    drop(to_answer);
    let answer = read_answer(answer);
    let status = waitpid(child, None).map_err(|e| from_errno("wait for the reader", e))?;
    let built = answer.unwrap_or_else(|| Err(LayerError::new(Code::Io, describe(status))))?;
    image.sync_all().map_err(|e| LayerError::from_io("write the image to disk", e))?;
    place.publish(&image)?;
    Ok(built)
}

fn run_child(spec: &BuildSpec, image: &File, tails: &File, answer: PipeReader, mut to_answer: PipeWriter) -> ! {
    drop(answer);
    let built = build_confined(spec, image, tails);
    let is_told = serde_json::to_vec(&built).is_ok_and(|line| to_answer.write_all(&line).is_ok());
    // SAFETY: ends the process without running what the parent's exit will run too.
    unsafe { libc::_exit(i32::from(!is_told)) }
}

fn build_confined(spec: &BuildSpec, image: &File, tails: &File) -> Answer {
    let refused = |e| from_errno("confine the reader", e);
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(refused)?;
    // Contents are at most the tar's bytes and the padding of each; metadata is bounded by its own limit.
    let limits = &spec.limits;
    let padding_bytes = limits.entries.saturating_mul(2 * 4096);
    let image_bytes =
        [padding_bytes, 2 * limits.metadata_bytes, 1 << 20].into_iter().fold(limits.tar_bytes, u64::saturating_add);
    confine::drop_privileges(image_bytes)?;
    // Dropping the uid clears the signal that is sent when the parent ends.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(refused)?;
    // Not `Stdin`: it would copy everything through a buffer of its own.
    let blob = std::io::stdin().lock();
    let blob = UnbufferedStdin(blob.as_raw_fd());
    build(blob, image, tails, spec, confine::filter_system_calls)
}

struct UnbufferedStdin(std::os::fd::RawFd);

impl Read for UnbufferedStdin {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        // SAFETY: the descriptor is standard input, which this process never closes.
        let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.0) };
        nix::unistd::read(descriptor, buffer).map_err(std::io::Error::from)
    }
}

fn read_answer(answer: PipeReader) -> Option<Answer> {
    let mut line = Vec::new();
    answer.take(ANSWER_BYTES).read_to_end(&mut line).ok()?;
    serde_json::from_slice(&line).ok()
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Signaled(_, signal, _) => format!("the reader was ended by {signal} (out of memory or confined)"),
        WaitStatus::Exited(_, code) => format!("the reader ended with status {code} and no answer"),
        other => format!("the reader ended without an answer ({other:?})"),
    }
}

/// Where the image goes: a directory held open, and a name in it.
struct Place<'a> {
    directory: OwnedFd,
    name: &'a OsStr,
    shown: String,
}

impl<'a> Place<'a> {
    fn open(output: &'a Path) -> Result<Self> {
        let shown = output.display().to_string();
        let Some(name) = output.file_name() else {
            return Err(LayerError::new(Code::Io, format!("the output {shown} has no file name")));
        };
        let directory = match output.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let opened = open(directory, flags, Mode::empty());
        let directory = opened.map_err(|e| from_errno(&format!("open the directory of {shown}"), e))?;
        Ok(Self { directory, name, shown })
    }

    /// A file of the output's file system that has no name yet.
    fn unnamed_file(&self) -> Result<File> {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let opened = openat(&self.directory, ".", flags, Mode::from_bits_truncate(0o644));
        opened.map(File::from).map_err(|e| from_errno(&format!("create a file beside {}", self.shown), e))
    }

    /// Gives the image its name, in place of an older one.
    fn publish(&self, image: &File) -> Result<()> {
        let failed = |e| from_errno(&format!("name the image {}", self.shown), e);
        let from = format!("/proc/self/fd/{}", image.as_raw_fd());
        let link = |name: &OsStr| linkat(AT_FDCWD, from.as_str(), &self.directory, name, AtFlags::AT_SYMLINK_FOLLOW);
        match link(self.name) {
            Err(nix::Error::EEXIST) => {}
            other => return other.map_err(failed),
        }
        // A link cannot replace a name, so it takes another one first.
        let mut other = OsStr::new(".").to_os_string();
        other.push(self.name);
        other.push(format!(".{}.new", std::process::id()));
        link(&other).map_err(failed)?;
        nix::fcntl::renameat(&self.directory, other.as_os_str(), &self.directory, self.name).map_err(|e| {
            // The name was just made here; if it cannot be removed either, the first error says more.
            let _ = unlinkat(&self.directory, other.as_os_str(), UnlinkatFlags::NoRemoveDir);
            failed(e)
        })
    }
}

fn from_errno(action: &str, error: nix::Error) -> LayerError {
    LayerError::from_io(action, error.into())
}
