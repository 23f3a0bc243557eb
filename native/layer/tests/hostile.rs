//! Layers made to do harm: each ends in a clean refusal or a valid image, quickly, and leaves nothing behind.

mod support;

use bulkhead_layer::{Code, LayerError};
use std::io::Write;
use std::process::Stdio;
use support::{
    Dice, Entry, Mounted, Workshop, directory, entry_blocks, file, hard_link, header, pax_record, raw_blocks, symlink,
    tar_of, with_checksum,
};

fn refused(entries: &[Entry]) -> LayerError {
    let shop = Workshop::new();
    let error = shop.build("image", &tar_of(entries), &[]).expect_err("refused");
    assert_eq!(shop.names(), [""; 0]);
    error
}

fn refused_blob(blob: &[u8]) -> LayerError {
    let shop = Workshop::new();
    let error = shop.build("image", blob, &[]).expect_err("refused");
    assert_eq!(shop.names(), [""; 0]);
    error
}

#[test]
fn entries_that_make_no_sense_are_refused_by_name() {
    let cases: &[(&[Entry], &str)] = &[
        (&[file("../escape", b"")], "../escape"),
        (&[file("a/../../escape", b"")], "a/../../escape"),
        (&[hard_link("name", "missing-target")], "missing-target"),
        (&[directory("d"), hard_link("name", "d")], "which is a directory"),
        (&[file(".wh.gone", b""), hard_link("name", "gone")], "gone"),
        (&[hard_link("name", "../../etc/passwd")], "../../etc/passwd"),
        (&[file("parent", b""), file("parent/child", b"")], "parent/child"),
        (&[symlink("loop", "loop"), file("loop/f", b"")], "loop/f"),
        (&[file("d/.wh.", b"")], "d/.wh."),
        (&[file("d/.wh...", b"")], "d/.wh..."),
        (&[file("./", b"")], "the root"),
        (&[symlink("empty-target", "")], "empty-target"),
        (&[Entry::new(b'Z', "odd-type")], "odd-type"),
        (&[Entry::new(b'3', "large-device").device(5000, 0)], "large-device"),
        (&[file("bad-uid", b"").pax("uid", b"4294967295")], "bad-uid"),
        (&[file("bad-size", b"").pax("size", b"-1")], "bad-size"),
        (&[file("f", b"").pax("path", b"nul\0nul")], "path"),
        (&[file("bad-acl", b"").pax("SCHILY.xattr.system.posix_acl_access", b"no list")], "bad-acl"),
        (&[file("f", b"").pax("mtime", b"soon")], "mtime"),
    ];
    for (entries, part) in cases {
        let error = refused(entries);
        assert_eq!(error.code, Code::InvalidTar, "{}", error.message);
        assert!(error.message.contains(part), "{part}: {}", error.message);
    }
}

#[test]
fn a_hard_link_to_nothing_names_both() {
    let error = refused(&[hard_link("the-name", "the-target")]);
    assert!(error.message.contains("the-name") && error.message.contains("the-target"), "{}", error.message);
}

#[test]
fn what_is_too_long_or_too_large_is_a_limit() {
    let big = vec![b'v'; 65_536];
    let mut many = file("many", b"");
    (0..5).for_each(|at| many = many.clone().pax(&format!("SCHILY.xattr.user.{at}"), &big[..65_000]));
    for entries in [
        vec![file(&"n".repeat(256), b"")],
        vec![file(&"d/".repeat(2100), b"")],
        vec![symlink("s", &"t".repeat(4096))],
        vec![file("f", b"").pax("SCHILY.xattr.user.big", &big)],
        vec![many],
        vec![file("f", b"").pax("comment", &vec![b'c'; 1 << 20])],
    ] {
        let error = refused(&entries);
        assert_eq!(error.code, Code::LimitExceeded, "{}", error.message);
    }
}

