//! A machine on its way, by booting or from a saved state, to its agent's first answer.

use super::agent::Agent;
use super::machine::Machine;
use super::monitor::Monitor;
use super::saved;
use crate::phases::Phases;
use bulkhead_protocol::{Failure, FailureCode};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::watch;

/// From the machine's start to the agent's echo. Cold boots take one to three seconds in emulation; this is for a crowded host.
const BOOT_DEADLINE: Duration = Duration::from_secs(30);

/// A machine on its way to its agent's first answer.
pub struct ComingUp {
    pub machine: Machine,
    pub monitor: Monitor,
    /// Of a machine that does not boot.
    pub state: Option<OwnedFd>,
    pub loaded: watch::Sender<bool>,
    pub port: UnixStream,
    pub phases: Phases,
}

impl ComingUp {
    /// Loads the state, if there is one, and waits for the agent; a machine that does not come up is ended.
    pub async fn run(self) -> Result<Agent, Failure> {
        let Self { machine, monitor, state, loaded, port, phases } = self;
        let connect = async {
            if let Some(state) = state {
                saved::load(&monitor, state).await?;
                phases.mark("state-loaded");
                loaded.send_replace(true);
            }
            // The port closes when the process dies; its death tells more.
            let closed = |_| Failure::new(FailureCode::MachineFailed, "the guest agent closed its port");
            Agent::connect(port).await.map_err(closed)
        };
        let connected = tokio::select! {
            connected = tokio::time::timeout(BOOT_DEADLINE, connect) => connected,
            _ = machine.ended() => return Err(died(&machine, "the machine ended").await),
        };
        match connected {
            Ok(Ok(agent)) => {
                phases.mark("agent-ready");
                Ok(agent)
            }
            Ok(Err(failure)) => Err(died(&machine, &failure.message).await),
            Err(_) => {
                let seconds = BOOT_DEADLINE.as_secs();
                Err(died(&machine, &format!("the guest agent did not answer within {seconds} s")).await)
            }
        }
    }
}

/// Why a machine did not come up. One that lives is killed for `reason`.
async fn died(machine: &Machine, reason: &str) -> Failure {
    let end = match tokio::time::timeout(Duration::from_millis(500), machine.ended()).await {
        Ok(end) => end,
        Err(_) => {
            machine.condemn(reason);
            machine.ended().await
        }
    };
    let message = end.failure.map_or_else(|| "the sandbox was stopped".to_owned(), |failure| failure.message);
    Failure::new(FailureCode::MachineFailed, format!("the machine did not start: {message}"))
}
