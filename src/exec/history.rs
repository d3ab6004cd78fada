//! The runs of a journal, in short. Nothing is changed, and no lock is taken.

use std::path::Path;

use super::error::ExecError;
use super::journal::{self, Short};
use crate::model::{HostPath, Outcome, RunId, RunSummary};

/// The runs of a journal, oldest first. One whose file is damaged is among them.
///
/// # Errors
///
/// When the journal's directory cannot be read.
pub fn history(journal: &Path) -> Result<Vec<RunSummary>, ExecError> {
    let mut runs = Vec::new();
    for id in journal::runs(journal)? {
        match journal::in_short(journal, id) {
            Ok(run) => runs.extend(run.as_ref().map(summary)),
            Err(error @ (ExecError::JournalDamaged { .. } | ExecError::JournalNewer { .. })) => {
                runs.push(damaged(id, &error));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(runs)
}

fn summary(run: &Short) -> RunSummary {
    let ended = |outcome| run.outcomes.values().filter(|it| **it == outcome).count() as u64;
    RunSummary {
        run: run.begin.run,
        time_seconds: run.begin.time_seconds,
        state: Some(run.state),
        store: run.begin.store.clone(),
        steps: run.begin.steps.into(),
        standing: ended(Outcome::Done),
        undone: ended(Outcome::Undone),
        roots: run.begin.roots.iter().map(|root| root.path.clone()).collect(),
        damage: None,
    }
}

fn damaged(run: RunId, error: &ExecError) -> RunSummary {
    RunSummary {
        run,
        time_seconds: 0,
        state: None,
        store: HostPath::from(""),
        steps: 0,
        standing: 0,
        undone: 0,
        roots: Vec::new(),
        damage: Some(error.to_string()),
    }
}
