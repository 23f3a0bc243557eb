//! What the kernel sees of one layer's files.

mod support;

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use support::{Dice, Entry, Workshop, directory, entry_blocks, file, hard_link, seen, symlink, tar_of};

#[test]
fn owners_modes_and_times_are_those_of_the_tar() {
    let shop = Workshop::new();
    let layer = shop.mounted(
        "layer",
        &[
            directory("./").mode(0o1750).owner(7, 8).mtime(5),
            file("su", b"x").mode(0o6755).owner(4_000_000_000, 70_000),
            file("time", b"").pax("mtime", b"1700000000.123456789"),
            file("old", b"").pax("mtime", b"-1.5"),
            directory("sticky").mode(0o3777),
        ],
    );
    let root = layer.metadata("");
    assert_eq!((root.mode(), root.uid(), root.gid(), root.mtime()), (0o041_750, 7, 8, 5));
    let su = layer.metadata("su");
    assert_eq!((su.mode(), su.uid(), su.gid()), (0o106_755, 4_000_000_000, 70_000));
    let time = layer.metadata("time");
    assert_eq!((time.mtime(), time.mtime_nsec()), (1_700_000_000, 123_456_789));
    let old = layer.metadata("old");
    assert_eq!((old.mtime(), old.mtime_nsec()), (-2, 500_000_000));
    assert_eq!(layer.metadata("sticky").mode(), 0o043_777);
}

#[test]
fn contents_of_every_size_around_a_block_come_back() {
    let shop = Workshop::new();
    let mut dice = Dice(1);
    let sizes =
        [0, 1, 511, 512, 2047, 2048, 2049, 4031, 4032, 4095, 4096, 4097, 6143, 6144, 6145, 8192, 1_048_575, 3_000_001];
    let files: Vec<_> = sizes.iter().map(|&size| file(&format!("f{size}"), &dice.bytes(size))).collect();
    let layer = shop.mounted("layer", &files);
    for entry in &files {
        let name = String::from_utf8_lossy(&entry.name);
        assert!(layer.read(&name) == entry.content, "{name}");
    }
}

#[test]
fn devices_pipes_and_links_are_what_they_were() {
    let shop = Workshop::new();
    let long = "t/".repeat(2000) + "end";
    let layer = shop.mounted(
        "layer",
        &[
            Entry::new(b'3', "char").device(4095, 1_048_575),
            Entry::new(b'4', "block").device(259, 300),
            Entry::new(b'6', "pipe"),
            symlink("short", "../../etc/passwd"),
            symlink("long", &long),
            file("d/one", b"content"),
            hard_link("e/two", "d/one"),
            hard_link("three", "/e/two"),
            hard_link("linked-link", "short"),
        ],
    );
    let device = |name: &str| layer.metadata(name).rdev();
    assert_eq!(device("char"), nix::sys::stat::makedev(4095, 1_048_575));
    assert_eq!(device("block"), nix::sys::stat::makedev(259, 300));
    assert!(layer.metadata("pipe").file_type().is_fifo());
    let target = |name: &str| std::fs::read_link(layer.path(name)).expect("a link").into_os_string();
    assert_eq!(target("short"), "../../etc/passwd");
    assert_eq!(target("long"), long.as_str());
    assert_eq!(layer.read("three"), b"content");
    let inodes = ["d/one", "e/two", "three"].map(|name| layer.metadata(name).ino());
    assert_eq!(inodes, [inodes[0]; 3]);
    assert_eq!(layer.metadata("d/one").nlink(), 3);
    assert_eq!(layer.metadata("linked-link").ino(), layer.metadata("short").ino());
}

