//! The roots of a run, held open: what is changed must still be they.

use std::collections::{HashMap, HashSet};
use std::io;

use rustix::io::Errno;

use super::cause::explain;
use crate::model::{HostPath, RootId};
use crate::scan::dir::RootDir;
use crate::scan::served;

/// Roots by their number.
#[derive(Debug, Default)]
pub struct Roots {
    open: HashMap<RootId, RootDir>,
    /// Why the others could not be opened.
    closed: HashMap<RootId, String>,
    /// Those that are not there, or are others by now.
    gone: HashSet<RootId>,
}

impl Roots {
    /// Opens one more.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or another directory has taken its place: `ESTALE`. What lies
    /// on a file system that may never answer is not waited for.
    pub fn open(&mut self, id: RootId, path: &HostPath, ino: u64) -> io::Result<()> {
        let opened = Self::try_open(path, ino);
        let opened = opened.inspect_err(|error| {
            self.closed.insert(id, explain("open its root", error));
            if is_gone(error) {
                self.gone.insert(id);
            }
        });
        self.open.insert(id, opened?);
        Ok(())
    }

    fn try_open(path: &HostPath, ino: u64) -> io::Result<RootDir> {
        let root = RootDir::open(path)?;
        if let Some(served) = root.served() {
            return Err(served::refused(served));
        }
        if root.inode().ino != ino {
            return Err(Errno::STALE.into());
        }
        Ok(root)
    }

    /// The root, or why there is none.
    pub(crate) fn opened(&self, id: RootId) -> Result<&RootDir, String> {
        let why =
            || self.closed.get(&id).cloned().unwrap_or_else(|| "its root is not there".to_owned());
        self.open.get(&id).ok_or_else(why)
    }

    /// It is not there any more: nothing runs from it.
    pub(crate) fn is_gone(&self, id: RootId) -> bool {
        self.gone.contains(&id)
    }

    /// The root, where it could be opened.
    pub fn get(&self, id: RootId) -> Option<&RootDir> {
        self.open.get(&id)
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::STALE))
}
