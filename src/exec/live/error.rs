//! Why a directory was not attached, or not taken away.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Why a directory was not attached, or not taken away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// A system call failed.
    #[error("cannot {doing} {path:?}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// On what: on the host, or as the container sees it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else is mounted there.
    #[error("something else is mounted at {path:?}: unmount it, or choose another --mount-point")]
    Occupied {
        /// Where.
        path: PathBuf,
    },
    /// The container's root is the owner of the store's files.
    #[error(
        "the container of process {pid} has a user namespace that maps the host's root, which could make a mount writable that was attached while it runs: restart it instead of using --live"
    )]
    MapsRoot {
        /// A process of the container.
        pid: u32,
    },
    /// The host's own mounts are not a container's.
    #[error(
        "process {pid} has it as its root among the host's own mounts, and what is bound there is bound for the host, too"
    )]
    NotApart {
        /// The process.
        pid: u32,
    },
    /// What is bound over a name went with a directory that was renamed.
    #[error(
        "a directory on the way to {path:?} was renamed in the container: what is bound over goes when that restarts, or when the directory has its name again"
    )]
    Moved {
        /// Where it was.
        path: PathBuf,
    },
    /// Attached by other means, in a user namespace: the kernel does not let it go.
    #[error(
        "the mount at {path:?} cannot be taken from the running container: it goes when that stops"
    )]
    Locked {
        /// Where.
        path: PathBuf,
    },
    /// The mount is there, and can be written to.
    #[error("the mount at {path:?} is not read-only: unmount it, and try again")]
    Writable {
        /// Where.
        path: PathBuf,
    },
}

impl MountError {
    pub(super) fn sys(doing: &'static str, path: &Path) -> impl Fn(Errno) -> Self {
        move |errno| Self::Io { doing, path: path.to_owned(), source: errno.into() }
    }

    pub(super) fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}
