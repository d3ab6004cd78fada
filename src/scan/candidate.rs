//! What an entry is beyond its inventory: whatever a link to another inode would lose, and
//! whatever forbids to change it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{IFlags, flistxattr, ioctl_getflags};
use rustix::io::Errno;

use super::cause;
use super::dir::{RootDir, open_regular};
use crate::model::{FileTraits, RootPath};

/// capabilities(7).
const CAPABILITY: &[u8] = b"security.capability";

/// The kernel's own limit on a list of names: `XATTR_LIST_MAX`, limits.h.
const LIST_MAX: usize = 64 * 1024;

/// Looks at the regular file `name` in the directory `dir` of a root.
pub fn traits(root: &RootDir, dir: &RootPath, name: &[u8]) -> FileTraits {
    look(root, dir, name).unwrap_or_else(|error| FileTraits {
        unreadable: Some(cause(&error)),
        ..FileTraits::default()
    })
}

fn look(root: &RootDir, dir: &RootPath, name: &[u8]) -> io::Result<FileTraits> {
    let parent = root.open_dir(dir)?;
    let (file, _) = open_regular(parent.as_fd(), name)?;
    let flags = flags(file.as_fd())? | flags(parent.as_fd())?;
    let mut xattrs = xattrs(file.as_fd())?;
    let capabilities = xattrs.iter().any(|name| name == CAPABILITY);
    xattrs.retain(|name| name != CAPABILITY);
    Ok(FileTraits {
        capabilities,
        xattrs,
        immutable: flags.contains(IFlags::IMMUTABLE),
        append_only: flags.contains(IFlags::APPEND),
        ..FileTraits::default()
    })
}

/// `FS_IOC_GETFLAGS`; a file system without flags has none set.
fn flags(fd: BorrowedFd<'_>) -> io::Result<IFlags> {
    match ioctl_getflags(fd) {
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(IFlags::empty()),
        flags => Ok(flags?),
    }
}

/// The names of the extended attributes.
fn xattrs(fd: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0; 1024];
    let len = loop {
        match flistxattr(fd, &mut buffer) {
            Err(Errno::RANGE) if buffer.len() < LIST_MAX => buffer.resize(LIST_MAX, 0),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => break 0,
            len => break len?,
        }
    };
    let names = buffer[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}
