//! Saved machines: cold boot beside restore, copies of one template. They want KVM that runs an unmodified kernel: `make lab`.

mod support;

use serde_json::json;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};
use support::guest::{Guest, Image, Scratch, quick_kernel};
use support::{Plan, Process, can_boot, inherit, memory_file};

const BOOT_DEADLINE: Duration = Duration::from_secs(120);
const MEMORY: u64 = 256 << 20;
/// What nobody has yet, and what stands for it later, have one size.
const DISK: u64 = 1 << 40;

/// A machine that was saved before its first session.
struct Template {
    memory: File,
    state: File,
}

impl Template {
    fn make(vcpus: u32) -> Self {
        let (kernel, initramfs) = quick_kernel();
        let mut plan = Plan::new(vcpus, MEMORY).kernel(&kernel, &initramfs, "");
        let memory = memory_file(MEMORY);
        plan.machine["memory"] = json!({ "fd": plan.keep(memory.try_clone().unwrap()), "mapping": "shared" });
        let plan = plan
            .disk(json!({ "serial": "layers", "backend": { "kind": "empty", "bytes": DISK, "readOnly": true } }))
            .disk(json!({ "serial": "scratch", "backend": { "kind": "empty", "bytes": DISK } }));
        let mut process = Process::start(plan);
        process.wait_for_agent_port();
        let state = memory_file(0);
        let refusal = process.ask_with(json!({ "do": "save" }), &[inherit(&state)]);
        assert!(refusal["error"].as_str().unwrap().contains("pause it first"), "{refusal}");
        process.ask(json!({ "do": "pause" }));
        let answer = process.ask_with(json!({ "do": "save" }), &[inherit(&state)]);
        assert_eq!(answer["return"], json!({}), "{answer}");
        process.stop();
        Self { memory, state }
    }

    fn state_copy(&self) -> File {
        let mut bytes = Vec::new();
        (&self.state).seek(SeekFrom::Start(0)).and_then(|_| (&self.state).read_to_end(&mut bytes)).unwrap();
        let mut copy = memory_file(0);
        copy.write_all(&bytes).and_then(|()| copy.seek(SeekFrom::Start(0))).unwrap();
        copy
    }

    /// A copy that has this image's disks.
    fn plan(&self, vcpus: u32, image: &Image) -> Plan {
        let mut plan = image.disks(Plan::new(vcpus, MEMORY));
        plan.machine["disks"][0]["backend"]["bytes"] = json!(DISK);
        plan.machine["memory"] = json!({ "fd": plan.keep(self.memory.try_clone().unwrap()), "mapping": "private" });
        plan.machine["restore"] = json!({ "fd": plan.keep(self.state_copy()) });
        plan
    }
}

