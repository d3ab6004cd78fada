//! Why nothing, or not everything, was done.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::model::{Bytes, RunId};

/// Why a command that changes something ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// Two at once would undo each other's work.
    #[error("another cbin-audit holds the lock {0:?}")]
    Locked(PathBuf),
    /// An operation on a file failed.
    #[error("cannot {doing} {path:?}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than root could change what is trusted.
    #[error("{path:?} cannot be trusted: {why}")]
    Untrusted {
        /// A directory on the way to the store or the journal.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// Links into the store would lead nowhere for some.
    #[error("the users of containers cannot reach the store {0:?}: `chmod 755` allows it")]
    Closed(PathBuf),
    /// A line of the journal is not what was written.
    #[error(
        "the journal {path:?} is damaged in line {line}: {why}. Nothing was changed and nothing is deleted; the run's entries can be seen with `cbin-audit verify`"
    )]
    JournalDamaged {
        /// The run's file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// How.
        why: String,
    },
    /// A newer cbin-audit wrote it.
    #[error("the journal {path:?} is of version {version}: this cbin-audit reads up to {known}")]
    JournalNewer {
        /// The run's file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest that is known.
        known: u32,
    },
    /// The journal can no longer be relied on; what is on disk still can.
    #[error(
        "the journal {path:?} could not be written before, so nothing more is done; `cbin-audit recover` looks at what was begun"
    )]
    JournalPoisoned {
        /// The run's file.
        path: PathBuf,
    },
    /// An object is not what its name says.
    #[error("the object {path:?} is damaged: {why}")]
    ObjectDamaged {
        /// The object.
        path: PathBuf,
        /// How.
        why: String,
    },
    /// An image of the store could not be made, mounted, or is not what it should be.
    #[error("{path:?}: {why}")]
    Image {
        /// The image, or the program that was run.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A file system would be full.
    #[error(
        "not enough space on the file system of {path:?}: {needed} bytes are needed and {free} are free",
        needed = needed.0, free = free.0
    )]
    Space {
        /// Something on that file system.
        path: PathBuf,
        /// How much is needed.
        needed: Bytes,
        /// How much there is.
        free: Bytes,
    },
    /// A file system would have no inode left.
    #[error(
        "not enough inodes on the file system of {path:?}: {needed} are needed and {free} are free"
    )]
    Inodes {
        /// Something on that file system.
        path: PathBuf,
        /// How many are needed at once.
        needed: u64,
        /// How many there are.
        free: u64,
    },
    /// Asked to stop, or the journal could not be written.
    #[error("stopped half way through run {run}")]
    Stopped {
        /// The run.
        run: RunId,
    },
    /// The run's number is in no journal.
    #[error("there is no run {run} in {journal:?}")]
    NoRun {
        /// The number.
        run: RunId,
        /// The journal's directory.
        journal: PathBuf,
    },
    /// The newest run was asked for, and there is none that stands.
    #[error("no run in {0:?} has anything to be undone")]
    NothingToUndo(PathBuf),
    /// The plan makes hard links, and does not say whose roots trust each other.
    #[error(
        "a hard link lets each root change what the others run, and the plan names no trust domain: nothing was changed. \
         Make the plan anew with --trust-domain NAME"
    )]
    NoDomain,
    /// What shares the store would not be safe from each other.
    #[error("{root:?} may not run from the store: {why}. Nothing was changed: make the plan anew")]
    Trust {
        /// A root of the plan.
        root: PathBuf,
        /// Why not, and what would change it.
        why: String,
    },
    /// A run that shared blocks.
    #[error("run {0} made files share their blocks: no entry was changed, so nothing is put back")]
    NothingChanged(RunId),
    /// The run has nothing to do with that root.
    #[error("run {run} changed nothing in {root:?}")]
    NoSuchRoot {
        /// The run.
        run: RunId,
        /// The root.
        root: PathBuf,
    },
}

impl ExecError {
    /// For `map_err`: what was tried, and on what.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    /// The same for the errors of system calls.
    pub(crate) fn sys(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        let io = Self::io(doing, path);
        move |errno| io(errno.into())
    }
}

/// An error with its causes.
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        let words = error.to_string();
        text.push_str(words.split(" (os error").next().unwrap_or_default());
        cause = error.source();
    }
    text
}
