//! What an entry is beyond its inventory: whatever a link to another inode would lose, and
//! whatever forbids to change it.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::fs::{
    IFlags, StatVfsMountFlags, StatxAttributes, fgetxattr, flistxattr, fstatfs, fstatvfs, getxattr,
    ioctl_getflags, listxattr,
};
use rustix::io::Errno;

use super::cause;
use super::dir::{RootDir, open_regular, stat_fd};
use super::served;
use super::source::Source;
use crate::model::{FileTraits, RootPath};

/// capabilities(7).
const CAPABILITY: &[u8] = b"security.capability";

/// The label of SELinux. A new file takes the directory's over, but for the user that made it.
const LABEL: &[u8] = b"security.selinux";

/// `FS_CASEFOLD_FL`, linux/fs.h: names in the directory are found whatever their case.
pub const CASEFOLD: IFlags = IFlags::from_bits_retain(0x4000_0000);

/// The kernel's own limit on a list of names: `XATTR_LIST_MAX`, limits.h.
const LIST_MAX: usize = 64 * 1024;

/// Looks at the regular file `name` in the directory `dir` of a root. A label that is the
/// store's, too, is none that a link to the store would lose.
pub fn traits(root: &RootDir, dir: &RootPath, name: &[u8], store: Option<&Label>) -> FileTraits {
    told(look(root, dir, name, store))
}

/// What could not be looked at is said to be so.
pub(super) fn told(looked: io::Result<FileTraits>) -> FileTraits {
    looked.unwrap_or_else(|error| FileTraits {
        unreadable: Some(cause(&error)),
        ..FileTraits::default()
    })
}

fn look(
    root: &RootDir,
    dir: &RootPath,
    name: &[u8],
    store: Option<&Label>,
) -> io::Result<FileTraits> {
    let parent = root.open_dir(dir)?;
    let (file, _) = open_regular(parent.as_fd(), name)?;
    let mut traits = of_open(file.as_fd(), store)?;
    let above = flags(parent.as_fd())?;
    traits.immutable |= above.contains(IFlags::IMMUTABLE);
    traits.append_only |= above.contains(IFlags::APPEND);
    Ok(traits)
}

/// What an open file or directory is, for itself.
pub(super) fn of_open(fd: BorrowedFd<'_>, store: Option<&Label>) -> io::Result<FileTraits> {
    let stat = stat_fd(fd)?;
    let flags = flags(fd)?;
    let names = xattrs(|buffer| flistxattr(fd, buffer))?;
    Ok(FileTraits {
        immutable: flags.contains(IFlags::IMMUTABLE),
        append_only: flags.contains(IFlags::APPEND),
        casefold: flags.contains(CASEFOLD),
        user: (stat.stx_uid, stat.stx_gid),
        ..lost(names, store, || label(fd))
    })
}

/// What a symbolic link is, held by a descriptor that cannot read (`O_PATH`): its attributes are
/// asked for by way of `/proc`.
pub(super) fn of_link(fd: BorrowedFd<'_>, store: Option<&Label>) -> io::Result<FileTraits> {
    let stat = stat_fd(fd)?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let names = xattrs(|buffer| listxattr(&path, buffer))?;
    let label = || label_by(|value| getxattr(&path, LABEL, value));
    Ok(FileTraits { user: (stat.stx_uid, stat.stx_gid), ..lost(names, store, label) })
}

/// The attributes that are lost with the inode.
fn lost(
    mut names: Vec<Vec<u8>>,
    store: Option<&Label>,
    label: impl FnOnce() -> Option<Label>,
) -> FileTraits {
    let capabilities = names.iter().any(|name| name == CAPABILITY);
    names.retain(|name| name != CAPABILITY);
    if names.iter().any(|name| name == LABEL)
        && store.is_some_and(|it| Some(it) == label().as_ref())
    {
        names.retain(|name| name != LABEL);
    }
    FileTraits { capabilities, xattrs: names, ..FileTraits::default() }
}

/// `FS_IOC_GETFLAGS`; a file system without flags has none set.
fn flags(fd: BorrowedFd<'_>) -> io::Result<IFlags> {
    match ioctl_getflags(fd) {
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(IFlags::empty()),
        flags => Ok(flags?),
    }
}

