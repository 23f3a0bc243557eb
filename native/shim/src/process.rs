//! One process as the core sees it, whichever wall runs it.

use crate::framing::FrameParser;
use crate::json_log::JsonLog;
use crate::output::{Output, Selection};
use crate::phases::Phases;
use crate::wall::{FramedOutput, ProcessKey};
use bulkhead_protocol::{Exit, Failure, FailureCode};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A created process.
pub struct Process {
    /// Its name.
    pub key: ProcessKey,
    /// Its output.
    pub output: Output,
    /// It has a terminal: its output is one stream, and readers get no headers.
    pub terminal: bool,
    /// The first writer's end closes stdin.
    pub stdin_once: bool,
    state: Mutex<ProcessState>,
    exit: watch::Sender<Option<Exit>>,
    pump: Mutex<Option<JoinHandle<()>>>,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// Not started.
    Created,
    /// Being started.
    Starting,
    /// Started.
    Running {
        /// Its id.
        pid: u32,
    },
    /// Ended; see [`Process::exit`].
    Exited,
}

impl Process {
    /// A created process whose output is pumped from now on.
    pub fn new(
        key: ProcessKey,
        terminal: bool,
        stdin_once: bool,
        stream: FramedOutput,
        log: Option<JsonLog>,
        phases: Option<Phases>,
    ) -> Self {
        let output = Output::default();
        let pump = tokio::spawn(pump(key.to_string(), stream, output.clone(), log, phases));
        Self {
            key,
            output,
            terminal,
            stdin_once,
            state: Mutex::new(ProcessState::Created),
            exit: watch::Sender::new(None),
            pump: Mutex::new(Some(pump)),
        }
    }

    /// Where it is in its life.
    pub fn state(&self) -> ProcessState {
        *self.lock_state()
    }

    /// How it ended, once it has.
    pub fn exit(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Moves from created to starting, or says why not.
    pub fn begin_start(&self) -> Result<(), Failure> {
        let mut state = self.lock_state();
        if *state != ProcessState::Created {
            let message = format!("{} was started before", self.key);
            return Err(Failure::new(FailureCode::WrongState, message));
        }
        *state = ProcessState::Starting;
        Ok(())
    }

    /// The outcome of a start: its process id, or none if it failed and may be tried again.
    pub fn end_start(&self, pid: Option<u32>) {
        *self.lock_state() = pid.map_or(ProcessState::Created, |pid| ProcessState::Running { pid });
    }

    /// `WrongState` unless it runs.
    pub fn require_running(&self) -> Result<(), Failure> {
        match self.state() {
            ProcessState::Running { .. } => Ok(()),
            _ => Err(Failure::new(FailureCode::WrongState, format!("{} is not running", self.key))),
        }
    }

    /// What a reader gets of it.
    pub fn selection(&self, stdout: bool, stderr: bool) -> Selection {
        Selection { stdout, stderr, raw: self.terminal }
    }

    /// Waits until all its output is in the log and the ring.
    pub async fn output_taken(&self) {
        let pump = self.pump.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(pump) = pump
            && pump.await.is_err()
        {
            self.output.end();
        }
    }

    /// It has ended; it can be told from now on.
    pub fn tell_exit(&self, exit: Exit) {
        *self.lock_state() = ProcessState::Exited;
        self.output.end();
        self.exit.send_replace(Some(exit));
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        // The sender lives as long as `self`, so the wait cannot fail.
        exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone()).unwrap_or(Exit {
            exit_code: 255,
            oom_killed: false,
            finished_at_ns: 0,
            error: "the process was forgotten".into(),
            output_bytes: 0,
        })
    }

    fn lock_state(&self) -> MutexGuard<'_, ProcessState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves the wall's stream into the log and the ring, in that order, so that who has seen a line can find it in the log.
async fn pump(
    name: String,
    mut stream: FramedOutput,
    output: Output,
    mut log: Option<JsonLog>,
    mut phases: Option<Phases>,
) {
    let mut parser = FrameParser::default();
    let mut pieces = Vec::new();
    'stream: while let Some(mut chunk) = stream.recv().await {
        if let Some(phases) = phases.take() {
            phases.mark("first-output");
        }
        loop {
            match parser.next(&mut chunk) {
                Ok(Some(piece)) => {
                    if let Some(log) = &mut log {
                        log.add(parser.stream(), &piece.payload);
                    }
                    pieces.push(piece);
                }
                Ok(None) => break,
                Err(cause) => {
                    eprintln!("{name}: its output ends here: {cause}");
                    break 'stream;
                }
            }
        }
        if let Some(log) = &mut log {
            log.flush();
        }
        for piece in pieces.drain(..) {
            output.push(&piece).await;
        }
    }
    if let Some(log) = &mut log {
        log.finish();
    }
    output.end();
}
