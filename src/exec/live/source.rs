//! What is made visible: a directory of the host, or the image that a store is shown by.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::mount::OpenTreeFlags;

use super::point::DIRECTORY;
use super::{MountError, Mounted};
use crate::exec::generations;
use crate::model::{HostPath, InodeId, StoreFormat};
use crate::scan::dir::{inode_id, stat_fd};
use crate::sys;

/// A directory of the host that is to be seen elsewhere.
#[derive(Debug)]
pub struct Source {
    fd: OwnedFd,
    inode: InodeId,
    path: PathBuf,
    /// The generations of an image, which were shown before it.
    older: Vec<InodeId>,
}

impl Source {
    /// Opens it. The way to it is the operator's: see that nobody else can change it.
    ///
    /// # Errors
    ///
    /// It cannot be opened as a directory.
    pub fn open(path: &HostPath) -> Result<Self, MountError> {
        let (fd, inode) = open(path)?;
        let is_view = path.0.file_name() == Some(OsStr::new(StoreFormat::VIEW));
        let store = path.0.parent().filter(|_| is_view);
        let mounts = store.map(generations::mounts).unwrap_or_default();
        let older = mounts.into_iter().filter_map(|it| Some(open(&HostPath::from(it)).ok()?.1));
        let older = older.filter(|it| *it != inode).collect();
        Ok(Self { fd, inode, path: path.0.clone(), older })
    }

    /// A mount of it that is attached nowhere yet: read-only, private, without devices.
    pub(super) fn detached(&self) -> Result<OwnedFd, MountError> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = rustix::mount::open_tree(&self.fd, c"", flags)
            .map_err(MountError::sys("clone the mount of", &self.path))?;
        sys::seal(tree.as_fd())
            .map_err(MountError::sys("make read-only the mount of", &self.path))?;
        Ok(tree)
    }

    /// What a mount of that directory is.
    pub(super) fn is_shown_by(&self, inode: InodeId) -> Option<Mounted> {
        match inode == self.inode {
            true => Some(Mounted::Here),
            false => self.older.contains(&inode).then_some(Mounted::Older),
        }
    }

    /// How many may lie on each other.
    pub(super) fn generations(&self) -> usize {
        self.older.len() + 1
    }
}

fn open(path: &HostPath) -> Result<(OwnedFd, InodeId), MountError> {
    let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
    let fd = rustix::fs::open(&path.0, flags, Mode::empty())
        .map_err(MountError::sys("open", &path.0))?;
    let stat = stat_fd(fd.as_fd()).map_err(MountError::io("look at", &path.0))?;
    Ok((fd, inode_id(&stat)))
}
