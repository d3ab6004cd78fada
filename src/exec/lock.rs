//! One at a time: flock(2) on the journal's directory, and on the store's.
//!
//! Two commands that share either of them would undo each other's work. The locks end
//! with the process, however it ends.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::ExecError;
use super::prefix;

/// The journal's directory, for one command alone.
#[derive(Debug)]
pub(crate) struct Lock {
    /// The directory, without links.
    pub(crate) journal: PathBuf,
    held: Vec<File>,
}

impl Lock {
    /// Takes the journal's; the directory is made where it is missing.
    pub(crate) fn take(journal: &Path) -> Result<Self, ExecError> {
        let (journal, dir) = prefix::make(journal, 0o700)?;
        let mut lock = Self { journal: journal.clone(), held: Vec::new() };
        lock.hold(&journal, dir)?;
        Ok(lock)
    }

    /// Takes a store's, too.
    pub(crate) fn also(&mut self, path: &Path, dir: &File) -> Result<(), ExecError> {
        let dir = dir.try_clone().map_err(ExecError::io("lock", path))?;
        self.hold(path, dir)
    }

    fn hold(&mut self, path: &Path, dir: File) -> Result<(), ExecError> {
        match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => self.held.push(dir),
            Err(Errno::WOULDBLOCK) => return Err(ExecError::Locked(path.to_owned())),
            Err(error) => return Err(ExecError::sys("lock", path)(error)),
        }
        Ok(())
    }
}

impl Drop for Lock {
    /// A program that is being started holds copies of every descriptor until it is executed:
    /// closing this one would leave the lock to it.
    fn drop(&mut self) {
        for dir in &self.held {
            // Where it fails, the lock ends with the process.
            let _ends = flock(dir, FlockOperation::Unlock);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        assert!(matches!(Lock::take(dir.path()), Err(ExecError::Locked(_))));
        drop(first);
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_copy_of_its_descriptor_keeps_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let copy: Vec<File> = first.held.iter().map(|held| held.try_clone().unwrap()).collect();
        drop(first);
        Lock::take(dir.path()).unwrap();
        drop(copy);
    }
}
