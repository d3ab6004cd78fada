//! What directories were listed as: names, which of them are directories and links, and where the
//! links lead. What the files are is looked at each time.
//!
//! A directory is known again by device, inode, mtime and ctime, all of them. The kernel sets both
//! times whenever a name in it is made, removed, renamed or put in another one's place (inode(7)),
//! and nobody else sets the ctime.

use rustix::fs::{FileType, fstatfs};

use super::OLDEST;
use crate::model::{DirId, DirMeta, EntryKind, InodeId, Inventory, RootPath};
use crate::scan::dir::RootDir;

/// Bytes of names, and of what is kept of their directories; beyond, those go that were of no use
/// for longest. Fewer where tests fill it.
pub(super) const MOST: usize = if cfg!(test) { 1 << 13 } else { 256 << 20 };

/// What is kept of a directory, in bytes.
pub(super) const DIRECTORY: usize = 40;

/// `f_type` of the file systems that keep their directories themselves, and tell of every change
/// (statfs(2), linux/magic.h): ext2 to ext4, xfs, btrfs, tmpfs. Of an overlay a lower layer
/// may be another one at the next mount, and a server says what it likes.
const TELLS: [u32; 4] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994];

/// The directories below a root can be known again by their times.
pub(in crate::scan) fn tells_of_changes(root: &RootDir) -> bool {
    let kind = root.open_dir(&RootPath::default()).map(fstatfs);
    matches!(kind, Ok(Ok(stat)) if TELLS.contains(&(stat.f_type as u32)))
}

/// The names of directories.
#[derive(Debug, Default)]
pub struct Listings {
    /// In order of inodes, but for those that were just learned.
    dirs: Vec<Directory>,
    /// Each name behind the one before: what it is, as `ls -l` tells it, its length, itself; of a link
    /// also the length of its target, and that.
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Directory {
    inode: InodeId,
    mtime: i64,
    ctime: i64,
    /// Where its names lie.
    start: usize,
    len: u32,
    /// How many runs in a row it was of no use for.
    age: u8,
}

impl Listings {
    /// There are none.
    pub(in crate::scan) fn is_empty(&self) -> bool {
        self.dirs.is_empty()
    }

    /// The names of a directory in byte order, if it is still as it was.
    pub(in crate::scan) fn of(&self, meta: &DirMeta) -> Option<Known<'_>> {
        let known = &self.dirs[self.place(meta.inode)?];
        known.is(meta).then(|| Known(&self.bytes[known.start..][..known.len as usize]))
    }

    fn place(&self, inode: InodeId) -> Option<usize> {
        self.dirs.binary_search_by_key(&inode, |known| known.inode).ok()
    }

    /// Keeps the directories that were listed whole and had settled before. What was known is of
    /// use; the rest is added to `new`.
    pub(super) fn learn(&mut self, inventory: &Inventory, settled: i64, new: &mut Self) {
        for dir in inventory.dir_ids() {
            let meta = &inventory.dir(dir).meta;
            match self.place(meta.inode).map(|at| &mut self.dirs[at]) {
                Some(known) if known.is(meta) => known.age = 0,
                _ if inventory.dir(dir).complete && meta.ctime < settled => new.add(inventory, dir),
                _ => {}
            }
        }
    }

    fn add(&mut self, inventory: &Inventory, dir: DirId) {
        let start = self.bytes.len();
        for (name, kind) in inventory.entries(dir) {
            let (kind, target) = match kind {
                EntryKind::Dir(_) => (b'd', None),
                EntryKind::Symlink(target) => (b'l', Some(target)),
                EntryKind::File(_) | EntryKind::Special(_) => (b'-', None),
            };
            // NAME_MAX and PATH_MAX are what the lengths have room for.
            self.bytes.extend([kind, name.len() as u8]);
            self.bytes.extend(name);
            if let Some(target) = target {
                self.bytes.extend((target.len() as u16).to_le_bytes());
                self.bytes.extend(target);
            }
            // A container decides how many names it has.
            if self.size() > MOST {
                return self.bytes.truncate(start);
            }
        }
        if self.size() <= MOST {
            let DirMeta { inode, mtime, ctime, .. } = inventory.dir(dir).meta;
            let len = (self.bytes.len() - start) as u32;
            self.dirs.push(Directory { inode, mtime, ctime, start, len, age: 0 });
        }
    }

    /// What they take, and one directory more.
    fn size(&self) -> usize {
        (self.dirs.len() + 1) * DIRECTORY + self.bytes.len()
    }

