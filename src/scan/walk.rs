//! Lists every name below a set of roots, breadth first.
//!
//! Directories of one depth, of all roots together, are read in parallel and
//! taken in in a fixed order: the inventories are the same for any number of
//! threads, and one big root is walked by all of them. No directory stays open
//! from one depth to the next, so depth and breadth cost no descriptors.

use std::collections::{HashMap, HashSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rayon::prelude::*;
use rustix::fs::{FileType, RawDir, StatxAttributes};
use rustix::io::Errno;

use super::cause;
use super::dir::{self, RootDir};
use crate::model::{
    DirId, EntryKind, HostPath, InodeId, Inventory, Listed, Notice, Notices, Progress, RootPath,
    SpecialKind,
};

/// Deeper than any program that is meant to run; a chain of directories costs
/// its maker nothing.
const DEEPEST: usize = 256;

/// Directories that are read before their names are taken in.
const BATCH: usize = 256;

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
    inventory: Inventory,
    entries_left: usize,
    cut_off: bool,
    limits: WalkLimits,
    notices: Vec<Notice>,
    /// What is not listed in `notices`, which a hostile root could fill without end.
    unlisted: u64,
    unlisted_partial: bool,
}

/// A directory that is to be read: the walk it belongs to, and its place there.
type Pending = (usize, DirId);

/// A name, and what `getdents64(2)` says it is.
type RawName = (Vec<u8>, FileType);

/// Names as the kernel lists them, not yet sorted.
struct Listing {
    mode: u32,
    names: Vec<(Vec<u8>, Listed)>,
    notices: Vec<Notice>,
    /// There were more names than asked for.
    cut: bool,
}

/// Walks the roots. A root inside another one is walked once, for itself.
pub fn walk(
    roots: &[RootDir],
    limits: WalkLimits,
    progress: &dyn Progress,
) -> (Vec<Inventory>, Notices) {
    let mut walks: Vec<Walk<'_>> = roots.iter().map(|root| Walk::new(root, limits)).collect();
    let tops: HashSet<InodeId> = roots.iter().map(RootDir::inode).collect();
    let mut level: Vec<Pending> = (0..walks.len()).map(|at| (at, DirId(0))).collect();
    for _ in 0..=DEEPEST {
        level = read_level(&mut walks, &level, &tops, progress);
    }
    for (at, dir) in level {
        walks[at].too_deep(dir);
    }
    finish(walks)
}

/// Walks the host's own tree, but only where one of the roots has a directory
/// of the same path: enough to find what the host has too.
pub fn walk_alike(
    host: &RootDir,
    roots: &[Inventory],
    limits: WalkLimits,
    progress: &dyn Progress,
) -> Inventory {
    let mut walks = [Walk::new(host, limits)];
    let tops = HashSet::from([host.inode()]);
    let everywhere = (0..roots.len()).map(|at| (at, DirId(0))).collect();
    let mut twins: HashMap<DirId, Vec<Pending>> = HashMap::from([(DirId(0), everywhere)]);
    let mut level = vec![(0, DirId(0))];
    for _ in 0..=DEEPEST {
        let below = read_level(&mut walks, &level, &tops, progress);
        twins =
            below.iter().filter_map(|&(_, dir)| descend(&walks[0], dir, &twins, roots)).collect();
        level = below.into_iter().filter(|(_, dir)| twins.contains_key(dir)).collect();
    }
    let [walk] = walks;
    walk.inventory
}

/// The directories of the roots that have the host directory's path.
fn descend(
    host: &Walk<'_>,
    dir: DirId,
    twins: &HashMap<DirId, Vec<Pending>>,
    roots: &[Inventory],
) -> Option<(DirId, Vec<Pending>)> {
    let name = host.inventory.dir_name(dir);
    let same = |&(at, twin): &Pending| match roots[at].lookup(twin, name) {
        Some(EntryKind::Dir(below)) => Some((at, below)),
        _ => None,
    };
    let below: Vec<Pending> =
        twins[&host.inventory.dir(dir).parent].iter().filter_map(same).collect();
    (!below.is_empty()).then_some((dir, below))
}

