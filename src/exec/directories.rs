//! The times of directories whose entries a run changes: undo gives them back, where nobody else
//! changed the directory meanwhile.
//!
//! What a directory was is noted before its first change, and its time once more after the last.
//! A run that was cut off has no second note; then the directory itself tells: it has the names
//! that it had, but for those that the run makes, and none of them has changed since.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Dir, FileType, Statx, StatxTimestamp};

use super::journal::Run;
use super::link;
use super::place::stat_now;
use super::recover::CUT_OFF;
use super::roots::Roots;
use crate::model::{Before, DirectoryNames, JournalDirectory, Outcome, RootId, RootPath};
use crate::scan::dir::{RootDir, file_type, stat_name};

/// Directories of a run before its first change.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    before: BTreeMap<(RootId, RootPath), JournalDirectory>,
}

impl Directories {
    /// Something in this directory is about to be changed. One that cannot be read is none that
    /// is changed. `now` is the time by the clock of file systems.
    pub(crate) fn see(&mut self, roots: &Roots, (root, path): (RootId, RootPath), now: i64) {
        let key = (root, path);
        if !self.before.contains_key(&key)
            && let Ok((fd, before)) = open(roots, root, &key.1)
            && let Ok(names) = names(&fd)
        {
            let listed = Some(DirectoryNames { names: names.len() as u64, time: now });
            let path = key.1.clone();
            let dir = JournalDirectory { root, path, before, after: before, listed };
            self.before.insert(key, dir);
        }
    }

    /// All of them.
    pub(crate) fn noted(&self) -> Vec<JournalDirectory> {
        self.before.values().cloned().collect()
    }

    /// Those that have another time now.
    pub(crate) fn changed(self, roots: &Roots) -> Vec<JournalDirectory> {
        self.before.into_values().filter_map(|dir| with_time_of_now(&dir, roots)).collect()
    }
}

fn with_time_of_now(dir: &JournalDirectory, roots: &Roots) -> Option<JournalDirectory> {
    let (_, after) = open(roots, dir.root, &dir.path).ok()?;
    (after != dir.after).then(|| JournalDirectory { after, ..dir.clone() })
}

/// Those of a run, or of one of its roots, that nobody else has changed since it ended.
pub(crate) fn untouched<'a>(
    run: &'a Run,
    roots: &Roots,
    only: Option<RootId>,
) -> Vec<&'a JournalDirectory> {
    let wanted = |dir: &&JournalDirectory| only.is_none_or(|only| only == dir.root);
    let is_as_left = |dir: &&JournalDirectory| {
        open(roots, dir.root, &dir.path).is_ok_and(|(_, mtime)| mtime == dir.after)
    };
    run.directories.values().filter(wanted).filter(is_as_left).collect()
}

/// Gives the directories of a run that was cut off the time that they had, where nothing of it
/// stands; the others are noted with the time that they have now, for the undo that may follow.
pub(crate) fn settle(run: &Run, roots: &Roots) -> Vec<JournalDirectory> {
    let (mut noted, none, left) = (Vec::new(), Left::default(), left(run, roots));
    let twins = run.entries.values().filter_map(|entry| entry.intent.twin.as_ref());
    let twins: HashSet<u64> = twins.map(|twin| twin.ino).collect();
    for (key, dir) in &run.directories {
        let left = left.get(key).unwrap_or(&none);
        if left.kept || !is_as_listed(dir, (left, &twins), roots) {
            continue;
        }
        match left.stands {
            true => noted.extend(with_time_of_now(dir, roots)),
            // Where it fails the directory has a newer time, and no more.
            false => drop(restore(roots, dir)),
        }
    }
    noted
}

/// What a run left in a directory.
#[derive(Debug, Default)]
struct Left<'a> {
    /// Something of the run stands.
    stands: bool,
    /// Somebody else's was found, and kept.
    kept: bool,
    /// Names that the run made, or may have made.
    ours: HashSet<&'a [u8]>,
    /// Names that were there before, whose inodes the run changed.
    changed: HashSet<&'a [u8]>,
}

/// What a run left, by directory.
fn left<'a>(run: &'a Run, roots: &Roots) -> HashMap<(RootId, RootPath), Left<'a>> {
    let mut all: HashMap<_, Left<'_>> = HashMap::new();
    for entry in run.entries.values() {
        let intent = &entry.intent;
        let left = all.entry((intent.root, intent.path.parent())).or_default();
        left.ours.insert(&intent.temporary);
        match intent.before {
            Before::Absent => left.ours.insert(intent.path.file_name()),
            _ => left.changed.insert(intent.path.file_name()),
        };
        match entry.outcome {
            Some(Outcome::Done) => left.stands = true,
            Some(Outcome::Undone) => {}
            Some(Outcome::RolledBack) if entry.cause.as_deref() == Some(CUT_OFF) => {}
            _ => left.kept = true,
        }
    }
    for attach in run.attaches.iter().filter(|attach| attach.made) {
        let left = all.entry((attach.root, attach.path.parent())).or_default();
        left.ours.insert(attach.path.file_name());
        // A mount point that is still there: undo takes it away, and gives the time back then.
        let root = roots.get(attach.root);
        // One that is mounted on cannot be opened, and is there nevertheless.
        let is_there = |root: &RootDir| match root.open_dir(&attach.path) {
            Err(error) => error.kind() != io::ErrorKind::NotFound,
            Ok(_) => true,
        };
        left.stands |= root.is_some_and(is_there);
    }
    all
}

/// Nobody else has changed it since it was noted. A name that came, or took the place of another,
/// has a later time of change; one that went is missing. A file that the run gave names has a later
/// one, too, whatever directories it has names in.
fn is_as_listed(
    dir: &JournalDirectory,
    (left, twins): (&Left<'_>, &HashSet<u64>),
    roots: &Roots,
) -> bool {
    let Some(listed) = &dir.listed else { return false };
    let looked = || -> io::Result<bool> {
        let (fd, _) = open(roots, dir.root, &dir.path)?;
        let mut theirs = 0;
        for name in names(&fd)?.into_iter().filter(|name| !left.ours.contains(name.as_slice())) {
            theirs += 1;
            if left.changed.contains(name.as_slice()) {
                continue;
            }
            let stat = stat_name(fd.as_fd(), &name)?;
            if !twins.contains(&stat.stx_ino) && came(&stat) > listed.time {
                return Ok(false);
            }
        }
        Ok(theirs == listed.names)
    };
    looked().unwrap_or(false)
}

/// When a name got its inode, or later. A directory changes for what happens in it.
fn came(stat: &Statx) -> i64 {
    let is_directory = file_type(stat) == FileType::Directory;
    nanoseconds(if is_directory { stat.stx_btime } else { stat.stx_ctime })
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
    Ok((fd, nanoseconds(mtime)))
}

/// The names of a directory.
fn names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Since the epoch.
pub(crate) fn nanoseconds(time: StatxTimestamp) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.into())
}
