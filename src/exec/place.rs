//! An entry of a root: its directory, pinned, and its name in it.
//!
//! Nothing below a root is reached by a path twice: the directory is opened once, below
//! the root's descriptor, and every call goes by that descriptor and a single name.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, IFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::model::{Metadata, RootId, RootPath};
use crate::scan::dir::{RootDir, file_type, reopen, stat_fd, stat_name};

/// Extended attributes of one entry take at most this much, names and values alike
/// (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 64 * 1024;

/// A directory below a root, held open.
#[derive(Debug)]
pub(crate) struct Parent {
    fd: OwnedFd,
    flags: OnceCell<IFlags>,
}

impl Parent {
    /// The directory.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Nothing can be replaced in it (`chattr +i`, `+a`).
    pub(crate) fn is_locked(&self) -> bool {
        let flags = self.flags.get_or_init(|| inode_flags(self.fd.as_fd()));
        flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND)
    }

    /// Its changes so far survive a power cut.
    pub(crate) fn flush(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }
}

/// `FS_IOC_GETFLAGS`; none where the file system has none.
pub(crate) fn inode_flags(fd: BorrowedFd<'_>) -> IFlags {
    rustix::fs::ioctl_getflags(fd).unwrap_or(IFlags::empty())
}

/// Flags that a new inode can be given, d, A, S and D of chattr(1): the others come from the file
/// system or from the directory, or forbid the change.
const KEPT: IFlags =
    IFlags::NODUMP.union(IFlags::NOATIME).union(IFlags::SYNC).union(IFlags::DIRSYNC);

/// Those of an open inode.
pub(crate) fn kept_flags(fd: BorrowedFd<'_>) -> u32 {
    (inode_flags(fd) & KEPT).bits()
}

/// Gives an inode those flags that undo gives back, and takes those from it that it has from its
/// directory.
pub(crate) fn give_flags(fd: BorrowedFd<'_>, wanted: u32) -> io::Result<()> {
    let now = match rustix::fs::ioctl_getflags(fd) {
        // A symbolic link has none, or the file system has none.
        Err(_) if wanted == 0 => return Ok(()),
        now => now?,
    };
    let flags = now.difference(KEPT) | IFlags::from_bits_retain(wanted);
    if flags != now {
        rustix::fs::ioctl_setflags(fd, flags)?;
    }
    Ok(())
}

/// The directories of a batch, each opened once.
#[derive(Debug, Default)]
pub(crate) struct Parents {
    open: HashMap<(RootId, RootPath), Rc<Parent>>,
}

impl Parents {
    /// Pins the directory of an entry.
    pub(crate) fn pin(&mut self, id: RootId, root: &RootDir, path: &RootPath) -> io::Result<Place> {
        let above = path.parent();
        let name = path.file_name().to_vec();
        if name.is_empty() || name == b"." || name == b".." {
            return Err(Errno::INVAL.into());
        }
        let key = (id, above);
        let parent = match self.open.get(&key) {
            Some(parent) => Rc::clone(parent),
            None => {
                let fd = root.open_dir(&key.1)?;
                let parent = Rc::new(Parent { fd, flags: OnceCell::new() });
                self.open.insert(key, Rc::clone(&parent));
                parent
            }
        };
        Ok(Place { parent, name })
    }
}

/// An entry's directory and its name there.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The directory.
    pub(crate) parent: Rc<Parent>,
    /// The name.
    pub(crate) name: Vec<u8>,
}

impl Place {
    /// A name in an open directory.
    pub(crate) fn of(dir: OwnedFd, name: &[u8]) -> Self {
        let parent = Rc::new(Parent { fd: dir, flags: OnceCell::new() });
        Self { parent, name: name.to_vec() }
    }

