//! A directory held open, and what may be asked of it without being led away.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Statx};
use rustix::io::Errno;

use crate::model::InodeId;
use crate::scan::dir;

/// `openat2(2)` fails with EAGAIN while something below is being renamed.
const TRIES: usize = 64;

/// A directory, open as `O_PATH`. Whatever is asked of it by name is looked up
/// below it, without following a link: `openat2(2)`.
#[derive(Debug)]
pub(super) struct Place {
    fd: OwnedFd,
    path: PathBuf,
}

impl Place {
    /// Takes over a directory that has been opened, and the path it was found by.
    pub(super) fn new(fd: OwnedFd, path: PathBuf) -> Self {
        Self { fd, path }
    }

    /// Opens a directory by a path whose last component is not followed.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        Ok(Self::new(fd, path.to_owned()))
    }

    /// The path it was found by.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The last component of the path.
    pub(super) fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// The directory `below` it, crossing mounts but no link.
    pub(super) fn dir(&self, below: impl AsRef<Path>) -> io::Result<Self> {
        // Not O_DIRECTORY: that would have an automounter mount what is only looked at.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.openat2(below.as_ref(), flags, ResolveFlags::empty())?;
        match stat(&fd)? {
            stat if is_dir(&stat) => Ok(Self::new(fd, self.path.join(below))),
            stat if is_link(&stat) => Err(Errno::LOOP.into()),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    /// Its names in byte order.
    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let readable = rustix::fs::openat(&self.fd, ".", flags, Mode::empty())?;
        for entry in rustix::fs::Dir::new(readable)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// What `below` is, on this mount, without following it. DONT_SYNC: a server that
    /// does not answer is not waited for.
    pub(super) fn stat(&self, below: &str) -> io::Result<Statx> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.openat2(Path::new(below), flags, ResolveFlags::NO_XDEV)?;
        stat(&fd)
    }

    /// The content of the regular file `below`, at most `limit` bytes of it.
    pub(super) fn read(&self, below: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
        // O_NONBLOCK: a FIFO of that name must not hold the run up.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = below.as_ref();
        let about = self.openat2(path, OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::empty())?;
        if !dir::file_type(&stat(&about)?).is_file() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let fd = self.openat2(path, flags, ResolveFlags::empty())?;
        let mut bytes = Vec::new();
        std::fs::File::from(fd).take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The inode.
    pub(super) fn inode(&self) -> io::Result<InodeId> {
        stat(&self.fd).map(|stat| dir::inode_id(&stat))
    }

    /// Nobody but root and the caller may change what is in it.
    pub(super) fn is_trusted(&self) -> bool {
        stat(&self.fd).is_ok_and(|stat| trusted_owner(&stat) && stat.stx_mode & 0o002 == 0)
    }

    fn openat2(&self, below: &Path, flags: OFlags, more: ResolveFlags) -> io::Result<OwnedFd> {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | more;
        for _ in 0..TRIES {
            match rustix::fs::openat2(&self.fd, below, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
        Err(Errno::AGAIN.into())
    }
}

/// `statx(2)` of an open descriptor.
pub(super) fn stat(fd: impl AsFd) -> io::Result<Statx> {
    dir::stat_fd(fd.as_fd())
}

pub(super) fn is_dir(stat: &Statx) -> bool {
    dir::file_type(stat).is_dir()
}

pub(super) fn is_link(stat: &Statx) -> bool {
    dir::file_type(stat).is_symlink()
}

/// Root, or who runs this.
pub(super) fn trusted_owner(stat: &Statx) -> bool {
    stat.stx_uid == 0 || stat.stx_uid == rustix::process::geteuid().as_raw()
}
