//! A root as a directory descriptor: everything below it is opened through it,
//! and nothing outside it can be.
//!
//! The root's owner may swap any name for a link at any moment, so a path is
//! never looked at first and opened afterwards. `openat2(2)` resolves it below
//! the descriptor, or refuses (Linux 5.6).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::served::{self, Opened, Served};
use crate::model::{Bytes, DirMeta, FileMeta, HostPath, InodeId, RootPath};
use crate::sys::seal;

/// Below a root: no way up, no links, no `/proc` magic, no other file system.
const BELOW: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOATIME);

/// The longest path that one system call takes, its NUL left out (`PATH_MAX`).
const LONGEST_PATH: usize = 4095;

/// How often a resolution that raced with a rename is tried again.
pub(super) const TRIES: usize = 64;

/// A container's root, held open.
#[derive(Debug)]
pub struct RootDir {
    fd: OwnedFd,
    path: HostPath,
    inode: InodeId,
    mount: u64,
    served: Option<Served>,
    /// A copy of its mount on which no device can be opened, where there is one.
    sealed: OnceLock<Option<OwnedFd>>,
}

impl RootDir {
    /// Opens a root. Its last component may not be a symbolic link: the
    /// root's owner could have put it there. A FUSE server is not asked.
    pub fn open(path: &HostPath) -> io::Result<Self> {
        let Opened { fd, stat, served } = served::open_path(&path.0)?;
        let flags = DIRECTORY.difference(OFlags::NOATIME);
        let open = move |pinned: &OwnedFd| Ok(fs::openat(pinned, ".", flags, Mode::empty())?);
        let fd = match served {
            None => open(&fd)?,
            Some(Served::Fuse) => fd,
            Some(Served::Network) => served::in_time(move || open(&fd))?,
        };
        let (inode, mount, path) = (inode_id(&stat), stat.stx_mnt_id, path.clone());
        Ok(Self { fd, path, inode, mount, served, sealed: OnceLock::new() })
    }

    /// Who answers for its file system, if not the kernel alone: whatever is asked below it may
    /// then never be answered.
    pub fn served(&self) -> Option<Served> {
        self.served
    }

    /// Where it lies on the host.
    pub fn path(&self) -> &HostPath {
        &self.path
    }

    /// The inode of the directory that was opened.
    pub fn inode(&self) -> InodeId {
        self.inode
    }

    /// The mount it lies on, as `/proc/self/mountinfo` numbers it (Linux 5.8).
    pub fn mount(&self) -> u64 {
        self.mount
    }

    /// Opens a directory below the root; the root itself for the empty path.
    pub fn open_dir(&self, path: &RootPath) -> io::Result<OwnedFd> {
        self.open_dir_at(path.as_bytes())
    }

    /// The same, by the path's bytes.
    pub(super) fn open_dir_at(&self, path: &[u8]) -> io::Result<OwnedFd> {
        open_dir_below(&self.fd, path)
    }

    /// Which inode a name below the root leads to; a link is not followed.
    pub fn look(&self, path: &RootPath) -> io::Result<InodeId> {
        let dir = self.open_dir(&path.parent())?;
        Ok(inode_id(&stat_name(dir.as_fd(), path.file_name())?))
    }

    /// Makes ready to read many files. It takes CAP_SYS_ADMIN and Linux 5.12; without, files are
    /// read all the same, more slowly.
    pub fn seal(&self) {
        self.sealed.get_or_init(|| sealed_copy(&self.fd).ok());
    }

    /// It is ready to read many files.
    #[cfg(test)]
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.get().is_some_and(Option::is_some)
    }

    /// As [`open_regular`], by the path below the root.
    pub fn open_regular(&self, path: &RootPath) -> io::Result<(File, FileMeta)> {
        if path.as_bytes().len() <= LONGEST_PATH {
            return open_regular(self.fd.as_fd(), path.as_bytes());
        }
        let dir = self.open_dir(&path.parent())?;
        open_regular(dir.as_fd(), path.file_name())
    }

    /// Opens a file below the root at once, in half the time: `None` where that would not be safe.
    /// What a path leads to is only known afterwards. It is no device, for none can be opened here;
    /// a FIFO is opened without waiting for anybody, and no read of one succeeds.
    pub fn open_at_once(&self, path: &RootPath) -> Option<io::Result<File>> {
        let flags = OFlags::RDONLY
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC
            | OFlags::NOATIME;
        let copy = self.sealed.get().and_then(Option::as_ref)?;
        let path = Some(path.as_bytes()).filter(|path| path.len() <= LONGEST_PATH)?;
        Some(open_below(copy.as_fd(), path, flags).map(File::from))
    }
}

/// A mount of the same directory that nobody else sees, read-only and without devices.
fn sealed_copy(dir: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = open_tree(dir, c"", flags)?;
    seal(copy.as_fd())?;
    Ok(copy)
}

fn open_dir_below(top: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    let mut rest = path;
    let mut held: Option<OwnedFd> = None;
    while rest.len() > LONGEST_PATH {
        let (head, tail) = split_path(rest)?;
        held = Some(open_below(held.as_ref().unwrap_or(top).as_fd(), head, DIRECTORY)?);
        rest = tail;
    }
    let name = if rest.is_empty() { b"." } else { rest };
    open_below(held.as_ref().unwrap_or(top).as_fd(), name, DIRECTORY)
}

