//! What running processes see and use.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::model::{ContainerPath, InodeId};

use super::dir;
use super::mounts::{self, Mount};

/// The inode that a process finds at `path`, by its own root and mounts. No link is
/// followed: the container's owner may have laid it.
///
/// # Errors
///
/// `ENOENT` where there is nothing; `ESRCH` when the process has ended.
pub fn seen_at(pid: u32, path: &ContainerPath) -> io::Result<InodeId> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = openat(CWD, format!("/proc/{pid}/root"), flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(&root, &path.0, flags, Mode::empty(), resolve)?;
    Ok(dir::inode_id(&dir::stat_fd(found.as_fd())?))
}

/// A process maps a file of this device, or another mount namespace than this process's
/// shows it elsewhere than at `point`: there it came by propagation, and goes by it.
///
/// # Errors
///
/// When processes cannot be listed.
pub fn uses_device(proc: &Path, dev: u64, point: &Path) -> io::Result<bool> {
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    let own = namespace(proc, "self");
    let mut asked = HashSet::new();
    for entry in std::fs::read_dir(proc)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A name that is not UTF-8 must not hide what a process maps.
        let maps = std::fs::read(proc.join(&name).join("maps")).unwrap_or_default();
        if String::from_utf8_lossy(&maps)
            .lines()
            .any(|line| device_of(line) == Some((major, minor)))
        {
            return Ok(true);
        }
        let there = namespace(proc, &name);
        if there.is_none() || there == own || !asked.insert(there) {
            continue;
        }
        let mounts = std::fs::read(proc.join(&name).join("mountinfo")).unwrap_or_default();
        let elsewhere = |mount: &Mount| mount.dev == dev && mount.point != point;
        if mounts::parse(&mounts).iter().any(elsewhere) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn namespace(proc: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_link(proc.join(name).join("ns/mnt")).ok()
}

/// `7f..-7f.. r-xp 00000000 07:02 36 /path`, numbers in hexadecimal.
fn device_of(line: &str) -> Option<(u32, u32)> {
    let (major, minor) = line.split_ascii_whitespace().nth(3)?.split_once(':')?;
    Some((u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?))
}
