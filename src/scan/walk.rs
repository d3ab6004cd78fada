//! Lists every name below a set of roots, breadth first.
//!
//! Roots are walked in parallel, and so are the directories of one depth of a root, which are
//! taken in in a fixed order: the inventories are the same for any number of
//! threads, and one big root is walked by all of them. No directory stays open
//! from one depth to the next, so depth and breadth cost no descriptors.

mod alike;
mod directory;
mod names;

use std::collections::HashSet;

use rayon::prelude::*;

pub use self::alike::walk_alike;
use self::directory::{Asked, Block, Read, Remark, Unlisted};
use self::names::RawNames;
use super::cache::{Listings, tells_of_changes};
use super::dir::RootDir;
use super::disk_threads::piece;
use crate::model::{DirId, InodeId, Inventory, Listing, Notice, Notices, Progress};

/// Deeper than any program that is meant to run; a chain of directories costs
/// its maker nothing.
const DEEPEST: usize = 256;

/// Directories that are read before their names are taken in.
const BATCH: usize = 512;

/// Directories that one thread reads in a row, into one piece of memory, at most.
const PIECE: usize = 16;

/// A directory with more names than this is read alone, its names by several
/// threads: what a batch holds in memory is bounded.
const BIG: usize = 8192;

/// Notices of one root that are kept one by one.
const MOST_NOTICES: usize = 1000;

/// What the walk of one root may cost.
#[derive(Debug, Clone, Copy)]
pub struct WalkLimits {
    /// Names in one root.
    pub entries: u64,
}

/// One root that is being walked.
struct Walk<'a> {
    root: &'a RootDir,
    /// Directories that need not be listed again, where they can be trusted.
    known: Option<&'a Listings>,
    inventory: Inventory,
    entries_left: usize,
    cut_off: bool,
    limits: WalkLimits,
    notices: Vec<Notice>,
    /// What is not listed in `notices`, which a hostile root could fill without end.
    unlisted: u64,
    unlisted_partial: bool,
}

/// Roots that are walked at once. A thread that waits within one takes up another meanwhile:
/// that many walks can lie upon one another on its stack.
const ROOTS: usize = 8;

/// Whether the files of a directory with these names, in their order, are worth a look; the
/// directories in it are listed all the same.
type Worth<'a> = dyn Fn(DirId, &RawNames) -> bool + Sync + 'a;

/// Walks the roots. A root inside another one is walked once, for itself. Directories that are
/// known, and have not changed since, are not listed again.
pub fn walk(
    roots: &[RootDir],
    limits: WalkLimits,
    known: &Listings,
    progress: &dyn Progress,
) -> (Vec<Inventory>, Notices) {
    let mut walks: Vec<Walk<'_>> =
        roots.iter().map(|root| Walk::new(root, limits, known)).collect();
    let tops: HashSet<InodeId> = roots.iter().map(RootDir::inode).collect();
    for some in walks.chunks_mut(ROOTS) {
        some.par_iter_mut().for_each(|walk| walk.all(&tops, progress));
    }
    finish(walks)
}

/// So many of these directories each thread reads in a row, that all have some.
fn in_a_row(dirs: usize) -> usize {
    (dirs / rayon::current_num_threads()).clamp(1, PIECE)
}

fn finish(walks: Vec<Walk<'_>>) -> (Vec<Inventory>, Notices) {
    let mut notices = Notices::default();
    let inventories = walks
        .into_iter()
        .map(|walk| {
            let (inventory, more) = walk.all_notices();
            notices.extend(more);
            inventory
        })
        .collect();
    (inventories, notices)
}

impl<'a> Walk<'a> {
    fn new(root: &'a RootDir, limits: WalkLimits, known: &'a Listings) -> Self {
        Self {
            root,
            known: Some(known).filter(|known| !known.is_empty() && tells_of_changes(root)),
            inventory: Inventory::new(),
            entries_left: usize::try_from(limits.entries).unwrap_or(usize::MAX),
            cut_off: false,
            limits,
            notices: Vec::new(),
            unlisted: 0,
            unlisted_partial: false,
        }
    }

