//! The files that several roots have names of.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use crate::analyze::drift::Named;
use crate::model::{Bytes, Check, ContentId, FileStamp, HostPath, InodeId};
use crate::scan::dir::open_regular;
use crate::scan::objects::content;

use super::Looked;

/// A file that several roots have names of, and that holds what it held when it came to be shared.
pub(super) struct SharedFile {
    /// One of its names.
    pub(super) path: HostPath,
    /// What it is.
    pub(super) stamp: FileStamp,
    /// What it holds.
    pub(super) content: ContentId,
    /// The roots in which a run gave it a name.
    pub(super) roots: Vec<InodeId>,
}

impl SharedFile {
    /// Reads it by the name that it has in a root; what is wrong with it is a check.
    pub(super) fn read(root: &Looked, name: &Named) -> Result<Self, Check> {
        let read = root.dir.open_dir(&name.path.parent()).and_then(|dir| {
            let (file, _) = open_regular(dir.as_fd(), name.path.file_name())?;
            Ok((content(&file, name.size.0)?, stamp(&file)?))
        });
        let path = &root.standing.path;
        let detail = match read {
            Ok((content, stamp)) if content == name.content => {
                let (path, roots) = (name.path.on_host(path), vec![root.inode]);
                return Ok(Self { path, stamp, content, roots });
            }
            Ok(_) => WRITTEN.to_owned(),
            Err(error) => format!("{WRITTEN} ({})", crate::scan::cause(&error)),
        };
        Err(Check::bad("written", detail).in_root(path).at(name.path.as_bytes()))
    }
}

fn stamp(file: &File) -> std::io::Result<FileStamp> {
    let stat = file.metadata()?;
    Ok(FileStamp {
        inode: InodeId { dev: stat.dev(), ino: stat.ino() },
        size: Bytes(stat.len()),
        mtime: stat.mtime().saturating_mul(1_000_000_000).saturating_add(stat.mtime_nsec()),
    })
}

/// Each file once, with all of its roots.
pub(super) fn merge(files: Vec<SharedFile>) -> Vec<SharedFile> {
    let mut merged: Vec<SharedFile> = Vec::new();
    for file in files {
        match merged.iter_mut().find(|known| known.stamp == file.stamp) {
            Some(known) => known.roots.extend(file.roots),
            None => merged.push(file),
        }
    }
    merged
}

const WRITTEN: &str = "it does not hold what it held when it came to be shared: one of the roots that have names of \
     it wrote it, and all of them run that; undo leaves it as it is";
