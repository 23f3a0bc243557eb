//! The exits of a sandbox's containers, on disk before anybody is told.

use bulkhead_protocol::Exit;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Result, Write};
use std::path::{Path, PathBuf};

/// The file `exit.json` in a sandbox's state directory.
#[derive(Clone)]
pub struct ExitRecord {
    directory: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Content {
    containers: BTreeMap<String, Exit>,
}

impl ExitRecord {
    /// The record in `state_dir`.
    pub fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.to_owned() }
    }

    /// Replaces the record: temporary file, fsync, rename, fsync of the directory. One that is not to be durable outlives the daemon,
    /// not the host.
    pub fn write(&self, containers: BTreeMap<String, Exit>, durable: bool) -> Result<()> {
        let temporary = self.directory.join("exit.json.new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&Content { containers })?)?;
        if durable {
            file.sync_all()?;
        }
        std::fs::rename(&temporary, self.directory.join("exit.json"))?;
        if durable { File::open(&self.directory)?.sync_all() } else { Ok(()) }
    }
}
