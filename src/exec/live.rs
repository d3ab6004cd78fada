//! Attaches a directory of the host, read-only, inside running containers and below
//! roots on the host; and takes it away again.
//!
//! Nothing of the container is executed: a thread of this process enters the container's
//! mount namespace and moves a mount there that was made outside (`open_tree(2)`,
//! `mount_setattr(2)`, `move_mount(2)`: Linux 5.12). The mount point is a descriptor that
//! was opened below the container's root without following a link, so the container
//! cannot lead it elsewhere; and it is part of the namespace that was entered, or the
//! kernel refuses.
#![expect(
    clippy::disallowed_methods,
    reason = "mounts, and the directories that they are mounted on"
)]

mod error;
mod names;
mod point;
mod source;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, ResolveFlags, Statx, StatxAttributes};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags};
use rustix::thread::LinkNameSpaceType;

pub use error::MountError;
pub(crate) use names::Names;
pub use source::{Source, objects};

use point::{below, mount_point, open_below, parent, split};

use crate::model::{ContainerPath, RootPath};
use crate::scan::MountNamespace;
use crate::scan::dir::{RootDir, inode_id, stat_fd};
use crate::scan::served::{self, Opened, Table};
use crate::sys;

/// What is at a mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounted {
    /// The directory, read-only.
    Here,
    /// An older generation of the image, read-only.
    Older,
    /// Nothing is mounted there.
    Not,
}

/// What attaching did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// It was not there before.
    Now,
    /// It was there.
    Already,
}

/// Makes the directory that a mount goes on, if it is missing: below the root, without
/// following a link, of the root's owner. The directory above must be there.
///
/// # Errors
///
/// Something else is there, or a directory above is missing or a link.
pub fn make_mount_point(root: &RootDir, target: &ContainerPath) -> Result<Attached, MountError> {
    let path = below(target);
    let shown = path.on_host(root.path()).0;
    let top = root.open_dir(&RootPath::default()).map_err(MountError::io("open", &shown))?;
    if open_below(top.as_fd(), &path, ResolveFlags::empty()).is_ok() {
        return Ok(Attached::Already);
    }
    let (above, name) = split(&path);
    let parent = root.open_dir(&above).map_err(MountError::io("open the directory of", &shown))?;
    let made = rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755));
    made.map_err(MountError::sys("make the directory", &shown))?;
    let owner = stat_fd(top.as_fd()).map_err(MountError::io("look at", &root.path().0))?;
    let (uid, gid) =
        (rustix::fs::Uid::from_raw(owner.stx_uid), rustix::fs::Gid::from_raw(owner.stx_gid));
    rustix::fs::chownat(&parent, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .and_then(|()| rustix::fs::fsync(&parent))
        .map_err(MountError::sys("make the directory", &shown))?;
    Ok(Attached::Now)
}

/// What the processes of a mount namespace see at a mount point.
///
/// # Errors
///
/// [`MountError::Occupied`] by another mount, [`MountError::Writable`], or it cannot be
/// looked at: there is no such directory, say.
pub fn look_in(
    namespace: &MountNamespace,
    source: &Source,
    target: &ContainerPath,
) -> Result<Mounted, MountError> {
    look(namespace.root(), source, (&below(target), &target.0), &Table::of(namespace.pid))
}

/// What the host sees at a mount point below a root.
///
/// # Errors
///
/// As [`look_in`].
pub fn look_on_host(
    root: &RootDir,
    source: &Source,
    target: &ContainerPath,
) -> Result<Mounted, MountError> {
    let path = below(target);
    let shown = path.on_host(root.path()).0;
    let top = root.open_dir(&RootPath::default()).map_err(MountError::io("open", &shown))?;
    look(top.as_fd(), source, (&path, &shown), Table::own())
}

/// Attaches a directory inside a running container, and looks whether it is there.
///
/// # Errors
///
/// It is not attached, and nothing in the container has changed. One that stopped
/// meanwhile is an error, too.
pub fn attach_in(
    namespace: &MountNamespace,
    source: &Source,
    target: &ContainerPath,
) -> Result<Attached, MountError> {
    let mounted = look_in(namespace, source, target)?;
    if mounted == Mounted::Here {
        return Ok(Attached::Already);
    }
    if namespace.maps_root {
        return Err(MountError::MapsRoot { pid: namespace.pid });
    }
    let tree = source.detached()?;
    let mounts = Table::of(namespace.pid);
    let point = point_for(mounted, namespace.root(), (&below(target), &target.0), &mounts)?;
    inside(namespace, || move_tree(&tree, &point))
        .map_err(MountError::sys("attach inside the container", &target.0))?;
    match look_in(namespace, source, target)? {
        Mounted::Here => Ok(Attached::Now),
        // The container moved the directory away while it was mounted on.
        Mounted::Older | Mounted::Not => {
            Err(MountError::sys("find again", &target.0)(Errno::STALE))
        }
    }
}

