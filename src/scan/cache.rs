//! What earlier runs read: contents by what `statx(2)` says of the files that hold them.
//!
//! A file is known again by device, inode, size, mtime and ctime, all of them. Nobody but the
//! kernel sets a ctime, so whatever writes to a file or changes its mode leaves another one;
//! but a mapping that was written to before may be written to again without one (mmap(2), until
//! the next write-back), and a file system in user space may say what it likes. That is good
//! enough for a report, and not for a change: what is changed is read anew.
//!
//! Directories are known again, too, where that can be told: see [`Listings`].
//!
//! What does not read as a cache counts as nothing.

mod listings;
mod stored;

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

pub use self::listings::Listings;
pub(super) use self::listings::{Known, tells_of_changes};
use self::stored::{DIGEST, KIND, LONGEST, Stored};
use super::dir::RootDir;
use super::read::{Seen, WHOLE, Want};
use crate::model::{Bytes, ContentId, FileMeta, InodeId, Inventory};

/// Records that are kept, 160 MB of them, and 128 MB for what they hold at most; beyond, those go that were of no use for longest.
const MOST: usize = 4_000_000;

/// Bytes of its file that one thread reads in a row.
const PIECE: usize = 1 << 20;

/// Runs in a row that a record may be of no use for.
const OLDEST: u8 = 15;

/// What was changed so shortly before is read again: file systems tell times in steps of up
/// to two seconds, and what is changed twice within one looks as if it was changed once.
const SETTLED: Duration = Duration::from_secs(2);

const ELF: u8 = 1;
const CONTENT: u8 = 2;
const BLOCK: u8 = 4;
const NO_PROGRAM: u8 = 8;

fn has_digest(flags: u8) -> bool {
    flags & (CONTENT | BLOCK) != 0
}

/// What is known of files and directories, and what this run learns.
#[derive(Debug, Default)]
pub struct Cache {
    stored: Stored,
    learned: Vec<Entry>,
    /// What was learned of directories.
    listed: Listings,
    /// What is learned is to be kept: nanoseconds since the epoch before which a file
    /// must have been changed for the last time.
    settled: Option<i64>,
}

/// What a file was known as.
#[derive(Debug)]
pub struct Recalled {
    /// As if it had been read.
    pub seen: Seen,
    /// What is stored of the inode.
    records: Range<usize>,
}

/// Why a file cannot be a cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// It is something else, which must not be lost.
    #[error("it is no cache of cbin-audit, and is not written over")]
    Foreign,
    /// Somebody else could have it say anything.
    #[error("somebody else may write to it")]
    Untrusted,
    /// The system refused.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// What a file is known as, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    inode: InodeId,
    stamp: Stamp,
    flags: u8,
    /// How many runs in a row it was of no use for.
    age: u8,
    digest: Option<[u8; DIGEST]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    mtime: i64,
    ctime: i64,
}

impl Stamp {
    fn of(meta: &FileMeta) -> Self {
        Self { size: meta.size.0, mtime: meta.mtime, ctime: meta.ctime }
    }
}

impl Cache {
    /// Neither knows nor learns anything.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads a cache; a file that is not there, or is damaged, holds nothing. The second
    /// answer says that it is damaged.
    ///
    /// # Errors
    ///
    /// When the file is something else, belongs to somebody else, or cannot be read.
    pub fn open(path: &Path) -> Result<(Self, bool), CacheError> {
        let bytes = read_own(path)?;
        if !bytes.is_empty() && !bytes.starts_with(KIND) {
            return Err(CacheError::Foreign);
        }
        let stored = Stored::parse(&bytes);
        let damaged = stored.is_none() && !bytes.is_empty();
        let settled = SystemTime::now().checked_sub(SETTLED);
        let settled = settled.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let settled = settled.and_then(|since| i64::try_from(since.as_nanos()).ok());
        let stored = stored.unwrap_or_default();
        Ok((Self { stored, settled, ..Self::default() }, damaged))
    }

    /// It knows of no file.
    pub fn is_empty(&self) -> bool {
        self.stored.records.is_empty()
    }

