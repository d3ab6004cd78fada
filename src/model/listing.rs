//! What directories hold, as it was read: names of several of them in one piece, so that a name
//! takes no allocation of its own.

use std::ops::Range;

use super::{FileMeta, SpecialKind};

/// What one name is, before it is taken into an [`Inventory`](super::Inventory).
#[derive(Debug, Clone, Copy)]
pub enum Listed<'a> {
    /// A directory, not yet read.
    Dir,
    /// A regular file.
    File(FileMeta),
    /// A symbolic link's target.
    Symlink(&'a [u8]),
    /// Anything else.
    Special(SpecialKind),
}

/// Names, and what they are; those of one directory stand one after another.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Each name, and behind that of a symbolic link its target.
    bytes: Vec<u8>,
    names: Vec<Named>,
}

/// Where a name lies, and what it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub(super) start: u32,
    pub(super) len: u32,
    pub(super) kind: Kind,
}

/// [`Listed`], but for the target.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Dir,
    File(FileMeta),
    /// So many bytes behind the name.
    Symlink(u32),
    Special(SpecialKind),
}

impl Listing {
    /// Room for so many names.
    pub fn with_capacity(names: usize) -> Self {
        Self { bytes: Vec::new(), names: Vec::with_capacity(names) }
    }

    /// Adds a name; false where there is no room: it takes 4 GiB of names at most.
    #[must_use]
    pub fn push(&mut self, name: &[u8], listed: Listed<'_>) -> bool {
        let (target, kind) = match listed {
            Listed::Dir => (&[][..], Kind::Dir),
            Listed::File(meta) => (&[][..], Kind::File(meta)),
            Listed::Symlink(target) => (target, Kind::Symlink(target.len() as u32)),
            Listed::Special(special) => (&[][..], Kind::Special(special)),
        };
        let (start, len) = (self.bytes.len(), name.len() as u32);
        if start + name.len() + target.len() > u32::MAX as usize {
            return false;
        }
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(target);
        self.names.push(Named { start: start as u32, len, kind });
        true
    }

    /// Adds all of another one; false where there is no room.
    #[must_use]
    pub fn append(&mut self, other: &Self) -> bool {
        let base = self.bytes.len();
        if base + other.bytes.len() > u32::MAX as usize {
            return false;
        }
        self.bytes.extend_from_slice(&other.bytes);
        let moved = |named: &Named| Named { start: named.start + base as u32, ..*named };
        self.names.extend(other.names.iter().map(moved));
        true
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The bytes that it takes.
    pub fn room(&self) -> usize {
        self.bytes.len() + self.names.len() * size_of::<Named>()
    }

    /// The name at a place.
    pub fn name(&self, at: usize) -> &[u8] {
        let named = &self.names[at];
        &self.bytes[named.start as usize..][..named.len as usize]
    }

    /// Keeps the first names alone.
    pub fn truncate(&mut self, names: usize) {
        if let Some(first) = self.names.get(names) {
            self.bytes.truncate(first.start as usize);
            self.names.truncate(names);
        }
    }

    /// Some of the names, by their places.
    pub fn part(&self, names: Range<usize>) -> Part<'_> {
        Part { bytes: &self.bytes, names: &self.names[names] }
    }
}

#[cfg(test)]
impl Listing {
    /// All of the names.
    pub(crate) fn all(&self) -> Part<'_> {
        self.part(0..self.len())
    }
}

#[cfg(test)]
impl<'a, N: AsRef<[u8]>> FromIterator<(N, Listed<'a>)> for Listing {
    fn from_iter<I: IntoIterator<Item = (N, Listed<'a>)>>(names: I) -> Self {
        let mut found = Self::default();
        let fits = names.into_iter().all(|(name, listed)| found.push(name.as_ref(), listed));
        assert!(fits, "names of more than 4 GiB");
        found
    }
}

/// The names of one directory.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    bytes: &'a [u8],
    names: &'a [Named],
}

impl<'a> Part<'a> {
    /// The names, each by where it lies behind the first, and what all of them take with their targets.
    pub(super) fn parts(&self) -> (&'a [u8], impl Iterator<Item = Named> + use<'a>) {
        let start = self.names.first().map_or(0, |first| first.start);
        let end = self.names.last().map_or(0, Named::end);
        let names = self.names.iter();
        let moved = move |named: &Named| Named { start: named.start - start, ..*named };
        (&self.bytes[start as usize..end as usize], names.map(moved))
    }
}

impl Named {
    /// Behind its target, if it has one.
    fn end(&self) -> u32 {
        let target = match self.kind {
            Kind::Symlink(len) => len,
            Kind::Dir | Kind::File(_) | Kind::Special(_) => 0,
        };
        self.start + self.len + target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_the_bytes_of_its_names_and_targets() {
        let link = Listed::Symlink(b"there");
        let mut listing: Listing = [("a", Listed::Dir), ("b", link)].into_iter().collect();
        let other: Listing = [("c", link), ("d", Listed::Dir)].into_iter().collect();
        assert!(listing.append(&other));
        let part = |listing: &Listing, names: Range<usize>| {
            let part = listing.part(names);
            let (bytes, names) = part.parts();
            (bytes.to_vec(), names.map(|named| (named.start, named.len)).collect::<Vec<_>>())
        };
        assert_eq!(part(&listing, 1..3), (b"btherecthere".to_vec(), vec![(0, 1), (6, 1)]));
        assert_eq!(part(&listing, 3..4), (b"d".to_vec(), vec![(0, 1)]));
        assert_eq!(part(&listing, 2..2), (Vec::new(), Vec::new()));
        assert_eq!((listing.name(1), listing.name(3)), (&b"b"[..], &b"d"[..]));
        listing.truncate(4);
        assert_eq!(listing.len(), 4);
        listing.truncate(2);
        assert_eq!(listing.all().parts().0, b"abthere");
    }
}
