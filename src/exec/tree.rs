//! A directory with everything below it: read as a value, compared, taken away, made anew.
//!
//! It is read and changed by descriptors, one name at a time, and never across a link or a
//! mount.

mod change;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{IFlags, Statx};

use super::cause::explain;
use super::content;
use super::place::{Found, Pinned, Place, inode_flags, kept_flags, look, metadata, stat_now};
use super::work::CHANGED;
use crate::model::{
    Before, Bytes, ContentId, Metadata, RootPath, TREE_DEPTH, TREE_NAMES, TreeEntry, TreeHasher,
};
use crate::scan::candidate::{self, Label};
use crate::scan::dir::open_dir_at;

pub(crate) use change::{clear, hide, is_hidden, is_scrap, make, remove, show};

/// What a directory was when it was read.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The directory's own.
    pub(crate) top: Metadata,
    /// What is below it, parents first.
    pub(crate) entries: Vec<TreeEntry>,
    /// The hash of all of it.
    pub(crate) digest: ContentId,
}

/// Reads a directory; `take` says of each regular file below what it holds.
pub(crate) fn read(dir: BorrowedFd<'_>, take: &mut Take<'_>) -> Result<Tree, String> {
    let stat = stat_now(dir).map_err(|error| explain("look at it", &error))?;
    let top = metadata(dir, &stat).map_err(|error| explain("read its attributes", &error))?;
    let mut reader = Reader { entries: Vec::new(), take };
    let digest = reader.dir(dir, top.mode, &RootPath::default(), 0)?;
    Ok(Tree { top, entries: reader.entries, digest })
}

/// What is asked of each regular file.
pub(crate) type Take<'a> = dyn FnMut(File, &Statx) -> Result<ContentId, String> + 'a;

/// Reads a directory, and every file in it.
pub(crate) fn read_whole(dir: BorrowedFd<'_>) -> Result<Tree, String> {
    read(dir, &mut |file: File, stat: &Statx| {
        let hash = content::hash(&file, Bytes(stat.stx_size));
        hash.map_err(|error| explain("read it", &error))?.ok_or_else(|| CHANGED.to_owned())
    })
}

struct Reader<'a, 'b> {
    entries: Vec<TreeEntry>,
    take: &'a mut Take<'b>,
}

impl Reader<'_, '_> {
    fn dir(
        &mut self,
        dir: BorrowedFd<'_>,
        mode: u32,
        above: &RootPath,
        depth: usize,
    ) -> Result<ContentId, String> {
        if depth > TREE_DEPTH {
            return Err(format!("more than {TREE_DEPTH} directories lie in one another below it"));
        }
        let mut hasher = TreeHasher::new(mode);
        for name in names(dir).map_err(|error| explain("list it", &error))? {
            if self.entries.len() >= TREE_NAMES {
                return Err(format!("more than {TREE_NAMES} names lie below it"));
            }
            let path = above.join(&name);
            let found = look(dir, &name).map_err(|error| failed(&path, "look at it", &error))?;
            self.entry((dir, &name), found, path, depth, &mut hasher)?;
        }
        Ok(hasher.finish())
    }

    fn entry(
        &mut self,
        (dir, name): (BorrowedFd<'_>, &[u8]),
        found: Found,
        path: RootPath,
        depth: usize,
        hasher: &mut TreeHasher,
    ) -> Result<(), String> {
        let dressed = |pinned: &Pinned| {
            pinned.metadata().map_err(|error| failed(&path, "read its attributes", &error))
        };
        match found {
            Found::Absent => return Err(CHANGED.to_owned()),
            Found::Link(link) => {
                hasher.link(name, &link.target);
                let metadata = dressed(&link.pinned)?;
                self.push(path, Before::Link { target: link.target, metadata });
            }
            Found::Other(pinned) if pinned.is_dir() => {
                let mut metadata = dressed(&pinned)?;
                let below = open_dir_at(dir, name);
                let below = below.map_err(|error| failed(&path, "open it", &error))?;
                metadata.flags = kept_flags(below.as_fd());
                let mode = metadata.mode;
                self.push(path.clone(), Before::Tree { metadata });
                hasher.dir(name, self.dir(below.as_fd(), mode, &path, depth + 1)?);
            }
            Found::Other(pinned) if pinned.is_file() => {
                let mut metadata = dressed(&pinned)?;
                let (ino, nlink) = (pinned.stat.stx_ino, pinned.stat.stx_nlink);
                let size = Bytes(pinned.stat.stx_size);
                let file = pinned.open().map_err(|error| failed(&path, "open it", &error))?;
                metadata.flags = kept_flags(file.as_fd());
                let taken = (self.take)(file, &pinned.stat);
                let content = taken.map_err(|why| format!("{:?} in it: {why}", path.as_path()))?;
                hasher.file(name, metadata.mode, &content.0);
                self.push(path, Before::File { ino, size, nlink, content, metadata });
            }
            Found::Other(_) => return Err(told(&path, "is a special file")),
        }
        Ok(())
    }

    fn push(&mut self, path: RootPath, before: Before) {
        self.entries.push(TreeEntry { path, before });
    }
}

/// What is said of something in the directory, or of the directory itself.
fn told(path: &RootPath, why: &str) -> String {
    match path.as_bytes() {
        b"" => format!("it {why}"),
        _ => format!("{:?} in it {why}", path.as_path()),
    }
}

fn failed(path: &RootPath, doing: &str, error: &io::Error) -> String {
    format!("{:?} in it: {}", path.as_path(), explain(doing, error))
}

fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." && names.len() <= TREE_NAMES {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What is compared of a directory with what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alike {
    /// The very inodes, as `stat` knows them.
    Inodes,
    /// The same for `stat`, whatever the inodes.
    Stat,
    /// The same, and every byte.
    Bytes,
}

