//! File systems that a program or another host answers for, and may not: FUSE, NFS and their
//! like. A container's owner may serve one.
//!
//! Who waits for a FUSE server that has taken a question and keeps silent cannot even be killed
//! (`request_wait_answer()` in the kernel's fs/fuse/dev.c): a thread that asks in vain keeps its
//! process from ending. So it is asked nothing: paths are gone along name by name, and what lies
//! on the way is known from the mount table. A program that runs from one is read by another process.
//! The others are asked for a while.

mod table;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{
    CWD, MemfdFlags, Mode, OFlags, ResolveFlags, Statx, memfd_create, openat, openat2,
};
use rustix::io::Errno;

use super::dir::{self, stat_fd};
use super::patience::Patience;

pub use self::table::Table;

/// The mounts that this process sees.
pub(super) const OWN: &str = "/proc/self/mountinfo";
/// How long a file system may keep silent.
const LIMIT: Duration = Duration::from_secs(2);

/// Who answers for a file system, where it is not the kernel alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// A program, by fuse(4).
    Fuse,
    /// Another host, or an automounter.
    Network,
}

impl Served {
    /// By the name of the type.
    pub(super) fn by(fs_type: &[u8]) -> Option<Self> {
        const NETWORK: [&[u8]; 5] = [b"autofs", b"nfs", b"cifs", b"smb3", b"9p"];
        match fs_type {
            // The kernel's own, to control the others.
            b"fusectl" => None,
            name if name.starts_with(b"fuse") => Some(Self::Fuse),
            name => NETWORK.iter().any(|it| name.starts_with(it)).then_some(Self::Network),
        }
    }

    /// Why it is left alone.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Fuse => "a FUSE server answers for its file system, and might never do so",
            Self::Network => {
                "its file system is an automounter's, or another host's that may be gone"
            }
        }
    }
}

/// An error that says so.
pub fn refused(served: Served) -> io::Error {
    io::Error::other(served.explanation())
}

/// What `work` answers in time.
///
/// # Errors
///
/// Its own; `TimedOut`.
pub(super) fn in_time<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let silent = || io::Error::new(io::ErrorKind::TimedOut, "its file system does not answer");
    Patience::new(LIMIT).ask(|_| work()).unwrap_or_else(|| Err(silent()))
}

/// What was opened (`O_PATH`).
#[derive(Debug)]
pub struct Opened {
    /// It.
    pub fd: OwnedFd,
    /// What it is.
    pub stat: Statx,
    /// Who answers for it.
    pub served: Option<Served>,
}

/// Opens a directory of the host; a link at the end of the path is not followed.
///
/// # Errors
///
/// Those of openat(2); [`refused`] where a FUSE server would be asked for the way.
pub(super) fn open_path(path: &Path) -> io::Result<Opened> {
    let absolute = std::path::absolute(path)?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = opened(openat(CWD, "/", directory, Mode::empty())?, Table::own())?;
    let mut names = absolute.components().skip(1).peekable();
    while let Some(name) = names.next() {
        let last = if names.peek().is_none() { OFlags::NOFOLLOW } else { OFlags::empty() };
        let fd = enter(here, name.as_os_str(), directory | last)?;
        here = opened(fd, Table::own())?;
    }
    Ok(here)
}

fn opened(fd: OwnedFd, table: &Table) -> io::Result<Opened> {
    let stat = stat_fd(fd.as_fd())?;
    let served = table.served(fd.as_fd(), &stat);
    Ok(Opened { fd, stat, served })
}

fn enter(here: Opened, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let open = move |dir: &OwnedFd, name: &OsStr| Ok(openat(dir, name, flags, Mode::empty())?);
    match here.served {
        None => open(&here.fd, name),
        Some(Served::Fuse) => Err(refused(Served::Fuse)),
        Some(Served::Network) => {
            let name = name.to_owned();
            in_time(move || open(&here.fd, &name))
        }
    }
}

/// Opens what is at a path below a directory (`O_PATH`): no link is followed, mounts are crossed,
/// and what others answer for is not asked.
///
/// # Errors
///
/// Those of openat2(2); [`refused`].
pub(crate) fn open_below(top: BorrowedFd<'_>, path: &Path, table: &Table) -> io::Result<Opened> {
    let mut here = Opened {
        stat: stat_fd(top)?,
        fd: top.try_clone_to_owned()?,
        // That was seen to before.
        served: None,
    };
    for name in path.components() {
        if let Some(served) = here.served {
            return Err(refused(served));
        }
        let fd = step(&here.fd, name.as_os_str())?;
        let stat = stat_fd(fd.as_fd())?;
        let crossed = stat.stx_mnt_id != here.stat.stx_mnt_id;
        let served = if crossed { table.served(fd.as_fd(), &stat) } else { None };
        here = Opened { fd, stat, served };
    }
    Ok(here)
}

fn step(dir: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..dir::TRIES {
        match openat2(dir, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// What is kept of a file in memory. No program is larger, but a server may send without end.
const LARGEST: u64 = 256 << 20;

/// A copy in memory of what an `O_PATH` descriptor holds: read by another process, which this one
/// does not wait for when it exits.
///
/// # Errors
///
/// When it cannot be read whole; `EFBIG` when it is larger than 256 MiB.
#[expect(clippy::disallowed_methods, reason = "the host's own cat(1), which may wait for ever")]
pub(super) fn copy(held: &OwnedFd, mut tick: impl FnMut()) -> io::Result<File> {
    const CHUNK: u64 = 256 * 1024;
    let place = format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd());
    let mut reader = Command::new("cat");
    reader.arg(place).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut reader = reader.spawn()?;
    let Some(mut from) = reader.stdout.take() else { return Err(Errno::PIPE.into()) };
    let mut to = File::from(memfd_create(c"cbin-audit", MemfdFlags::CLOEXEC)?);
    let mut copied = 0;
    loop {
        match io::copy(&mut from.by_ref().take(CHUNK), &mut to)? {
            0 => break,
            more => copied += more,
        }
        if copied > LARGEST {
            // It is stopped by the end of its pipe, as soon as its read comes back.
            return Err(Errno::FBIG.into());
        }
        tick();
    }
    match reader.wait()?.success() {
        true => {
            to.rewind()?;
            Ok(to)
        }
        false => Err(Errno::IO.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_is_told_by_the_type() {
        let table: [(&str, Option<Served>); 9] = [
            ("ext4", None),
            ("overlay", None),
            ("fusectl", None),
            // The hypervisor's.
            ("virtiofs", None),
            ("fuse", Some(Served::Fuse)),
            ("fuseblk", Some(Served::Fuse)),
            ("fuse.fuse-overlayfs", Some(Served::Fuse)),
            ("nfs4", Some(Served::Network)),
            ("autofs", Some(Served::Network)),
        ];
        for (name, expected) in table {
            assert_eq!(Served::by(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn what_is_sent_without_end_is_not_kept() {
        let zero = openat(CWD, "/dev/zero", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let error = copy(&zero.expect("/dev/zero"), || {}).expect_err("it has no end");
        assert_eq!(error.raw_os_error(), Some(Errno::FBIG.raw_os_error()));
    }

    #[test]
    fn what_the_kernel_answers_for_is_opened() {
        for path in ["/", "/proc", "/dev/shm"] {
            assert_eq!(open_path(Path::new(path)).expect(path).served, None, "{path}");
        }
        assert!(open_path(Path::new("/no/such")).is_err());
    }
}
