//! The journal of one run: what was about to be done, and what was done.
//!
//! A run has a file of its own below the journal's directory, append only, one record a
//! line: eight hexadecimal digits of CRC-32C over the JSON, a blank, the JSON, a newline.
//! Records are flushed before the changes that they announce. A last line that is cut off
//! or does not match its checksum was never flushed whole, and is cut away; such a line
//! with others behind it is damage. Names are exact bytes (base64): a container chose them.
//!
//! Recovery looks at the entries, and uses the journal only to know where to look, and
//! what was there before.

mod entry;
mod exact;

use serde::{Deserialize, Serialize};

pub use entry::{Before, Ended, EntryPlace, Intent, Metadata, Outcome, TreeEntry, Twin};

use super::{
    Bytes, ContainerPath, ContentId, HostPath, Method, ObjectName, RootId, RootPath, StoreFormat,
};

/// The version of the records: a newer one is refused, older ones are read for ever.
pub const JOURNAL_VERSION: u32 = 1;

/// A run's number: runs of one journal count up from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub u64);

impl std::fmt::Display for RunId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(out)
    }
}

/// What a run is about: the first record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The version of the records.
    pub version: u32,
    /// The run.
    pub run: RunId,
    /// Seconds since the epoch.
    pub time_seconds: u64,
    /// The version of the tool.
    pub tool: String,
    /// How copies are made one.
    pub method: Method,
    /// The store on the host.
    #[serde(with = "exact")]
    pub store: HostPath,
    /// What it is.
    pub store_format: StoreFormat,
    /// The store's path inside the containers.
    #[serde(with = "exact")]
    pub mount_point: ContainerPath,
    /// The roots.
    pub roots: Vec<JournalRoot>,
    /// How many steps the plan has.
    pub steps: u32,
    /// The domain that the roots were declared to form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
}

/// A root that a run changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRoot {
    /// Its number in this run.
    pub id: RootId,
    /// Where it lies on the host.
    #[serde(with = "exact")]
    pub path: HostPath,
    /// `st_ino` of the directory.
    pub ino: u64,
    /// Its container's name.
    pub name: String,
}

/// A directory whose entries a run changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalDirectory {
    /// The root.
    pub root: RootId,
    /// The directory below it.
    #[serde(with = "exact")]
    pub path: RootPath,
    /// `st_mtime` before, in nanoseconds since the epoch.
    pub before: i64,
    /// `st_mtime` after: where it is another one by now, somebody else changed the directory, too.
    /// What is noted before the first change has the same as `before`.
    pub after: i64,
    /// What it held before the first change; not noted by cbin-audit up to 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<DirectoryNames>,
}

/// What a directory held, in short: by it a run that was cut off sees whether others changed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryNames {
    /// How many names.
    pub names: u64,
    /// When, in nanoseconds since the epoch, by the clock that file systems use.
    pub time: i64,
}

/// An object that is about to be linked into the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalObject {
    /// Its name.
    #[serde(with = "exact::name")]
    pub name: ObjectName,
    /// What it holds.
    #[serde(with = "exact::content")]
    pub content: ContentId,
    /// `st_size`.
    pub size: Bytes,
}

/// One line of the journal. It is flushed before the next one is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The first: what the run is about.
    Begin(Begin),
    /// Objects that are about to be linked into the store; they stay as long as a run needs them.
    Objects(Vec<JournalObject>),
    /// The host's own link at the mount point is about to be made.
    HostLink {
        /// Where.
        #[serde(with = "exact")]
        path: HostPath,
        /// Its target.
        #[serde(with = "exact")]
        target: Vec<u8>,
    },
    /// A configuration file on the host is about to be written, or removed.
    Config {
        /// The plan's step.
        step: u32,
        /// The root that it is for.
        root: RootId,
        /// The file.
        #[serde(with = "exact")]
        file: HostPath,
        /// Its content before; `None`: it did not exist.
        #[serde(with = "exact::option")]
        before: Option<Vec<u8>>,
        /// Its content afterwards; `None`: it is removed.
        #[serde(with = "exact::option")]
        after: Option<Vec<u8>>,
    },
    /// The store is about to be attached below, or inside, a root.
    Attach {
        /// The plan's step.
        step: u32,
        /// The root.
        root: RootId,
        /// The mount point below the root.
        #[serde(with = "exact")]
        path: RootPath,
        /// The directory of the host that is seen there.
        #[serde(with = "exact")]
        source: HostPath,
        /// The mount point itself is made for it.
        made: bool,
        /// It is mounted at once, on the host or inside the running container.
        mounted: bool,
    },
    /// What is below a directory that is about to be taken away, for undo.
    Tree {
        /// The plan's step.
        step: u32,
        /// Entries below it, parents first: path from the directory, and what it is.
        entries: Vec<TreeEntry>,
    },
    /// Entries that are about to be changed.
    Intents(Vec<Intent>),
    /// Entries that are about to be put back, by their steps.
    Undoing(Vec<u32>),
    /// Steps that ended.
    Ended(Vec<Ended>),
    /// Directories that have other times since the run changed their entries.
    Directories(Vec<JournalDirectory>),
    /// Undo begins: of one root, or of all.
    UndoBegin {
        /// The root; `None`: all of them.
        root: Option<RootId>,
        /// Seconds since the epoch.
        time_seconds: u64,
    },
    /// The run, or the undo of it, is over.
    End {
        /// The state it is left in.
        state: RunState,
    },
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Carried out, every step of it.
    Applied,
    /// Carried out, but for steps that were skipped.
    Partial,
    /// Nothing of it stands.
    RolledBack,
    /// Put back, all of it.
    Undone,
    /// Put back in some roots.
    PartlyUndone,
    /// Cut off: `recover` brings it to an end.
    Unfinished,
}

impl RunState {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Partial => "partial",
            Self::RolledBack => "rolled_back",
            Self::Undone => "undone",
            Self::PartlyUndone => "partly_undone",
            Self::Unfinished => "unfinished",
        }
    }
}