/// A directory holds these entries, unchanged, and nothing else. What cannot be read is another.
pub(crate) fn holds(place: &Place, entries: &[TreeEntry], alike: Alike) -> bool {
    let Ok(dir) = open_dir_at(place.dir(), &place.name) else { return false };
    let found = match alike {
        Alike::Bytes => read_whole(dir.as_fd()),
        _ => read(dir.as_fd(), &mut |_, _| Ok(ContentId([0; 32]))),
    };
    let Ok(found) = found else { return false };
    let same = |(one, other): (&TreeEntry, &TreeEntry)| {
        one.path == other.path && compared(&one.before, alike) == compared(&other.before, alike)
    };
    found.entries.len() == entries.len() && found.entries.iter().zip(entries).all(same)
}

fn compared(before: &Before, alike: Alike) -> Before {
    let mut before = before.clone();
    match &mut before {
        Before::File { ino, content, metadata, .. } => {
            (metadata.atime, metadata.flags) = (0, 0);
            *ino = if alike == Alike::Inodes { *ino } else { 0 };
            *content = if alike == Alike::Bytes { *content } else { ContentId([0; 32]) };
        }
        // Who has another flag is the same: those up to 0.1 were not noted.
        Before::Link { metadata, .. } | Before::Tree { metadata } => {
            (metadata.atime, metadata.flags) = (0, 0);
        }
        Before::Absent | Before::Hidden { .. } => {}
    }
    before
}

/// The same directory as one of whoever runs this, without attributes.
pub(crate) fn ours(tree: Tree) -> (Metadata, Vec<TreeEntry>) {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let ours = |metadata: &mut Metadata| {
        (metadata.uid, metadata.gid) = (uid, gid);
        metadata.xattrs.clear();
        metadata.flags = 0;
    };
    let (mut top, mut entries) = (tree.top, tree.entries);
    ours(&mut top);
    for entry in &mut entries {
        match &mut entry.before {
            Before::File { metadata, .. }
            | Before::Link { metadata, .. }
            | Before::Tree { metadata } => ours(metadata),
            Before::Absent | Before::Hidden { .. } => {}
        }
    }
    (top, entries)
}

const FOLDED: &str = "finds names in upper and lower case, which the store's would not";

/// Something in a directory that may not be taken away.
pub(crate) fn locked(dir: BorrowedFd<'_>, entries: &[TreeEntry]) -> Result<(), String> {
    let below = entries.iter().filter(|entry| matches!(entry.before, Before::Tree { .. }));
    let top = RootPath::default();
    for path in std::iter::once(&top).chain(below.map(|entry| &entry.path)) {
        let opened = open_dir_at(dir, path.as_bytes());
        let opened = opened.map_err(|error| failed(path, "open it", &error))?;
        let flags = inode_flags(opened.as_fd());
        if flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND) {
            return Err(told(path, "is immutable or append-only; `chattr -i -a` allows it"));
        }
        if flags.contains(candidate::CASEFOLD) {
            return Err(told(path, FOLDED));
        }
    }
    Ok(())
}

/// Why a directory cannot be the same for all: what a link to the store's would take from its
/// users. `label` is what objects of the store have.
pub(crate) fn unfit(tree: &Tree, (owner, label): (u32, Option<&Label>)) -> Option<String> {
    let mut names: HashMap<u64, u32> = HashMap::new();
    let mut counts: HashMap<u64, u32> = HashMap::new();
    for (path, metadata) in std::iter::once((&RootPath::default(), &tree.top)).chain(
        tree.entries.iter().filter_map(|entry| Some((&entry.path, entry.before.metadata()?))),
    ) {
        if metadata.uid != owner {
            let user = metadata.uid;
            return Some(told(path, &format!("belongs to user {user}, and the root to {owner}")));
        }
        let is_stores =
            |name: &[u8], value: &[u8]| label.is_some() && Label::of(name, value).as_ref() == label;
        if let Some((name, _)) =
            metadata.xattrs.iter().find(|(name, value)| !is_stores(name, value))
        {
            let name = String::from_utf8_lossy(name);
            return Some(told(
                path,
                &format!("has extended attributes, which the store's would not have: {name}"),
            ));
        }
    }
    for entry in &tree.entries {
        if let Before::File { ino, nlink, .. } = entry.before {
            *names.entry(ino).or_default() += 1;
            counts.insert(ino, nlink);
        }
    }
    let elsewhere = counts.into_iter().any(|(ino, nlink)| names.get(&ino) != Some(&nlink));
    elsewhere.then(|| "a file in it has another name elsewhere".to_owned())
}
