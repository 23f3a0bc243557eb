//! The host's side of a sandbox's network, made by netlink from this process.
