//! A root by chance: programs under several names, links to them in every way, odd names, owners,
//! modes and times.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

use crate::dedupe_plan::busybox;
use crate::rig::dice::Dice;
use crate::world::{self, Entry, program};

const DIRECTORIES: [&str; 6] = ["bin", "sbin", "usr/bin", "usr/sbin", "opt/a b", "opt/\x1b[31m"];

pub const NAMES: [&[u8]; 12] = [
    b"busybox",
    b"ls",
    b"sh",
    b"vi",
    b"wget",
    b"[",
    b"tool",
    b"x y",
    b"new\nline",
    b"\xff\xfe",
    b"-rf",
    b".hidden",
];

/// Lays a root at an empty directory.
pub fn tree(root: &Path, dice: &mut Dice) {
    let merged = dice.once_in(3);
    if merged {
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for directory in DIRECTORIES {
        if dice.once_in(3) {
            continue;
        }
        let at = root.join(directory);
        fs::create_dir_all(&at).unwrap();
        for name in NAMES {
            let path = at.join(OsStr::from_bytes(name));
            if dice.once_in(2) && fs::symlink_metadata(&path).is_err() {
                entry(root, &path, &mut files, dice);
            }
        }
    }
    dress(root, dice);
}

/// Some roots have names of one file already.
pub fn share(roots: &[PathBuf], dice: &mut Dice) {
    let files = walkdir::WalkDir::new(&roots[0]).sort_by_file_name().into_iter().flatten();
    let files: Vec<_> = files.filter(|entry| entry.file_type().is_file()).collect();
    for other in &roots[1..] {
        if dice.once_in(3) {
            fs::hard_link(dice.pick(&files).path(), other.join("shared")).unwrap();
        }
    }
}

fn entry(root: &Path, path: &Path, files: &mut Vec<PathBuf>, dice: &mut Dice) {
    let kind = dice.below(10);
    if kind < 4 || files.is_empty() {
        let entry = content(dice);
        world::lay(path.parent().unwrap(), path.file_name().unwrap().as_bytes(), entry);
        return files.push(path.to_owned());
    }
    let other = dice.pick(files).clone();
    match kind {
        4 | 5 => fs::hard_link(&other, path).unwrap(),
        6 | 7 => symlink(Path::new("/").join(other.strip_prefix(root).unwrap()), path).unwrap(),
        8 if other.parent() == path.parent() => symlink(other.file_name().unwrap(), path).unwrap(),
        8 => symlink("nowhere", path).unwrap(),
        _ => mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
    }
}

/// One of few: the roots have much in common.
fn content(dice: &mut Dice) -> Entry {
    let long = |text: &[u8]| program(&[text, &[0x90; 20_000]].concat());
    match dice.below(5) {
        0 | 1 => busybox(),
        2 => long(b"one"),
        3 => long(b"two"),
        _ => Entry::File(b"#!/bin/sh\n".to_vec(), 0o755),
    }
}

/// Owner, mode and times of everything; what is below a directory comes first.
fn dress(root: &Path, dice: &mut Dice) {
    const MODES: [u32; 5] = [0o755, 0o755, 0o555, 0o700, 0o4755];
    let owners = [0, 0, 7, 1000];
    for entry in walkdir::WalkDir::new(root).contents_first(true).sort_by_file_name() {
        let entry = entry.unwrap();
        let owner = *dice.pick(&owners);
        // Whom a root belongs to is what it may share.
        if entry.depth() > 0 {
            lchown(entry.path(), Some(owner), Some(owner)).unwrap();
        }
        if entry.file_type().is_file() {
            let mode = *dice.pick(&MODES);
            fs::set_permissions(entry.path(), Permissions::from_mode(mode)).unwrap();
        }
        let times = Timestamps { last_access: time(dice), last_modification: time(dice) };
        utimensat(CWD, entry.path(), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// From 1938 to 2096.
pub fn time(dice: &mut Dice) -> Timespec {
    let tv_sec = dice.below(5_000_000_000) as i64 - 1_000_000_000;
    Timespec { tv_sec, tv_nsec: dice.below(1_000_000_000) as i64 }
}
