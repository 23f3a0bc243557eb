//! The command's contract: answers, refusals, and what it leaves behind.

mod support;

use bulkhead_layer::Code;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::process::{Command, Stdio};
use support::{Dice, Workshop, directory, file, input_of, tar_of};

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(bytes).expect("compress");
    encoder.finish().expect("compress")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("compress")
}

fn sample() -> Vec<u8> {
    let mut dice = Dice(5);
    let files: Vec<_> = (0..200).map(|at| file(&format!("d{}/f{at}", at % 7), &dice.bytes(at * 97))).collect();
    tar_of(&files)
}

#[test]
fn the_same_tar_gives_the_same_image_however_it_is_compressed() {
    let shop = Workshop::new();
    let tar = sample();
    let members = [gzip(&tar[..5000], 1), gzip(&tar[5000..], 9)].concat();
    let frames = [&b"\x50\x2a\x4d\x18\x03\0\0\0abc"[..], &zstd(&tar[..9999]), &zstd(&tar[9999..])].concat();
    let blobs = [tar.clone(), tar.clone(), gzip(&tar, 6), members, zstd(&tar), frames];
    for (at, blob) in blobs.iter().enumerate() {
        let name = format!("image{at}");
        let built = shop.build(&name, blob, &["--expect-digest", &digest(blob), "--expect-diff-id", &digest(&tar)]);
        let built = built.expect("a valid layer");
        assert_eq!((built.digest, built.diff_id), (digest(blob), digest(&tar)));
        assert_eq!((built.compressed_bytes, built.uncompressed_bytes), (blob.len() as u64, tar.len() as u64));
        assert_eq!((built.entries, built.dropped_xattrs, built.image_bytes % 4096), (200, 0, 0));
        let image = std::fs::read(shop.path(&name)).expect("read");
        assert_eq!(image.len() as u64, built.image_bytes);
        assert!(image == std::fs::read(shop.path("image0")).expect("read"), "image {at}");
    }
}

#[test]
fn a_blob_that_is_not_the_expected_one_is_refused_and_leaves_nothing() {
    let shop = Workshop::new();
    let tar = sample();
    let other = digest(b"other");
    let error = shop.build("image", &gzip(&tar, 6), &["--expect-digest", &other]).expect_err("refused");
    assert_eq!(error.code, Code::DigestMismatch);
    assert!(error.message.contains(&other), "{}", error.message);
    let error = shop.build("image", &gzip(&tar, 6), &["--expect-diff-id", &other]).expect_err("refused");
    assert_eq!(error.code, Code::DiffIdMismatch);
    assert_eq!(shop.names(), [""; 0]);
}

#[test]
fn an_older_image_is_replaced_only_by_a_complete_one() {
    let shop = Workshop::new();
    std::fs::write(shop.path("image"), b"older").expect("write");
    shop.build("image", b"garbage", &[]).expect_err("refused");
    assert_eq!(std::fs::read(shop.path("image")).expect("read"), b"older");
    shop.build("image", &sample(), &[]).expect("a valid layer");
    assert_eq!(std::fs::metadata(shop.path("image")).expect("metadata").len() % 4096, 0);
    assert_eq!(shop.names(), ["image"]);
}

#[test]
fn bytes_behind_the_archive_belong_to_both_digests() {
    let shop = Workshop::new();
    let mut tar = sample();
    tar.extend_from_slice(&[0; 100_000]);
    let built = shop.build("padded", &gzip(&tar, 6), &[]).expect("a valid layer");
    assert_eq!(built.diff_id, digest(&tar));
}

#[test]
fn other_compressions_are_named() {
    let shop = Workshop::new();
    for (magic, name) in [(&b"BZh91AY&SY"[..], "bzip2"), (b"\xfd7zXZ\0\0", "xz"), (b"\x04\x22\x4d\x18xxx", "lz4")] {
        let error = shop.build("image", magic, &[]).expect_err("refused");
        assert_eq!(error.code, Code::UnsupportedCompression);
        assert!(error.message.contains(name), "{}", error.message);
    }
}

#[test]
fn each_limit_is_told_with_its_number() {
    let shop = Workshop::new();
    let tar = sample();
    for (option, value) in [("--max-bytes", "100000"), ("--max-entries", "100"), ("--max-compressed-bytes", "30000")] {
        let error = shop.build("image", &gzip(&tar, 1), &[option, value]).expect_err("refused");
        assert_eq!(error.code, Code::LimitExceeded, "{option}");
        assert!(error.message.contains(value), "{option}: {}", error.message);
    }
    assert_eq!(shop.names(), [""; 0]);
}

