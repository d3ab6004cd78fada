//! Mount points are found below a root, without following a link out of it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::MountError;
use crate::model::{ContainerPath, RootPath};

const BELOW: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

pub(super) const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How often a resolution that raced with a rename is tried again.
const TRIES: usize = 64;

/// Below a root, `/cbin` is `cbin`.
pub(super) fn below(target: &ContainerPath) -> RootPath {
    let path: PathBuf = target.0.components().skip(1).collect();
    RootPath::new(std::os::unix::ffi::OsStringExt::into_vec(path.into_os_string()))
}

pub(super) fn split(path: &RootPath) -> (RootPath, &[u8]) {
    let name = path.file_name();
    let above = path.as_bytes().len().saturating_sub(name.len() + 1);
    (RootPath::new(path.as_bytes().get(..above).unwrap_or_default()), name)
}

/// A directory below `top` that nothing is mounted on.
pub(super) fn mount_point(
    top: BorrowedFd<'_>,
    path: &RootPath,
    shown: &Path,
) -> Result<OwnedFd, MountError> {
    open_below(top, path, ResolveFlags::NO_XDEV).map_err(MountError::sys("open", shown))
}

/// The directory above a mount point, and its name there.
pub(super) fn parent(
    top: BorrowedFd<'_>,
    path: &RootPath,
    shown: &Path,
) -> Result<(OwnedFd, Vec<u8>), MountError> {
    let (above, name) = split(path);
    let dir =
        open_below(top, &above, ResolveFlags::NO_XDEV).map_err(MountError::sys("open", shown))?;
    Ok((dir, name.to_vec()))
}

pub(super) fn open_below(
    top: BorrowedFd<'_>,
    path: &RootPath,
    more: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    open_as(top, path, (DIRECTORY, more))
}

/// The same of what is no directory.
pub(super) fn open_as(
    top: BorrowedFd<'_>,
    path: &RootPath,
    (flags, more): (OFlags, ResolveFlags),
) -> Result<OwnedFd, Errno> {
    let path = if path.as_bytes().is_empty() { &b"."[..] } else { path.as_bytes() };
    for _ in 0..TRIES {
        match rustix::fs::openat2(top, path, flags, Mode::empty(), BELOW | more) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}
