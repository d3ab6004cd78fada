//! Symbolic links are made, under a temporary name.
#![expect(clippy::disallowed_methods, reason = "links take the place of copies")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Statx, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::place::{Pinned, Place, give_flags, through};
use crate::model::Metadata;
use crate::scan::dir::file_type;

/// Makes a link that belongs to somebody.
///
/// The owner is changed by descriptor: by name it could be that of something that was
/// put there meanwhile.
pub(crate) fn make(place: &Place, target: &[u8], (uid, gid): (u32, u32)) -> io::Result<()> {
    rustix::fs::symlinkat(target, place.dir(), place.name.as_slice())?;
    let stat = place.stat()?;
    if !is_new(&stat, target) {
        return Err(swapped());
    }
    match (stat.stx_uid, stat.stx_gid) == (uid, gid) {
        true => Ok(()),
        false => own(place, target, uid, gid).map(drop),
    }
}

/// Makes a link that is to get more than an owner: it is held.
pub(crate) fn make_dressed(place: &Place, target: &[u8], metadata: &Metadata) -> io::Result<()> {
    rustix::fs::symlinkat(target, place.dir(), place.name.as_slice())?;
    let made = own(place, target, metadata.uid, metadata.gid)?;
    dress(made.as_fd(), metadata)
}

fn own(place: &Place, target: &[u8], uid: u32, gid: u32) -> io::Result<Pinned> {
    let made = place.pinned()?;
    if !is_new(&made.stat, target) {
        return Err(swapped());
    }
    if (made.stat.stx_uid, made.stat.stx_gid) != (uid, gid) {
        chown(made.as_fd(), uid, gid)?;
    }
    Ok(made)
}

/// Not read: that would be noted in the inode, once for each link. What another would put there
/// it could as well put under the name itself.
fn is_new(stat: &Statx, target: &[u8]) -> bool {
    file_type(stat) == FileType::Symlink
        && stat.stx_size == target.len() as u64
        && stat.stx_nlink == 1
}

fn swapped() -> io::Error {
    io::Error::other("somebody else replaced the temporary name")
}

/// Changes the owner of the inode itself.
pub(crate) fn chown(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(rustix::fs::chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
}

/// Gives an inode the extended attributes, flags and, last, the times that it had: owner and mode
/// come before, because a change of owner takes capabilities away.
pub(crate) fn dress(fd: BorrowedFd<'_>, metadata: &Metadata) -> io::Result<()> {
    let path = through(fd);
    for (name, value) in &metadata.xattrs {
        rustix::fs::setxattr(path.as_str(), name.as_slice(), value, XattrFlags::empty())?;
    }
    give_flags(fd, metadata.flags)?;
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
