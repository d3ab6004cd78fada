//! The names of one directory, as `getdents64(2)` tells them.

use rustix::fs::FileType;

/// Names and kinds. The bytes lie in one piece, so that a name takes no allocation of its own.
#[derive(Debug, Default)]
pub(super) struct RawNames {
    bytes: Vec<u8>,
    list: Vec<Named>,
}

/// Where a name lies in the piece, and what it is.
#[derive(Debug)]
struct Named {
    /// The first bytes, as a number that is in their order: most names differ there.
    head: u64,
    start: u32,
    len: u32,
    kind: FileType,
}

impl Named {
    fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start as usize..][..self.len as usize]
    }
}

impl RawNames {
    /// Adds a name; false where there is no room: it takes 4 GiB of names at most.
    #[must_use]
    pub(super) fn push(&mut self, name: &[u8], kind: FileType) -> bool {
        let (start, len) = (self.bytes.len(), name.len() as u32);
        let fits = start + name.len() <= u32::MAX as usize;
        if fits {
            self.bytes.extend_from_slice(name);
            self.list.push(Named { head: head(name), start: start as u32, len, kind });
        }
        fits
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Each name, and what it is.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], FileType)> {
        self.list.iter().map(|named| (named.of(&self.bytes), named.kind))
    }

    /// Puts the names in byte order.
    pub(super) fn sort(&mut self) {
        let bytes = &self.bytes;
        let order =
            |a: &Named, b: &Named| a.head.cmp(&b.head).then_with(|| a.of(bytes).cmp(b.of(bytes)));
        self.list.sort_unstable_by(order);
    }

    /// Keeps the directories alone.
    pub(super) fn keep_dirs(&mut self) {
        self.list.retain(|named| named.kind == FileType::Directory);
    }

    /// What it once took is no more than most directories do.
    pub(super) fn is_small(&self) -> bool {
        self.list.capacity() <= super::BIG && self.bytes.capacity() <= super::BIG * 64
    }

    /// Forgets them all, and keeps the room that they took.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
    }
}

/// Shorter names are filled up with NULs, which stand in none.
fn head(name: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = name.len().min(head.len());
    head[..len].copy_from_slice(&name[..len]);
    u64::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_bytes() {
        let mut all: Vec<&[u8]> = vec![
            b"b",
            b"a",
            b"ab",
            b"abcdefgh",
            b"abcdefghi",
            b"abcdefgha",
            b"abcdefg\xff",
            b"\x01",
        ];
        let mut names = RawNames::default();
        assert!(all.iter().all(|name| names.push(name, FileType::Fifo)));
        names.sort();
        all.sort_unstable();
        assert_eq!(names.iter().map(|(name, _)| name).collect::<Vec<_>>(), all);
    }

    #[test]
    fn names_are_sorted_and_keep_what_they_are() {
        let mut names = RawNames::default();
        let all = [("b", FileType::Directory), ("a", FileType::Fifo), ("ab", FileType::Directory)];
        assert!(all.into_iter().all(|(name, kind)| names.push(name.as_bytes(), kind)));
        names.sort();
        let told = |names: &RawNames| -> Vec<Vec<u8>> {
            names.iter().map(|(name, _)| name.to_vec()).collect()
        };
        assert_eq!(told(&names), [b"a".to_vec(), b"ab".to_vec(), b"b".to_vec()]);
        names.keep_dirs();
        assert_eq!(told(&names), [b"ab".to_vec(), b"b".to_vec()]);
        names.clear();
        assert_eq!(names.len(), 0);
    }
}