#[tokio::test(flavor = "current_thread")]
async fn copies_of_a_saved_machine_run_containers_and_do_not_see_each_other() {
    if !can_boot() {
        return;
    }
    let template = Template::make(2);
    let directories = [Scratch::new("copy0"), Scratch::new("copy1")];
    let images: Vec<Image> = directories.iter().map(|directory| Image::build(&directory.0)).collect();

    let mut copies: Vec<Process> = images
        .iter()
        .map(|image| {
            let mut process = Process::start(template.plan(2, image));
            process.open_session(BOOT_DEADLINE);
            process
        })
        .collect();
    for (process, image) in copies.iter().zip(&images) {
        let guest = Guest::connect(&process.agent).await;
        let script = "ls / | grep -c mark; echo here >/mark; sync; md5sum </pattern | grep -c -";
        let (code, text) = guest.run_container("c1", image, &["/bin/sh", "-c", script], None).await;
        assert_eq!((code, text.as_str()), (0, "0\n1\n"));
    }
    for process in &mut copies {
        process.assert_no_device_broken();
        process.stop();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_machine_saved_in_the_middle_of_its_work_goes_on_where_it_was() {
    if !can_boot() {
        return;
    }
    let directory = Scratch::new("middle");
    let image = Image::build(&directory.0);
    let (kernel, initramfs) = quick_kernel();
    let memory = memory_file(MEMORY);
    let mut plan = image.disks(Plan::new(2, MEMORY).kernel(&kernel, &initramfs, ""));
    plan.machine["memory"] = json!({ "fd": plan.keep(memory.try_clone().unwrap()), "mapping": "shared" });
    let mut process = Process::start(plan);
    process.open_session(BOOT_DEADLINE);
    let guest = Guest::connect(&process.agent).await;
    guest
        .create_container(
            "c1",
            &image,
            &["/bin/sh", "-c", "while md5sum </pattern >/new && mv /new /sum && echo >>/count; do :; done"],
            None,
        )
        .await;
    guest.start("c1").await;
    // One round is over, so that there is a sum to compare.
    for attempt in 0.. {
        let rounds = guest.exec("c1", &format!("before{attempt}"), "cat /count 2>/dev/null || :").await;
        if !rounds.is_empty() {
            break;
        }
    }
    let state = memory_file(0);
    process.ask(json!({ "do": "pause" }));
    process.ask_with(json!({ "do": "save" }), &[inherit(&state)]);
    process.stop();
    drop(guest);

    let mut template = Template { memory, state };
    template.state.seek(SeekFrom::Start(0)).unwrap();
    let mut plan = template.plan(2, &image);
    plan.machine["disks"][0]["backend"].as_object_mut().unwrap().remove("bytes");
    let mut process = Process::start(plan);
    // The host's end of the port is another one: the guest is told of a hang-up.
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    process.ask_with(json!({ "do": "connect-port", "port": support::AGENT }), &[inherit(&theirs)]);
    process.agent = ours;
    process.open_session(BOOT_DEADLINE);
    let guest = Guest::connect(&process.agent).await;
    // It still computes the same sum, and goes on to do so.
    let sum = guest.exec("c1", "e1", "cat /sum").await;
    let before: usize = guest.exec("c1", "e2", "wc -l </count").await.trim().parse().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after: usize = guest.exec("c1", "e3", "wc -l </count").await.trim().parse().unwrap();
    assert_eq!(sum, format!("{}  -\n", image.pattern_digest()));
    assert!(after > before, "{before} rounds, then {after}");
    process.assert_no_device_broken();
    process.stop();
}

#[test]
fn foreign_and_damaged_states_are_refused_before_anything_is_made() {
    if !can_boot() {
        return;
    }
    let template = Template::make(1);
    let directory = Scratch::new("refused");
    let image = Image::build(&directory.0);
    for (vcpus, damage, words) in
        [(2, None, "it is of 1 vCPUs"), (1, Some(200), "its checksum is wrong"), (1, Some(9), "it has version")]
    {
        let mut plan = template.plan(vcpus, &image);
        if let Some(at) = damage {
            let mut state = template.state_copy();
            state.seek(SeekFrom::Start(at)).and_then(|_| state.write_all(&[0xaa])).unwrap();
            state.seek(SeekFrom::Start(0)).unwrap();
            plan.machine["restore"] = json!({ "fd": plan.keep(state) });
        }
        let mut process = Process::start(plan);
        assert_eq!(process.wait(Duration::from_secs(20)).code(), Some(5), "{words}");
        let said = process.stderr();
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_restored_machine_is_ready_much_sooner_than_one_that_boots() {
    if !can_boot() {
        return;
    }
    let template = Template::make(1);
    let directory = Scratch::new("measure");
    let image = Image::build(&directory.0);
    let (kernel, initramfs) = quick_kernel();
    let mut cold = Vec::new();
    let mut warm = Vec::new();
    for _ in 0..10 {
        for (times, plan) in [
            (&mut cold, image.disks(Plan::new(1, MEMORY).kernel(&kernel, &initramfs, ""))),
            (&mut warm, template.plan(1, &image)),
        ] {
            let begin = Instant::now();
            let mut process = Process::start(plan);
            process.open_session(BOOT_DEADLINE);
            times.push(begin.elapsed().as_millis());
            process.stop();
        }
    }
    cold.sort_unstable();
    warm.sort_unstable();
    eprintln!("cold boot to agent, ms: {cold:?}\nrestored to agent, ms: {warm:?}");
    assert!(warm[5] * 5 <= cold[5], "median cold {} ms, restored {} ms", cold[5], warm[5]);
}
