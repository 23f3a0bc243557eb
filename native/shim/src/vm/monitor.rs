//! Client of QEMU's monitor (QMP: docs/interop/qmp-spec.rst of QEMU) on one end of a socket pair.

use bulkhead_protocol::{Failure, FailureCode};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot, watch};

/// The machine process is not trusted: what it sends is bounded. Our commands' answers are a few hundred bytes.
const LINE_BYTES_MAX: usize = 256 << 10;

type Answer = Result<Value, String>;

struct Shared {
    stream: UnixStream,
    waiting: Mutex<Waiting>,
    /// Held over one command and its answer: QEMU keeps only the last descriptor that it was sent. True once the capabilities
    /// are negotiated, before which QEMU takes no command and tells no event.
    turn: AsyncMutex<bool>,
    /// The CPUs stand still, although nobody asked for it.
    halted: Notify,
    /// Ids of the console ports that the guest has open.
    open_ports: watch::Sender<BTreeSet<String>>,
    /// Last state of a save or load: `active`, `completed`, `failed` …
    migration: watch::Sender<String>,
}

#[derive(Default)]
struct Waiting {
    next_id: u64,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    /// Set once the connection has ended.
    closed: bool,
    /// The next stop of the CPUs is asked for.
    stop_expected: bool,
    /// Why the guest stopped, as the SHUTDOWN event said: `guest-reset`, `guest-shutdown`, `guest-panic`, …
    shutdown_reason: Option<String>,
}

/// A connected monitor; a clone is another handle of the same.
#[derive(Clone)]
pub struct Monitor(Arc<Shared>);

impl Monitor {
    /// Takes the host's end and starts reading. The capabilities are negotiated by the first command.
    pub fn start(stream: UnixStream) -> Self {
        let monitor = Self(Arc::new(Shared {
            stream,
            waiting: Mutex::default(),
            turn: AsyncMutex::new(false),
            halted: Notify::new(),
            open_ports: watch::Sender::default(),
            migration: watch::Sender::default(),
        }));
        let reader = monitor.clone();
        tokio::spawn(async move {
            reader.read_lines().await;
            let mut waiting = reader.waiting();
            waiting.closed = true;
            waiting.answers.clear();
        });
        let first = monitor.clone();
        // Its failure shows in the next command.
        tokio::spawn(async move { first.negotiate().await });
        monitor
    }

    /// Runs a command and gives back its `return`.
    pub async fn run(&self, command: &str, arguments: Value) -> Result<Value, Failure> {
        self.take_turn(command, arguments, None).await
    }

    /// Gives QEMU a descriptor as the only one of a new set; `/dev/fdset/<set>` then opens it.
    pub async fn add_fd(&self, fd: BorrowedFd<'_>, set: usize) -> Result<(), Failure> {
        self.take_turn("add-fd", json!({ "fdset-id": set }), Some(fd)).await.map(drop)
    }

    /// Gives QEMU a descriptor under a name, for commands that take one.
    pub async fn name_fd(&self, fd: BorrowedFd<'_>, name: &str) -> Result<(), Failure> {
        self.take_turn("getfd", json!({ "fdname": name }), Some(fd)).await.map(drop)
    }

    /// Stops the CPUs.
    pub async fn stop(&self) -> Result<(), Failure> {
        self.waiting().stop_expected = true;
        self.run("stop", json!({})).await.map(drop)
    }

    /// Lets them go on.
    pub async fn go_on(&self) -> Result<(), Failure> {
        self.waiting().stop_expected = false;
        self.run("cont", json!({})).await.map(drop)
    }

    /// Waits until the guest has opened the console port with this id; never resolves if the process ends before.
    pub async fn port_opened(&self, id: &str) {
        let _ = self.0.open_ports.subscribe().wait_for(|ports| ports.contains(id)).await;
    }

    /// Waits for the end of a save or load. The `events` capability must be on.
    pub async fn migrated(&self) -> Result<(), Failure> {
        let mut states = self.0.migration.subscribe();
        let state = states.wait_for(|state| matches!(state.as_str(), "completed" | "failed" | "cancelled")).await;
        match state.as_deref().map(String::as_str) {
            Ok("completed") => Ok(()),
            Ok(_) => Err(Failure::new(FailureCode::MachineFailed, "the machine's state could not be saved or loaded")),
            Err(_) => Err(Failure::new(FailureCode::MachineFailed, "the machine process has ended")),
        }
    }

    /// Waits until the CPUs stand still for a reason of QEMU's own (KVM cannot emulate an instruction, a panic device).
    pub async fn halted(&self) {
        self.0.halted.notified().await;
    }

    /// Why the guest stopped, if it said so.
    pub fn shutdown_reason(&self) -> Option<String> {
        self.waiting().shutdown_reason.clone()
    }

    async fn negotiate(&self) -> Result<(), Failure> {
        let mut negotiated = self.0.turn.lock().await;
        if !*negotiated {
            self.exchange("qmp_capabilities", json!({}), None).await?;
            *negotiated = true;
        }
        Ok(())
    }

    async fn take_turn(&self, command: &str, arguments: Value, fd: Option<BorrowedFd<'_>>) -> Result<Value, Failure> {
        self.negotiate().await?;
        let _turn = self.0.turn.lock().await;
        self.exchange(command, arguments, fd).await
    }

