//! A machine's saved state: taken once from a machine that has booted and is nobody's, loaded into every clone.
//!
//! RAM is a file that QEMU maps (`x-ignore-shared` keeps it out of the stream), everything else a stream of some 50 to 200 KB. The
//! stream goes through a descriptor: QEMU's sandbox forbids it to start programs, and the jail has no files.

use crate::vm::arguments::{AGENT_DEVICE, Beginning};
use crate::vm::machine::Machine;
use crate::vm::monitor::Monitor;
use crate::wall::WallContext;
use bulkhead_protocol::{Failure, FailureCode, MachineConfig, MachineTemplate, SandboxConfig};
use nix::fcntl::{FallocateFlags, fallocate};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::time::Duration;

/// From the machine's start to its saved state. In emulation two to four seconds; this is for a crowded host.
const DEADLINE: Duration = Duration::from_secs(120);
/// Name of the stream's descriptor in the monitor.
const STATE: &str = "state";
const PAGE_BYTES: u64 = 4096;
/// How much is looked through at a time for pages of zeroes.
const SWEEP_BYTES: usize = 1 << 20;

fn failed(message: String) -> Failure {
    Failure::new(FailureCode::MachineFailed, message)
}

/// Opens a template for a clone: RAM and state, for reading.
pub fn open(template: &MachineTemplate, machine: &MachineConfig) -> Result<(OwnedFd, OwnedFd), Failure> {
    let open = |path: &str| File::open(path).map_err(|error| failed(format!("the saved machine {path}: {error}")));
    let ram = open(&template.ram_path)?;
    let length = ram.metadata().map_err(|error| failed(format!("{}: {error}", template.ram_path)))?.len();
    if length != machine.memory_bytes {
        let message = format!(
            "the saved machine {} has {length} bytes of RAM, not {}: it is another one's",
            template.ram_path, machine.memory_bytes
        );
        return Err(failed(message));
    }
    Ok((ram.into(), open(&template.state_path)?.into()))
}

/// Loads a state into a machine that was started for it, and lets it run.
pub async fn load(monitor: &Monitor, state: OwnedFd) -> Result<(), Failure> {
    transfer(monitor, "migrate-incoming", state).await?;
    monitor.go_on().await
}

async fn save(monitor: &Monitor, state: OwnedFd) -> Result<(), Failure> {
    monitor.stop().await?;
    monitor.run("migrate-set-parameters", json!({ "max-bandwidth": 1_u64 << 40 })).await?;
    transfer(monitor, "migrate", state).await
}

/// Lets the stream through this descriptor, in the direction that the command says, and waits for its end.
async fn transfer(monitor: &Monitor, command: &str, state: OwnedFd) -> Result<(), Failure> {
    let capabilities = json!({ "capabilities": [
        { "capability": "events", "state": true },
        { "capability": "x-ignore-shared", "state": true },
    ] });
    monitor.run("migrate-set-capabilities", capabilities).await?;
    monitor.name_fd(state.as_fd(), STATE).await?;
    monitor.run(command, json!({ "uri": format!("fd:{STATE}") })).await?;
    monitor.migrated().await
}

/// Boots a machine, saves it where `machine.template` says, and ends it. The machine has met nobody by then: its agent waits for
/// its first session. The files are complete only if this succeeds.
pub async fn make_template(
    config: &SandboxConfig,
    machine: &MachineConfig,
    context: WallContext,
) -> Result<(), Failure> {
    let Some(template) = &machine.template else {
        let message = "a template is to be made, and the machine's `template` does not say where";
        return Err(Failure::new(FailureCode::InvalidRequest, message));
    };
    let create = |path: &str| {
        let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
        opened.map_err(|error| failed(format!("{path}: {error}")))
    };
    let (ram, state) = (create(&template.ram_path)?, create(&template.state_path)?);
    let kept = ram.try_clone().map_err(|error| failed(format!("{}: {error}", template.ram_path)))?;
    kept.set_len(machine.memory_bytes).map_err(|error| failed(format!("{}: {error}", template.ram_path)))?;
    let (running, channels) =
        Machine::start(config, machine, (Beginning::BootToSave, Some(ram.into())), context.network, &context.reaper)?;
    let saved = tokio::select! {
        saved = tokio::time::timeout(DEADLINE, async {
            channels.monitor.port_opened(AGENT_DEVICE).await;
            save(&channels.monitor, state.into()).await
        }) => saved.unwrap_or_else(|_| Err(failed(format!("the machine was not ready within {} s", DEADLINE.as_secs())))),
        end = running.ended() => Err(end.failure.unwrap_or_else(|| failed("the machine ended".into()))),
    };
    running.kill();
    running.ended().await;
    saved?;
    let swept = tokio::task::spawn_blocking(move || punch_zeroes(&kept).and_then(|()| kept.sync_all())).await;
    swept
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|error| failed(format!("{}: {error}", template.ram_path)))
}

/// Gives back the blocks of a file that hold nothing but zeroes: a booted guest has touched many pages that it has cleared again.
fn punch_zeroes(file: &File) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    let mut buffer = vec![0; SWEEP_BYTES];
    let mut at = 0;
    while at < length {
        // SAFETY: scalar arguments.
        let data = unsafe { libc::lseek(std::os::fd::AsRawFd::as_raw_fd(file), at.cast_signed(), libc::SEEK_DATA) };
        let Ok(data) = u64::try_from(data) else {
            // ENXIO: only a hole is left.
            break;
        };
        at = data - data % PAGE_BYTES;
        let wanted = usize::try_from((length - at).min(SWEEP_BYTES as u64)).unwrap_or(SWEEP_BYTES);
        file.read_exact_at(&mut buffer[..wanted], at)?;
        let mut run: Option<u64> = None;
        for (index, page) in buffer[..wanted].chunks(PAGE_BYTES as usize).enumerate() {
            let offset = at + index as u64 * PAGE_BYTES;
            match (page.iter().all(|byte| *byte == 0), run) {
                (true, None) => run = Some(offset),
                (false, Some(start)) => {
                    punch(file, start, offset - start)?;
                    run = None;
                }
                _ => {}
            }
        }
        if let Some(start) = run {
            punch(file, start, at + wanted as u64 - start)?;
        }
        at += wanted as u64;
    }
    Ok(())
}

fn punch(file: &File, start: u64, length: u64) -> std::io::Result<()> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, flags, start.cast_signed(), length.cast_signed())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn pages_of_zeroes_become_holes_and_the_content_stays() {
        let path = std::env::temp_dir().join(format!("bulkhead-punch-{}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut content = vec![0_u8; 5 << 20];
        content[4096 * 3] = 1;
        content[(2 << 20) + 17] = 2;
        file.write_all_at(&content, 0).unwrap();
        file.sync_all().unwrap();
        let before = file.metadata().unwrap().blocks();

        punch_zeroes(&file).unwrap();

        let mut after = vec![0; content.len()];
        file.read_exact_at(&mut after, 0).unwrap();
        assert!(after == content);
        assert!(file.metadata().unwrap().blocks() < before / 100, "{before} blocks before");
    }
}
