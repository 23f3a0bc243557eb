//! How processes, containers and the sandbox end: recorded first, then told.

use super::{Sandbox, State, map_key};
use crate::phases::realtime_ns;
use crate::process::{Process, ProcessState};
use crate::wall::ProcessKey;
use bulkhead_protocol::{Exit, Failure};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// What the wall gets to close down after the last container ended.
const CLOSE_DOWN: Duration = Duration::from_secs(2);
/// How many ended further processes can still be asked about.
const ENDED_PROCESSES_MAX: usize = 32;
/// And for how long.
const ENDED_PROCESS_KEPT: Duration = Duration::from_secs(300);
/// Exit code of a process that never ran because its sandbox ended.
const NEVER_RAN: i32 = 255;

impl Sandbox {
    /// From the start of a process to its recorded end.
    pub(super) async fn follow(&self, process: &Arc<Process>) {
        let mut exit = self.0.wall.wait(&process.key).await;
        exit.finished_at_ns = realtime_ns();
        if process.key.is_init() {
            self.0.phases.mark("process-ended");
        }
        process.output_taken().await;
        exit.output_bytes = process.output.length();
        if !process.key.is_init() {
            process.tell_exit(exit);
            self.keep_for_a_while(&process.key);
            return;
        }
        self.record(&process.key.container, &exit).await;
        if Self::have_ended(&self.lock(), Some(&process.key)) {
            // Whoever is told of the end finds the ports free.
            self.lock_ports().take();
        }
        self.0.phases.mark("exit-recorded");
        process.tell_exit(exit);
        if self.begins_to_close()
            && let Err(cause) = self.0.wall.stop(CLOSE_DOWN).await
        {
            eprintln!("cannot close down the sandbox: {cause}");
        }
    }

    async fn record(&self, container: &str, exit: &Exit) {
        let _writer = self.0.record_lock.lock().await;
        let mut exits: BTreeMap<String, Exit> = {
            let state = self.lock();
            let inits = state.processes.values().flatten().filter(|process| process.key.is_init());
            inits.filter_map(|process| Some((process.key.container.clone(), process.exit()?))).collect()
        };
        exits.insert(container.to_owned(), exit.clone());
        let record = self.0.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let durable = !self.lock().ephemeral.contains(container);
        let written = tokio::task::spawn_blocking(move || record.write(exits, durable)).await;
        if let Err(cause) = written.unwrap_or_else(|cause| Err(std::io::Error::other(cause))) {
            eprintln!("container {container}: cannot record its exit {exit:?}: {cause}");
        }
    }

    /// Whether the containers have ended, or all but this one.
    fn have_ended(state: &State, but: Option<&ProcessKey>) -> bool {
        let known = state.processes.iter().filter(|((_, process), _)| process == bulkhead_protocol::INIT);
        known
            .filter(|(key, _)| but.is_none_or(|but| **key != map_key(but)))
            .all(|(_, process)| process.as_ref().is_some_and(|process| process.state() == ProcessState::Exited))
    }

    /// True once: when the last container has ended, the sandbox closes.
    fn begins_to_close(&self) -> bool {
        let mut state = self.lock();
        let all = Self::have_ended(&state, None);
        let first = all && !state.closing;
        state.closing |= all;
        first
    }

    /// An ended further process stays for those who ask late; a health check must not fill the memory with them.
    fn keep_for_a_while(&self, key: &ProcessKey) {
        let mut state = self.lock();
        state.ended_processes.push_back(key.clone());
        if state.ended_processes.len() > ENDED_PROCESSES_MAX
            && let Some(oldest) = state.ended_processes.pop_front()
        {
            state.processes.remove(&map_key(&oldest));
        }
        drop(state);
        let (sandbox, key) = (Arc::downgrade(&self.0), key.clone());
        tokio::spawn(async move {
            tokio::time::sleep(ENDED_PROCESS_KEPT).await;
            if let Some(sandbox) = sandbox.upgrade() {
                let mut state = sandbox.state.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(place) = state.ended_processes.iter().position(|ended| *ended == key) {
                    state.ended_processes.remove(place);
                    state.processes.remove(&map_key(&key));
                }
            }
        });
    }

    pub(super) async fn wall_ended(&self, cause: Option<Failure>) {
        self.lock_ports().take();
        if let Some(cause) = &cause {
            eprintln!("the sandbox ended: {cause}");
        }
        let processes: Vec<_> = {
            let mut state = self.lock();
            state.closing = true;
            state.processes.values().flatten().cloned().collect()
        };
        for process in processes {
            if process.state() == ProcessState::Created {
                let error = match &cause {
                    Some(cause) => cause.message.clone(),
                    None => "the sandbox ended before the process was started".to_owned(),
                };
                let exit = Exit {
                    exit_code: NEVER_RAN,
                    oom_killed: false,
                    finished_at_ns: realtime_ns(),
                    error,
                    output_bytes: 0,
                };
                if process.key.is_init() {
                    self.record(&process.key.container, &exit).await;
                }
                process.tell_exit(exit);
            } else {
                process.wait().await;
            }
        }
        self.0.phases.mark("sandbox-ended");
        self.0.ended.send_replace(true);
    }
}
