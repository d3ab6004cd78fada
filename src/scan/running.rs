//! What running processes see and use.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::model::{ContainerPath, InodeId};

use super::dir;
use super::mounts;
use super::served::{self, Table};

/// What a process sees, by its own root and mounts.
#[derive(Debug)]
pub struct View {
    root: OwnedFd,
    mounts: Table,
}

impl View {
    /// That of a process.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn of(pid: u32) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, format!("/proc/{pid}/root"), flags, Mode::empty())?;
        Ok(Self { root, mounts: Table::of(pid) })
    }

    /// The inode at `path`. No link is followed, and no file server asked: the container's owner
    /// may have laid the one, and be the other.
    ///
    /// # Errors
    ///
    /// `ENOENT` where there is nothing.
    pub fn at(&self, path: &ContainerPath) -> io::Result<InodeId> {
        let below = path.0.strip_prefix("/").unwrap_or(&path.0);
        let found = served::open_below(self.root.as_fd(), below, &self.mounts)?;
        Ok(dir::inode_id(&found.stat))
    }
}

/// A process maps a file of this device, or a mount namespace shows it elsewhere than at `point`:
/// there it came by propagation, and goes by it.
///
/// # Errors
///
/// When processes cannot be listed.
pub fn uses_device(proc: &Path, dev: u64, point: &Path) -> io::Result<bool> {
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
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
        if there.is_none() || !asked.insert(there) {
            continue;
        }
        let Ok(table) = File::open(proc.join(&name).join("mountinfo")) else { continue };
        let mut elsewhere = false;
        let read =
            mounts::each(table, |mount| elsewhere |= mount.dev == dev && mount.point != point);
        if elsewhere || read.is_err_and(|error| !has_ended(&error)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_ended(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::SRCH)
}

fn namespace(proc: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_link(proc.join(name).join("ns/mnt")).ok()
}

/// `7f..-7f.. r-xp 00000000 07:02 36 /path`, numbers in hexadecimal.
fn device_of(line: &str) -> Option<(u32, u32)> {
    let (major, minor) = line.split_ascii_whitespace().nth(3)?.split_once(':')?;
    Some((u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?))
}
