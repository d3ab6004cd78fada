//! One changing system call, as it stands before it happens.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::filter::Notification;

/// What kind of change a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A file is made or cut by opening it.
    Open,
    /// Bytes, or the size.
    Write,
    /// `fsync`, `fdatasync` and what flushes more.
    Flush,
    /// A hard link.
    Link,
    Symlink,
    Unlink,
    /// `rename` that replaces.
    Rename,
    /// `RENAME_EXCHANGE`.
    Exchange,
    MakeDirectory,
    /// Owner, mode, times, attributes, flags.
    Metadata,
    /// Extents are shared.
    Clone,
    Mount,
}

/// A call that waits for its answer.
#[derive(Debug, Clone)]
pub struct Call {
    /// How many came before it in this run.
    pub index: usize,
    pub kind: Kind,
    /// Who makes it.
    pub pid: u32,
    /// What is changed: for a rename the name that is moved.
    pub path: PathBuf,
    /// For a rename or a link: the name that is given.
    pub other: Option<PathBuf>,
}

impl Call {
    /// It changes what no file system has (memfd_create(2)). What runs on the host from a FUSE mount is
    /// read into such a file, whosever it is: another test's, say.
    pub fn is_in_memory(&self) -> bool {
        self.path.as_os_str().as_bytes().starts_with(b"/memfd:")
    }

    pub fn new(index: usize, seen: &Notification) -> Self {
        let of = Caller { pid: seen.pid };
        let a = seen.arguments;
        let at = |directory: usize, name: usize| of.at(a[directory], a[name]);
        let here = |name: usize| of.at(libc::AT_FDCWD as u64, a[name]);
        let (kind, path, other) = match i64::from(seen.number) {
            libc::SYS_openat => (Kind::Open, at(0, 1), None),
            libc::SYS_linkat => (Kind::Link, at(0, 1), Some(at(2, 3))),
            libc::SYS_symlinkat => (Kind::Symlink, at(1, 2), None),
            libc::SYS_unlinkat => (Kind::Unlink, at(0, 1), None),
            libc::SYS_renameat2 => {
                let exchange = a[4] & u64::from(libc::RENAME_EXCHANGE) != 0;
                let kind = if exchange { Kind::Exchange } else { Kind::Rename };
                (kind, at(0, 1), Some(at(2, 3)))
            }
            libc::SYS_renameat => (Kind::Rename, at(0, 1), Some(at(2, 3))),
            libc::SYS_mkdirat | libc::SYS_mknodat => (Kind::MakeDirectory, at(0, 1), None),
            libc::SYS_fchmodat | libc::SYS_fchmodat2 => (Kind::Metadata, at(0, 1), None),
            libc::SYS_fchownat | libc::SYS_utimensat => (Kind::Metadata, at(0, 1), None),
            libc::SYS_setxattr | libc::SYS_lsetxattr => (Kind::Metadata, here(0), None),
            libc::SYS_removexattr | libc::SYS_lremovexattr => (Kind::Metadata, here(0), None),
            libc::SYS_truncate => (Kind::Write, here(0), None),
            libc::SYS_mount => (Kind::Mount, here(1), None),
            libc::SYS_umount2 => (Kind::Mount, here(0), None),
            libc::SYS_move_mount => (Kind::Mount, at(2, 3), None),
            libc::SYS_mount_setattr => (Kind::Mount, at(0, 1), None),
            libc::SYS_copy_file_range | libc::SYS_splice => (Kind::Write, of.open(a[2]), None),
            number => {
                by_path(number, &here).unwrap_or_else(|| (by_file(number), of.open(a[0]), None))
            }
        };
        Self { index, kind, pid: seen.pid, path, other }
    }

    /// Whether what is changed lies below `directory`.
    pub fn is_below(&self, directory: &Path) -> bool {
        self.path.starts_with(directory)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {:?} {}", self.index, self.kind, self.path.display())?;
        self.other.as_ref().map_or(Ok(()), |other| write!(f, " -> {}", other.display()))
    }
}

/// The calls of old that take paths alone.
#[cfg(target_arch = "x86_64")]
fn by_path(
    number: i64,
    here: &dyn Fn(usize) -> PathBuf,
) -> Option<(Kind, PathBuf, Option<PathBuf>)> {
    Some(match number {
        libc::SYS_open | libc::SYS_creat => (Kind::Open, here(0), None),
        libc::SYS_link => (Kind::Link, here(0), Some(here(1))),
        libc::SYS_symlink => (Kind::Symlink, here(1), None),
        libc::SYS_unlink | libc::SYS_rmdir => (Kind::Unlink, here(0), None),
        libc::SYS_rename => (Kind::Rename, here(0), Some(here(1))),
        libc::SYS_mkdir | libc::SYS_mknod => (Kind::MakeDirectory, here(0), None),
        libc::SYS_chmod
        | libc::SYS_chown
        | libc::SYS_lchown
        | libc::SYS_utime
        | libc::SYS_utimes => (Kind::Metadata, here(0), None),
        _ => return None,
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn by_path(_: i64, _: &dyn Fn(usize) -> PathBuf) -> Option<(Kind, PathBuf, Option<PathBuf>)> {
    None
}

/// The calls whose first argument is the open file that they change.
fn by_file(number: i64) -> Kind {
    match number {
        libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_syncfs
        | libc::SYS_sync
        | libc::SYS_sync_file_range => Kind::Flush,
        libc::SYS_fchmod | libc::SYS_fchown | libc::SYS_fsetxattr | libc::SYS_fremovexattr => {
            Kind::Metadata
        }
        libc::SYS_ioctl => Kind::Clone,
        _ => Kind::Write,
    }
}

/// The process that calls, through its `/proc` directory. It stands still.
struct Caller {
    pid: u32,
}

impl Caller {
    fn open(&self, descriptor: u64) -> PathBuf {
        let name = format!("/proc/{}/fd/{}", self.pid, descriptor as i32);
        std::fs::read_link(name).unwrap_or_default()
    }

    fn at(&self, directory: u64, name: u64) -> PathBuf {
        let name = self.string(name);
        if name.is_absolute() {
            return name;
        }
        let directory = if directory as i32 == libc::AT_FDCWD {
            std::fs::read_link(format!("/proc/{}/cwd", self.pid)).unwrap_or_default()
        } else {
            self.open(directory)
        };
        // An empty name is the open file itself.
        if name.as_os_str().is_empty() { directory } else { directory.join(name) }
    }

    /// The C string at an address, up to the end of its page or the next.
    fn string(&self, address: u64) -> PathBuf {
        const PAGE: u64 = 4096;
        let Ok(memory) = File::open(format!("/proc/{}/mem", self.pid)) else {
            return PathBuf::new();
        };
        let mut bytes = Vec::new();
        let mut at = address;
        while at != 0 && bytes.len() < 2 * PAGE as usize {
            let mut piece = vec![0; (PAGE - at % PAGE) as usize];
            let Ok(length) = memory.read_at(&mut piece, at) else { break };
            let end = piece[..length].iter().position(|byte| *byte == 0);
            bytes.extend(&piece[..end.unwrap_or(length)]);
            if end.is_some() || length == 0 {
                break;
            }
            at += length as u64;
        }
        PathBuf::from(OsStr::from_bytes(&bytes))
    }
}