    /// Walks the whole root.
    fn all(&mut self, tops: &HashSet<InodeId>, progress: &dyn Progress) {
        let mut level = vec![DirId(0)];
        for _ in 0..=DEEPEST {
            level = self.read_level(&level, tops, &|_, _| true, progress);
        }
        level.into_iter().for_each(|dir| self.too_deep(dir));
    }

    /// Reads directories of one depth, and names those of the next. While one batch is read,
    /// the one before it is taken in.
    fn read_level(
        &mut self,
        level: &[DirId],
        tops: &HashSet<InodeId>,
        worth: &Worth<'_>,
        progress: &dyn Progress,
    ) -> Vec<DirId> {
        let (mut below, mut before) = (Vec::new(), Vec::new());
        for batch in level.chunks(BATCH) {
            let asked = self.ask(batch, BIG);
            let read = || {
                let pieces = asked.dirs.par_chunks(in_a_row(batch.len()));
                pieces.map(|dirs| piece(|| asked.read(dirs, tops, worth))).collect::<Vec<_>>()
            };
            let take = || self.take_all(std::mem::take(&mut before), tops, worth, progress);
            let (read, dirs) = rayon::join(read, take);
            below.extend(dirs);
            before = read;
        }
        below.extend(self.take_all(before, tops, worth, progress));
        below
    }

    /// Takes in what was read, in order.
    fn take_all(
        &mut self,
        read: Vec<Block>,
        tops: &HashSet<InodeId>,
        worth: &Worth<'_>,
        progress: &dyn Progress,
    ) -> Vec<DirId> {
        let mut below = Vec::new();
        for Block { listing, dirs } in read {
            for (dir, read) in dirs {
                below.extend(self.take(dir, read, &listing, tops, worth, progress));
            }
        }
        below
    }

    fn notice(&mut self, notice: Notice) {
        self.keep(notice.partial, || notice);
    }

    /// What there is to say of names in a directory.
    fn remark(&mut self, dir: DirId, remarks: Vec<Remark>, listing: &Listing) {
        if remarks.is_empty() {
            return;
        }
        let dir = self.inventory.dir_path(dir).on_host(self.root.path());
        for remark in remarks {
            self.keep(remark.is_partial(), || remark.told(&dir, listing));
        }
    }

    /// Makes a notice, unless there are too many.
    fn keep(&mut self, partial: bool, notice: impl FnOnce() -> Notice) {
        if self.notices.len() < MOST_NOTICES {
            self.notices.push(notice());
        } else {
            self.unlisted += 1;
            self.unlisted_partial |= partial;
        }
    }

    /// The notices, and one for those that were not kept.
    fn all_notices(mut self) -> (Inventory, Vec<Notice>) {
        self.inventory.shrink();
        let mut notices = self.notices;
        if self.unlisted > 0 {
            notices.push(Notice {
                path: self.root.path().clone(),
                doing: "walk",
                cause: format!("{} more notices below this root are not listed", self.unlisted),
                partial: self.unlisted_partial,
            });
        }
        (self.inventory, notices)
    }

