//! What is made visible: a directory of the host, the image that a store is shown by, or one
//! object of a store.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::OpenTreeFlags;

use super::point::DIRECTORY;
use super::{MountError, Mounted};
use crate::exec::generations;
use crate::model::{HostPath, InodeId, ObjectName, StoreFormat};
use crate::scan::dir::{inode_id, pin, stat_fd};
use crate::sys;

/// A directory of the host, or an object, that is to be seen elsewhere.
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

    /// An object of a store, as containers are shown it. What it holds was seen to before.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub(crate) fn object(
        (store, format): (&HostPath, StoreFormat),
        name: &ObjectName,
    ) -> Result<Self, MountError> {
        let (shown, _) = open(&format.shown(store))?;
        let path = format.shown(store).0.join(name.as_str());
        let fd = pin(shown.as_fd(), name.as_str().as_bytes());
        let fd = fd.map_err(MountError::io("open", &path))?;
        let stat = stat_fd(fd.as_fd()).map_err(MountError::io("look at", &path))?;
        let inode = inode_id(&stat);
        let older = objects(&store.0, name).into_iter().filter(|it| *it != inode).collect();
        Ok(Self { fd, inode, path, older })
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

    /// The last component of its path.
    pub(super) fn name(&self) -> Option<&OsStr> {
        self.path.file_name()
    }

    /// How many may lie on each other.
    pub(super) fn generations(&self) -> usize {
        self.older.len() + 1
    }
}

/// The inodes that an object has: in the store's directory, and in each generation of its image.
pub fn objects(store: &Path, name: &ObjectName) -> Vec<InodeId> {
    let places = generations::mounts(store).into_iter().chain([store.to_owned()]);
    let inode = |dir: PathBuf| {
        let (dir, _) = open(&HostPath(dir)).ok()?;
        let object = pin(dir.as_fd(), name.as_str().as_bytes()).ok()?;
        Some(inode_id(&stat_fd(object.as_fd()).ok()?))
    };
    places.filter_map(inode).collect()
}

fn open(path: &HostPath) -> Result<(OwnedFd, InodeId), MountError> {
    let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
    let fd = rustix::fs::open(&path.0, flags, Mode::empty())
        .map_err(MountError::sys("open", &path.0))?;
    let stat = stat_fd(fd.as_fd()).map_err(MountError::io("look at", &path.0))?;
    Ok((fd, inode_id(&stat)))
}
