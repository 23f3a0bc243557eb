//! Finding a command the way execvp(3) and Go's exec.LookPath do, inside the container's root.

use crate::failure::{Result, errno_text};
use bulkhead_protocol::{Failure, FailureCode};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::AccessFlags;

/// The file to execute for `name`, looked up with the identity that this process has now.
pub(crate) fn find_command(name: &str, env: &[String]) -> Result<String> {
    if name.contains('/') {
        return match check_executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(Failure::new(
                FailureCode::CommandNotFound,
                format!("exec: {name:?}: stat {name}: no such file or directory"),
            )),
            Err(errno) => {
                Err(Failure::new(FailureCode::CommandNotExecutable, format!("exec: {name:?}: {}", errno_text(errno))))
            }
        };
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("");
    let mut refused = None;
    for candidate in candidates(name, path) {
        match check_executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => refused = Some(Errno::EACCES),
            Err(_) => {}
        }
    }
    Err(match refused {
        Some(errno) => {
            Failure::new(FailureCode::CommandNotExecutable, format!("exec: {name:?}: {}", errno_text(errno)))
        }
        None => {
            Failure::new(FailureCode::CommandNotFound, format!("exec: {name:?}: executable file not found in $PATH"))
        }
    })
}

/// The failure of execve(2) itself, in runc's words.
pub(crate) fn exec_failure(path: &str, errno: Errno) -> Failure {
    let code = match errno {
        // The file is there, so its interpreter is not.
        Errno::ENOENT | Errno::ENOTDIR => FailureCode::CommandNotFound,
        _ => FailureCode::CommandNotExecutable,
    };
    Failure::new(code, format!("exec {path}: {}", errno_text(errno)))
}

/// Where a name without a slash may be; an empty element is the working directory.
fn candidates<'a>(name: &'a str, path: &'a str) -> impl Iterator<Item = String> + 'a {
    path.split(':').filter(move |_| !path.is_empty()).map(move |directory| match directory {
        "" => format!("./{name}"),
        _ => format!("{}/{name}", directory.trim_end_matches('/')),
    })
}

fn check_executable(path: &str) -> std::result::Result<(), Errno> {
    let stat = nix::sys::stat::stat(path)?;
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    // Root may execute what has any execute bit, which faccessat(2) knows.
    nix::unistd::faccessat(nix::fcntl::AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_of_the_path_is_tried_and_an_empty_one_is_here() {
        assert_eq!(candidates("ls", "/bin/::/x").collect::<Vec<_>>(), ["/bin/ls", "./ls", "/x/ls"]);
        assert_eq!(candidates("ls", "").count(), 0);
    }

    #[test]
    fn a_missing_command_is_told_in_runcs_words() {
        let failure = find_command("no-such-program", &["PATH=/bin:/usr/bin".into()]).unwrap_err();
        assert_eq!(failure.code, FailureCode::CommandNotFound);
        assert_eq!(failure.message, "exec: \"no-such-program\": executable file not found in $PATH");
        let failure = find_command("/no/such", &[]).unwrap_err();
        assert_eq!(failure.message, "exec: \"/no/such\": stat /no/such: no such file or directory");
    }

    #[test]
    fn a_directory_or_plain_file_is_not_executable() {
        assert_eq!(find_command("/etc", &[]).unwrap_err().message, "exec: \"/etc\": is a directory");
        let failure = find_command("/etc/passwd", &[]).unwrap_err();
        assert_eq!(failure.code, FailureCode::CommandNotExecutable);
        assert_eq!(failure.message, "exec: \"/etc/passwd\": permission denied");
    }

    #[test]
    fn the_last_path_in_the_environment_counts() {
        let env = ["PATH=/nowhere".to_owned(), "PATH=/bin".to_owned()];
        assert_eq!(find_command("sh", &env).unwrap(), "/bin/sh");
    }
}