    /// What a file holds, if it was read before and answers what is wanted. It is looked for near a
    /// place, which becomes its own.
    pub fn recall(&self, meta: &FileMeta, want: Want, near: &mut usize) -> Option<Recalled> {
        let at = self.stored.place(meta.inode, *near)?;
        *near = at;
        let (mut known, mut end) = (Told::default(), at);
        for entry in self.of_inode(at, meta.inode) {
            end += 1;
            if entry.stamp == Stamp::of(meta) {
                known.add(&entry);
            }
        }
        Some(Recalled { seen: known.answer(meta.size, want)?, records: at..end })
    }

    /// What is stored of an inode, from its first record on.
    fn of_inode(&self, at: usize, inode: InodeId) -> impl Iterator<Item = Entry> {
        let records = self.stored.records[at..].iter();
        records
            .map_while(|record| self.stored.entry(record))
            .take_while(move |entry| entry.inode == inode)
    }

    /// What was recalled was of use.
    pub fn keep(&mut self, recalled: &Recalled) {
        let records = &mut self.stored.records[recalled.records.clone()];
        records.iter_mut().for_each(|record| record.age = 0);
    }

    /// The directories that need not be listed again.
    pub fn listings(&self) -> &Listings {
        &self.stored.listings
    }

    /// Roots were walked.
    pub fn learn_listings(&mut self, roots: &[RootDir], inventories: &[Inventory]) {
        let Some(settled) = self.settled else { return };
        for (_, inventory) in
            roots.iter().zip(inventories).filter(|(root, _)| tells_of_changes(root))
        {
            self.stored.listings.learn(inventory, settled, &mut self.listed);
        }
    }

    /// A file was read, whole as far as it was wanted.
    pub fn learn(&mut self, meta: &FileMeta, want: Want, seen: &Seen) {
        let settled = self.settled.is_some_and(|before| meta.ctime < before);
        // The text of a script is not kept: there are few, and they are short.
        if !settled || seen.script.is_some() {
            return;
        }
        let elf = if seen.elf { ELF } else { 0 };
        let entry = |flags, digest| Entry {
            inode: meta.inode,
            stamp: Stamp::of(meta),
            flags: flags | elf,
            age: 0,
            digest,
        };
        let found = match (seen.content, seen.block) {
            (Some(content), _) => entry(CONTENT, Some(content.0)),
            (None, Some(block)) => entry(BLOCK, Some(block.0)),
            (None, None) if want == Want::ProgramContent && seen.elf => entry(NO_PROGRAM, None),
            (None, None) => entry(0, None),
        };
        self.learned.push(found);
    }

    /// The file that the next run reads; `None` where this one learned nothing.
    pub fn bytes(mut self) -> Option<Vec<u8>> {
        if self.learned.is_empty() && self.listed.is_empty() {
            // It is large, and nobody need wait until it is taken apart.
            rayon::spawn(|| drop(self));
            return None;
        }
        let order = |entry: &Entry| (entry.inode, entry.flags);
        self.learned.sort_unstable_by_key(order);
        let (learned, mut entries) = (self.learned, Vec::new());
        entries.extend(self.stored.entries().filter_map(|mut entry| {
            entry.age = entry.age.saturating_add(1);
            let at = learned.partition_point(|new| new.inode < entry.inode);
            let newer = learned.get(at).filter(|new| new.inode == entry.inode);
            let current = newer.is_none_or(|new| new.stamp == entry.stamp);
            (entry.age <= OLDEST && current).then_some(entry)
        }));
        let listings = std::mem::take(&mut self.stored.listings).and(&self.listed);
        drop((self.stored, self.listed));
        entries.extend(learned);
        if entries.len() > MOST {
            entries.select_nth_unstable_by_key(MOST, |entry| entry.age);
            entries.truncate(MOST);
        }
        entries.sort_by_key(order);
        entries.dedup_by_key(|entry| order(entry));
        Some(Stored::write(&entries, &listings))
    }
}

/// What the records of one file say together.
#[derive(Debug, Default)]
struct Told {
    any: bool,
    elf: bool,
    no_program: bool,
    content: Option<ContentId>,
    block: Option<ContentId>,
}