    /// What it takes to read directories: at most so many names of each, and no more than are left.
    fn ask(&self, dirs: &[DirId], most: usize) -> Asked<'a> {
        let mut paths = Vec::new();
        let add = |&dir: &DirId| {
            let start = paths.len();
            self.inventory.add_dir_path(dir, &mut paths);
            (dir, start..paths.len())
        };
        let dirs = dirs.iter().map(add).collect();
        let again = most < self.entries_left;
        Asked {
            root: self.root,
            known: self.known,
            dirs,
            paths,
            most: most.min(self.entries_left),
            again,
        }
    }

    /// Takes a directory's names into the inventory. One that was cut off although more
    /// names are allowed is read again, alone.
    fn take(
        &mut self,
        dir: DirId,
        read: Result<Read, Unlisted>,
        listing: &Listing,
        tops: &HashSet<InodeId>,
        worth: &Worth<'_>,
        progress: &dyn Progress,
    ) -> Vec<DirId> {
        if self.entries_left == 0 {
            self.cut_off(dir);
            return Vec::new();
        }
        match read {
            Ok(read) if read.cut => {
                let asked = self.ask(&[dir], usize::MAX);
                let Block { listing, dirs } = asked.read(&asked.dirs, tops, worth);
                let taken = |(dir, read)| self.take_read(dir, read, &listing, progress);
                dirs.into_iter().flat_map(taken).collect()
            }
            read => self.take_read(dir, read, listing, progress),
        }
    }

    fn take_read(
        &mut self,
        dir: DirId,
        read: Result<Read, Unlisted>,
        listing: &Listing,
        progress: &dyn Progress,
    ) -> Vec<DirId> {
        let read = match read {
            Ok(read) => read,
            Err(Unlisted { notice, mount_point }) => {
                self.notice(notice);
                if mount_point {
                    self.inventory.mark_mount_point(dir);
                }
                return Vec::new();
            }
        };
        let count = read.names.len().min(self.entries_left);
        let over = count < read.names.len();
        let names = listing.part(read.names.start..read.names.start + count);
        self.remark(dir, read.remarks, listing);
        let Some(below) = self.inventory.fill(dir, read.meta, names) else {
            self.cut_off(dir);
            return Vec::new();
        };
        self.entries_left -= count;
        progress.advance(count as u64);
        if read.dirs_alone {
            self.inventory.mark_incomplete(dir);
        }
        if over || read.cut {
            self.inventory.mark_incomplete(dir);
            self.cut_off(dir);
        }
        below
    }

    /// Says once that a limit was reached, and where.
    fn cut_off(&mut self, dir: DirId) {
        if std::mem::replace(&mut self.cut_off, true) {
            return;
        }
        let cause = match self.entries_left {
            0 => format!(
                "cut off: the root has more than {} entries; --max-entries raises the limit",
                self.limits.entries
            ),
            _ => "cut off: the names and link targets of the root take more than 4 GiB".into(),
        };
        self.entries_left = 0;
        let path = self.inventory.dir_path(dir).on_host(self.root.path());
        self.notice(Notice::partial(path, "walk", cause));
    }

    fn too_deep(&mut self, dir: DirId) {
        let cause = format!("too deep: more than {DEEPEST} levels below the root");
        let path = self.inventory.dir_path(dir).on_host(self.root.path());
        self.notice(Notice::partial(path, "walk", cause));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    #![expect(clippy::disallowed_methods, reason = "tests build their own trees")]

    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::model::{HostPath, Silent};

    pub(super) fn root(dir: &Path, files: &[&str]) -> RootDir {
        for file in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        RootDir::open(&HostPath::from(dir)).unwrap()
    }

    #[test]
    fn a_root_of_too_many_bytes_of_names_is_cut_off() {
        let (dir, target) = (tempfile::tempdir().unwrap(), "x".repeat(4000));
        let links = |at: &str| {
            let dir = dir.path().join(at);
            fs::create_dir(&dir).unwrap();
            let link = |at: u32| std::os::unix::fs::symlink(&target, dir.join(at.to_string()));
            (0..200).for_each(|at| link(at).unwrap());
        };
        ["a", "b", "c"].into_iter().for_each(links);
        let limits = WalkLimits { entries: 10_000 };
        let (found, notices) =
            walk(&[root(dir.path(), &[])], limits, &Listings::default(), &Silent);
        let complete = found[0].dir_ids().map(|dir| found[0].dir(dir).complete);
        assert_eq!(complete.collect::<Vec<_>>(), [true, true, false, false]);
        let causes: Vec<_> = notices.iter().map(|notice| notice.cause.as_str()).collect();
        assert_eq!(causes.len(), 1);
        assert!(causes[0].contains("4 GiB"), "{causes:?}");
    }
}
