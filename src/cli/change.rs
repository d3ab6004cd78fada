//! What the commands that change something have in common.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;

use cbin_audit::model::{Left, Outcome, Recovered, RunState};
use cbin_audit::ops::ExecError;
use cbin_audit::render::escape::{escape, escape_controls};
use cbin_audit::render::json;
use serde::Serialize;

use super::exit::Exit;
use super::message::Hinted;

/// Where the journal is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct JournalAt {
    /// Keep the journal of what was changed in DIR
    #[arg(long = "journal", value_name = "DIR", default_value = "/var/lib/cbin-audit")]
    pub(crate) dir: PathBuf,
}

/// Lines of a list on a screen.
const MOST: usize = 20;

/// The status that says what kind of error it was.
pub(crate) fn exit(error: &anyhow::Error) -> Exit {
    match error.downcast_ref::<ExecError>() {
        Some(ExecError::Locked(_)) => Exit::Locked,
        Some(ExecError::JournalDamaged { .. } | ExecError::ObjectDamaged { .. }) => Exit::Damaged,
        Some(ExecError::Stopped { .. } | ExecError::JournalPoisoned { .. }) => Exit::Stopped,
        _ => Exit::Failed,
    }
}

/// An error with what can be done about it.
pub(crate) fn hinted(error: ExecError) -> anyhow::Error {
    let hint = match &error {
        ExecError::Locked(_) => "wait until it is done; the lock ends with it",
        ExecError::Stopped { .. } | ExecError::JournalPoisoned { .. } => {
            "cbin-audit recover brings it to an end, cbin-audit undo puts it back"
        }
        ExecError::Space { .. } => "nothing was changed; free some space, and run it again",
        ExecError::Inodes { .. } => {
            "nothing was changed; remove some files there, and run it again (`df -i` counts them)"
        }
        ExecError::ObjectDamaged { .. } => {
            "nothing was deleted; cbin-audit verify names all that is damaged"
        }
        ExecError::NoRun { .. } | ExecError::NothingToUndo(_) | ExecError::NoSuchRoot { .. } => {
            "cbin-audit history lists the runs; --journal DIR names another journal"
        }
        ExecError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            "run it as root"
        }
        _ => return error.into(),
    };
    Hinted::new(error, hint).into()
}

/// Prints a document, or the text.
pub(crate) fn print(
    json: bool,
    document: &impl Serialize,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        json::write(&mut out, document)?;
    } else {
        out.write_all(text().as_bytes())?;
    }
    out.flush()?;
    Ok(())
}

/// What was left as it is, and why.
pub(crate) fn left(left: &[Left]) -> String {
    let mut text = String::new();
    for left in left.iter().take(MOST) {
        let (path, cause) = (escape(left.on_host.as_bytes()), escape_controls(&left.cause));
        // Writing into a String cannot fail.
        let _infallible = writeln!(text, "  {path}: {cause}");
    }
    if left.len() > MOST {
        let _infallible = writeln!(text, "  {} more: --json names them", left.len() - MOST);
    }
    text
}

/// Runs that were cut off before.
pub(crate) fn recovered(runs: &[Recovered]) -> String {
    let mut text = String::new();
    for run in runs {
        let count =
            |outcome: Outcome| run.entries.iter().filter(|entry| entry.outcome == outcome).count();
        let state = match run.state {
            RunState::Unfinished => "could not be brought to an end yet".to_owned(),
            state => format!("is now {}", words(state)),
        };
        let _infallible = writeln!(
            text,
            "run {} was cut off and {state}: {} entries looked at, {} rolled back, {} kept as others left them, {} open",
            run.run,
            run.entries.len(),
            count(Outcome::RolledBack),
            count(Outcome::Superseded),
            count(Outcome::Parked),
        );
    }
    text
}

/// A state, in a sentence.
pub(crate) fn words(state: RunState) -> &'static str {
    match state {
        RunState::Applied => "applied",
        RunState::Partial => "applied in part",
        RunState::RolledBack => "rolled back",
        RunState::Undone => "undone",
        RunState::PartlyUndone => "undone in part",
        RunState::Unfinished => "unfinished",
    }
}
