//! One directory: its names, and what they are.

use std::collections::HashSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rayon::prelude::*;
use rustix::fs::{FileType, RawDir, StatxAttributes};
use rustix::io::Errno;

use super::BIG;
use crate::model::{HostPath, InodeId, Listed, Notice, RootPath, SpecialKind};
use crate::scan::cause;
use crate::scan::dir::{self, RootDir};

/// A name, and what `getdents64(2)` says it is.
pub(super) type RawName = (Vec<u8>, FileType);

/// Names as the kernel lists them, not yet sorted.
pub(super) struct Listing {
    pub(super) mode: u32,
    pub(super) names: Vec<(Vec<u8>, Listed)>,
    pub(super) notices: Vec<Notice>,
    /// There were more names than asked for.
    pub(super) cut: bool,
    /// Its files are left out.
    pub(super) dirs_alone: bool,
}

/// A directory that is to be read.
pub(super) struct Asked<'a> {
    pub(super) root: &'a RootDir,
    pub(super) path: RootPath,
    /// It is the root itself.
    pub(super) is_top: bool,
    /// Names that are read of it.
    pub(super) most: usize,
}

impl Asked<'_> {
    /// Reads its names.
    pub(super) fn read(
        &self,
        tops: &HashSet<InodeId>,
        worth: impl Fn(&[RawName]) -> bool,
    ) -> Result<Listing, Notice> {
        let path = || self.path.on_host(self.root.path());
        let failed = |error: &io::Error| open_notice(path(), error);
        let fd = self.root.open_dir(&self.path).map_err(|error| failed(&error))?;
        let stat = dir::stat_fd(fd.as_fd()).map_err(|error| failed(&error))?;
        if !self.is_top && tops.contains(&dir::inode_id(&stat)) {
            return Err(Notice::info(path(), "walk", "it is a root of its own, looked at as such"));
        }
        let (mut names, cut) = list(fd.as_fd(), self.most)
            .map_err(|error| Notice::partial(path(), "list", cause(&error)))?;
        // Here, where several directories are read at once.
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let known = names.iter().all(|(_, kind)| *kind != FileType::Unknown);
        let dirs_alone = known && !cut && !worth(&names);
        if dirs_alone {
            names.retain(|(_, kind)| *kind == FileType::Directory);
        }
        let (names, notices) = look(fd.as_fd(), names, &path());
        Ok(Listing { mode: stat.stx_mode.into(), names, notices, cut, dirs_alone })
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
