//! Directories: their names, and what they are.

use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rayon::prelude::*;
use rustix::fs::{FileType, RawDir, Statx, StatxAttributes};
use rustix::io::Errno;

use super::names::{RawName, RawNames};
use super::{BIG, Worth};
use crate::model::{
    DirId, DirMeta, HostPath, InodeId, Listed, Listing, Notice, RootPath, SpecialKind,
};
use crate::scan::cache::{Known, Listings};
use crate::scan::cause;
use crate::scan::dir::{self, RootDir};

/// What some directories hold, in byte order of the names of each.
pub(super) struct Block {
    pub(super) listing: Listing,
    pub(super) dirs: Vec<(DirId, Result<Read, Unlisted>)>,
}

/// A directory that was read.
pub(super) struct Read {
    pub(super) meta: DirMeta,
    /// Its names' places in the listing.
    pub(super) names: Range<usize>,
    pub(super) remarks: Vec<Remark>,
    /// There were more names than asked for, or there was no room for all.
    pub(super) cut: bool,
    /// Its files are left out.
    pub(super) dirs_alone: bool,
}

/// What there is to say of a name. A container decides how many there are: no path is made
/// before it is known to be told.
pub(super) struct Remark {
    /// The name's place in the listing.
    at: usize,
    why: Why,
}

enum Why {
    LeftOut(&'static str),
    Failed(io::Error),
}

impl Remark {
    /// Something could not be read.
    pub(super) fn is_partial(&self) -> bool {
        matches!(self.why, Why::Failed(_))
    }

    /// The same, of a name in this directory.
    pub(super) fn told(self, dir: &HostPath, listing: &Listing) -> Notice {
        let path = HostPath(dir.0.join(OsStr::from_bytes(listing.name(self.at))));
        match self.why {
            Why::LeftOut(cause) => Notice::info(path, "walk", cause),
            Why::Failed(error) => Notice::partial(path, "stat", cause(&error)),
        }
    }
}

/// Why a directory was not listed.
pub(super) struct Unlisted {
    pub(super) notice: Notice,
    /// Another file system is mounted on it.
    pub(super) mount_point: bool,
}

impl From<Notice> for Unlisted {
    fn from(notice: Notice) -> Self {
        Self { notice, mount_point: false }
    }
}

/// Directories that are to be read.
pub(super) struct Asked<'a> {
    pub(super) root: &'a RootDir,
    pub(super) known: Option<&'a Listings>,
    /// The directories, and where their paths lie among all.
    pub(super) dirs: Vec<(DirId, Range<usize>)>,
    pub(super) paths: Vec<u8>,
    /// Names that are read of each.
    pub(super) most: usize,
    /// One that has more, or takes more room, is read again, alone: nothing is kept of it before.
    pub(super) again: bool,
}

/// Names for which there is room at once.
const ROOM: usize = 64;

/// Bytes that directories take which are read one after another; [`BIG`] names fit in.
const MOST_ROOM: usize = 2 << 20;

impl Asked<'_> {
    /// Reads some of them, one after another.
    pub(super) fn read(
        &self,
        dirs: &[(DirId, Range<usize>)],
        tops: &HashSet<InodeId>,
        worth: &Worth<'_>,
    ) -> Block {
        let mut listing = Listing::with_capacity(ROOM);
        let mut read = |(dir, path): &(DirId, Range<usize>)| {
            (*dir, self.read_one(*dir, &self.paths[path.clone()], tops, worth, &mut listing))
        };
        let dirs = dirs.iter().map(&mut read).collect();
        Block { listing, dirs }
    }

    fn read_one(
        &self,
        dir: DirId,
        path: &[u8],
        tops: &HashSet<InodeId>,
        worth: &Worth<'_>,
        listing: &mut Listing,
    ) -> Result<Read, Unlisted> {
        let on_host = || RootPath::new(path).on_host(self.root.path());
        let failed = |error: &io::Error| unopened(on_host(), error);
        let fd = self.root.open_dir_at(path).map_err(|error| failed(&error))?;
        let stat = dir::stat_fd(fd.as_fd()).map_err(|error| failed(&error))?;
        let is_top = path.is_empty();
        if !is_top && tops.contains(&dir::inode_id(&stat)) {
            let own = Notice::info(on_host(), "walk", "it is a root of its own, looked at as such");
            return Err(own.into());
        }
        let mut names = NAMES.take();
        let (meta, first) = (dir::dir_meta(&stat), listing.len());
        let mut cut = match self.known.and_then(|known| known.of(&meta)) {
            Some(known) => add_known(known, self.most, &mut names),
            None => list(fd.as_fd(), self.most, &mut names)
                .map_err(|error| Notice::partial(on_host(), "list", cause(&error)))?,
        };
        let (mut remarks, mut dirs_alone) = (Vec::new(), false);
        if !cut || !self.again {
            // Here, where several directories are read at once.
            names.sort();
            let known = names.iter().all(|it| it.kind != FileType::Unknown);
            dirs_alone = known && !cut && !worth(dir, &names);
            if dirs_alone {
                names.keep_dirs();
            }
            let most = if self.again { MOST_ROOM } else { usize::MAX };
            cut |= !look(fd.as_fd(), &names, most, listing, &mut remarks);
        }
        if cut && self.again {
            listing.truncate(first);
            remarks.clear();
        }
        if names.is_small() {
            names.clear();
            NAMES.set(names);
        }
        Ok(Read { meta, names: first..listing.len(), remarks, cut, dirs_alone })
    }
}

thread_local! {
    /// Room for the names of one directory, which is used again for the next.
    static NAMES: Cell<RawNames> = Cell::default();
}

