//! The roots of a run, held open: what is changed must still be they.

use std::collections::HashMap;
use std::io;

use crate::model::{HostPath, RootId};
use crate::scan::dir::RootDir;

/// Roots by their number.
#[derive(Debug, Default)]
pub struct Roots {
    open: HashMap<RootId, RootDir>,
}

impl Roots {
    /// Opens one more.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or another directory has taken its place: `ESTALE`.
    pub fn open(&mut self, id: RootId, path: &HostPath, ino: u64) -> io::Result<()> {
        let root = RootDir::open(path)?;
        if root.inode().ino != ino {
            return Err(rustix::io::Errno::STALE.into());
        }
        self.open.insert(id, root);
        Ok(())
    }

    /// The root, where it could be opened.
    pub fn get(&self, id: RootId) -> Option<&RootDir> {
        self.open.get(&id)
    }
}