impl Told {
    fn add(&mut self, entry: &Entry) {
        self.any = true;
        self.elf |= entry.flags & ELF != 0;
        self.no_program |= entry.flags & NO_PROGRAM != 0;
        let digest = entry.digest.map(ContentId);
        match entry.flags & (CONTENT | BLOCK) {
            CONTENT => self.content = digest,
            BLOCK => self.block = digest,
            _ => {}
        }
    }

    /// What reading would say; `None` where the file has to be read for it.
    fn answer(&self, size: Bytes, want: Want) -> Option<Seen> {
        let kind = Seen { elf: self.elf, ..Seen::default() };
        let whole = || Some(Seen { content: Some(self.content?), ..kind.clone() });
        match want {
            _ if !self.any => None,
            Want::Kind => Some(kind),
            Want::ElfContent | Want::ProgramContent if !self.elf => Some(kind),
            Want::ProgramContent if self.no_program => Some(kind),
            Want::ElfContent | Want::Content if size.0 > WHOLE => {
                Some(Seen { block: Some(self.block?), ..kind })
            }
            Want::ElfContent | Want::ProgramContent | Want::Content => whole(),
            Want::WholeContent | Want::Rest(_) => whole(),
        }
    }
}

/// A file that nobody but its owner, who is us or root, can have written.
fn read_own(path: &Path) -> Result<Vec<u8>, CacheError> {
    const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let opened = File::options().read(true).custom_flags(NONBLOCK).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(CacheError::Foreign);
    }
    let ours = meta.uid() == 0 || meta.uid() == rustix::process::geteuid().as_raw();
    if !ours || meta.mode() & 0o022 != 0 {
        return Err(CacheError::Untrusted);
    }
    let mut bytes = vec![0; meta.len().min(LONGEST as u64) as usize];
    let read = |(at, piece): (usize, &mut [u8])| file.read_exact_at(piece, (at * PIECE) as u64);
    match bytes.par_chunks_mut(PIECE).enumerate().try_for_each(read) {
        // It is not what its size says.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => bytes.clear(),
        read => read?,
    }
    if bytes.is_empty() {
        file.take(LONGEST as u64).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn meta(ino: u64, size: u64) -> FileMeta {
        let inode = InodeId { dev: 7, ino };
        let (mtime, ctime, mode, nlink) = (-5, 1000, 0o100_644, 1);
        FileMeta { inode, size: Bytes(size), allocated: Bytes(4096), mtime, ctime, mode, nlink }
    }

    fn seen(elf: bool, content: Option<u8>, block: Option<u8>) -> Seen {
        let id = |byte| ContentId([byte; DIGEST]);
        Seen { elf, content: content.map(id), block: block.map(id), script: None }
    }

    /// What the next run knows.
    fn again(cache: Cache) -> Cache {
        Cache { stored: Stored::parse(&cache.bytes().unwrap()).unwrap(), ..empty() }
    }

    fn empty() -> Cache {
        Cache { settled: Some(2000), ..Cache::default() }
    }

    fn with(learned: &[(FileMeta, Want, Seen)]) -> Cache {
        let mut cache = empty();
        learned.iter().for_each(|(meta, want, seen)| cache.learn(meta, *want, seen));
        again(cache)
    }

    fn told(cache: &Cache, meta: &FileMeta, want: Want) -> Option<Seen> {
        cache.recall(meta, want, &mut 0).map(|recalled| recalled.seen)
    }

    #[test]
    fn what_was_read_is_told_as_it_was_read() {
        let large = WHOLE + 1;
        let cases = [
            (1, Want::Kind, seen(true, None, None)),
            (1, Want::ElfContent, seen(false, None, None)),
            (1, Want::ElfContent, seen(true, Some(1), None)),
            (1, Want::Content, seen(false, Some(2), None)),
            (1, Want::ProgramContent, seen(true, Some(3), None)),
            (large, Want::ProgramContent, seen(true, None, None)),
            (large, Want::Content, seen(true, None, Some(4))),
            (large, Want::ElfContent, seen(true, None, Some(5))),
            (large, Want::WholeContent, seen(true, Some(6), None)),
        ];
        for (size, want, seen) in cases {
            let cache = with(&[(meta(3, size), want, seen.clone())]);
            assert_eq!(told(&cache, &meta(3, size), want), Some(seen), "{want:?}");
            assert_eq!(told(&cache, &meta(2, size), want), None);
            assert_eq!(told(&cache, &meta(4, size), want), None);
        }
    }

    #[test]
    fn what_was_not_asked_for_is_read() {
        let large = WHOLE + 1;
        let unanswered = [
            (1, Want::Kind, seen(true, None, None), Want::ElfContent),
            (1, Want::Kind, seen(false, None, None), Want::Content),
            (1, Want::Kind, seen(true, None, None), Want::ProgramContent),
            (1, Want::ElfContent, seen(false, None, None), Want::Content),
            (large, Want::ProgramContent, seen(true, None, None), Want::Content),
            (large, Want::WholeContent, seen(true, Some(6), None), Want::Content),
            (large, Want::Content, seen(true, None, Some(6)), Want::WholeContent),
        ];
        for (size, learned, seen, want) in unanswered {
            let cache = with(&[(meta(3, size), learned, seen)]);
            assert_eq!(told(&cache, &meta(3, size), want), None, "{learned:?} for {want:?}");
        }
    }

    #[test]
    fn a_first_block_and_a_whole_are_known_together() {
        let large = meta(3, WHOLE + 1);
        let block = (large, Want::Content, seen(true, None, Some(1)));
        let whole = (large, Want::WholeContent, seen(true, Some(2), None));
        let cache = with(&[block, whole]);
        assert_eq!(told(&cache, &large, Want::Content), Some(seen(true, None, Some(1))));
        assert_eq!(told(&cache, &large, Want::WholeContent), Some(seen(true, Some(2), None)));
    }

    #[test]
    fn any_change_counts() {
        let read = meta(3, 1);
        let cache = with(&[(read, Want::Content, seen(false, Some(1), None))]);
        assert!(cache.recall(&read, Want::Content, &mut 0).is_some());
        let changed = [
            FileMeta { inode: InodeId { dev: 8, ino: 3 }, ..read },
            FileMeta { size: Bytes(2), ..read },
            FileMeta { mtime: -4, ..read },
            FileMeta { ctime: 1001, ..read },
        ];
        for meta in changed {
            assert!(cache.recall(&meta, Want::Content, &mut 0).is_none(), "{meta:?}");
        }
    }

    #[test]
    fn what_was_changed_just_now_is_not_kept() {
        let mut cache = empty();
        let fresh = FileMeta { ctime: 2000, ..meta(3, 1) };
        cache.learn(&fresh, Want::Content, &seen(false, Some(1), None));
        assert!(cache.bytes().is_none());
    }

    #[test]
    fn a_new_content_takes_the_old_ones_place() {
        let (old, new) = (meta(3, 1), FileMeta { ctime: 1500, ..meta(3, 1) });
        let mut cache = with(&[(old, Want::Content, seen(false, Some(1), None))]);
        cache.learn(&new, Want::Content, &seen(false, Some(2), None));
        let cache = again(cache);
        assert_eq!(cache.stored.records.len(), 1);
        assert_eq!(told(&cache, &new, Want::Content), Some(seen(false, Some(2), None)));
    }

    #[test]
    fn what_is_of_no_use_goes() {
        let learn = |cache: &mut Cache, ino| {
            cache.learn(&meta(ino, 1), Want::Content, &seen(false, Some(1), None));
        };
        let mut cache = empty();
        [1, 2].into_iter().for_each(|ino| learn(&mut cache, ino));
        for run in 0..=u64::from(OLDEST) {
            cache = again(cache);
            let used = cache.recall(&meta(1, 1), Want::Content, &mut 0).unwrap();
            cache.keep(&used);
            learn(&mut cache, 100 + run);
        }
        let cache = again(cache);
        assert!(cache.recall(&meta(1, 1), Want::Content, &mut 0).is_some());
        assert!(cache.recall(&meta(2, 1), Want::Content, &mut 0).is_none());
    }

    #[test]
    fn damage_is_nothing() {
        let mut cache = empty();
        cache.learn(&meta(3, 1), Want::Content, &seen(false, Some(1), None));
        let whole = cache.bytes().unwrap();
        assert!(Stored::parse(&whole).is_some());
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(Stored::parse(&damaged).is_none(), "byte {at}");
            assert!(Stored::parse(&whole[..at]).is_none(), "{at} bytes");
        }
    }
}