/// Attaches a directory below a root on the host: for chroots, and what sees the host's mounts.
///
/// # Errors
///
/// It is not attached, and nothing has changed.
pub fn attach_on_host(
    root: &RootDir,
    source: &Source,
    target: &ContainerPath,
) -> Result<Attached, MountError> {
    let mounted = look_on_host(root, source, target)?;
    if mounted == Mounted::Here {
        return Ok(Attached::Already);
    }
    let path = below(target);
    let shown = path.on_host(root.path()).0;
    let tree = source.detached()?;
    let top = root.open_dir(&RootPath::default()).map_err(MountError::io("open", &shown))?;
    let point = point_for(mounted, top.as_fd(), (&path, &shown), Table::own())?;
    move_tree(&tree, &point).map_err(MountError::sys("attach at", &shown))?;
    match look_on_host(root, source, target)? {
        Mounted::Here => Ok(Attached::Now),
        Mounted::Older | Mounted::Not => Err(MountError::sys("find again", &shown)(Errno::STALE)),
    }
}

/// Takes away what is attached in a running container, with the older generations that it lies
/// on. What runs from it goes on.
///
/// # Errors
///
/// Something else is mounted there, or the kernel keeps it ([`MountError::Locked`]).
pub fn detach_in(
    namespace: &MountNamespace,
    source: &Source,
    target: &ContainerPath,
) -> Result<Mounted, MountError> {
    let mounted = look_in(namespace, source, target)?;
    let mut left = mounted;
    for _ in 0..source.generations() {
        if left == Mounted::Not {
            break;
        }
        let (parent, name) = parent(namespace.root(), &below(target), &target.0)?;
        inside(namespace, || unmount(&parent, &name)).map_err(unmounting(&target.0))?;
        left = look_in(namespace, source, target)?;
    }
    Ok(mounted)
}

/// Takes away what is attached below a root on the host.
///
/// # Errors
///
/// As [`detach_in`].
pub fn detach_on_host(
    root: &RootDir,
    source: &Source,
    target: &ContainerPath,
) -> Result<Mounted, MountError> {
    let mounted = look_on_host(root, source, target)?;
    let mut left = mounted;
    for _ in 0..source.generations() {
        if left == Mounted::Not {
            break;
        }
        let path = below(target);
        let shown = path.on_host(root.path()).0;
        let top = root.open_dir(&RootPath::default()).map_err(MountError::io("open", &shown))?;
        let (parent, name) = parent(top.as_fd(), &path, &shown)?;
        apart(|| unmount(&parent, &name)).map_err(unmounting(&shown))?;
        left = look_on_host(root, source, target)?;
    }
    Ok(mounted)
}

/// What a mount goes on: a directory, or the older generation that it hides. That one stays
/// below until the container is started anew, so that there is always one to run from.
fn point_for(
    mounted: Mounted,
    top: BorrowedFd<'_>,
    (path, shown): (&RootPath, &Path),
    mounts: &Table,
) -> Result<OwnedFd, MountError> {
    if mounted == Mounted::Not {
        return mount_point(top, path, shown);
    }
    let opened = served::open_below(top, path.as_path(), mounts);
    Ok(opened.map_err(MountError::io("open", shown))?.fd)
}

fn unmounting(path: &Path) -> impl Fn(Errno) -> MountError {
    move |errno| match errno {
        Errno::INVAL => MountError::Locked { path: path.to_owned() },
        errno => MountError::sys("unmount", path)(errno),
    }
}

fn look(
    top: BorrowedFd<'_>,
    source: &Source,
    (path, shown): (&RootPath, &Path),
    mounts: &Table,
) -> Result<Mounted, MountError> {
    let found = find(top, source, (path, shown), mounts)?;
    Ok(found.map_or(Mounted::Not, |(mounted, _)| mounted))
}

/// What is mounted at a path, held; `None`: nothing.
fn find(
    top: BorrowedFd<'_>,
    source: &Source,
    (path, shown): (&RootPath, &Path),
    mounts: &Table,
) -> Result<Option<(Mounted, OwnedFd)>, MountError> {
    let opened = served::open_below(top, path.as_path(), mounts);
    let Opened { fd, stat, .. } = opened.map_err(MountError::io("open", shown))?;
    if !is_mount(&stat) {
        return Ok(None);
    }
    let found = source.is_shown_by(inode_id(&stat));
    let found = found.ok_or_else(|| MountError::Occupied { path: shown.to_owned() })?;
    let mount = rustix::fs::fstatvfs(&fd).map_err(MountError::sys("look at", shown))?;
    match mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        true => Ok(Some((found, fd))),
        false => Err(MountError::Writable { path: shown.to_owned() }),
    }
}

/// `STATX_ATTR_MOUNT_ROOT` (Linux 5.8).
fn is_mount(stat: &Statx) -> bool {
    stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}

fn move_tree(tree: &OwnedFd, point: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, c"", point, c"", flags)
}

/// umount2(2) takes a path: one of a single name, from the working directory. What runs
/// from the mount keeps it until it ends (`MNT_DETACH`).
fn unmount(parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    rustix::process::fchdir(parent)?;
    rustix::mount::unmount(name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

/// Does `work` inside a mount namespace.
fn inside(
    namespace: &MountNamespace,
    work: impl FnOnce() -> Result<(), Errno> + Send,
) -> Result<(), Errno> {
    let fd = namespace.fd();
    apart(|| {
        rustix::thread::move_into_link_name_space(fd, Some(LinkNameSpaceType::Mount))?;
        work()
    })
}

/// Does `work` in a thread that has a working directory and a mount namespace to itself,
/// and ends with it.
fn apart(work: impl FnOnce() -> Result<(), Errno> + Send) -> Result<(), Errno> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            sys::unshare_fs()?;
            work()
        });
        let thread =
            thread.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        thread.join().unwrap_or(Err(Errno::IO))
    })
}
