//! The names of one directory, as `getdents64(2)` tells them, or a cache.

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
    /// So many bytes behind the name are where a link leads, if that is known.
    target: u16,
}

/// A name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawName<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: FileType,
    /// Where a link leads, if that is known.
    pub(super) target: Option<&'a [u8]>,
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
        self.push_known(name, kind, &[])
    }

    /// The same, with what a link is known to lead to.
    #[must_use]
    pub(super) fn push_known(&mut self, name: &[u8], kind: FileType, target: &[u8]) -> bool {
        let (start, len) = (self.bytes.len(), name.len() as u32);
        let fits = start + name.len() + target.len() <= u32::MAX as usize;
        if fits {
            self.bytes.extend_from_slice(name);
            self.bytes.extend_from_slice(target);
            let (head, start, target) = (head(name), start as u32, target.len() as u16);
            self.list.push(Named { head, start, len, kind, target });
        }
        fits
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Each name, and what it is.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = RawName<'_>> {
        self.list.iter().map(|named| {
            let name = named.of(&self.bytes);
            let target = &self.bytes[named.start as usize + name.len()..][..named.target.into()];
            let target = Some(target).filter(|target| !target.is_empty());
            RawName { name, kind: named.kind, target }
        })
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
        assert_eq!(names.iter().map(|it| it.name).collect::<Vec<_>>(), all);
    }

    #[test]
    fn names_are_sorted_and_keep_what_they_are() {
        let mut names = RawNames::default();
        let all = [("b", FileType::Directory), ("a", FileType::Fifo), ("ab", FileType::Directory)];
        assert!(all.into_iter().all(|(name, kind)| names.push(name.as_bytes(), kind)));
        names.sort();
        let told = |names: &RawNames| -> Vec<Vec<u8>> {
            names.iter().map(|it| it.name.to_vec()).collect()
        };
        assert_eq!(told(&names), [b"a".to_vec(), b"ab".to_vec(), b"b".to_vec()]);
        names.keep_dirs();
        assert_eq!(told(&names), [b"ab".to_vec(), b"b".to_vec()]);
        names.clear();
        assert_eq!(names.len(), 0);
    }
}
