//! What two directories have in common when they are the same, as a hash.

use super::ContentId;

/// Names below one directory that becomes a link to one in the store: each of them is journaled,
/// and each file is held open meanwhile.
pub const TREE_NAMES: usize = 65_536;

/// Directories that lie in one another below it.
pub const TREE_DEPTH: usize = 64;

/// Hashes one directory, its entries in the order of their names: the mode of the directory and
/// of its files, names, kinds, contents and the targets of links. Owners and times are no part
/// of it.
///
/// The bytes are gathered first: a hash of one piece costs less than one of many small ones.
#[derive(Debug)]
pub struct TreeHasher(Vec<u8>);

impl TreeHasher {
    /// Begins with the directory's own `st_mode`.
    pub fn new(mode: u32) -> Self {
        Self(mode.to_le_bytes().into())
    }

    /// A directory in it, by its own hash.
    pub fn dir(&mut self, name: &[u8], below: ContentId) {
        self.field(b'd', 0, name, &below.0);
    }

    /// A regular file in it, with its `st_mode`.
    pub fn file(&mut self, name: &[u8], mode: u32, content: &[u8]) {
        self.field(b'f', mode, name, content);
    }

    /// A symbolic link in it.
    pub fn link(&mut self, name: &[u8], target: &[u8]) {
        self.field(b'l', 0, name, target);
    }

    /// The hash.
    pub fn finish(self) -> ContentId {
        ContentId(blake3::hash(&self.0).into())
    }

    fn field(&mut self, kind: u8, mode: u32, name: &[u8], value: &[u8]) {
        self.0.push(kind);
        self.0.extend_from_slice(&mode.to_le_bytes());
        for bytes in [name, value] {
            self.0.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            self.0.extend_from_slice(bytes);
        }
    }
}
