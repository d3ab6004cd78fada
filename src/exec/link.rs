//! Symbolic links are made, under a temporary name.
#![expect(clippy::disallowed_methods, reason = "links take the place of copies")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::place::{Found, Pinned, Place, through};
use crate::model::Metadata;

/// Makes a link that belongs to somebody.
///
/// The owner is changed by descriptor: by name it could be that of something that was
/// put there meanwhile.
pub(crate) fn make(place: &Place, target: &[u8], uid: u32, gid: u32) -> io::Result<Pinned> {
    rustix::fs::symlinkat(target, place.dir(), place.name.as_slice())?;
    let Found::Link(link) = place.look()? else { return Err(swapped()) };
    if link.target != target || link.pinned.stat.stx_nlink != 1 {
        return Err(swapped());
    }
    let stat = &link.pinned.stat;
    if stat.stx_uid != uid || stat.stx_gid != gid {
        chown(link.pinned.as_fd(), uid, gid)?;
    }
    Ok(link.pinned)
}

fn swapped() -> io::Error {
    io::Error::other("somebody else replaced the temporary name")
}

/// Changes the owner of the inode itself.
pub(crate) fn chown(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(rustix::fs::chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
}

/// Gives an inode the extended attributes and, last, the times that it had: owner and mode
/// come before, because a change of owner takes capabilities away.
pub(crate) fn dress(fd: BorrowedFd<'_>, metadata: &Metadata) -> io::Result<()> {
    let path = through(fd);
    for (name, value) in &metadata.xattrs {
        rustix::fs::setxattr(path.as_str(), name.as_slice(), value, XattrFlags::empty())?;
    }
    set_times(fd, Some(metadata.atime), metadata.mtime)
}

/// The times of the inode itself, in nanoseconds since the epoch. Without one for the last access,
/// that stays.
pub(crate) fn set_times(fd: BorrowedFd<'_>, atime: Option<i64>, mtime: i64) -> io::Result<()> {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps {
        last_access: atime.map_or(omit, timespec),
        last_modification: timespec(mtime),
    };
    match rustix::fs::utimensat(fd, c"", &times, AtFlags::EMPTY_PATH) {
        // Before Linux 5.8 there was no such flag.
        Err(Errno::INVAL) => {
            let path = through(fd);
            rustix::fs::utimensat(rustix::fs::CWD, path.as_str(), &times, AtFlags::empty())?;
        }
        done => done?,
    }
    Ok(())
}

fn timespec(nanoseconds: i64) -> Timespec {
    Timespec {
        tv_sec: nanoseconds.div_euclid(1_000_000_000),
        tv_nsec: nanoseconds.rem_euclid(1_000_000_000),
    }
}
