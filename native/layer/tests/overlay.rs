//! What a stack of layers looks like through a real overlay.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use support::{Dice, Entry, Mounted, Workshop, directory, file, hard_link, seen, symlink, tar_of};

fn stack(shop: &Workshop, layers: &[&[Entry]]) -> Mounted {
    let mut mounted = Vec::new();
    for (at, entries) in layers.iter().enumerate() {
        let name = format!("l{at}");
        if shop.build(&name, &tar_of(entries), &[]).expect("a valid layer").root_opaque {
            mounted.clear();
        }
        mounted.push(Mounted::erofs(&shop.path(&name)));
    }
    Mounted::overlay(mounted)
}

#[test]
fn a_whiteout_is_a_device_0_0_and_hides_what_is_below() {
    let shop = Workshop::new();
    let upper: &[Entry] = &[file(".wh.gone", b""), file("d/.wh.x", b"")];
    let layer = shop.mounted("alone", upper);
    let whiteout = layer.metadata("gone");
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    let all = stack(&shop, &[&[file("gone", b""), file("kept", b""), file("d/x", b""), file("d/y", b"")], upper]);
    assert!(!all.path("gone").exists() && all.path("kept").exists());
    assert!(!all.path("d/x").exists() && all.path("d/y").exists());
}

#[test]
fn an_opaque_marker_works_before_and_after_its_directory() {
    let shop = Workshop::new();
    let lower: &[Entry] = &[file("a/old", b""), file("b/old", b""), file("c/old", b"")];
    let upper: &[Entry] = &[
        file("a/.wh..wh..opq", b""),
        directory("a").mode(0o711),
        file("a/new", b""),
        directory("b"),
        file("b/new", b""),
        file("b/.wh..wh..opq", b""),
        file("c/.wh..wh..opq", b""),
    ];
    let layer = shop.mounted("alone", upper);
    let opaque = |name: &str| xattr::get(layer.path(name), "trusted.overlay.opaque").expect("an attribute");
    assert_eq!(["a", "b", "c"].map(opaque), [(); 3].map(|()| Some(b"y".to_vec())));
    let all = stack(&shop, &[lower, upper]);
    assert!(!all.path("a/old").exists() && !all.path("b/old").exists() && !all.path("c/old").exists());
    assert!(all.path("a/new").exists() && all.path("b/new").exists());
    assert_eq!(all.metadata("a").mode(), 0o040_711);
}

#[test]
fn an_opaque_root_is_told_because_an_overlay_would_not_see_it() {
    let shop = Workshop::new();
    let built = shop.build("layer", &tar_of(&[file(".wh..wh..opq", b""), file("f", b"")]), &[]).expect("a valid layer");
    assert!(built.root_opaque);
    let built = shop.build("layer", &tar_of(&[file("f", b"")]), &[]).expect("a valid layer");
    assert!(!built.root_opaque);
}

#[test]
fn a_whiteout_leaves_its_own_layers_files_and_makes_directories_fresh() {
    let shop = Workshop::new();
    let lower: &[Entry] = &[file("f", b"old"), file("d/old", b""), file("e/old", b""), file("i/old", b"")];
    let upper: &[Entry] = &[
        file(".wh.f", b""),
        file("f", b"new"),
        file(".wh.d", b""),
        directory("d"),
        file("d/new", b""),
        directory("e"),
        file("e/new", b""),
        file(".wh.e", b""),
        file(".wh.i", b""),
        file("i/new", b""),
    ];
    let all = stack(&shop, &[lower, upper]);
    assert_eq!(all.read("f"), b"new");
    for name in ["d", "e", "i"] {
        assert!(!all.path(name).join("old").exists() && all.path(name).join("new").exists(), "{name}");
    }
}

#[test]
fn a_whiteout_in_an_opaque_directory_is_not_even_listed() {
    let shop = Workshop::new();
    let lower: &[Entry] = &[file("d/x", b""), file("d/y", b"")];
    let upper: &[Entry] = &[file("d/.wh.x", b""), file("d/.wh..wh..opq", b""), file("d/new", b"")];
    let all = stack(&shop, &[lower, upper]);
    let names = std::fs::read_dir(all.path("d")).expect("list").map(|entry| entry.expect("an entry").file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["new"]);
}

