//! What is known about roots, files, contents and pages: plain values.

mod capabilities;
mod content;
mod doctor;
mod elf;
mod extents;
mod host;
mod host_config;
mod inventory;
mod isolation;
mod journal;
mod listing;
mod memory;
mod mount;
mod named;
mod notice;
mod object_name;
mod page_set;
mod pages;
mod paths;
mod plan;
mod program;
mod progress;
mod report;
mod root;
mod run;
mod settings;
mod size;
mod skip;
mod special;
mod traits;
mod tree;
mod units;
mod verify;

pub use capabilities::Capabilities;
pub use content::{ContentId, FileStamp, InodeId};
pub use doctor::{Ability, ContainerPlace, Doctor, FileSystem, Kernel, RootPlace, StorePlace};
pub use elf::{
    ElfClass, ElfFacts, ElfType, Endian, Linkage, LoadSegment, SectionSums, SegmentPages,
};
pub use extents::{Extent, ExtentFlags, Extents};
pub use host::Host;
pub use host_config::{ConfigFile, HostConfig, LxcConfig, OciBundle};
pub use inventory::{Dir, DirId, DirMeta, EntryKind, FileId, FileMeta, Inventory};
pub use isolation::{
    Disks, Escape, Exposure, IdRange, Isolation, MountFlags, StoreMount, TrustDomain,
};
pub use journal::{
    Before, Begin, DirectoryNames, Ended, EntryPlace, Intent, JOURNAL_VERSION, JournalDirectory,
    JournalObject, JournalRoot, Metadata, Outcome, Record, RunId, RunState, TreeEntry, Twin,
};
pub use listing::{Listed, Listing, Part};
pub use memory::{
    BinaryMemory, ContainerMemory, MappedBy, MappedObject, MemoryMethod, MemoryReport,
    MemoryTotals, PageCounts, ProcessMemory, UserNamespace,
};
pub use mount::{Bind, ConfigChange, MountMeans, MountPlan, STORE_UNIT};
pub use notice::{Notice, Notices};
pub use object_name::ObjectName;
pub use page_set::{Overlap, PageSet};
pub use pages::{ContainerKey, FileKey, Mapping, ProcessPages, Run};
pub use paths::{ContainerPath, HostPath, RootPath};
pub use plan::{Action, FileState, Plan, PlannedRoot, Saves, Skip, Step};
pub use program::{Family, Program};
pub use progress::{Phase, Progress, Silent};
pub use report::{
    FileCopy, Group, GroupKind, OtherNames, Report, RootSummary, Select, Totals, Tree,
};
pub use root::{Root, RootId, RootState, Runtime};
pub use run::{Applied, Changed, Collected, Left, PendingRestart, Recovered, RunSummary, Undone};
pub use settings::{Applets, Method, PlanSettings, StoreFormat};
pub use size::{
    Column, CoreDump, ObjectSizes, Oddity, ReadOnly, Section, SectionTraits, SizeEvent, SizeFault,
    SizedObject,
};
pub use skip::SkipReason;
pub use special::SpecialKind;
pub use traits::FileTraits;
pub use tree::{TREE_DEPTH, TREE_NAMES, TreeHasher};
pub use units::{Bytes, Pages};
pub use verify::{Check, Verified};