/// Splits a path that is too long for one call at its last `/` that is not.
fn split_path(path: &[u8]) -> io::Result<(&[u8], &[u8])> {
    let cut = path[..LONGEST_PATH].iter().rposition(|&byte| byte == b'/');
    let cut = cut.ok_or(Errno::NAMETOOLONG)?;
    Ok((&path[..cut], &path[cut + 1..]))
}

/// Opens a directory below another: that one itself for the empty path.
pub(crate) fn open_dir_at(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    open_below(dir, if path.is_empty() { b"." } else { path }, DIRECTORY)
}

/// Opens a regular file of a directory for reading, and says what it is.
///
/// It is looked at through a descriptor that cannot read (`O_PATH`) before it
/// is opened: opening a device has effects. `ENXIO` when it is not regular.
pub fn open_regular(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<(File, FileMeta)> {
    let pinned = pin(dir, name)?;
    let stat = stat_fd(pinned.as_fd())?;
    if file_type(&stat) != FileType::RegularFile {
        return Err(Errno::NXIO.into());
    }
    Ok((File::from(reopen(&pinned)?), file_meta(&stat)))
}

/// Holds what a name of a directory leads to, whatever it is, without opening it.
pub(crate) fn pin(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    open_below(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)
}

/// Opens for reading what an `O_PATH` descriptor holds: no name is resolved again.
pub(crate) fn reopen(pinned: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    match fs::open(&path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => Ok(fs::open(&path, flags, Mode::empty())?),
        opened => Ok(opened?),
    }
}

fn open_below(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let mut flags = flags;
    for _ in 0..TRIES {
        match fs::openat2(dir, path, flags, Mode::empty(), BELOW) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Only a file's owner may ask for O_NOATIME.
            Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => flags.remove(OFlags::NOATIME),
            opened => return Ok(opened?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// What an open descriptor is.
pub(crate) fn stat_fd(fd: BorrowedFd<'_>) -> io::Result<Statx> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID | StatxFlags::BTIME;
    Ok(fs::statx(fd, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, mask)?)
}

/// What a name in a directory is; a link is not followed.
pub(crate) fn stat_name(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    Ok(fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?)
}

/// The kind of file that a `statx` answer is about.
pub(crate) fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// The inode that a `statx` answer is about.
pub(crate) fn inode_id(stat: &Statx) -> InodeId {
    InodeId { dev: fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), ino: stat.stx_ino }
}

/// What the inventory keeps of a regular file's `statx` answer.
pub(crate) fn file_meta(stat: &Statx) -> FileMeta {
    FileMeta {
        inode: inode_id(stat),
        size: Bytes(stat.stx_size),
        allocated: Bytes(stat.stx_blocks.saturating_mul(512)),
        mtime: nanoseconds(stat.stx_mtime),
        ctime: nanoseconds(stat.stx_ctime),
        mode: stat.stx_mode.into(),
        nlink: stat.stx_nlink,
    }
}

/// What the inventory keeps of a directory's `statx` answer.
pub(crate) fn dir_meta(stat: &Statx) -> DirMeta {
    DirMeta {
        inode: inode_id(stat),
        mtime: nanoseconds(stat.stx_mtime),
        ctime: nanoseconds(stat.stx_ctime),
        mode: stat.stx_mode.into(),
    }
}

/// Saturates in the year 2262: a container may set any time it likes.
fn nanoseconds(time: fs::StatxTimestamp) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    #![allow(clippy::disallowed_methods, reason = "tests build their own trees")]

    use std::os::unix::fs::symlink;

    use super::*;

    fn root(dir: &tempfile::TempDir) -> RootDir {
        RootDir::open(&HostPath::from(dir.path())).unwrap()
    }

    #[test]
    fn a_link_below_the_root_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/", dir.path().join("out")).unwrap();
        let refused = root(&dir).open_dir(&RootPath::new("out/etc")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    }

    #[test]
    fn the_way_up_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = root(&dir).open_dir(&RootPath::new("..")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::XDEV.raw_os_error()));
    }

    #[test]
    fn a_root_that_is_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("root");
        symlink("/", &link).unwrap();
        assert!(RootDir::open(&HostPath::from(link)).is_err());
    }

    #[test]
    fn what_is_not_a_regular_file_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        fs::mknodat(fs::CWD, dir.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let top = root(&dir).open_dir(&RootPath::default()).unwrap();
        let refused = open_regular(top.as_fd(), b"fifo").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::NXIO.raw_os_error()));
    }

    #[test]
    fn a_path_longer_than_one_call_takes_is_opened_in_steps() {
        let dir = tempfile::tempdir().unwrap();
        let name = [b'd'; 200];
        let mut path = RootPath::default();
        let mut at = root(&dir).open_dir(&path).unwrap();
        for _ in 0..50 {
            fs::mkdirat(&at, &name[..], Mode::RWXU).unwrap();
            at = open_below(at.as_fd(), &name, DIRECTORY).unwrap();
            path = path.join(&name);
        }
        let opened = root(&dir).open_dir(&path).unwrap();
        assert_eq!(
            inode_id(&stat_fd(opened.as_fd()).unwrap()),
            inode_id(&stat_fd(at.as_fd()).unwrap())
        );
    }
}