#[test]
fn aufs_files_are_dropped() {
    let shop = Workshop::new();
    let entries = [file(".wh..wh.aufs", b""), directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", b""), file("f", b"")];
    let layer = shop.mounted("layer", &entries);
    assert_eq!(seen(layer.dir.path()).into_keys().collect::<Vec<_>>(), [b"".to_vec(), b"f".to_vec()]);
}

/// Two layers of random entries through the overlay, against the same entries written to a directory the way dockerd
/// unpacks: whiteouts first (they speak of the layer below), then each entry in place of what is there.
#[test]
fn random_layers_look_like_dockerds_unpacking() {
    for seed in 0..60 {
        let shop = Workshop::new();
        let mut dice = Dice(seed);
        let layers = [random_layer(&mut dice, false), random_layer(&mut dice, true)];
        let model = shop.path("model");
        std::fs::create_dir(&model).expect("mkdir");
        layers.iter().for_each(|layer| unpack(&model, layer));
        let all = stack(&shop, &[&layers[0], &layers[1]]);
        let (wanted, found) = (contents(&model), contents(all.dir.path()));
        assert_eq!(wanted.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "seed {seed}");
        assert!(wanted == found, "seed {seed}: same names, other contents");
    }
}

/// Directories are named d…, other things f…, so that a path's parents can be told. Both may replace each other under
/// names m….
fn random_layer(dice: &mut Dice, has_whiteouts: bool) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut files: Vec<String> = Vec::new();
    for at in 0..dice.roll(40) {
        let parent: String = (0..dice.roll(3)).map(|_| format!("d{}/", dice.roll(3))).collect();
        let content = format!("{at}").repeat(1 + dice.roll(1500) as usize).into_bytes();
        let own = format!("{parent}f{}", dice.roll(4));
        let mixed = format!("{parent}m{}", dice.roll(2));
        entries.push(match dice.roll(if has_whiteouts { 10 } else { 7 }) {
            0 | 1 => file(&own, &content),
            2 => symlink(&own, "../somewhere"),
            3 if !files.is_empty() => {
                let target = files[dice.roll(files.len() as u64) as usize].clone();
                hard_link(&format!("{parent}h{at}"), &target)
            }
            3 | 4 => directory(&format!("{parent}d{}", dice.roll(3))),
            5 => file(&mixed, &content),
            6 => directory(&mixed),
            7 => file(&format!("{parent}.wh.f{}", dice.roll(4)), b""),
            8 => file(&format!("{parent}.wh.d{}", dice.roll(3)), b""),
            _ => file(&format!("{parent}.wh..wh..opq"), b""),
        });
        // Hard links only to names that no entry of this layer replaces.
        if dice.roll(4) == 0 {
            let name = format!("{parent}k{at}");
            entries.push(file(&name, &content));
            files.push(name);
        }
    }
    entries
}

fn unpack(root: &Path, layer: &[Entry]) {
    let path_of = |entry: &Entry| root.join(String::from_utf8_lossy(&entry.name).into_owned());
    let whiteout = |entry: &Entry| path_of(entry).file_name()?.to_str()?.strip_prefix(".wh.").map(str::to_owned);
    for entry in layer {
        let path = path_of(entry);
        let parent = path.parent().expect("a parent");
        match whiteout(entry).as_deref() {
            Some(".wh..opq") => {
                let children = std::fs::read_dir(parent).into_iter().flatten();
                children.for_each(|child| remove(&child.expect("an entry").path()));
            }
            Some(name) => remove(&parent.join(name)),
            None => {}
        }
    }
    for entry in layer {
        let path = path_of(entry);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        if whiteout(entry).is_some() {
            continue;
        }
        let is_directory = |path: &Path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        if !(entry.flag == b'5' && is_directory(&path)) {
            remove(&path);
        }
        let link = String::from_utf8_lossy(&entry.link).into_owned();
        match entry.flag {
            b'5' => std::fs::create_dir_all(&path),
            b'2' => std::os::unix::fs::symlink(link, &path),
            b'1' => std::fs::hard_link(root.join(link), &path),
            _ => std::fs::write(&path, &entry.content),
        }
        .expect("unpack");
    }
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path).expect("remove"),
        Ok(_) => std::fs::remove_file(path).expect("remove"),
        Err(_) => {}
    }
}

fn contents(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let type_of = |mode: u32| mode & libc::S_IFMT;
    seen(root)
        .into_iter()
        .map(|(name, file)| (String::from_utf8_lossy(&name).into_owned(), (type_of(file.mode), file.content)))
        .collect()
}
