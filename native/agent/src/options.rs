//! The command line: none in a machine; on a developer's host `--not-pid-1 --listen SOCKET --root-directory DIRECTORY`.

use crate::failure::{Result, invalid};

/// How to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Options {
    /// As PID 1 of a machine.
    Machine,
    /// As a process of a host, for tests.
    Host {
        /// Unix socket to listen on.
        listen: String,
        /// Root of every container.
        root_directory: String,
    },
}

impl Options {
    /// Reads the arguments. The kernel hands PID 1 those of its command line that it does not know: they are not for us.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut listen, mut root_directory, mut is_host) = (None, None, false);
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--not-pid-1" => is_host = true,
                "--listen" => listen = arguments.next(),
                "--root-directory" => root_directory = arguments.next(),
                _ => {}
            }
        }
        if !is_host && std::process::id() == 1 {
            return Ok(Self::Machine);
        }
        match (is_host, listen, root_directory) {
            (true, Some(listen), Some(root_directory)) => Ok(Self::Host { listen, root_directory }),
            _ => Err(invalid("not PID 1: use --not-pid-1 --listen SOCKET --root-directory DIRECTORY")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_a_machine_every_option_is_needed() {
        let parse = |line: &str| Options::parse(line.split_whitespace().map(str::to_owned));
        assert!(parse("").is_err());
        assert!(parse("--not-pid-1 --listen /s").is_err());
        assert_eq!(
            parse("--not-pid-1 --listen /s --root-directory /r").unwrap(),
            Options::Host { listen: "/s".into(), root_directory: "/r".into() }
        );
    }
}
