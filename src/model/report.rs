//! The audit's answer.

use super::{
    Bytes, ContentId, ElfFacts, Family, HostPath, InodeId, MemoryReport, Notices, RootId, RootPath,
    RootState, Runtime,
};

/// Which files are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Select {
    /// Multi-call binaries: busybox, dropbear, toybox, ...
    Multicall,
    /// Every ELF file.
    #[default]
    Elf,
    /// Every regular file.
    All,
}

impl Select {
    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Multicall => "multicall",
            Self::Elf => "elf",
            Self::All => "all",
        }
    }

    /// What is counted as ELF: where multi-call binaries alone are asked for, no other file
    /// than those that may be executed is opened.
    pub fn elf_files(self) -> &'static str {
        match self {
            Self::Multicall => "ELF programs",
            Self::Elf | Self::All => "ELF files",
        }
    }
}

/// One root, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootSummary {
    /// The identifier that copies and trees refer to.
    pub id: RootId,
    /// Where it lies on the host.
    pub path: HostPath,
    /// Its container's name.
    pub name: String,
    /// Whose root it is.
    pub runtime: Runtime,
    /// Whether it runs.
    pub state: RootState,
    /// One layer of a stacked root file system.
    pub layer: bool,
    /// Names of regular files.
    pub files: u64,
    /// The names among them whose file is ELF; see [`Select::elf_files`].
    pub elf_files: u64,
    /// Sum of file sizes, each inode once.
    pub apparent: Bytes,
    /// Links in it that lead to nothing and carry the name of an applet.
    pub dangling: Vec<RootPath>,
}

/// What kind of content a group holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKind {
    /// A multi-call binary.
    Multicall(Family),
    /// Another ELF file.
    Elf,
    /// Any other file.
    File,
}

impl GroupKind {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Multicall(family) => family.name(),
            Self::Elf => "elf",
            Self::File => "file",
        }
    }
}

/// One inode of a group, in one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileCopy {
    /// The root it lies in.
    pub root: RootId,
    /// Its name; the first in byte order where hard links give it several.
    pub path: RootPath,
    /// Its inode.
    pub inode: InodeId,
    /// `st_nlink`.
    pub nlink: u32,
    /// Disk blocks it holds.
    pub allocated: Bytes,
    /// Its other names in this root, which few of the many copies have.
    pub others: Option<Box<OtherNames>>,
}

/// The other names of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OtherNames {
    /// Those that lead to it, sorted: hard links, symbolic links (also by way of others), `#!`
    /// wrappers.
    pub links: Vec<RootPath>,
    /// The links whose name is none of the program's applets.
    pub unknown_applets: Vec<RootPath>,
}

impl FileCopy {
    /// The other names that lead to it, sorted.
    pub fn links(&self) -> &[RootPath] {
        self.others.as_ref().map_or(&[], |others| &others.links)
    }

    /// The links whose name is none of the program's applets.
    pub fn unknown_applets(&self) -> &[RootPath] {
        self.others.as_ref().map_or(&[], |others| &others.unknown_applets)
    }
}

/// One content, and every inode that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// BLAKE3 of the content.
    pub content: ContentId,
    /// The most frequent file name of its copies.
    pub name: String,
    /// What it is.
    pub kind: GroupKind,
    /// A multi-call binary's version.
    pub version: Option<String>,
    /// What its ELF headers say.
    pub elf: Option<Box<ElfFacts>>,
    /// What a multi-call binary provides.
    pub applets: Vec<String>,
    /// `st_size`.
    pub size: Bytes,
    /// Distinct inodes that hold it.
    pub inodes: u64,
    /// Distinct copies on disk: reflinked inodes count once.
    pub physical_copies: u64,
    /// Disk blocks beyond one copy.
    pub wasted: Bytes,
    /// The inodes, by root and path.
    pub copies: Vec<FileCopy>,
}

/// A directory that is the same, below it too, in several roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Its path in each of the roots.
    pub path: RootPath,
    /// The roots that have it.
    pub roots: Vec<RootId>,
    /// The host has it too, at the same path below `/`.
    pub on_host: bool,
    /// Names of regular files in one copy.
    pub files: u64,
    /// Sum of file sizes in one copy.
    pub size: Bytes,
    /// Disk blocks of all the roots' copies beyond one; beyond none where the host has one.
    pub wasted: Bytes,
    /// BLAKE3 over names, kinds, modes, link targets and contents.
    pub digest: ContentId,
}

/// The report in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Roots looked at.
    pub roots: u64,
    /// Names of regular files.
    pub files: u64,
    /// Names of ELF files; see [`Select::elf_files`].
    pub elf_files: u64,
    /// Groups reported.
    pub groups: u64,
    /// Sum of the groups' waste.
    pub wasted_disk: Bytes,
    /// Waste in trees that no group counts already.
    pub wasted_trees: Bytes,
    /// Wasted pages of the groups' contents, in bytes; 0 without a memory part.
    pub wasted_memory: Bytes,
}

/// The audit's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which files were compared.
    pub select: Select,
    /// The roots looked at.
    pub roots: Vec<RootSummary>,
    /// Duplicate contents.
    pub groups: Vec<Group>,
    /// Duplicate trees.
    pub trees: Vec<Tree>,
    /// The live view.
    pub memory: Option<MemoryReport>,
    /// The report in a few numbers.
    pub totals: Totals,
    /// What could not be read, or was left out.
    pub notices: Notices,
}

impl Report {
    /// Nothing is missing: everything below the roots was read, and every process
    /// could be looked at.
    pub fn complete(&self) -> bool {
        let skipped = self.memory.as_ref().map_or(0, |memory| memory.processes_skipped);
        self.notices.complete() && skipped == 0
    }
}
