//! Entry point of the shim: reads its config, prepares the sandbox, says that it is ready, serves, and ends.

use bulkhead_protocol::{Failure, FailureCode, MachineConfig, SandboxConfig, WallConfig};
use bulkhead_shim::network::{self, ports::HeldPorts};
use bulkhead_shim::phases::Phases;
use bulkhead_shim::reaper::Reaper;
use bulkhead_shim::sandbox::Sandbox;
use bulkhead_shim::server::{self, Activity};
use bulkhead_shim::wall::{ActiveWall, WallContext};
use bulkhead_shim::{os, priority, runtime_dir, vm};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

/// Where the config comes from and where readiness goes to.
const CONFIG_FD: i32 = 3;
const READY_FD: i32 = 4;
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// Longest runtime directory: the sockets in it must fit into `sockaddr_un`.
const RUNTIME_DIR_BYTES_MAX: usize = 80;
/// What a sandbox gets to end after SIGTERM.
const TERMINATION: Duration = Duration::from_secs(10);
/// After the sandbox ended, how long the shim waits for a client, and for readers to take the rest.
const LINGER: Duration = Duration::from_secs(10);
/// What stopping may take altogether, its deadline included, before the shim gives up on it.
const TERMINATION_MAX: Duration = Duration::from_secs(40);
/// How long connections may take to close at the very end.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let Some([config, ready]) = take_descriptors() else {
        eprintln!("bulkhead-shim is started by the daemon: config on descriptor {CONFIG_FD}, answer on {READY_FD}");
        return ExitCode::from(2);
    };
    match read_config(config) {
        Ok(config) => run(&config, ready),
        Err(failure) => {
            tell(ready, &failure);
            ExitCode::FAILURE
        }
    }
}

fn take_descriptors() -> Option<[File; 2]> {
    let open = [CONFIG_FD, READY_FD].iter().all(|descriptor| {
        // SAFETY: F_SETFD on any number is harmless: EBADF if it is not open.
        unsafe { libc::fcntl(*descriptor, libc::F_SETFD, libc::FD_CLOEXEC) == 0 }
    });
    // SAFETY: both are open, and nothing in this process owns them yet: main has only just begun.
    open.then(|| [CONFIG_FD, READY_FD].map(|descriptor| unsafe { File::from_raw_fd(descriptor) }))
}

fn read_config(file: File) -> Result<SandboxConfig, Failure> {
    let invalid = |cause: String| Failure::new(FailureCode::InvalidRequest, format!("sandbox config: {cause}"));
    let mut text = Vec::new();
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut text).map_err(|cause| invalid(cause.to_string()))?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(invalid(format!("longer than {CONFIG_BYTES_MAX} bytes")));
    }
    let mut config: SandboxConfig = serde_json::from_slice(&text).map_err(|cause| invalid(cause.to_string()))?;
    if config.runtime_dir.len() > RUNTIME_DIR_BYTES_MAX || !Path::new(&config.runtime_dir).is_absolute() {
        let message = format!(
            "runtimeDir \"{}\" must be an absolute path of at most {RUNTIME_DIR_BYTES_MAX} bytes",
            config.runtime_dir
        );
        return Err(invalid(message));
    }
    // runc refuses a root whose path has a symbolic link in it, and /proc/self/mountinfo has none.
    let canonical = std::fs::canonicalize(&config.runtime_dir)
        .map_err(|cause| invalid(format!("runtimeDir \"{}\": {cause}", config.runtime_dir)))?;
    config.runtime_dir = canonical.to_string_lossy().into_owned();
    Ok(config)
}

fn tell(mut ready: File, answer: &impl serde::Serialize) {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    let _ = ready.write_all(&line);
}

fn run(config: &SandboxConfig, ready: File) -> ExitCode {
    // Fails if we lead a session already, which is what is wanted.
    let _ = nix::unistd::setsid();
    let runtime_dir = Path::new(&config.runtime_dir);
    let identity = runtime_dir::identify(runtime_dir);
    let outcome = prepare_process(config).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|cause| Failure::new(FailureCode::Internal, format!("tokio: {cause}")))
    });
    let code = match outcome {
        Ok(runtime) => {
            let code = runtime.block_on(run_sandbox(config, ready));
            // A blocked thread must not keep the process.
            runtime.shutdown_background();
            code
        }
        Err(failure) => {
            tell(ready, &failure);
            ExitCode::FAILURE
        }
    };
    os::leave(config);
    if let Err(cause) = identity.and_then(|identity| runtime_dir::remove(runtime_dir, identity)) {
        eprintln!("cannot remove {}: {cause}", config.runtime_dir);
    }
    code
}