#[test]
fn a_size_beyond_the_limit_is_refused_before_anything_is_made_for_it() {
    for size in ["68719476737", "9223372036854775807"] {
        let error = refused(&[file("huge", b"").pax("size", size.as_bytes())]);
        assert_eq!(error.code, Code::LimitExceeded);
        assert!(error.message.contains("huge"), "{}", error.message);
    }
    let error = refused_blob(&header(&Entry::new(b'x', "pax"), 1 << 40));
    assert_eq!(error.code, Code::LimitExceeded);
}

#[test]
fn a_sparse_map_that_lies_is_refused() {
    let map = |map: &str, size: &str| {
        file("sparse", &[b'x'; 10]).pax("GNU.sparse.map", map.as_bytes()).pax("GNU.sparse.size", size.as_bytes())
    };
    for (entry, code) in [
        (map("0,5,3,5", "100"), Code::InvalidTar),
        (map("0,10", "5"), Code::InvalidTar),
        (map("0,11", "100"), Code::InvalidTar),
        (map("0,5,9", "100"), Code::InvalidTar),
        (map("0,-5", "100"), Code::InvalidTar),
        (map("18446744073709551615,10", "100"), Code::InvalidTar),
        (map("0,10", "99999999999999"), Code::LimitExceeded),
        (map("0,10", "-1"), Code::InvalidTar),
    ] {
        assert_eq!(refused(&[entry]).code, code);
    }
}

#[test]
fn holes_count_against_the_limit() {
    let hole =
        |at: u64| file(&format!("hole{at}"), b"x").pax("GNU.sparse.map", b"0,1").pax("GNU.sparse.size", b"30000000000");
    let error = refused(&[hole(0), hole(1), hole(2)]);
    assert_eq!(error.code, Code::LimitExceeded);
    assert!(error.message.contains("hole2"), "{}", error.message);
}

#[test]
fn a_tar_cut_anywhere_is_refused_or_a_valid_image() {
    let shop = Workshop::new();
    let tar = tar_of(&[
        directory("d"),
        file("d/f", &[b'x'; 700]).pax("SCHILY.xattr.user.a", b"b"),
        file(&"long/".repeat(40), b""),
        symlink("s", "t"),
        file("g", &Dice(7).bytes(5000)),
    ]);
    let between_entries = (0..=tar.len()).step_by(512);
    let inside_blocks = (1..tar.len()).step_by(97);
    for cut in between_entries.chain(inside_blocks) {
        match shop.build("image", &tar[..cut], &[]) {
            // As in Go's reader a tar may lack its end; the digest is there to tell.
            Ok(_) => drop(Mounted::erofs(&shop.path("image"))),
            Err(error) => assert_eq!(error.code, Code::Truncated, "at {cut}: {}", error.message),
        }
    }
}

#[test]
fn a_compressed_stream_cut_anywhere_is_truncated() {
    let shop = Workshop::new();
    let tar = tar_of(&[file("f", &Dice(8).bytes(3000))]);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).expect("compress");
    let blobs = [encoder.finish().expect("compress"), zstd::encode_all(&tar[..], 3).expect("compress")];
    for blob in &blobs {
        for cut in (8..blob.len()).step_by(61) {
            let error = shop.build("image", &blob[..cut], &[]).expect_err("refused");
            assert_eq!(error.code, Code::Truncated, "at {cut}: {}", error.message);
        }
    }
}

#[test]
fn damaged_bytes_never_end_in_anything_but_a_refusal_or_a_valid_image() {
    let shop = Workshop::new();
    let mut dice = Dice(9);
    let tar = tar_of(&[
        directory("d"),
        file("d/f", &[b'x'; 100]).pax("SCHILY.xattr.user.a", b"b").pax("mtime", b"1.5"),
        file(&"long/".repeat(40), b""),
        hard_link("h", "d/f"),
        file("sparse", &[b'x'; 10]).pax("GNU.sparse.map", b"0,5,90,5").pax("GNU.sparse.size", b"100"),
        file("d/.wh.x", b""),
    ]);
    for _ in 0..600 {
        let mut damaged = tar.clone();
        for _ in 0..=dice.roll(3) {
            let at = dice.roll(damaged.len() as u64) as usize;
            damaged[at] = dice.roll(256) as u8;
        }
        fix_checksums(&mut damaged);
        if shop.build("image", &damaged, &["--max-bytes", "1000000"]).is_ok() {
            drop(Mounted::erofs(&shop.path("image")));
        }
    }
    for size in [1, 100, 512, 513, 5000] {
        shop.build("random", &dice.bytes(size), &[]).expect_err("random bytes are no tar");
    }
}

