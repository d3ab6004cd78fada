//! Whether there is room, before anything is changed.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use super::error::ExecError;
use super::place::stat_now;
use crate::model::Bytes;

/// What directories and journals may grow by beside what is counted.
const SLACK: u64 = 64 * 1024;

/// What is needed, by file system.
#[derive(Debug, Default)]
pub(crate) struct Space {
    needed: HashMap<(u32, u32), (PathBuf, u64, u64)>,
}

impl Space {
    /// So much will be written to the file system of an open file or directory.
    pub(crate) fn need(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &Path,
        bytes: u64,
    ) -> Result<(), ExecError> {
        let stat = stat_now(fd).map_err(ExecError::io("look at", path))?;
        let key = (stat.stx_dev_major, stat.stx_dev_minor);
        let needed = match self.needed.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let free = rustix::fs::fstatvfs(fd).map_err(ExecError::sys("look at", path))?;
                let free = free.f_bavail.saturating_mul(free.f_frsize);
                entry.insert((path.to_owned(), free, SLACK))
            }
        };
        needed.2 = needed.2.saturating_add(bytes);
        Ok(())
    }

    /// There is room for all of it.
    pub(crate) fn check(self) -> Result<(), ExecError> {
        for (path, free, needed) in self.needed.into_values() {
            if free < needed {
                return Err(ExecError::Space { path, needed: Bytes(needed), free: Bytes(free) });
            }
        }
        Ok(())
    }
}
