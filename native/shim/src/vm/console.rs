//! The tails of what a machine says: the guest's serial console and the machine process's stderr. A guest can write without
//! end, so only the last part is kept, in memory and in the file.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::task::JoinHandle;

/// How much of the console is kept.
pub const CONSOLE_BYTES_MAX: usize = 256 << 10;
/// How much of stderr is kept.
pub const STDERR_BYTES_MAX: usize = 8 << 10;
/// How many lines of it a failure's message gets.
const MESSAGE_LINES_MAX: usize = 12;
const MESSAGE_BYTES_MAX: usize = 2000;

const PANIC: &[u8] = b"Kernel panic";
/// What follows a panic is a stack trace: it is in the console's file.
const PANIC_BYTES_MAX: usize = 200;

/// The last bytes of a stream.
#[derive(Clone)]
pub struct Tail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    limit: usize,
}

impl Tail {
    /// An empty tail of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Arc::default(), limit }
    }

    fn push(&self, chunk: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let chunk = &chunk[chunk.len().saturating_sub(self.limit)..];
        let surplus = (bytes.len() + chunk.len()).saturating_sub(self.limit);
        bytes.drain(..surplus);
        bytes.extend(chunk);
    }

    fn copy(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// The lines that say what went wrong, for a message: from the kernel's panic on, else the last ones. Printable, and empty
    /// if there is nothing.
    pub fn last_lines(&self) -> String {
        let bytes = self.copy();
        let panic = bytes.windows(PANIC.len()).rposition(|window| window == PANIC);
        let recent = match panic {
            Some(start) => &bytes[start..bytes.len().min(start + PANIC_BYTES_MAX)],
            None => &bytes[bytes.len().saturating_sub(MESSAGE_BYTES_MAX)..],
        };
        let text: String =
            String::from_utf8_lossy(recent).chars().filter(|letter| *letter == '\n' || !letter.is_control()).collect();
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(MESSAGE_LINES_MAX)..].join("\n")
    }
}

/// The file of a tail; a clone is another handle of the same.
#[derive(Clone, Default)]
pub struct TailFile(Arc<Mutex<Place>>);

#[derive(Default)]
struct Place {
    path: Option<PathBuf>,
    file: Option<File>,
    written: usize,
}

impl TailFile {
    /// It is made when there is something to write.
    pub fn new(path: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(Place { path: Some(path), ..Place::default() })))
    }

    /// Goes on in another file, which begins with what is kept.
    pub fn move_to(&self, path: PathBuf, tail: &Tail) {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Place { path: Some(path), ..Place::default() };
        let kept = tail.copy();
        if !kept.is_empty() {
            place.append(&kept, tail);
        }
    }

    fn append(&self, chunk: &[u8], tail: &Tail) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).append(chunk, tail);
    }
}

impl Place {
    fn append(&mut self, chunk: &[u8], tail: &Tail) {
        let Some(path) = &self.path else { return };
        if self.file.is_none() {
            // No console file is no reason to stop a machine.
            self.file = OpenOptions::new().create(true).write(true).truncate(true).open(path).ok();
        }
        let Some(file) = &mut self.file else { return };
        if self.written + chunk.len() > 2 * tail.limit {
            let kept = tail.copy();
            let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&kept));
            self.written = kept.len();
        } else {
            let _ = file.write_all(chunk);
            self.written += chunk.len();
        }
    }
}

/// Reads a stream to its end into the tail, and into a file that is written anew from the tail at twice its length.
pub fn keep_tail<R>(mut stream: R, tail: Tail, file: TailFile) -> JoinHandle<()>
where
    R: AsyncRead + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            tail.push(&buffer[..count]);
            file.append(&buffer[..count], &tail);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_console_without_end_keeps_its_last_part_in_memory_and_on_disk() {
        let directory = std::env::temp_dir().join(format!("bulkhead-console-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("console.log");
        let text: Vec<u8> = (0..5000).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
        let tail = Tail::new(1000);

        keep_tail(std::io::Cursor::new(text), tail.clone(), TailFile::new(path.clone())).await.unwrap();

        let file = std::fs::read(&path).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(file.len() <= 2000, "{}", file.len());
        assert!(file.ends_with(b"line 4999\n"));
        assert_eq!(tail.copy().len(), 1000);
        assert!(tail.last_lines().ends_with("line 4998\nline 4999"));
        assert_eq!(tail.last_lines().lines().count(), MESSAGE_LINES_MAX);
    }
}