/// Damage is only interesting behind a header whose checksum is right.
fn fix_checksums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512) {
        if let Ok(header) = <[u8; 512]>::try_from(&*block)
            && &header[257..262] == b"ustar"
        {
            block.copy_from_slice(&with_checksum(header));
        }
    }
}

#[test]
fn a_bomb_ends_at_the_limit_and_zeros_take_no_space() {
    let shop = Workshop::new();
    let content = vec![0; 16 << 20];
    let tar = [&header(&Entry::new(b'0', "bomb"), content.len() as u64)[..], &content].concat();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("compress");
    for bomb in [gzip.finish().expect("compress"), zstd::encode_all(&tar[..], 1).expect("compress")] {
        let error = shop.build("image", &bomb, &["--max-bytes", "5000000"]).expect_err("refused");
        assert_eq!(error.code, Code::LimitExceeded);
        assert!(error.message.contains("bomb"), "{}", error.message);
        shop.build("image", &bomb, &[]).expect("within the limit");
        let metadata = std::fs::metadata(shop.path("image")).expect("metadata");
        assert!(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512 < 1 << 20, "zeros take no space");
    }
}

#[test]
fn a_bomb_behind_the_archives_end_is_bounded_too() {
    let shop = Workshop::new();
    let bomb = zstd::encode_all(&vec![0; 16 << 20][..], 1).expect("compress");
    let error = shop.build("image", &bomb, &["--max-bytes", "5000000"]).expect_err("refused");
    assert_eq!(error.code, Code::LimitExceeded);
}

#[test]
fn entries_without_end_are_bounded_in_number_and_memory() {
    let shop = Workshop::new();
    let (blob, mut feed) = std::io::pipe().expect("a pipe");
    let writer = std::thread::spawn(move || {
        // Until the other side gives up.
        (0_u64..).find(|at| feed.write_all(&entry_blocks(&file(&format!("f{at}"), b""))).is_err())
    });
    let error = shop.build_from("image", Stdio::from(blob), &["--max-entries", "20000"]).expect_err("refused");
    assert_eq!(error.code, Code::LimitExceeded);
    assert!(writer.join().expect("the writer").is_some());
}

#[test]
fn directories_nobody_named_count_as_files() {
    let shop = Workshop::new();
    let deep: Vec<_> = (0..100).map(|at| file(&format!("{at}/{}f", "d/".repeat(1000)), b"")).collect();
    let error = shop.build("image", &tar_of(&deep), &["--max-entries", "50000"]).expect_err("refused");
    assert_eq!(error.code, Code::LimitExceeded);
}

#[test]
fn links_that_multiply_a_path_are_bounded() {
    // Each step in the name is 2400 in truth.
    let down_and_up = format!("s0/{}", "../".repeat(600)).repeat(2);
    let entries = [symlink("s0", &"d/".repeat(600)), symlink("s1", &down_and_up), file(&("s1/".repeat(13) + "f"), b"")];
    let error = refused(&entries);
    assert_eq!(error.code, Code::LimitExceeded, "{}", error.message);
}

#[test]
fn malformed_extended_headers_are_refused() {
    for records in [&b"5 a=b"[..], b"x", b"999 a=b\n", b"0 =\n", &pax_record(b"", b"v")] {
        let error = refused_blob(&[raw_blocks(b'x', b"pax", records), tar_of(&[file("f", b"")])].concat());
        assert_eq!(error.code, Code::InvalidTar);
    }
    let error = refused_blob(&raw_blocks(b'L', b"long", b"name-of-nothing\0"));
    assert_eq!(error.code, Code::Truncated);
}
