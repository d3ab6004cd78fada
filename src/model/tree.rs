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
/// The bytes are gathered: a hash of one piece costs less than one of many small ones.
#[derive(Debug)]
pub struct TreeHasher {
    gathered: Vec<u8>,
    /// What was gathered before, where there is more than fits.
    before: Option<Box<blake3::Hasher>>,
}

/// Bytes that most directories do not exceed.
const MOSTLY: usize = 2048;

/// Bytes that are gathered, but for the last entry: a container decides how many there are.
const GATHERED: usize = 64 * 1024;

impl TreeHasher {
    /// Begins with the directory's own `st_mode`.
    pub fn new(mode: u32) -> Self {
        let mut gathered = Vec::with_capacity(MOSTLY);
        gathered.extend_from_slice(&mode.to_le_bytes());
        Self { gathered, before: None }
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
    pub fn finish(mut self) -> ContentId {
        let hash = match &mut self.before {
            Some(hasher) => hasher.update(&self.gathered).finalize(),
            None => blake3::hash(&self.gathered),
        };
        ContentId(hash.into())
    }

    fn field(&mut self, kind: u8, mode: u32, name: &[u8], value: &[u8]) {
        self.gathered.push(kind);
        self.gathered.extend_from_slice(&mode.to_le_bytes());
        for bytes in [name, value] {
            self.gathered.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            self.gathered.extend_from_slice(bytes);
        }
        if self.gathered.len() >= GATHERED {
            self.before.get_or_insert_default().update(&self.gathered);
            self.gathered.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It stands in reports and in journals.
    #[test]
    fn the_hash_is_that_of_the_bytes_in_a_row() {
        let mut tree = TreeHasher::new(0o40755);
        let mut bytes = 0o40755_u32.to_le_bytes().to_vec();
        for at in 0..3000_u32 {
            let name = at.to_string();
            tree.file(name.as_bytes(), at, &[7; 32]);
            bytes.push(b'f');
            bytes.extend(at.to_le_bytes());
            bytes.extend((name.len() as u64).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(32_u64.to_le_bytes());
            bytes.extend([7; 32]);
        }
        assert!(bytes.len() > 2 * GATHERED);
        assert_eq!(tree.finish().0, *blake3::hash(&bytes).as_bytes());
    }
}
