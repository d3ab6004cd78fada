//! An object is bound over names of a running container, and taken away from there.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::point::{DIRECTORY, open_as};
use super::{MountError, Source, find, inside, is_mount, move_tree, unmounting};
use crate::model::RootPath;
use crate::scan::served::{self, Table};
use crate::scan::{MountNamespace, mounts};

/// The names of a container, as its processes see them.
#[derive(Debug)]
pub(crate) struct Names {
    namespace: MountNamespace,
    mounts: Table,
}

impl Names {
    /// In one mount namespace.
    pub(crate) fn of(namespace: MountNamespace) -> Self {
        Self { mounts: Table::of(namespace.pid), namespace }
    }

    /// Whether something may be bound there at all.
    ///
    /// # Errors
    ///
    /// The host would see it, or the container could write it.
    pub(crate) fn may_bind(&self) -> Result<(), MountError> {
        let pid = self.namespace.pid;
        match (self.namespace.own, self.namespace.maps_root) {
            (true, _) => Err(MountError::NotApart { pid }),
            (_, true) => Err(MountError::MapsRoot { pid }),
            _ => Ok(()),
        }
    }

    /// The object that is bound over a name, held; `None` where nothing is, or no such name.
    ///
    /// # Errors
    ///
    /// [`MountError::Occupied`] by another mount, [`MountError::Writable`], or it cannot be
    /// looked at.
    pub(crate) fn bound(
        &self,
        source: &Source,
        path: &RootPath,
    ) -> Result<Option<OwnedFd>, MountError> {
        let found = find(self.namespace.root(), source, (path, &seen(path)), &self.mounts);
        match found {
            Err(MountError::Io { source, .. }) if is_gone(&source) => Ok(None),
            found => Ok(found?.map(|(_, fd)| fd)),
        }
    }

    /// Something is mounted on a name, whatever it is.
    ///
    /// # Errors
    ///
    /// It cannot be looked at.
    pub(crate) fn is_mounted_on(&self, path: &RootPath) -> Result<bool, MountError> {
        match served::open_below(self.namespace.root(), path.as_path(), &self.mounts) {
            Ok(found) => Ok(is_mount(&found.stat)),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(MountError::io("open", &seen(path))(error)),
        }
    }

    /// Holds what a name leads to, whatever it is, where nothing is mounted on the way or on it.
    ///
    /// # Errors
    ///
    /// There is no such name, or a link or a mount on the way.
    pub(crate) fn hold(&self, path: &RootPath) -> Result<OwnedFd, MountError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open_as(self.namespace.root(), path, (flags, ResolveFlags::NO_XDEV))
            .map_err(MountError::sys("open", &seen(path)))
    }

    /// Binds the object over what is held.
    ///
    /// # Errors
    ///
    /// It is not bound: what is held has lost its name, say.
    pub(crate) fn bind(
        &self,
        source: &Source,
        (path, held): (&RootPath, &OwnedFd),
    ) -> Result<(), MountError> {
        let mount = source.detached()?;
        inside(&self.namespace, || move_tree(&mount, held))
            .map_err(MountError::sys("bind the object over", &seen(path)))?;
        if matches!(self.bound(source, path), Ok(Some(_))) {
            return Ok(());
        }
        // The container gave it another name meanwhile.
        self.unmount(path, &mount)?;
        Err(MountError::sys("find again", &seen(path))(Errno::STALE))
    }

    /// Takes the object away from a name, if it is there. What runs from it goes on.
    ///
    /// # Errors
    ///
    /// As [`Self::bound`]; [`MountError::Locked`].
    pub(crate) fn unbind(&self, source: &Source, path: &RootPath) -> Result<(), MountError> {
        for _ in 0..MOST {
            match self.bound(source, path)? {
                Some(mount) => self.unmount(path, &mount)?,
                None if self.is_elsewhere(source, path)? => {
                    return Err(MountError::Moved { path: seen(path) });
                }
                None => return Ok(()),
            }
        }
        Err(MountError::Occupied { path: seen(path) })
    }

    /// A name that is bound over cannot be renamed, but a directory above it can. A container that
    /// has ended meanwhile has no mounts.
    fn is_elsewhere(&self, source: &Source, path: &RootPath) -> Result<bool, MountError> {
        let table = PathBuf::from(format!("/proc/{}/mountinfo", self.namespace.pid));
        let mut moved = false;
        let looked = File::open(&table).and_then(|open| {
            mounts::each(open, |mount| {
                let is_object = mount.root.file_name() == source.name();
                let has_name = mount.point.file_name() == path.as_path().file_name();
                moved |= is_object && has_name && mount.point != seen(path);
            })
        });
        match looked {
            Err(error) if !has_ended(&error) => Err(MountError::io("read", &table)(error)),
            _ => Ok(moved),
        }
    }

    /// umount2(2) takes a path. A name would lead to whatever is there by now: this one leads to
    /// the very mount that is held.
    fn unmount(&self, path: &RootPath, mount: &OwnedFd) -> Result<(), MountError> {
        let held = rustix::fs::openat(CWD, "/proc/self/fd", DIRECTORY, Mode::empty());
        let held = held.map_err(MountError::sys("open", Path::new("/proc/self/fd")))?;
        let name = mount.as_fd().as_raw_fd().to_string();
        let unmounted = inside(&self.namespace, || {
            rustix::process::fchdir(&held)?;
            rustix::mount::unmount(name.as_str(), UnmountFlags::DETACH)
        });
        unmounted.map_err(unmounting(&seen(path)))
    }
}

/// By two who saw a name free it was bound over twice; the container may go on for ever.
const MOST: usize = 8;

/// As the container sees it.
fn seen(path: &RootPath) -> PathBuf {
    Path::new("/").join(path.as_path())
}

fn has_ended(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH))
}

/// Nothing has the name, or the way to it is another one by now.
fn is_gone(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}
