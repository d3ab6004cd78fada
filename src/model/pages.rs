//! Pages of mapped files, as processes have them.

use std::ops::Range;

use super::InodeId;

/// The device and inode that `/proc/PID/maps` shows for a mapping. Not what
/// tells page-cache objects apart: overlayfs shows two for one object, btrfs
/// snapshots one for two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// Major number in the upper half, minor in the lower.
    pub dev: u64,
    /// The inode's number.
    pub ino: u64,
}

/// Present file pages that follow one another, both in the file and in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first page's number in the file.
    pub page: u64,
    /// Its page frame number; 0 where the kernel hides it, then for the whole run.
    pub pfn: u64,
    /// How many.
    pub len: u32,
}

/// One mapping of a file that has an executable mapping in the same process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The file, as maps shows it.
    pub key: FileKey,
    /// Its address range: the name below `map_files`.
    pub address: Range<u64>,
    /// Mapped `x`.
    pub executable: bool,
    /// Its pages, in [`ProcessPages::runs`].
    pub runs: Range<u32>,
}

/// A container: what a process has as its mount namespace and as its `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerKey {
    /// The inode number of `ns/mnt`.
    pub mount_namespace: u64,
    /// What `root` leads to.
    pub root: InodeId,
}

/// The file pages of one process, read whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessPages {
    /// Its id.
    pub pid: u32,
    /// In order of address.
    pub mappings: Vec<Mapping>,
    /// The file pages of all mappings.
    pub runs: Vec<Run>,
    /// Private-anonymous pages in them: written data, relocations, breakpoints. Each is the
    /// process's own copy, and no file's page any more.
    pub anonymous: u64,
}

impl ProcessPages {
    /// Begins with another process; the room is kept.
    pub fn clear(&mut self, pid: u32) {
        self.pid = pid;
        self.mappings.clear();
        self.runs.clear();
        self.anonymous = 0;
    }

    /// The pages of one mapping.
    pub fn runs_of(&self, mapping: &Mapping) -> &[Run] {
        self.runs.get(mapping.runs.start as usize..mapping.runs.end as usize).unwrap_or_default()
    }

    /// Pages are present whose frame numbers the kernel hides from this reader.
    pub fn frames_hidden(&self) -> bool {
        self.runs.iter().any(|run| run.pfn == 0)
    }
}
