//! The roots of a run, held open: what is changed must still be they.

use std::collections::HashMap;
use std::io;

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
            return Err(rustix::io::Errno::STALE.into());
        }
        Ok(root)
    }

    /// The root, or why there is none.
    pub(crate) fn opened(&self, id: RootId) -> Result<&RootDir, String> {
        let why =
            || self.closed.get(&id).cloned().unwrap_or_else(|| "its root is not there".to_owned());
        self.open.get(&id).ok_or_else(why)
    }

    /// The root, where it could be opened.
    pub fn get(&self, id: RootId) -> Option<&RootDir> {
        self.open.get(&id)
    }
}
