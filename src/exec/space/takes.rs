//! How much things take that are going to be written: no less than they do on any file system.

use std::collections::HashSet;

use crate::model::{Before, Metadata, TreeEntry};

/// A block of a file system.
const BLOCK: u64 = 4096;

/// A directory with few names.
pub(crate) const DIRECTORY: u64 = BLOCK;

/// A symbolic link. A short one lies in its inode: of up to 59 bytes on ext4, of more elsewhere.
pub(crate) fn link(target: usize) -> u64 {
    if target < 60 { 0 } else { BLOCK }
}

/// What the journal says of one thing with such names: numbers and names of fields, why it was
/// left, perhaps, and the names as base64.
pub(crate) fn record(names: &[usize]) -> u64 {
    1024 + names.iter().map(|&name| encoded(name)).fold(0, u64::saturating_add)
}

/// What the journal says of steps by their numbers alone: that they are begun, and how they ended.
pub(crate) fn steps(count: usize) -> u64 {
    1024 + 64 * count as u64
}

/// What the journal says of something below a directory.
pub(crate) fn below(entry: &TreeEntry) -> u64 {
    let target = match &entry.before {
        Before::Link { target, .. } => target.len(),
        _ => 0,
    };
    let metadata = entry.before.metadata().map_or(0, attributes);
    512 + encoded(entry.path.as_bytes().len()) + encoded(target) + metadata
}

/// The extended attributes of something, in the journal.
pub(crate) fn attributes(metadata: &Metadata) -> u64 {
    let one = |(name, value): &(Vec<u8>, Vec<u8>)| 64 + encoded(name.len() + value.len());
    metadata.xattrs.iter().map(one).fold(0, u64::saturating_add)
}

/// Base64 makes four bytes of three.
fn encoded(length: usize) -> u64 {
    4 + length as u64 * 4 / 3
}

/// What lies in a directory beside the content of files: names, links, directories.
pub(crate) fn beside_files(entries: &[TreeEntry]) -> u64 {
    let one = |entry: &TreeEntry| {
        // Twice as many names as fit leave a directory's blocks half full.
        let name = 2 * (entry.path.file_name().len() as u64 + 24);
        name + match &entry.before {
            Before::Link { target, .. } => link(target.len()),
            Before::Tree { .. } => DIRECTORY,
            _ => 0,
        }
    };
    DIRECTORY + entries.iter().map(one).fold(0, u64::saturating_add)
}

/// The sizes of the files in a directory, each once.
pub(crate) fn sizes(entries: &[TreeEntry]) -> u64 {
    let mut seen = HashSet::new();
    let sizes = entries.iter().map(|entry| match &entry.before {
        Before::File { ino, size, .. } if seen.insert(*ino) => size.0,
        _ => 0,
    });
    sizes.map(whole_blocks).fold(0, u64::saturating_add)
}

/// A file takes whole blocks.
pub(crate) fn whole_blocks(size: u64) -> u64 {
    size.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::model::{Bytes, ContentId, RootPath};

    fn metadata(xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Metadata {
        let (uid, gid, mode) = (u32::MAX, u32::MAX, u32::MAX);
        Metadata { uid, gid, mode, atime: i64::MIN, mtime: i64::MIN, xattrs, flags: u32::MAX }
    }

    #[test]
    fn what_the_journal_says_of_an_entry_takes_no_more_than_is_counted() {
        let all = vec![(b"user.a".to_vec(), vec![0xff; 5000]), (b"user.b".to_vec(), vec![])];
        let befores = [
            Before::File {
                ino: u64::MAX,
                size: Bytes(u64::MAX),
                nlink: u32::MAX,
                content: ContentId([0xff; 32]),
                metadata: metadata(all.clone()),
            },
            Before::Link { target: vec![0xff; 4000], metadata: metadata(Vec::new()) },
            Before::Tree { metadata: metadata(all) },
        ];
        for before in befores {
            let path = RootPath::new(vec![0xff; 4000]);
            let entry = TreeEntry { path, before };
            let said = serde_json::to_vec(&entry).unwrap().len() as u64 + 1;
            assert!((said..said + 1024).contains(&below(&entry)), "{said} of {}", below(&entry));
        }
    }
}