    /// The directory.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.parent.fd()
    }

    /// What is there.
    pub(crate) fn look(&self) -> io::Result<Found> {
        look(self.dir(), &self.name)
    }

    /// The inode that is there, held.
    pub(crate) fn pinned(&self) -> io::Result<Pinned> {
        pin(self.dir(), &self.name)?.ok_or_else(|| Errno::NOENT.into())
    }

    /// What the name leads to, without holding it: for who acts on the name alone.
    pub(crate) fn stat(&self) -> io::Result<Statx> {
        stat_name(self.dir(), &self.name)
    }

    /// A symbolic link with this target is there. Nothing is held.
    pub(crate) fn is_link_to(&self, target: &[u8]) -> io::Result<bool> {
        match rustix::fs::readlinkat(self.dir(), self.name.as_slice(), Vec::new()) {
            Ok(found) => Ok(found.as_bytes() == target),
            // It is something else, or gone.
            Err(Errno::INVAL | Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a name leads to.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing.
    Absent,
    /// A symbolic link.
    Link(Link),
    /// Anything else.
    Other(Pinned),
}

/// A symbolic link.
#[derive(Debug)]
pub(crate) struct Link {
    /// Its target, exactly.
    pub(crate) target: Vec<u8>,
    /// The link.
    pub(crate) pinned: Pinned,
}

/// An inode, held without having been opened.
#[derive(Debug)]
pub(crate) struct Pinned {
    fd: OwnedFd,
    /// What it is.
    pub(crate) stat: Statx,
}

impl AsFd for Pinned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Pinned {
    /// It is a regular file.
    pub(crate) fn is_file(&self) -> bool {
        file_type(&self.stat) == rustix::fs::FileType::RegularFile
    }

    /// It is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        file_type(&self.stat) == rustix::fs::FileType::Directory
    }

    /// What undo puts back, beside the content.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        metadata(self.fd.as_fd(), &self.stat)
    }

    /// Opens a regular file for reading, which is not noted in it: undo gives times back.
    pub(crate) fn open(&self) -> io::Result<File> {
        if !self.is_file() {
            return Err(Errno::NXIO.into());
        }
        Ok(File::from(reopen(&self.fd)?))
    }
}

/// Looks at a name of a directory.
pub(crate) fn look(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Found> {
    let Some(pinned) = pin(dir, name)? else { return Ok(Found::Absent) };
    if file_type(&pinned.stat) != rustix::fs::FileType::Symlink {
        return Ok(Found::Other(pinned));
    }
    let target = rustix::fs::readlinkat(&pinned.fd, c"", Vec::new())?.into_bytes();
    Ok(Found::Link(Link { target, pinned }))
}

/// What a name leads to, whatever it is; `None` where that is nothing.
fn pin(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Pinned>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let below = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let fd = loop {
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), below) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::INTR | Errno::AGAIN) => {}
            opened => break opened?,
        }
    };
    let stat = stat_fd(fd.as_fd())?;
    Ok(Some(Pinned { fd, stat }))
}

/// Which inode it is: a number is given out again, but not with the same time of birth, which
/// nobody can set. 0 where the file system keeps none.
pub(crate) fn identity(stat: &Statx) -> (u64, i64, u32) {
    let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    let birth = stat.stx_btime;
    if known { (stat.stx_ino, birth.tv_sec, birth.tv_nsec) } else { (stat.stx_ino, 0, 0) }
}

/// A path that leads to the inode of a descriptor and to nothing else.
pub(crate) fn through(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// What undo puts back of an inode, beside its content.
pub(crate) fn metadata(fd: BorrowedFd<'_>, stat: &Statx) -> io::Result<Metadata> {
    let nanoseconds = |time: rustix::fs::StatxTimestamp| {
        time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.into())
    };
    Ok(Metadata {
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mode: stat.stx_mode.into(),
        atime: nanoseconds(stat.stx_atime),
        mtime: nanoseconds(stat.stx_mtime),
        xattrs: xattrs(fd)?,
        flags: kept_flags(fd),
    })
}

/// The extended attributes of an inode. Those that the file system cannot have are none.
fn xattrs(fd: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = through(fd);
    let length = match rustix::fs::listxattr_query(&path) {
        Ok(0) | Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
        length => length?,
    };
    let mut names = Vec::with_capacity(length.min(XATTR_MAX));
    rustix::fs::listxattr(&path, rustix::buffer::spare_capacity(&mut names))?;
    let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let mut found = Vec::new();
    for name in names {
        let mut value = Vec::with_capacity(XATTR_MAX);
        rustix::fs::getxattr(&path, name, rustix::buffer::spare_capacity(&mut value))?;
        value.shrink_to_fit();
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}

/// What a descriptor is now, asking the file system itself.
pub(crate) fn stat_now(fd: BorrowedFd<'_>) -> io::Result<Statx> {
    Ok(rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?)
}
