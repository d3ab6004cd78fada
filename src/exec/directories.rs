//! The times of directories whose entries a run changes: undo gives them back, where nobody else
//! changed the directory meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use super::journal::Run;
use super::link;
use super::place::stat_now;
use super::roots::Roots;
use crate::model::{JournalDirectory, RootId, RootPath};

/// Directories of a run, and the `st_mtime` of each before its first change.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    before: BTreeMap<(RootId, RootPath), i64>,
}

impl Directories {
    /// Something in this directory is about to be changed. One that cannot be opened is none that
    /// is changed.
    pub(crate) fn see(&mut self, roots: &Roots, root: RootId, path: RootPath) {
        let key = (root, path);
        if !self.before.contains_key(&key)
            && let Ok((_, mtime)) = open(roots, root, &key.1)
        {
            self.before.insert(key, mtime);
        }
    }

    /// Those that have another time now.
    pub(crate) fn changed(self, roots: &Roots) -> Vec<JournalDirectory> {
        let seen = self.before.into_iter();
        seen.filter_map(|((root, path), before)| {
            let (_, after) = open(roots, root, &path).ok()?;
            (after != before).then_some(JournalDirectory { root, path, before, after })
        })
        .collect()
    }
}

/// Those of a run, or of one of its roots, that nobody else has changed since.
pub(crate) fn untouched<'a>(
    run: &'a Run,
    roots: &Roots,
    only: Option<RootId>,
) -> Vec<&'a JournalDirectory> {
    let wanted = |dir: &&JournalDirectory| only.is_none_or(|only| only == dir.root);
    let is_as_left = |dir: &&JournalDirectory| {
        open(roots, dir.root, &dir.path).is_ok_and(|(_, mtime)| mtime == dir.after)
    };
    run.directories.iter().filter(wanted).filter(is_as_left).collect()
}

/// Gives one the time that it had. It is not flushed: nothing depends on it.
pub(crate) fn restore(roots: &Roots, dir: &JournalDirectory) -> io::Result<()> {
    let (fd, _) = open(roots, dir.root, &dir.path)?;
    link::set_times(fd.as_fd(), None, dir.before)
}

fn open(roots: &Roots, root: RootId, path: &RootPath) -> io::Result<(OwnedFd, i64)> {
    let root = roots.get(root).ok_or(rustix::io::Errno::STALE)?;
    let fd = root.open_dir(path)?;
    let mtime = stat_now(fd.as_fd())?.stx_mtime;
    Ok((fd, mtime.tv_sec.saturating_mul(1_000_000_000).saturating_add(mtime.tv_nsec.into())))
}