#[test]
fn a_bad_command_line_is_usage() {
    for arguments in [
        &[][..],
        &["unbuild"],
        &["build"],
        &["build", "--output"],
        &["build", "--output", "/tmp/x", "--max-bytes", "many"],
        &["build", "--output", "/tmp/x", "--expect-digest", "md5:0"],
        &["build", "--what", "x"],
    ] {
        let status = Command::new(env!("CARGO_BIN_EXE_bulkhead-layer")).args(arguments).stderr(Stdio::null()).status();
        assert_eq!(status.expect("run").code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn an_output_without_directory_is_an_io_error_that_names_it() {
    let shop = Workshop::new();
    let error = shop.build("missing/image", &sample(), &[]).expect_err("refused");
    assert_eq!(error.code, Code::Io);
    assert!(error.message.contains("missing/image"), "{}", error.message);
}

#[test]
fn a_full_file_system_is_told_as_such() {
    let shop = Workshop::new();
    let small = shop.path("small");
    std::fs::create_dir(&small).expect("mkdir");
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &small, Some("tmpfs"), flags, Some("size=1m")).expect("mount a tmpfs");
    let result = shop.build("small/image", &tar_of(&[file("f", &Dice(6).bytes(3 << 20))]), &[]);
    let left = std::fs::read_dir(&small).expect("list").count();
    nix::mount::umount(&small).expect("umount");
    assert_eq!(result.expect_err("refused").code, Code::NoSpace);
    assert_eq!(left, 0);
}

#[test]
fn while_a_layer_is_read_the_reader_is_nobody_and_filtered_and_no_file_has_a_name() {
    let shop = Workshop::new();
    let (blob, mut feed) = std::io::pipe().expect("a pipe");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead-layer"));
    let mut parent = command
        .args(["build", "--output"])
        .arg(shop.path("image"))
        .stdin(blob)
        .stdout(Stdio::null())
        .spawn()
        .expect("run the command");
    drop(command);
    let tar = sample();
    feed.write_all(&tar[..20_000]).expect("feed");
    let status = status_of_filtered_child(parent.id());
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim().to_owned();
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Uid:"), "65534\t65534\t65534\t65534");
    assert_eq!(field("CapEff:"), "0000000000000000");
    assert_eq!(shop.names(), [""; 0]);
    feed.write_all(&tar[20_000..]).expect("feed");
    drop(feed);
    assert!(parent.wait().expect("wait").success());
    assert_eq!(shop.names(), ["image"]);
}

#[test]
fn a_killed_reader_is_an_error_and_leaves_nothing() {
    let shop = Workshop::new();
    let (blob, mut feed) = std::io::pipe().expect("a pipe");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead-layer"));
    let parent = command.args(["build", "--output"]).arg(shop.path("image")).stdin(blob).stderr(Stdio::piped()).spawn();
    let parent = parent.expect("run the command");
    drop(command);
    feed.write_all(&sample()[..20_000]).expect("feed");
    let status = status_of_filtered_child(parent.id());
    let child: i32 =
        status.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a pid").trim().parse().expect("a number");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::Signal::SIGKILL).expect("kill");
    let output = parent.wait_with_output().expect("wait");
    assert_eq!(output.status.code(), Some(1));
    let error: bulkhead_layer::LayerError = serde_json::from_slice(&output.stderr).expect("one JSON line");
    assert!(error.code == Code::Io && error.message.contains("SIGKILL"), "{}", error.message);
    assert_eq!(shop.names(), [""; 0]);
}

#[test]
fn a_filtered_process_can_open_nothing() {
    // SAFETY: the child only makes system calls and ends.
    let child = match unsafe { nix::unistd::fork() }.expect("fork") {
        nix::unistd::ForkResult::Parent { child } => child,
        nix::unistd::ForkResult::Child => {
            let is_filtered = bulkhead_layer::confine::filter_system_calls().is_ok();
            // SAFETY: a path that exists, and no memory shared with anyone.
            unsafe {
                libc::open(c"/etc/hostname".as_ptr(), libc::O_RDONLY);
                libc::_exit(i32::from(is_filtered))
            }
        }
    };
    let status = nix::sys::wait::waitpid(child, None).expect("wait");
    assert!(
        matches!(status, nix::sys::wait::WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGSYS, _)),
        "{status:?}"
    );
}

#[test]
fn many_small_layers_are_quick() {
    let shop = Workshop::new();
    std::fs::write(shop.path("blob"), gzip(&tar_of(&[directory("d"), file("d/f", b"small")]), 6)).expect("write");
    let start = std::time::Instant::now();
    for at in 0..127 {
        shop.build_from(&format!("image{at}"), input_of(&shop.path("blob")), &[]).expect("a valid layer");
    }
    // A few milliseconds each; the bound is for a busy machine and an unoptimized build.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

/// `/proc/PID/status` of the only child, once its filter is in place.
fn status_of_filtered_child(parent: u32) -> String {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{}/status", children.trim())).unwrap_or_default();
        if status.contains("Seccomp:\t2") {
            return status;
        }
        assert!(std::time::Instant::now() < deadline, "no filtered child: {status}");
        std::thread::yield_now();
    }
}