fn prepare_process(config: &SandboxConfig) -> Result<(), Failure> {
    // A record of an earlier run of the same container would be taken for this one's.
    let _ = std::fs::remove_file(Path::new(&config.state_dir).join("exit.json"));
    match config.wall {
        // Before any thread is there.
        WallConfig::Os { .. } => os::enter_mount_namespace(),
        WallConfig::Vm { .. } | WallConfig::Template { .. } => Ok(()),
    }
}

async fn run_sandbox(config: &SandboxConfig, ready: File) -> ExitCode {
    if let WallConfig::Template { machine } = &config.wall {
        return make_template(config, machine, ready).await;
    }
    if config.pool.is_some() {
        priority::step_back();
    }
    let activity = Activity::default();
    let phases = Phases::default();
    phases.mark("shim-started");
    let prepared = prepare(config, &phases).await;
    let (sandbox, listener) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            tell(ready, &failure);
            return ExitCode::FAILURE;
        }
    };
    phases.mark("shim-ready");
    let server = tokio::spawn(server::serve(listener, sandbox.clone(), activity.clone()));
    // A pooled machine is ready when it waits.
    match sandbox.warmed().await {
        Ok(()) => tell(ready, &serde_json::json!({ "ready": true })),
        Err(failure) => {
            let _ = sandbox.stop(Duration::ZERO).await;
            tell(ready, &failure);
            return ExitCode::FAILURE;
        }
    }
    let terminated = until_the_end(&sandbox, &activity).await;
    server.abort();
    if terminated {
        let _ = tokio::time::timeout(LINGER, activity.requests.none()).await;
    }
    activity.closing.send_replace(true);
    let _ = tokio::time::timeout(LAST_WORDS, activity.connections.none()).await;
    ExitCode::SUCCESS
}

/// Boots a machine, saves it, and ends it. Everything that it makes on the host but the two files ends with it.
async fn make_template(config: &SandboxConfig, machine: &MachineConfig, ready: File) -> ExitCode {
    let made = async {
        let reaper = Reaper::start().map_err(|cause| {
            Failure::new(FailureCode::Internal, format!("template {}: cannot become a reaper: {cause}", config.id))
        })?;
        let network = network::prepare(config)?;
        vm::make_template(config, machine, WallContext { phases: Phases::default(), reaper, network }).await
    };
    match made.await {
        Ok(()) => {
            tell(ready, &serde_json::json!({ "ready": true }));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            tell(ready, &failure);
            ExitCode::FAILURE
        }
    }
}

async fn prepare(config: &SandboxConfig, phases: &Phases) -> Result<(Sandbox, UnixListener), Failure> {
    let failed = |what: &str, cause: &std::io::Error| {
        Failure::new(FailureCode::Internal, format!("sandbox {}: cannot {what}: {cause}", config.id))
    };
    let reaper = Reaper::start().map_err(|cause| failed("become a reaper", &cause))?;
    let address = config.network.as_ref().map(|network| network.ipv4_address.as_str());
    let ports = HeldPorts::hold(&config.ports, address)?;
    phases.mark("ports-held");
    let network = network::prepare(config)?;
    phases.mark("network-ready");
    let socket = Path::new(&config.runtime_dir).join("shim.sock");
    let listener = UnixListener::bind(&socket)
        .and_then(|listener| {
            std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).map(|()| listener)
        })
        .map_err(|cause| failed(&format!("listen on {}", socket.display()), &cause))?;
    let context = WallContext { phases: phases.clone(), reaper, network };
    let wall = ActiveWall::start(config, context).await?;
    Ok((Sandbox::new(config, wall, ports, phases.clone()), listener))
}

/// Until the sandbox has ended and nobody needs the shim any more. True if that was by SIGTERM.
async fn until_the_end(sandbox: &Sandbox, activity: &Activity) -> bool {
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hang_up)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        eprintln!("cannot handle signals");
        return false;
    };
    let mut released = activity.released.subscribe();
    let forgotten = async {
        sandbox.ended().await;
        loop {
            activity.connections.none().await;
            if tokio::time::timeout(LINGER, activity.connections.some()).await.is_err() {
                return;
            }
        }
    };
    let released = async {
        let _ = released.wait_for(|released| *released).await;
        activity.requests.none().await;
    };
    // SIGHUP is caught rather than ignored: what is ignored stays so in the container's processes.
    let hung_up = async { while hang_up.recv().await.is_some() {} };
    tokio::select! {
        () = forgotten => false,
        () = released => false,
        () = hung_up => false,
        _ = async { tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () } } => {
            match tokio::time::timeout(TERMINATION_MAX, sandbox.stop(TERMINATION)).await {
                Ok(Ok(())) => {}
                Ok(Err(cause)) => eprintln!("cannot stop: {cause}"),
                Err(_) => eprintln!("cannot stop within {TERMINATION_MAX:?}"),
            }
            true
        }
    }
}