    /// What the next run knows: what was learned, and what was known and is not too old.
    pub(super) fn and(mut self, learned: &Self) -> Self {
        self.dirs.iter_mut().for_each(|known| known.age = known.age.saturating_add(1));
        let known = self.dirs.iter().filter(|known| known.age <= OLDEST).map(|dir| (dir, &self));
        let mut all: Vec<_> = learned.dirs.iter().map(|dir| (dir, learned)).chain(known).collect();
        // Of a directory that was known as another, what was learned comes first.
        all.sort_by_key(|(dir, _)| dir.inode);
        all.dedup_by_key(|(dir, _)| dir.inode);
        all.sort_by_key(|(dir, _)| dir.age);
        let mut room = MOST;
        let fits = |(dir, _): &(&Directory, &Self)| {
            let left = room.checked_sub(DIRECTORY + dir.len as usize);
            left.inspect(|&left| room = left).is_some()
        };
        let mut kept: Vec<_> = all.into_iter().take_while(fits).collect();
        kept.sort_unstable_by_key(|(dir, _)| dir.inode);
        let mut next = Self::default();
        for (dir, of) in kept {
            let start = next.bytes.len();
            next.bytes.extend_from_slice(&of.bytes[dir.start..][..dir.len as usize]);
            next.dirs.push(Directory { start, ..*dir });
        }
        next
    }

    /// How many directories, and how many bytes of names.
    pub(super) fn counts(&self) -> [u32; 2] {
        [self.dirs.len() as u32, self.bytes.len() as u32]
    }

    /// What a file says.
    pub(super) fn parse(dirs: &[u8], bytes: &[u8]) -> Option<Self> {
        let mut end = 0;
        let dirs = dirs.as_chunks::<DIRECTORY>().0.iter();
        let dirs: Vec<Directory> = dirs.map(|bytes| Directory::parse(bytes, &mut end)).collect();
        (end == bytes.len()).then(|| Self { dirs, bytes: bytes.to_vec() })
    }

    /// The same, the other way round.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        self.dirs.iter().for_each(|dir| dir.write(to));
        to.extend_from_slice(&self.bytes);
    }
}

impl Directory {
    fn is(&self, meta: &DirMeta) -> bool {
        (self.inode, self.mtime, self.ctime) == (meta.inode, meta.mtime, meta.ctime)
    }

    /// Its names lie behind those of the directories before.
    fn parse(bytes: &[u8; DIRECTORY], end: &mut usize) -> Self {
        let words = bytes.as_chunks::<8>().0;
        let number = |at: usize| u64::from_le_bytes(words[at]);
        let start = *end;
        let [a, b, c, d, age, ..] = words[4];
        let len = u32::from_le_bytes([a, b, c, d]);
        *end += len as usize;
        Self {
            inode: InodeId { dev: number(0), ino: number(1) },
            mtime: number(2).cast_signed(),
            ctime: number(3).cast_signed(),
            start,
            len,
            age,
        }
    }

    fn write(&self, to: &mut Vec<u8>) {
        let Self { inode, mtime, ctime, len, age, .. } = *self;
        let numbers = [inode.dev, inode.ino, mtime.cast_unsigned(), ctime.cast_unsigned()];
        to.extend_from_slice(numbers.map(u64::to_le_bytes).as_flattened());
        to.extend_from_slice(&len.to_le_bytes());
        to.extend_from_slice(&[age, 0, 0, 0]);
    }
}

/// The names of one directory, as they are kept.
#[derive(Debug, Clone, Copy)]
pub(in crate::scan) struct Known<'a>(&'a [u8]);

