//! Whether there is room, before anything is changed.

pub(crate) mod takes;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use super::batch;
use super::error::ExecError;
use super::place::stat_now;
use crate::model::Bytes;

/// What directories may grow by beside what is counted.
const SLACK: u64 = 64 * 1024;

/// What is needed, by file system.
#[derive(Debug, Default)]
pub(crate) struct Space {
    needed: HashMap<(u32, u32), Needed>,
}

/// What is needed of one file system, and what it has.
#[derive(Debug)]
struct Needed {
    path: PathBuf,
    bytes: u64,
    free_bytes: u64,
    /// Each takes the place of an old one, which goes with its batch.
    inodes: u64,
    /// Those that come in addition.
    more: u64,
    /// `None`: it makes them as they are needed (btrfs).
    free_inodes: Option<u64>,
}

/// Of so many that take the place of old ones, how many are there beside those.
pub(crate) fn at_once(entries: u64) -> u64 {
    entries.min(batch::under_way() as u64)
}

impl Needed {
    fn of(fd: BorrowedFd<'_>, path: &Path) -> Result<Self, ExecError> {
        let free = rustix::fs::fstatvfs(fd).map_err(ExecError::sys("look at", path))?;
        Ok(Self {
            path: path.to_owned(),
            bytes: SLACK,
            free_bytes: free.f_bavail.saturating_mul(free.f_frsize),
            inodes: 0,
            more: 0,
            free_inodes: (free.f_files != 0).then_some(free.f_favail),
        })
    }

    fn check(self) -> Result<(), ExecError> {
        let Self { path, bytes, free_bytes, inodes, more, free_inodes } = self;
        if free_bytes < bytes {
            return Err(ExecError::Space { path, needed: Bytes(bytes), free: Bytes(free_bytes) });
        }
        let needed = at_once(inodes).saturating_add(more);
        match free_inodes.filter(|free| *free < needed) {
            Some(free) => Err(ExecError::Inodes { path, needed, free }),
            None => Ok(()),
        }
    }
}

impl Space {
    /// So many bytes and inodes will be new on the file system of an open file or directory.
    pub(crate) fn need(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &Path,
        (bytes, inodes): (u64, u64),
    ) -> Result<(), ExecError> {
        let needed = self.of(fd, path)?;
        needed.bytes = needed.bytes.saturating_add(bytes);
        needed.inodes = needed.inodes.saturating_add(inodes);
        Ok(())
    }

    /// The same with inodes that take no old one's place.
    pub(crate) fn need_more(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &Path,
        (bytes, inodes): (u64, u64),
    ) -> Result<(), ExecError> {
        let needed = self.of(fd, path)?;
        needed.bytes = needed.bytes.saturating_add(bytes);
        needed.more = needed.more.saturating_add(inodes);
        Ok(())
    }

    /// The same in a directory of the host's, which is made where it is missing.
    pub(crate) fn need_in(
        &mut self,
        dir: &Path,
        (bytes, inodes): (u64, u64),
    ) -> Result<(), ExecError> {
        let there = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
        let missing = dir.components().count().saturating_sub(there.components().count()) as u64;
        let fd = File::open(there).map_err(ExecError::io("open", there))?;
        let bytes = bytes.saturating_add(missing.saturating_mul(takes::DIRECTORY));
        self.need_more(fd.as_fd(), there, (bytes, inodes.saturating_add(missing)))
    }

    /// A file of the host's is written beside what it replaces.
    pub(crate) fn need_file(&mut self, file: &Path, size: usize) -> Result<(), ExecError> {
        let dir = file.parent().unwrap_or(Path::new("/"));
        self.need_in(dir, (takes::whole_blocks(size as u64), 1))
    }

    fn of(&mut self, fd: BorrowedFd<'_>, path: &Path) -> Result<&mut Needed, ExecError> {
        let stat = stat_now(fd).map_err(ExecError::io("look at", path))?;
        match self.needed.entry((stat.stx_dev_major, stat.stx_dev_minor)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(Needed::of(fd, path)?)),
        }
    }

    /// There is room for all of it.
    pub(crate) fn check(self) -> Result<(), ExecError> {
        self.needed.into_values().try_for_each(Needed::check)
    }
}
