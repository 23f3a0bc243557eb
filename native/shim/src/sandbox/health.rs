//! Health checks: a container is probed at its intervals from its start to its end, whether or not a daemon is there to hear of it.

use super::{Sandbox, map_key};
use crate::framing::FrameParser;
use crate::output::Selection;
use crate::phases::realtime_ns;
use crate::process::Process;
use crate::wall::ProcessKey;
use bulkhead_protocol::{CreateProcess, Failure, FailureCode, HealthCheck, HealthReport, Probe};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const PROBES_KEPT: usize = 5;
const OUTPUT_BYTES_MAX: usize = 4096;
/// A killed probe is gone by then; what does not die is left to the sandbox's end.
const KILLED: Duration = Duration::from_secs(10);
const KILL_AGAIN: Duration = Duration::from_millis(200);

/// The state of one container's checks; a clone is another handle of the same.
#[derive(Clone)]
pub struct Health(Arc<watch::Sender<HealthReport>>);

impl Sandbox {
    /// Begins to probe a running container. One that is probed already goes on as it is: the daemon asks again after its own start.
    pub fn start_health(&self, id: &str, check: HealthCheck) -> Result<(), Failure> {
        if [check.interval_ms, check.timeout_ms, check.start_interval_ms, u64::from(check.retries)].contains(&0) {
            let message = format!("container {id}: a health check's times and retries are at least 1");
            return Err(Failure::new(FailureCode::InvalidRequest, message));
        }
        let init = self.process(&ProcessKey::init(id))?;
        init.require_running()?;
        let health = {
            let mut state = self.lock();
            if state.health.contains_key(id) {
                return Ok(());
            }
            let report = HealthReport { status: "starting".to_owned(), ..HealthReport::default() };
            let health = Health(Arc::new(watch::Sender::new(report)));
            state.health.insert(id.to_owned(), health.clone());
            health
        };
        let (sandbox, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = probe_for_ever(&sandbox, &id, &check, &health) => {}
                _ = init.wait() => {}
            }
            sandbox.lock().health.remove(&id);
        });
        Ok(())
    }

    /// The report once it is newer than `after`; `WrongState` when the container ends.
    pub async fn health(&self, id: &str, after: Option<u64>) -> Result<HealthReport, Failure> {
        let init = self.process(&ProcessKey::init(id))?;
        init.require_running()?;
        let health = self.lock().health.get(id).cloned();
        let not_checked = || Failure::new(FailureCode::NotFound, format!("container {id} has no health check"));
        let mut reports = health.ok_or_else(not_checked)?.0.subscribe();
        let newer = reports.wait_for(|report| after.is_none_or(|after| report.sequence > after));
        tokio::select! {
            report = newer => report.map(|report| report.clone()).map_err(|_| not_checked()),
            _ = init.wait() => Err(Failure::new(FailureCode::WrongState, format!("container {id} has ended"))),
        }
    }
}

async fn probe_for_ever(sandbox: &Sandbox, id: &str, check: &HealthCheck, health: &Health) {
    let started = Instant::now();
    let start_period = Duration::from_millis(check.start_period_ms);
    for number in 1.. {
        let is_starting = started.elapsed() < start_period && health.0.borrow().status == "starting";
        let interval = if is_starting { check.start_interval_ms } else { check.interval_ms };
        tokio::time::sleep(Duration::from_millis(interval)).await;
        while sandbox.require_unpaused(id).is_err() {
            // Nobody can be asked while all stands still.
            tokio::time::sleep(Duration::from_millis(interval)).await;
        }
        let began = started.elapsed();
        let probe = run(sandbox, id, number, check).await;
        health.0.send_modify(|report| judge(report, probe, check.retries, began < start_period));
    }
}

/// Docker's rules. Source: moby daemon/health.go, `handleProbeResult`.
fn judge(report: &mut HealthReport, probe: Probe, retries: u32, in_start_period: bool) {
    if probe.exit_code == 0 {
        report.failing_streak = 0;
        report.status = "healthy".to_owned();
    } else if !(in_start_period && report.status == "starting") {
        report.failing_streak = report.failing_streak.saturating_add(1);
        if report.failing_streak >= retries {
            report.status = "unhealthy".to_owned();
        }
    }
    report.sequence = probe.number;
    report.log.push(probe);
    if report.log.len() > PROBES_KEPT {
        report.log.remove(0);
    }
}

