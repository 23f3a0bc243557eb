//! The part of the OCI runtime-spec that a guest honours, as typed values.
//!
//! Source: <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md>.

use crate::failure::{Result, invalid};
use serde::Deserialize;
use std::collections::BTreeMap;

/// `config.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Spec {
    pub process: ProcessSpec,
    pub root: RootSpec,
    pub hostname: String,
    pub domainname: String,
    pub mounts: Vec<MountSpec>,
    pub linux: LinuxSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RootSpec {
    pub readonly: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ProcessSpec {
    pub terminal: bool,
    pub console_size: Option<ConsoleSize>,
    pub user: UserSpec,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub capabilities: Option<CapabilitySpec>,
    pub rlimits: Vec<RlimitSpec>,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConsoleSize {
    pub height: u16,
    pub width: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct UserSpec {
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    pub additional_gids: Vec<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CapabilitySpec {
    pub bounding: Vec<String>,
    pub effective: Vec<String>,
    pub inheritable: Vec<String>,
    pub permitted: Vec<String>,
    pub ambient: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RlimitSpec {
    #[serde(rename = "type")]
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MountSpec {
    pub destination: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub source: String,
    pub options: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LinuxSpec {
    pub namespaces: Vec<NamespaceSpec>,
    pub resources: ResourceSpec,
    pub sysctl: BTreeMap<String, String>,
    pub devices: Vec<DeviceSpec>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub rootfs_propagation: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NamespaceSpec {
    #[serde(rename = "type")]
    pub kind: String,
    pub path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct DeviceSpec {
    pub path: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub major: u64,
    pub minor: u64,
    pub file_mode: Option<u32>,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ResourceSpec {
    pub memory: MemorySpec,
    pub cpu: CpuSpec,
    pub pids: PidsSpec,
    pub unified: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MemorySpec {
    pub limit: Option<i64>,
    pub reservation: Option<i64>,
    pub swap: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CpuSpec {
    pub shares: Option<u64>,
    pub quota: Option<i64>,
    pub period: Option<u64>,
    pub cpus: String,
    pub mems: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PidsSpec {
    pub limit: Option<i64>,
}

impl MountSpec {
    /// The one file of the guest that a container may be given: this binary, as the init of `--init`.
    pub(crate) fn is_own_init(&self) -> bool {
        self.kind == "bind" && self.source == "/init"
    }
}

impl Spec {
    /// Reads a `config.json`; everything that this guest cannot do is refused here.
    pub(crate) fn parse(value: serde_json::Value) -> Result<Self> {
        let spec: Self = serde_json::from_value(without_nulls(value))
            .map_err(|error| invalid(format!("the runtime spec cannot be read: {error}")))?;
        spec.process.check()?;
        for namespace in &spec.linux.namespaces {
            if !namespace.path.is_empty() && namespace.kind != "network" {
                return Err(invalid(format!(
                    "a container in a machine cannot join the {} namespace {}",
                    namespace.kind, namespace.path
                )));
            }
        }
        for mount in spec.mounts.iter().filter(|mount| !mount.is_own_init()) {
            if mount.kind == "bind" || mount.options.iter().any(|option| option == "bind" || option == "rbind") {
                return Err(invalid(format!(
                    "{}: bind mounts do not reach into a machine this way; share {} as a volume of the sandbox",
                    mount.destination, mount.source
                )));
            }
        }
        Ok(spec)
    }

    /// The namespaces that the spec asks for, as `CLONE_NEW…` flags. The network is the machine's.
    pub(crate) fn namespace_flags(&self) -> libc::c_int {
        self.linux.namespaces.iter().fold(libc::CLONE_NEWNS, |flags, namespace| {
            flags
                | match namespace.kind.as_str() {
                    "pid" => libc::CLONE_NEWPID,
                    "uts" => libc::CLONE_NEWUTS,
                    "ipc" => libc::CLONE_NEWIPC,
                    "cgroup" => libc::CLONE_NEWCGROUP,
                    _ => 0,
                }
        })
    }
}

impl ProcessSpec {
    /// Reads a `process` object.
    pub(crate) fn parse(value: serde_json::Value) -> Result<Self> {
        let process: Self = serde_json::from_value(without_nulls(value))
            .map_err(|error| invalid(format!("the process spec cannot be read: {error}")))?;
        process.check()?;
        Ok(process)
    }

    fn check(&self) -> Result<()> {
        if self.args.first().is_none_or(String::is_empty) {
            return Err(invalid("no command specified"));
        }
        let strings = self.args.iter().chain(&self.env).chain(std::iter::once(&self.cwd));
        if strings.into_iter().any(|string| string.contains('\0')) {
            return Err(invalid("arguments, environment and working directory cannot contain a NUL byte"));
        }
        Ok(())
    }
}

/// Go programs write `null` for an empty list or map; here an absent field means that.
fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(map) => {
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        serde_json::Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_protocol::FailureCode;
    use serde_json::json;

    #[test]
    fn a_null_list_is_an_empty_list() {
        let spec = Spec::parse(json!({"process": {"args": ["a"], "env": null}, "mounts": null})).unwrap();
        assert!(spec.process.env.is_empty() && spec.mounts.is_empty());
    }

    #[test]
    fn namespaces_become_clone_flags_and_the_network_stays_the_machines() {
        let spec = Spec::parse(json!({"process": {"args": ["a"]}, "linux": {"namespaces":
            [{"type": "pid"}, {"type": "network", "path": "/x"}, {"type": "uts"}]}}))
        .unwrap();
        assert_eq!(spec.namespace_flags(), libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS);
    }

    #[test]
    fn a_bind_mount_is_refused_by_name() {
        let failure = Spec::parse(json!({"process": {"args": ["a"]}, "mounts":
            [{"destination": "/data", "type": "none", "source": "/srv", "options": ["rbind"]}]}))
        .unwrap_err();
        assert_eq!(failure.code, FailureCode::InvalidRequest);
        assert!(failure.message.starts_with("/data: bind mounts"));
    }

    #[test]
    fn an_empty_command_is_refused() {
        assert_eq!(Spec::parse(json!({"process": {"args": []}})).unwrap_err().message, "no command specified");
    }
}
