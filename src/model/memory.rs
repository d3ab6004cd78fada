//! The live view: which pages of programs are in memory, and how often.

use super::{Bytes, ContentId, HostPath, InodeId, Notices, Pages, Runtime};

/// How physical pages were told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemoryMethod {
    /// By page frame number: exact.
    Pfn,
    /// By file identity and offset, without CAP_SYS_ADMIN: an estimate.
    Inferred,
}

impl MemoryMethod {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pfn => "pfn",
            Self::Inferred => "inferred",
        }
    }
}

/// One class of file-backed pages of one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PageCounts {
    /// Page-table entries: what adding up RSS would say.
    pub mapped: Pages,
    /// Distinct physical pages mapped.
    pub resident: Pages,
    /// Distinct file pages: what one shared inode would need.
    pub ideal: Pages,
}

impl PageCounts {
    /// Physical pages beyond what one shared inode would need.
    pub fn wasted(&self) -> Pages {
        self.resident.saturating_sub(self.ideal)
    }
}

/// One content in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinaryMemory {
    /// BLAKE3 of the file; `None` where only one object has it and it was not read.
    pub content: Option<ContentId>,
    /// Its build-id.
    pub build_id: Option<Vec<u8>>,
    /// The file name most of its processes see.
    pub name: String,
    /// A multi-call binary's version, where more than one object holds it.
    pub version: Option<String>,
    /// Distinct inodes by identity.
    pub inodes: u64,
    /// Distinct page-cache objects: each holds pages of its own.
    pub objects: u64,
    /// Processes that map it.
    pub processes: u64,
    /// Containers that map it, the host among them.
    pub containers: u64,
    /// All its file-backed pages: text, read-only data, clean data.
    pub file: PageCounts,
    /// The executable mappings alone.
    pub text: PageCounts,
    /// Pages in the page cache, mapped or not; of a file beyond `--max-file-size` those that are mapped.
    pub cached: Pages,
    /// The part of `cached` beyond one copy.
    pub cached_wasted: Pages,
    /// Processes that still map an inode which has been deleted or replaced.
    pub pending_restart: u64,
}

/// Whose user namespace a container runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UserNamespace {
    /// The host's: its root is the host's root.
    Host,
    /// Its own.
    Own,
}

/// One container: a mount namespace and a root directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerMemory {
    /// The runtime's name for it.
    pub name: String,
    /// What runs it.
    pub runtime: Runtime,
    /// Its root on the host's disk, where it can be found.
    pub root: Option<HostPath>,
    /// Its processes that were counted.
    pub processes: u64,
    /// Whose user namespace it runs in.
    pub user_namespace: UserNamespace,
    /// A process of it has CAP_SYS_ADMIN in the initial user namespace.
    pub privileged: bool,
    /// Text page-table entries, each distinct physical page of it once.
    pub text: Pages,
    /// The part of `text` that another container maps too.
    pub shared: Pages,
    /// The rest.
    pub private: Pages,
    /// The part of `text` whose bytes another object holds too.
    pub duplicated: Pages,
}

/// One process: each text page is exactly one of the three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Its id on the host.
    pub pid: u32,
    /// `/proc/PID/comm`.
    pub comm: String,
    /// Its container's place in the report's list.
    pub container: u32,
    /// Its text RSS.
    pub text: Pages,
    /// Mapped by no other process.
    pub private: Pages,
    /// Mapped by other processes of its container only.
    pub container_shared: Pages,
    /// Mapped by another container too.
    pub shared: Pages,
    /// Its own copies of pages of its programs, in no other number here: written data,
    /// relocations, breakpoints.
    pub anonymous: Pages,
}

/// Pages that processes have in common, as one file in the page cache: whoever maps the
/// same object shares it, whoever maps another does not, whatever the inodes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedObject {
    /// BLAKE3 of the file, where it was asked for.
    pub content: Option<ContentId>,
    /// The inodes by which processes see it.
    pub inodes: Vec<InodeId>,
    /// It has been deleted or replaced: its memory comes back when its last user ends.
    pub deleted: bool,
    /// Who maps it, by process id.
    pub users: Vec<MappedBy>,
}

/// A process that maps an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedBy {
    /// Its id on the host.
    pub pid: u32,
    /// `/proc/PID/comm`.
    pub comm: String,
    /// Its container's place in the report's list, if that is shown.
    pub container: Option<u32>,
}

/// The live view in a few numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryTotals {
    /// Sum of the binaries' distinct physical pages.
    pub resident: Pages,
    /// What one shared inode each would need.
    pub ideal: Pages,
    /// `resident` minus `ideal`.
    pub wasted: Pages,
    /// The same in bytes.
    pub wasted_bytes: Bytes,
    /// Private-anonymous pages in the mappings of programs, apart from all of these.
    pub anonymous: Pages,
}

/// The live view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryReport {
    /// Exact, or an estimate.
    pub method: MemoryMethod,
    /// Per content, most waste first.
    pub binaries: Vec<BinaryMemory>,
    /// Per container.
    pub containers: Vec<ContainerMemory>,
    /// Per process.
    pub processes: Vec<ProcessMemory>,
    /// The objects that were asked for, and who maps each.
    pub mapped: Vec<MappedObject>,
    /// Processes counted.
    pub processes_seen: u64,
    /// Processes that may not be looked at, or ended meanwhile.
    pub processes_skipped: u64,
    /// The live view in a few numbers.
    pub totals: MemoryTotals,
    /// Every process could be looked at, and every file that mattered.
    pub complete: bool,
    /// What could not be looked at.
    pub notices: Notices,
}
