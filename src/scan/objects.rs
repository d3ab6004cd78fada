//! The objects in the store, read whole.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use walkdir::WalkDir;

use crate::model::{Bytes, ContentId, FileStamp, InodeId, ObjectName};

/// A file in the store that has an object's name.
#[derive(Debug)]
pub struct StoredObject {
    /// Its name.
    pub name: ObjectName,
    /// What it is.
    pub stamp: FileStamp,
    /// `st_mode`.
    pub mode: u32,
    /// `st_uid`.
    pub uid: u32,
    /// What it holds, or why that cannot be told.
    pub content: io::Result<ContentId>,
}

/// Reads every object of a store that is a file. Other names are the operator's own, and left alone.
///
/// # Errors
///
/// When the directory cannot be listed.
pub fn objects(store: &Path) -> io::Result<Vec<StoredObject>> {
    let entries = WalkDir::new(store).min_depth(1).max_depth(1).sort_by_file_name();
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_str().and_then(ObjectName::parse);
        let Some(name) = name.filter(|name| !name.is_tree()) else { continue };
        let stat = entry.metadata()?;
        let content = match stat.is_file() {
            true => hash(entry.path(), stat.len()),
            false => Err(io::Error::other("it is no regular file")),
        };
        let stamp = FileStamp {
            inode: InodeId { dev: stat.dev(), ino: stat.ino() },
            size: Bytes(stat.len()),
            mtime: stat.mtime().saturating_mul(1_000_000_000).saturating_add(stat.mtime_nsec()),
        };
        found.push(StoredObject { name, stamp, mode: stat.mode(), uid: stat.uid(), content });
    }
    Ok(found)
}

fn hash(path: &Path, size: u64) -> io::Result<ContentId> {
    content(&File::open(path)?, size)
}

/// What a file of this size holds.
///
/// # Errors
///
/// Those of the system; when it has another size.
pub fn content(file: &File, size: u64) -> io::Result<ContentId> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut rest = file.take(size.saturating_add(1));
    let mut read = 0;
    loop {
        match rest.read(&mut buffer)? {
            0 if read == size => return Ok(ContentId(hasher.finalize().into())),
            0 => return Err(io::Error::other("its size changes while it is read")),
            got => {
                read += got as u64;
                hasher.update(&buffer[..got]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn objects_are_read_and_other_names_are_left() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = b"program";
        let content = ContentId(blake3::hash(bytes).into());
        let name = ObjectName::new("busybox", "x86_64", content);
        std::fs::write(dir.path().join(name.as_str()), bytes).unwrap();
        std::fs::write(dir.path().join("notes"), "the operator's own").unwrap();
        let found = objects(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, name);
        assert_eq!(*found[0].content.as_ref().unwrap(), content);
    }
}
