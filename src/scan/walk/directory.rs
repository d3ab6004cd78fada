//! One directory: its names, and what they are.

use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rayon::prelude::*;
use rustix::fs::{FileType, RawDir, StatxAttributes};
use rustix::io::Errno;

use super::BIG;
use crate::model::{HostPath, InodeId, Listed, Names, Notice, RootPath, SpecialKind};
use crate::scan::cause;
use crate::scan::dir::{self, RootDir};

/// Names, and what `getdents64(2)` says they are.
pub(super) type RawNames = Names<FileType>;

/// What a directory holds, in byte order of the names.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) mode: u32,
    pub(super) names: Names<Listed>,
    pub(super) notices: Vec<Notice>,
    /// There were more names than asked for.
    pub(super) cut: bool,
    /// Its files are left out.
    pub(super) dirs_alone: bool,
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

/// A directory that is to be read.
pub(super) struct Asked<'a> {
    pub(super) root: &'a RootDir,
    pub(super) path: RootPath,
    /// It is the root itself.
    pub(super) is_top: bool,
    /// Names that are read of it.
    pub(super) most: usize,
    /// Where it has more, it is read again: nothing is looked at before.
    pub(super) again: bool,
}

impl Asked<'_> {
    /// Reads its names.
    pub(super) fn read(
        &self,
        tops: &HashSet<InodeId>,
        worth: impl Fn(&RawNames) -> bool,
    ) -> Result<Listing, Unlisted> {
        let path = || self.path.on_host(self.root.path());
        let failed = |error: &io::Error| unopened(path(), error);
        let fd = self.root.open_dir(&self.path).map_err(|error| failed(&error))?;
        let stat = dir::stat_fd(fd.as_fd()).map_err(|error| failed(&error))?;
        if !self.is_top && tops.contains(&dir::inode_id(&stat)) {
            let own = Notice::info(path(), "walk", "it is a root of its own, looked at as such");
            return Err(own.into());
        }
        let mut names = NAMES.take();
        let cut = list(fd.as_fd(), self.most, &mut names)
            .map_err(|error| Notice::partial(path(), "list", cause(&error)))?;
        let mode = stat.stx_mode.into();
        if cut && self.again {
            NAMES.set(RawNames::default());
            return Ok(Listing { mode, cut, ..Listing::default() });
        }
        // Here, where several directories are read at once.
        names.sort();
        let known = names.iter().all(|(_, kind)| *kind != FileType::Unknown);
        let dirs_alone = known && !cut && !worth(&names);
        if dirs_alone {
            let dirs = names.iter().filter(|(_, kind)| **kind == FileType::Directory);
            names = dirs.map(|(name, kind)| (name, *kind)).collect();
        }
        let (looked, notices) = look(fd.as_fd(), &names, &path);
        if names.len() <= BIG {
            names.clear();
            NAMES.set(names);
        }
        Ok(Listing { mode, names: looked, notices, cut, dirs_alone })
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
        if names.len() == cap {
            return Ok(true);
        }
        names.push(name, entry.file_type());
    }
    Ok(false)
}

/// Says what each name is.
fn look(
    fd: BorrowedFd<'_>,
    names: &RawNames,
    dir: &impl Fn() -> HostPath,
) -> (Names<Listed>, Vec<Notice>) {
    if names.len() > BIG {
        return look_on_threads(fd, names, &dir());
    }
    let mut notices = Vec::new();
    let looked = names.map(|name, &kind| {
        let (listed, notice) = look_at(fd, name, kind, dir);
        notices.extend(notice);
        listed
    });
    (looked, notices)
}

/// By pieces: a notice takes more room than a name, and most names have none.
fn look_on_threads(
    fd: BorrowedFd<'_>,
    names: &RawNames,
    dir: &HostPath,
) -> (Names<Listed>, Vec<Notice>) {
    let all: Vec<_> = names.iter().collect();
    let (mut looked, mut notices) = (Names::with_capacity(all.len()), Vec::new());
    for piece in all.chunks(BIG) {
        let one = |&(name, &kind): &(&[u8], &FileType)| look_at(fd, name, kind, &|| dir.clone());
        let found: Vec<_> = piece.par_iter().map(one).collect();
        for (&(name, _), (listed, notice)) in piece.iter().zip(found) {
            looked.push(name, listed);
            notices.extend(notice);
        }
    }
    (looked, notices)
}

fn look_at(
    fd: BorrowedFd<'_>,
    name: &[u8],
    kind: FileType,
    dir: &impl Fn() -> HostPath,
) -> (Listed, Option<Notice>) {
    let looked = match kind {
        FileType::Directory => Ok((Listed::Dir, None)),
        FileType::Symlink => read_link(fd, name),
        _ => stat_entry(fd, name),
    };
    let path = || HostPath(dir().0.join(std::ffi::OsStr::from_bytes(name)));
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
