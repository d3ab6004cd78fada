//! What commands that change something came to.

use super::{Bytes, HostPath, Outcome, RootId, RootPath, RunId, RunState};

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The step's number.
    pub step: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where it is not what the plan says.
    pub cause: Option<String>,
    /// Disk blocks that no name leads to any more.
    pub freed: Bytes,
}

/// A step that was not carried out, or an entry that was not put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The plan's step.
    pub step: u32,
    /// Whose entry.
    pub root: RootId,
    /// The entry; empty for the root itself.
    pub path: RootPath,
    /// The entry on the host.
    pub on_host: HostPath,
    /// Why.
    pub cause: String,
}

/// A run that was cut off, and what it was left in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The run.
    pub run: RunId,
    /// Its state now; [`RunState::Unfinished`] where something could not be brought to an end.
    pub state: RunState,
    /// Entries that were looked at, and how they ended.
    pub entries: Vec<Changed>,
}

/// What carrying out a plan came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The run; `None`: there was nothing to do.
    pub run: Option<RunId>,
    /// What it is left in.
    pub state: RunState,
    /// Entries that were changed.
    pub changed: u64,
    /// Steps that were not carried out.
    pub left: Vec<Left>,
    /// What remains for the operator to do, as sentences.
    pub advice: Vec<String>,
    /// Disk blocks of displaced files that no name leads to any more.
    pub freed: Bytes,
    /// Disk blocks of objects that are new in the store.
    pub stored: Bytes,
    /// Processes that still run from the old files: memory is saved once they have ended.
    pub pending_restart: Vec<PendingRestart>,
    /// Runs that were cut off before, and were brought to an end first.
    pub recovered: Vec<Recovered>,
}

/// A process that runs from a file that was displaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRestart {
    /// Its number.
    pub pid: u32,
    /// Its name, as it calls itself.
    pub comm: String,
    /// The root of the file.
    pub root: RootId,
    /// The entry that the file had.
    pub path: HostPath,
}

/// What an undo came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// The run.
    pub run: RunId,
    /// What it is left in.
    pub state: RunState,
    /// Entries that are as they were.
    pub restored: u64,
    /// Entries that were kept as they are, and why.
    pub kept: Vec<Left>,
    /// What else could not be put back, on the host.
    pub surroundings: Vec<(HostPath, String)>,
    /// Runs that were cut off before, and were brought to an end first.
    pub recovered: Vec<Recovered>,
}

/// What a collection of the store came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// Objects that are gone, with the blocks that they took.
    pub removed: Vec<(HostPath, Bytes)>,
    /// Objects that a run needs.
    pub kept: u64,
}

/// One run of the journal, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// Seconds since the epoch.
    pub time_seconds: u64,
    /// Its state; `None` where its file is damaged.
    pub state: Option<RunState>,
    /// The store on the host.
    pub store: HostPath,
    /// Entries of the plan.
    pub steps: u64,
    /// Entries that stand as the plan wants them.
    pub standing: u64,
    /// Entries that were put back.
    pub undone: u64,
    /// The roots.
    pub roots: Vec<HostPath>,
    /// What is wrong with its file.
    pub damage: Option<String>,
}
