//! What the wall changes in the runtime-spec that the daemon made for both walls.

use super::user::{Account, AccountFiles};
use bulkhead_protocol::{CreateContainer, CreateProcess, Failure, FailureCode, Resize};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Where the root and the extra files of a container are.
pub struct Place<'a> {
    /// The mounted root.
    pub root: &'a Path,
    /// Path of the sandbox's network namespace.
    pub network_namespace: &'a str,
    /// Files to be put over what the image has: path in the container, path on the host.
    pub files: &'a [(String, String)],
}

/// The `config.json` for runc.
pub fn container_spec(request: &CreateContainer, accounts: &AccountFiles, place: &Place<'_>) -> Result<Value, Failure> {
    let mut spec = request.spec.clone();
    let object = spec.as_object_mut().ok_or_else(|| invalid("spec is no object"))?;
    object.insert("root".into(), json!({ "path": place.root, "readonly": request.rootfs.read_only }));
    let process = object.get_mut("process").ok_or_else(|| invalid("spec has no process"))?;
    complete_process(process, &request.user, &request.additional_groups, accounts, request.terminal_size)?;
    let mounts = object.entry("mounts").or_insert_with(|| json!([]));
    let mounts = mounts.as_array_mut().ok_or_else(|| invalid("spec.mounts is no list"))?;
    for (inside, outside) in place.files {
        // A mount that the user asked for wins.
        if mounts.iter().all(|mount| mount["destination"].as_str() != Some(inside)) {
            let access = if request.rootfs.read_only { "ro" } else { "rw" };
            let options = json!(["bind", "rprivate", access]);
            mounts.push(json!({ "destination": inside, "source": outside, "type": "bind", "options": options }));
        }
    }
    if let Some(namespaces) = object.get_mut("linux").and_then(|linux| linux["namespaces"].as_array_mut()) {
        for namespace in namespaces {
            if namespace["type"] == "network" && namespace.get("path").is_none_or(|path| path == "") {
                namespace["path"] = place.network_namespace.into();
            }
        }
    }
    Ok(spec)
}

/// The `process.json` for `runc exec`.
pub fn process_spec(request: &CreateProcess, accounts: &AccountFiles) -> Result<Value, Failure> {
    let mut process = request.process.clone();
    complete_process(&mut process, &request.user, &[], accounts, request.terminal_size)?;
    Ok(process)
}

fn complete_process(
    process: &mut Value,
    user: &str,
    additional_groups: &[String],
    accounts: &AccountFiles,
    terminal_size: Option<Resize>,
) -> Result<(), Failure> {
    let process = process.as_object_mut().ok_or_else(|| invalid("process is no object"))?;
    let given = process.get("user").cloned().unwrap_or_default();
    // Without a name the ids of the spec stand, root's included: its memberships are looked up too, as Docker does.
    let given_uid = given["uid"].as_u64().unwrap_or(0);
    let Account { uid, gid, additional_gids, home } = match (user, given_uid) {
        ("", 1..) => {
            let gid = given["gid"].as_u64().unwrap_or(0);
            accounts.resolve(&format!("{given_uid}:{gid}"), additional_groups)?
        }
        _ => accounts.resolve(user, additional_groups)?,
    };
    let mut completed = given.as_object().cloned().unwrap_or_else(Map::new);
    completed.insert("uid".into(), uid.into());
    completed.insert("gid".into(), gid.into());
    let mut gids = additional_gids;
    if user.is_empty()
        && let Some(given) = given["additionalGids"].as_array()
    {
        for gid in given.iter().filter_map(Value::as_u64).filter_map(|gid| u32::try_from(gid).ok()) {
            if !gids.contains(&gid) {
                gids.push(gid);
            }
        }
    }
    completed.insert("additionalGids".into(), gids.into());
    process.insert("user".into(), completed.into());
    let environment = process.entry("env").or_insert_with(|| json!([]));
    let environment = environment.as_array_mut().ok_or_else(|| invalid("process.env is no list"))?;
    if environment.iter().all(|entry| !entry.as_str().is_some_and(|entry| entry.starts_with("HOME="))) {
        environment.push(format!("HOME={home}").into());
    }
    if let Some(size) = terminal_size {
        process.insert("consoleSize".into(), json!({ "height": size.height, "width": size.width }));
    }
    Ok(())
}

fn invalid(what: &str) -> Failure {
    Failure::new(FailureCode::InvalidRequest, what)
}