/// Adds the first `cap` names of a directory; whether there are more.
fn list(fd: BorrowedFd<'_>, cap: usize, names: &mut RawNames) -> io::Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() == cap || !names.push(name, entry.file_type()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Adds the first `cap` names of a directory that need not be listed; whether there are more.
fn add_known(mut known: Known<'_>, cap: usize, names: &mut RawNames) -> bool {
    known.any(|(name, kind, target)| names.len() == cap || !names.push_known(name, kind, target))
}

/// Says what each name is; false where there is no room for all.
fn look(
    fd: BorrowedFd<'_>,
    names: &RawNames,
    most: usize,
    listing: &mut Listing,
    remarks: &mut Vec<Remark>,
) -> bool {
    if names.len() > BIG {
        return look_on_threads(fd, names, listing, remarks);
    }
    let mut names = names.iter();
    names.all(|name| look_at(fd, name, listing, remarks) && listing.room() <= most)
}

/// Names of a directory with many that one thread looks at in a row.
const SOME: usize = 256;

/// By pieces: what was looked at is taken in before there is more.
fn look_on_threads(
    fd: BorrowedFd<'_>,
    names: &RawNames,
    listing: &mut Listing,
    remarks: &mut Vec<Remark>,
) -> bool {
    let all: Vec<_> = names.iter().collect();
    all.chunks(BIG).all(|piece| {
        let look = |names: &[RawName<'_>]| {
            let (mut listing, mut remarks) = (Listing::with_capacity(SOME), Vec::new());
            let mut names = names.iter();
            let fits = names.all(|&name| look_at(fd, name, &mut listing, &mut remarks));
            (listing, remarks, fits)
        };
        let found: Vec<_> = piece.par_chunks(SOME).map(look).collect();
        found.into_iter().all(|(more, of_them, fits)| {
            let before = listing.len();
            let added = listing.append(&more);
            if added {
                let moved = |remark: Remark| Remark { at: remark.at + before, ..remark };
                remarks.extend(of_them.into_iter().map(moved));
            }
            added && fits
        })
    })
}

/// Adds what a name is; false where there is no room.
fn look_at(
    fd: BorrowedFd<'_>,
    RawName { name, kind, target }: RawName<'_>,
    listing: &mut Listing,
    remarks: &mut Vec<Remark>,
) -> bool {
    let at = listing.len();
    let mut push = |listed: Listed<'_>| listing.push(name, listed);
    let looked = match kind {
        FileType::Directory => Ok((push(Listed::Dir), None)),
        FileType::Symlink => match target {
            Some(target) => Ok((push(Listed::Symlink(target)), None)),
            None => add_link(fd, name, &mut push),
        },
        _ => match dir::stat_name(fd, name) {
            Ok(stat) if dir::file_type(&stat) == FileType::Symlink => add_link(fd, name, &mut push),
            Ok(stat) => {
                let (listed, left_out) = what_is(&stat);
                Ok((push(listed), left_out.map(Why::LeftOut)))
            }
            Err(error) => Err(error),
        },
    };
    let (fits, why) = looked.unwrap_or_else(|error| {
        (push(Listed::Special(SpecialKind::Unreadable)), Some(Why::Failed(error)))
    });
    remarks.extend(why.filter(|_| fits).map(|why| Remark { at, why }));
    fits
}

fn add_link(
    fd: BorrowedFd<'_>,
    name: &[u8],
    push: &mut impl FnMut(Listed<'_>) -> bool,
) -> io::Result<(bool, Option<Why>)> {
    let mut buffer = [MaybeUninit::uninit(); 512];
    let (target, room) = rustix::fs::readlinkat_raw(fd, name, &mut buffer)?;
    if !room.is_empty() {
        return Ok((push(Listed::Symlink(target)), None));
    }
    // It may have been cut off.
    let target = rustix::fs::readlinkat(fd, name, Vec::new())?;
    Ok((push(Listed::Symlink(target.as_bytes())), None))
}

fn what_is(stat: &Statx) -> (Listed<'static>, Option<&'static str>) {
    if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return (Listed::Special(SpecialKind::MountPoint), Some(ANOTHER_MOUNT));
    }
    let special = match dir::file_type(stat) {
        FileType::RegularFile => return (Listed::File(dir::file_meta(stat)), None),
        FileType::Directory => return (Listed::Dir, None),
        FileType::Fifo => SpecialKind::Fifo,
        FileType::Socket => SpecialKind::Socket,
        FileType::CharacterDevice if (stat.stx_rdev_major, stat.stx_rdev_minor) == (0, 0) => {
            SpecialKind::Whiteout
        }
        FileType::CharacterDevice => SpecialKind::CharDevice,
        FileType::BlockDevice => SpecialKind::BlockDevice,
        FileType::Symlink | FileType::Unknown => SpecialKind::Unreadable,
    };
    (Listed::Special(special), Some(special.explanation()))
}

const ANOTHER_MOUNT: &str = "another file system is mounted here; it is not looked into";

/// Why a directory could not be opened.
fn unopened(path: HostPath, error: &io::Error) -> Unlisted {
    match Errno::from_io_error(error) {
        Some(Errno::XDEV) => {
            Unlisted { notice: Notice::info(path, "walk", ANOTHER_MOUNT), mount_point: true }
        }
        Some(Errno::LOOP | Errno::NOTDIR | Errno::NOENT) => {
            Notice::partial(path, "walk", "it was replaced while the root was walked").into()
        }
        _ => Notice::partial(path, "open", cause(error)).into(),
    }
}
