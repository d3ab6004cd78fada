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
    /// `report --check` found something.
    #[expect(dead_code, reason = "the command that finds comes next")]
    Found,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Partial => 3,
            Exit::Found => 10,
        })
    }
}
