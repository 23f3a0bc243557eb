//! Effects on the host.
