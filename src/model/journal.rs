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

use super::{
    Bytes, ConfigChange, ContentId, HostPath, ObjectName, PlanSettings, PlannedRoot, RootId,
    RootPath,
};

/// The version of the records: a newer one is refused, older ones are read for ever.
pub const JOURNAL_VERSION: u32 = 1;

/// A run's number: runs of one journal count up from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// Everything of an entry that undo puts back, beside its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// `st_uid`, as the host sees it.
    pub uid: u32,
    /// `st_gid`, as the host sees it.
    pub gid: u32,
    /// `st_mode`.
    pub mode: u32,
    /// `st_atime` in nanoseconds since the epoch.
    pub atime: i64,
    /// `st_mtime` in nanoseconds since the epoch.
    pub mtime: i64,
    /// Extended attributes, by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry was before its step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// A regular file. Steps of one root with one `ino` were hard links of one file.
    File {
        /// `st_ino`: never compared across mounts of other file systems.
        ino: u64,
        /// `st_size`.
        size: Bytes,
        /// `st_nlink`.
        nlink: u32,
        /// Its content, which the object holds too.
        content: ContentId,
        /// The rest.
        metadata: Metadata,
    },
    /// A symbolic link.
    Link {
        /// Its target, exactly.
        target: Vec<u8>,
        /// The rest.
        metadata: Metadata,
    },
    /// Nothing: the step adds the name.
    Absent,
    /// A directory; what was below it is told by [`Record::Tree`].
    Tree {
        /// The directory's own.
        metadata: Metadata,
    },
}

/// One entry that is about to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The plan's step.
    pub step: u32,
    /// The root, by its number in [`Record::Begin`].
    pub root: RootId,
    /// The entry.
    pub path: RootPath,
    /// The temporary name beside it.
    pub temporary: Vec<u8>,
    /// What it was.
    pub before: Before,
    /// What it becomes: a link with this target; empty for what becomes no link.
    pub target: Vec<u8>,
    /// The object that the link leads to.
    pub object: Option<ObjectName>,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The entry is what the plan says, and flushed.
    Done,
    /// The entry is what it was: it had changed, was busy, or the run was cut off.
    RolledBack,
    /// Somebody else put something there meanwhile: it was left alone.
    Superseded,
    /// It could not be brought to an end: looked at again by the next recovery.
    Parked,
    /// Put back by undo.
    Undone,
}

impl Outcome {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::RolledBack => "rolled_back",
            Self::Superseded => "superseded",
            Self::Parked => "parked",
            Self::Undone => "undone",
        }
    }
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The first: what the run is about.
    Begin {
        /// The version of the records.
        version: u32,
        /// The run.
        run: RunId,
        /// Seconds since the epoch.
        time_seconds: u64,
        /// The version of the tool.
        tool: String,
        /// What was asked for.
        settings: PlanSettings,
        /// The roots.
        roots: Vec<PlannedRoot>,
        /// How many steps the plan has.
        steps: u32,
    },
    /// An object is about to be linked into the store; it stays as long as a run needs it.
    Object {
        /// Its name.
        name: ObjectName,
        /// What it holds.
        content: ContentId,
        /// `st_size`.
        size: Bytes,
    },
    /// The host's own link at the mount point is about to be made.
    HostLink {
        /// Where.
        path: HostPath,
        /// Its target.
        target: Vec<u8>,
    },
    /// A configuration file on the host is about to be written.
    Config {
        /// The plan's step.
        step: u32,
        /// What changes.
        change: ConfigChange,
    },
    /// The store is about to be attached below, or inside, a root.
    Attach {
        /// The plan's step.
        step: u32,
        /// The root.
        root: RootId,
        /// The mount point below the root.
        path: RootPath,
        /// The mount point itself was made for it.
        made: bool,
    },
    /// What is below a directory that is about to be taken away, for undo.
    Tree {
        /// The plan's step.
        step: u32,
        /// Entries below it, parents first: path from the directory, and what it is.
        entries: Vec<(RootPath, Before)>,
    },
    /// Entries that are about to be changed, or put back.
    Intents(Vec<Intent>),
    /// Steps that ended.
    Ended {
        /// Which.
        steps: Vec<u32>,
        /// How.
        outcome: Outcome,
        /// Why, where it is not what the plan says.
        cause: Option<String>,
    },
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
