//! The host's side of a sandbox's network, made by netlink from this process.
//!
//! Nothing of it outlives the shim: the namespace is held by a descriptor only (its end takes the veth pair along), the
//! tap is not persistent.

mod namespace;
mod netlink;
pub mod ports;
mod tap;

pub use tap::join;

use crate::wall::NetworkHandle;
use bulkhead_protocol::{Failure, FailureCode, SandboxConfig, WallConfig};
use nix::net::if_::if_nametoindex;

/// Makes what the sandbox's wall needs: a tap, or a network namespace with its end of a veth pair.
pub fn prepare(config: &SandboxConfig) -> Result<NetworkHandle, Failure> {
    match (&config.wall, &config.network) {
        (WallConfig::Vm { machine } | WallConfig::Template { machine }, network) => {
            let tap = tap::create(&machine.tap_name)?;
            network.as_ref().map_or(Ok(()), join)?;
            Ok(NetworkHandle::Tap(tap))
        }
        (WallConfig::Os { .. }, network) => namespace::create(network.as_ref()).map(NetworkHandle::Namespace),
    }
}

/// The index of the bridge that a sandbox joins.
fn bridge_index(name: &str) -> Result<u32, Failure> {
    if_nametoindex(name).map_err(|cause| network_failure(&format!("find bridge {name}"), &cause))
}

fn network_failure(what: &str, cause: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureCode::Internal, format!("network: cannot {what}: {cause}"))
}