    async fn exchange(&self, command: &str, arguments: Value, fd: Option<BorrowedFd<'_>>) -> Result<Value, Failure> {
        let failed = |cause: &str| {
            Failure::new(FailureCode::MachineFailed, format!("the machine's monitor refused {command}: {cause}"))
        };
        let (sender, answer) = oneshot::channel();
        let id = {
            let mut waiting = self.waiting();
            if waiting.closed {
                return Err(failed("the machine process has ended"));
            }
            waiting.next_id += 1;
            let id = waiting.next_id;
            waiting.answers.insert(id, sender);
            id
        };
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        let sent = self.send(line.as_bytes(), fd).await;
        if let Err(error) = sent {
            self.waiting().answers.remove(&id);
            return Err(failed(&error.to_string()));
        }
        match answer.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(cause)) => Err(failed(&cause)),
            Err(_) => Err(failed("the machine process has ended")),
        }
    }

    async fn send(&self, mut bytes: &[u8], mut fd: Option<BorrowedFd<'_>>) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let sent = self
                .0
                .stream
                .async_io(Interest::WRITABLE, || {
                    let numbers = fd.map(|fd| [fd.as_raw_fd()]);
                    let rights = numbers.as_ref().map(|numbers| [ControlMessage::ScmRights(numbers)]);
                    let control = rights.as_ref().map_or(&[][..], |rights| &rights[..]);
                    let socket = self.0.stream.as_raw_fd();
                    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                    Ok(sendmsg::<()>(socket, &[IoSlice::new(bytes)], control, flags, None)?)
                })
                .await?;
            // The descriptor went with the first byte.
            fd = None;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    async fn read_lines(&self) {
        let mut pending: Vec<u8> = Vec::new();
        let mut buffer = vec![0; 16 << 10];
        loop {
            if self.0.stream.readable().await.is_err() {
                return;
            }
            match self.0.stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => pending.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => return,
            }
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                if let Ok(message) = serde_json::from_slice::<Value>(&pending[..end]) {
                    self.take(&message);
                }
                pending.drain(..=end);
            }
            if pending.len() > LINE_BYTES_MAX {
                return;
            }
        }
    }

    fn take(&self, message: &Value) {
        let mut waiting = self.waiting();
        if let Some(event) = message["event"].as_str() {
            let data = &message["data"];
            let reason = match event {
                "SHUTDOWN" => message["data"]["reason"].as_str().unwrap_or("shutdown"),
                "GUEST_PANICKED" => "guest-panic",
                "STOP" => {
                    if !waiting.stop_expected {
                        self.0.halted.notify_one();
                    }
                    return;
                }
                "VSERPORT_CHANGE" => {
                    let id = data["id"].as_str().unwrap_or_default().to_owned();
                    self.0.open_ports.send_modify(|ports| {
                        if data["open"].as_bool() == Some(true) {
                            ports.insert(id)
                        } else {
                            ports.remove(&id)
                        };
                    });
                    return;
                }
                "MIGRATION" => {
                    let state = data["status"].as_str().unwrap_or_default();
                    self.0.migration.send_replace(state.to_owned());
                    return;
                }
                _ => return,
            };
            waiting.shutdown_reason.get_or_insert_with(|| reason.to_owned());
            return;
        }
        let Some(sender) = message["id"].as_u64().and_then(|id| waiting.answers.remove(&id)) else { return };
        let answer = match (message.get("return"), message.get("error")) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some(error)) => Err(error["desc"].as_str().unwrap_or("no reason given").to_owned()),
            (None, None) => Err("neither a result nor an error".to_owned()),
        };
        let _ = sender.send(answer);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

    #[tokio::test(flavor = "current_thread")]
    async fn answers_find_their_command_and_errors_name_it() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let monitor = Monitor::start(ours);
        let peer = tokio::spawn(async move {
            let (reader, mut writer) = theirs.into_split();
            let mut lines = BufReader::new(reader).lines();
            writer
                .write_all(b"{\"QMP\": {}}\n{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-reset\"}}\n")
                .await
                .unwrap();
            lines.next_line().await.unwrap().unwrap();
            writer.write_all(b"{\"id\": 1, \"return\": {}}\n").await.unwrap();
            lines.next_line().await.unwrap().unwrap();
            writer.write_all(b"{\"id\": 77, \"return\": 1}\n{\"id\": 2, \"return\": 2}\n").await.unwrap();
            lines.next_line().await.unwrap().unwrap();
            writer.write_all(b"{\"id\": 3, \"error\": {\"desc\": \"no node\"}}\n").await.unwrap();
            lines.next_line().await.unwrap().unwrap();
        });

        let first = monitor.run("one", json!({})).await;
        let second = monitor.run("two", json!({})).await;
        let third = monitor.run("three", json!({})).await;
        peer.await.unwrap();

        assert_eq!(first, Ok(json!(2)));
        assert_eq!(second.unwrap_err().message, "the machine's monitor refused two: no node");
        assert!(third.unwrap_err().message.ends_with("the machine process has ended"));
        assert_eq!(monitor.shutdown_reason().as_deref(), Some("guest-reset"));
    }
}
