//! Whether a package manager holds its lock in a root.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::process::{Flock, FlockType, fcntl_getlk};

use crate::model::RootPath;
use crate::scan::dir::{RootDir, open_regular, stat_name};

/// Locked by fcntl(2) while dpkg, apt, rpm or opkg is at work, by flock(2) for apk.
const LOCKED: [(&str, &str, &str); 8] = [
    ("dpkg", "var/lib/dpkg", "lock-frontend"),
    ("dpkg", "var/lib/dpkg", "lock"),
    ("rpm", "var/lib/rpm", ".rpm.lock"),
    ("rpm", "usr/lib/sysimage/rpm", ".rpm.lock"),
    ("apk", "lib/apk/db", "lock"),
    ("apk", "usr/lib/apk/db", "lock"),
    ("opkg", "run", "opkg.lock"),
    ("opkg", "var/lock", "opkg.lock"),
];

/// Is there while pacman is at work.
const PRESENT: (&str, &str, &str) = ("pacman", "var/lib/pacman", "db.lck");

/// The package manager that is at work in a root. `file_locks` is the text of `/proc/locks`.
pub fn at_work(root: &RootDir, file_locks: &[u8]) -> Option<&'static str> {
    let (manager, dir, name) = PRESENT;
    if let Ok(dir) = root.open_dir(&RootPath::new(dir))
        && stat_name(dir.as_fd(), name.as_bytes()).is_ok()
    {
        return Some(manager);
    }
    let held = |(_, dir, name): &&(&str, &str, &str)| {
        is_held(root, &RootPath::new(*dir), name.as_bytes(), file_locks).unwrap_or(false)
    };
    LOCKED.iter().find(held).map(|(manager, ..)| *manager)
}

fn is_held(root: &RootDir, dir: &RootPath, name: &[u8], file_locks: &[u8]) -> io::Result<bool> {
    let dir = root.open_dir(dir)?;
    let (file, meta) = open_regular(dir.as_fd(), name)?;
    let (major, minor) = (rustix::fs::major(meta.inode.dev), rustix::fs::minor(meta.inode.dev));
    let place = format!(" {major:02x}:{minor:02x}:{} ", meta.inode.ino);
    let listed = memchr::memmem::find(file_locks, place.as_bytes()).is_some();
    Ok(listed || is_locked(file.as_fd())?)
}

/// Somebody's lock would keep us from writing: `F_GETLK` tells it without taking one.
/// It tells of open file description locks, too: fcntl_locking(2).
fn is_locked(file: BorrowedFd<'_>) -> io::Result<bool> {
    match fcntl_getlk(file, &Flock::from(FlockType::WriteLock)) {
        Err(Errno::NOSYS | Errno::INVAL | Errno::NOLCK) => Ok(false),
        found => Ok(found?.is_some()),
    }
}
