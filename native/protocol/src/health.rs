//! Health checks: the shim runs the probes, whatever the daemon does, and tells how they went.

use serde::{Deserialize, Serialize};

/// Body of `POST /v1/containers/{id}/health`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// The runtime-spec `process` object of a probe.
    pub process: serde_json::Value,
    /// As in [`crate::CreateContainer::user`].
    #[serde(default)]
    pub user: String,
    /// From the end of one probe to the next, and from the start to the first; at least 1.
    pub interval_ms: u64,
    /// A probe that takes longer is killed, and has failed; at least 1.
    pub timeout_ms: u64,
    /// For so long after the start failures do not count, until one succeeds.
    #[serde(default)]
    pub start_period_ms: u64,
    /// The interval during that time; at least 1.
    pub start_interval_ms: u64,
    /// So many failures in a row are `unhealthy`; at least 1.
    pub retries: u32,
}

/// Answer of `GET /v1/containers/{id}/health`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    /// How many probes have ended: what a reader that knows this report gives as `after`.
    pub sequence: u64,
    /// `starting`, `healthy`, `unhealthy`.
    pub status: String,
    /// Failures since the last success.
    pub failing_streak: u32,
    /// The last five, the newest last.
    pub log: Vec<Probe>,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Its number: the first one is 1.
    pub number: u64,
    /// Nanoseconds since 1970, the host's clock.
    pub started_at_ns: u64,
    /// Nanoseconds since 1970, the host's clock.
    pub ended_at_ns: u64,
    /// -1 for one that could not be run or took too long.
    pub exit_code: i32,
    /// The first 4096 bytes of what it wrote, or why it could not be run.
    pub output: String,
}
