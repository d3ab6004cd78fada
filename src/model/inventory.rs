//! What the walk of one root found, in as little memory as it needs.

mod files;

use std::ops::Range;

use self::files::Files;

use super::listing::{Kind, Named, Part};
use super::{Bytes, InodeId, RootPath, SpecialKind};

/// A directory's place in its [`Inventory`]; 0 is the root itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirId(pub u32);

/// A regular file's place in its [`Inventory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// What a span can tell of; less where tests fill it.
const ARENA_MAX: usize = if cfg!(test) { 1 << 20 } else { u32::MAX as usize };

/// A span of the inventory's byte arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    len: u32,
}

/// A directory.
#[derive(Debug, Clone)]
pub struct Dir {
    /// The directory it lies in; itself for the root.
    pub parent: DirId,
    /// What `statx(2)` said before it was listed; zeros where it was not.
    pub meta: DirMeta,
    /// The whole listing was read, here. False for a directory that could not be
    /// opened, is a mount point or lies too deep: it equals no other.
    pub complete: bool,
    /// Another file system is mounted here; it was not looked into.
    pub mount_point: bool,
    name: Span,
    entries: Range<u32>,
}

/// A directory, as `statx(2)` gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirMeta {
    /// The inode.
    pub inode: InodeId,
    /// `st_mtime` in nanoseconds since the epoch.
    pub mtime: i64,
    /// `st_ctime` in nanoseconds since the epoch.
    pub ctime: i64,
    /// Permission bits and kind, `st_mode`.
    pub mode: u32,
}

impl Dir {
    fn unread(parent: DirId, name: Span) -> Self {
        Self {
            parent,
            meta: DirMeta::default(),
            complete: false,
            mount_point: false,
            name,
            entries: 0..0,
        }
    }
}

/// One name in a directory.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: Span,
    kind: RawKind,
}

#[derive(Debug, Clone, Copy)]
enum RawKind {
    Dir(DirId),
    File(FileId),
    Symlink(Span),
    Special(SpecialKind),
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// A directory.
    Dir(DirId),
    /// A regular file.
    File(FileId),
    /// A symbolic link, with its target's exact bytes.
    Symlink(&'a [u8]),
    /// Anything else.
    Special(SpecialKind),
}

/// One name of a regular file, as `statx(2)` gave it. Hard links have one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMeta {
    /// The inode.
    pub inode: InodeId,
    /// `st_size`.
    pub size: Bytes,
    /// `st_blocks` in bytes.
    pub allocated: Bytes,
    /// `st_mtime` in nanoseconds since the epoch.
    pub mtime: i64,
    /// `st_ctime` in nanoseconds since the epoch.
    pub ctime: i64,
    /// `st_mode`.
    pub mode: u32,
    /// `st_nlink`.
    pub nlink: u32,
}

/// Every name below one root, directories in breadth-first order, names of one
/// directory in byte order: the same for any number of threads.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    dirs: Vec<Dir>,
    entries: Vec<Entry>,
    files: Files,
    /// The first entry of each directory that was listed, in the order of listing.
    listed: Vec<(u32, DirId)>,
    arena: Vec<u8>,
}

impl Inventory {
    /// An inventory that holds the root directory alone, not yet read.
    pub fn new() -> Self {
        let root = Dir::unread(DirId(0), Span { start: 0, len: 0 });
        Self { dirs: vec![root], ..Self::default() }
    }

    /// Takes in the names of a directory, which are in byte order; the directories among
    /// them get places of their own, returned in order. Where there is no room for the names, none is
    /// taken in: it takes 4 GiB of names and targets at most.
    pub fn fill(&mut self, dir: DirId, meta: DirMeta, names: Part<'_>) -> Option<Vec<DirId>> {
        let first = self.entries.len() as u32;
        let base = self.arena.len() as u32;
        let (bytes, names) = names.parts();
        if self.arena.len() + bytes.len() > ARENA_MAX {
            return None;
        }
        self.arena.extend_from_slice(bytes);
        let mut below = Vec::new();
        for Named { start, len, kind } in names {
            let name = Span { start: base + start, len };
            let kind = match kind {
                Kind::Dir => {
                    let id = DirId(self.dirs.len() as u32);
                    self.dirs.push(Dir::unread(dir, name));
                    below.push(id);
                    RawKind::Dir(id)
                }
                Kind::File(meta) => RawKind::File(self.files.push(self.entries.len() as u32, meta)),
                Kind::Symlink(target) => {
                    RawKind::Symlink(Span { start: name.start + len, len: target })
                }
                Kind::Special(kind) => RawKind::Special(kind),
            };
            self.entries.push(Entry { name, kind });
        }
        let last = self.entries.len() as u32;
        self.listed.push((first, dir));
        let slot = &mut self.dirs[dir.0 as usize];
        (slot.meta, slot.complete, slot.entries) = (meta, true, first..last);
        Some(below)
    }

    /// Gives back the room that was kept for more.
    pub fn shrink(&mut self) {
        self.dirs.shrink_to_fit();
        self.entries.shrink_to_fit();
        self.files.shrink();
        self.listed.shrink_to_fit();
        self.arena.shrink_to_fit();
    }