/// Reads directories of one depth, and names those of the next. While one batch is read, the
/// one before it is taken in.
fn read_level(
    walks: &mut [Walk<'_>],
    level: &[Pending],
    tops: &HashSet<InodeId>,
    progress: &dyn Progress,
) -> Vec<Pending> {
    let (mut below, mut before) = (Vec::new(), Vec::new());
    for batch in level.chunks(BATCH) {
        let asked: Vec<Asked<'_>> =
            batch.iter().map(|&(at, dir)| walks[at].ask(dir, BIG)).collect();
        let read = || asked.par_iter().map(|asked| asked.read(tops)).collect::<Vec<_>>();
        let take = || take_all(walks, std::mem::take(&mut before), tops, progress);
        let (read, dirs) = rayon::join(read, take);
        below.extend(dirs);
        before = batch.iter().copied().zip(read).collect();
    }
    below.extend(take_all(walks, before, tops, progress));
    below
}

/// Takes in what was read, in order.
fn take_all(
    walks: &mut [Walk<'_>],
    read: Vec<(Pending, Result<Listing, Notice>)>,
    tops: &HashSet<InodeId>,
    progress: &dyn Progress,
) -> Vec<Pending> {
    let mut below = Vec::new();
    for ((at, dir), listing) in read {
        let dirs = walks[at].take(dir, listing, tops, progress);
        below.extend(dirs.into_iter().map(|dir| (at, dir)));
    }
    below
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
    fn new(root: &'a RootDir, limits: WalkLimits) -> Self {
        Self {
            root,
            inventory: Inventory::new(),
            entries_left: usize::try_from(limits.entries).unwrap_or(usize::MAX),
            cut_off: false,
            limits,
            notices: Vec::new(),
            unlisted: 0,
            unlisted_partial: false,
        }
    }

    fn notice(&mut self, notice: Notice) {
        if self.notices.len() < MOST_NOTICES {
            self.notices.push(notice);
        } else {
            self.unlisted += 1;
            self.unlisted_partial |= notice.partial;
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

    /// What it takes to read a directory: at most so many names of it, and no more than are left.
    fn ask(&self, dir: DirId, most: usize) -> Asked<'a> {
        let path = self.inventory.dir_path(dir);
        Asked { root: self.root, path, is_top: dir == DirId(0), most: most.min(self.entries_left) }
    }

    /// Takes a listing into the inventory. One that was cut off although more
    /// names are allowed is read again, alone.
    fn take(
        &mut self,
        dir: DirId,
        listing: Result<Listing, Notice>,
        tops: &HashSet<InodeId>,
        progress: &dyn Progress,
    ) -> Vec<DirId> {
        if self.entries_left == 0 {
            self.cut_off(dir);
            return Vec::new();
        }
        let listing = match listing {
            Ok(listing) if listing.cut => self.ask(dir, usize::MAX).read(tops),
            listing => listing,
        };
        let mut listing = match listing {
            Ok(listing) => listing,
            Err(notice) => {
                self.notice(notice);
                return Vec::new();
            }
        };
        let over = listing.names.len() > self.entries_left;
        listing.names.truncate(self.entries_left);
        self.entries_left -= listing.names.len();
        progress.advance(listing.names.len() as u64);
        listing.notices.into_iter().for_each(|notice| self.notice(notice));
        let below = self.inventory.fill(dir, listing.mode, listing.names);
        if over || listing.cut {
            self.entries_left = 0;
            self.inventory.mark_incomplete(dir);
            self.cut_off(dir);
        }
        below
    }

    /// Says once that the limit on entries was reached, and where.
    fn cut_off(&mut self, dir: DirId) {
        if std::mem::replace(&mut self.cut_off, true) {
            return;
        }
        let cause = format!(
            "cut off: the root has more than {} entries; --max-entries raises the limit",
            self.limits.entries
        );
        let path = self.inventory.dir_path(dir).on_host(self.root.path());
        self.notice(Notice::partial(path, "walk", cause));
    }

    fn too_deep(&mut self, dir: DirId) {
        let cause = format!("too deep: more than {DEEPEST} levels below the root");
        let path = self.inventory.dir_path(dir).on_host(self.root.path());
        self.notice(Notice::partial(path, "walk", cause));
    }
}

/// A directory that is to be read.
struct Asked<'a> {
    root: &'a RootDir,
    path: RootPath,
    /// It is the root itself.
    is_top: bool,
    /// Names that are read of it.
    most: usize,
}

impl Asked<'_> {
    /// Reads its names.
    fn read(&self, tops: &HashSet<InodeId>) -> Result<Listing, Notice> {
        let path = || self.path.on_host(self.root.path());
        let failed = |error: &io::Error| open_notice(path(), error);
        let fd = self.root.open_dir(&self.path).map_err(|error| failed(&error))?;
        let stat = dir::stat_fd(fd.as_fd()).map_err(|error| failed(&error))?;
        if !self.is_top && tops.contains(&dir::inode_id(&stat)) {
            return Err(Notice::info(path(), "walk", "it is a root of its own, looked at as such"));
        }
        let (names, cut) = list(fd.as_fd(), self.most)
            .map_err(|error| Notice::partial(path(), "list", cause(&error)))?;
        let (mut names, notices) = look(fd.as_fd(), names, &path());
        // Here, where several directories are read at once; there it costs nothing any more.
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(Listing { mode: stat.stx_mode.into(), names, notices, cut })
    }
}

/// The first `cap` names of a directory, and whether there are more.
fn list(fd: BorrowedFd<'_>, cap: usize) -> io::Result<(Vec<RawName>, bool)> {
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(fd, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() == cap {
            return Ok((names, true));
        }
        names.push((name.to_vec(), entry.file_type()));
    }
    Ok((names, false))
}

/// Says what each name is.
fn look(
    fd: BorrowedFd<'_>,
    names: Vec<RawName>,
    dir: &HostPath,
) -> (Vec<(Vec<u8>, Listed)>, Vec<Notice>) {
    let one = |(name, kind): RawName| {
        let (listed, notice) = look_at(fd, &name, kind, dir);
        ((name, listed), notice)
    };
    let (mut looked, mut notices) = (Vec::with_capacity(names.len()), Vec::new());
    let mut keep = |(name, notice): (_, Option<Notice>)| {
        looked.push(name);
        notices.extend(notice);
    };
    let mut names = names.into_iter();
    // By pieces: a notice takes more room than a name, and most names have none.
    while names.len() > BIG {
        let piece: Vec<RawName> = names.by_ref().take(BIG).collect();
        let piece: Vec<_> = piece.into_par_iter().map(one).collect();
        piece.into_iter().for_each(&mut keep);
    }
    names.map(one).for_each(keep);
    (looked, notices)
}

fn look_at(
    fd: BorrowedFd<'_>,
    name: &[u8],
    kind: FileType,
    dir: &HostPath,
) -> (Listed, Option<Notice>) {
    let looked = match kind {
        FileType::Directory => Ok((Listed::Dir, None)),
        FileType::Symlink => read_link(fd, name),
        _ => stat_entry(fd, name),
    };
    let path = || HostPath(dir.0.join(std::ffi::OsStr::from_bytes(name)));
    match looked {
        Ok((listed, None)) => (listed, None),
        Ok((listed, Some(cause))) => (listed, Some(Notice::info(path(), "walk", cause))),
        Err(error) => {
            let notice = Notice::partial(path(), "stat", cause(&error));
            (Listed::Special(SpecialKind::Unreadable), Some(notice))
        }
    }
}

fn read_link(fd: BorrowedFd<'_>, name: &[u8]) -> io::Result<(Listed, Option<&'static str>)> {
    let mut buffer = [MaybeUninit::uninit(); 512];
    let (target, room) = rustix::fs::readlinkat_raw(fd, name, &mut buffer)?;
    let target = match room.is_empty() {
        // It may have been cut off.
        true => rustix::fs::readlinkat(fd, name, Vec::new())?.into_bytes(),
        false => target.to_vec(),
    };
    Ok((Listed::Symlink(target), None))
}

fn stat_entry(fd: BorrowedFd<'_>, name: &[u8]) -> io::Result<(Listed, Option<&'static str>)> {
    let stat = dir::stat_name(fd, name)?;
    if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok((Listed::Special(SpecialKind::MountPoint), Some(ANOTHER_MOUNT)));
    }
    let special = match dir::file_type(&stat) {
        FileType::RegularFile => return Ok((Listed::File(dir::file_meta(&stat)), None)),
        FileType::Directory => return Ok((Listed::Dir, None)),
        FileType::Symlink => return read_link(fd, name),
        FileType::Fifo => SpecialKind::Fifo,
        FileType::Socket => SpecialKind::Socket,
        FileType::CharacterDevice if (stat.stx_rdev_major, stat.stx_rdev_minor) == (0, 0) => {
            SpecialKind::Whiteout
        }
        FileType::CharacterDevice => SpecialKind::CharDevice,
        FileType::BlockDevice => SpecialKind::BlockDevice,
        FileType::Unknown => SpecialKind::Unreadable,
    };
    Ok((Listed::Special(special), Some(special.explanation())))
}

const ANOTHER_MOUNT: &str = "another file system is mounted here; it is not looked into";

/// Why a directory could not be opened.
fn open_notice(path: HostPath, error: &io::Error) -> Notice {
    match Errno::from_io_error(error) {
        Some(Errno::XDEV) => Notice::info(path, "walk", ANOTHER_MOUNT),
        Some(Errno::LOOP | Errno::NOTDIR | Errno::NOENT) => {
            Notice::partial(path, "walk", "it was replaced while the root was walked")
        }
        _ => Notice::partial(path, "open", cause(error)),
    }
}