/// The names of the extended attributes.
fn xattrs(list: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> io::Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0; 1024];
    let len = loop {
        match list(&mut buffer) {
            Err(Errno::RANGE) if buffer.len() < LIST_MAX => buffer.resize(LIST_MAX, 0),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => break 0,
            len => break len?,
        }
    };
    let names = buffer[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

/// What a security policy knows a file by: in `user:role:type:level` type and level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label(Vec<u8>);

impl Label {
    /// The label that an extended attribute is, where it is one.
    pub(crate) fn of(name: &[u8], value: &[u8]) -> Option<Self> {
        let value = value.strip_suffix(b"\0").unwrap_or(value);
        let rest = value.splitn(3, |&byte| byte == b':').nth(2).filter(|_| name == LABEL)?;
        Some(Self(rest.to_vec()))
    }
}

/// The label of an open file or directory, where it has one.
pub fn label(file: impl AsFd) -> Option<Label> {
    label_by(|value| fgetxattr(&file, LABEL, value))
}

fn label_by(get: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) -> Option<Label> {
    let mut value = [0; 4096];
    let length = get(&mut value).ok()?;
    Label::of(LABEL, value.get(..length)?)
}

/// What holds of a whole root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileSystem {
    /// It is mounted read-only.
    pub read_only: bool,
    /// The root is the top of a stacked file system (overlay), as its container sees it.
    pub overlay: bool,
    /// The user that the root's directory belongs to.
    pub uid: u32,
}

/// `OVERLAYFS_SUPER_MAGIC`, statfs(2).
const OVERLAY: u32 = 0x794c_7630;

/// Looks at the file system that a root lies on.
///
/// # Errors
///
/// Those of the system.
pub fn file_system(root: &RootDir) -> io::Result<FileSystem> {
    if let Some(served) = root.served() {
        return Err(served::refused(served));
    }
    let dir = root.open_dir(&RootPath::default())?;
    let stat = stat_fd(dir.as_fd())?;
    let top = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    Ok(FileSystem {
        read_only: fstatvfs(&dir)?.f_flag.contains(StatVfsMountFlags::RDONLY),
        overlay: top && fstatfs(&dir)?.f_type as u32 == OVERLAY,
        uid: stat.stx_uid,
    })
}

/// What a program has in it that asks where it lies itself: the link of `/proc`, and what
/// the drivers of GCC look for beside themselves.
const MARKS: [(&[u8], &str); 2] =
    [(b"/proc/self/exe", "/proc/self/exe"), (b"GCC_EXEC_PREFIX", "GCC_EXEC_PREFIX")];

/// A program is looked through in pieces of this size.
const PIECE: usize = 256 * 1024;

/// What shows that a program finds its files by where it lies itself.
///
/// # Errors
///
/// Those of the system.
pub fn locates_itself(
    root: &RootDir,
    dir: &RootPath,
    name: &[u8],
    runpath: &[Vec<u8>],
) -> io::Result<Option<&'static str>> {
    let origin = |path: &Vec<u8>| {
        [&b"$ORIGIN"[..], b"${ORIGIN}"]
            .iter()
            .any(|word| memchr::memmem::find(path, word).is_some())
    };
    if runpath.iter().any(origin) {
        return Ok(Some("$ORIGIN"));
    }
    let parent = root.open_dir(dir)?;
    let (file, meta) = open_regular(parent.as_fd(), name)?;
    let overlap = MARKS.iter().map(|(mark, _)| mark.len()).max().unwrap_or(0);
    let source = Source::file(file.as_fd(), meta.size.0);
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < meta.size.0 {
        let got = source.read_at(at, &mut buffer)?;
        let piece = &buffer[..got];
        let found = MARKS.iter().find(|(mark, _)| memchr::memmem::find(piece, mark).is_some());
        if let Some((_, mark)) = found {
            return Ok(Some(mark));
        }
        if got < PIECE {
            break;
        }
        at += (PIECE - overlap) as u64;
    }
    Ok(None)
}
