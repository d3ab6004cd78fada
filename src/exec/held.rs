//! What is about to be displaced is held open, with nobody writing it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use rustix::fs::{IFlags, Statx};

use super::cause::explain;
use super::content;
use super::place::{Place, identity, inode_flags, stat_now};
use super::tree::{self, Alike, Tree};
use super::work::CHANGED;
use crate::model::{Bytes, ContentId, Metadata, TreeEntry};
use crate::scan::candidate::Label;
use crate::scan::dir::open_dir_at;
use crate::sys::ReadLease;

/// A regular file that is about to be displaced, held open, with nobody writing it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) file: File,
    /// `None`: the file system grants none. Then the content is read again afterwards.
    lease: Option<ReadLease>,
    pub(crate) stat: Statx,
    content: ContentId,
    size: Bytes,
}

impl Held {
    /// Reads a file of this size, once nobody has it open for writing.
    pub(crate) fn take(file: File, stat: Statx, size: Bytes) -> Result<Self, String> {
        if inode_flags(file.as_fd()).intersects(IFlags::IMMUTABLE | IFlags::APPEND) {
            return Err("it is immutable or append-only; `chattr -i -a` allows it".to_owned());
        }
        let lease = lease(&file)?;
        match content::hash(&file, size) {
            Ok(Some(content)) => Ok(Self { file, lease, stat, content, size }),
            Ok(None) => Err(CHANGED.to_owned()),
            Err(error) => Err(explain("read it", &error)),
        }
    }

    /// What it holds.
    pub(crate) fn content(&self) -> ContentId {
        self.content
    }

    /// It is what it was when it was checked.
    pub(crate) fn is_unchanged(&self) -> io::Result<bool> {
        let now = stat_now(self.file.as_fd())?;
        if !same(&now, &self.stat) {
            return Ok(false);
        }
        match &self.lease {
            // Whoever ends it waits for this file to be closed, and then writes to this inode.
            Some(lease) => Ok(lease.holds(&self.file)),
            None => Ok(content::hash(&self.file, self.size)? == Some(self.content)),
        }
    }

    /// Its blocks, once no name leads to it.
    pub(crate) fn freed(&self) -> Bytes {
        match stat_now(self.file.as_fd()) {
            Ok(now) if now.stx_nlink == 0 => Bytes(now.stx_blocks.saturating_mul(512)),
            _ => Bytes(0),
        }
    }
}

/// Not the time of change: an exchange moves it on some file systems. Not the names either.
pub(crate) fn same(one: &Statx, other: &Statx) -> bool {
    let of = |stat: &Statx| {
        (
            (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino, stat.stx_size),
            (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            (stat.stx_mode, stat.stx_uid, stat.stx_gid),
        )
    };
    of(one) == of(other)
}

/// A directory that is about to be displaced, every file in it held.
#[derive(Debug)]
pub(crate) struct HeldTree {
    tree: Tree,
    /// Each inode once.
    files: Vec<Held>,
    /// Which inode the directory is.
    pub(crate) which: (u64, i64, u32),
}

impl HeldTree {
    /// Reads the directory, and holds what is in it: it must be the planned one, and all of it
    /// belong to `owner`. What has a `label` must have this one.
    pub(crate) fn take(
        place: &Place,
        digest: ContentId,
        (owner, label): (u32, Option<&Label>),
    ) -> Result<Self, String> {
        let opened = place.stat().and_then(|stat| {
            let dir = open_dir_at(place.dir(), &place.name)?;
            let is_it = stat_now(dir.as_fd())?.stx_ino == stat.stx_ino;
            Ok((dir, identity(&stat), is_it))
        });
        let (dir, which, is_it) = opened.map_err(|error| explain("open it", &error))?;
        if !is_it {
            return Err(CHANGED.to_owned());
        }
        let (mut files, mut known) = (Vec::new(), HashMap::new());
        let mut hold = |file: File, stat: &Statx| -> Result<ContentId, String> {
            if let Some(content) = known.get(&stat.stx_ino) {
                return Ok(*content);
            }
            let held = Held::take(file, *stat, Bytes(stat.stx_size))?;
            known.insert(stat.stx_ino, held.content());
            let content = held.content();
            files.push(held);
            Ok(content)
        };
        let tree = tree::read(dir.as_fd(), &mut hold)?;
        if tree.digest != digest {
            return Err(CHANGED.to_owned());
        }
        tree::locked(dir.as_fd(), &tree.entries)?;
        match tree::unfit(&tree, (owner, label)) {
            Some(why) => Err(why),
            None => Ok(Self { tree, files, which }),
        }
    }

    /// What is below it.
    pub(crate) fn entries(&self) -> &[TreeEntry] {
        &self.tree.entries
    }

    /// The directory's own.
    pub(crate) fn top(&self) -> &Metadata {
        &self.tree.top
    }

    /// It is under this name, with everything that was in it, and nobody has written any of it.
    pub(crate) fn is_whole(&self, place: &Place) -> io::Result<bool> {
        for file in &self.files {
            if !file.is_unchanged()? {
                return Ok(false);
            }
        }
        Ok(tree::holds(place, &self.tree.entries, Alike::Inodes))
    }

    /// Nobody finds its files any more that had not opened one already.
    pub(crate) fn hide(&self, beside: &Place) -> io::Result<()> {
        tree::hide(beside, &self.tree.entries)
    }

    /// It is hidden, and nobody writes any of its files.
    pub(crate) fn may_go(&self, beside: &Place) -> io::Result<bool> {
        if !tree::is_hidden(beside, &self.tree.entries)? {
            return Ok(false);
        }
        for file in &self.files {
            if !file.is_unchanged()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The blocks of its files, once no name leads to them.
    pub(crate) fn freed(&self) -> Bytes {
        self.files.iter().map(Held::freed).sum()
    }
}

/// Nobody writes it, and nobody will without its being noticed.
fn lease(file: &File) -> Result<Option<ReadLease>, String> {
    match ReadLease::take(file) {
        Ok(lease) => Ok(Some(lease)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err("a process has it open for writing; run dedupe again when it is done".to_owned())
        }
        Err(_) => Ok(None),
    }
}