    /// Says that a directory's listing is only a part of it.
    pub fn mark_incomplete(&mut self, dir: DirId) {
        self.dirs[dir.0 as usize].complete = false;
    }

    /// Says that a directory is one that another file system is mounted on.
    pub fn mark_mount_point(&mut self, dir: DirId) {
        self.dirs[dir.0 as usize].mount_point = true;
    }

    /// One directory.
    pub fn dir(&self, dir: DirId) -> &Dir {
        &self.dirs[dir.0 as usize]
    }

    /// Every directory, parents before children.
    pub fn dir_ids(&self) -> impl DoubleEndedIterator<Item = DirId> + ExactSizeIterator + use<> {
        (0..self.dirs.len() as u32).map(DirId)
    }

    /// The names in a directory, in byte order.
    pub fn entries(&self, dir: DirId) -> impl ExactSizeIterator<Item = (&[u8], EntryKind<'_>)> {
        let range = &self.dirs[dir.0 as usize].entries;
        self.entries[range.start as usize..range.end as usize]
            .iter()
            .map(|entry| (self.bytes(entry.name), self.kind(entry)))
    }

    /// One name in a directory.
    pub fn lookup(&self, dir: DirId, name: &[u8]) -> Option<EntryKind<'_>> {
        let range = &self.dirs[dir.0 as usize].entries;
        let entries = &self.entries[range.start as usize..range.end as usize];
        let at = entries.binary_search_by(|entry| self.bytes(entry.name).cmp(name)).ok()?;
        Some(self.kind(&entries[at]))
    }

    /// Every name of a regular file.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (FileId, FileMeta)> {
        (0..self.files.len() as u32).map(|at| (FileId(at), self.files.meta(FileId(at))))
    }

    /// What `statx(2)` said of a file.
    pub fn file(&self, file: FileId) -> FileMeta {
        self.files.meta(file)
    }

    /// The directory that a file's name stands in.
    pub fn file_dir(&self, file: FileId) -> DirId {
        let entry = self.files.entry(file);
        // What has no entries begins where the next one does.
        let after = self.listed.partition_point(|(first, _)| *first <= entry);
        self.listed[after - 1].1
    }

    /// A file's name in its directory.
    pub fn file_name(&self, file: FileId) -> &[u8] {
        self.bytes(self.entries[self.files.entry(file) as usize].name)
    }

    /// A file's path inside the root.
    pub fn file_path(&self, file: FileId) -> RootPath {
        self.path_of(self.file_dir(file), Some(self.file_name(file)))
    }

    /// A directory's path inside the root.
    pub fn dir_path(&self, dir: DirId) -> RootPath {
        self.path_of(dir, None)
    }

    /// Adds a directory's path inside the root.
    pub fn add_dir_path(&self, dir: DirId, to: &mut Vec<u8>) {
        self.add_path(dir, None, to);
    }

    fn path_of(&self, dir: DirId, name: Option<&[u8]>) -> RootPath {
        let mut path = Vec::new();
        self.add_path(dir, name, &mut path);
        RootPath::new(path)
    }

    /// Adds the path of a directory, or of a name in it: laid out from its end, in one piece.
    fn add_path(&self, dir: DirId, name: Option<&[u8]>, to: &mut Vec<u8>) {
        let components = || name.into_iter().chain(self.upwards(dir));
        let length: usize = components().map(|name| name.len() + 1).sum();
        let begin = to.len();
        to.resize(begin + length.saturating_sub(1), b'/');
        let path = &mut to[begin..];
        let mut end = path.len();
        for name in components() {
            let start = end - name.len();
            path[start..end].copy_from_slice(name);
            end = start.saturating_sub(1);
        }
    }

    /// The names of a directory and of those that it lies in, up to the root, which has none.
    fn upwards(&self, dir: DirId) -> impl Iterator<Item = &[u8]> {
        let below_root = |dir: &DirId| *dir != DirId(0);
        let parent = move |&dir: &DirId| Some(self.dir(dir).parent).filter(below_root);
        std::iter::successors(Some(dir).filter(below_root), parent).map(|dir| self.dir_name(dir))
    }

    /// A directory's name in its parent.
    pub fn dir_name(&self, dir: DirId) -> &[u8] {
        self.bytes(self.dir(dir).name)
    }

    fn kind(&self, entry: &Entry) -> EntryKind<'_> {
        match entry.kind {
            RawKind::Dir(dir) => EntryKind::Dir(dir),
            RawKind::File(file) => EntryKind::File(file),
            RawKind::Symlink(target) => EntryKind::Symlink(self.bytes(target)),
            RawKind::Special(kind) => EntryKind::Special(kind),
        }
    }

    fn bytes(&self, span: Span) -> &[u8] {
        &self.arena[span.start as usize..][..span.len as usize]
    }
}

#[cfg(test)]
use super::listing::{Listed, Listing};

