//! Tests on real machines that are saved and started from what was saved: they want what those of vm_wall.rs want.

mod machine_bench;

use bulkhead_protocol::{FailureCode, MachineTemplate};
use bulkhead_shim::phases::Phases;
use bulkhead_shim::vm::make_template;
use bulkhead_shim::wall::{NetworkHandle, ProcessKey, WallContext};
use machine_bench::{Bench, CONTAINER, STOP_DEADLINE, make_tap, payload, request, status_line};
use std::fs;
use std::path::{Path, PathBuf};

#[tokio::test(flavor = "current_thread")]
async fn a_clone_of_a_saved_machine_runs_a_command_and_cannot_write_what_it_was_made_from() {
    let mut bench = Bench::new();
    let key = ProcessKey::init(CONTAINER);
    let path = |name: &str| bench.directory.join(name).to_str().unwrap().to_owned();
    let template = MachineTemplate { ram_path: path("machine.ram"), state_path: path("machine.state") };
    bench.machine.template = Some(template.clone());
    let network = NetworkHandle::Tap(make_tap("10.99.0.1/24"));
    let context = WallContext { phases: Phases::default(), reaper: bench.reaper(), network };
    make_template(&bench.config, &bench.machine, context).await.unwrap();
    let saved = (fs::read(&template.ram_path).unwrap(), fs::read(&template.state_path).unwrap());

    let wall = bench.start().await.unwrap();
    let script = "cat /layer1; head -c 50000000 /dev/zero | sha256sum >/tmp/digest; exit 7";
    let mut create = request(bench.rootfs(1), &["/bin/sh", "-c", script], false);
    create.ephemeral = true;
    wall.create_container(CONTAINER, create).await.unwrap();
    let output = wall.output(&key).await.unwrap();
    wall.start_process(&key).await.unwrap();
    let text = payload(output).await;
    let exit = wall.wait(&key).await;
    let proc = PathBuf::from(format!("/proc/{}", wall.machine_pid()));
    let maps = fs::read_to_string(proc.join("maps")).unwrap();
    let writable: Vec<String> = fs::read_dir(proc.join("fd"))
        .unwrap()
        .filter_map(|entry| entry.ok())
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(&template.ram_path)))
        .map(|entry| fs::read_to_string(proc.join("fdinfo").join(entry.file_name())).unwrap())
        .filter(|info| !status_line(info, "flags:").ends_with('0'))
        .collect();
    wall.stop(STOP_DEADLINE).await.unwrap();

    assert_eq!((text.as_str(), exit.exit_code), ("1\n", 7));
    let mapped: Vec<&str> = maps.lines().filter(|line| line.ends_with(&template.ram_path)).collect();
    assert!(!mapped.is_empty() && mapped.iter().all(|line| line.contains("p ")), "{mapped:?}");
    assert_eq!(writable, Vec::<String>::new());
    assert!(fs::read(&template.ram_path).unwrap() == saved.0);
    assert!(fs::read(&template.state_path).unwrap() == saved.1);
    bench.finish();
}

#[tokio::test(flavor = "current_thread")]
async fn a_damaged_state_is_a_machine_that_does_not_start() {
    let mut bench = Bench::new();
    let path = |name: &str| bench.directory.join(name).to_str().unwrap().to_owned();
    let template = MachineTemplate { ram_path: path("machine.ram"), state_path: path("machine.state") };
    fs::File::create(&template.ram_path).unwrap().set_len(bench.machine.memory_bytes).unwrap();
    fs::write(&template.state_path, b"no machine at all").unwrap();
    bench.machine.template = Some(template);

    let wall = bench.start().await.unwrap();
    let failure = wall.create_container(CONTAINER, request(bench.rootfs(1), &["/bin/sh"], false)).await.unwrap_err();

    assert_eq!(failure.code, FailureCode::MachineFailed);
    assert!(failure.message.starts_with("the machine did not start:"), "{failure}");
    wall.ended().await.unwrap_err();
    bench.finish();
}
