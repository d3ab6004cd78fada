//! A directory is taken away, and made anew.
//!
//! While that goes on it has a second temporary name ([`scrap`]): what is under the first one is
//! always whole, so that whoever looks at it after a crash knows what to do.
#![expect(clippy::disallowed_methods, reason = "directories of roots become links, and come back")]

use std::collections::HashMap;
use std::collections::hash_map::Entry::Vacant;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::rc::Rc;

use rustix::fs::{AtFlags, Mode, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::exec::place::{Found, Place, look};
use crate::exec::settle::rename_to_free;
use crate::exec::work::TEMPORARY;
use crate::exec::{content, link};
use crate::model::{Before, Bytes, ContentId, Metadata, ObjectName, RootPath, TreeEntry};
use crate::scan::dir::{open_dir_at, open_regular, stat_name};

/// The name that a directory has while it is made, or taken away.
fn scrap(beside: &Place) -> Place {
    let name = [beside.name.as_slice(), SCRAP].concat();
    Place { parent: Rc::clone(&beside.parent), name }
}

const SCRAP: &[u8] = b"-scrap";

/// The name of a file that is about to go, in its own directory.
fn hidden(number: usize) -> Vec<u8> {
    format!("{TEMPORARY}{number}").into_bytes()
}

/// A directory of the store that was cut off while it was made.
pub(crate) fn is_scrap(name: &[u8]) -> bool {
    let of = name.strip_suffix(SCRAP).and_then(|name| std::str::from_utf8(name).ok());
    of.and_then(ObjectName::parse).is_some_and(|name| name.is_tree())
}

/// Takes the names of its files from a directory that is to go: who works in it, or has it open,
/// finds them until then. Whoever found one before is a writer by now, or opens it at once.
pub(crate) fn hide(beside: &Place, entries: &[TreeEntry]) -> io::Result<()> {
    let dir = set_aside(beside, entries)?;
    for (number, entry) in files(entries) {
        let parent = parent(dir.as_fd(), &entry.path)?;
        let to = hidden(number);
        renameat_with(&parent, entry.path.file_name(), &parent, to, RenameFlags::NOREPLACE)?;
    }
    Ok(())
}

/// The files that were hidden are those that the directory had.
pub(crate) fn is_hidden(beside: &Place, entries: &[TreeEntry]) -> io::Result<bool> {
    let scrap = scrap(beside);
    let dir = open_dir_at(scrap.dir(), &scrap.name)?;
    for (number, entry) in files(entries) {
        let parent = parent(dir.as_fd(), &entry.path)?;
        let found = stat_name(parent.as_fd(), &hidden(number))?;
        let is_it = matches!(entry.before, Before::File { ino, .. } if ino == found.stx_ino);
        if !is_it {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives the files their names again, and the directory its first temporary one. A name that
/// somebody else took is his: then that of the hidden file is told. Directories keep the times of
/// now: one that somebody else changed must not look as if it had not been.
pub(crate) fn show(beside: &Place, entries: &[TreeEntry]) -> io::Result<Option<String>> {
    let scrap = scrap(beside);
    let dir = open_dir_at(scrap.dir(), &scrap.name)?;
    let mut kept = None;
    for (number, entry) in files(entries) {
        let Ok(parent) = parent(dir.as_fd(), &entry.path) else { continue };
        let (from, to) = (hidden(number), entry.path.file_name());
        match renameat_with(&parent, from.as_slice(), &parent, to, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {
                let name = String::from_utf8_lossy(&from).into_owned();
                kept = Some(format!("{:?} in it is kept as {name:?}", entry.path.as_path()));
            }
            // It never was hidden, or somebody else took it away.
            Err(Errno::NOENT) => {}
            shown => shown?,
        }
    }
    rustix::fs::syncfs(&dir)?;
    rename_to_free(&scrap, beside)?;
    Ok(kept)
}

fn files(entries: &[TreeEntry]) -> impl Iterator<Item = (usize, &TreeEntry)> {
    let is_file = |entry: &TreeEntry| matches!(entry.before, Before::File { .. });
    entries.iter().enumerate().filter(move |(_, entry)| is_file(entry))
}

/// Gives a directory the second temporary name.
fn set_aside(beside: &Place, entries: &[TreeEntry]) -> io::Result<OwnedFd> {
    clear(beside, entries)?;
    let scrap = scrap(beside);
    rename_to_free(beside, &scrap)?;
    // Else a power cut could leave a part of it under the name of what is whole.
    beside.parent.flush()?;
    open_dir_at(scrap.dir(), &scrap.name)
}

/// Takes a directory away that holds these entries. What somebody else put into it meanwhile
/// stays, under the second temporary name: that is said.
pub(crate) fn remove(beside: &Place, entries: &[TreeEntry]) -> io::Result<Option<String>> {
    set_aside(beside, entries)?;
    clear(beside, entries)
}

/// Takes away what was being made, or taken away, when that was cut off.
pub(crate) fn clear(beside: &Place, entries: &[TreeEntry]) -> io::Result<Option<String>> {
    let scrap = scrap(beside);
    let dir = match open_dir_at(scrap.dir(), &scrap.name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if is_kept(&error) => return Ok(Some(others_have(&scrap))),
        dir => dir?,
    };
    for (number, entry) in entries.iter().enumerate().rev() {
        let dir = match parent(dir.as_fd(), &entry.path) {
            Err(error) if is_kept(&error) => continue,
            dir => dir?,
        };
        if matches!(entry.before, Before::File { .. }) {
            take_away(dir.as_fd(), &hidden(number), entry)?;
        }
        take_away(dir.as_fd(), entry.path.file_name(), entry)?;
    }
    match unlink(scrap.dir(), &scrap.name, AtFlags::REMOVEDIR) {
        Err(error) if is_kept(&error) => Ok(Some(others_have(&scrap))),
        removed => removed.map(|()| None),
    }
}

fn others_have(scrap: &Place) -> String {
    let name = String::from_utf8_lossy(&scrap.name).into_owned();
    format!("others changed what is in {name:?}: that is kept")
}

fn take_away(dir: BorrowedFd<'_>, name: &[u8], entry: &TreeEntry) -> io::Result<()> {
    let flags = match (&entry.before, look(dir, name)?) {
        (Before::Tree { .. }, Found::Other(found)) if found.is_dir() => AtFlags::REMOVEDIR,
        (Before::Link { target, .. }, Found::Link(link)) if link.target == *target => {
            AtFlags::empty()
        }
        (Before::File { size, metadata, .. }, Found::Other(found))
            if found.is_file()
                && found.stat.stx_size == size.0
                && found.metadata().is_ok_and(|now| now.mtime == metadata.mtime) =>
        {
            AtFlags::empty()
        }
        _ => return Ok(()),
    };
    match unlink(dir, name, flags) {
        Err(error) if is_kept(&error) => Ok(()),
        removed => removed,
    }
}

fn unlink(dir: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, flags)?)
}

/// The directory is not empty, or is something else by now: somebody else's.
fn is_kept(error: &io::Error) -> bool {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    is(Errno::NOTEMPTY)
        || is(Errno::EXIST)
        || is(Errno::NOTDIR)
        || is(Errno::NOENT)
        || is(Errno::LOOP)
        || is(Errno::XDEV)
}

fn parent(top: BorrowedFd<'_>, path: &RootPath) -> io::Result<OwnedFd> {
    open_dir_at(top, path.parent().as_bytes())
}

/// Makes a directory under a free name, with copies of the files of `from`. It has the name when
/// it is whole and flushed.
pub(crate) fn make(
    beside: &Place,
    (top, entries): (&Metadata, &[TreeEntry]),
    from: BorrowedFd<'_>,
) -> io::Result<()> {
    if let Some(kept) = clear(beside, entries)? {
        return Err(io::Error::other(kept));
    }
    let scrap = scrap(beside);
    rustix::fs::mkdirat(scrap.dir(), scrap.name.as_slice(), Mode::RWXU)?;
    let dir = open_dir_at(scrap.dir(), &scrap.name)?;
    fill(dir.as_fd(), entries, from)?;
    for entry in entries.iter().rev() {
        if let Before::Tree { metadata } = &entry.before {
            let below = open_dir_at(dir.as_fd(), entry.path.as_bytes())?;
            dress(&File::from(below), metadata)?;
        }
    }
    let dir = File::from(dir);
    dress(&dir, top)?;
    // Once for all the names in it.
    rustix::fs::syncfs(&dir)?;
    rename_to_free(&scrap, beside)
}

/// Files have their names when they are whole and flushed: after a power cut nobody could tell half
/// a copy from what somebody else wrote there.
fn fill(top: BorrowedFd<'_>, entries: &[TreeEntry], from: BorrowedFd<'_>) -> io::Result<()> {
    for entry in entries {
        let name = entry.path.file_name();
        match &entry.before {
            Before::Tree { .. } => {
                rustix::fs::mkdirat(parent(top, &entry.path)?, name, Mode::RWXU)?;
            }
            Before::Link { target, metadata } => {
                make_link(parent(top, &entry.path)?.as_fd(), name, target, metadata)?;
            }
            Before::File { .. } | Before::Absent | Before::Hidden { .. } => {}
        }
    }
    let files: Vec<_> = entries.iter().filter_map(FileOf::new).collect();
    let mut made: HashMap<u64, File> = HashMap::new();
    for some in files.chunks(AT_ONCE) {
        for file in some {
            if let Vacant(free) = made.entry(file.ino) {
                free.insert(file.copy(top, from)?);
            }
        }
        rustix::fs::syncfs(top)?;
        for file in some.iter() {
            let Some(copy) = made.get(&file.ino) else { continue };
            content::name(copy.as_fd(), parent(top, file.path)?.as_fd(), file.path.file_name())?;
        }
        for file in some.iter().filter(|file| file.nlink == 1) {
            made.remove(&file.ino);
        }
    }
    Ok(())
}

/// Copies that are open at once, beside those of files with several names.
const AT_ONCE: usize = 256;

/// A name of a regular file of a directory.
struct FileOf<'a> {
    path: &'a RootPath,
    ino: u64,
    nlink: u32,
    size: Bytes,
    content: ContentId,
    metadata: &'a Metadata,
}

impl<'a> FileOf<'a> {
    fn new(entry: &'a TreeEntry) -> Option<Self> {
        let Before::File { ino, size, nlink, content, metadata } = &entry.before else {
            return None;
        };
        let (ino, nlink, size, content) = (*ino, *nlink, *size, *content);
        Some(Self { path: &entry.path, ino, nlink, size, content, metadata })
    }

    /// A copy without a name.
    fn copy(&self, top: BorrowedFd<'_>, from: BorrowedFd<'_>) -> io::Result<File> {
        let (source, _) = open_regular(parent(from, self.path)?.as_fd(), self.path.file_name())?;
        let file = content::nameless(top)?;
        if content::copy(&source, &file, self.size)? != Some(self.content) {
            return Err(io::Error::other(format!("{:?} in it changed", self.path.as_path())));
        }
        dress(&file, self.metadata)?;
        Ok(file)
    }
}

fn make_link(
    dir: BorrowedFd<'_>,
    name: &[u8],
    target: &[u8],
    metadata: &Metadata,
) -> io::Result<()> {
    rustix::fs::symlinkat(target, dir, name)?;
    let Found::Link(made) = look(dir, name)? else { return Err(Errno::STALE.into()) };
    link::chown(made.pinned.as_fd(), metadata.uid, metadata.gid)?;
    link::dress(made.pinned.as_fd(), metadata)
}

/// Owner, mode, attributes, times: in that order.
fn dress(file: &File, metadata: &Metadata) -> io::Result<()> {
    link::chown(file.as_fd(), metadata.uid, metadata.gid)?;
    file.set_permissions(Permissions::from_mode(metadata.mode & 0o7777))?;
    link::dress(file.as_fd(), metadata)
}