#[test]
fn attributes_are_bytes_and_the_overlays_own_are_dropped() {
    let shop = Workshop::new();
    let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\x80\x0a\x00";
    let acl = b"\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x04\x00\x05\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff";
    let large = Dice(2).bytes(40_000);
    let entries = [
        file("f", b"x")
            .pax("SCHILY.xattr.security.capability", capability)
            .pax("SCHILY.xattr.user.empty", b"")
            .pax("SCHILY.xattr.user.n\u{e4}me", b"a\nb=c\0")
            .pax("SCHILY.xattr.system.posix_acl_access", acl)
            .pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc")
            .pax("SCHILY.xattr.user.overlay.opaque", b"y")
            .pax("SCHILY.xattr.btrfs.compression", b"zstd"),
        file("large", &large[..3000]).pax("SCHILY.xattr.user.large", &large).pax("SCHILY.xattr.user.more", &large),
        directory("d").pax("SCHILY.xattr.trusted.mine", b"\xff\xfe"),
    ];
    let built = shop.build("layer", &tar_of(&entries), &[]).expect("a valid layer");
    let layer = support::Mounted::erofs(&shop.path("layer"));
    let get = |file: &str, name: &str| xattr::get(layer.path(file), name).expect("an attribute");
    assert_eq!(built.dropped_xattrs, 3);
    assert_eq!(get("f", "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(get("f", "user.empty").as_deref(), Some(&b""[..]));
    assert_eq!(get("f", "user.n\u{e4}me").as_deref(), Some(&b"a\nb=c\0"[..]));
    assert_eq!(get("f", "system.posix_acl_access").as_deref(), Some(&acl[..]));
    assert_eq!(xattr::list(layer.path("f")).expect("a list").count(), 4);
    assert_eq!(get("large", "user.large").as_ref(), Some(&large));
    assert_eq!(get("large", "user.more").as_ref(), Some(&large));
    assert_eq!(layer.read("large"), &large[..3000]);
    assert_eq!(get("d", "trusted.mine").as_deref(), Some(&b"\xff\xfe"[..]));
}

#[test]
fn names_have_255_bytes_of_any_kind_and_paths_go_deep() {
    let shop = Workshop::new();
    let name = "\u{fc}".repeat(127) + "x";
    let deep = "d/".repeat(100) + "f";
    let mut raw = file("placeholder", b"raw");
    raw.name = b"\xff\xfe\x01".to_vec();
    let layer =
        shop.mounted("layer", &[file(&name, b"long"), file(&deep, b"deep"), raw, file("p", b"").pax("path", b"q")]);
    assert_eq!(layer.read(&name), b"long");
    assert_eq!(layer.read(&deep), b"deep");
    assert_eq!(
        std::fs::read(layer.dir.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe\x01"))).expect("raw"),
        b"raw"
    );
    assert!(layer.path("q").exists() && !layer.path("p").exists());
    assert_eq!((layer.metadata("d").mode(), layer.metadata("d").mtime()), (0o040_755, 0));
}

#[test]
fn a_path_is_as_deep_as_the_kernel_allows() {
    let shop = Workshop::new();
    let deep = "d/".repeat(2047) + "f";
    shop.build("layer", &tar_of(&[file(&deep, b"deep")]), &[]).expect("a valid layer");
    // Not through fsck.erofs: that of Debian 12 recurses, and its stack ends first.
    let layer = support::Mounted::unchecked(&shop.path("layer"));
    std::env::set_current_dir(layer.dir.path()).expect("chdir");
    let found = std::fs::read(&deep);
    std::env::set_current_dir("/").expect("chdir");
    assert_eq!(found.expect("read a file"), b"deep");
    let too_long = shop.build("other", &tar_of(&[file(&(deep + "f"), b"")]), &[]);
    assert_eq!(too_long.expect_err("too long").code, bulkhead_layer::Code::LimitExceeded);
}

#[test]
fn the_last_entry_of_a_name_counts() {
    let shop = Workshop::new();
    let big = Dice(3).bytes(100_000);
    let layer = shop.mounted(
        "layer",
        &[
            file("f", &big),
            file("f", b"second"),
            directory("d"),
            file("d/x", &big),
            file("d", b"now a file"),
            file("e", b"file first"),
            directory("e"),
            file("e/y", b"y"),
            file("h", &big),
            hard_link("kept", "h"),
            file("h", b"other"),
            directory("m").mode(0o700).mtime(9),
        ],
    );
    assert_eq!(layer.read("f"), b"second");
    assert_eq!(layer.read("d"), b"now a file");
    assert_eq!(layer.read("e/y"), b"y");
    assert_eq!(layer.read("h"), b"other");
    assert!(layer.read("kept") == big);
    assert_eq!((layer.metadata("kept").nlink(), layer.metadata("h").nlink()), (1, 1));
    assert_eq!((layer.metadata("m").mode(), layer.metadata("m").mtime()), (0o040_700, 9));
}

#[test]
fn a_parent_that_is_a_link_is_followed_inside_the_layer() {
    let shop = Workshop::new();
    let layer = shop.mounted(
        "layer",
        &[
            directory("usr/bin"),
            symlink("bin", "usr/bin"),
            file("bin/tool", b"tool"),
            symlink("out", "/../../usr"),
            file("out/in", b"in"),
            symlink("usr/up", ".."),
            file("usr/up/top", b"top"),
        ],
    );
    assert_eq!(layer.read("usr/bin/tool"), b"tool");
    assert_eq!(layer.read("usr/in"), b"in");
    assert_eq!(layer.read("top"), b"top");
    assert!(layer.metadata("bin").file_type().is_symlink());
}

#[test]
fn a_directory_of_100000_names_lists_and_finds_them_all() {
    let shop = Workshop::new();
    let name = |at: u64| format!("d/{:x}-{at}", at.wrapping_mul(2_654_435_761) % 65_536);
    let mut tar: Vec<u8> = (0..100_000).flat_map(|at| entry_blocks(&file(&name(at), b""))).collect();
    tar.extend_from_slice(&[0; 1024]);
    let built = shop.build("layer", &tar, &[]).expect("a valid layer");
    let layer = support::Mounted::erofs(&shop.path("layer"));
    assert_eq!(built.entries, 100_000);
    assert_eq!(std::fs::read_dir(layer.path("d")).expect("list").count(), 100_000);
    assert!((0..100_000).all(|at| layer.path(&name(at)).exists()));
    assert!(!layer.path("d/missing").exists());
}

#[test]
fn sparse_files_of_gnu_tar_come_back_whole() {
    let shop = Workshop::new();
    let source = shop.path("source");
    std::fs::create_dir(&source).expect("mkdir");
    let holes = std::fs::File::create(source.join("holes")).expect("create");
    // Enough pieces for extension blocks of the old format (4 in the header, 21 in each).
    for piece in 0..60_u64 {
        std::os::unix::fs::FileExt::write_all_at(&holes, format!("piece {piece}").as_bytes(), piece * 300_000)
            .expect("write");
    }
    holes.set_len(60 * 300_000 + 12_345).expect("truncate");
    // The old format has whole seconds only.
    let whole = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
    holes.set_modified(whole).expect("utimes");
    std::fs::File::open(&source).and_then(|source| source.set_modified(whole)).expect("utimes");
    for (at, options) in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ]
    .iter()
    .enumerate()
    {
        let tar =
            Command::new("tar").arg("-cS").args(*options).arg("-C").arg(&source).arg(".").output().expect("tar").stdout;
        assert!(tar.len() < 2_000_000, "the tar is sparse");
        let image = format!("image{at}");
        shop.build(&image, &tar, &[]).expect("a valid layer");
        let layer = support::Mounted::erofs(&shop.path(&image));
        assert!(seen(&source) == seen(layer.dir.path()), "{options:?}");
    }
}

#[test]
fn what_gnu_tar_packs_in_any_format_is_what_the_kernel_shows() {
    let shop = Workshop::new();
    for (format, has_all) in [("gnu", false), ("pax", true), ("ustar", false), ("v7", false)] {
        let source = shop.path(format);
        make_random_tree(&source, has_all, format == "v7");
        let tar = Command::new("tar")
            .args(["-c", "--format", format, "--sort=name"])
            .args(if has_all { &["--xattrs", "--xattrs-include=*"][..] } else { &[] })
            .args(["-C".as_ref(), source.as_os_str(), ".".as_ref()])
            .output()
            .expect("tar");
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        let image = format!("{format}.erofs");
        shop.build(&image, &tar.stdout, &[]).expect("a valid layer");
        let layer = support::Mounted::erofs(&shop.path(&image));
        let (wanted, found) = (seen(&source), seen(layer.dir.path()));
        assert_eq!(wanted.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "{format}");
        for (name, file) in &wanted {
            assert!(*file == found[name], "{format} {}", String::from_utf8_lossy(name));
        }
    }
}

/// Directories, files, links, hard links, a pipe and a device. Nanoseconds and attributes only where the format has them.
fn make_random_tree(root: &Path, has_all: bool, is_plain: bool) {
    let mut dice = Dice(11);
    let mut directories = vec![root.to_path_buf()];
    let mut files = Vec::new();
    std::fs::create_dir(root).expect("mkdir");
    for at in 0..400 {
        let parent = directories[dice.roll(directories.len() as u64) as usize].clone();
        let path = parent.join(format!("n{at}"));
        match dice.roll(10) {
            0..=1 => {
                std::fs::create_dir(&path).expect("mkdir");
                directories.push(path.clone());
            }
            2 => std::os::unix::fs::symlink(format!("{}/t{at}", "x".repeat(dice.roll(60) as usize)), &path)
                .expect("symlink"),
            3 if !files.is_empty() => {
                std::fs::hard_link(&files[dice.roll(files.len() as u64) as usize], &path).expect("hard link");
                continue;
            }
            4 if !is_plain => {
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o640)).expect("mkfifo");
            }
            _ => {
                let size = dice.roll(3) * dice.roll(20_000);
                std::fs::write(&path, dice.bytes(size as usize)).expect("write");
                files.push(path.clone());
                if has_all {
                    xattr::set(&path, "user.random", &dice.bytes(30)).expect("setxattr");
                }
            }
        }
        let owner = (dice.roll(3000) as u32, dice.roll(3000) as u32);
        std::os::unix::fs::lchown(&path, Some(owner.0), Some(owner.1)).expect("chown");
        let nanoseconds = if has_all { dice.roll(1_000_000_000) } else { 0 };
        let time = nix::sys::time::TimeSpec::new(1_500_000_000 + at, nanoseconds as i64);
        let flags = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
        nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &path, &time, &time, flags).expect("utimensat");
    }
    // Children changed the directories' times.
    for directory in directories {
        let time = nix::sys::time::TimeSpec::new(1_400_000_000, 0);
        let flags = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
        nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &directory, &time, &time, flags).expect("utimensat");
    }
}
