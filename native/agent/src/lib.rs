//! The guest agent: PID 1 of a sandbox's machine. It sets the guest up, starts the containers with a small OCI launcher
//! of its own, collects the dead, and serves the sandbox protocol with HTTP/2 on a console port.
//!
//! One thread does everything. That keeps a fork simple (the copy is whole, no lock is held), and under emulation every
//! line of code that runs for the first time has to be translated first, so there is little of it.

mod boot;
mod cgroup;
mod child;
mod command;
mod container_init;
mod disks;
mod failure;
mod guest;
mod in_root;
mod interface;
mod launch;
mod layers;
mod moments;
mod mount_options;
mod mounts;
mod options;
mod output;
mod partition;
mod port;
mod privileges;
mod process;
mod pump;
mod reaper;
mod rootfs;
mod routes;
mod sandbox;
mod serve;
mod spec;
mod terminal;
mod users;

use crate::failure::{Doing, Result};
use crate::options::Options;
use crate::port::Port;
use crate::sandbox::{Sandbox, Settings};
use crate::serve::{Ended, serve};
use std::rc::Rc;

/// Runs the agent; returns the status to exit with.
pub fn run() -> i32 {
    if container_init::is_called() {
        return container_init::run();
    }
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(failure) => {
            boot::complain(&failure.message);
            return 2;
        }
    };
    // A closed pipe is an error of the write, not the end of the agent.
    // SAFETY: ignoring a signal runs no handler.
    let _ =
        unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGPIPE, nix::sys::signal::SigHandler::SigIgn) };
    match options {
        Options::Machine => {
            std::panic::set_hook(Box::new(|panic| {
                boot::complain(&panic.to_string());
                // Also in a container's process before its program runs, where this ends the container only.
                boot::end_machine();
            }));
            if let Err(failure) = serve_machine() {
                boot::complain(&failure.message);
            }
            boot::end_machine()
        }
        Options::Host { listen, root_directory } => match serve_host(listen, root_directory) {
            Ok(()) => 0,
            Err(failure) => {
                boot::complain(&failure.message);
                1
            }
        },
    }
}

fn serve_machine() -> Result<()> {
    boot::boot()?;
    let settings = Settings { is_pid_1: true, root_directory: None, run_directory: "/run/bulkhead".to_owned() };
    run_until_stopped(settings, async |sandbox| {
        let mut port = Port::open()?;
        loop {
            let mut session = port.session().await?;
            let ended = serve(&mut session, &sandbox).await;
            let last = session.take_last();
            drop(session);
            port.end_session(last);
            if ended == Ended::Stopped {
                return Ok(());
            }
        }
    })
}

/// The same on a developer's host: a unix socket for the port, a directory for the disks.
fn serve_host(listen: String, root_directory: String) -> Result<()> {
    let run_directory = format!("{listen}.d");
    // Orphans of containers without a pid namespace come here, as they come to PID 1.
    nix::sys::prctl::set_child_subreaper(true).doing(|| "subreaper")?;
    let settings = Settings { is_pid_1: false, root_directory: Some(root_directory), run_directory };
    run_until_stopped(settings, async |sandbox| {
        let listener = tokio::net::UnixListener::bind(&listen).doing(|| listen)?;
        loop {
            let (stream, _) = listener.accept().await.doing(|| "accept")?;
            if serve(hyper_util::rt::TokioIo::new(stream), &sandbox).await == Ended::Stopped {
                return Ok(());
            }
        }
    })
}

fn run_until_stopped(settings: Settings, service: impl AsyncFnOnce(Rc<Sandbox>) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing(|| "event loop")?;
    let sandbox = Rc::new(Sandbox::new(settings));
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let reaping = Rc::clone(&sandbox);
        tokio::task::spawn_local(async move {
            if let Err(error) = reaping.reap().await {
                boot::complain(&format!("collecting processes: {error}"));
            }
        });
        service(sandbox).await
    })
}
