//! Effects on the host: what Node cannot do itself. Each takes a request, changes or reads one thing, and answers with facts.

pub mod clock;
pub mod files;
pub mod links;
pub mod mounts;
mod netlink;
pub mod processes;
pub mod routes;
