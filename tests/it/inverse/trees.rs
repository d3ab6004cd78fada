//! Directories right below `/usr/share` that roots have in common, more or less.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timestamps, XattrFlags, mknodat, utimensat};

use super::flag;
use super::generate::{NAMES, time};
use crate::rig::dice::Dice;
use crate::world;

/// Deeper than this chance does not dig.
const LEVELS: usize = 4;

/// Lays up to three directories, each in most of the roots: the same, but for the odd one.
pub fn lay(roots: &[PathBuf], dice: &mut Dice) {
    for name in [&b"zones"[..], b"new\nline", b"\xff\xfe"] {
        if name != b"zones" && dice.once_in(2) {
            continue;
        }
        let seed = dice.next();
        for root in roots {
            let at = root.join("usr/share").join(OsStr::from_bytes(name));
            if dice.once_in(6) {
                continue;
            }
            directory(&at, &mut Dice::new(seed));
            if dice.once_in(4) {
                alter(&at, dice);
            }
        }
    }
    roots.iter().for_each(|root| dress(root, dice));
}

/// Always the same for the same dice.
fn directory(top: &Path, dice: &mut Dice) {
    world::lay(top, b"data", world::file(vec![dice.below(256) as u8; 80 << 10]));
    let mut files = vec![top.join("data")];
    let mut dirs = vec![(top.to_owned(), 0)];
    while let Some((dir, level)) = dirs.pop() {
        for name in NAMES {
            let path = dir.join(OsStr::from_bytes(name));
            match dice.below(12) {
                0 => file(&path, dice),
                1 => {
                    holed(&path, dice);
                    files.push(path);
                }
                2 => fs::hard_link(dice.pick(&files), &path).unwrap(),
                3 => symlink("nowhere", &path).unwrap(),
                4 => symlink("/etc/localtime", &path).unwrap(),
                5 if level > 0 => symlink("../data", &path).unwrap(),
                6 | 7 if level < LEVELS && dirs.len() < 2 => {
                    fs::create_dir(&path).unwrap();
                    dirs.push((path, level + 1));
                }
                _ => {}
            }
        }
        let mode = *dice.pick(&[0o755, 0o555]);
        fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
    }
}

fn file(path: &Path, dice: &mut Dice) {
    let length = *dice.pick(&[0, 1, 4096, 5000]);
    fs::write(path, vec![dice.below(256) as u8; length]).unwrap();
    let mode = *dice.pick(&[0o644, 0o444]);
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn holed(path: &Path, dice: &mut Dice) {
    let file = File::create(path).unwrap();
    file.set_len(1 << 17).unwrap();
    file.write_all_at(b"data", dice.below(1 << 17) as u64 & !7).unwrap();
    file.set_permissions(Permissions::from_mode(0o644)).unwrap();
}

/// What makes it another than the others', or one that stays.
fn alter(top: &Path, dice: &mut Dice) {
    let odd = top.join("odd");
    let data = top.join("data");
    match dice.below(7) {
        0 => fs::write(&odd, "more").unwrap(),
        1 => mknodat(CWD, &odd, FileType::Fifo, Mode::RUSR, 0).unwrap(),
        2 => rustix::fs::lsetxattr(&data, c"trusted.note", b"note", XattrFlags::empty()).unwrap(),
        3 => lchown(&data, Some(7), Some(7)).unwrap(),
        4 => fs::set_permissions(&data, Permissions::from_mode(0o600)).unwrap(),
        5 => fs::hard_link(&data, top.with_file_name("elsewhere")).unwrap_or(()),
        _ => symlink("../../../bin", &odd).unwrap(),
    }
}

/// Times and flags of everything.
fn dress(root: &Path, dice: &mut Dice) {
    let Ok(_) = fs::symlink_metadata(root.join("usr")) else { return };
    for entry in walkdir::WalkDir::new(root.join("usr")).contents_first(true).sort_by_file_name() {
        let entry = entry.unwrap();
        let times = Timestamps { last_access: time(dice), last_modification: time(dice) };
        if (entry.file_type().is_file() || entry.file_type().is_dir()) && dice.once_in(4) {
            flag(entry.path(), dice);
        }
        utimensat(CWD, entry.path(), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}