async fn run(sandbox: &Sandbox, id: &str, number: u64, check: &HealthCheck) -> Probe {
    let key = ProcessKey { container: id.to_owned(), process: format!("health-{number}") };
    let started_at_ns = realtime_ns();
    let timeout = Duration::from_millis(check.timeout_ms);
    // A task of its own: a process that is half made when the time is over must not be left so.
    let mut running = tokio::spawn(run_to_its_end(sandbox.clone(), key.clone(), check.clone()));
    let (exit_code, output) = match tokio::time::timeout(timeout, &mut running).await {
        Ok(Ok(Ok(ended))) => ended,
        Ok(Ok(Err(failure))) => (-1, failure.message),
        Ok(Err(cause)) => (-1, cause.to_string()),
        Err(_) => {
            let _ = tokio::time::timeout(KILLED, end(sandbox, &key, &mut running)).await;
            (-1, format!("Health check exceeded timeout ({})", describe(timeout)))
        }
    };
    // Nobody else knows of it.
    sandbox.lock().processes.remove(&map_key(&key));
    Probe { number, started_at_ns, ended_at_ns: realtime_ns(), exit_code, output }
}

type Ended = Result<(i32, String), Failure>;

/// Kills a probe; one that is still being made, as soon as it runs.
async fn end(sandbox: &Sandbox, key: &ProcessKey, running: &mut JoinHandle<Ended>) {
    loop {
        let _ = sandbox.kill(key, libc::SIGKILL).await;
        if tokio::time::timeout(KILL_AGAIN, &mut *running).await.is_ok() {
            return;
        }
    }
}

async fn run_to_its_end(sandbox: Sandbox, key: ProcessKey, check: HealthCheck) -> Ended {
    let request = CreateProcess { process: check.process, user: check.user, stdin: false, terminal_size: None };
    sandbox.create_process(&key, request).await?;
    let process = sandbox.process(&key)?;
    let output = read_output(process.clone());
    sandbox.start(&key).await?;
    let (output, exit) = tokio::join!(output, process.wait());
    Ok((exit.exit_code, output))
}

/// The beginning of both streams; the rest is taken and dropped, so that the probe is not held up.
async fn read_output(process: Arc<Process>) -> String {
    let everything = Selection { stdout: true, stderr: true, raw: false };
    let Ok(mut reader) = process.output.reader(Some(0), everything) else { return String::new() };
    let (mut parser, mut text) = (FrameParser::default(), Vec::new());
    while let Ok(Some(mut chunk)) = reader.next().await {
        while let Ok(Some(piece)) = parser.next(&mut chunk) {
            let room = OUTPUT_BYTES_MAX - text.len();
            text.extend_from_slice(&piece.payload[..piece.payload.len().min(room)]);
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// As Go prints a duration: `30s`, `1.5s`, `200ms`.
fn describe(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{}s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(number: u64, exit_code: i32) -> Probe {
        Probe { number, started_at_ns: 0, ended_at_ns: 0, exit_code, output: String::new() }
    }

    fn starting() -> HealthReport {
        HealthReport { status: "starting".to_owned(), ..HealthReport::default() }
    }

    #[test]
    fn so_many_failures_in_a_row_are_unhealthy_and_one_success_is_healthy() {
        let mut report = starting();
        judge(&mut report, probe(1, 1), 2, false);
        assert_eq!((report.status.as_str(), report.failing_streak), ("starting", 1));
        judge(&mut report, probe(2, 1), 2, false);
        assert_eq!((report.status.as_str(), report.failing_streak), ("unhealthy", 2));
        judge(&mut report, probe(3, 0), 2, false);
        assert_eq!((report.status.as_str(), report.failing_streak, report.sequence), ("healthy", 0, 3));
    }

    #[test]
    fn failures_of_the_start_do_not_count_until_the_first_success() {
        let mut report = starting();
        judge(&mut report, probe(1, 1), 1, true);
        assert_eq!((report.status.as_str(), report.failing_streak), ("starting", 0));
        judge(&mut report, probe(2, 0), 1, true);
        judge(&mut report, probe(3, 1), 1, true);
        assert_eq!((report.status.as_str(), report.failing_streak), ("unhealthy", 1));
    }

    #[test]
    fn the_last_five_are_kept() {
        let mut report = starting();
        (1..=7).for_each(|number| judge(&mut report, probe(number, 0), 1, false));
        assert_eq!(report.log.iter().map(|probe| probe.number).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        assert_eq!(describe(Duration::from_millis(200)), "200ms");
        assert_eq!(describe(Duration::from_secs(30)), "30s");
        assert_eq!(describe(Duration::from_millis(1500)), "1.5s");
    }
}