/// A name, what it is (where it is neither a directory nor a link, that is looked at), and where a link leads.
impl<'a> Iterator for Known<'a> {
    type Item = (&'a [u8], FileType, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[kind, len], rest) = self.0.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(len.into())?;
        let (kind, target, rest) = match kind {
            b'l' => {
                let (len, rest) = rest.split_first_chunk()?;
                let (target, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
                (FileType::Symlink, target, rest)
            }
            b'd' => (FileType::Directory, &[][..], rest),
            _ => (FileType::RegularFile, &[][..], rest),
        };
        self.0 = rest;
        Some((name, kind, target))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::model::{Listed, Listing};

    const SETTLED: i64 = 2000;

    fn meta(ino: u64) -> DirMeta {
        DirMeta { inode: InodeId { dev: 7, ino }, mtime: -5, ctime: 1000, mode: 0o40755 }
    }

    /// A root that holds these alone.
    fn root(meta: DirMeta, names: &[(&str, Listed<'_>)]) -> Inventory {
        let mut inventory = Inventory::new();
        let listing: Listing = names.iter().copied().collect();
        inventory.fill(DirId(0), meta, listing.part(0..listing.len())).unwrap();
        inventory
    }

    /// What the next run knows.
    fn next(mut known: Listings, inventories: &[Inventory]) -> Listings {
        let mut learned = Listings::default();
        for inventory in inventories {
            known.learn(inventory, SETTLED, &mut learned);
        }
        let (next, mut bytes) = (known.and(&learned), Vec::new());
        next.write(&mut bytes);
        let [dirs, names] = next.counts();
        let (dirs, rest) = bytes.split_at(dirs as usize * DIRECTORY);
        assert_eq!(rest.len(), names as usize);
        Listings::parse(dirs, rest).unwrap()
    }

    fn told<'a>(
        known: &'a Listings,
        meta: &DirMeta,
    ) -> Option<Vec<(&'a [u8], FileType, &'a [u8])>> {
        known.of(meta).map(Iterator::collect)
    }

    #[test]
    fn a_directory_is_told_as_it_was_listed() {
        let long = "n".repeat(255);
        let (target, names) = ("t".repeat(4095), |target| {
            [
                (long.as_str(), Listed::sample_file(9, 1)),
                ("sub", Listed::Dir),
                ("to", Listed::Symlink(target)),
            ]
        });
        let known = next(
            Listings::default(),
            &[root(meta(3), &names(target.as_bytes())), root(meta(2), &[])],
        );
        let expected = [
            (long.as_bytes(), FileType::RegularFile, &b""[..]),
            (b"sub", FileType::Directory, b""),
            (b"to", FileType::Symlink, target.as_bytes()),
        ];
        assert_eq!(told(&known, &meta(3)).unwrap(), expected);
        assert_eq!(told(&known, &meta(2)).unwrap(), []);
        assert_eq!(told(&known, &meta(4)), None);
    }

    #[test]
    fn any_change_counts() {
        let known = next(Listings::default(), &[root(meta(3), &[("a", Listed::Dir)])]);
        let other = DirMeta { inode: InodeId { dev: 8, ino: 3 }, ..meta(3) };
        let changed = [other, DirMeta { mtime: -4, ..meta(3) }, DirMeta { ctime: 999, ..meta(3) }];
        assert_eq!(changed.map(|meta| told(&known, &meta)), [None, None, None]);
        let now = DirMeta { ctime: 1500, ..meta(3) };
        let known = next(known, &[root(now, &[("b", Listed::Dir)])]);
        assert_eq!(told(&known, &now).unwrap()[0].0, b"b");
        assert_eq!(told(&known, &meta(3)), None);
    }

    #[test]
    fn what_was_changed_just_now_or_cut_off_is_not_kept() {
        let fresh = DirMeta { ctime: SETTLED, ..meta(3) };
        let mut cut = root(meta(2), &[("a", Listed::Dir)]);
        cut.mark_incomplete(DirId(0));
        let known = next(Listings::default(), &[root(fresh, &[("a", Listed::Dir)]), cut]);
        assert!(known.is_empty());
    }

    #[test]
    fn what_is_of_no_use_goes() {
        let used = || root(meta(1), &[("a", Listed::Dir)]);
        let mut known = next(Listings::default(), &[used(), root(meta(2), &[])]);
        for _ in 0..=OLDEST {
            assert!(told(&known, &meta(2)).is_some());
            known = next(known, &[used()]);
        }
        assert_eq!((told(&known, &meta(1)).is_some(), told(&known, &meta(2))), (true, None));
    }

    #[test]
    fn where_there_are_too_many_the_oldest_go() {
        let name = "n".repeat(200);
        let roots = |inodes: std::ops::Range<u64>| -> Vec<Inventory> {
            inodes.map(|ino| root(meta(ino), &[(name.as_str(), Listed::Dir)])).collect()
        };
        let fit = MOST / (DIRECTORY + 2 + name.len());
        let mut learned = Listings::default();
        roots(0..50).iter().for_each(|root| learned.add(root, DirId(0)));
        assert_eq!(learned.dirs.len(), fit, "no more is learned than is kept");
        let known = next(Listings::default(), &roots(0..20));
        let known = next(known, &roots(20..40));
        assert_eq!((known.dirs.len(), fit < 40), (fit, true));
        assert!((20..40).all(|ino| told(&known, &meta(ino)).is_some()));
    }

    #[test]
    fn a_list_that_does_not_add_up_is_none() {
        assert!(Listings::parse(&[], b"d\x01a").is_none());
        assert!(Listings::parse(&[0xff; DIRECTORY], b"d\x01a").is_none());
        // What was cut off ends there.
        assert_eq!(Known(b"d\x01al\x01b\x09\0there").count(), 1);
    }
}
