//! What tells machines apart that were started from the same saved one.

use super::agent::fill_random;
use crate::phases::realtime_ns;
use bulkhead_protocol::{Failure, FailureCode, GuestIdentity, Network};
use std::fmt::Write as _;

/// What makes a machine this one and no other: never the same twice.
pub fn new_identity(hostname: &str, network: Option<Network>) -> Result<GuestIdentity, Failure> {
    let mut random = [0_u8; 64 + 16];
    fill_random(&mut random)
        .map_err(|error| Failure::new(FailureCode::Internal, format!("entropy for the guest: {error}")))?;
    let (entropy, machine_id) = random.split_at(64);
    Ok(GuestIdentity {
        realtime_ns: realtime_ns(),
        entropy: hex(entropy),
        hostname: hostname.to_owned(),
        machine_id: hex(machine_id),
        network,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
