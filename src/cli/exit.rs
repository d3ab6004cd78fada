//! Exit statuses.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, and complete.
    Done,
    /// An error: it was not done.
    Failed,
    /// The command line was not understood.
    Usage,
    /// Done in part: something could not be read, or was cut off by a limit.
    Partial,
    /// The store or the journal is damaged.
    Damaged,
    /// A change was stopped half way.
    Stopped,
    /// Another cbin-audit is at work.
    Locked,
    /// `report --check` found something.
    Found,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Partial => 3,
            Exit::Damaged => 4,
            Exit::Stopped => 5,
            Exit::Locked => 6,
            Exit::Found => 10,
        })
    }
}