#[cfg(test)]
impl Inventory {
    /// An inventory as if these paths had been walked; their directories have
    /// the mode 0755.
    pub(crate) fn sample(paths: &[(&str, Listed<'_>)]) -> Self {
        let mut inventory = Self::new();
        let mut level = vec![(DirId(0), String::new())];
        while let Some((dir, prefix)) = level.pop() {
            let mut listing: Vec<(Vec<u8>, Listed<'_>)> = Vec::new();
            for (path, listed) in paths {
                let Some(rest) = path.strip_prefix(&prefix) else { continue };
                let (name, listed) = match rest.split_once('/') {
                    Some((name, _)) => (name, Listed::Dir),
                    None => (rest, *listed),
                };
                if !listing.iter().any(|(listed, _)| listed == name.as_bytes()) {
                    listing.push((name.into(), listed));
                }
            }
            listing.sort_by(|(a, _), (b, _)| a.cmp(b));
            for below in inventory.taken(dir, &listing.into_iter().collect()) {
                let name = String::from_utf8_lossy(inventory.dir_name(below)).into_owned();
                level.push((below, format!("{prefix}{name}/")));
            }
        }
        inventory
    }

    /// The directories among these names of a directory, whose mode is 0755.
    pub(crate) fn taken(&mut self, dir: DirId, names: &Listing) -> Vec<DirId> {
        self.fill(dir, DirMeta { mode: 0o40755, ..DirMeta::default() }, names.all()).expect("room")
    }
}

#[cfg(test)]
impl Listed<'_> {
    /// A file of its own inode.
    pub(crate) fn sample_file(ino: u64, size: u64) -> Self {
        Self::File(FileMeta {
            inode: InodeId { dev: 1, ino },
            size: Bytes(size),
            allocated: Bytes(size.next_multiple_of(4096)),
            mtime: 0,
            ctime: 0,
            mode: 0o100644,
            nlink: 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Inventory {
        Inventory::sample(&[
            ("usr/bin/ls", Listed::sample_file(1, 10)),
            ("usr/bin/cat", Listed::sample_file(2, 20)),
            ("bin", Listed::Symlink(b"usr/bin")),
        ])
    }

    #[test]
    fn names_of_a_directory_are_in_byte_order() {
        let inventory = sample();
        let names: Vec<&[u8]> = inventory.entries(DirId(0)).map(|(name, _)| name).collect();
        assert_eq!(names, [b"bin".as_slice(), b"usr"]);
    }

    #[test]
    fn a_file_is_found_by_name_and_knows_its_path() {
        let inventory = sample();
        let Some(EntryKind::Dir(usr)) = inventory.lookup(DirId(0), b"usr") else { unreachable!() };
        let Some(EntryKind::Dir(bin)) = inventory.lookup(usr, b"bin") else { unreachable!() };
        let Some(EntryKind::File(ls)) = inventory.lookup(bin, b"ls") else { unreachable!() };
        assert_eq!(inventory.file_path(ls).as_bytes(), b"usr/bin/ls");
        assert_eq!(inventory.file(ls).size, Bytes(10));
        assert_eq!(inventory.lookup(bin, b"l"), None);
    }

    #[test]
    fn files_keep_their_devices_and_directories() {
        let on = |dev: u64, ino: u64| match Listed::sample_file(ino, ino) {
            Listed::File(meta) => {
                let (inode, mode) = (InodeId { dev, ino }, 0o104_755);
                Listed::File(FileMeta { inode, mode, nlink: 3, ctime: -1, ..meta })
            }
            other => other,
        };
        let inventory = Inventory::sample(&[
            ("a/first", on(1, 1)),
            ("a/second", on(2, 2)),
            ("b/none/link", Listed::Symlink(b"a")),
            ("c/third", on(1, 3)),
        ]);
        let mut found: Vec<_> = inventory
            .files()
            .map(|(file, meta)| (inventory.file_path(file), meta.inode.dev, meta.inode.ino))
            .collect();
        found.sort();
        let expected = [("a/first", 1, 1), ("a/second", 2, 2), ("c/third", 1, 3)];
        assert_eq!(found, expected.map(|(path, dev, ino)| (RootPath::new(path), dev, ino)));
        let (_, meta) = inventory.files().next().expect("a file");
        assert_eq!((meta.mode, meta.nlink, meta.ctime), (0o104_755, 3, -1));
    }

    #[test]
    fn names_that_find_no_room_are_not_taken_in() {
        let mut inventory = Inventory::new();
        let target = [b'x'; 4095];
        let links = |count: usize| {
            let link = |at: usize| (format!("{at:03}"), Listed::Symlink(&target));
            (0..count).map(link).collect::<Listing>()
        };
        assert_eq!(inventory.fill(DirId(0), DirMeta::default(), links(300).all()), None);
        assert!(!inventory.dir(DirId(0)).complete);
        assert_eq!(
            inventory.fill(DirId(0), DirMeta::default(), links(100).all()),
            Some(Vec::new())
        );
        assert_eq!(inventory.lookup(DirId(0), b"007"), Some(EntryKind::Symlink(&target)));
    }

    #[test]
    fn a_link_keeps_its_target() {
        let inventory = sample();
        assert_eq!(inventory.lookup(DirId(0), b"bin"), Some(EntryKind::Symlink(b"usr/bin")));
    }
}
