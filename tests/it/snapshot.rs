//! A whole tree as a value, and how two of them differ: names, types, content, mode, owner,
//! times, extended attributes, link targets and which names are one file.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is at every name below a directory, the directory itself (an empty name) included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, Entry>);

/// All that can be asked of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    /// Of modification, in nanoseconds.
    time: i128,
    /// Of a file's last access.
    accessed: i128,
    attributes: BTreeMap<OsString, Vec<u8>>,
    /// Of a file or a directory: d, A, S and D of chattr(1).
    flags: u32,
    /// The first of the names that this inode has in the tree.
    same_as: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Directory,
    File(u64, blake3::Hash),
    Link(PathBuf),
    /// Pipes, sockets, devices, by type and number.
    Other(&'static str, u64),
}

impl Snapshot {
    /// Looks at everything below `root`. Special files are not opened.
    pub fn of(root: &Path) -> Self {
        let mut first = HashMap::new();
        let entries = walkdir::WalkDir::new(root).sort_by_file_name().into_iter().map(|entry| {
            let entry = entry.unwrap();
            let name = entry.path().strip_prefix(root).unwrap().to_owned();
            let metadata = fs::symlink_metadata(entry.path()).unwrap();
            let inode = (metadata.dev(), metadata.ino());
            let same_as = first.entry(inode).or_insert_with(|| name.clone()).clone();
            (name, Entry::of(entry.path(), &metadata, same_as))
        });
        Self(entries.collect())
    }

    /// The names alone.
    pub fn names(&self) -> Vec<&Path> {
        self.0.keys().map(PathBuf::as_path).collect()
    }

    /// Directories without their times: an entry of theirs was replaced and put back.
    #[must_use]
    pub fn without_directory_times(mut self) -> Self {
        let directories = self.0.values_mut().filter(|entry| entry.kind == Kind::Directory);
        directories.for_each(|entry| entry.time = 0);
        self
    }

    /// Without what changes when a file is read, or a program is run.
    #[must_use]
    pub fn without_access_times(mut self) -> Self {
        self.0.values_mut().for_each(|entry| entry.accessed = 0);
        self
    }

    /// One line for each difference, for a person.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, entry) in &self.0 {
            match other.0.get(name) {
                None => lines.push(format!("{}: gone", name.display())),
                Some(now) if now != entry => {
                    lines.push(format!("{}: was {entry:?}, is {now:?}", name.display()));
                }
                Some(_) => {}
            }
        }
        let new = other.0.keys().filter(|name| !self.0.contains_key(*name));
        lines.extend(new.map(|name| format!("{}: new", name.display())));
        lines
    }
}

impl Entry {
    fn of(path: &Path, metadata: &Metadata, same_as: PathBuf) -> Self {
        let nanoseconds = |of: i64, more: i64| i128::from(of) * 1_000_000_000 + i128::from(more);
        let accessed = nanoseconds(metadata.atime(), metadata.atime_nsec());
        Self {
            kind: Kind::of(path, metadata),
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            time: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            accessed: if metadata.is_file() { accessed } else { 0 },
            attributes: attributes(path),
            flags: if metadata.is_file() || metadata.is_dir() { flags(path) } else { 0 },
            same_as,
        }
    }
}

impl Kind {
    fn of(path: &Path, metadata: &Metadata) -> Self {
        let kind = metadata.file_type();
        if kind.is_dir() {
            Self::Directory
        } else if kind.is_file() {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(open_unnoticed(path)).unwrap();
            Self::File(metadata.len(), hasher.finalize())
        } else if kind.is_symlink() {
            Self::Link(fs::read_link(path).unwrap())
        } else if kind.is_fifo() {
            Self::Other("pipe", 0)
        } else if kind.is_socket() {
            Self::Other("socket", 0)
        } else {
            Self::Other("device", metadata.rdev())
        }
    }
}

/// Opens a file so that its time of access stays, where that may be asked for.
fn open_unnoticed(path: &Path) -> fs::File {
    let mut options = fs::OpenOptions::new();
    let noticed = |_| fs::File::open(path).unwrap();
    options.read(true).custom_flags(libc::O_NOATIME).open(path).unwrap_or_else(noticed)
}

fn flags(path: &Path) -> u32 {
    use rustix::fs::IFlags;
    let kept = IFlags::NODUMP | IFlags::NOATIME | IFlags::SYNC | IFlags::DIRSYNC;
    let flags = rustix::fs::ioctl_getflags(open_unnoticed(path));
    flags.map_or(0, |flags| (flags & kept).bits())
}

fn attributes(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            value.truncate(length);
            (OsString::from_vec(name.to_vec()), value)
        })
        .collect()
}
